"""What a classifier can tell: generated rows from real ones (C2ST), and from generated rows
what real ones will be (TSTR). Needs scikit-learn, which every backend's extra brings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from safegen.errors import MissingExtra, UsageError
from safegen.measure.compared import Compared, compared, subset
from safegen.measure.measured import Measured, areas, auc
from safegen.tables.schema import TableSchema

__all__ = ["c2st", "tstr"]

FOLDS = 3
MOST = 50_000  # rows of a kind: beyond, a random part is used, and time stays bounded
LEVELS = 254  # that the classifier takes; rarer ones of a column share one code


def c2st(real: pa.Table, made: pa.Table, schema: TableSchema, *, seed: int = 0) -> Measured:
    """The area under the ROC curve of a classifier that tells generated rows from real ones.

    ½ is perfect, and below ½ is no better than above. Cross-fitted: rows are scored by a
    gradient-boosted classifier that has not seen them, in three folds, and the folds' areas are
    averaged. Raises: UsageError for fewer rows than folds, MissingExtra without scikit-learn.
    """
    if min(real.num_rows, made.num_rows) < FOLDS:
        raise UsageError(f"C2ST needs at least {FOLDS} rows of either kind")
    rows = [pa.array(subset(t.num_rows, MOST, seed)) for t in (real, made)]
    parts = real.take(rows[0]), made.take(rows[1])
    columns = compared(*parts, schema)
    features, levels = _features(columns)
    features_both = np.concatenate(features)
    generated = np.arange(len(features_both)) >= parts[0].num_rows
    rng = np.random.default_rng([seed, FOLDS])
    fold = np.empty(len(generated), dtype=int)
    for kind in (generated, ~generated):
        fold[kind] = rng.permutation(kind.sum()) % FOLDS
    area, variance = 0.0, 0.0
    for k in range(FOLDS):
        held = fold == k
        scores, _ = _scored(
            features_both[~held], generated[~held], features_both[held], levels, seed
        )
        one, influence = auc(scores[:, 1], generated[held])
        area += one / FOLDS
        variance += float((influence**2).sum()) / (len(influence) * FOLDS) ** 2
    half = 1.96 * variance**0.5
    return Measured(
        "c2st",
        area,
        (max(0.0, area - half), min(1.0, area + half)),
        parts[1].num_rows,
        parts[0].num_rows,
        f"AUC of gradient-boosted trees, cross-fitted in {FOLDS} folds; 95 % by its influence "
        "function (LeDell et al. 2015)",
        seed,
    )


def tstr(
    real: pa.Table, made: pa.Table, schema: TableSchema, target: str, *, seed: int = 0
) -> Measured:
    """The area under the ROC curve, on real rows, of a classifier trained on generated rows.

    real: rows that the generator has not seen. target: the column to predict, one of levels; of
    more than two the areas of each level against the rest are averaged by its share of the real
    rows. Levels that the generated rows do not have count ½: nothing was learned of them. Raises:
    UsageError for another target or one without two levels, MissingExtra without scikit-learn.
    """
    if schema.column(target).kind not in ("categorical", "boolean"):
        raise UsageError(f"the target of TSTR must have levels, and column {target!r} has numbers")
    rows = [pa.array(subset(t.num_rows, MOST, seed)) for t in (real, made)]
    parts = real.take(rows[0]), made.take(rows[1])
    columns = compared(*parts, schema)
    (wanted,) = (c for c in columns if c.name == target)
    features, levels = _features([c for c in columns if c is not wanted])
    truth, lesson = wanted.codes
    present, counts = np.unique(truth, return_counts=True)
    if len(present) < 2 or not features[0].shape[1]:
        raise UsageError("TSTR needs a target of two levels in the real rows, and another column")
    learned: dict[int, np.ndarray] = {}
    if len(np.unique(lesson)) > 1:
        scores, classes = _scored(features[1], lesson, features[0], levels, seed)
        learned = {int(c): scores[:, i] for i, c in enumerate(classes)}
    flat = np.zeros(len(truth))
    found = [auc(learned.get(int(c), flat), truth == c) for c in present]
    value, interval = areas(found, counts / counts.sum())
    return Measured(
        "tstr",
        value,
        interval,
        parts[1].num_rows,
        parts[0].num_rows,
        f"AUC on real rows of gradient-boosted trees trained on generated rows, {len(present)} "
        "levels; 95 % by its influence function (DeLong et al. 1988)",
        seed,
    )


def _features(columns: Sequence[Compared]) -> tuple[tuple[np.ndarray, np.ndarray], list[bool]]:
    """The matrices of both kinds of rows, (n, columns), and which columns hold codes."""
    pairs = [c.values if c.values is not None else _few(c) for c in columns]
    both = tuple(
        np.stack([p[side] for p in pairs], axis=1) if pairs else np.empty((0, 0)) for side in (0, 1)
    )
    return (both[0], both[1]), [not c.numeric for c in columns]


def _few(column: Compared) -> tuple[np.ndarray, np.ndarray]:
    """Codes as floats, the most frequent levels first, the rarest of many under one code."""
    counts = np.bincount(np.concatenate(column.codes), minlength=column.cells)
    rank = np.empty(column.cells)
    rank[np.argsort(-counts, kind="stable")] = np.arange(column.cells)
    rank = np.minimum(rank, LEVELS)
    return rank[column.codes[0]], rank[column.codes[1]]


def _scored(
    features: np.ndarray, classes: np.ndarray, others: np.ndarray, levels: list[bool], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fit on `features`: the probabilities of each class for `others`, (n, classes), and those."""
    try:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise MissingExtra(
            "this measurement needs scikit-learn: pip install 'safegen[sdv]'"
        ) from None
    model = HistGradientBoostingClassifier(
        categorical_features=np.array(levels), early_stopping=False, random_state=seed
    )
    # Its threads wait for each other spinning: on a busy machine two take ten times as long as one.
    with threadpool_limits(1):
        model.fit(features, classes)
        scores: np.ndarray = model.predict_proba(others)
    return scores, model.classes_
