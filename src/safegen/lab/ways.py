"""What each arm of a backend's loop does: what the next fit is shown, under which policy, and for
the negative controls which rows of a release somebody without safegen would have picked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from safegen.policy import Policy, TailsParams
from safegen.tables.batches import WEIGHT_COLUMN, is_provenance
from safegen.tables.sources import read_source

if TYPE_CHECKING:
    from safegen.tables.schema import TableSchema

__all__ = ["POOL", "WAYS", "Way"]

POOL = 4
"""Candidates a row of the controls that pick by themselves: as many as selection has."""

Sources = Callable[[Path, Sequence[Path], np.random.Generator], list[Path]]
Pick = Callable[[pa.Table, pa.Table, "TableSchema", np.random.Generator], pa.Table]


@dataclass(frozen=True)
class Way:
    """sources: of the real rows and all releases so far, what the next fit is shown. policy: under
    which. pick: of a release of `times` rows per real row, with its provenance columns, those that
    count as the arm's. again: whether there is another fit after the first. raw: the backend's
    library as its own documentation has it, instead of the backend."""

    sources: Sources
    policy: Callable[[], Policy]
    pick: Pick | None = None
    times: int = 1
    again: bool = True
    raw: bool = False


def _lab() -> Policy:
    return Policy.load("lab")


def _anchored() -> Policy:
    return Policy.load("anchored")


def _without(*rules: str) -> Callable[[], Policy]:
    """`anchored` without these rules; lineage, which no policy is without, at audit."""

    def policy() -> Policy:
        whole = _anchored()
        changed = {
            name: whole.rule(name).model_copy(
                update={"severity": "audit" if name == "lineage" else "off"}
            )
            for name in rules
        }
        return whole.model_copy(update={"rules": {**whole.rules, **changed}})

    return policy


def _boosting() -> Policy:
    """`lab` with a tails rule: levels and tails of up to 5 % fivefold, up to half of all rows."""
    lab = _lab()
    tails = TailsParams(severity="enforce", rare=0.05, max_boosted=0.5)
    return lab.model_copy(update={"rules": {**lab.rules, "tails": tails}})


def _last(real: Path, made: Sequence[Path], rng: np.random.Generator) -> list[Path]:
    return [made[-1]] if made else [real]


def _kept(real: Path, made: Sequence[Path], rng: np.random.Generator) -> list[Path]:
    return [real, *made[-1:]]


def _all(real: Path, made: Sequence[Path], rng: np.random.Generator) -> list[Path]:
    return [real, *made]


def _some(real: Path, made: Sequence[Path], rng: np.random.Generator) -> list[Path]:
    """As many rows as are real, at random of all so far; each part keeps its provenance."""
    import pyarrow.parquet as pq

    tables = [t.table() for p in (real, *made) for t in read_source(p).tables.values()]
    sizes = [t.num_rows for t in tables]
    counts = rng.multivariate_hypergeometric(sizes, sizes[0])
    found = []
    for path, table, count in zip((real, *made), tables, counts, strict=True):
        if count:
            rows = np.sort(rng.choice(table.num_rows, count, replace=False))
            place = real.with_name(f"some-{len(made)}-{path.stem}.parquet")
            pq.write_table(table.take(pa.array(rows)), place)
            found.append(place)
    return found


def _plain(table: pa.Table) -> pa.Table:
    return table.select([n for n in table.column_names if not is_provenance(n)])


def _raked(
    made: pa.Table, real: pa.Table, schema: TableSchema, rng: np.random.Generator
) -> pa.Table:
    """By the marginals alone."""
    from safegen.shaping.coding import Coder
    from safegen.shaping.drawing import inclusion, systematic
    from safegen.shaping.raking import raked

    coder = Coder.of(real, schema)
    rows = coder.code(_plain(made))
    margins = [(i,) for i in range(len(coder.columns))]
    weights = raked(coder, coder.code(real), rows, margins, cap=POOL, sweeps=25).weights(rows)
    count = made.num_rows // POOL
    return made.take(pa.array(systematic(inclusion(weights, count), count, rng)))


def _top(made: pa.Table, real: pa.Table, schema: TableSchema, rng: np.random.Generator) -> pa.Table:
    """Those that a classifier takes for the most real."""
    from safegen.measure.classifiers import real_looking

    scores = real_looking(real, _plain(made), schema)
    return made.take(pa.array(np.argsort(-scores, kind="stable")[: made.num_rows // POOL]))


def _biased(
    made: pa.Table, real: pa.Table, schema: TableSchema, rng: np.random.Generator
) -> pa.Table:
    """Those that a classifier takes for rows of a part of reality: without those of the rarer half
    of the target's classes, but for one in five."""
    import pyarrow.compute as pc

    from safegen.measure.classifiers import real_looking
    from safegen.shaping.drawing import inclusion, systematic

    assert schema.target is not None
    most = pc.mode(real.column(schema.target).dictionary_encode().combine_chunks().indices)[0]
    codes = np.asarray(real.column(schema.target).dictionary_encode().combine_chunks().indices)
    usual = codes == most["mode"].as_py()
    known = real.filter(pa.array(usual | (rng.random(len(usual)) < 0.2)))
    scores = np.clip(np.exp(real_looking(known, _plain(made), schema)), 1e-3, POOL)
    count = made.num_rows // POOL
    return made.take(pa.array(systematic(inclusion(scores, count), count, rng)))


def _unweighted(
    made: pa.Table, real: pa.Table, schema: TableSchema, rng: np.random.Generator
) -> pa.Table:
    """As if they had no weights; all but one, for the ledger knows that all of them had some."""
    made = made.slice(1)
    at = made.schema.get_field_index(WEIGHT_COLUMN)
    one = pa.array(np.ones(made.num_rows, dtype=np.float32))
    return made.set_column(at, WEIGHT_COLUMN, one)


WAYS: Mapping[str, Way] = {
    "real-only": Way(lambda real, made, rng: [real], _lab),
    "replace": Way(_last, _lab),
    "accumulate": Way(_all, _lab),
    "accumulate-subsample": Way(_some, _lab),
    "keep-all": Way(_kept, _lab),
    "frozen": Way(lambda real, made, rng: [real], _lab, again=False),
    "raw": Way(_last, _lab, raw=True),
    "safeguarded": Way(_kept, _anchored),
    "no-selection": Way(_kept, _without("selection")),
    "no-limit": Way(_all, _without("lineage", "anchor")),
    "no-anchor": Way(_last, _without("lineage", "anchor")),
    "rake-only": Way(_last, _lab, _raked, POOL, raw=True),
    "top-k": Way(_kept, _lab, _top, POOL),
    "biased": Way(_kept, _lab, _biased, POOL),
    "unweighted": Way(_last, _boosting, _unweighted),
}
"""By arm."""
