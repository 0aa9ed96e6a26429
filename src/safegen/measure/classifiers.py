"""What a classifier can tell: generated rows from real ones (C2ST), and from generated rows
what real ones will be (TSTR), beside what it learns of real ones. Needs scikit-learn, which every
backend's extra brings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from safegen.errors import MissingExtra, UsageError
from safegen.measure.compared import Compared, compared, subset
from safegen.measure.measured import Measured, areas, auc
from safegen.tables.numbers import taken
from safegen.tables.schema import TableSchema

__all__ = [
    "CLASSES",
    "c2st",
    "classes_of",
    "paired_error",
    "real_looking",
    "tstr",
    "utility_drop",
]

FOLDS = 3
MOST = 50_000  # rows of a kind: beyond, a random part is used, and time stays bounded
CLASSES = 30  # of a target, at most: the rarest of more are one
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
    parts = taken(real, rows[0]), taken(made, rows[1])
    columns = compared(*parts, schema)
    features, levels = _features(columns)
    features_both = np.concatenate(features)
    generated = np.arange(len(features_both)) >= parts[0].num_rows
    area, variance = 0.0, 0.0
    for held, scores in _cross_fitted(features_both, generated, levels, seed):
        one, influence = auc(scores, generated[held])
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


def real_looking(
    real: pa.Table, made: pa.Table, schema: TableSchema, *, seed: int = 0
) -> np.ndarray:
    """Per generated row the log of how many times as likely it is among the real ones, (rows,).

    By gradient-boosted trees, cross-fitted as for `c2st`, and with its errors.
    """
    features, levels = _features(compared(real, made, schema))
    both = np.concatenate(features)
    generated = np.arange(len(both)) >= real.num_rows
    odds = np.empty(len(both))
    for held, scores in _cross_fitted(both, generated, levels, seed):
        likely = np.clip(scores, 1e-6, 1 - 1e-6)
        odds[held] = np.log1p(-likely) - np.log(likely)
    found: np.ndarray = odds[generated] + np.log(made.num_rows / real.num_rows)
    return found


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
    parts = taken(real, rows[0]), taken(made, rows[1])
    found, share = _learned(*parts, schema, target, None, seed)
    value, interval = areas(found, share)
    return Measured(
        "tstr",
        value,
        interval,
        parts[1].num_rows,
        parts[0].num_rows,
        f"AUC on real rows of gradient-boosted trees trained on generated rows, {len(found)} "
        "levels; 95 % by its influence function (DeLong et al. 1988)",
        seed,
    )


def utility_drop(
    held: pa.Table,
    real: pa.Table,
    made: pa.Table,
    schema: TableSchema,
    target: str,
    *,
    weights: np.ndarray | None = None,
    most: int = MOST,
    seed: int = 0,
) -> tuple[float, float, tuple[float, float]]:
    """How much worse a classifier predicts real rows when it is trained on made rows instead of
    real ones: the difference of the areas, its standard error, and both areas (real, made).

    held: real rows that neither saw; both classifiers, of the same number of rows (at most `most`),
    score the same ones, so that their influences are paired. The error is that of the held rows:
    what another training sample would change is not in it. Raises: as `tstr`.
    """
    size = min(real.num_rows, made.num_rows, most)
    drawn = [pa.array(subset(t.num_rows, size, seed)) for t in (real, made)]
    if weights is not None:
        weights = weights[np.asarray(drawn[1])]
    held = taken(held, subset(held.num_rows, MOST, seed))
    areas_of, influences = [], []
    for table, rows, weight in ((real, drawn[0], None), (made, drawn[1], weights)):
        found, share = _learned(held, taken(table, rows), schema, target, weight, seed)
        areas_of.append(float(share @ [area for area, _ in found]))
        influences.append(share @ np.stack([influence for _, influence in found]))
    gap = influences[0] - influences[1]
    error = float(np.sqrt((gap**2).sum())) / len(gap)
    return areas_of[0] - areas_of[1], error, (areas_of[0], areas_of[1])


def paired_error(counts: np.ndarray) -> float:
    """About the largest standard error that the difference of `utility_drop` has on real rows of
    which so many have each level of the target: known before anything is fitted.

    The error of an area at chance, √((1/a + 1/b)/12) for a rows of a level and b others (no area
    has a larger one in practice; Hanley and McNeil 1982, Radiology 143), averaged over levels as
    areas are, times √½: two such areas on the same rows are correlated by three quarters or more.
    (Measured on Adult and on an invented law, 125 to 1,000 rows: 0.3 to 0.64 of it, and the
    difference itself spreads by no more than 1.2 times its error.)
    """
    counts = counts[counts > 0]
    others = counts.sum() - counts
    if not others.all():
        return float("inf")
    return float((counts / counts.sum()) @ np.sqrt((1 / counts + 1 / others) / 24))


def _learned(
    real: pa.Table,
    lesson: pa.Table,
    schema: TableSchema,
    target: str,
    weights: np.ndarray | None,
    seed: int,
) -> tuple[list[tuple[float, np.ndarray]], np.ndarray]:
    """What a classifier trained on `lesson` makes of real rows: per level of the target its area
    and influences, and the levels' shares."""
    columns = compared(real, lesson, schema)
    (wanted,) = (c for c in columns if c.name == target)
    features, levels = _features([c for c in columns if c is not wanted])
    truth, taught = classes_of(wanted)
    present, counts = np.unique(truth, return_counts=True)
    if len(present) < 2 or not features[0].shape[1]:
        raise UsageError("TSTR needs a target of two levels in the real rows, and another column")
    learned: dict[int, np.ndarray] = {}
    if len(np.unique(taught)) > 1:
        scores, classes = _scored(features[1], taught, features[0], levels, seed, weights)
        learned = {int(c): scores[:, i] for i, c in enumerate(classes)}
    flat = np.zeros(len(truth))
    found = [auc(learned.get(int(c), flat), truth == c) for c in present]
    return found, counts / counts.sum()


def _cross_fitted(
    features: np.ndarray, generated: np.ndarray, levels: list[bool], seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Per fold which rows are in it, and how likely each is generated, by a classifier that has
    seen the others only."""
    rng = np.random.default_rng([seed, FOLDS])
    fold = np.empty(len(generated), dtype=int)
    for kind in (generated, ~generated):
        fold[kind] = rng.permutation(kind.sum()) % FOLDS
    for k in range(FOLDS):
        held = fold == k
        scores, _ = _scored(features[~held], generated[~held], features[held], levels, seed)
        yield held, scores[:, 1]


def classes_of(column: Compared) -> tuple[np.ndarray, np.ndarray]:
    """The codes of a target: of more than `CLASSES` levels the rarest of the real rows are one, for
    each costs as much as the whole task of two."""
    truth, taught = column.codes
    counts = np.bincount(truth, minlength=column.cells)
    if (counts > 0).sum() <= CLASSES:
        return truth, taught
    class_of = np.full(column.cells, column.cells)
    kept = np.argsort(-counts, kind="stable")[: CLASSES - 1]
    class_of[kept] = kept
    return class_of[truth], class_of[taught]


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
    features: np.ndarray,
    classes: np.ndarray,
    others: np.ndarray,
    levels: list[bool],
    seed: int,
    weights: np.ndarray | None = None,
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
        model.fit(features, classes, sample_weight=weights)
        scores: np.ndarray = model.predict_proba(others)
    return scores, model.classes_
