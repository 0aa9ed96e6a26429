"""Writing what was made from datasets so that it is known for what it is: `sink`."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from safegen.errors import TargetError, UsageError
from safegen.gates import LedgerLike
from safegen.lineage.facts import SourceFacts
from safegen.manifest import Manifest, SigningKey
from safegen.statements import derived, parents_of
from safegen.tables.batches import BATCH_ROWS
from safegen.tables.files import reading
from safegen.tables.sources import SourceLike, read_source
from safegen.tables.stamps import stamped

__all__ = ["sink"]


def sink(
    frame: SourceLike,
    path: str | os.PathLike[str],
    *,
    sources: Sequence[SourceLike],
    by: str | None = None,
    ledger: LedgerLike = None,
    key: str | Path | None = None,
) -> Manifest:
    """Write a frame as Parquet, stamped, and put on record what it was made from (`derive`).

    For polars, DuckDB and others that lose every mark of their input when they write: a polars
    frame or LazyFrame, a DuckDB relation, a pandas frame, an Arrow table or stream. What is lazy
    is streamed. `sources` are what it was made from; where any has synthetic rows, the file carries
    the stamp of the deepest, as pandas would have kept it, and whatever its statement says later,
    it is never taken for real. The file is there whole or not at all, in place of one that was.

    Raises: as `derive`, and TargetError when the file cannot be written.
    """
    target = Path(path)
    if target.suffix not in (".parquet", ".pq"):
        raise UsageError(f"{target}: sink writes Parquet: name a file that ends in .parquet")
    signer = SigningKey(key) if key is not None else None
    parents, books = parents_of(sources, ledger)
    with _replacing(target) as draft:
        _write(frame, draft, _stamp(parents))
    return derived(target, sources, parents, books, by, signer)


def _stamp(parents: Sequence[SourceFacts]) -> dict[str, Any] | None:
    """What the file says of itself: it came of this dataset. None where nothing is synthetic."""
    made = [p for p in parents if p.synthetic_share]
    if not made:
        return None
    deepest = max(made, key=lambda p: (p.depth, p.effective_depth))
    origin = "synthetic" if all(p.origin == "synthetic" for p in parents) else "mixed"
    return {"dataset_id": deepest.dataset_id, "origin": origin, "depth": float(deepest.depth)}


def _schema(schema: pa.Schema, stamp: dict[str, Any] | None) -> pa.Schema:
    return schema if stamp is None else stamped(schema, stamp)


def _write(frame: SourceLike, path: Path, stamp: dict[str, Any] | None) -> None:
    module = type(frame).__module__.partition(".")[0]
    if module == "polars" and hasattr(frame, "sink_parquet"):
        with reading("the lazy frame"):
            schema = frame.collect_schema().to_frame().to_arrow().schema
            said = _schema(schema, stamp).metadata or {}
            known = {k.decode(): v.decode() for k, v in said.items()}
            frame.sink_parquet(path, metadata=known or None)
        return
    with reading(f"the {type(frame).__name__}"):
        if module == "duckdb" and hasattr(frame, "to_arrow_reader"):
            batches = frame.to_arrow_reader(BATCH_ROWS)
        elif module in ("duckdb", "_duckdb"):
            batches = frame.fetch_record_batch(BATCH_ROWS)
        elif module != "pandas" and hasattr(frame, "__arrow_c_stream__"):
            batches = pa.RecordBatchReader.from_stream(frame)
        else:
            tables = read_source(frame).tables
            if len(tables) != 1:
                raise UsageError("sink writes one table: call it for each")
            batches = next(iter(tables.values()))
        schema = _schema(batches.schema, stamp)
        with pq.ParquetWriter(path, schema) as writer:
            for group in _grouped(batches):
                writer.write_table(group.replace_schema_metadata(schema.metadata))


def _grouped(batches: Any) -> Iterator[pa.Table]:
    """The batches in row groups of a usual size, whatever size they come in."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(b.num_rows for b in held) >= BATCH_ROWS:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A draft beside the target, which takes its place when it is whole."""
    try:
        descriptor, name = tempfile.mkstemp(
            prefix=".safegen-", suffix=".parquet", dir=target.parent
        )
        os.close(descriptor)
    except OSError as error:
        raise TargetError(f"{target}: cannot be written ({error.strerror})") from None
    draft = Path(name)
    try:
        yield draft
        umask = os.umask(0)
        os.umask(umask)
        draft.chmod(0o666 & ~umask)
        try:
            os.replace(draft, target)
        except OSError as error:
            raise TargetError(f"{target}: cannot be written ({error.strerror})") from None
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
