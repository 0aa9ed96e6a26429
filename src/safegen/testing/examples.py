"""Data to test with: small tables of every kind, whose columns are the traps of the libraries."""

from __future__ import annotations

import datetime
import decimal
import io
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from safegen.contracts import Kind
from safegen.tables.schema import TableSchema, infer_schema

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "CANARY",
    "Example",
    "example_images",
    "example_sequences",
    "example_table",
    "example_tables",
    "example_traps",
]

CANARY = "Zanzibar-7731"
"""A value that no error message may quote."""


@dataclass(frozen=True)
class Example:
    """Tables with their schemas. A backend may refuse an `optional` column by name, no other."""

    tables: Mapping[str, pa.Table]
    schemas: Mapping[str, TableSchema]
    optional: frozenset[str] = frozenset()
    canary: str = CANARY

    @classmethod
    def of(
        cls,
        table: pa.Table,
        declared: Mapping[str, Mapping[str, Any]] | None = None,
        optional: Collection[str] = (),
    ) -> Example:
        """One table, its schema inferred where it is not declared."""
        schema = infer_schema(table, declared)
        return cls({"table": table}, {"table": schema}, frozenset(optional))

    @property
    def kind(self) -> Kind:
        """Which kind of backend it is for."""
        if len(self.schemas) > 1:
            return "tables"
        (schema,) = self.schemas.values()
        if schema.sequence_key is not None:
            return "sequences"
        return "images" if any(c.kind == "image" for c in schema.columns) else "table"

    def without(self, columns: Collection[str]) -> Example:
        """The same rows without some columns."""
        tables, schemas = {}, {}
        for name, schema in self.schemas.items():
            kept = tuple(c for c in schema.columns if c.name not in columns)
            schemas[name] = schema.model_copy(update={"columns": kept})
            tables[name] = self.tables[name].select([c.name for c in kept])
        return replace(self, tables=tables, schemas=schemas, optional=self.optional - set(columns))


def example_table(rows: int = 400, seed: int = 0) -> pa.Table:
    """A table with one column of each plain type, missing values, and a point mass."""
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    gain = np.where(rng.random(rows) < 0.8, 0, rng.integers(1, 10_000, rows))
    day = rng.integers(10_000, 20_000, rows).astype("datetime64[D]")
    half = rng.normal(size=rows)
    return pa.table(
        {
            "age": pa.array(rng.integers(17, 90, rows), pa.int64()),
            "score": pa.array(half, pa.float64(), mask=rng.random(rows) < 0.1),
            "gain": pa.array(gain, pa.int32()),
            "job": pa.array(rng.choice(["a", "b", "c"], rows, p=[0.7, 0.25, 0.05])),
            "member": pa.array(rng.random(rows) < 0.3),
            "since": pa.array(day),
        }
    )


def example_traps(rows: int = 400, seed: int = 0) -> Example:
    """`example_table` and a column for each type and shape that a library has tripped over.

    Dates of every unit, categories, half floats, tiny and huge numbers, ids, texts in many
    scripts. E-mail addresses are among them where Faker is installed, which invents others.
    """
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng([seed, 1])
    seconds = pa.array(rng.integers(1_262_304_000, 1_704_067_200, rows)).cast(pa.timestamp("s"))
    levels = pa.array(rng.choice(3, rows, p=[0.7, 0.25, 0.05]), pa.int8())
    missing = rng.random(rows) < 0.1
    whole = np.arange(rows)
    places = ["Zürich 🏔", "São Paulo", "東京", CANARY]
    columns: dict[str, Any] = {
        **{f"date_{u}": seconds.cast(pa.timestamp(u)) for u in ("s", "ms", "us")},
        "date_ns": seconds.cast(pa.timestamp("ns", "Europe/Vienna")),
        "time": pa.array(rng.integers(0, 86_400, rows).astype(np.int32)).cast(pa.time32("s")),
        "lasted": pa.array(rng.integers(0, 10**6, rows), pa.duration("ms")),
        "category": pa.DictionaryArray.from_arrays(
            pa.array(levels.to_numpy(), pa.int8(), mask=missing),
            pa.array(["common", "some", "rare", "unused"]),
        ),
        "ordered": pa.DictionaryArray.from_arrays(
            levels, pa.array(["low", "mid", "high"]), ordered=True
        ),
        "half": pa.array(rng.normal(size=rows).astype(np.float16)),
        "tiny": pa.array(rng.normal(size=rows) * 1e-300),
        "huge": pa.array(rng.normal(size=rows) * 1e300),
        "beyond_2_53": pa.array(2**53 + 3 * whole, pa.int64()),
        "beyond_2_63": pa.array([2**64 - 1 - 7 * i for i in range(rows)], pa.uint64()),
        "price": pa.array(
            [decimal.Decimal(int(i)) / 100 for i in rng.integers(0, 10**6, rows)],
            pa.decimal128(9, 2),
        ),
        "nan": pa.array(np.where(missing, np.nan, rng.normal(size=rows))),
        "uuid": pa.array([uuid.UUID(int=i + 7).bytes for i in range(rows)], pa.uuid()),
        "reference": pa.array([f"REFERENCE-{i:05}" for i in range(rows)]),
        "day_text": pa.array(
            [str(datetime.date(1850, 1, 1) + datetime.timedelta(i)) for i in range(rows)]
        ),
        "patient_id": pa.array(100_000 + rng.integers(0, rows // 4, rows), pa.int64()),
        "city": pa.array(rng.choice(places, rows, p=[0.4, 0.3, 0.2, 0.1])),
        "größe in cm 📏": pa.array(np.round(rng.normal(170, 10, rows), 1)),
        "constant": pa.array(np.full(rows, 7)),
        "nothing": pa.nulls(rows, pa.float64()),
        "null": pa.nulls(rows),
    }
    if find_spec("faker"):
        columns["email"] = pa.array([f"someone{i}@example.org" for i in range(rows)])
    plain = example_table(rows, seed)
    names = [*plain.column_names, *columns]
    table = pa.table([*plain.columns, *columns.values()], names=names)
    return Example.of(table, {"patient_id": {"role": "entity"}}, columns)


def example_tables(parents: int = 60, seed: int = 0) -> Example:
    """People and their orders, up to four each: a key, and a column that refers to it."""
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng([seed, 2])
    owners = np.repeat(np.arange(parents), rng.integers(0, 5, parents))
    orders = len(owners)
    people = pa.table(
        {
            "person": pa.array(np.arange(parents) + 1_000, pa.int64()),
            "age": pa.array(rng.integers(17, 90, parents), pa.int64()),
            "town": pa.array(rng.choice(["Basel", "Chur", "Wien"], parents)),
        }
    )
    items = pa.table(
        {
            "order": pa.array(np.arange(orders) + 5_000, pa.int64()),
            "buyer": pa.array(owners + 1_000, pa.int64()),
            "amount": pa.array(np.round(rng.gamma(2.0, 50.0, orders), 2)),
            "paid": pa.array(rng.random(orders) < 0.8),
        }
    )
    keys = {"person": {"role": "key"}, "order": {"role": "key"}, "buyer": {"kind": "id"}}
    schemas = {}
    for name, table in (("people", people), ("orders", items)):
        here = {c: keys[c] for c in table.column_names if c in keys}
        schemas[name] = infer_schema(table, here)
    refers = tuple(
        c.model_copy(update={"references": "people.person"}) if c.name == "buyer" else c
        for c in schemas["orders"].columns
    )
    schemas["orders"] = schemas["orders"].model_copy(update={"columns": refers})
    return Example({"people": people, "orders": items}, schemas)


def example_sequences(sequences: int = 40, seed: int = 0) -> Example:
    """Customers' visits, three to eight each, in the order of their days."""
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng([seed, 3])
    lengths = rng.integers(3, 9, sequences)
    owners = np.repeat(np.arange(sequences), lengths)
    days = np.concatenate([np.sort(rng.choice(300, n, replace=False)) for n in lengths])
    table = pa.table(
        {
            "customer": pa.array(owners + 1_000, pa.int64()),
            "day": pa.array((days + 15_000).astype("datetime64[D]")),
            "spent": pa.array(np.round(rng.gamma(2.0, 20.0, len(owners)), 2)),
            "channel": pa.array(rng.choice(["shop", "web"], len(owners), p=[0.7, 0.3])),
        }
    )
    roles = {"customer": {"role": "sequence_key"}, "day": {"role": "sequence_index"}}
    return Example.of(table, roles)


def example_images(images: int = 60, size: int = 8, seed: int = 0) -> Example:
    """Grey PNG images of two classes, bright above or below, and their labels.

    The layout is that of Hugging Face's `Image`: a struct of encoded bytes and a path.
    Needs pillow.
    """
    import numpy as np
    import pyarrow as pa
    from PIL import Image

    rng = np.random.default_rng([seed, 4])
    labels = rng.integers(0, 2, images)
    encoded = []
    for label in labels:
        pixels = rng.integers(0, 60, (size, size), dtype=np.uint8)
        pixels[: size // 2] += np.uint8(150 * (1 - label))
        pixels[size // 2 :] += np.uint8(150 * label)
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, "PNG")
        encoded.append({"bytes": sink.getvalue(), "path": None})
    layout = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(encoded, layout), "label": pa.array(labels, pa.int64())})
    schema = infer_schema(table, {"label": {"kind": "categorical", "role": "target"}})
    columns = tuple(
        c.model_copy(update={"kind": "image"}) if c.name == "image" else c for c in schema.columns
    )
    return Example({"images": table}, {"images": schema.model_copy(update={"columns": columns})})
