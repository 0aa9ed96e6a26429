"""A ledger with many decisions, as a year of releases leaves them, for what must be fast there."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from safegen.errors import Refused
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

    ledger, stated, open_ = place / "ledger.db", place / "stated.parquet", place / "open.parquet"
    pq.write_table(example_table(600), stated)
    pq.write_table(example_table(500), open_)
    attest(stated, by="a person", ledger=ledger)
    made = place / "stated-baseline"
    for policy, sources in (
        ("baseline", (stated,)),
        ("strict", (stated,)),
        ("lab", (stated,)),
        ("baseline", (open_,)),
        ("strict", (open_,)),
        ("baseline", (stated, made)),
        ("anchored", (stated, made)),
    ):
        with suppress(Refused):
            generator = Generator("sdv.gaussian_copula", policy=policy, ledger=ledger)
            generator.fit(*sources, seed=1)
            generator.generate(600, place / f"{'-'.join(s.stem for s in sources)}-{policy}")
    books = open_ledger(ledger)
    found = ([e.payload for e in books.log(kind=kind)] for kind in ("policy", "decision"))
    policies, decisions = found
    return policies, decisions
