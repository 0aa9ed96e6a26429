"""Tables of other engines, whose rows stay where they are: Ray Datasets and Spark DataFrames.

A function is called in the processes that have the rows, with those of one block (Ray) or one
partition (Spark); what it gives is pickled there and comes back in a column of bytes. safegen has
to be installed there. Iterating over such a table brings its rows here, some at a time.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from safegen.errors import SourceError, hidden, upstream
from safegen.tables.batches import BATCH_ROWS, Batches, PartFunction
from safegen.tables.files import reading

__all__ = ["is_elsewhere", "opened_there"]

_SENT = pa.schema([pa.field("part", pa.binary())])


def is_elsewhere(source: Any) -> bool:
    """Whether a source is a Ray Dataset or a Spark DataFrame."""
    module = type(source).__module__.partition(".")[0]
    return (module == "ray" and hasattr(source, "map_batches")) or _is_spark(source)


def _is_spark(source: Any) -> bool:
    module = type(source).__module__.partition(".")[0]
    return module == "pyspark" and hasattr(source, "mapInArrow")


def opened_there(source: Any) -> Batches:
    """The table; its rows are counted, and nothing else is read.

    Raises: SourceError for columns that are no table's, and where the engine fails.
    """
    return _of_spark(source) if _is_spark(source) else _of_ray(source)


@dataclass(frozen=True)
class _Part:
    """Calls a function with the batches of a part of a table, in the columns and types that it is
    known by here. Without any batch there is nothing to tell."""

    schema: pa.Schema
    of: PartFunction

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        with reading("a part of the table"):  # its engine would log what the error quotes
            some = (b for b in map(self._cast, batches) if b.num_rows)
            first = next(some, None)
            found = None if first is None else pickle.dumps(self.of(_with(first, some)))
        if found is not None:
            yield pa.record_batch([pa.array([found], pa.binary())], schema=_SENT)

    def table(self, block: pa.Table) -> pa.Table:
        """The same of a block of Ray's."""
        batches = block.to_batches(max_chunksize=BATCH_ROWS)
        return pa.Table.from_batches([*self(iter(batches))], schema=_SENT)

    def _cast(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return batch.select(self.schema.names).cast(self.schema)


def _with(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest


@contextmanager
def _asked(engine: str) -> Iterator[None]:
    """Turn what an engine raises, with the errors of its workers in its text, into a SourceError
    without it."""
    try:
        yield
    except Exception as error:
        if type(error) is SourceError:
            raise
        raise SourceError(
            f"{engine}: it cannot be read where its rows are ({upstream(error)}); safegen has to "
            "be installed there too"
        ) from hidden(error)


def _of_ray(data: Any) -> Batches:
    what = "the Ray Dataset"
    with _asked(what):
        schema = getattr(data.schema(), "base_schema", None)
        if not isinstance(schema, pa.Schema):  # of blocks of pandas, and where nobody knows
            first = next(iter(data.limit(1).iter_batches(batch_format="pyarrow")), None)
            if first is None:
                raise SourceError(f"{what} has no rows and no columns")
            schema = first.schema
        rows = data.count()

    def blocks() -> Iterator[pa.RecordBatch]:
        with _asked(what):
            for block in data.iter_batches(batch_size=BATCH_ROWS, batch_format="pyarrow"):
                yield from block.select(schema.names).cast(schema).to_batches()

    def there(of: PartFunction) -> Iterator[Any]:
        with _asked(what):
            parts = data.map_batches(
                _Part(schema, of).table, batch_size=None, batch_format="pyarrow"
            )
            for block in parts.iter_batches(batch_size=None, batch_format="pyarrow"):
                for sent in block.column("part").to_pylist():
                    yield pickle.loads(sent)

    return Batches(schema, blocks, rows, there=there)


def _of_spark(frame: Any) -> Batches:
    what = "the Spark DataFrame"
    with _asked(what):
        schema = _stamped(frame.limit(0).toArrow().schema, frame.schema)
        rows = frame.count()

    def there(of: PartFunction) -> Iterator[Any]:
        with _asked(what):
            # No rows are collected, but what each partition comes to.
            parts = frame.mapInArrow(_Part(schema, of), "part binary").collect()
            for (sent,) in parts:
                yield pickle.loads(sent)

    def batches() -> Iterator[pa.RecordBatch]:
        with _asked(what):
            packed = frame.mapInArrow(_Packing(schema), "part binary").toLocalIterator()
            for (sent,) in packed:
                yield from pa.ipc.open_stream(bytes(sent))

    return Batches(schema, batches, rows, there=there)


@dataclass(frozen=True)
class _Packing:
    """Brings the rows of a partition here, batch by batch."""

    schema: pa.Schema

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            sink = pa.BufferOutputStream()
            with (
                reading("a part of the table"),
                pa.ipc.new_stream(sink, self.schema) as writer,
            ):
                writer.write_batch(batch.select(self.schema.names).cast(self.schema))
            data = sink.getvalue().to_pybytes()
            yield pa.record_batch([pa.array([data], pa.binary())], schema=_SENT)


def _stamped(schema: pa.Schema, frame: Any) -> pa.Schema:
    """The schema with the metadata that Spark's columns carry, where `read_stamps` looks."""
    document = frame.json().encode()
    return schema.with_metadata({b"org.apache.spark.sql.parquet.row.metadata": document})
