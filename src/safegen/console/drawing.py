"""The lineage of a whole ledger as few enough marks to be read, with a place for each.

Depth is the column, and real sources are at the left end. Each dataset hangs below the deepest
thing that it was made from, so that what there is becomes a forest; its other sources are lines
across. While there is room for more marks the largest part of the forest is taken apart: siblings
one by one, a dataset and what was made from it. What is not taken apart stays a group for each
depth, and can be asked for by itself (`at`, `skip`).
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from safegen.console.contents import Contents
from safegen.console.forest import Forest, Piece
from safegen.console.marks import Asked, Column, Drawing, Line, Mark, alone, together

__all__ = ["drawing"]

TOGETHER = 8  # leaves alike, beyond which they stay a group
AT_ONCE = 12  # siblings at most that are taken off a large group at a time
COLUMNS = 60  # at most; beyond, neighbouring depths share one
INDENT = 0.3  # of a column: what is made from something of the same depth, such as a derivation


def drawing(contents: Contents, asked: Asked) -> Drawing:
    """The drawing of what is asked for. A key that is not there gives an empty one."""
    forest = Forest(
        contents,
        q=asked.q,
        origin=asked.origin,
        since=asked.since,
        until=asked.until,
        component=asked.component,
        root=asked.root,
        columns=min(COLUMNS, asked.most // 2),
    )
    plan = _Plan(forest, asked)
    return plan.drawing(len(contents.datasets))


@dataclass
class _Part:
    """Trees of the forest that hang below one mark: one that stands alone, or several together."""

    trees: list[int]
    columns: int  # a bit for each that it needs
    size: int
    found: int
    at: str | None
    skip: int
    alone: bool = False  # its only tree's root has its own mark, and `below` it the others
    asked: bool = False  # what was asked for, and is taken apart even where it is leaves
    below: list[_Part] = field(default_factory=list)
    rows: int = 0  # that it needs, once that was asked for

    @property
    def cost(self) -> int:
        return self.columns.bit_count()


class _Plan:
    """Which parts are taken apart, and where their marks go."""

    def __init__(self, forest: Forest, asked: Asked):
        self._forest = forest
        self._marks: list[Mark] = []
        self._mark_of: dict[int, int] = {}
        self._main: set[tuple[int, int]] = set()
        at = forest.number.get(asked.at) if asked.at is not None else None
        trees: Sequence[int] = ()
        if asked.at is None:
            trees = forest.roots
        elif at is not None:
            trees = forest.below[at]
        self._at = at
        self._further = asked.at is not None or asked.skip > 0
        top = self._part(forest.ordered(trees)[max(asked.skip, 0) :], asked.at, asked.skip)
        top.asked = True
        self._tops = [top] if top.trees else []
        self._take_apart(top, asked.most - (at is not None))

    def _part(self, trees: list[int], at: str | None, skip: int) -> _Part:
        forest, columns = self._forest, 0
        for tree in trees:
            columns |= forest.columns_below[tree]
        size, found = (sum(of[t] for t in trees) for of in (forest.size, forest.found_below))
        return _Part(trees, columns, size, found, at, skip)

    # -- taking apart ----------------------------------------------------------------------

    def _take_apart(self, top: _Part, most: int) -> None:
        left = most - top.cost
        number = 0
        heap: list[tuple[int, int, int, _Part]] = [(-top.found, -top.size, number, top)]
        while heap:
            *_, part = heapq.heappop(heap)
            if len(part.trees) == 1:
                part.alone = self._opened(part).cost < part.cost + left
            pieces = self._pieces(part, left)
            if not part.alone and not pieces:
                continue
            part.below = pieces
            left -= sum(p.cost for p in pieces) + part.alone - part.cost
            for piece in pieces:
                number += 1
                heapq.heappush(heap, (-piece.found, -piece.size, number, piece))

    def _opened(self, part: _Part) -> _Part:
        """What hangs below the only tree's root."""
        tree = part.trees[0]
        return self._part(
            self._forest.ordered(self._forest.below[tree]), self._forest.keys[tree], 0
        )

    def _pieces(self, part: _Part, left: int) -> list[_Part]:
        """What a part becomes when it is taken apart with so many marks to spare; [] where it
        stays as it is."""
        if part.alone:
            below = self._opened(part)
            return [below] if below.trees else []
        alike = part.size == len(part.trees) > TOGETHER and not (part.asked or part.found)
        if len(part.trees) < 2 or alike:
            return []
        singles: list[_Part] = []
        for number, tree in enumerate(part.trees[:AT_ONCE]):
            single = self._part([tree], part.at, part.skip + number)
            left -= single.cost
            if left < 0:
                break
            singles.append(single)
        if not singles:
            return []
        if rest := part.trees[len(singles) :]:
            others = self._part(rest, part.at, part.skip + len(singles))
            others.asked = part.asked and self._further
            singles.append(others)
        return singles

    # -- places ----------------------------------------------------------------------------

    def drawing(self, total: int) -> Drawing:
        forest = self._forest
        own = None if self._at is None else self._alone(self._at, 0, 0.0)
        row = 0 if self._at is None else self._beside(self._at, self._tops, 0)
        row = max(self._places(self._tops, row, own), int(own is not None))
        pieces = [forest.pieces[n] for n in self._mark_of]
        return Drawing(
            total=total,
            datasets=sum(p.dataset is not None for p in pieces),
            missing=sum(p.dataset is None for p in pieces),
            components=forest.components,
            found=sum(p.found for p in pieces),
            rows=row,
            columns=self._columns(pieces),
            marks=self._marks,
            lines=list(self._lines()),
            trail=[(forest.keys[n], forest.pieces[n].name) for n in forest.above(self._at)],
        )

    def _places(self, parts: Sequence[_Part], row: int, above: int | None) -> int:
        """Marks for parts below one another, from a row on; the first row that stays free."""
        for part in parts:
            if part.alone:
                number = self._alone(part.trees[0], row, self._indent(part.trees[0], above))
                self._hang(above, number)
                # What is low comes first: nothing stands far from what it was made from.
                parts_below = sorted(_flat(part.below), key=lambda p: (not p.found, self._high(p)))
                below = self._beside(part.trees[0], parts_below, row)
                row = max(self._places(parts_below, below, number), row + 1)
            elif part.below:
                row = self._places(part.below, row, above)
            else:
                row = self._groups(part, row, above)
        return row

    def _high(self, part: _Part) -> int:
        """The rows that a part needs."""
        if not part.rows:
            part.rows = sum(map(self._high, part.below))
            if part.alone:
                part.rows += self._beside(part.trees[0], part.below, 0)
            part.rows = max(part.rows, 1)
        return part.rows

    def _beside(self, node: int, below: Sequence[_Part], row: int) -> int:
        """The row in which what hangs below a mark begins: its own, where all is to the right."""
        own = 1 << self._forest.column[node]
        return row if all(p.columns & -p.columns > own for p in below) else row + 1

    def _indent(self, node: int, above: int | None) -> float:
        if above is None:
            return 0.0
        return INDENT if int(self._marks[above].x) == self._forest.column[node] else 0.0

    def _alone(self, node: int, row: int, indent: float) -> int:
        forest = self._forest
        mark = alone(forest.pieces[node], forest.column[node] + indent, row, forest.keys[node])
        self._marks.append(replace(mark, made=len(forest.children[node])))
        self._mark_of[node] = len(self._marks) - 1
        return len(self._marks) - 1

    def _groups(self, part: _Part, row: int, above: int | None) -> int:
        """A mark for each column of a part that stays together, one after the other in a row."""
        forest = self._forest
        by_column: dict[int, list[int]] = {}
        for tree in part.trees:
            for node in forest.within(tree):
                by_column.setdefault(forest.column[node], []).append(node)
        for column in sorted(by_column):
            nodes = by_column[column]
            indent = INDENT if above is not None and int(self._marks[above].x) == column else 0.0
            if len(nodes) == 1:
                number = self._alone(nodes[0], row, indent)
            else:
                pieces = [forest.pieces[n] for n in nodes]
                group = together(pieces, column + indent, row, part.at, part.skip)
                self._marks.append(group)
                number = len(self._marks) - 1
                self._mark_of.update(dict.fromkeys(nodes, number))
            self._hang(above, number)
            above = number
        return row + 1

    def _hang(self, above: int | None, number: int) -> None:
        if above is not None:
            self._main.add((above, number))

    def _lines(self) -> Iterator[Line]:
        forest = self._forest
        counts: Counter[tuple[int, int]] = Counter()
        for node, target in self._mark_of.items():
            for parent in forest.parents[node]:
                source = self._mark_of.get(parent)
                if source is not None and source != target:
                    counts[source, target] += 1
        for (source, target), count in counts.items():
            kind: Literal["main", "other", "backward"] = "other"
            if int(self._marks[source].x) > int(self._marks[target].x):
                kind = "backward"
            elif (source, target) in self._main:
                kind = "main"
            yield Line(source, target, count, kind)

    def _columns(self, pieces: Sequence[Piece]) -> list[Column]:
        counts = Counter(self._forest.column_of(p.depth) for p in pieces)
        return [
            Column(first, last, counts[number])
            for number, (first, last) in enumerate(self._forest.columns)
            if number <= max(counts, default=-1)
        ]


def _flat(parts: Sequence[_Part]) -> Iterator[_Part]:
    """Parts that hang below the same mark, however they were taken apart."""
    for part in parts:
        if part.below and not part.alone:
            yield from _flat(part.below)
        else:
            yield part
