"""What a ledger holds as a forest: each dataset below the deepest thing that it was made from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from safegen.console.contents import Contents
from safegen.console.entries import DatasetEntry, Source, name_of

__all__ = ["Forest", "Piece"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A dataset, or a source of which no record is known (`dataset` is None)."""

    dataset: DatasetEntry | None
    name: str
    origin: str
    depth: int
    rows: int
    registered: str | None
    withdrawn: bool
    own: bool
    unverified: bool
    expired: bool
    claimed: bool
    at_least: bool
    found: bool


class Forest:
    """The pieces of a ledger that pass the filters, by number, and how they hang together.

    parents, children: all that pass, whatever the forest; below: the trees under each; roots: the
    ends. `column[n]`: of a piece; `columns`: the first and last depth of each; where there are more
    depths than may have columns, neighbours share one. columns_below: a bit for each column that a
    tree has; size, found_below: over a tree.
    """

    def __init__(
        self,
        contents: Contents,
        *,
        q: str = "",
        origin: str | None = None,
        since: str | None = None,
        until: str | None = None,
        component: str | None = None,
        root: str | None = None,
        columns: int = 60,
    ):
        wanted = dict.fromkeys(
            d.dataset_id
            for d in contents.datasets.values()
            if (origin is None or d.origin == origin)
            and (since is None or d.registered[:10] >= since[:10])
            and (until is None or d.registered[:10] <= until[:10])
        )
        for dataset_id in list(wanted):
            for key in contents.sources_of.get(dataset_id, ()):
                source = contents.missing.get(key)
                if source is not None and origin in (None, source.origin):
                    wanted[key] = None
        if root is not None:
            wanted = _both_ways(contents, root, wanted)
        if component is not None:
            wanted = _connected(contents, component, wanted)
        hits = set(contents.ids_with(q)) if q.strip() else set()
        self.keys = list(wanted)
        self.number = {key: n for n, key in enumerate(self.keys)}
        self.pieces = [_piece(contents, key, key in hits) for key in self.keys]
        self.parents: list[list[int]] = [
            [self.number[s] for s in contents.sources_of.get(key, ()) if s in self.number]
            for key in self.keys
        ]
        self.children: list[list[int]] = [[] for _ in self.keys]
        for node, parents in enumerate(self.parents):
            for parent in parents:
                self.children[parent].append(node)
        self._set_columns(columns)
        self._plant()
        self._measure()

    def within(self, tree: int) -> Iterator[int]:
        """All of a tree, its root first."""
        open_ = [tree]
        while open_:
            node = open_.pop()
            yield node
            open_ += self.below[node]

    def ordered(self, trees: Iterable[int]) -> list[int]:
        """Trees with hits first, then the largest, then those not to be used, then the newest."""

        def rank(tree: int) -> tuple[int, ...]:
            withdrawn = self.pieces[tree].withdrawn
            return -self.found_below[tree], -self.size[tree], -withdrawn, -tree

        return sorted(trees, key=rank)

    def above(self, node: int | None) -> list[int]:
        """From an end of the forest down to a piece, which is the last."""
        found = [] if node is None else [node]
        while found and self.above_of[found[-1]] >= 0:
            found.append(self.above_of[found[-1]])
        return found[::-1]

    def column_of(self, depth: int) -> int:
        """The column of a depth."""
        return bisect_right(self._firsts, depth) - 1

    @property
    def components(self) -> int:
        """How many parts there are that no line connects."""
        seen = bytearray(len(self.keys))
        count = 0
        for start in range(len(self.keys)):
            if seen[start]:
                continue
            count += 1
            open_, seen[start] = [start], 1
            while open_:
                node = open_.pop()
                for other in (*self.parents[node], *self.children[node]):
                    if not seen[other]:
                        seen[other] = 1
                        open_.append(other)
        return count

    def _set_columns(self, most: int) -> None:
        depths = sorted({p.depth for p in self.pieces})
        step = max(1, -(-len(depths) // most))
        chunks = [depths[i : i + step] for i in range(0, len(depths), step)]
        self.columns = [(c[0], c[-1]) for c in chunks]
        self._firsts = [first for first, _ in self.columns]
        self.column = [self.column_of(p.depth) for p in self.pieces]

    def _plant(self) -> None:
        """Choose what each hangs below: the deepest, of several the first. Where claims go round
        in a circle, it is cut where it was met first."""
        depth = [p.depth for p in self.pieces]
        above = [max(ps, key=depth.__getitem__) if ps else -1 for ps in self.parents]
        settled = bytearray(len(above))  # 1: on the way up just now, 2: leads to an end
        for start in range(len(above)):
            way, node = [], start
            while node >= 0 and not settled[node]:
                settled[node] = 1
                way.append(node)
                node = above[node]
            if node >= 0 and settled[node] == 1:
                above[node] = -1
            for one in way:
                settled[one] = 2
        self.above_of = above
        self.below: list[list[int]] = [[] for _ in above]
        for node, parent in enumerate(above):
            if parent >= 0:
                self.below[parent].append(node)
        self.roots = [n for n, parent in enumerate(above) if parent < 0]

    def _measure(self) -> None:
        self.size = [1] * len(self.keys)
        self.found_below = [int(p.found) for p in self.pieces]
        self.columns_below = [1 << c for c in self.column]
        order = [n for root in self.roots for n in self.within(root)]
        for node in reversed(order):  # what is below comes before what is above
            if (parent := self.above_of[node]) >= 0:
                self.size[parent] += self.size[node]
                self.found_below[parent] += self.found_below[node]
                self.columns_below[parent] |= self.columns_below[node]


def _piece(contents: Contents, key: str, found: bool) -> Piece:
    one = contents.datasets.get(key)
    if one is None:
        return _missing(contents.missing[key], key, key in contents.withdrawn, found)
    return Piece(
        dataset=one,
        name=contents.names.get(key) or f"{one.backend or one.statement} {key[-6:]}",
        origin=one.origin,
        depth=one.depth,
        rows=one.rows,
        registered=one.registered,
        withdrawn=key in contents.withdrawn,
        own=key in contents.withdrawals,
        unverified=not one.verified,
        expired=one.expired,
        claimed=one.claimed,
        at_least=one.depth_is_lower_bound,
        found=found,
    )


def _missing(source: Source, key: str, withdrawn: bool, found: bool) -> Piece:
    return Piece(
        dataset=None,
        name=name_of(source.uri or "") or key[:16],
        origin=source.origin,
        depth=source.depth,
        rows=source.rows,
        registered=None,
        withdrawn=withdrawn,
        own=withdrawn,
        unverified=True,
        expired=False,
        claimed=False,
        at_least=source.ancestry != "attested",
        found=found,
    )


def _both_ways(contents: Contents, root: str, wanted: dict[str, None]) -> dict[str, None]:
    """Of these, what one comes from and what comes from it."""
    found: set[str] = set()
    for lines in (contents.sources_of, contents.made_from):
        open_, seen = [root], {root}
        while open_:
            for other in lines.get(open_.pop(), ()):
                if other not in seen and other in wanted:
                    seen.add(other)
                    open_.append(other)
        found |= seen
    return {key: None for key in wanted if key in found}


def _connected(contents: Contents, one: str, wanted: dict[str, None]) -> dict[str, None]:
    """Of these, all that hangs together with one."""
    open_, seen = [one], {one}
    while open_:
        key = open_.pop()
        for lines in (contents.sources_of, contents.made_from):
            for other in lines.get(key, ()):
                if other not in seen and other in wanted:
                    seen.add(other)
                    open_.append(other)
    return {key: None for key in wanted if key in seen}
