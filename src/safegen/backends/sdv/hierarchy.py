"""Fitted related tables: parents are drawn with their children's parameters, then the children.

A tier is one table. Its features are its own columns', and for each reference to it three kinds
more, one set per child feature: how many children a row has, and the mean and the spread of their
scores. That is conditional parameter aggregation (Patki, Wedge and Veeramachaneni 2016, "The
Synthetic Data Vault", IEEE DSAA), SDV's HMA.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safegen.backends.arrays import check_block, load_arrays, read_document, whole
from safegen.backends.sdv.copula import read_marginals
from safegen.backends.sdv.marginals import Quantiles
from safegen.backends.sdv.nested import centred, deviations_of_means
from safegen.backends.sdv.tiers import Link, Tier, all_features, state_name
from safegen.backends.undisturbed import one_thread
from safegen.contracts import Scalar
from safegen.errors import UsageError, reading
from safegen.tables.codec import Codec
from safegen.tables.relations import generations, references
from safegen.tables.streams import stream

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BLOCK_ROWS", "HierarchyModel"]

FORMAT = "safegen.hierarchy/1"
BLOCK_ROWS = 1_024  # rows of the tables that refer to no other; children come on top
COMPANY = 64  # rows and places that are matched to each other at once
LEAST_SPREAD = 0.05


@dataclass
class _Drawn:
    """The rows of one table in a block, ordered by the unit at which they are complete."""

    values: dict[str, np.ndarray]
    unit: np.ndarray
    root: str
    parents: dict[str, np.ndarray]  # by foreign key: the parent's row; -1 for null


@dataclass(frozen=True, eq=False)
class HierarchyModel:
    """Related tables. Sampling changes nothing: block i depends on (seed, i) only."""

    tiers: Mapping[str, Tier]
    shares: tuple[tuple[str, int], ...]  # of the tables that refer to no other: their rows

    def sample(
        self,
        rows: int,
        *,
        seed: int,
        block: int,
        conditions: Mapping[str, Scalar] | None = None,
    ) -> dict[str, pa.Table]:
        """`rows` rows of the tables that refer to no other, and what hangs on them.

        A whole block is drawn, and a row is given when all that it refers to is among the first
        `rows`: so fewer are a prefix of more, in every table. A block starts with one row of each
        of these tables; then they share it as they share the source.

        Raises: UsageError for rows or conditions.
        """
        if conditions:
            raise UsageError("sdv.hma takes no conditions")
        check_block(rows, BLOCK_ROWS, seed, block)
        with one_thread():
            drawn = self.drawn(BLOCK_ROWS, [seed, block])
        tables: dict[str, pa.Table] = {}
        for name in self._order:
            kept = int(np.searchsorted(drawn[name].unit, rows, "left"))
            tables[name] = self._table(name, drawn[name], kept, tables, seed, block)
        return {name: tables[name] for name in self.tiers}

    @cached_property
    def _order(self) -> tuple[str, ...]:
        return generations({n: t.codec.schema for n, t in self.tiers.items()})

    def drawn(
        self, units: int, seed: Sequence[int], calibrate: dict[str, Tier] | None = None
    ) -> dict[str, _Drawn]:
        """All rows of one draw. With `calibrate`, a pilot's: takes the tiers calibrated by it."""
        found: dict[str, _Drawn] = {}
        owner = _shared(self.shares, units)
        for index, name in enumerate(self._order):
            tier = self.tiers[name]
            rng = np.random.Generator(np.random.Philox(stream(*seed, index)))
            if not tier.links:
                unit = np.flatnonzero(owner == [n for n, _ in self.shares].index(name))
                values = tier.values(tier.normals(len(unit), rng))
                found[name] = _Drawn(values, unit, name, {})
                continue
            first = tier.links[0]
            above = found[first.reference.parent]
            counts = np.rint(above.values[first.name("rows")])
            parent = np.repeat(
                np.arange(len(counts)), np.clip(counts, 0, first.most).astype(np.int64)
            )
            mean, spread = _parameters(tier, 0, above)
            around = centred(tier.normals(len(parent), rng), parent, len(counts))
            scores = mean[parent] + spread[parent] * around
            if calibrate is not None:
                tier = calibrate[name] = tier.calibrate(scores)
            scores = tier.calibrated(scores)
            mine = _Drawn(tier.values(scores), above.unit[parent], above.root, {})
            mine.parents[first.reference.column] = parent
            for number, link in enumerate(tier.links[1:], 1):
                self._match(number, tier, scores, mine, found[link.reference.parent], rng)
            found[name] = _settled(mine, tier, found)
        return found

    def _match(
        self,
        index: int,
        tier: Tier,
        scores: np.ndarray,
        mine: _Drawn,
        above: _Drawn,
        rng: np.random.Generator,
    ) -> None:
        """Another parent for each row: one that still has room, by the likelihood of the row.

        Parents lend as many places as they have children. Rows and places of the same root row
        (else: at the same point of the block) meet in groups of 64, and each row takes one of the
        group's free places with the likelihood of its scores there.
        """
        link = tier.links[index]
        parents = np.full(len(mine.unit), -1)
        mine.parents[link.reference.column] = parents
        there = np.flatnonzero(~_is_null(link, mine))
        counts = np.clip(np.rint(above.values[link.name("rows")]), 0, link.most).astype(np.int64)
        places = np.repeat(np.arange(len(counts)), counts)
        places = places if len(places) else np.arange(len(counts))
        if not len(there) or not len(places):
            return
        related = mine.root == above.root
        lane = mine.unit[there] if related else np.zeros(len(there), np.int64)
        lanes = above.unit[places] if related else np.zeros(len(places), np.int64)
        taken = places[_opposite(lane, lanes)]
        mean, spread = _parameters(tier, index, above)
        for start in range(0, len(there), COMPANY):
            rows, some = there[start : start + COMPANY], taken[start : start + COMPANY]
            gap = (scores[rows][:, None, :] - mean[some][None]) / spread[some][None]
            fit = -0.5 * (gap**2).sum(axis=2) - np.log(spread[some]).sum(axis=1)
            if related:
                fit -= 1e12 * (mine.unit[rows][:, None] != above.unit[some][None])
            fit += rng.gumbel(size=fit.shape)
            for i, row in enumerate(rows):
                place = int(np.argmax(fit[i]))
                parents[row] = some[place]
                fit[:, place] = -np.inf

    def _table(
        self,
        name: str,
        drawn: _Drawn,
        kept: int,
        tables: Mapping[str, pa.Table],
        seed: int,
        block: int,
    ) -> pa.Table:
        import pyarrow as pa

        tier = self.tiers[name]
        features = {n: v[:kept] for n, v in drawn.values.items()}
        first = block * self._most_rows[name]
        table = tier.codec.decode(features, first_row=first, seed=seed, rows=kept)
        for link in tier.links:
            index = table.schema.get_field_index(link.reference.column)
            row = drawn.parents[link.reference.column][:kept]
            keys = tables[link.reference.parent].column(link.reference.key)
            at = pa.array(row, mask=row < 0)
            table = table.set_column(
                index, table.schema.field(index), _as(keys.take(at), table.schema.field(index).type)
            )
        return table

    @cached_property
    def _most_rows(self) -> dict[str, int]:
        """The most rows that a block can have of each table: surrogates start that far apart."""
        most: dict[str, int] = {}
        for name in self._order:
            links = self.tiers[name].links
            most[name] = (
                most[links[0].reference.parent] * max(links[0].most, 1) if links else BLOCK_ROWS
            )
        return most

    # ---- on disk ---------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write `model.json` and `arrays.npz`: no pickle. The same model gives the same bytes."""
        arrays: dict[str, np.ndarray] = {}
        tiers = []
        for number, (name, tier) in enumerate(self.tiers.items()):
            arrays[f"{number}_correlation"] = tier.correlation
            arrays[f"{number}_variances"] = tier.variances
            for i, marginal in enumerate(tier.marginals):
                arrays |= {f"{number}_{key}_{i}": a for key, a in marginal.arrays().items()}
            for i, (at, probability) in enumerate(tier.knots):
                arrays |= {f"{number}_scores_{i}": at, f"{number}_below_{i}": probability}
            tiers.append(
                {
                    "table": name,
                    "codec": tier.codec.to_json(),
                    "links": [[k.reference.column, k.most, k.nullable] for k in tier.links],
                    "parametric": [
                        isinstance(m, Quantiles) and m.parametric for m in tier.marginals
                    ],
                }
            )
        document = {"format": FORMAT, "tiers": tiers, "shares": self.shares}
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, sort_keys=True, allow_nan=False)
        (folder / "model.json").write_text(text, encoding="utf-8")
        np.savez(folder / "arrays.npz", allow_pickle=False, **arrays)

    @classmethod
    def load(cls, folder: Path) -> HierarchyModel:
        """Read what `save` wrote. Raises: BackendError for anything else."""
        with reading():
            document = read_document(folder / "model.json", FORMAT)
            tiers = _read_tiers(document["tiers"], load_arrays(folder / "arrays.npz"))
            shares = tuple((str(n), whole(count, 1, 1 << 62)) for n, count in document["shares"])
            if [n for n, _ in shares] != [n for n, t in tiers.items() if not t.links]:
                raise ValueError
            return cls(tiers, shares)


def _read_tiers(document: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, Tier]:
    codecs = {str(t["table"]): Codec.from_json(t["codec"]) for t in document}
    schemas = {n: c.schema for n, c in codecs.items()}
    known = {str(r): r for r in references(schemas)}
    links = {
        str(t["table"]): tuple(
            Link(known[f"{t['table']}.{column}"], whole(most, 0, 1 << 40), bool(nullable))
            for column, most, nullable in t["links"]
        )
        for t in document
    }
    if sorted(map(str, known)) != sorted(str(k.reference) for ks in links.values() for k in ks):
        raise ValueError
    features = all_features(codecs, links)
    tiers = {}
    for number, entry in enumerate(document):
        name = str(entry["table"])
        own = {
            key.removeprefix(f"{number}_"): a
            for key, a in arrays.items()
            if key.startswith(f"{number}_")
        }
        marginals = read_marginals(features[name], entry["parametric"], own)
        size = len(marginals)
        correlation = own["correlation"].astype(np.float64)
        if correlation.shape != (size, size) or not np.isfinite(correlation).all():
            raise ValueError
        variances = own["variances"].astype(np.float64)
        if variances.shape != (len(links[name]), 2, size) or not (np.abs(variances) < 1e6).all():
            raise ValueError
        if (variances[:, 1] < 0).any():
            raise ValueError
        knots = []
        for i in range(size if links[name] else 0):
            at, below = own[f"scores_{i}"], own[f"below_{i}"]
            if at.shape != below.shape or not (np.diff(at) > 0).all() or below.min() <= 0:
                raise ValueError
            if not np.isfinite(at).all() or below.max() >= 1 or (np.diff(below) < 0).any():
                raise ValueError
            knots.append((at, below))
        tiers[name] = Tier(
            codecs[name],
            features[name],
            marginals,
            correlation,
            links[name],
            variances,
            tuple(knots),
        )
    return tiers


# ---- small things --------------------------------------------------------------------------------


def _shared(shares: Sequence[tuple[str, int]], units: int) -> np.ndarray:
    """Which of the tables each unit is a row of: one of each, then whichever lags behind most."""
    total = sum(count for _, count in shares)
    wanted = np.array([count / total for _, count in shares])
    owner = np.empty(units, np.int64)
    given = np.zeros(len(shares))
    for unit in range(units):
        lag = wanted * (unit + 1) - given
        owner[unit] = unit if unit < len(shares) else int(np.argmax(lag))
        given[owner[unit]] += 1
    return owner


def _parameters(tier: Tier, index: int, above: _Drawn) -> tuple[np.ndarray, np.ndarray]:
    """Mean and spread of the scores of the rows below each parent, (parents, features) each."""
    link, shape = tier.links[index], (len(above.unit), 0)
    if not tier.features:
        return np.empty(shape), np.empty(shape)
    names = [f.name for f in tier.features]
    mean = np.stack([above.values[link.name("mean", n)] for n in names], axis=1)
    spread = np.stack([above.values[link.name("spread", n)] for n in names], axis=1)
    counts = np.rint(above.values[link.name("rows")])
    mean *= deviations_of_means(tier.variances[index], counts)
    return mean, np.maximum(spread, LEAST_SPREAD)


def _is_null(link: Link, drawn: _Drawn) -> np.ndarray:
    if not link.nullable:
        return np.zeros(len(drawn.unit), dtype=bool)
    null: np.ndarray = drawn.values[state_name(link.reference.column)] == 1
    return null


def _opposite(lane: np.ndarray, lanes: np.ndarray) -> np.ndarray:
    """For each row (its lane, ascending) a place (theirs, ascending): of its own lane in
    proportion, and where that has none, of all."""
    at, size = np.arange(len(lane)), len(lanes)
    start, end = np.searchsorted(lanes, lane, "left"), np.searchsorted(lanes, lane, "right")
    first, last = np.searchsorted(lane, lane, "left"), np.searchsorted(lane, lane, "right")
    share = (at - first + 0.5) / (last - first)
    own = start + (share * (end - start)).astype(np.int64)
    everywhere = ((at + 0.5) / len(lane) * size).astype(np.int64)
    found: np.ndarray = np.where(end > start, own, everywhere)
    return found


def _settled(mine: _Drawn, tier: Tier, found: Mapping[str, _Drawn]) -> _Drawn:
    """The rows whose parents are all there, in the order in which they are complete."""
    keep, unit = np.ones(len(mine.unit), dtype=bool), mine.unit
    for link in tier.links:
        parents, null = mine.parents[link.reference.column], _is_null(link, mine)
        keep &= null | (parents >= 0)
        parents[null] = -1
        above = found[link.reference.parent].unit
        unit = np.where(parents >= 0, np.maximum(unit, above[parents]) if len(above) else 0, unit)
    order = np.flatnonzero(keep)
    order = order[np.argsort(unit[order], kind="stable")]
    return _Drawn(
        {n: v[order] for n, v in mine.values.items()},
        unit[order],
        mine.root,
        {n: p[order] for n, p in mine.parents.items()},
    )


def _as(keys: pa.ChunkedArray, type_: pa.DataType) -> pa.Array:
    """Keys in the type of the column that refers to them."""
    import pyarrow as pa

    from safegen.tables.numbers import decoded, single

    if keys.type == type_:
        return single(keys)
    plain = decoded(keys)
    if not pa.types.is_dictionary(type_):
        return plain.cast(type_)
    coded = plain.cast(type_.value_type).dictionary_encode()
    return pa.DictionaryArray.from_arrays(
        coded.indices.cast(type_.index_type), coded.dictionary, ordered=type_.ordered
    )
