"""Drawing some of many rows without replacement, each with a probability of its own."""

from __future__ import annotations

import numpy as np

from safegen.tables.streams import stream

__all__ = ["inclusion", "systematic", "thinned"]


def inclusion(sizes: np.ndarray, count: int) -> np.ndarray:
    """Probabilities proportional to `sizes`, at most 1, that add up to `count`.

    What would be above 1 is 1, and the others share the rest (Särndal, Swensson & Wretman 1992,
    3.6). Where fewer than `count` sizes are above 0, the others are as likely as each other.
    """
    found = np.ones(len(sizes))
    open_ = np.arange(len(sizes))  # those that are not sure
    while len(open_):
        left = count - (len(sizes) - len(open_))
        total = float(sizes[open_].sum())
        part = (
            sizes[open_] * (left / total) if total > 0 else np.full(len(open_), left / len(open_))
        )
        sure = part >= 1
        if not sure.any() or left <= 0:
            found[open_] = np.maximum(part, 0.0)
            break
        open_ = open_[~sure]
    return found


def systematic(
    probabilities: np.ndarray,
    count: int,
    rng: np.random.Generator,
    groups: np.ndarray | None = None,
    preferences: np.ndarray | None = None,
) -> np.ndarray:
    """The numbers of `count` rows, in random order, each drawn with its probability, which add up
    to `count` (Madow 1949, over rows in random order).

    groups: (rows,) numbers; of each group as many rows are drawn as its probabilities add up to,
    but for less than one: its rows stand together when every k-th is taken (implicit
    stratification; Särndal, Swensson & Wretman 1992, 3.4.2).
    preferences: (rows,) from 0 to 1, as if uniform; they decide between neighbours of a group, and
    over all preferences none is likelier for that.
    """
    order = rng.permutation(len(probabilities))
    if preferences is not None:  # neighbours are alike in what they may become
        order = order[np.argsort(probabilities[order], kind="stable")]
    if groups is not None:
        order = order[np.argsort(groups[order], kind="stable")]
    sizes = probabilities[order]
    if preferences is not None:
        sizes = _preferred(sizes, None if groups is None else groups[order], preferences[order])
        order, sizes = order[sizes > 0], sizes[sizes > 0]
    upto = np.cumsum(sizes)
    number = np.arange(count)
    at = np.searchsorted(upto * (count / upto[-1]), number + rng.random(), "right")
    # No row twice, though sums are rounded: each stands behind the one before.
    at = np.maximum.accumulate(at - number) + number
    chosen: np.ndarray = order[np.minimum(at, len(order) - count + number)]
    return chosen if groups is None and preferences is None else rng.permutation(chosen)


def _preferred(sizes: np.ndarray, groups: np.ndarray | None, preferences: np.ndarray) -> np.ndarray:
    """Probabilities once each of two neighbours has what there is for both, or is sure.

    Of probabilities a + b ≤ 1 one row gets all, the first with a chance of a / (a + b); of more one
    gets 1 and the other the rest, which is the first with a chance of (1 - a) / (2 - a - b): the
    pivotal method (Deville & Tillé 1998). Who does is decided by races of preferences: u^(1/a) is
    more than v^(1/b) with that chance (Efraimidis & Spirakis 2006).
    """
    number = np.arange(len(sizes))
    if groups is not None:
        starts = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]]))
        number -= np.repeat(starts, np.diff(np.concatenate([starts, [len(groups)]])))
    first = np.flatnonzero((number[:-1] % 2 == 0) & (number[1:] == number[:-1] + 1))
    both = np.stack([first, first + 1])
    a, u = sizes[both], np.clip(preferences[both], 1e-300, 1 - 1e-16)
    sums, tiny = a.sum(axis=0), 1e-300
    few = sums <= 1
    wins, yields = np.log(u) / np.maximum(a, tiny), np.log1p(-u) / np.maximum(1 - a, tiny)
    ahead = np.where(few, wins[0] >= wins[1], yields[0] <= yields[1])
    found = sizes.copy()
    more, less = np.where(few, sums, 1.0), np.where(few, 0.0, sums - 1)
    found[both[0]], found[both[1]] = np.where(ahead, more, less), np.where(ahead, less, more)
    return found


def thinned(weights: np.ndarray, seed: int) -> np.ndarray:
    """The numbers of rows, in order, that stand for all of them without weights: each stays with a
    chance proportional to its weight, 1 for the heaviest.

    None is taken twice: what looked like more rows than there are would be worth no more.
    """
    if not len(weights) or not np.ptp(weights):
        return np.arange(len(weights))
    count = max(int(weights.sum() / weights.max()), 1)
    rng = np.random.default_rng(stream(seed, len(weights)))
    return np.sort(systematic(inclusion(weights, count), count, rng))
