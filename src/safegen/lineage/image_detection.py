"""Whether a table's images are those of a registered dataset: test, share, what could be found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from safegen.lineage.detection import ALPHA, Met, clopper_pearson, fisher, least_count
from safegen.lineage.image_prints import ImagePrints

__all__ = ["RADII", "Near", "met_images"]


@dataclass(frozen=True, eq=False)
class Near:
    """Bits by which hashes of images differ from the nearest on the other side: of each image of a
    release, and of each decoy, from those of a table; of each of the table from either. copies: of
    some released images, drawn with replacement, from each of the release and each decoy."""

    released: np.ndarray
    decoys: np.ndarray
    to_released: np.ndarray
    to_decoys: np.ndarray
    copies: np.ndarray


_MARGIN = 1.645  # standard errors that a count falls short of its mean by, with a chance of .05

RADII = (31, 15, 7)
"""Bits that look-alikes differ by: what is customary, and less, for tiny images are all alike."""


def met_images(prints: ImagePrints, near: Near, datasets: int) -> Met:
    """Images of a table that look like those of a release, against decoys.

    An image of the model is as likely to be met when it was released as when it was not, by a table
    that has nothing to do with the release: Fisher's exact test.
    """
    if not (len(near.released) and len(near.decoys)):
        return Met("images", len(near.to_released), 0, 0.0, 1.0, 0.0, (0.0, 1.0), 1.0)
    mets = [_met_within(bits, prints, near, len(RADII) * datasets) for bits in RADII]
    return replace(min(mets, key=lambda m: m.p), least=min(m.least for m in mets))


def _met_within(bits: int, prints: ImagePrints, near: Near, tests: int) -> Met:
    met, met_decoys = near.released <= bits, near.decoys <= bits
    kept, trials, n = len(met), len(met_decoys), len(near.to_released)
    found, decoys = int(met.sum()), int(met_decoys.sum())

    def p_of(found: int, decoys: int) -> float:
        return min(tests * fisher(found, kept, decoys, trials), 1.0)

    # Who is nearer to a released image than to a decoy may be so by chance, as may the reverse.
    nearer, further = near.to_released < near.to_decoys, near.to_decoys < near.to_released
    hits = int(np.count_nonzero(nearer & (near.to_released <= bits)))
    misses = int(np.count_nonzero(further & (near.to_decoys <= bits)))
    surplus = max(hits - round(misses * kept / trials), 0)
    part = prints.seen / prints.images
    low, high = (min(x / part, 1.0) for x in clopper_pearson(surplus, n))

    def enough(found: int, decoys: int) -> bool:
        return p_of(found, decoys) <= ALPHA

    by_chance = decoys * kept / trials
    # What is met beyond chance may be copies already, too few to be found.
    usual = met.copy()
    beyond = max(found - round(by_chance), 0)
    usual[np.random.default_rng(found).permutation(np.flatnonzero(met))[:beyond]] = False
    needed = _copies_for(enough, usual, met_decoys, near.copies <= bits)
    told = kept / prints.images  # copies of what is not kept tell nothing
    least = 1.0
    if needed is not None:
        least = min((needed + _MARGIN * (needed * (1 - told)) ** 0.5) / told / n, 1.0)
    return Met(
        f"images that differ in {bits} of 256 bits at most",
        n,
        found,
        by_chance,
        p_of(found, decoys) if found else 1.0,
        min(surplus / n / part, 1.0),
        (low, high),
        least,
    )


_ORDERS = 19  # in one of twenty the next one needs more copies than any of them


def _copies_for(
    holds: Callable[[int, int], bool], released: np.ndarray, decoys: np.ndarray, alike: np.ndarray
) -> int | None:
    """How many copies have to come, beside what is met already, until something holds of the
    counts of released images and of decoys that are met; None where more than there are.

    released, decoys: bool, which of them are met. alike: (copies, released and decoys) bool; where
    a model's images look alike, copies meet decoys, too.
    """
    met = np.concatenate([released, decoys])
    copy, image = np.nonzero(alike & ~met)
    rng = np.random.default_rng(len(alike))
    most = 0
    for _ in range(_ORDERS):
        turns = np.full(len(alike), len(alike) + 1)  # at which each comes first, of some again
        turns[rng.integers(0, len(alike), len(alike))[::-1]] = np.arange(len(alike), 0, -1)
        turn = np.where(met, 0, len(alike) + 1)
        np.minimum.at(turn, image, turns[copy])
        counts = [
            np.bincount(side, minlength=len(alike) + 2).cumsum()
            for side in (turn[: len(released)], turn[len(released) :])
        ]

        def reached(copies: int, counts: Sequence[np.ndarray] = counts) -> bool:
            return holds(*(int(side[copies]) for side in counts))

        needed = least_count(reached, len(alike))
        if needed is None:
            return None
        most = max(most, needed)
    return most
