"""Sampling on this machine: in this process, or in worker processes that each load the model.

A worker is a fresh interpreter (`python -m safegen.engines.worker`), not a fork: forking a process
that has threads (BLAS, Arrow) can hang, and multiprocessing's spawn re-runs the caller's script.
Blocks come back in order, and at most two per worker are in flight, so memory does not grow with
the number of rows.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from safegen.errors import BackendError

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.contracts import Model, Scalar

__all__ = ["block_plan", "sample_blocks"]

_IN_FLIGHT = 2


def block_plan(rows: int, block_rows: int) -> Iterator[tuple[int, int]]:
    """(block number, rows wanted of it) for a request: all blocks are full but the last."""
    for block in range(-(-rows // block_rows)):
        yield block, min(block_rows, rows - block * block_rows)


def sample_blocks(
    model: Model,
    backend: str,
    *,
    rows: int,
    block_rows: int,
    seed: int,
    conditions: Mapping[str, Scalar] | None = None,
    workers: int = 1,
) -> Iterator[dict[str, pa.Table]]:
    """The blocks of a request, in order.

    Raises: BackendError when a block comes short, or a worker is lost.
    """
    workers = max(1, min(workers, -(-rows // block_rows)))
    source: Iterator[dict[str, pa.Table]]
    if workers == 1:
        source = (
            model.sample(n, seed=seed, block=b, conditions=conditions)
            for b, n in block_plan(rows, block_rows)
        )
    else:
        source = _by_workers(
            model, backend, block_plan(rows, block_rows), seed, conditions, workers
        )
    for (block, wanted), tables in zip(block_plan(rows, block_rows), source, strict=True):
        got = sum(t.num_rows for t in tables.values())
        if len(tables) == 1 and got != wanted:
            raise BackendError(
                f"{backend} gave {got:,} rows for block {block} where {wanted:,} were asked for"
            )
        yield tables


def _by_workers(
    model: Model,
    backend: str,
    plan: Iterator[tuple[int, int]],
    seed: int,
    conditions: Mapping[str, Scalar] | None,
    workers: int,
) -> Iterator[dict[str, pa.Table]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="safegen-model-")))
        model.save(folder)
        crew = [stack.enter_context(_Worker(backend, folder)) for _ in range(workers)]
        waiting: deque[_Worker] = deque()

        def give(worker: _Worker) -> None:
            task = next(plan, None)
            if task is not None:
                worker.ask(task, seed, conditions)
                waiting.append(worker)

        for worker in crew * _IN_FLIGHT:
            give(worker)
        while waiting:
            worker = waiting.popleft()
            tables = worker.answer()
            give(worker)
            yield tables


class _Worker:
    """One worker process; tasks go in as JSON lines, tables come out as framed Arrow streams."""

    def __init__(self, backend: str, folder: Path):
        self._command = [
            sys.executable,
            "-P",
            "-W",
            "ignore",
            "-m",
            "safegen.engines.worker",
            backend,
            str(folder),
        ]
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> _Worker:
        path = os.pathsep.join([*(p for p in sys.path if p), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the parent, which ends its workers
            env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
        )
        return self

    def __exit__(self, *exc: object) -> None:
        process = self._process
        if exc[0] is not None:
            process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        process.wait()

    def ask(
        self, task: tuple[int, int], seed: int, conditions: Mapping[str, Scalar] | None
    ) -> None:
        block, rows = task
        line = json.dumps({"block": block, "rows": rows, "seed": seed, "conditions": conditions})
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._lost() from None

    def answer(self) -> dict[str, pa.Table]:
        import pyarrow as pa

        assert self._process.stdout is not None
        out = self._process.stdout
        tables = {}
        (count,) = struct.unpack("<q", self._exactly(out, 8))
        if count < 0:
            raise BackendError(self._exactly(out, -count).decode())
        for _ in range(count):
            name_size, size = struct.unpack("<qq", self._exactly(out, 16))
            name = self._exactly(out, name_size).decode()
            tables[name] = pa.ipc.open_stream(self._exactly(out, size)).read_all()
        return tables

    def _exactly(self, stream: IO[bytes], size: int) -> bytes:
        data = stream.read(size)
        if len(data) != size:
            raise self._lost()
        return data

    def _lost(self) -> BackendError:
        code = self._process.poll()
        return BackendError(
            f"a sampling process ended (exit {code}) before its block was done; it may have run "
            "out of memory: try fewer --workers"
        )
