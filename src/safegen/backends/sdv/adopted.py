"""A synthesizer that the user has already fitted with SDV, as a Model.

What was learned wrongly before (dates in 1970, shares of categories) cannot be mended here: the
release gate measures it. What can be is: seeds, blocks, ids and personal data.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from safegen.backends.sdv.library import LICENSE, PACKAGES, require_sdv
from safegen.backends.undisturbed import failing, undisturbed
from safegen.contracts import BackendOptions, Kind, Scalar
from safegen.errors import BackendError, UsageError, hidden, upstream

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from safegen.tables.columns import ColumnCodec
    from safegen.tables.schema import TableSchema

__all__ = ["Adopted", "AdoptedModel"]

FILE = "model.pkl"
BLOCK_ROWS = 16_384  # SDV holds a block several times over, and a short request costs a whole one


@dataclass(frozen=True, eq=False)
class AdoptedModel:
    """A fitted single-table synthesizer of SDV. Make it with `adopt`."""

    table: str
    synthesizer: Any
    arrow_schema: pa.Schema
    invented: tuple[tuple[int, ColumnCodec], ...]  # column number → codec of an id, personal data
    block_rows: int = BLOCK_ROWS

    @classmethod
    def adopt(
        cls, synthesizer: object, name: str, table: pa.Table, schema: TableSchema, *, seed: int
    ) -> AdoptedModel:
        """Wrap a synthesizer that was fitted on `table`.

        Columns whose kind is id or personal get safegen's surrogates and inventions, because
        SDV repeats its own in every block. Raises: UsageError for anything but a fitted
        single-table synthesizer of SDV; SourceError for a table that cannot be used.
        """
        require_sdv()
        from sdv.single_table.base import BaseSingleTableSynthesizer

        from safegen.tables.codec import Codec
        from safegen.tables.schema import check_table

        if not isinstance(synthesizer, BaseSingleTableSynthesizer):
            raise UsageError(
                "wrap takes a single-table synthesizer of SDV (GaussianCopula, CTGAN, TVAE, "
                f"CopulaGAN), not {type(synthesizer).__name__}"
            )
        if not getattr(synthesizer, "_fitted", False):
            raise UsageError("the synthesizer is not fitted: call its fit first")
        check_table(table, name)
        known = next(iter(synthesizer.get_metadata().to_dict()["tables"].values()))["columns"]
        if set(known) != set(table.schema.names):
            raise UsageError(
                f"the synthesizer was fitted on {len(known)} columns with other names than the "
                f"{table.num_columns} of trained_on=; give the data that it was fitted on"
            )
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

        Raises: UsageError for conditions, which SDV meets by rejection and not always;
        BackendError when SDV fails, gives too few rows, or values that do not fit the source's
        types.
        """
        if conditions:
            raise UsageError("an adopted SDV synthesizer takes no conditions: fit a safegen model")
        if not 0 <= rows <= self.block_rows:
            raise UsageError(f"a block has 0 to {self.block_rows:,} rows, not {rows}")
        with undisturbed(), failing("sampling", "SDV"):
            frame = self._draw(seed, block)
        if len(frame) < self.block_rows:
            raise BackendError(
                f"SDV gave {len(frame):,} of {self.block_rows:,} rows: its constraints reject the "
                "others"
            )
        return {self.table: self._convert(frame.iloc[:rows], seed, block * self.block_rows)}

    def _draw(self, seed: int, block: int) -> pd.DataFrame:
        """A block from SDV, with every generator that it uses seeded."""
        import sys

        import numpy as np

        words = np.random.SeedSequence([seed, block]).generate_state(4)
        seeds = [int(word) for word in words]
        random.seed(seeds[0])
        np.random.seed(seeds[1])
        if (torch := sys.modules.get("torch")) is not None:
            torch.manual_seed(seeds[2])
        synthesizer = self.synthesizer
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
    packages: ClassVar[tuple[str, ...]] = PACKAGES
    weights: ClassVar[bool] = False
    conditions: ClassVar[bool] = False
    reproducible: ClassVar[bool] = True
    pickles: ClassVar[bool] = True
    block_rows: ClassVar[int] = BLOCK_ROWS
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
        return model
