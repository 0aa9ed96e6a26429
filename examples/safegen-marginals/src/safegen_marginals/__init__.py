"""A backend for safegen: every column from its own distribution, independently of the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from safegen.contracts import BackendOptions, Kind, Scalar
from safegen.errors import BackendError, SourceError, UsageError
from safegen.tables.codec import Codec
from safegen.tables.schema import TableSchema, check_table
from safegen.tables.streams import stream

__all__ = ["Marginals", "MarginalsModel", "Options"]

FORMAT = "safegen-marginals/1"


class Options(BackendOptions):
    """What a user can set; safegen rejects everything else before it fits."""

    quantiles: int = Field(
        101, ge=3, le=1_001, description="Points at which a number's distribution is kept."
    )


class Marginals:
    """Independent columns: the floor that a generator must beat. Milliseconds to fit."""

    name: ClassVar[str] = "marginals"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"table"})
    license: ClassVar[str] = "Apache-2.0"
    packages: ClassVar[tuple[str, ...]] = ("safegen-marginals", "numpy")
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
    ) -> MarginalsModel:
        """Fit one table. Raises: SourceError, UsageError."""
        if not isinstance(options, Options):
            raise UsageError("the options are not those of marginals")
        if len(tables) != 1:
            raise SourceError(f"marginals takes one table, not {len(tables)}")
        ((name, table),) = tables.items()
        check_table(table, name)
        codec = Codec.fit(table, schemas[name], seed=seed)
        features = codec.encode(table, seed=seed)
        grid = np.linspace(0.0, 1.0, options.quantiles)
        learned = []
        for feature in codec.features:
            values = features[feature.name]
            if feature.kind == "categorical":  # codes: how often does each occur?
                counts = np.bincount(values, minlength=feature.levels)
                learned.append(np.cumsum(counts / counts.sum()))
            else:  # a number, where it is neither missing nor on a point mass
                there = codec.is_continuous(feature.column, features)
                learned.append(np.quantile(values[there], grid))
        return MarginalsModel(name, codec, tuple(learned))

    def load(self, folder: Path) -> MarginalsModel:
        """Read what `MarginalsModel.save` wrote. Raises: BackendError."""
        try:
            document = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                raise ValueError
            codec = Codec.from_json(document["codec"])
            learned = tuple(np.array(x, dtype=np.float64) for x in document["learned"])
            for feature, numbers in zip(codec.features, learned, strict=True):
                right = numbers.ndim == 1 and len(numbers) >= 2 and np.isfinite(numbers).all()
                if not right or (feature.levels and len(numbers) != feature.levels):
                    raise ValueError
            return MarginalsModel(str(document["table"]), codec, learned)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise BackendError(
                f"the model cannot be read ({type(error).__name__}): fit it again"
            ) from None


@dataclass(frozen=True, eq=False)
class MarginalsModel:
    """For each feature of the codec its cumulative shares, or its quantiles."""

    table: str
    codec: Codec
    learned: tuple[np.ndarray, ...]

    def sample(
        self,
        rows: int,
        *,
        seed: int,
        block: int,
        conditions: Mapping[str, Scalar] | None = None,
    ) -> dict[str, pa.Table]:
        """`rows` rows of a block; what the conditions fix is set, as columns are independent."""
        if not 0 <= rows <= Marginals.block_rows:
            raise UsageError(f"a block has 0 to {Marginals.block_rows:,} rows, not {rows}")
        features = {}
        for index, (feature, learned) in enumerate(
            zip(self.codec.features, self.learned, strict=True)
        ):
            # A generator for each (seed, block, feature): rows never depend on how many there are.
            uniform = np.random.default_rng(stream(seed, block, index)).random(rows)
            if feature.kind == "categorical":
                codes = np.searchsorted(learned[:-1], uniform, side="right")
                features[feature.name] = codes.astype(np.int32)
            else:
                grid = np.linspace(0.0, 1.0, len(learned))
                features[feature.name] = np.interp(uniform, grid, learned)
        for column, value in (conditions or {}).items():
            for name, (_, fixed) in self.codec.condition(column, value).items():
                features[name] = np.full(rows, fixed, features[name].dtype)
        first = block * Marginals.block_rows
        return {self.table: self.codec.decode(features, first_row=first, seed=seed, rows=rows)}

    def save(self, folder: Path) -> None:
        """Write `model.json`: no pickle, no rows."""
        document = {
            "format": FORMAT,
            "table": self.table,
            "codec": self.codec.to_json(),
            "learned": [numbers.tolist() for numbers in self.learned],
        }
        text = json.dumps(document, sort_keys=True, allow_nan=False)
        (folder / "model.json").write_text(text, encoding="utf-8")
