"""A ledger with many decisions, as a year of releases leaves them, for what must be fast there."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from safegen.errors import AdmissionRefused, Refused
from safegen.generator import Generator
from safegen.ledger import Ledger, open_ledger
from safegen.statements import attest
from safegen.testing.examples import example_table

__all__ = ["record_decisions"]

_FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def record_decisions(ledger: Ledger, count: int) -> None:
    """Put so many decisions into a ledger, with the policies that took them: admissions and
    releases, allowed and refused, by several policies, each as the gates wrote one like it."""
    with tempfile.TemporaryDirectory() as folder:
        policies, decisions = _written(Path(folder))
    for payload in policies:
        ledger.record("policy", payload)
    step = timedelta(days=365) / max(count, 1)
    for k, payload in enumerate(islice(cycle(decisions), count)):
        time = (_FIRST + k * step).strftime("%Y-%m-%dT%H:%M:%SZ")
        subject = [f"{s} ({k})" for s in payload["subject"]]
        ledger.record("decision", {**payload, "time": time, "subject": subject})


def _written(place: Path) -> tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]]]:
    """The policies and decisions of some runs, as the log has them."""
    import pyarrow.parquet as pq

    ledger = place / "ledger.db"
    for k, name in enumerate(("stated", "unstated")):
        pq.write_table(example_table(2_000), place / f"{name}.parquet")
        if name == "stated":
            attest(place / f"{name}.parquet", by="a person", ledger=ledger)
        for policy in ("baseline", "strict", "lab"):
            with suppress(Refused):
                made = Generator("sdv.gaussian_copula", policy=policy, ledger=ledger)
                made.fit(place / f"{name}.parquet", seed=k)
                made.generate(2_000, place / f"{name}-{policy}")
    for policy in ("baseline", "anchored"):
        with suppress(AdmissionRefused):
            again = Generator("sdv.gaussian_copula", policy=policy, ledger=ledger)
            again.fit(place / "stated.parquet", place / "stated-baseline", seed=1)
    books = open_ledger(ledger)
    found = ([e.payload for e in books.log(kind=kind)] for kind in ("policy", "decision"))
    policies, decisions = found
    return policies, decisions
