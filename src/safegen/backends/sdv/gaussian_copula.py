"""SDV's Gaussian copula with honest marginals: the default backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from safegen.contracts import BackendOptions, Kind
from safegen.errors import SourceError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from safegen.backends.sdv.copula import CopulaModel
    from safegen.backends.sdv.marginals import Marginal
    from safegen.tables.codec import Codec
    from safegen.tables.schema import TableSchema

__all__ = ["Distribution", "GaussianCopula", "Options", "fit_copula"]

Distribution = Literal["norm", "beta", "truncnorm", "uniform", "gamma", "gaussian_kde"]

KDE_ROWS = 1_000


class Options(BackendOptions):
    """SDV's options, by SDV's names, and one more distribution: `empirical`, the default.

    `empirical` is the empirical distribution: values of several rows keep their shares, values of
    one row are smoothed. On Adult SDV's own default, beta, misses the marginals by 12.6 % on
    average (`norm` and the others by as much), because no parametric family has the point masses
    and the gaps of real columns.
    """

    enforce_min_max_values: bool = Field(
        True, description="Numbers and dates stay within the source's minimum and maximum."
    )
    enforce_rounding: bool = Field(
        True, description="Numbers have the source's decimals, or are multiples of its step."
    )
    locales: list[str] = Field(
        ["en_US"], description="Faker's locales, for columns declared personal.", min_length=1
    )
    numerical_distributions: dict[str, Distribution] = Field(
        {},
        description="SDV's distribution for a numeric or date column, fitted to the whole column.",
    )
    default_distribution: Literal["empirical"] | Distribution = Field(
        "empirical", description="The distribution of every other numeric or date column."
    )


class GaussianCopula:
    """A Gaussian copula: seconds to fit, native conditions, pairwise dependence only."""

    name: ClassVar[str] = "sdv.gaussian_copula"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"table"})
    license: ClassVar[str] = "BUSL-1.1"
    packages: ClassVar[tuple[str, ...]] = ("sdv", "copulas", "rdt")
    weights: ClassVar[bool] = False
    conditions: ClassVar[bool] = True
    reproducible: ClassVar[bool] = True
    pickles: ClassVar[bool] = False
    block_rows: ClassVar[int] = 65_536
    Options: ClassVar[type[BackendOptions]] = Options

    def fit(
        self,
        tables: Mapping[str, pa.Table],
        schemas: Mapping[str, TableSchema],
        options: BackendOptions,
        *,
        seed: int,
    ) -> CopulaModel:
        """Fit one table. The same table, options and seed give the same model, byte for byte.

        Raises: SourceError (not one table, or one that cannot be used), UsageError (options),
        BackendError (SDV failed), MissingExtra.
        """
        from safegen.backends.sdv.library import require_sdv
        from safegen.backends.undisturbed import undisturbed
        from safegen.tables.codec import Codec
        from safegen.tables.schema import check_table

        if not isinstance(options, Options):
            raise UsageError("the options are not those of sdv.gaussian_copula")
        if len(tables) != 1:
            raise SourceError(f"sdv.gaussian_copula takes one table, not {len(tables)}")
        ((name, table),) = tables.items()
        schema = schemas[name]
        check_table(table, name)
        _check_distributions(options, schema, table.num_rows)
        require_sdv()
        codec = Codec.fit(
            table,
            schema,
            seed=seed,
            rounding=options.enforce_rounding,
            clip=options.enforce_min_max_values,
            smooth=frozenset(options.numerical_distributions),
            masses=options.default_distribution != "empirical",  # whose steps hold them
            locales=options.locales,
        )
        distributions = _distributions(codec, options)
        features = codec.encode(table, seed=seed)
        with undisturbed():
            return fit_copula(name, codec, features, distributions, seed, self.block_rows)

    def load(self, folder: Path) -> CopulaModel:
        """Read what `CopulaModel.save` wrote. Raises: BackendError."""
        from safegen.backends.sdv.copula import CopulaModel

        return CopulaModel.load(folder)


def _check_distributions(options: Options, schema: TableSchema, rows: int) -> None:
    from safegen.tables.schema import nearest

    numeric = [c.name for c in schema.columns if c.kind in ("numeric", "datetime")]
    for name in options.numerical_distributions:
        if name not in numeric:
            known = "is not numeric" if name in schema.names else "does not exist"
            raise UsageError(
                f"numerical_distributions: column {name!r} {known}{nearest(name, numeric)}"
            )
    used = {options.default_distribution, *options.numerical_distributions.values()}
    if "gaussian_kde" in used and rows > KDE_ROWS:
        raise UsageError(
            f"gaussian_kde is for at most {KDE_ROWS:,} rows, and there are {rows:,}: at 8,000 it "
            "takes half a minute to fit and over five minutes to sample. Use empirical, which "
            "follows the data as closely"
        )


def _distributions(codec: Codec, options: Options) -> dict[str, str]:
    """The distribution of every numeric feature. Raises: UsageError."""
    numeric = [f.column for f in codec.features if f.kind == "numeric"]
    for name in options.numerical_distributions:
        if name not in numeric:
            raise UsageError(
                f"numerical_distributions: column {name!r} has too few distinct values for a "
                "distribution: leave it out, and its shares are kept as they are"
            )
    default = options.default_distribution
    return {name: options.numerical_distributions.get(name, default) for name in numeric}


def fit_copula(
    table: str,
    codec: Codec,
    features: Mapping[str, np.ndarray],
    distributions: Mapping[str, str],
    seed: int,
    block_rows: int,
) -> CopulaModel:
    """The copula of a codec's features; `distributions` by numeric feature's column."""
    import numpy as np

    from safegen.backends.sdv.copula import CopulaModel
    from safegen.backends.sdv.dependence import (
        TERMS,
        hermite,
        latent,
        nearest_correlation,
        order_levels,
    )
    from safegen.backends.sdv.marginals import Levels, Quantiles
    from safegen.backends.undisturbed import failing

    size = len(codec.features)
    if not size:
        return CopulaModel(table, codec, (), np.zeros((0, 0)), block_rows)
    marginals: list[Marginal | None] = [None] * size  # None: SDV's own
    columns: list[np.ndarray] = []  # what SDV sees: scores, or numbers in their own units
    families = ["norm"] * size
    coefficients = np.zeros((size, TERMS))  # of a number without ties: 1, 0, 0, …
    coefficients[:, 0] = 1.0
    seen = np.ones((size, len(next(iter(features.values())))), dtype=bool)
    hidden_rows_are_zero = np.zeros(size, dtype=bool)
    for i, feature in enumerate(codec.features):
        values = features[feature.name]
        if feature.kind == "categorical":
            levels = Levels.fit(values, feature.levels)
            marginals[i] = levels
            columns.append(levels.scores(values))
            continue
        seen[i] = codec.is_continuous(feature.column, features)
        if (chosen := distributions[feature.column]) != "empirical":
            families[i] = chosen
            columns.append(values)
            continue
        quantiles = marginals[i] = Quantiles.empirical(values[seen[i]])
        coefficients[i] = hermite(quantiles.cuts, quantiles.means)
        scores = np.zeros(len(values))
        scores[seen[i]] = Quantiles.scores(values[seen[i]])
        hidden_rows_are_zero[i] = True
        columns.append(scores)

    nominal = codec.nominal
    standard = np.stack([(c - c.mean()) / (c.std() or 1.0) for c in columns], axis=1)
    codes = [features[f.name] if f.name in nominal else None for f in codec.features]
    for i, order in enumerate(order_levels(standard, codes, seed)):
        feature = codec.features[i]
        if feature.kind == "categorical":
            levels = Levels.fit(features[feature.name], feature.levels, order)
            marginals[i] = levels
            columns[i] = levels.scores(features[feature.name])
            coefficients[i] = hermite(levels.cuts, levels.means)

    with failing("fitting the Gaussian copula", "SDV"):
        copula = _sdv_copula(columns, families)
        whole = [m or Quantiles.of(u) for m, u in zip(marginals, copula.univariates, strict=True)]
    together = seen.astype(float) @ seen.T / seen.shape[1]
    spread = np.where(hidden_rows_are_zero, np.sqrt(np.diag(together)), 1.0)
    fitted = copula.correlation.to_numpy(dtype=np.float64)
    correlation = latent(fitted, coefficients, together / np.outer(spread, spread))
    owners = [f.column for f in codec.features]  # a number says nothing of its own state
    own = np.array([[a == b for b in owners] for a in owners])
    correlation = nearest_correlation(correlation, own)
    return CopulaModel(table, codec, tuple(whole), correlation, block_rows)


def _sdv_copula(columns: Sequence[np.ndarray], families: Sequence[str]) -> Any:
    """SDV's fitted `copulas.multivariate.GaussianMultivariate` of plain float columns."""
    import pandas as pd
    from sdv.metadata import Metadata
    from sdv.single_table import GaussianCopulaSynthesizer

    names = [f"c{i}" for i in range(len(columns))]  # a user's names can collide with SDV's own
    metadata = Metadata.load_from_dict(
        {
            "METADATA_SPEC_VERSION": "V1",
            "tables": {"t": {"columns": {name: {"sdtype": "numerical"} for name in names}}},
            "relationships": [],
        }
    )
    synthesizer = GaussianCopulaSynthesizer(
        metadata,
        enforce_min_max_values=False,  # the codec bounds and rounds, in the source's own type
        enforce_rounding=False,
        default_distribution="norm",
        numerical_distributions=dict(zip(names, families, strict=True)),
    )
    frame = pd.DataFrame(dict(zip(names, columns, strict=True)))
    synthesizer.fit_processed_data({"t": frame})  # plain floats: nothing to validate or transform
    copula = synthesizer._model
    if list(copula.columns) != names:
        raise ValueError("SDV changed the columns")
    return copula
