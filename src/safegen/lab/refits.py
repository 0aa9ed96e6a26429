"""Loops of a backend through safegen's own front door: what tables and images have in common.

Each fit and each sample is a `Generator`: of the plain arms under the policy `lab`, which records
what other policies refuse, of the safeguarded ones under `anchored`, as anybody would call it. The
effective depth of each release is the one that its manifest states.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from safegen.errors import Refused, UsageError
from safegen.lab.arms import Arm
from safegen.lab.settings import whole
from safegen.lab.store import Run
from safegen.lab.ways import WAYS, Way
from safegen.places import local
from safegen.tables.batches import WEIGHT_COLUMN
from safegen.tables.sources import SourceLike, read_source
from safegen.tables.streams import stream

if TYPE_CHECKING:
    from safegen.generator import Generator
    from safegen.manifest import Manifest
    from safegen.tables.schema import TableSchema

__all__ = [
    "EXTENT",
    "RAW",
    "Measure",
    "Refits",
    "check_options",
    "real_rows",
    "real_table",
    "realities",
    "reality",
]

EXTENT = ("arms", "chains")
"""Settings of a run that its pieces do not depend on."""

RAW: Mapping[str, str] = {
    "sdv.gaussian_copula": "GaussianCopulaSynthesizer",
    "sdv.ctgan": "CTGANSynthesizer",
    "sdv.tvae": "TVAESynthesizer",
    "sdv.copula_gan": "CopulaGANSynthesizer",
}
"""By backend, SDV's synthesizer behind it."""

Measure = Callable[[pa.Table, np.ndarray], Mapping[str, Any]]
"""What is recorded of the rows of a release, with their weights."""

Judge = Callable[[pa.Table, np.ndarray], str]
"""The checks of a release gate that rows and weights do not meet, by name."""


def check_options(backend: str, options: Mapping[str, Any]) -> None:
    """Find out before a run has a folder. Raises: UnknownBackend, UsageError."""
    from safegen.generator import Generator

    Generator(backend, "lab", options=options)


def real_table(data: SourceLike) -> tuple[pa.Table, str]:
    """A source's one table without provenance columns, and its digest. Raises: UsageError,
    SourceError."""
    from safegen.lineage.evidence import resolve

    source = read_source(data)
    if len(source.tables) != 1:
        raise UsageError("data: one table")
    ((_, batches),) = source.tables.items()
    table = batches.without_provenance().table().replace_schema_metadata(None)
    return table, resolve(source, None).logical_digest


def real_rows(
    rows: int | Sequence[int], real: pa.Table, *, most: int, held: int, what: str = "rows"
) -> int:
    """How many rows of the real table are a chain's, one number of at most `most`; `held` more are
    left over, to measure against. Raises: UsageError."""
    if not isinstance(rows, int):
        if len(rows) != 1:
            raise UsageError("rows: one number here")
        (rows,) = rows
    whole(rows=(rows, 100, most))
    if real.num_rows < rows + held:
        raise UsageError(
            f"rows: at most {max(0, real.num_rows - held):,}, so that {held} of the "
            f"{real.num_rows:,} {what} are left to measure against"
        )
    return rows


def reality(chain: int) -> str:
    """The name of the piece in which a chain's real rows are measured as releases are."""
    return f"real-{chain}"


def realities(run: Run) -> pa.Table:
    """A row per chain: what its real rows show, measured so. Raises: TargetError."""
    return pa.concat_tables([run.records(reality(c)) for c in range(run.settings["chains"])])


@dataclass(frozen=True)
class Refits:
    """A backend that is fitted and sampled `depth` times in each chain of each arm."""

    run: Run
    arms: Sequence[Arm]
    backend: str
    options: Mapping[str, Any]
    schema: TableSchema
    depth: int
    seed: int

    def done(self, chain: int) -> bool:
        """Whether the run has the records of all arms of a chain."""
        return all(self.run.done(f"{arm.name}-{chain}") for arm in self.arms)

    def play(
        self,
        chain: int,
        real: pa.Table,
        measured: Measure,
        judge: Judge | None,
        advance: Callable[[int], None],
    ) -> None:
        """Keep a piece of records of every arm of a chain, but for those that the run has.

        real: the chain's real rows; each release has as many. judge: of rows that the release gate
        has not held against these, or not as they are; None where it is not asked. `advance` is
        told of each fit.

        Raises: what fitting and generating raise; Refused only where an arm's first release is.
        """
        for arm in self.arms:
            if self.run.done(piece := f"{arm.name}-{chain}"):
                advance(self.depth)
            else:
                self.run.keep(piece, self._records(arm, chain, real, measured, judge, advance))

    def _records(
        self,
        arm: Arm,
        chain: int,
        real: pa.Table,
        measured: Measure,
        judge: Judge | None,
        advance: Callable[[int], None],
    ) -> pa.Table:
        """A row per fit: effective depth, and what was measured of its release.

        Where a policy refuses, the loop has no other release than its last one: the next fit sees
        that one again, and its measurements stand once more, beside the rules that refused.
        """
        way = WAYS[arm.name]
        found: list[dict[str, Any]] = []
        last: dict[str, Any] = {}
        with tempfile.TemporaryDirectory(prefix="safegen-lab-") as name:
            place = Path(name)
            pq.write_table(real, first := place / "real.parquet")
            made: list[Path] = []
            shown: list[Path] = []
            gen: Generator | None = None
            for t in range(1, self.depth + 1):
                key = int(stream(self.seed, 2, chain, t).generate_state(1)[0])
                rng = np.random.default_rng(stream(self.seed, 3, chain, t))
                refused = ""
                try:
                    if gen is None or way.again:
                        shown = way.sources(first, made, rng)
                        gen = self._fitted(way, shown, place, key)
                    count = way.times * real.num_rows
                    dataset = gen.generate(count, place / f"{t}", seed=key, workers=1)
                except Refused as error:
                    if not made:
                        raise
                    refused = ", ".join(
                        r.finding.name for r in error.decision.judged if r.outcome == "block"
                    )
                else:
                    path, weights, rows = dataset.path, dataset.weights(), dataset.to_arrow()
                    if way.pick is not None:
                        whole = dataset.to_arrow(provenance=True)
                        picked = way.pick(whole, real, self.schema, rng)
                        path = place / f"{t}.parquet"
                        pq.write_table(picked, path)
                        rows = picked.select(rows.column_names)
                        weights = np.asarray(picked.column(WEIGHT_COLUMN))
                    # The gate itself has held a release against the real rows that it was told of.
                    told = way.pick is None and first in shown
                    faults = _unmet(dataset.manifest) if told or not judge else judge(rows, weights)
                    made.append(local(path, "a release of the lab"))
                    depth = float(dataset.manifest.effective_depth)
                    last = {
                        "effective_depth": depth,
                        **measured(rows, weights),
                        "faults": faults,
                    }
                found.append(
                    {"arm": arm.name, "chain": chain, "fit": t, "refused": refused, **last}
                )
                advance(1)
        return pa.Table.from_pylist(found)

    def _fitted(self, way: Way, sources: list[Path], place: Path, key: int) -> Generator:
        """A generator of an arm's way, fitted on these sources."""
        from safegen.generator import Generator

        if way.raw:
            return _raw(self.backend, self.options, sources, key, place / "ledger.db")
        gen = Generator(
            self.backend, way.policy(), options=self.options, ledger=place / "ledger.db"
        )
        return gen.fit(*sources, schema=self.schema, seed=key)


def _unmet(manifest: Manifest) -> str:
    """The checks that a release did not meet, whatever its policy made of it, by name."""
    release = manifest.decisions[-1]["findings"]
    return ", ".join(name for name, finding in release.items() if finding["status"] == "unmet")


def _raw(
    backend: str, options: Mapping[str, Any], sources: list[Path], key: int, ledger: Path
) -> Generator:
    """The library behind a backend as its documentation has it, adopted: its rows, our manifest."""
    import pandas as pd
    import sdv.single_table
    from sdv.metadata import Metadata

    from safegen.backends.undisturbed import undisturbed
    from safegen.generator import Generator

    if backend not in RAW:
        raise UsageError(f"the arm raw is for {', '.join(RAW)}")
    (source,) = sources
    table = read_source(source).tables
    ((_, batches),) = table.items()
    frame: pd.DataFrame = batches.without_provenance().table().to_pandas()
    with undisturbed():
        np.random.seed(key)  # inside, nobody else's
        metadata = Metadata.detect_from_dataframes({"table": frame})
        synthesizer = getattr(sdv.single_table, RAW[backend])(metadata, **options)
        synthesizer.fit({"table": frame})
    return Generator.wrap(synthesizer, trained_on=source, policy="lab", ledger=ledger)
