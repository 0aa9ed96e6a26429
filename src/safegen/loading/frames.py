"""The rows of a dataset as other libraries' own objects.

`to_hf`, `to_ray` and `to_spark` give plain columns: dictionaries are decoded, so that a text is a
text. Where rows are read later, in other processes or on other machines, each row group is hashed
there before it is parsed, and the folder must be reachable there under the same path.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from safegen.errors import MissingExtra, UsageError
from safegen.loading.rows import Piece, Rows, plain, stamp_of
from safegen.tables.images import is_image
from safegen.tables.stamps import KEY
from safegen.tables.types import computable

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from safegen.manifest import Manifest

__all__ = ["to_duckdb", "to_hf", "to_pandas", "to_polars", "to_ray", "to_spark"]


def to_pandas(table: pa.Table, manifest: Manifest) -> pd.DataFrame:
    frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas()
    frame.attrs[KEY] = stamp_of(manifest)
    return frame


def to_polars(table: pa.Table) -> pl.DataFrame:
    import polars as pl

    frame = pl.from_arrow(table.replace_schema_metadata(None))
    assert isinstance(frame, pl.DataFrame)
    return frame


def to_duckdb(table: pa.Table, connection: Any) -> Any:
    try:
        import duckdb
    except ImportError:
        raise MissingExtra("to_duckdb() needs duckdb: pip install duckdb") from None
    known = pa.schema([f.with_type(computable(f.type)) for f in table.schema])  # no half floats
    return (connection or duckdb.connect()).from_arrow(table.cast(known))


def to_hf(rows: Rows, provenance: bool, streaming: bool) -> Any:
    """A `datasets.Dataset`, or a `datasets.IterableDataset` with a shard for each row group."""
    try:
        import datasets
    except ImportError:
        raise MissingExtra("to_hf() needs datasets: pip install datasets") from None
    schema = _hf_schema(plain(rows.schema(provenance).empty_table()).schema)
    features = datasets.Features.from_arrow_schema(schema)
    features.update({f.name: datasets.Image() for f in schema if is_image(f.type)})
    if streaming:
        pieces = rows.pieces(provenance)
        made = datasets.IterableDataset.from_generator(
            _examples, features=features, gen_kwargs={"pieces": pieces}
        )
    else:
        table = plain(rows.table(provenance)).cast(schema)
        made = datasets.Dataset(table.cast(features.arrow_schema))
    # It travels through filter, map and save_to_disk; `check` finds it there.
    made.info.description = json.dumps({KEY: stamp_of(rows.manifest)})
    made.info.license = rows.manifest.license or ""
    return made


def _hf_schema(schema: pa.Schema) -> pa.Schema:
    """The schema as datasets has it: images in its own two fields, and no metadata of others."""
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return pa.schema([pa.field(f.name, image if is_image(f.type) else f.type) for f in schema])


def _examples(pieces: list[Piece]) -> Iterator[dict[str, Any]]:
    for piece in pieces:
        for batch in plain(piece.read()).to_batches(max_chunksize=1024):
            yield from batch.to_pylist()


def to_ray(rows: Rows, provenance: bool) -> Any:
    """A `ray.data.Dataset` whose read tasks verify what they read."""
    try:
        import ray
        from ray.data.block import BlockMetadata
    except ImportError:
        raise MissingExtra("to_ray() needs Ray Data: pip install 'ray[data]'") from None

    pieces = rows.pieces(provenance)
    schema = plain(rows.schema(provenance).empty_table()).schema
    if not pieces:
        return ray.data.from_arrow(schema.empty_table())

    class Released(ray.data.Datasource):  # type: ignore[misc]
        """Row groups of a released dataset."""

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, parallelism: int, *more: Any, **named: Any) -> list[Any]:
            step = -(-len(pieces) // max(parallelism, 1))
            shares = [pieces[i : i + step] for i in range(0, len(pieces), step)]
            return [
                ray.data.ReadTask(
                    _blocks(share),
                    BlockMetadata(
                        num_rows=sum(p.rows for p in share),
                        size_bytes=None,
                        input_files=None,
                        exec_stats=None,
                    ),
                    schema=schema,
                )
                for share in shares
            ]

    return ray.data.read_datasource(Released())


def _blocks(share: list[Piece]) -> Any:
    return lambda: (plain(piece.read()) for piece in share)


def to_spark(rows: Rows, session: Any, provenance: bool) -> Any:
    """A Spark DataFrame whose executors verify what they read; each column carries the stamp."""
    try:
        from pyspark.sql.pandas.types import from_arrow_schema
        from pyspark.sql.types import StructField, StructType
    except ImportError:
        raise MissingExtra("to_spark() needs pyspark: pip install pyspark") from None
    arrow = _spark_schema(plain(rows.schema(provenance).empty_table()).schema)
    try:
        types = from_arrow_schema(arrow, prefer_timestamp_ntz=True)
    except Exception as error:  # its class differs between versions
        named = {f.name for f in arrow if not _fits_spark(from_arrow_schema, f)}
        raise UsageError(
            f"Spark has no type for column {', '.join(sorted(map(repr, named)))}"
        ) from (None if named else error)
    stamp = {KEY: json.dumps(stamp_of(rows.manifest), sort_keys=True)}
    schema = StructType([StructField(f.name, f.dataType, f.nullable, stamp) for f in types])
    pieces = rows.pieces(provenance)

    def read(numbers: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in numbers:
            for number in batch.column(0).to_pylist():
                yield from plain(pieces[number].read()).cast(arrow, safe=False).to_batches()

    places = session.range(0, len(pieces), 1, max(len(pieces), 1))
    return places.mapInArrow(read, schema)


def _fits_spark(convert: Any, field: pa.Field) -> bool:
    try:
        convert(pa.schema([field]), prefer_timestamp_ntz=True)
    except Exception:
        return False
    return True


_WIDER: Mapping[pa.DataType, pa.DataType] = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.date64(): pa.date32(),
    pa.large_string(): pa.string(),
    pa.large_binary(): pa.binary(),
}


def _spark_schema(schema: pa.Schema) -> pa.Schema:
    """The nearest types that Spark has: no unsigned ones, no time of day, and nothing finer
    than microseconds."""
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})

    def near(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_timestamp(kind):
            return pa.timestamp("us", tz=kind.tz)
        if pa.types.is_duration(kind):
            return pa.duration("us")
        if pa.types.is_time(kind):
            return pa.string()  # Spark's own type for it is off unless it is switched on
        return image if is_image(kind) else _WIDER.get(kind, kind)

    return pa.schema([pa.field(f.name, near(f.type)) for f in schema])
