"""What the policy `rare-events` does for a rare class: quota, weighted prevalence, and what a
classifier finds that is trained on real and boosted rows together.

    python bench/rare_events.py --data creditcard_fraud.parquet:Class:1 \\
        --data kdd99_10pct.parquet:label:teardrop.

Per seed half of the rows (at most `--rows`) train, and as many others test. A release of as many
rows is made by the copula under `rare-events`; extremely randomised trees are trained on the real
rows, and on them with the release, with its weights and without. (Gradient boosting as it comes
fails on two in a thousand, and would flatter any help.) What they find is measured by the average
precision on the test rows. Differences to the real rows alone are paired by seed, and their
intervals Student's.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fidelity import machine, versions
from scipy.stats import t as student
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import average_precision_score

from safegen import Generator
from safegen.policy import Policy


def matrix(table: pa.Table, target: str, levels: dict[str, list[object]]) -> np.ndarray:
    columns = []
    for name in table.column_names:
        if name == target:
            continue
        column = table.column(name)
        if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
            columns.append(column.to_numpy().astype(np.float64))
        else:
            known = levels.setdefault(name, column.unique().to_pylist()[:250])
            columns.append(pc.index_in(column, pa.array(known)).fill_null(len(known)).to_numpy())
    return np.stack(columns, axis=1).astype(np.float64)


def precision(
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], test: tuple[np.ndarray, np.ndarray]
) -> float:
    x, y, w = (np.concatenate([p[i] for p in parts]) for i in range(3))
    model = ExtraTreesClassifier(100, min_samples_leaf=2, random_state=0)
    model.fit(x, y, sample_weight=w)
    return float(average_precision_score(test[1], model.predict_proba(test[0])[:, 1]))


def run(path: Path, target: str, level: str, rows: int, seed: int) -> dict[str, float]:
    table = pq.read_table(path).replace_schema_metadata(None)
    order = np.random.default_rng([seed, 9]).permutation(table.num_rows)
    count = min(rows, table.num_rows // 2)
    train, test = (table.take(pa.array(p)) for p in (order[:count], order[count : 2 * count]))
    rare = Policy.load("rare-events")
    off = {n: rare.rule(n).model_copy(update={"severity": "off"}) for n in ("fidelity", "privacy")}
    policy = rare.model_copy(update={"rules": {**rare.rules, **off}})
    schema = {"columns": {target: {"role": "target", "kind": "categorical"}}}
    with tempfile.TemporaryDirectory() as name:
        gen = Generator("sdv.gaussian_copula", policy, ledger=Path(name) / "ledger.db")
        gen.fit(train, schema=schema, seed=seed)
        dataset = gen.generate(count, Path(name) / "out", seed=seed)
        weights, made = dataset.weights().astype(np.float64), dataset.to_arrow()
        strata = dataset.manifest.safeguards["tails"]["done"]["strata"]

    def hit(t: pa.Table) -> np.ndarray:
        return np.asarray(pc.equal(t.column(target).cast(pa.string()), level))

    share = hit(train).mean()
    ours = [s for s in strata if s["id"].startswith(f"{target}#") and "×" not in s["id"]]
    stratum = min(ours, key=lambda s: abs(s["share"] - share))
    weighted = float(np.average(hit(made), weights=weights))
    inside = weights[hit(made)]
    error = np.hypot(
        np.sqrt(share * (1 - share) / count), np.sqrt((inside**2).sum()) / weights.sum()
    )
    levels: dict[str, list[object]] = {}
    real = (matrix(train, target, levels), hit(train), np.ones(count))
    more = (matrix(made, target, levels), hit(made))
    unseen = (matrix(test, target, levels), hit(test))
    return {
        "share": float(share),
        "quota": stratum["quota"],
        "reached": float(hit(made).mean()) / stratum["quota"],
        "z": (weighted - float(share)) / float(error),
        "real": precision([real], unseen),
        "boosted": precision([real, (*more, np.ones(count))], unseen),
        "weighted": precision([real, (*more, weights)], unseen),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", action="append", required=True, help="FILE:TARGET:LEVEL")
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--seeds", type=int, default=10)
    given = parser.parse_args()
    for data in given.data:
        path, target, level = data.rsplit(":", 2)
        runs = [run(Path(path), target, level, given.rows, s) for s in range(1, given.seeds + 1)]
        print(f"{Path(path).stem}, {target} = {level}, {given.seeds} seeds")
        for name in ("share", "quota", "reached", "z", "real"):
            v = np.array([r[name] for r in runs])
            print(f"  {name}: mean {v.mean():.4f}, {v.min():.4f} to {v.max():.4f}")
        for name in ("boosted", "weighted"):
            gap = np.array([r[name] - r["real"] for r in runs])
            half = student.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap))
            print(
                f"  average precision, real and {name} less real alone: {gap.mean():+.4f} "
                f"± {half:.4f} (95 %), {gap.min():+.4f} to {gap.max():+.4f}"
            )
    print(f"{machine()}; {versions()}")


if __name__ == "__main__":
    main()
