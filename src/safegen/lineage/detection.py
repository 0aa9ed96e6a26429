"""Whether a table's rows are those of a registered dataset: tests, shares, and what could be found.

Each dataset is asked: are there whole rows of it, and are there cells of it on some view. Each form
is asked: do the rows have the watermark of the ledger's key. A quarter of the level is for whole
rows, one for the watermark, half for all views together, and all datasets of the ledger share it
(Bonferroni), whether they were looked at or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.special import (  # stats takes a second
    bdtr,
    bdtrc,
    betaincinv,
    gammaln,
    logsumexp,
    ndtr,
    ndtri,
    pdtrc,
)

from safegen.lineage.fingerprints import RARELY, Cells, Prints, Tally, WholeRows, places
from safegen.lineage.forms import Form, Matched
from safegen.lineage.watermark import Watermark
from safegen.tables.words import Column

__all__ = [
    "ALPHA",
    "POWER",
    "Met",
    "clopper_pearson",
    "fisher",
    "least_count",
    "met_on_views",
    "met_watermark",
    "met_whole",
    "needed_whole",
    "surplus_for",
]

ALPHA = 1e-6
"""Chance of one search to accuse data that has nothing to do with any dataset of the ledger."""

POWER = 0.95
"""The chance to find what is there by which `least` is meant, where nothing else is said."""


@dataclass(frozen=True)
class Met:
    """What a table shares with one dataset, by one test.

    what: which test. rows: of the table, looked at. found, decoys: fingerprints shared with what
    was released and with decoys (or, of whole rows, expected by chance). p: of as many or more by
    chance, over all tests of all datasets. share: of the table's rows, with a 95 % interval; on
    views a lower bound. least: the share from which on rows are found with a chance of `power`.
    """

    what: str
    rows: int
    found: int
    decoys: float
    p: float
    share: float
    interval: tuple[float, float]
    least: float


def met_whole(prints: Prints, whole: WholeRows, datasets: int, power: float = POWER) -> Met | None:
    """Whole rows of a table, by their fingerprints, against those of a dataset.

    By Fisher's exact test: had they nothing to do with it, rows of the table would be as likely to
    meet one as those that are known to have nothing to do with it. That takes for granted that the
    table's rows are like these. Rows of a corner in which there is little to differ by meet more
    often; but they meet each other, too, and so p is that of `_in_a_corner` where that is larger.
    Who takes out equal rows hides that, so where more than `RARELY` known rows would pass decoys
    alone are asked (`_met_beside`), which takes more rows to find. None where there are none.
    """
    if prints.chance > RARELY:
        return _met_beside(prints, whole, datasets, power)
    if not prints.trials:
        return None
    at, there = places(prints.own, whole.distinct)
    # Distinct ones, of all rows: a row that is there often is no more evidence than once.
    distinct, hits = len(at), int(whole.counts[there].sum())
    n, trials = len(whole), prints.trials
    p_of = _whole_by_chance(n, whole.twins, prints.chance, trials, prints.distinct, datasets)
    chance = prints.chance / trials
    low, high = clopper_pearson(hits, n)
    by_chance = n * chance
    needed = least_count(lambda k: p_of(k) <= ALPHA, n)
    rows = _rows_for(needed, 0.0, len(prints.own), prints.rows, power)
    return Met(
        "whole rows",
        n,
        distinct,
        by_chance,
        p_of(distinct) if distinct else 1.0,
        max(hits / n - chance, 0.0),
        (max(low - chance, 0.0), high),
        min(rows / max(n, 1), 1.0),
    )


def _met_beside(prints: Prints, whole: WholeRows, datasets: int, power: float) -> Met | None:
    """Whole rows against those of a release and of its decoys, of which there may be fewer.

    Of all rows of either that equal one of the table's, each is a decoy with the same chance: the
    share of decoys among both. So exact as views are, whatever the table is. Rows that are there
    more than once, in the release and its decoys together, are left out: whoever meets one of them
    meets decoys with it, and more noise than news.
    """
    tally, n = prints.whole, len(whole)
    if not prints.beside or not n:
        return None
    once = tally.released.astype(np.int64) + tally.decoys == 1
    at, there = places(tally.cells, whole.distinct)
    kept = once[at]
    released, unreleased = tally.released[at][kept], tally.decoys[at][kept]
    often = whole.counts[there][kept]
    found, decoys = int(released.sum()), int(unreleased.sum())
    share = prints.beside / (prints.beside + prints.printed)
    tests = 4 * datasets

    def p_of(hits: int) -> float:
        return min(tests * float(bdtr(decoys, hits + decoys, share)), 1.0)

    only, others = (int(often[x == 0].sum()) for x in (unreleased, released))
    surplus = only - others * (1 - share) / share
    by_chance = decoys * (1 - share) / share
    needed = least_count(lambda k: p_of(k) <= ALPHA, 10**8)
    own = int(np.count_nonzero(once & (tally.decoys == 0)))
    rows = _rows_for(needed, by_chance, own, prints.rows, power)
    low, high = clopper_pearson(int(max(surplus, 0)), n)
    return Met(
        "whole rows beside decoys",
        n,
        found,
        by_chance,
        p_of(found) if found else 1.0,
        max(surplus / n, 0.0),
        (low, high),
        min(rows / n, 1.0),
    )


def needed_whole(
    whole: WholeRows, *, chance: int, trials: int, distinct: int, datasets: int
) -> int | None:
    """How many distinct whole rows have to be a release's; None where no number would do. The more
    of `trials` known rows pass by chance, the more; and the more distinct rows it has."""
    p_of = _whole_by_chance(len(whole), whole.twins, chance, trials, distinct, datasets)
    return least_count(lambda k: p_of(k) <= ALPHA, len(whole))


def _whole_by_chance(
    n: int, twins: int, chance: int, trials: int, distinct: int, datasets: int
) -> Callable[[int], float]:
    """The chance, over all tests, of as many hits among n rows or more."""
    corner = _in_a_corner(twins, chance, trials, distinct)

    def p_of(hits: int) -> float:
        found = max(float(pdtrc(hits - 1, corner)), fisher(hits, n, chance, trials))
        return min(4 * datasets * found, 1.0)

    return p_of


def fisher(hits: int, n: int, chance: int, trials: int) -> float:
    """The chance that of n + trials rows, hits + chance of which meet, as many are among the n."""
    every = hits + chance
    k = np.arange(hits, min(every, n) + 1)

    def of(many: int, some: np.ndarray) -> np.ndarray:
        found: np.ndarray = gammaln(many + 1) - gammaln(some + 1) - gammaln(many - some + 1)
        return found

    k = k[every - k <= trials]
    terms = of(n, k) + of(trials, every - k) - of(n + trials, np.array([every]))
    return float(np.exp(min(logsumexp(terms), 0.0))) if len(k) else 0.0


def _in_a_corner(twins: int, chance: int, trials: int, distinct: int) -> float:
    """Rows that meet released ones, where all rows of a table are of one corner of reality.

    Let K rows be possible there, as likely as each other, of which r were released. Then of n rows
    n·r/K meet one; n²/2K pairs are equal; and of 2k real rows and decoys that were there 2k·r/K
    pass for released ones. The first is the geometric mean of the others, times √(r/k). One is
    added to either count, for what was not seen and might have been.
    """
    more = max(2 * distinct / trials, 1.0)
    return float(((twins + 1) * (chance + 1) * more) ** 0.5)


@dataclass(frozen=True)
class _Asked:
    """What the tests on all views of a release have in common: how many share the level, and the
    chance of which their `least` speaks."""

    prints: Prints
    tests: int
    power: float

    @property
    def part(self) -> float:
        """The share of the release's rows that views look at."""
        return min(self.prints.seen / max(self.prints.rows, 1), 1.0)


def met_on_views(
    prints: Prints,
    form: Form,
    match: Matched,
    some: Cells,
    datasets: int,
    power: float = POWER,
) -> Met | None:
    """Cells of a table on the views that it has; None where it has none.

    Each view is asked twice: are there cells that only the release has, and are cells the more
    frequent the more frequent they are in the release than in the decoys.
    """
    usable = [
        (view, tally)
        for view, tally in zip(form.views, prints.views, strict=False)
        if len(tally.cells) and match.has(view)
    ]
    if not usable:
        return None
    asked = _Asked(prints, 4 * len(usable) * datasets, power)
    mets = []
    for view, tally in usable:
        cells, counts = some.counted(view)
        n = int(counts.sum())
        mine = _counts_of(tally.cells, cells, counts)
        what = f"{view.cut} cells of {len(view.columns)} columns"
        mets += [
            _met_alone(tally, mine, n, what, asked),
            _met_often(tally, mine, n, f"how often {what} are there", asked),
        ]
    best = min(mets, key=lambda m: m.p)
    return replace(best, least=min(m.least for m in mets))


def _counts_of(wanted: np.ndarray, cells: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How often each of some cells is there; both are in order."""
    at = np.minimum(np.searchsorted(cells, wanted), len(cells) - 1)
    found: np.ndarray = np.where(cells[at] == wanted, counts[at], 0)
    return found


def _met_alone(tally: Tally, mine: np.ndarray, n: int, what: str, asked: _Asked) -> Met:
    """Cells that the release has and its decoys have not, against those that only decoys have.

    Each that is met is as likely to be of one as of the other for a table that has nothing to do
    with the release: found ~ Binomial(found + decoys, 1/2).
    """
    tests, part = asked.tests, asked.part
    only, others = tally.decoys == 0, tally.released == 0
    found, decoys = (int(np.count_nonzero(mine[side])) for side in (only, others))
    p = min(tests * float(bdtrc(found - 1, found + decoys, 0.5)), 1.0) if found else 1.0
    surplus = max(int(mine[only].sum()) - int(mine[others].sum()), 0)
    rows = _rows_for(
        _needed(decoys, tests), decoys, int(only.sum()), asked.prints.rows, asked.power
    )
    low, high = (min(x / part, 1.0) for x in clopper_pearson(surplus, n))
    share = min(surplus / n / part, 1.0)
    return Met(what, n, found, decoys, p, share, (low, high), min(rows / n, 1.0))


def _met_often(tally: Tally, mine: np.ndarray, n: int, what: str, asked: _Asked) -> Met:
    """Whether cells are the more frequent the more they are the release's and not its decoys'.

    Each row of either weighs `_weights` of its cell. Which of them were released is, for a table
    that has nothing to do with the release, as if coins had said so; a sum of weights with coins
    for signs has a normal's tail, but for a factor of 3.18 (Bentkus and Dzindzalieta 2015).
    """
    tests, part = asked.tests, asked.part
    both = tally.released + tally.decoys
    sign = tally.released - tally.decoys
    rows = max(int(both.sum()), 1)

    def apart(counts: np.ndarray) -> tuple[float, float]:
        """The sum, and what it varies by."""
        weights = _weights(counts, both, n)
        weights -= float((weights * both).sum()) / rows
        return float((weights * sign).sum()), float((weights**2 * both).sum()) ** 0.5

    sum_, deviation = apart(mine)
    z = sum_ / deviation if deviation > 0 else 0.0
    p = min(tests * 3.18 * float(ndtr(-z)), 1.0)
    # What a table has that is made of rows of the release alone; a part of it adds as much of that,
    # and of what it varies by.
    copies = _drawn(tally.released, n / max(asked.prints.seen, 1))
    full, varies = apart(copies)
    if full <= 0:
        return Met(what, n, 0, 0, p, 0.0, (0.0, 1.0), 1.0)
    full *= part
    share, low, high = (
        min(max((sum_ + k * deviation) / full, 0.0), 1.0) for k in (0.0, -1.96, 1.96)
    )
    k = float(ndtri(asked.power) - ndtri(ALPHA / tests / 3.18)) / full
    own = (k * varies) ** 2 * part
    least = own / 2 + ((own / 2) ** 2 + (k * deviation) ** 2) ** 0.5
    return Met(
        what,
        n,
        int(np.count_nonzero(mine[sign > 0])),
        int(np.count_nonzero(mine[sign < 0])),
        p,
        share,
        (low, high),
        min(least, 1.0),
    )


def _drawn(released: np.ndarray, each: float) -> np.ndarray:
    """How often cells are there in a table of rows of the release alone, `each` of them so many
    times on average. Most cells are one row's: for these draws are made once."""
    once = released == 1
    found = np.zeros(len(released))
    found[once] = _draws(each, 1 << int(once.sum()).bit_length())[: int(once.sum())]
    more = released > 1
    found[more] = np.random.default_rng(1).poisson(released[more] * each)
    return found


@lru_cache(maxsize=64)
def _draws(each: float, count: int) -> np.ndarray:
    return np.random.default_rng(0).poisson(each, count)


def met_watermark(
    watermark: Watermark,
    match: Matched,
    some: Mapping[int, Column],
    forms: int,
    power: float = POWER,
) -> Met | None:
    """The watermark of rows like a form's; None where no view of it is there."""
    sum_, cells, views = watermark.sum(some, match)
    if not cells:
        return None
    n = len(next(iter(some.values())))
    tests = 4 * forms
    deviation = (cells / 12) ** 0.5
    z = sum_ / deviation
    p = min(tests * float(np.exp(-(max(z, 0.0) ** 2) / 2)), 1.0)
    # Rows of a release alone have so much, where each has cells of its own.
    full = watermark.full(cells)
    share, low, high = (
        min(max((sum_ + k * deviation) / full, 0.0), 1.0) for k in (0.0, -1.96, 1.96)
    )
    least = ((2 * np.log(tests / ALPHA)) ** 0.5 + float(ndtri(power))) * deviation / full
    what = f"scores of cells of {views} views"
    return Met(what, n, cells, cells / 2 + sum_, p, share, (low, high), min(least, 1.0))


def _weights(counts: np.ndarray, both: np.ndarray, n: int) -> np.ndarray:
    """(cells,) 0 to 1: how much more often a cell is in a table of n rows than in rows of the
    model. `counts` in the table, `both` in the release and its decoys."""
    expected = both * (n / max(int(both.sum()), 1))
    found: np.ndarray = counts / np.maximum(counts + expected, 1e-12)
    return found


def _needed(decoys: int, tests: int) -> int | None:
    """How many fingerprints of a release have to be shared, beside so many of decoys."""
    return least_count(lambda k: tests * float(bdtrc(k - 1, k + decoys, 0.5)) <= ALPHA, 10**7)


def _rows_for(needed: int | None, by_chance: float, kept: int, rows: int, power: float) -> float:
    """Rows of a release of so many, drawn with replacement, that share what is needed with its
    `kept` fingerprints, with a chance of `power`; infinite where none do."""
    if needed is None:
        return float("inf")
    surplus = surplus_for(max(needed - by_chance, 1.0), by_chance, power)
    if surplus >= kept:
        return float("inf")
    return float(-np.log1p(-surplus / kept)) * rows + 1


def surplus_for(least: float, by_chance: float, power: float) -> float:
    """The mean of a count that is `least` or more, beyond what chance gives, with a chance of
    `power`. Both vary, what is met by chance and what is found."""
    z = float(ndtri(power))
    return float(least + z * z / 2 + z * (least + z * z / 4 + 2 * by_chance) ** 0.5)


def least_count(holds: Callable[[int], bool], most: int) -> int | None:
    """The smallest count from 1 to `most` for which something holds that holds for all larger."""
    if not holds(most):
        return None
    low, high = 0, 1
    while not holds(min(high, most)):
        low, high = high, 2 * high
    high = min(high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def clopper_pearson(hits: int, n: int) -> tuple[float, float]:
    """Clopper & Pearson's (1934), 95 %."""
    if not n:
        return 0.0, 1.0
    low = float(betaincinv(hits, n - hits + 1, 0.025)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 0.975)) if hits < n else 1.0
    return low, high
