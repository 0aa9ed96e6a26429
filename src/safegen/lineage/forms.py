"""The form of a table: its columns, how their cells are cut, and which of them are looked at
together. A table whose names, order, units or columns were lost is recognised by it.

*Fine* cells are values to three significant digits. *Coarse* cells of numbers are bins of 4 % of
the rows, or wider, so that noise of a few hundredths of a standard deviation seldom leaves them.
Everything a form says is about released rows, never about real ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, Literal

import numpy as np

from safegen.tables.digests import folded
from safegen.tables.streams import stream
from safegen.tables.words import Column, mixed

__all__ = ["FINE_DIGITS", "Form", "FormColumn", "Matched", "Profile", "View", "form_of"]

FINE_DIGITS = 3
"""Significant digits of a fine cell: what a table keeps that was rounded for a report."""

BINS, APART = 24, 0.25
"""Coarse bins of a column of numbers, and their least width in standard deviations."""

QUANTILES = 65
LEVELS = 64
"""What is kept of a column to know it by: evenly spaced quantiles, or its commonest levels."""

PAIRS, TRIPLES, HALVES, COARSE, TEXTS = 12, 6, 6, 20, 3
"""Views: of two and three columns, of which some survive when half of the columns are dropped; of
half of the columns, of which one survives when any two are; and coarse ones of three to six, some
of them of texts alone, or of these and numbers of few values."""

FEW = (0, 3, 12, 40)
"""Numbers of so many different values are as levels: each has a view of texts and these alone."""

ALIKE, SCALED, EQUAL = 0.25, 0.12, 0.05
"""Largest distance between columns of equal name or none that are taken for the same: of their
distributions (Kolmogorov-Smirnov, total variation), or once scaled by median and spread; and
between columns of tables that share a form, whose numbers are brought back to its quantiles."""

IN_BINS, TURNED = 0.1, 0.6
"""Largest distance in coarse bins of columns of equal name that are taken to be in the same unit;
how much more like a column upside down another has to be to be taken for it."""

BITS = (8.0, 12.0, 16.0, 20.0)
"""Bits of a coarse view's columns. With fewer its cells are everybody's, with more none stays."""

Cut = Literal["fine", "coarse"]
Scale = Literal["same", "rising", "falling"]


@dataclass(frozen=True)
class FormColumn:
    """One column. Of numbers `quantiles` (65, evenly spaced) and inner `edges` of coarse bins; of
    others the commonest `levels`, by their fine words, with their shares."""

    name: str
    quantiles: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()
    levels: tuple[tuple[int, float], ...] = ()

    @property
    def numeric(self) -> bool:
        return bool(self.quantiles)

    @cached_property
    def shape(self) -> np.ndarray:
        """Its quantiles without median and spread, to compare columns in other units by."""
        return _standard(np.asarray(self.quantiles))

    def coarse(self, numbers: np.ndarray) -> np.ndarray:
        """(rows,) uint64 words of the bins."""
        bins = np.searchsorted(np.asarray(self.edges), numbers, "right") + 1
        return mixed(np.where(np.isnan(numbers), 0, bins).astype(np.uint64))

    def ranked(self, numbers: np.ndarray, *, falling: bool) -> np.ndarray:
        """Numbers in another unit or on another scale, as if they were in this column's: each takes
        the value that has as many below it here."""
        known = ~np.isnan(numbers)
        _, codes, counts = np.unique(
            -numbers[known] if falling else numbers[known], return_inverse=True, return_counts=True
        )
        middle = (np.cumsum(counts) - counts / 2) / max(counts.sum(), 1)
        found = np.full(len(numbers), np.nan)
        at = np.interp(middle, np.linspace(0, 1, QUANTILES), self.quantiles)
        # Of a value that many rows share any quantile in its stretch is that value.
        inner = np.asarray(self.quantiles)
        steps = np.clip(np.rint(middle * (QUANTILES - 1)).astype(int), 0, QUANTILES - 1)
        shared = counts / max(counts.sum(), 1) > 2 / QUANTILES
        found[known] = np.where(shared, inner[steps], at)[codes]
        return found


@dataclass(frozen=True)
class View:
    """Columns that are looked at together, by number, and how their cells are cut."""

    columns: tuple[int, ...]
    cut: Cut


@dataclass(frozen=True)
class Form:
    """The columns of a table in order of their names, and the views of it."""

    columns: tuple[FormColumn, ...]
    views: tuple[View, ...]

    @property
    def signature(self) -> str:
        """The names of the columns: forms of one signature are of tables of one kind."""
        return "\x00".join(c.name for c in self.columns)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Form:
        """The form that `to_json` wrote. Raises: TypeError, KeyError, ValueError on anything
        else."""
        columns = tuple(
            FormColumn(
                str(c["name"]),
                tuple(map(float, c["quantiles"])),
                tuple(map(float, c["edges"])),
                tuple((int(w), float(s)) for w, s in c["levels"]),
            )
            for c in document["columns"]
        )
        views = tuple(View(tuple(map(int, v["columns"])), v["cut"]) for v in document["views"])
        return cls(columns, views)

    @cached_property
    def names(self) -> dict[str, int]:
        return {c.name: i for i, c in enumerate(self.columns)}

    def fits(self, table: Mapping[str, Profile]) -> bool:
        """Whether a table's columns have these names and these distributions, but for chance."""
        named = {folded(n): p for n, p in table.items()}
        return named.keys() == self.names.keys() and all(
            _distance(c, p := named[c.name]) <= EQUAL + 2 / max(len(p.column), 1) ** 0.5
            or not (c.numeric or c.levels)
            for c in self.columns
        )

    def may_be(self, table: Mapping[str, Profile]) -> bool:
        """Whether a table may have half of this form's columns, or it half of the table's, or two
        have their names: a fast look, which never says no where `matched` finds so many."""
        named = sum(folded(n) in self.names for n in table)
        return named > 1 or 2 * self._possible(table) >= min(len(self.columns), len(table))

    def _possible(self, table: Mapping[str, Profile]) -> int:
        """Columns of this form that some column of a table may be."""
        numbers = [p for p in table.values() if len(p.numbers)]
        texts = [p.shares for p in table.values()]
        mine = [c for c in self.columns if c.numeric]
        found = sum(
            any(shares.get(word, 0.0) >= share - ALIKE for shares in texts)
            for c in self.columns
            for word, share in c.levels[:1]
        )
        if not (mine and numbers):
            return found
        known, theirs = (
            np.array(x) for x in ([c.quantiles for c in mine], [p.quantiles for p in numbers])
        )
        step = int(np.ceil(ALIKE * (QUANTILES - 1))) + 1
        between = known[:, None, step:-step]
        near = (
            (between >= theirs[None, :, : -2 * step]) & (between <= theirs[None, :, 2 * step :])
        ).all(-1)
        shapes, others = (np.array([c.shape for c in x]) for x in (mine, numbers))
        for other in (others, -others[:, ::-1]):
            near |= np.abs(shapes[:, None] - other[None]).mean(-1) <= SCALED
        # Of either side as many as there are to choose among on the other, at most.
        return found + int(min(np.count_nonzero(near.max(axis=side)) for side in (0, 1)))

    def matched(self, table: Mapping[str, Profile]) -> Matched:
        """Which columns of this form those of a table are, by name and by what is in them."""
        return Matched(tuple(_pairs(self, table)))


@dataclass(frozen=True)
class MatchedColumn:
    """A column of the form, the table's column that it is, and how its values compare. named:
    whether it has the name that it had."""

    number: int
    name: str
    scale: Scale
    named: bool

    @property
    def exact(self) -> bool:
        """Whether its values may be what they were: with others among them they may look like
        another scale."""
        return self.named or self.scale == "same"


@dataclass(frozen=True)
class Matched:
    """The columns of a form that a table has."""

    columns: tuple[MatchedColumn, ...]

    def likeness(self, form: Form, columns: int) -> float:
        """How much of a table of so many columns a form has, or the table of the form: 0 to 1. What
        tables of all kinds have in common by chance, less than half, counts as nothing; of columns
        that have kept their names two are enough."""
        share = len(self.columns) / max(min(len(form.columns), columns), 1)
        named = sum(c.named for c in self.columns)
        return share if len(self.columns) > 1 and (share >= 0.5 or named > 1) else 0.0

    @cached_property
    def by_number(self) -> dict[int, MatchedColumn]:
        return {c.number: c for c in self.columns}

    def has(self, view: View) -> bool:
        """Whether a view can be looked at: fine cells only where values may be what they were."""
        found = [self.by_number.get(i) for i in view.columns]
        return all(c is not None and (view.cut == "coarse" or c.exact) for c in found)

    def whole(self, form: Form) -> bool:
        """Whether whole rows can be looked up."""
        return len(self.columns) == len(form.columns) and all(c.exact for c in self.columns)


def form_of(columns: Mapping[str, Column], seed: int) -> Form:
    """The form of released rows. `seed` decides which columns are looked at together."""
    names = sorted(columns, key=lambda n: (folded(n), n))
    found = tuple(_described(folded(n), columns[n]) for n in names)
    return Form(found, _views(found, [columns[n] for n in names], seed))


def _described(name: str, column: Column) -> FormColumn:
    known, numbers = int(np.count_nonzero(column.present)), _known(column)
    if known and len(numbers) >= 0.95 * known:
        return FormColumn(name, tuple(_quantiles(numbers).tolist()), tuple(_edges(numbers)))
    words, counts = np.unique(column.words(FINE_DIGITS)[column.present], return_counts=True)
    first = np.argsort(-counts, kind="stable")[:LEVELS]
    levels = tuple((int(words[i]), float(counts[i] / max(known, 1))) for i in first)
    return FormColumn(name, levels=levels)


def _known(column: Column) -> np.ndarray:
    found: np.ndarray = column.numbers[~np.isnan(column.numbers)]
    return found


def _edges(numbers: np.ndarray) -> Iterator[float]:
    """Between two values each, so that a value is not at an edge, and apart from each other; half
    as far from a value that many rows have, so that noise does not part them."""
    values, counts = np.unique(numbers, return_counts=True)
    upto = np.cumsum(counts) / len(numbers)
    at = np.unique(np.searchsorted(upto, np.arange(1, BINS) / BINS))
    apart = APART * float(numbers.std())
    last = -np.inf
    for i in at:
        common = counts[i] > len(numbers) / BINS
        for side, beside in ((-1, i - 1), (1, i + 1)):
            if 0 <= beside < len(values):
                half = abs(float(values[beside] / 2 - values[i] / 2))
                edge = float(values[i]) + side * (max(half, apart / 2) if common else half)
                if edge - last >= apart * (1 - 1e-9) and edge > last:
                    yield edge
                    last = edge


def _views(columns: Sequence[FormColumn], cells: Sequence[Column], seed: int) -> tuple[View, ...]:
    rng = np.random.default_rng(stream(seed, len(columns)))
    fine = np.array([_entropy(c.words(FINE_DIGITS)) for c in cells])
    coarse = np.array(
        [
            _entropy(f.coarse(c.numbers) if f.numeric else c.words(FINE_DIGITS))
            for f, c in zip(columns, cells, strict=True)
        ]
    )
    found: dict[View, None] = {}

    def add(count: int, wanted: Sequence[float], bits: np.ndarray, cut: Cut, most: int) -> None:
        """Views of columns drawn by their bits, until these add up to what is wanted."""
        known = np.flatnonzero(bits > 0.05)
        if not len(known):
            return
        target = len(found) + count
        for turn in range(20 * count):
            if len(found) >= target:
                break
            order = rng.choice(known, len(known), replace=False, p=bits[known] / bits[known].sum())
            upto = np.cumsum(bits[order])
            size = int(np.searchsorted(upto, wanted[turn % len(wanted)])) + 1
            some = order[: min(size, most, len(order))]
            if len(some) > 1:
                found.setdefault(View(tuple(sorted(map(int, some))), cut))

    if len(columns) > 1:
        found[View(tuple(range(len(columns))), "fine")] = None
    quarters = np.array_split(rng.permutation(len(columns)), 4)
    for a, b in list(combinations(range(4), 2))[:HALVES]:
        both = tuple(sorted(map(int, [*quarters[a], *quarters[b]])))
        if both:
            found.setdefault(View(both, "fine"))
    add(PAIRS, (99.0,), fine, "fine", 2)
    add(TRIPLES, (99.0,), fine, "fine", 3)
    add(COARSE, BITS, coarse, "coarse", 99)
    values = np.array(
        [len(np.unique(c.numbers)) if f.numeric else 0 for f, c in zip(columns, cells, strict=True)]
    )
    for most in FEW:
        some = values <= most
        if most in (FEW[0], FEW[2]):
            add(TEXTS, BITS, np.where(some, coarse, 0.0), "coarse", 99)
        every = tuple(map(int, np.flatnonzero(some & (fine > 0))))
        if len(every) > 1:
            found.setdefault(View(every, "fine"))
    return tuple(found)


def _entropy(words: np.ndarray) -> float:
    """Bits that two rows agree by chance in (Rényi's of order two)."""
    _, counts = np.unique(words, return_counts=True)
    n = max(len(words), 2)
    agree = float((counts * (counts - 1.0)).sum()) / (n * (n - 1.0))
    return float(-np.log2(max(agree, 1 / (n * n))))


@dataclass(frozen=True, eq=False)
class Profile:
    """What a table's column is compared with forms by; each part is found once."""

    column: Column

    @cached_property
    def numbers(self) -> np.ndarray:
        """Its numbers in order; none where fewer than half of its values are."""
        numbers = np.sort(_known(self.column))
        enough = len(numbers) > 0.5 * int(np.count_nonzero(self.column.present))
        return numbers if enough else numbers[:0]

    @cached_property
    def quantiles(self) -> np.ndarray:
        return _quantiles(self.numbers)

    @cached_property
    def shape(self) -> np.ndarray:
        return _standard(self.quantiles)

    @cached_property
    def shares(self) -> dict[int, float]:
        words, counts = np.unique(
            self.column.words(FINE_DIGITS)[self.column.present], return_counts=True
        )
        if len(words) > 4 * LEVELS:  # those that a form may name are among the commonest
            first = np.argsort(-counts, kind="stable")[: 4 * LEVELS]
            words, shares = words[first], counts[first] / counts.sum()
        else:
            shares = counts / max(counts.sum(), 1)
        return dict(zip(words.tolist(), shares.tolist(), strict=True))


MOST = 10_000
"""Pairs of columns that are compared by what is in them, at most: a table with more of which names
were lost is known by none."""


def _pairs(form: Form, table: Mapping[str, Profile]) -> Iterator[MatchedColumn]:
    """By name first; what is left by what is in it, the most alike first."""
    left = dict(table)
    open_ = set(range(len(form.columns)))
    for name, profile in table.items():
        number = form.names.get(folded(name))
        if number is None or number not in open_:
            continue
        scale = _scale(form.columns[number], profile, by_name=True)
        if scale is not None:
            open_.remove(number)
            del left[name]
            yield MatchedColumn(number, name, scale, named=True)
    for distance, most in ((_distance, ALIKE), (_scaled, SCALED)):
        some = list(left.items()) if len(open_) * len(left) <= MOST else []
        ranked = sorted(
            (d, i, name)
            for i in open_
            for name, profile in some
            if (d := distance(form.columns[i], profile)) <= most
        )
        for _, i, name in ranked:
            if i in open_ and name in left:
                scale = _scale(form.columns[i], left[name], by_name=False)
                if scale is not None:
                    open_.remove(i)
                    del left[name]
                    yield MatchedColumn(i, name, scale, named=False)


def _scale(form: FormColumn, profile: Profile, *, by_name: bool) -> Scale | None:
    if _distance(form, profile) <= ALIKE:
        return "same"
    if not form.numeric:
        return "same" if by_name else None
    if not len(profile.numbers) or (not by_name and _scaled(form, profile) > SCALED):
        return None
    if by_name and _apart_in_bins(form, profile) <= IN_BINS:
        return "same"
    # Turned round is rare, and shapes that are nearly the same both ways are not.
    turned = _falling(form, profile) < TURNED * _rising(form, profile)
    return "falling" if turned else "rising"


def _apart_in_bins(form: FormColumn, profile: Profile) -> float:
    """Total variation between the shares of coarse bins: small where noise has torn apart what was
    one value, which lies in one bin still."""
    if not form.edges:
        return 1.0
    known = np.asarray(form.quantiles)
    shares = [
        np.diff(np.searchsorted(x, form.edges), prepend=0, append=len(x)) / len(x)
        for x in (known, profile.numbers)
    ]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def _distance(form: FormColumn, profile: Profile) -> float:
    """Between distributions: 0 where they are equal, 1 where they have nothing in common."""
    if not form.numeric:
        common = sum(min(share, profile.shares.get(word, 0.0)) for word, share in form.levels)
        rest = 1 - sum(share for _, share in form.levels)
        return max(0.0, 1.0 - common - rest) if form.levels else 1.0
    numbers, known = profile.numbers, np.asarray(form.quantiles)
    if not len(numbers):
        return 1.0
    values = np.unique(known)
    gaps = [
        np.abs(
            np.searchsorted(numbers, values, side) / len(numbers)
            - np.searchsorted(known, values, side) / len(known)
        ).max()
        for side in ("left", "right")
    ]
    return float(max(gaps))


def _scaled(form: FormColumn, profile: Profile) -> float:
    """Between distributions, once median and spread are taken out, whichever way is up."""
    if not form.numeric or not len(profile.numbers):
        return 1.0
    return min(_rising(form, profile), _falling(form, profile))


def _rising(form: FormColumn, profile: Profile) -> float:
    return float(np.abs(profile.shape - form.shape).mean())


def _falling(form: FormColumn, profile: Profile) -> float:
    return float(np.abs(-profile.shape[::-1] - form.shape).mean())


def _quantiles(numbers: np.ndarray) -> np.ndarray:
    found: np.ndarray = np.quantile(numbers, np.linspace(0, 1, QUANTILES), method="nearest")
    return found


def _standard(quantiles: np.ndarray) -> np.ndarray:
    inner = quantiles[QUANTILES // 20 : -(QUANTILES // 20)]
    spread = float(inner.std())
    found: np.ndarray = (inner - np.median(inner)) / spread if spread > 0 else inner * 0.0
    return found
