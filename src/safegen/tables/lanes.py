"""Rows expanded to lanes and added up, which is what a logical digest costs: here, and where there
are many rows in a second process as well, for Python's hashes hold the interpreter's lock.

`python -m safegen.tables.lanes SEED` reads the number of rows of a batch, the size of all of them
(64-bit each) and their bytes, again and again, and answers each batch with the sum of its lanes.
Ends when its input ends.
"""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from safegen.processes import cores, started

__all__ = ["LANES", "Helper", "Lanes", "summed"]

LANES = 1024
_CHUNK = 2048  # rows expanded at once: 4 MiB
_WORTH = 100_000  # rows that take longer than a process does to start, some times over

Lanes = npt.NDArray[np.uint16]


def summed(seed: bytes, rows: bytes, count: int) -> Lanes:
    """The sum of the lanes of `count` rows, as long as each other."""
    total = np.zeros(LANES, dtype=np.uint16)
    data = memoryview(rows)
    width = len(data) // max(count, 1)
    base = hashlib.shake_128(seed)
    for first in range(0, count, _CHUNK):
        expanded = []
        for row in range(first, min(first + _CHUNK, count)):
            h = base.copy()
            h.update(data[row * width : (row + 1) * width])
            expanded.append(h.digest(2 * LANES))
        lanes = np.frombuffer(b"".join(expanded), dtype="<u2").reshape(-1, LANES)
        total += lanes.sum(axis=0, dtype=np.uint16)
    return total


class Helper:
    """Sums lanes in two processes, the second of which starts once it is worth it.

    `add` gives the sum of batches added so far that are done, in whatever order, and `rest` that of
    those still under way. A second process that is lost costs time only; one that nobody closed
    ends with this object.
    """

    def __init__(self, seed: bytes):
        self._seed = seed
        self._rows = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._doing: Future[Lanes] | None = None

    def close(self) -> None:
        """End the second process, whatever it is at; a later `add` may start another."""
        self._end(wait=True)

    def __del__(self) -> None:
        with suppress(Exception):
            self._end(wait=False)  # perhaps in the thread itself, which is done

    def _end(self, *, wait: bool) -> None:
        if self._process is not None:
            self._process.kill()
        if self._thread is not None:
            self._thread.shutdown(wait=wait)
        process, self._process = self._process, None  # it may have been starting
        self._doing = self._thread = None
        if process is not None:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
            process.wait()

    def add(self, rows: bytes, count: int) -> Lanes:
        self._rows += count
        if self._thread is None and self._rows > _WORTH and cores() > 1:
            self._thread = ThreadPoolExecutor(1)
        if self._thread is None or not (self._doing is None or self._doing.done()):
            return summed(self._seed, rows, count)
        done = self.rest()
        self._doing = self._thread.submit(self._elsewhere, rows, count)
        return done

    def rest(self) -> Lanes:
        doing, self._doing = self._doing, None
        return np.zeros(LANES, dtype=np.uint16) if doing is None else doing.result()

    def _elsewhere(self, rows: bytes, count: int) -> Lanes:
        try:
            if self._process is None:
                self._process = started(__name__, self._seed.hex())
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(struct.pack("<qq", count, len(rows)) + rows)
            self._process.stdin.flush()
            answer = self._process.stdout.read(2 * LANES)
            return np.frombuffer(answer, dtype="<u2", count=LANES)
        except (OSError, ValueError):  # it is gone
            return summed(self._seed, rows, count)


def _main(seed: str) -> None:
    while head := sys.stdin.buffer.read(16):
        count, size = struct.unpack("<qq", head)
        lanes = summed(bytes.fromhex(seed), sys.stdin.buffer.read(size), count)
        sys.stdout.buffer.write(lanes.astype("<u2").tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _main(*sys.argv[1:])
