"""Loops of a backend through safegen's own front door: what tables and images have in common.

Each fit and each sample is a `Generator`: of the plain arms under the policy `lab`, which records
what other policies refuse, of the safeguarded one under `anchored`, as anybody would call it. The
effective depth of each release is the one that its manifest states.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from safegen.errors import Refused
from safegen.lab.arms import Arm
from safegen.lab.store import Run
from safegen.tables.streams import stream

if TYPE_CHECKING:
    from safegen.tables.schema import TableSchema

__all__ = ["POLICIES", "SOURCES", "Measure", "Refits", "check_options"]

SOURCES: Mapping[str, Callable[[Path, list[Path]], list[Path]]] = {
    "real-only": lambda real, made: [real],
    "replace": lambda real, made: made[-1:] or [real],
    "accumulate": lambda real, made: [real, *made],
    "keep-all": lambda real, made: [real, *made[-1:]],
    "safeguarded": lambda real, made: [real, *made[-1:]],
}
"""By arm: what the next fit is shown, of the real rows and of all releases so far."""

POLICIES: Mapping[str, str] = {"safeguarded": "anchored"}
"""By arm; that of all others is `lab`."""

Measure = Callable[[pa.Table], Mapping[str, Any]]
"""What is recorded of a release's rows."""


def check_options(backend: str, options: Mapping[str, Any]) -> None:
    """Find out before a run has a folder. Raises: UnknownBackend, UsageError."""
    from safegen.generator import Generator

    Generator(backend, "lab", options=options)


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
        self, chain: int, real: pa.Table, measured: Measure, advance: Callable[[int], None]
    ) -> None:
        """Keep a piece of records of every arm of a chain, but for those that the run has.

        real: the chain's real rows; each release has as many. `advance` is told of each fit.

        Raises: what fitting and generating raise; Refused only where an arm's first release is.
        """
        for arm in self.arms:
            if self.run.done(piece := f"{arm.name}-{chain}"):
                advance(self.depth)
            else:
                self.run.keep(piece, self._records(arm, chain, real, measured, advance))

    def _records(
        self,
        arm: Arm,
        chain: int,
        real: pa.Table,
        measured: Measure,
        advance: Callable[[int], None],
    ) -> pa.Table:
        """A row per fit: effective depth, and what was measured of its release.

        Where a policy refuses, the loop has no other release than its last one: the next fit sees
        that one again, and its measurements stand once more, beside the rules that refused.
        """
        import pyarrow.parquet as pq

        from safegen.generator import Generator

        found: list[dict[str, Any]] = []
        last: dict[str, Any] = {}
        with tempfile.TemporaryDirectory(prefix="safegen-lab-") as name:
            place = Path(name)
            pq.write_table(real, first := place / "real.parquet")
            made: list[Path] = []
            for t in range(1, self.depth + 1):
                gen = Generator(
                    self.backend,
                    POLICIES.get(arm.name, "lab"),
                    options=self.options,
                    ledger=place / "ledger.db",
                )
                key = int(stream(self.seed, 2, chain, t).generate_state(1)[0])
                refused = ""
                try:
                    gen.fit(*SOURCES[arm.name](first, made), schema=self.schema, seed=key)
                    dataset = gen.generate(real.num_rows, place / f"{t}", seed=key, workers=1)
                except Refused as error:
                    if not made:
                        raise
                    refused = ", ".join(error.decision.findings)
                else:
                    made.append(dataset.path)
                    depth = float(dataset.manifest.effective_depth)
                    last = {"effective_depth": depth, **measured(dataset.to_arrow())}
                found.append(
                    {"arm": arm.name, "chain": chain, "fit": t, "refused": refused, **last}
                )
                advance(1)
        return pa.Table.from_pylist(found)
