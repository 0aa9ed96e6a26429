"""A fitted Gaussian copula over a codec's features: draws blocks of rows, by seed and number."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safegen.backends.arrays import check_block, load_arrays, read_document, whole
from safegen.backends.sdv.marginals import Interval, Levels, Marginal, Quantiles, truncated
from safegen.backends.undisturbed import one_thread
from safegen.contracts import Scalar
from safegen.errors import reading
from safegen.tables.codec import Codec, Feature
from safegen.tables.matching import drawn_until
from safegen.tables.streams import stream

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CHUNK", "CopulaModel", "cholesky", "read_marginals", "times"]

FORMAT = "safegen.copula/1"
CHUNK = 1_024  # rows per matrix product: a fixed shape, so a row does not depend on its company
SWEEPS = 25  # of Gibbs sampling when several features are conditioned
MOST_ROWS = 1 << 20  # of a block
FLOOR = 1e-8  # smallest eigenvalue of the correlation


@dataclass(frozen=True, eq=False)
class CopulaModel:
    """Marginals and a correlation. Sampling changes nothing: block i depends on (seed, i) only."""

    table: str
    codec: Codec
    marginals: tuple[Marginal, ...]  # one per feature of the codec, in order
    correlation: np.ndarray  # of the normal scores, (features, features), positive definite
    block_rows: int

    def sample(
        self,
        rows: int,
        *,
        seed: int,
        block: int,
        conditions: Mapping[str, Scalar] | None = None,
    ) -> dict[str, pa.Table]:
        """`rows` (at most `block_rows`) rows of a block; fewer are a prefix of more.

        With conditions every row meets them: the features they fix are drawn from the normal
        truncated to their intervals (Geweke 1991, by Gibbs sweeps when there are several), the
        others from the conditional normal. Conditions that a constraint ties to other columns are
        met by rejection.

        Raises: UsageError for rows, or for a condition that no row can meet; BackendError with the
        shortfall when too few rows meet them.
        """
        check_block(rows, self.block_rows, seed, block)
        known, rest = self.codec.conditions(conditions or {})
        if rest:
            native = {n: v for n, v in (conditions or {}).items() if n not in rest}

            def draw(number: int) -> pa.Table:
                whole = self.sample(self.block_rows, seed=seed, block=number, conditions=native)
                return whole[self.table]

            return {self.table: drawn_until(draw, rows, block, rest, "sdv.gaussian_copula")}
        fixed = {name: x for name, (_, x) in known.items()}
        sequence = stream(seed, block)
        noise, uniform = (np.random.Generator(np.random.Philox(s)) for s in sequence.spawn(2))
        padded = -(-rows // CHUNK) * CHUNK
        with one_thread():
            scores = self._scores(padded, noise, uniform, fixed)[:rows]
        features = {}
        for index, (feature, marginal) in enumerate(
            zip(self.codec.features, self.marginals, strict=True)
        ):
            values = marginal.value(scores[:, index])
            if feature.name in fixed:
                values = np.full(rows, fixed[feature.name], values.dtype)
            features[feature.name] = values
        first = block * self.block_rows
        return {self.table: self.codec.decode(features, first_row=first, seed=seed, rows=rows)}

    @cached_property
    def _factor(self) -> np.ndarray:
        return cholesky(self.correlation)

    def _scores(
        self,
        rows: int,
        noise: np.random.Generator,
        uniform: np.random.Generator,
        fixed: Mapping[str, float],
    ) -> np.ndarray:
        size = len(self.marginals)
        given = [i for i, f in enumerate(self.codec.features) if f.name in fixed]
        if not given:
            return times(noise.standard_normal((rows, size)), self._factor)
        names = [self.codec.features[i].name for i in given]
        intervals = [
            self.marginals[i].interval(fixed[n]) for i, n in zip(given, names, strict=True)
        ]
        rest = [i for i in range(size) if i not in set(given)]
        among = self.correlation[np.ix_(given, given)]
        known = _within(among, intervals, rows, uniform)
        scores = np.empty((rows, size))
        scores[:, given] = known
        if rest:
            weights = np.linalg.solve(among, self.correlation[np.ix_(given, rest)]).T
            left = self.correlation[np.ix_(rest, rest)]
            left = left - weights @ self.correlation[np.ix_(given, rest)]
            factor = cholesky(left)
            free = times(noise.standard_normal((rows, len(rest))), factor)
            scores[:, rest] = free + times(known, weights)
        return scores

    def save(self, folder: Path) -> None:
        """Write `model.json` and `arrays.npz`: no pickle. The same model gives the same bytes."""
        document = {
            "format": FORMAT,
            "table": self.table,
            "block_rows": self.block_rows,
            "codec": self.codec.to_json(),
            "parametric": [isinstance(m, Quantiles) and m.parametric for m in self.marginals],
        }
        arrays = {"correlation": self.correlation}
        for index, marginal in enumerate(self.marginals):
            arrays |= {f"{name}_{index}": array for name, array in marginal.arrays().items()}
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, sort_keys=True, allow_nan=False)
        (folder / "model.json").write_text(text, encoding="utf-8")
        np.savez(folder / "arrays.npz", allow_pickle=False, **arrays)

    @classmethod
    def load(cls, folder: Path) -> CopulaModel:
        """Read what `save` wrote. Raises: BackendError for anything else."""
        with reading():
            document = read_document(folder / "model.json", FORMAT)
            arrays = load_arrays(folder / "arrays.npz")
            codec = Codec.from_json(document["codec"])
            marginals = read_marginals(codec.features, document["parametric"], arrays)
            size = len(marginals)
            correlation = arrays["correlation"].astype(np.float64)
            if correlation.shape != (size, size) or not np.isfinite(correlation).all():
                raise ValueError
            return cls(
                str(document["table"]),
                codec,
                marginals,
                correlation,
                whole(document["block_rows"], 1, MOST_ROWS),
            )


def read_marginals(
    features: Sequence[Feature], parametric: Sequence[Any], arrays: Mapping[str, np.ndarray]
) -> tuple[Marginal, ...]:
    """The marginals whose `arrays()` were saved under `NAME_i`, i the feature's number.

    Raises: ValueError, KeyError for arrays that are none.
    """
    marginals: list[Marginal] = []
    for i, (feature, is_parametric) in enumerate(zip(features, parametric, strict=True)):
        if feature.kind == "categorical":
            order = arrays[f"order_{i}"]
            if not np.array_equal(np.sort(order), np.arange(feature.levels)):
                raise ValueError
            bounds = _checked(arrays[f"bounds_{i}"], feature.levels + 1)
            marginals.append(Levels(order, bounds))
        else:
            at = _checked(arrays[f"at_{i}"])
            values = _checked(arrays[f"values_{i}"], len(at))
            marginals.append(Quantiles(at, values, bool(is_parametric)))
    return tuple(marginals)


def _checked(array: np.ndarray, length: int | None = None) -> np.ndarray:
    """A non-decreasing finite vector. Raises: ValueError."""
    if array.ndim != 1 or len(array) != (length or len(array)) or array.dtype != np.float64:
        raise ValueError
    if not np.isfinite(array).all() or (np.diff(array) < 0).any():
        raise ValueError
    return array


def cholesky(matrix: np.ndarray) -> np.ndarray:
    """A factor of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    lifted = (vectors * np.maximum(values, FLOOR / 100)) @ vectors.T
    return np.linalg.cholesky(lifted)


def times(rows: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """rows @ matrix.T in chunks of a fixed shape, so that each row has the same bits always."""
    out = np.empty((len(rows), len(matrix)))
    for start in range(0, len(rows), CHUNK):
        np.matmul(rows[start : start + CHUNK], matrix.T, out=out[start : start + CHUNK])
    return out


def _within(
    correlation: np.ndarray, intervals: Sequence[Interval], rows: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws of a multivariate normal inside a box, (rows, features)."""
    size = len(intervals)
    sweeps = SWEEPS if size > 1 else 1
    uniform = rng.random((rows, sweeps * size))
    half = np.full(rows, 0.5)
    scores = np.stack([truncated(0.0, 1.0, box, half) for box in intervals], axis=1)
    for step in range(sweeps * size):
        i = step % size
        others = [j for j in range(size) if j != i]
        mean: Any = np.zeros(rows)
        sd = 1.0
        if others:
            weights = np.linalg.solve(correlation[np.ix_(others, others)], correlation[others, i])
            sd = float(np.sqrt(max(1.0 - weights @ correlation[others, i], FLOOR)))
            mean = sum(w * scores[:, j] for w, j in zip(weights, others, strict=True))
        scores[:, i] = truncated(mean, sd, intervals[i], uniform[:, step])
    return scores
