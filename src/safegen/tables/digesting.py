"""Both digests of a table in one pass: here, and where there are many rows in a second process as
well, for Python's hashes hold the interpreter's lock.

`python -m safegen.tables.digesting` is that process. It reads the schema, keys and schemes, and
then batch after batch, and answers each with what its rows add to every digest. Ends when its input
ends, and without a word where a batch cannot be digested.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import pyarrow as pa

from safegen.processes import cores, started
from safegen.tables.batches import Batches
from safegen.tables.digests import LookupDigest, RowsDigest, TableDigests

__all__ = ["table_digests"]

_WORTH = 100_000  # rows that take longer than a process does to start, some times over


def table_digests(
    batches: Batches,
    keys: Iterable[tuple[str, bytes]] = (),
    seen: Collection[Callable[[pa.RecordBatch], None]] = (),
    also: Collection[str] = (),
) -> tuple[RowsDigest, dict[str, LookupDigest]]:
    """One pass over a table: its logical digest and its lookup digest per key epoch.

    Each of `seen` is called with every batch, so that other tallies ride along. `also` are schemes
    in which the logical digest is wanted too.
    """
    digested = batches.schema, list(keys), tuple(also)
    here = TableDigests(*digested)
    with closing(_Second(*digested)) as second:
        for batch in batches:
            if not second.takes(batch):
                here.update(batch)
            for tally in seen:
                tally(batch)
        for digests in second.done():
            here.merge(digests)
    return here.rows, here.lookups


class _Second:
    """A second process, which starts once it is worth it, and takes a batch when it has none.

    One that is lost costs time only: its batch is digested here.
    """

    def __init__(self, *digested: Any):
        self._digested = digested  # what `TableDigests` takes
        self._rows = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._taken: list[Future[TableDigests]] = []

    def takes(self, batch: pa.RecordBatch) -> bool:
        """Whether it has taken the batch, because it has nothing to do."""
        self._rows += batch.num_rows
        if self._thread is None:
            if self._rows <= _WORTH or cores() < 2:
                return False
            self._thread = ThreadPoolExecutor(1)
        if self._taken and not self._taken[-1].done():
            return False
        self._taken.append(self._thread.submit(self._elsewhere, batch))
        return True

    def done(self) -> list[TableDigests]:
        """The digests of the batches that it took; what it is at is waited for."""
        return [taken.result() for taken in self._taken]

    def close(self) -> None:
        """End it, whatever it is at."""
        if self._process is not None:
            self._process.kill()
        if self._thread is not None:
            self._thread.shutdown()
        if self._process is not None:  # it may have been starting
            self._process.kill()
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                with suppress(OSError):
                    stream.close()
            self._process.wait()

    def _elsewhere(self, batch: pa.RecordBatch) -> TableDigests:
        try:
            if self._process is None:
                self._process = started(__name__)
                _send(self._process.stdin, self._digested)
            assert self._process.stdout is not None
            _send(self._process.stdin, _packed(batch))
            digests: TableDigests = pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError, pa.ArrowException):  # it is gone
            digests = TableDigests(*self._digested)
            digests.update(batch)
        return digests


def _packed(batch: pa.RecordBatch) -> bytes:
    """An Arrow stream of one batch: a pickle would hold all of the table that it is cut from."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def _send(stream: Any, value: Any) -> None:
    pickle.dump(value, stream, protocol=5)
    stream.flush()


def _main() -> None:
    source, answers = sys.stdin.buffer, sys.stdout.buffer
    digested = pickle.load(source)
    with suppress(Exception):  # whose text may quote values; it is met again where it can be told
        while True:
            packed = pickle.load(source)
            digests = TableDigests(*digested)
            for batch in pa.ipc.open_stream(packed):
                digests.update(batch)
            _send(answers, digests)


if __name__ == "__main__":
    _main()
