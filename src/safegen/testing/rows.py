"""A backend that hands real rows back: quick, deterministic, of every kind, and no generator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather

from safegen.contracts import BackendOptions, Kind, Scalar
from safegen.errors import BackendError, UsageError, upstream
from safegen.tables.schema import TableSchema, check_table
from safegen.tables.streams import stream
from safegen.tables.units import roots

__all__ = ["Rows"]


class Rows:
    """A backend that draws real rows with replacement, whole sequences, and parents with children.

    For tests of code that uses safegen. Keys are numbered anew; everything else are copies of
    real rows, which it keeps in its saved model too: never release what it makes.
    """

    name: ClassVar[str] = "testing.rows"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"table", "tables", "sequences", "images"})
    license: ClassVar[str] = "Apache-2.0"
    packages: ClassVar[tuple[str, ...]] = ("numpy", "pyarrow")
    weights: ClassVar[bool] = False
    conditions: ClassVar[bool] = False
    reproducible: ClassVar[bool] = True
    pickles: ClassVar[bool] = False
    block_rows: ClassVar[int] = 1024
    Options: ClassVar[type[BackendOptions]] = BackendOptions

    def fit(
        self,
        tables: Mapping[str, pa.Table],
        schemas: Mapping[str, TableSchema],
        options: BackendOptions,
        *,
        seed: int,
    ) -> RowsModel:
        """Keep the rows. Raises: SourceError."""
        for name, table in tables.items():
            if not any(c.kind == "image" for c in schemas[name].columns):
                check_table(table, name)
        return RowsModel(dict(tables), dict(schemas))

    def load(self, folder: Path) -> RowsModel:
        """Read what `RowsModel.save` wrote. Raises: BackendError."""
        try:
            text = (folder / "schemas.json").read_text(encoding="utf-8")
            schemas = {n: TableSchema.model_validate(s) for n, s in json.loads(text).items()}
            tables = {n: feather.read_table(folder / f"{n}.arrow") for n in schemas}
        except (OSError, ValueError, pa.ArrowException) as error:
            raise BackendError(f"the model cannot be read ({upstream(error)})") from None
        return RowsModel(tables, schemas)


class RowsModel:
    """What `Rows` fits."""

    def __init__(self, tables: dict[str, pa.Table], schemas: dict[str, TableSchema]):
        self.tables = tables
        self.schemas = schemas

    def sample(
        self, rows: int, *, seed: int, block: int, conditions: Mapping[str, Scalar] | None = None
    ) -> dict[str, pa.Table]:
        """Rows, sequences or parents with their children, drawn with replacement."""
        if rows < 0:
            raise UsageError("rows is 0 or more")
        made: dict[str, pa.Table] = {}
        names = roots(self.schemas)
        for number, name in enumerate(names):
            rng = np.random.default_rng(stream(seed, block, number))
            key = self.schemas[name].sequence_key
            units = len(self.tables[name] if key is None else self.tables[name][key].unique())
            turns = len(range(number, rows, len(names)))  # the roots share what is asked for
            drawn = rng.integers(0, units, Rows.block_rows)[:turns]
            first = block * Rows.block_rows + 10**6
            if key is None:
                self._add(made, name, drawn, first)
            else:
                firsts = np.arange(first, first + rows)
                made[name] = _held(self.tables[name], key, drawn, firsts)[0]
        return {name: made[name] for name in self.tables}

    def _add(self, made: dict[str, pa.Table], name: str, at: np.ndarray, first: int) -> None:
        """Rows of a table under new keys, and of those that refer to it."""
        table, numbers = self.tables[name].take(pa.array(at)), np.arange(first, first + len(at))
        made[name] = self._renumbered(table, name, numbers)
        for child, schema in self.schemas.items():
            for column in schema.columns:
                if column.references is None or not column.references.startswith(f"{name}."):
                    continue
                key = self.tables[name][column.references.removeprefix(f"{name}.")]
                order = pc.index_in(self.tables[child][column.name], value_set=key.combine_chunks())
                source = self.tables[child].append_column("#parent", order)
                held, numbers_of = _held(source, "#parent", at, numbers)
                held = held.drop_columns("#parent")
                held = _set(held, column.name, numbers_of)
                made[child] = self._renumbered(held, child, first * 1_000 + np.arange(len(held)))

    def _renumbered(self, table: pa.Table, name: str, numbers: np.ndarray) -> pa.Table:
        for column in self.schemas[name].columns:
            if column.role == "key":
                table = _set(table, column.name, numbers)
        return table

    def save(self, folder: Path) -> None:
        """Write the rows as Arrow files."""
        document = {n: s.model_dump(mode="json") for n, s in self.schemas.items()}
        (folder / "schemas.json").write_text(json.dumps(document), encoding="utf-8")
        for name, table in self.tables.items():
            feather.write_feather(table, folder / f"{name}.arrow", compression="uncompressed")


def _set(table: pa.Table, name: str, numbers: np.ndarray) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), pa.array(numbers).cast(table[name].type))


def _held(
    table: pa.Table, key: str, drawn: np.ndarray, numbers: np.ndarray
) -> tuple[pa.Table, np.ndarray]:
    """The rows of each drawn holder, one after the other, and the holder's number for each."""
    codes = table[key].combine_chunks()
    if key != "#parent":
        codes = codes.dictionary_encode().indices
    codes = np.asarray(codes)
    rows = [np.flatnonzero(codes == holder) for holder in drawn]
    counts = [len(r) for r in rows]
    at = np.concatenate([*rows, np.zeros(0, np.int64)]).astype(np.int64)
    again = np.repeat(numbers, counts)
    found = table.take(pa.array(at))
    return (found if key == "#parent" else _set(found, key, again)), again
