"""What is fitted of one of several related tables, and how it hangs on the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from safegen.backends.sdv.copula import CHUNK, cholesky, times
from safegen.backends.sdv.marginals import Marginal
from safegen.tables.codec import Codec, Feature
from safegen.tables.relations import Reference, generations

__all__ = ["Link", "Tier", "added", "all_features", "state_name"]

KNOTS = 513


@dataclass(frozen=True)
class Link:
    """A reference and the features that it adds to its parent."""

    reference: Reference
    most: int  # children that a row of the source has
    nullable: bool

    def name(self, what: str, feature: str = "") -> str:
        """The name of a parent's feature about its children; no column has such a name."""
        return f"\0{self.reference}\0{what}\0{feature}"


def state_name(column: str) -> str:
    """The name of the feature that says whether a foreign key is null."""
    return f"\0null\0{column}"


def added(link: Link, features: Sequence[Feature]) -> tuple[Feature, ...]:
    """What a reference adds to the features of the table that it refers to."""
    names = [link.name("rows")]
    names += [link.name(what, f.name) for what in ("mean", "spread") for f in features]
    return tuple(Feature(n, "numeric", 0, n) for n in names)


@dataclass(frozen=True, eq=False)
class Tier:
    """One table. `correlation` is of the normals behind its rows; for a table with a parent, of
    what is left of them within parents."""

    codec: Codec
    features: tuple[Feature, ...]
    marginals: tuple[Marginal, ...]
    correlation: np.ndarray
    links: tuple[Link, ...]  # the first says where the rows come from; the others are matched
    variances: np.ndarray  # (links, 2, features): of scores between parents and within them
    knots: tuple[tuple[np.ndarray, np.ndarray], ...] = ()  # per feature: scores, probabilities

    @cached_property
    def factor(self) -> np.ndarray:
        return cholesky(self.correlation)

    def normals(self, rows: int, rng: np.random.Generator) -> np.ndarray:
        """(rows, features) normals with the tier's correlation; fewer are a prefix of more."""
        padded = -(-rows // CHUNK) * CHUNK
        return times(rng.standard_normal((padded, len(self.features))), self.factor)[:rows]

    def values(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        pairs = zip(self.features, self.marginals, strict=True)
        return {f.name: m.value(scores[:, i]) for i, (f, m) in enumerate(pairs)}

    def calibrated(self, scores: np.ndarray) -> np.ndarray:
        """Standard-normal scores, so that each marginal comes out as it is in the source."""
        from scipy.special import ndtri

        found = np.empty_like(scores)
        for i, (at, probability) in enumerate(self.knots):
            found[:, i] = ndtri(np.interp(scores[:, i], at, probability))
        return found

    def calibrate(self, scores: np.ndarray) -> Tier:
        """This tier with the distribution of a pilot's scores."""
        return replace(self, knots=tuple(_distribution(column) for column in scores.T))


def _distribution(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A distribution function: ties take the middle of their step, the ends go on a little."""
    if not len(scores):
        return np.array([-8.0, 8.0]), np.array([1e-9, 1 - 1e-9])
    ordered = np.sort(scores)
    at = np.unique(ordered[np.linspace(0, len(ordered) - 1, KNOTS).astype(int)])
    below = np.searchsorted(ordered, at, "left")
    above = np.searchsorted(ordered, at, "right")
    probability = (below + above) / 2 / len(ordered)
    margin = max(float(at[-1] - at[0]), 1.0) / 4
    at = np.concatenate([[at[0] - margin], at, [at[-1] + margin]])
    return at, np.concatenate([[1e-6], probability, [1 - 1e-6]])


def all_features(
    codecs: Mapping[str, Codec], links: Mapping[str, Sequence[Link]]
) -> dict[str, tuple[Feature, ...]]:
    """Every table's features: its columns', its nullable keys', and what references to it add."""
    found: dict[str, tuple[Feature, ...]] = {}
    upwards = generations({n: c.schema for n, c in codecs.items()})[::-1]
    for name in upwards:
        states = [state_name(k.reference.column) for k in links[name] if k.nullable]
        own = (*codecs[name].features, *(Feature(s, "categorical", 2, s) for s in states))
        children = [k for n in upwards for k in links[n] if k.reference.parent == name]
        more = (f for k in children for f in added(k, found[k.reference.table]))
        found[name] = (*own, *more)
    return found
