"""Sampling on this machine: in this process, or in worker processes that each load the model.

A worker is a process of its own (`python -m safegen.engines.worker`). It makes parts from beginning
to end and says what it wrote; here nothing is done but to merge that. At most two parts per worker
are under way, and no part is begun that is far ahead of the next one due, so memory does not grow
with the number of rows. A worker that is lost costs the parts that it was at.
"""

from __future__ import annotations

import json
import os
import pickle
import queue
import struct
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from safegen.contracts import stays_alone
from safegen.engines.parts import make_part
from safegen.errors import BackendError, WorkersLost
from safegen.processes import cores, started

if TYPE_CHECKING:
    from safegen.contracts import Backend, Model
    from safegen.engines.parts import Part, Recipe
    from safegen.engines.writing import Written

__all__ = ["made"]

TRIES = 3
"""Times that a part is begun, at most: what kills its worker every time is no accident."""

_IN_FLIGHT = 2
_AHEAD = 4  # parts per worker that may be done before the one that is due
_BLOCKS_EACH = 3


def made(
    recipe: Recipe,
    model: Model,
    backend: Backend,
    plan: Iterable[Part],
    folder: Path,
    *,
    workers: int | None = None,
    advance: Callable[[int], object] = lambda units: None,
) -> Iterator[Written]:
    """The parts of a plan, made below `folder`: what was written of each, in the plan's order.

    `workers`: processes; None takes one per core as long as each has blocks enough to be worth its
    start, and this process alone for a model that says `alone`. What is to be signed is made in
    this process, which has the key. `advance` is called with the units that were made.

    Raises: BackendError when a block comes short or holds other tables, or when a part's worker is
    lost three times.
    """
    plan = iter(plan)
    if workers is None:
        plan, workers = _worth(plan, stays_alone(model))
    if workers == 1 or recipe.signer is not None:
        for part in plan:
            yield make_part(recipe, model, backend, part, folder, advance)
        return
    with ExitStack() as stack:
        saved = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="safegen-model-")))
        model.save(saved)
        crew = stack.enter_context(_Crew(recipe, saved, folder, workers))
        yield from crew.made(plan, advance)


def _worth(plan: Iterator[Part], alone: bool) -> tuple[Iterator[Part], int]:
    """The plan, and how many processes are worth their start when each is to make a few blocks."""
    seen: list[Part] = []
    blocks, most = 0, 1 if alone else cores()
    while blocks < most * _BLOCKS_EACH and (part := next(plan, None)) is not None:
        seen.append(part)
        blocks += len(part.blocks)
    return _all(seen, plan), max(1, min(most, blocks // _BLOCKS_EACH, len(seen)))


def _all(seen: list[Part], plan: Iterator[Part]) -> Iterator[Part]:
    yield from seen
    yield from plan


class _Crew:
    """Worker processes, and what each is at."""

    def __init__(self, recipe: Recipe, saved: Path, folder: Path, workers: int):
        self._told = pickle.dumps((recipe, folder))
        self._arguments = (recipe.backend, str(saved))
        self._size = workers
        self._said: queue.Queue[tuple[_Worker, str, bytes]] = queue.Queue()
        self._workers: list[_Worker] = []

    def __enter__(self) -> _Crew:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers:
            worker.end(now=exc[0] is not None)

    def made(self, plan: Iterator[Part], advance: Callable[[int], object]) -> Iterator[Written]:
        """What each part's worker says of it, in the plan's order."""
        again: deque[Part] = deque()  # of workers that were lost
        tries: dict[int, int] = {}
        done: dict[int, Written] = {}
        order: deque[int] = deque()  # parts that were begun and not yet given back
        while True:
            while len(order) < _AHEAD * self._size or again:
                worker = self._free()
                if worker is None:
                    break
                part = again.popleft() if again else next(plan, None)
                if part is None:
                    break
                if part.number not in tries:
                    order.append(part.number)
                tries[part.number] = tries.get(part.number, 0) + 1
                worker.ask(part)
            if not order:
                return
            worker, kind, data = self._said.get()
            if kind == "units":
                advance(struct.unpack("<q", data)[0])
            elif kind == "written":
                part = worker.parts.popleft()
                done[part.number] = pickle.loads(data)
                tries.pop(part.number)
            elif kind == "error":
                raise BackendError(data.decode())
            elif kind == "system":  # the disk is full, for instance: as if it had happened here
                (number,) = struct.unpack("<q", data)
                raise OSError(number, os.strerror(number))
            elif worker in self._workers:
                again += self._lost(worker, tries)
            while order and order[0] in done:
                yield done.pop(order.popleft())

    def _free(self) -> _Worker | None:
        """The worker with the least to do; one that is started where there are too few; None where
        all have enough."""
        if len(self._workers) < self._size:
            self._workers.append(_Worker(self._arguments, self._told, self._said))
        worker = min(self._workers, key=lambda w: len(w.parts))
        return worker if len(worker.parts) < _IN_FLIGHT else None

    def _lost(self, worker: _Worker, tries: dict[int, int]) -> list[Part]:
        """The parts that are to be made again. Raises: BackendError where it makes no sense."""
        self._workers.remove(worker)
        code = worker.end(now=True)
        parts = list(worker.parts)
        if any(tries[part.number] >= TRIES for part in parts):
            raise WorkersLost(
                f"sampling processes ended {TRIES} times (exit {code}) before a part was done; "
                "they may have run out of memory: try fewer --workers"
            )
        return parts


class _Worker:
    """One worker process: what it needs goes in as one pickle through its own pipe, and parts as
    JSON lines; what it answers is put into `said`, as (worker, kind, data). A thread talks to it
    and another listens, so that nobody waits for a process that has not started yet."""

    def __init__(
        self,
        arguments: tuple[str, str],
        told: bytes,
        said: queue.Queue[tuple[_Worker, str, bytes]],
    ):
        self.parts: deque[Part] = deque()
        self._process: subprocess.Popen[bytes] = started("safegen.engines.worker", *arguments)
        self._said = said
        self._told: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._told.put(struct.pack("<q", len(told)) + told)
        self._threads = [
            threading.Thread(target=t, daemon=True) for t in (self._talk, self._listen)
        ]
        for thread in self._threads:
            thread.start()

    def ask(self, part: Part) -> None:
        self.parts.append(part)
        line = json.dumps([part.number, part.first, part.blocks])
        self._told.put(line.encode() + b"\n")

    def end(self, *, now: bool) -> int:
        """End the process: at once, or when it has done what it was asked for."""
        if now:
            self._process.kill()
        self._told.put(None)
        for thread in self._threads:
            thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return self._process.wait()

    def _talk(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # it is gone, as the other thread will say
            while (data := self._told.get()) is not None:
                self._process.stdin.write(data)
                self._process.stdin.flush()
        with suppress(OSError):
            self._process.stdin.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        out = self._process.stdout
        with suppress(OSError, ValueError, struct.error):
            while True:
                kind, size = struct.unpack("<8sq", _exactly(out, 16))
                self._said.put((self, kind.strip().decode(), _exactly(out, size)))
        self._said.put((self, "lost", b""))


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise ValueError("it ended")
    return data
