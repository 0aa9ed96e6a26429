"""A number as a mode and a place within it: CTGAN's mode-specific normalisation.

Xu, Skoularidou, Cuesta-Infante and Veeramachaneni (2019), "Modeling Tabular data using Conditional
GAN", section 4.2. The mixtures are the library's own; what is ours is that they are fitted side by
side, on at most 8,192 rows each, and that no row costs a Python call.
"""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from ctgan.data_transformer import DataTransformer, SpanInfo
from rdt.transformers import ClusterBasedNormalizer
from threadpoolctl import threadpool_limits

from safegen.backends.ctgan.model import Modes
from safegen.processes import cores
from safegen.tables.streams import stream

__all__ = ["Columns", "ModesOf", "SideBySide"]

MIXTURE_ROWS = 8_192
SMOOTHING = 1e-6  # what the library adds to the probability of each mode
INSIDE = 0.99  # where it clips a place within a mode


@dataclass(frozen=True, eq=False)
class ModesOf:
    """The fitted mixture of one column."""

    mixture: Any  # sklearn's BayesianGaussianMixture
    valid: np.ndarray  # which of its components are used, bool
    modes: Modes

    @classmethod
    def fit(cls, numbers: np.ndarray, max_clusters: int, threshold: float) -> Self:
        """The library's mixture of the numbers, or of 8,192 of them, evenly spaced by rank.

        So the smallest and the largest are always among them. Nothing here is drawn at random
        from a global state, nor depends on other columns.
        """
        if len(numbers) > MIXTURE_ROWS:
            at = np.linspace(0, len(numbers) - 1, MIXTURE_ROWS).round().astype(np.int64)
            numbers = np.sort(numbers)[at]
        normalizer = ClusterBasedNormalizer(
            max_clusters=min(len(numbers), max_clusters), weight_threshold=threshold
        )
        with threadpool_limits(1):  # OpenMP counts threads for each thread on its own
            normalizer._fit(pd.Series(numbers))  # not `fit`: that swaps the global random state
        mixture, valid = normalizer._bgm_transformer, normalizer.valid_component_indicator
        stds = normalizer.STD_MULTIPLIER * np.sqrt(mixture.covariances_.reshape(-1)[valid])
        return cls(mixture, valid, Modes(mixture.means_.reshape(-1)[valid], stds))

    def places(self, numbers: np.ndarray, rng: np.random.Generator) -> tuple[Any, Any]:
        """A mode for each number, drawn by its probability, and the place within: −0.99 … 0.99."""
        chances = self.mixture.predict_proba(numbers[:, None])[:, self.valid] + SMOOTHING
        steps = np.cumsum(chances, axis=1)
        drawn = rng.random(len(numbers)) * steps[:, -1]
        mode = (drawn[:, None] >= steps[:, :-1]).sum(axis=1)
        place = (numbers - self.modes.means[mode]) / self.modes.widths[mode]
        return mode, np.clip(place, -INSIDE, INSIDE)


Columns = dict[str, ModesOf | int]  # the modes of a number; of codes, how many levels there are


class SideBySide(DataTransformer):  # type: ignore[misc]
    """The library's transformer, its columns in as many threads as there are cores.

    Takes the frame that `fitting` makes: codes 0 … levels − 1 in the discrete columns, float64 in
    the others. The same frame and seed give the same matrix on any number of cores.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed
        self.columns: Columns = {}

    def fit(self, raw_data: pd.DataFrame, discrete_columns: Collection[str] = ()) -> None:
        def one(name: str) -> ModesOf | int:
            values = raw_data[name].to_numpy()
            if name in discrete_columns:
                return int(values.max()) + 1
            return ModesOf.fit(values, self._max_clusters, self._weight_threshold)

        self.columns = dict(zip(raw_data.columns, _in_threads(one, raw_data.columns), strict=True))
        self.output_info_list = [
            [SpanInfo(c, "softmax")]
            if isinstance(c, int)
            else [SpanInfo(1, "tanh"), SpanInfo(len(c.modes.means), "softmax")]
            for c in self.columns.values()
        ]
        self.output_dimensions = sum(span.dim for spans in self.output_info_list for span in spans)

    def transform(self, raw_data: pd.DataFrame) -> np.ndarray:
        """The training matrix, (rows, output_dimensions). float32, as the networks take it."""
        rows = np.arange(len(raw_data))
        matrix = np.zeros((len(raw_data), self.output_dimensions), dtype=np.float32)
        widths = [sum(span.dim for span in spans) for spans in self.output_info_list]
        starts = np.cumsum([0, *widths])

        def one(index: int) -> None:
            (name, column), start = list(self.columns.items())[index], starts[index]
            values = raw_data[name].to_numpy()
            if isinstance(column, int):
                matrix[rows, start + values] = 1
                return
            rng = np.random.default_rng(stream(self.seed, index))
            with threadpool_limits(1):
                mode, matrix[:, start] = column.places(values, rng)
            matrix[rows, start + 1 + mode] = 1

        _in_threads(one, range(len(self.columns)))
        return matrix


def _in_threads(work: Any, items: Any) -> list[Any]:
    """`work` of each item, in order. Threads do: numpy lets go of the interpreter's lock."""
    pool = ThreadPoolExecutor(cores())
    try:
        return list(pool.map(work, items))
    finally:  # also at Ctrl-C: what has not begun is dropped
        pool.shutdown(cancel_futures=True)
