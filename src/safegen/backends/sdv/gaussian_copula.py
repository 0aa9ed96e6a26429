"""SDV's Gaussian copula with honest marginals: the default backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from safegen.backends.options import TableOptions
from safegen.backends.sdv.distributions import (
    Distribution,
    check_distributions,
    distributions_of,
)
from safegen.contracts import BackendOptions, Kind
from safegen.errors import SourceError, UsageError
from safegen.tables.constraints import by_table

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from safegen.backends.sdv.copula import CopulaModel
    from safegen.backends.sdv.marginals import Marginal
    from safegen.tables.codec import Codec
    from safegen.tables.schema import TableSchema

__all__ = ["GaussianCopula", "Options", "fit_copula"]


class Options(TableOptions):
    """SDV's options, by SDV's names, and one more distribution: `empirical`, the default.

    `empirical` is the empirical distribution: values of several rows keep their shares, values of
    one row are smoothed. On Adult SDV's own default, beta, misses the marginals by 12.6 % on
    average (`norm` and the others by as much), because no parametric family has the point masses
    and the gaps of real columns.
    """

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
        from safegen.tables.schema import check_table

        if not isinstance(options, Options):
            raise UsageError("the options are not those of sdv.gaussian_copula")
        if len(tables) != 1:
            raise SourceError(f"sdv.gaussian_copula takes one table, not {len(tables)}")
        ((name, table),) = tables.items()
        schema = schemas[name]
        check_table(table, name)
        chosen, default = options.numerical_distributions, options.default_distribution
        instead = "empirical, which follows the data as closely"
        check_distributions(chosen, default, schema.kinds, table.num_rows, instead)
        require_sdv()
        codec = options.codec(
            table,
            schema,
            seed=seed,
            smooth=frozenset(chosen),
            masses=default != "empirical",  # whose steps hold them
            constraints=by_table(options.constraints, tables)[name],
        )
        numeric = [f.column for f in codec.features if f.kind == "numeric"]
        distributions = distributions_of(numeric, chosen, default)
        features = codec.encode(table, seed=seed)
        with undisturbed():
            return fit_copula(name, codec, features, distributions, seed, self.block_rows)

    def load(self, folder: Path) -> CopulaModel:
        """Read what `CopulaModel.save` wrote. Raises: BackendError."""
        from safegen.backends.sdv.copula import CopulaModel

        return CopulaModel.load(folder)


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
        correlation,
        hermite,
        latent,
        nearest_correlation,
        order_levels,
        overlap,
    )
    from safegen.backends.sdv.marginals import Levels, Quantiles, normal
    from safegen.backends.undisturbed import failing

    size = len(codec.features)
    if not size:
        return CopulaModel(table, codec, (), np.zeros((0, 0)), block_rows)
    marginals: list[Marginal] = []
    columns: list[np.ndarray] = []  # of normal scores
    coefficients = np.zeros((size, TERMS))  # of a number without ties: 1, 0, 0, …
    coefficients[:, 0] = 1.0
    partly: dict[int, np.ndarray] = {}  # which rows of a number with missing values are there
    hidden_rows_are_zero = np.zeros(size, dtype=bool)
    for i, feature in enumerate(codec.features):
        values = features[feature.name]
        if feature.kind == "categorical":
            levels = Levels.fit(values, feature.levels)
            marginals.append(levels)
            columns.append(levels.scores(values))
            continue
        there = codec.is_continuous(feature.column, features)
        if not there.all():
            partly[i] = there
        if (chosen := distributions[feature.column]) != "empirical":
            with failing("fitting the Gaussian copula", "SDV"):
                univariate = _sdv_univariate(values, chosen)
                marginals.append(Quantiles.of(univariate))
                columns.append(normal(univariate.cdf(values)))
            continue
        quantiles = Quantiles.empirical(values[there])
        marginals.append(quantiles)
        coefficients[i] = hermite(quantiles.cuts, quantiles.means)
        scores = np.zeros(len(values))
        scores[there] = Quantiles.scores(values[there])
        hidden_rows_are_zero[i] = True
        columns.append(scores)

    nominal = codec.nominal
    codes = [features[f.name] if f.name in nominal else None for f in codec.features]
    for i, order in enumerate(order_levels(columns, codes, seed)):
        feature = codec.features[i]
        if feature.kind == "categorical":
            levels = Levels.fit(features[feature.name], feature.levels, order)
            marginals[i] = levels
            columns[i] = levels.scores(features[feature.name])
            coefficients[i] = hermite(levels.cuts, levels.means)

    together = overlap(partly, size)
    spread = np.where(hidden_rows_are_zero, np.sqrt(np.diag(together)), 1.0)
    fitted = latent(correlation(columns), coefficients, together / np.outer(spread, spread))
    owners = [f.column for f in codec.features]  # a number says nothing of its own state
    own = np.array([[a == b for b in owners] for a in owners])
    fitted = nearest_correlation(fitted, own)
    return CopulaModel(table, codec, tuple(marginals), fitted, block_rows)


def _sdv_univariate(values: np.ndarray, family: str) -> Any:
    """SDV's fit of one distribution to one column: a fitted `copulas.univariate.Univariate`.

    SDV would fit the correlation too, with pandas, in nine tenths of the time of a large fit; of
    complete columns it is a matrix product.
    """
    import pandas as pd
    from sdv.metadata import Metadata
    from sdv.single_table import GaussianCopulaSynthesizer

    name = "c"  # a user's name can collide with SDV's own
    metadata = Metadata.load_from_dict(
        {
            "METADATA_SPEC_VERSION": "V1",
            "tables": {"t": {"columns": {name: {"sdtype": "numerical"}}}},
            "relationships": [],
        }
    )
    synthesizer = GaussianCopulaSynthesizer(
        metadata,
        enforce_min_max_values=False,  # the codec bounds and rounds, in the source's own type
        enforce_rounding=False,
        numerical_distributions={name: family},
    )
    frame = pd.DataFrame({name: values})
    synthesizer.fit_processed_data({"t": frame})  # plain floats: nothing to validate or transform
    (univariate,) = synthesizer._model.univariates
    return univariate
