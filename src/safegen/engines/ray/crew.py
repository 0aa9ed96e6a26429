"""Sampling on Ray: workers on any node of a cluster, that each load the model once and make parts.

Parts come back in the plan's order, and only so many are on their way or wait for an earlier one
that memory does not grow with the number of rows. A worker that is lost costs the parts that it
had: they are made again, by another.
"""

from __future__ import annotations

import logging
import os
import pickle
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.contracts import stays_alone
from safegen.engines.local import TRIES
from safegen.engines.parts import make_part
from safegen.engines.ray.bench import Answer, Failure
from safegen.engines.ray.cluster import cluster
from safegen.engines.ray.hiring import engaged, let_go, lost, seen, terms
from safegen.engines.ray.luggage import packed
from safegen.engines.writing import finished
from safegen.errors import BackendError, WorkersLost

if TYPE_CHECKING:
    from safegen.contracts import Backend, Model
    from safegen.engines.parts import Part, Recipe
    from safegen.engines.writing import Written

__all__ = ["Crew"]

_LOG = logging.getLogger("safegen")

_IN_FLIGHT = 2
_AHEAD = 4  # parts per worker that are on their way, or wait for an earlier one
_PATIENCE = 30.0  # seconds after which it is said that Ray has placed no worker yet


class Crew:
    """An engine, as `engines.local.made` is one: the parts of a plan by workers of a Ray cluster,
    which come when they are first needed and stay with the model until the block ends.

    Called, it gives what was written of each part, in the plan's order. `workers`: None takes one
    for each CPU of the cluster; where this process has the model on a GPU one for each GPU, while
    all others see none. What is to be signed is made in this process, which has the key, and so is
    a single part. `advance` is called with the units of each part that was made.

    Raises: MissingExtra; WorkersLost when a part's worker is lost three times; BackendError when a
    part cannot be made, and where a worker has another safegen, or another library on which rows
    hang.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._hands: _Hands | None = None

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def __call__(
        self,
        recipe: Recipe,
        model: Model,
        backend: Backend,
        plan: Iterable[Part],
        folder: Path,
        *,
        workers: int | None = None,
        advance: Callable[[int], object] = lambda units: None,
    ) -> Iterator[Written]:
        plan = iter(plan)
        first = list(islice(plan, 2))
        if recipe.signer is not None or len(first) < 2:
            for part in chain(first, plan):
                yield make_part(recipe, model, backend, part, folder, advance)
            return
        if self._hands is None:
            ray = self._stack.enter_context(cluster(workers))
            resources, room = _needs(ray, model)
            first += islice(plan, max((workers or room) - len(first), 0))
            known = terms(
                backend, self._stack.enter_context(seen(folder)), gpus=resources["num_gpus"] > 0
            )
            size = min(workers or room, len(first))
            hands = _Hands(ray, resources, ray.put(known), (backend.name, _sent(ray, model)), size)
            self._hands = self._stack.enter_context(hands)
        for part, written in self._hands.made(recipe, chain(first, plan), folder):
            advance(part.units)
            yield written


def _needs(ray: Any, model: Model) -> tuple[dict[str, float], int]:
    """What a worker needs of its node, and for how many the cluster has that now."""
    there: Mapping[str, float] = ray.cluster_resources()
    gpus = int(there.get("GPU", 0)) if stays_alone(model) else 0
    room = 1 if stays_alone(model) else int(there.get("CPU", 1))
    return {"num_cpus": 1, "num_gpus": min(gpus, 1)}, max(1, gpus or room)


def _sent(ray: Any, model: Model) -> Any:
    """A model's saved files, put where every worker can get them."""
    with tempfile.TemporaryDirectory(prefix="safegen-model-") as name:
        model.save(Path(name))
        return packed(Path(name), ray.put)


@dataclass(eq=False)
class _Seat:
    """A worker, and the parts that it was given and has not answered, by reference, oldest first.

    `begun`: the reference of what it says before it can be given any; None from then on. `sees`:
    whether its machine sees the folder.
    """

    worker: Any
    begun: Any
    sees: bool = False
    parts: dict[Any, Part] = field(default_factory=dict)


class _Hands:
    """Workers that come, make parts, and are replaced when they are lost."""

    def __init__(
        self,
        ray: Any,
        resources: Mapping[str, float],
        known: Any,
        needed: tuple[Any, ...],
        size: int,
    ):
        self._ray, self._resources, self._known, self._needed = ray, resources, known, needed
        self._seats: list[_Seat] = []
        self._size = size
        self._recipes = 0
        self._again: list[Part] = []  # of workers that were lost
        self._losses: Counter[int | None] = Counter()  # by part; None: before there was any

    def __enter__(self) -> _Hands:
        self._seats += [self._seat() for _ in range(self._size)]
        return self

    def __exit__(self, *exc: object) -> None:
        begun = [seat.worker for seat in self._seats if seat.begun is None]
        let_go(self._ray, begun, [s.worker for s in self._seats if s.begun is not None])

    def _seat(self) -> _Seat:
        worker = engaged(self._ray, self._resources)
        return _Seat(worker, worker.begin.remote(self._known))

    def made(
        self, recipe: Recipe, plan: Iterator[Part], folder: Path
    ) -> Iterator[tuple[Part, Written]]:
        """Each part of a plan, made by a recipe, in the plan's order."""
        self._recipes += 1
        self._losses.clear()
        sent = self._recipes, self._ray.put(pickle.dumps(recipe))
        order: deque[Part] = deque()  # begun, and not yet given back
        done: dict[int, Written] = {}
        coming = next(plan, None)
        while coming is not None or order:
            while (seat := self._free()) is not None:
                if self._again:
                    part = self._again.pop(0)
                elif coming is not None and len(order) < _AHEAD * self._size:
                    part, coming = coming, next(plan, None)
                    order.append(part)
                else:
                    break
                # What an interrupted run has done a worker finds out, if it sees the folder.
                hidden = not (seat.sees or recipe.decoys)
                known = finished(recipe, part, folder) if hidden else None
                if known is None:
                    seat.parts[seat.worker.make.remote(*sent, part)] = part
                else:
                    done[part.number] = known
            if not (order and order[0].number in done):
                done |= self._next(folder)
            while order and order[0].number in done:
                part = order.popleft()
                yield part, done.pop(part.number)

    def _free(self) -> _Seat | None:
        """The worker with the least to do; None where all have enough."""
        free = (s for s in self._seats if s.begun is None and len(s.parts) < _IN_FLIGHT)
        return min(free, key=lambda s: len(s.parts), default=None)

    def _next(self, folder: Path) -> dict[int, Written]:
        """Wait for what comes first: a part, a worker that has begun, or the loss of one."""
        by = {r: s for s in self._seats for r in ([s.begun] if s.begun is not None else s.parts)}
        found, _ = self._ray.wait(list(by), timeout=_PATIENCE)
        done = {}
        for reference in found:
            seat = by[reference]
            try:
                answer = self._ray.get(reference)
            except Exception as error:
                self._replace(seat, lost(self._ray, error))
            else:
                if seat.begun is None:
                    done[seat.parts.pop(reference).number] = _taken(answer, folder)
                else:
                    self._welcome(seat, answer)
        if not found and all(s.begun is not None for s in self._seats):
            _LOG.info("sampling: Ray has found no room for a worker yet")
        return done

    def _welcome(self, seat: _Seat, answer: Any) -> None:
        """Go on with a worker that has begun. Raises: BackendError where it cannot be used."""
        if isinstance(answer, Failure):
            raise answer.error()
        if answer == "":  # the terms are met: it may read what is ours
            seat.begun = seat.worker.settle.remote(*self._needed)
        elif isinstance(answer, str):
            raise BackendError(f"{answer}, which this process has: rows would differ")
        else:
            seat.begun, seat.sees = None, answer
            del self._losses[None]

    def _replace(self, seat: _Seat, why: str) -> None:
        """Have another worker make the parts of one that was lost.

        Raises: WorkersLost when that was often enough.
        """
        parts = list(seat.parts.values())
        at = parts[0].number if parts else None  # the others only waited
        self._losses[at] += 1
        if self._losses[at] == TRIES:
            raise WorkersLost(
                f"Ray workers were lost {TRIES} times ({why}) before "
                f"{'they had begun' if at is None else 'a part was done'}; their nodes may have "
                "run out of memory: try fewer --workers"
            )
        _LOG.info("sampling: a Ray worker was lost (%s); what it was at is made again", why)
        self._again = sorted([*self._again, *parts], key=lambda part: part.number)
        self._seats.remove(seat)
        let_go(self._ray, [], [seat.worker])
        self._seats.append(self._seat())


def _taken(answer: Answer, folder: Path) -> Written:
    """What was written, with the files in the folder. Raises: BackendError."""
    if answer.failed is not None:
        raise answer.failed.error()
    for name, data in answer.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partly = path.with_name(f".{path.name}.partly")
        partly.write_bytes(data)
        os.replace(partly, path)
    written: Written = pickle.loads(answer.written)
    return written
