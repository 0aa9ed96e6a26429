"""Engines by name: where parts are made, and where backends are fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal, Protocol

from safegen.engines import local
from safegen.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from safegen.contracts import Backend, Model
    from safegen.engines.parts import Part, Recipe
    from safegen.engines.writing import Written

__all__ = ["Engine", "EngineName", "check_engine", "fitting", "making"]

EngineName = Literal["local", "ray"]


class Engine(Protocol):
    """What makes the parts of a plan, as `engines.local.made` does."""

    def __call__(
        self,
        recipe: Recipe,
        model: Model,
        backend: Backend,
        plan: Iterable[Part],
        folder: Path,
        *,
        workers: int | None = None,
        advance: Callable[[int], object] = ...,
    ) -> Iterator[Written]: ...


def check_engine(name: str) -> None:
    """Find out before hours of work. Raises: UsageError for a name that is none; MissingExtra."""
    if name == "ray":
        from safegen.engines.ray.cluster import library

        library()
    elif name != "local":
        raise UsageError(f"engine (--engine) is local or ray, not {name!r}")


def making(name: EngineName) -> AbstractContextManager[Engine]:
    """What makes parts where the engine of a name does, until the block ends."""
    if name == "local":
        return nullcontext(local.made)
    from safegen.engines.ray.crew import Crew

    return Crew()


def fitting(name: EngineName, backend: Backend) -> Callable[..., Model]:
    """What fits the backend where the engine of a name does; called as `Backend.fit` is."""
    if name == "local":
        return backend.fit
    from functools import partial

    from safegen.engines.ray.fitting import fitted

    return partial(fitted, backend)
