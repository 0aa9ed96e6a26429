"""A synthesizer that the user has already fitted with SDV or ctgan, as a Model.

What was learned wrongly before (dates in 1970, shares of categories) cannot be mended here: the
release gate measures it. What can be is: seeds, blocks, ids and personal data.
"""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from safegen.backends.arrays import check_block
from safegen.backends.sdv.library import LICENSE, PACKAGES, require_sdv
from safegen.backends.undisturbed import failing, undisturbed
from safegen.contracts import BackendOptions, Kind, Scalar
from safegen.errors import BackendError, UsageError, hidden, upstream
from safegen.tables.streams import stream

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from safegen.tables.columns import ColumnCodec
    from safegen.tables.schema import TableSchema

__all__ = ["Adopted", "AdoptedModel", "check_adoptable"]

FILE = "model.pkl"
BLOCK_ROWS = 16_384  # SDV holds a block several times over, and a short request costs a whole one


@dataclass(frozen=True, eq=False)
class AdoptedModel:
    """A fitted single-table synthesizer. Make it with `adopt`, which takes a copy of it."""

    table: str
    synthesizer: Any
    arrow_schema: pa.Schema
    invented: tuple[tuple[int, ColumnCodec], ...]  # column number → codec of an id, personal data
    block_rows: int = BLOCK_ROWS

    @classmethod
    def adopt(
        cls, synthesizer: object, name: str, table: pa.Table, schema: TableSchema, *, seed: int
    ) -> AdoptedModel:
        """Wrap a synthesizer that was fitted on `table`; later changes to it change nothing.

        Columns whose kind is id or personal get safegen's surrogates and inventions, because
        SDV repeats its own in every block. Raises: as `check_adoptable`; UsageError for a table
        with other columns; SourceError for a table that cannot be used.
        """
        from safegen.tables.codec import Codec
        from safegen.tables.schema import check_table

        check_adoptable(synthesizer)
        check_table(table, name)
        known = _columns(synthesizer)
        if known != set(table.schema.names):
            raise UsageError(
                f"the synthesizer was fitted on {len(known)} columns with other names than the "
                f"{table.num_columns} of trained_on=; give the data that it was fitted on"
            )
        with undisturbed(), failing("copying the synthesizer", "its library"):
            synthesizer = _on_cpu(copy.deepcopy(synthesizer))
        hidden_columns = [
            (i, c) for i, c in enumerate(schema.columns) if c.kind in ("id", "personal")
        ]
        names = [c.name for _, c in hidden_columns]
        part = schema.model_copy(update={"columns": tuple(c for _, c in hidden_columns)})
        codec = Codec.fit(table.select(names), part, seed=seed)
        numbered = zip((i for i, _ in hidden_columns), codec.columns, strict=True)
        return cls(name, synthesizer, table.schema.remove_metadata(), tuple(numbered))

    def sample(
        self,
        rows: int,
        *,
        seed: int,
        block: int,
        conditions: Mapping[str, Scalar] | None = None,
    ) -> dict[str, pa.Table]:
        """`rows` rows of a block: always a whole block is drawn, so fewer are a prefix of more.

        Raises: UsageError for conditions, which the engine meets by rejection; BackendError when
        SDV fails, gives too few rows, or values that do not fit the source's types.
        """
        if conditions:
            raise UsageError("an adopted synthesizer takes no conditions: `generate` meets them")
        check_block(rows, self.block_rows, seed, block)
        with undisturbed(), failing("sampling", "SDV"):
            frame = self._draw(seed, block)
        if len(frame) < self.block_rows:
            raise BackendError(
                f"SDV gave {len(frame):,} of {self.block_rows:,} rows: its constraints reject the "
                "others. Fit sdv.gaussian_copula with the option constraints, where "
                "every row meets them"
            )
        return {self.table: self._convert(frame.iloc[:rows], seed, block * self.block_rows)}

    def _draw(self, seed: int, block: int) -> pd.DataFrame:
        """A block from SDV, with every generator that it uses seeded."""
        import numpy as np
        import torch

        words = stream(seed, block).generate_state(4)
        seeds = [int(word) for word in words]
        random.seed(seeds[0])
        np.random.seed(seeds[1])
        torch.default_generator.manual_seed(seeds[2])
        synthesizer = self.synthesizer
        if _BASES["ctgan"] in _bases(synthesizer):
            synthesizer.set_random_state(seeds[3])
            drawn: pd.DataFrame = synthesizer.sample(self.block_rows)
            return drawn
        synthesizer.reset_sampling()
        synthesizer._set_random_state(seeds[3])
        transformers = synthesizer._data_processor._hyper_transformer.field_transformers
        for number, transformer in enumerate(filter(None, transformers.values())):
            state = np.random.RandomState(seeds[0] ^ number)
            transformer.set_random_state(state, "reverse_transform")
            if getattr(transformer, "faker", None) is not None:
                transformer.faker.seed_instance(seeds[1] ^ number)
        found = synthesizer.sample(num_rows=self.block_rows)
        frame: pd.DataFrame = next(iter(found.values())) if isinstance(found, dict) else found
        return frame

    def _convert(self, frame: pd.DataFrame, seed: int, first_row: int) -> pa.Table:
        import pyarrow as pa

        from safegen.tables.columns import Place

        invented = dict(self.invented)
        arrays = []
        for index, field in enumerate(self.arrow_schema):
            if index in invented:
                place = Place(first_row, len(frame), seed, index)
                arrays.append(invented[index].decode({}, place))
                continue
            if field.name not in frame.columns:
                raise BackendError(f"SDV gave no column {field.name!r}")
            try:
                arrays.append(_to_arrow(frame[field.name], field.type))
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                raise BackendError(
                    f"column {field.name!r}: what SDV gave does not fit the source's type "
                    f"{field.type} ({upstream(error)})"
                ) from hidden(error)
        return pa.Table.from_arrays(arrays, schema=self.arrow_schema)

    def save(self, folder: Path) -> None:
        """Write a pickle, the only form that SDV has: load it after its digest was checked."""
        import cloudpickle

        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_bytes(cloudpickle.dumps(self))


_BASES = {
    "sdv": "sdv.single_table.base.BaseSingleTableSynthesizer",
    "ctgan": "ctgan.synthesizers.base.BaseSynthesizer",
}

_SDV_1 = (
    "SDV 1 and SDV 2 cannot read each other's synthesizers: keep its metadata, and fit again here "
    "on the real data with fit(source, metadata=…); docs/migrating.md has the steps"
)


def check_adoptable(synthesizer: object) -> None:
    """Return when `Generator.wrap` takes it: a fitted single-table synthesizer of SDV 2, or a
    fitted CTGAN or TVAE of the ctgan package.

    Raises: UsageError that says what to do instead; MissingExtra.
    """
    bases, name = _bases(synthesizer), type(synthesizer).__name__
    if isinstance(synthesizer, str | bytes | os.PathLike):
        raise UsageError(
            f"wrap takes the synthesizer itself, not {name}: load it first "
            "(sdv.utils.load_synthesizer; loading a pickle runs the code in it). " + _SDV_1
        )
    rooms = {base.rpartition(".")[0].partition("sdv.")[2].partition(".")[0] for base in bases}
    version = str(getattr(synthesizer, "_fitted_sdv_version", None) or "2")
    if rooms & {"tabular", "lite", "relational", "timeseries"} or version.startswith(("0.", "1.")):
        raise UsageError(f"{name} was fitted with SDV 1. {_SDV_1}")
    if "multi_table" in rooms:
        raise UsageError(
            f"wrap takes single-table synthesizers, not {name}: fit the backend sdv.hma on the "
            "tables, {name: table}; it takes the same metadata"
        )
    if "sequential" in rooms:
        raise UsageError(
            f"wrap takes single-table synthesizers, not {name}: fit the backend sdv.par on the "
            "table, with its sequence_key and sequence_index declared in schema= or metadata="
        )
    if not bases & set(_BASES.values()):
        raise UsageError(
            "wrap takes a single-table synthesizer of SDV (GaussianCopula, CTGAN, TVAE, "
            f"CopulaGAN), or a CTGAN or TVAE of ctgan, not {name}"
        )
    if _BASES["sdv"] in bases:
        require_sdv()
        fitted = bool(getattr(synthesizer, "_fitted", False))
    else:
        transformer = _transformer(synthesizer)
        fitted = transformer is not None
        if fitted and not transformer.dataframe:
            raise UsageError(
                f"the {name} was fitted on an array, which has no column names: fit it on a frame"
            )
    if not fitted:
        raise UsageError("the synthesizer is not fitted: call its fit first")


def _bases(synthesizer: object) -> set[str]:
    return {f"{c.__module__}.{c.__qualname__}" for c in type(synthesizer).mro()}


def _transformer(synthesizer: object) -> Any:
    """ctgan's, under the name that its CTGAN or its TVAE has for it; None before the fit."""
    return getattr(synthesizer, "_transformer", getattr(synthesizer, "transformer", None))


def _columns(synthesizer: Any) -> set[str]:
    """The names of the columns that it was fitted on."""
    if _BASES["ctgan"] in _bases(synthesizer):
        return set(_transformer(synthesizer)._column_raw_dtypes.index)
    [table] = synthesizer.get_metadata().to_dict()["tables"].values()
    return set(table["columns"])


def _on_cpu(synthesizer: Any) -> Any:
    """Where its rows repeat. Unpickling moves a network to the GPU, where there is one."""
    network = getattr(synthesizer, "_model", synthesizer)
    if hasattr(network, "set_device"):
        import torch

        network.set_device(torch.device("cpu"))
    return synthesizer


def _to_arrow(values: pd.Series[Any], type_: pa.DataType) -> pa.Array:
    import pyarrow as pa

    from safegen.tables.numbers import single

    if pa.types.is_dictionary(type_):
        plain = single(pa.array(values.astype(object), type_.value_type, from_pandas=True))
        coded = plain.dictionary_encode()
        return pa.DictionaryArray.from_arrays(
            coded.indices.cast(type_.index_type), coded.dictionary, ordered=type_.ordered
        )
    found = single(pa.array(values, from_pandas=True))
    return found.cast(type_, safe=not pa.types.is_temporal(type_))


class Adopted:
    """The backend of `AdoptedModel`: it loads, and never fits."""

    name: ClassVar[str] = "sdv.adopted"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"table"})
    license: ClassVar[str] = LICENSE
    packages: ClassVar[tuple[str, ...]] = (*PACKAGES, "ctgan", "torch")
    weights: ClassVar[bool] = False
    conditions: ClassVar[bool] = False
    reproducible: ClassVar[bool] = True
    pickles: ClassVar[bool] = True
    block_rows: ClassVar[int] = BLOCK_ROWS
    doubts: ClassVar[tuple[str, ...]] = (
        "the model was adopted: that it was fitted on this source, and on nothing else, is its "
        "owner's word",
    )
    Options: ClassVar[type[BackendOptions]] = BackendOptions

    def fit(
        self,
        tables: Mapping[str, pa.Table],
        schemas: Mapping[str, TableSchema],
        options: BackendOptions,
        *,
        seed: int,
    ) -> AdoptedModel:
        """Raises: UsageError. An adopted synthesizer was fitted by its owner."""
        raise UsageError("sdv.adopted does not fit: use Generator.wrap, or another backend")

    def load(self, folder: Path) -> AdoptedModel:
        """Unpickle. Call it only after the file's digest was checked: a pickle runs code."""
        import pickle

        with undisturbed(), failing("loading the adopted synthesizer", "SDV"):
            model = pickle.loads((folder / FILE).read_bytes())
        if not isinstance(model, AdoptedModel):
            raise BackendError("the model file does not hold an adopted synthesizer")
        _on_cpu(model.synthesizer)
        return model
