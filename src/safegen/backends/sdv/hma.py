"""SDV's hierarchical modelling algorithm for related tables, with honest marginals and keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from safegen.backends.options import TableOptions
from safegen.backends.sdv.distributions import Distribution, check_distributions, distributions_of
from safegen.contracts import BackendOptions, Kind
from safegen.errors import SourceError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from safegen.backends.sdv.hierarchy import HierarchyModel
    from safegen.backends.sdv.marginals import Marginal
    from safegen.backends.sdv.tiers import Link, Tier
    from safegen.tables.codec import Codec, Feature
    from safegen.tables.relations import Reference
    from safegen.tables.schema import TableSchema

__all__ = ["HMA", "Options"]

MOST_FEATURES = 1_000


class Options(TableOptions):
    """SDV's options of each table, by SDV's names; columns are named `table.column`."""

    numerical_distributions: dict[str, Distribution] = Field(
        {}, description="SDV's distribution for a numeric or date column, named table.column."
    )
    default_distribution: Literal["empirical"] | Distribution = Field(
        "empirical", description="The distribution of every other numeric or date column."
    )

    def given(self, table: str, schema: TableSchema) -> dict[str, str]:
        """The distributions given for a table's columns, by column; names may hold dots."""
        named = {f"{table}.{column}": column for column in schema.names}
        return {named[n]: d for n, d in self.numerical_distributions.items() if n in named}


class HMA:
    """Related tables: each parent row carries the parameters of its children.

    SDV's HMA fits one copula per parent row, and samples so too: 26 s and 101 s for Berka's
    accounts and orders. Here the parameters of all parents are computed at once, the correlation
    within parents is pooled (with few children each it is noise), each table's marginals are
    empirical and kept by a calibration that is fixed at fit, and nothing is pickled. Foreign keys
    always exist; a further parent is chosen by the likelihood of the row, as in SDV. Any number of
    tables, of levels and of parents.
    """

    name: ClassVar[str] = "sdv.hma"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"tables"})
    license: ClassVar[str] = "BUSL-1.1"
    packages: ClassVar[tuple[str, ...]] = ("sdv", "copulas", "rdt")
    weights: ClassVar[bool] = False
    conditions: ClassVar[bool] = False
    reproducible: ClassVar[bool] = True
    pickles: ClassVar[bool] = False
    block_rows: ClassVar[int] = 1_024  # of the roots; a block also holds all that hangs on them
    Options: ClassVar[type[BackendOptions]] = Options

    def fit(
        self,
        tables: Mapping[str, pa.Table],
        schemas: Mapping[str, TableSchema],
        options: BackendOptions,
        *,
        seed: int,
    ) -> HierarchyModel:
        """Fit related tables; `schemas` say by `references` how. The same input, the same model.

        Raises: SourceError (tables that cannot be used), UsageError (options, references in a
        circle), BackendError (SDV failed), MissingExtra.
        """
        from safegen.backends.sdv.hierarchy import HierarchyModel
        from safegen.backends.sdv.library import require_sdv
        from safegen.backends.undisturbed import undisturbed
        from safegen.progress import progress
        from safegen.tables.relations import generations
        from safegen.tables.schema import check_table
        from safegen.tables.units import roots

        if not isinstance(options, Options):
            raise UsageError("the options are not those of sdv.hma")
        for name, table in tables.items():
            check_table(table, name)
        schemas = dict(sorted(schemas.items()))  # in whatever order they were named
        check_distributions(
            options.numerical_distributions,
            options.default_distribution,
            {f"{n}.{c}": kind for n, s in schemas.items() for c, kind in s.kinds.items()},
            max(t.num_rows for t in tables.values()),
            "empirical, which follows the data as closely",
        )
        require_sdv()
        order = generations(schemas)
        spaces: dict[str, _Space] = {}
        tiers: dict[str, Tier] = {}
        with progress("fitting", len(order), "tables") as advance, undisturbed():
            for name in reversed(order):
                space = _space(name, tables, schemas, spaces, options, seed)
                tiers[name] = space.fitted(name, options, seed)
                spaces[name] = space
                advance(1)
            shares = tuple((n, tables[n].num_rows) for n in roots(schemas))
            calibrated: dict[str, Tier] = {}
            draft = HierarchyModel({n: tiers[n] for n in schemas}, shares)
            rows = sum(t.num_rows for t in tables.values())
            units = round(_PILOT_ROWS * sum(n for _, n in shares) / rows)
            draft.drawn(min(max(units, 64), 8_192), [seed, 1 << 40], calibrated)
        return HierarchyModel({n: calibrated.get(n, tiers[n]) for n in schemas}, shares)

    def load(self, folder: Path) -> HierarchyModel:
        """Read what `HierarchyModel.save` wrote. Raises: BackendError."""
        from safegen.backends.sdv.hierarchy import HierarchyModel

        return HierarchyModel.load(folder)


_PILOT_ROWS = 200_000  # of all tables, in the draw that settles the calibration


@dataclass(frozen=True, eq=False)
class _Space:
    """A table's features with those that references to it add: what a copula is fitted to."""

    codec: Codec
    features: tuple[Feature, ...]
    values: Mapping[str, np.ndarray]
    links: tuple[Link, ...]
    above: tuple[np.ndarray, ...]  # by link: the number of each row's parent, −1 for none
    counted: Mapping[str, str]  # a feature about children → the feature that says how many
    scores: np.ndarray  # (rows, features), once fitted

    @cached_property
    def nominal(self) -> frozenset[str]:
        return self.codec.nominal

    @cached_property
    def _own(self) -> frozenset[str]:
        return frozenset(f.column for f in self.codec.features)

    def is_continuous(self, column: str, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which rows have a number: what is said of children, only where there are any."""
        import numpy as np

        if column in self._own:
            return self.codec.is_continuous(column, features)
        if column not in self.counted:
            return np.ones(len(features[column]), dtype=bool)
        some: np.ndarray = features[self.counted[column]] > 0
        return some

    def fitted(self, name: str, options: Options, seed: int) -> Tier:
        """The table's tier, still without calibration."""
        import numpy as np

        from safegen.backends.sdv.gaussian_copula import fit_copula
        from safegen.backends.sdv.nested import components
        from safegen.backends.sdv.tiers import Tier

        given = options.given(name, self.codec.schema)
        numeric = [f.column for f in self.features if f.kind == "numeric"]
        own = distributions_of(
            [c for c in numeric if c in self._own], given, options.default_distribution
        )
        distributions = {c: own.get(c, "empirical") for c in numeric}
        copula = fit_copula(name, self, self.values, distributions, seed, 1)  # type: ignore[arg-type]
        for i, (feature, marginal) in enumerate(zip(self.features, copula.marginals, strict=True)):
            self.scores[:, i] = self._scored(feature, marginal)
        variances = [
            components(self.scores[at >= 0], at[at >= 0], int(at.max(initial=-1)) + 1)
            for at in self.above
        ]
        return Tier(
            self.codec,
            self.features,
            copula.marginals,
            self._within(copula.marginals) if self.above else copula.correlation,
            self.links,
            np.array(variances).reshape(len(self.above), 2, len(self.features)),
        )

    def _scored(self, feature: Feature, marginal: Any) -> np.ndarray:
        import numpy as np

        from safegen.backends.sdv.marginals import Levels, Quantiles

        values = self.values[feature.name]
        if isinstance(marginal, Levels):
            return marginal.scores(values)
        scores: np.ndarray = np.interp(values, marginal.values, marginal.at)
        if marginal.parametric:
            return scores
        scores = np.zeros(len(values))
        there = self.is_continuous(feature.column, self.values)
        scores[there] = Quantiles.scores(values[there])
        return scores

    def _within(self, marginals: Sequence[Marginal]) -> np.ndarray:
        """The correlation of the normals around their parent's mean, of all parents together."""
        import numpy as np

        from safegen.backends.sdv.dependence import (
            TERMS,
            correlation,
            hermite,
            latent,
            nearest_correlation,
        )
        from safegen.backends.sdv.marginals import Levels, Quantiles
        from safegen.backends.sdv.nested import centred

        size, at = len(self.features), self.above[0]
        if not size:
            return np.zeros((0, 0))
        left = centred(self.scores, at, int(at.max(initial=-1)) + 1)
        left[:, left.std(axis=0) < 1e-9] = 0.0  # does not vary within parents: rounding only
        coefficients = np.eye(1, TERMS).repeat(size, axis=0)
        for i, marginal in enumerate(marginals):
            if isinstance(marginal, Levels) or (
                isinstance(marginal, Quantiles) and not marginal.parametric
            ):
                coefficients[i] = hermite(marginal.cuts, marginal.means)
        found = latent(correlation(list(left.T)), coefficients, np.ones((size, size)))
        return nearest_correlation(found, np.zeros((size, size), dtype=bool))

    def about(self, link: Link, parents: int, at: np.ndarray) -> dict[str, np.ndarray]:
        """What a reference adds to its parent: the children's number, means and spreads."""
        import numpy as np

        from safegen.backends.sdv.nested import components, deviations_of_means, spreads, sums

        held = at >= 0
        at, scores = at[held], self.scores[held]
        counts = np.bincount(at, minlength=parents)
        some = np.maximum(counts, 1)[:, None]
        deviations = deviations_of_means(components(scores, at, parents), counts)
        about = {
            "mean": sums(scores, at, parents) / some / deviations,
            "spread": spreads(scores, at, parents),
        }
        return {link.name("rows"): counts.astype(np.float64)} | {
            link.name(what, feature.name): values[:, i]
            for what, values in about.items()
            for i, feature in enumerate(self.features)
        }


def _space(
    name: str,
    tables: Mapping[str, pa.Table],
    schemas: Mapping[str, TableSchema],
    below: Mapping[str, _Space],
    options: Options,
    seed: int,
) -> _Space:
    """The features of a table whose children are fitted."""
    import numpy as np

    from safegen.backends.sdv.tiers import Link, added, state_name
    from safegen.tables.codec import Feature
    from safegen.tables.constraints import by_table
    from safegen.tables.relations import references
    from safegen.tables.streams import stream

    table = tables[name]
    codec = options.codec(
        table,
        schemas[name],
        seed=seed,
        smooth=frozenset(options.given(name, schemas[name])),
        masses=options.default_distribution != "empirical",
        constraints=by_table(options.constraints, tables)[name],
    )
    values = dict(codec.encode(table, seed=seed))
    features = list(codec.features)
    links: list[Link] = []
    above: list[np.ndarray] = []
    counted: dict[str, str] = {}
    for reference in _ranked(references(schemas), name, tables):
        at = _rows_above(reference, tables)
        null = at < 0
        if null.any():
            state = state_name(reference.column)
            values[state] = null.astype(np.int32)
            features.append(Feature(state, "categorical", 2, state))
        if not above:  # a row without this parent is put to another at random, and stays null
            rng = np.random.default_rng(stream(seed, 3))
            rows = tables[reference.parent].num_rows
            at = np.where(null, rng.integers(0, rows, len(at)), at)
        most = int(np.bincount(at[at >= 0]).max(initial=0))
        links.append(Link(reference, most, bool(null.any())))
        above.append(at)
    for space in below.values():
        for link, at in zip(space.links, space.above, strict=True):
            if link.reference.parent == name:
                values |= space.about(link, table.num_rows, at)
                more = added(link, space.features)
                features += more
                counted |= {f.name: link.name("rows") for f in more[1:]}
    if len(features) > MOST_FEATURES:
        raise SourceError(
            f"table {name!r} would carry {len(features):,} features, its own and what its children "
            f"add (at most {MOST_FEATURES:,}): leave out columns of the tables below it, or fit "
            "fewer levels of tables at once"
        )
    scores = np.zeros((table.num_rows, len(features)))
    return _Space(codec, tuple(features), values, tuple(links), tuple(above), counted, scores)


def _ranked(
    found: Sequence[Reference], name: str, tables: Mapping[str, pa.Table]
) -> list[Reference]:
    """A table's references, the one that its rows are best drawn from in front: one with a parent
    of its own for each row, then one without nulls, then the one with most parents."""
    import pyarrow.compute as pc

    from safegen.tables.numbers import decoded

    def rank(reference: Reference) -> tuple[bool, bool, int]:
        values = decoded(tables[name].column(reference.column))
        distinct = pc.count_distinct(values).as_py()
        return distinct < len(values), values.null_count > 0, -distinct

    return sorted((r for r in found if r.table == name), key=rank)


def _rows_above(reference: Reference, tables: Mapping[str, pa.Table]) -> np.ndarray:
    """For each row the number of the parent's row, −1 where the key is null."""
    import numpy as np
    import pyarrow.compute as pc

    from safegen.tables.numbers import decoded

    held = decoded(tables[reference.table].column(reference.column))
    keys = decoded(tables[reference.parent].column(reference.key))
    if hasattr(keys, "storage"):  # UUIDs
        held, keys = held.storage, keys.storage
    at: np.ndarray = pc.index_in(held, value_set=keys.cast(held.type)).fill_null(-1).to_numpy()
    lost = int((at < 0).sum()) - held.null_count
    if lost:
        raise SourceError(f"{reference}: {lost:,} rows are not in {reference.target}")
    return at.astype(np.int64)
