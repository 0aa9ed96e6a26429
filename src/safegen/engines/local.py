"""Sampling on this machine: in this process, or in worker processes that each load the model.

A worker is a process of its own (`python -m safegen.engines.worker`). Blocks come back in order,
and at most two per worker are in flight, so memory does not grow with the number of rows.
"""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from safegen.contracts import stays_alone
from safegen.engines.blocks import Block, block_plan, shaped_block
from safegen.errors import BackendError
from safegen.processes import cores, started
from safegen.tables.batches import WEIGHT_COLUMN
from safegen.tables.units import units

if TYPE_CHECKING:
    from safegen.contracts import Backend, Model, Scalar
    from safegen.shaping.shape import Shape
    from safegen.tables.schema import TableSchema

__all__ = ["sample_blocks"]

_IN_FLIGHT = 2
_BLOCKS_EACH = 3


def sample_blocks(
    model: Model,
    backend: Backend,
    schemas: Mapping[str, TableSchema],
    *,
    rows: int,
    seed: int,
    conditions: Mapping[str, Scalar] | None = None,
    workers: int | None = None,
    shape: Shape | None = None,
) -> Iterator[Block]:
    """The blocks of a request, in order, each with exactly the rows that are its own.

    `workers`: None takes a process per core as long as each has blocks enough to be worth its
    start; this one only for a model that says `alone`.

    Raises: BackendError when a block comes short or holds other tables, or a worker is lost.
    """
    full = backend.block_rows if shape is None else shape.capacity(backend.block_rows)
    blocks = -(-rows // full)
    if workers is None:
        workers = 1 if stays_alone(model) else _worth(blocks)
    workers = min(workers, blocks)
    plan = block_plan(rows, full)
    source: Iterator[Block]
    if workers == 1:
        source = (
            shaped_block(model, backend, n, seed=seed, block=b, conditions=conditions, shape=shape)
            for b, n in plan
        )
    else:
        source = _by_workers(model, backend.name, plan, seed, conditions, workers, shape)
    for (block, wanted), made in zip(block_plan(rows, full), source, strict=True):
        tables = made.tables
        if set(tables) != set(schemas):  # no safeguard would look at the others
            raise BackendError(f"{backend.name} gave other tables than the source's")
        got = units(tables, schemas)
        if got != wanted:
            raise BackendError(
                f"{backend.name} gave {got:,} rows for block {block} where {wanted:,} were asked "
                "for"
            )
        yield made


def _worth(blocks: int) -> int:
    """How many processes are worth their start, when each is to make a few blocks."""
    return max(1, min(cores(), blocks // _BLOCKS_EACH))


def _by_workers(
    model: Model,
    backend: str,
    plan: Iterator[tuple[int, int]],
    seed: int,
    conditions: Mapping[str, Scalar] | None,
    workers: int,
    shape: Shape | None,
) -> Iterator[Block]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="safegen-model-")))
        model.save(folder)
        crew = [stack.enter_context(_Worker(backend, folder, shape)) for _ in range(workers)]
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
            made = worker.answer()
            give(worker)
            yield made


class _Worker:
    """One worker process: what it needs goes in as one pickle through its own pipe, tasks as JSON
    lines, and tables come out as framed Arrow streams."""

    def __init__(self, backend: str, folder: Path, shape: Shape | None):
        self._shape = pickle.dumps(shape)
        self._told = False
        self._arguments = (backend, str(folder))
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> _Worker:
        self._process = started("safegen.engines.worker", *self._arguments)
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
        if not self._told:  # not on entering: what is interrupted there is left behind
            self._told = True
            self._send(struct.pack("<q", len(self._shape)) + self._shape)
        block, rows = task
        line = json.dumps({"block": block, "rows": rows, "seed": seed, "conditions": conditions})
        self._send(line.encode() + b"\n")

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except OSError:
            raise self._lost() from None

    def answer(self) -> Block:
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
        weights = tables.pop(WEIGHT_COLUMN, None)
        return Block(tables, None if weights is None else weights.column(0).to_numpy())

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
