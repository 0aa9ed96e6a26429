"""Whether a table's rows are those of a registered dataset: tests, shares, and what could be found.

Each dataset is asked twice: are there whole rows of it, and are there cells of it on some view.
Half of the level is for the first, half for all views together, and all datasets of the ledger
share it (Bonferroni), whether they were looked at or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc, betaincinv, gammaln, logsumexp, pdtrc  # stats takes a second

from safegen.lineage.fingerprints import Cells, Prints, twins
from safegen.lineage.forms import Form, Matched

__all__ = ["ALPHA", "Met", "met_on_views", "met_whole"]

ALPHA = 1e-6
"""Chance of one search to accuse data that has nothing to do with any dataset of the ledger."""

RARELY = 3
"""Rows that are no copies and would pass for some, at most, where whole rows are looked up."""

_CHANCE = 1.645  # standard errors that a count falls short of its mean by, with a chance of .05


@dataclass(frozen=True)
class Met:
    """What a table shares with one dataset, by one test.

    what: which test. rows: of the table, looked at. found, decoys: fingerprints shared with what
    was released and with decoys (or, of whole rows, expected by chance). p: of as many or more by
    chance, over all tests of all datasets. share: of the table's rows, with a 95 % interval; on
    views a lower bound. least: the share from which on rows are found with a chance of 95 %.
    """

    what: str
    rows: int
    found: int
    decoys: float
    p: float
    share: float
    interval: tuple[float, float]
    least: float


def met_whole(prints: Prints, whole: np.ndarray, datasets: int) -> Met | None:
    """Whole rows of a table, by their fingerprints, against those of a dataset.

    By Fisher's exact test: had they nothing to do with it, rows of the table would be as likely to
    meet one as those that are known to have nothing to do with it. That takes for granted that the
    table's rows are like these. Rows of a corner in which there is little to differ by meet more
    often; but they meet each other, too, and so p is that of `_in_a_corner` where that is larger.
    Who takes out equal rows hides that, so nothing is asked (None) where more than `RARELY` known
    rows would pass: there are few different rows then, and views tell.
    """
    if prints.chance > RARELY or not prints.trials:
        return None
    inside = np.isin(whole, prints.whole)
    # Distinct ones, of all rows: a row that is there often is no more evidence than once.
    distinct = len(np.unique(whole[inside]))
    n, trials, tests = len(whole), prints.trials, 2 * datasets
    corner = _in_a_corner(prints, whole)

    def p_of(hits: int) -> float:
        found = max(float(pdtrc(hits - 1, corner)), _fisher(hits, n, prints.chance, trials))
        return min(tests * found, 1.0)

    chance = prints.chance / trials
    hits = int(inside.sum())
    low, high = _interval(hits, n)
    by_chance = n * chance
    rows = _rows_for(_first(lambda k: p_of(k) <= ALPHA, n), 0.0, len(prints.whole), prints.rows)
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


def _fisher(hits: int, n: int, chance: int, trials: int) -> float:
    """The chance that of n + trials rows, hits + chance of which meet, as many are among the n."""
    every = hits + chance
    k = np.arange(hits, min(every, n) + 1)

    def of(many: int, some: np.ndarray) -> np.ndarray:
        found: np.ndarray = gammaln(many + 1) - gammaln(some + 1) - gammaln(many - some + 1)
        return found

    k = k[every - k <= trials]
    terms = of(n, k) + of(trials, every - k) - of(n + trials, np.array([every]))
    return float(np.exp(min(logsumexp(terms), 0.0))) if len(k) else 0.0


def _in_a_corner(prints: Prints, whole: np.ndarray) -> float:
    """Rows that meet released ones, where all rows of a table are of one corner of reality.

    Let K rows be possible there, as likely as each other, of which r were released. Then of n rows
    n·r/K meet one; n²/2K pairs are equal; and of 2k real rows and decoys that were there 2k·r/K
    pass for released ones. The first is the geometric mean of the others, times √(r/k). One is
    added to either count, for what was not seen and might have been.
    """
    more = max(2 * prints.distinct / prints.trials, 1.0)
    return float(((twins(whole) + 1) * (prints.chance + 1) * more) ** 0.5)


def met_on_views(
    prints: Prints, form: Form, match: Matched, some: Cells, datasets: int
) -> Met | None:
    """Cells of a table on the views that it has; None where it has none.

    Of the fingerprints that are of the release or of decoys, but not of both, each is as likely to
    be of one as of the other for a table that has nothing to do with the release.
    """
    usable = [
        (view, mine, theirs)
        for view, (mine, theirs) in zip(form.views, prints.views, strict=False)
        if len(mine) and match.has(view)
    ]
    if not usable:
        return None
    tests = 2 * len(usable) * datasets
    best: Met | None = None
    least = 1.0
    for view, mine, theirs in usable:
        cells = some.view(view)
        distinct = np.unique(cells)
        found = int(np.isin(mine, distinct, assume_unique=True).sum())
        decoys = int(np.isin(theirs, distinct, assume_unique=True).sum())
        p = min(tests * float(bdtrc(found - 1, found + decoys, 0.5)), 1.0) if found else 1.0
        rows = _rows_for(_needed(decoys, tests), decoys, len(mine), prints.rows)
        least = min(least, rows / max(len(cells), 1))
        if best is None or p < best.p:
            n = len(cells)
            surplus = max(int(np.isin(cells, mine).sum()) - int(np.isin(cells, theirs).sum()), 0)
            part = min(prints.seen / max(prints.rows, 1), 1.0)
            low, high = (min(x / part, 1.0) for x in _interval(surplus, n))
            what = f"{view.cut} cells of {len(view.columns)} columns"
            best = Met(what, n, found, decoys, p, min(surplus / n / part, 1.0), (low, high), 1.0)
    assert best is not None
    return Met(**{**vars(best), "least": least})


def _needed(decoys: int, tests: int) -> int | None:
    """How many fingerprints of a release have to be shared, beside so many of decoys."""
    return _first(lambda k: tests * float(bdtrc(k - 1, k + decoys, 0.5)) <= ALPHA, 10**7)


def _rows_for(needed: int | None, by_chance: float, kept: int, rows: int) -> float:
    """Rows of a release of so many, drawn with replacement, that share what is needed with its
    `kept` fingerprints, with a chance of 95 %; infinite where none do."""
    if needed is None:
        return float("inf")
    surplus = max(needed - by_chance, 1.0)
    # Both counts vary, what is met by chance and what is found; and no fingerprint counts twice.
    surplus += _CHANCE * (surplus + 2 * by_chance) ** 0.5
    if surplus >= kept:
        return float("inf")
    return float(-np.log1p(-surplus / kept)) * rows + 1


def _first(holds: Callable[[int], bool], most: int) -> int | None:
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


def _interval(hits: int, n: int) -> tuple[float, float]:
    """Clopper & Pearson's (1934), 95 %."""
    if not n:
        return 0.0, 1.0
    low = float(betaincinv(hits, n - hits + 1, 0.025)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 0.975)) if hits < n else 1.0
    return low, high
