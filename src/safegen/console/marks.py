"""What a drawing of lineage is asked for, and what it is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from safegen.console.forest import Piece

__all__ = ["Asked", "Column", "Drawing", "Line", "Mark", "alone", "together"]


@dataclass(frozen=True)
class Asked:
    """What is to be drawn: of the whole, what passes every filter.

    q: words of datasets that are pointed out. component: all that hangs together with this one;
    root: only what it comes from and what comes from it. at: only what was made from this one, and
    of that what follows after the `skip` largest; without `at`, of the ends themselves.
    """

    q: str = ""
    origin: str | None = None
    since: str | None = None
    until: str | None = None
    component: str | None = None
    root: str | None = None
    at: str | None = None
    skip: int = 0
    most: int = 240


@dataclass(frozen=True)
class Mark:
    """A dataset, a missing source, or a group of them; counts are over its members.

    x: column, y: row. key: of one that stands alone. at, skip: what a group is asked for by.
    withdrawn: not to be used, itself or by what it comes from; found: hits of the search.
    """

    kind: Literal["dataset", "missing", "group"]
    x: float
    y: int
    depth: int
    origin: str
    name: str
    key: str | None = None
    count: int = 1
    rows: int = 0
    withdrawn: int = 0
    own: bool = False
    unverified: int = 0
    expired: int = 0
    claimed: int = 0
    at_least: bool = False
    registered: str | None = None
    found: int = 0
    at: str | None = None
    skip: int = 0
    made: int = 0


@dataclass(frozen=True)
class Line:
    """From one mark to another, by their numbers; count: of datasets made so.

    kind: `main` along the forest, `other` across it, `backward` where depth does not grow as it
    must: the manifests contradict each other.
    """

    source: int
    target: int
    count: int
    kind: Literal["main", "other", "backward"]


@dataclass(frozen=True)
class Column:
    """The depths of a column, `first` to `last`, and how many datasets it has."""

    first: int
    last: int
    count: int


@dataclass(frozen=True)
class Drawing:
    """Marks, lines and columns. datasets: how many it is about, of `total`; missing: sources of
    which no record is known; components: parts that nothing connects. trail: from an end down to
    `at`, as (key, name)."""

    total: int
    datasets: int
    missing: int
    components: int
    found: int
    rows: int
    columns: list[Column]
    marks: list[Mark]
    lines: list[Line]
    trail: list[tuple[str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def alone(piece: Piece, x: float, y: int, key: str) -> Mark:
    """The mark of one that stands alone."""
    return Mark(
        kind="missing" if piece.dataset is None else "dataset",
        x=round(x, 2),
        y=y,
        depth=piece.depth,
        origin=piece.origin,
        name=piece.name,
        key=key,
        rows=piece.rows,
        withdrawn=int(piece.withdrawn),
        own=piece.own,
        unverified=int(piece.unverified),
        expired=int(piece.expired),
        claimed=int(piece.claimed),
        at_least=piece.at_least,
        registered=piece.registered,
        found=int(piece.found),
    )


def together(pieces: Sequence[Piece], x: float, y: int, at: str | None, skip: int) -> Mark:
    """The mark of several."""

    def count(wanted: Callable[[Piece], bool]) -> int:
        return sum(map(wanted, pieces))

    origins = {p.origin for p in pieces}
    known = count(lambda p: p.dataset is not None)
    real = pieces[0].depth == 0 and all(p.origin == "real" for p in pieces if p.dataset)
    said = [f"{known:,} {'real source' if real else 'dataset'}{'s' * (known != 1)}"] * bool(known)
    said += [f"{len(pieces) - known:,} without a record"] * (known < len(pieces))
    return Mark(
        kind="group",
        x=round(x, 2),
        y=y,
        depth=min(p.depth for p in pieces),
        origin=origins.pop() if len(origins) == 1 else "several",
        name=", ".join(said),
        count=len(pieces),
        rows=sum(p.rows for p in pieces),
        withdrawn=count(lambda p: p.withdrawn),
        unverified=count(lambda p: p.unverified),
        expired=count(lambda p: p.expired),
        claimed=count(lambda p: p.claimed),
        at_least=any(p.at_least for p in pieces),
        found=count(lambda p: p.found),
        at=at,
        skip=skip,
    )
