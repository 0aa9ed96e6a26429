"""What selection does to each backend's rows: pool 4 against every candidate kept.

    python bench/selection.py --data adult.parquet:income --data bank_marketing.parquet:y \
        --backend sdv.gaussian_copula --backend ctgan,epochs=20 --rows 10000 --seeds 5
    python bench/selection.py … --calibrate

Per seed `--rows` rows drawn at random are the training data and as many others are measured
against; one model is fitted, and as many rows are released twice: under a policy without selection
and under the same with it. Measured by safegen.measure (docs/quality.md says how).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fidelity import machine, versions

from safegen import Generator
from safegen.measure.classifiers import c2st, tstr
from safegen.measure.distances import pair_error, shape_error
from safegen.measure.rare import rare_mass
from safegen.policy import Policy, SelectionParams

METRICS = ("shape", "pair", "c2st", "tstr", "mass")


def policies(calibrate: bool) -> dict[str, Policy]:
    lab = Policy.load("lab")
    off = {
        name: lab.rule(name).model_copy(update={"severity": "off"})
        for name in ("fidelity", "privacy")
    }
    plain = lab.model_copy(update={"rules": {**lab.rules, **off}})
    selection = SelectionParams(severity="enforce", calibrate=calibrate)
    return {
        "raw": plain,
        "selected": plain.model_copy(update={"rules": {**plain.rules, "selection": selection}}),
    }


def run(
    path: Path,
    target: str,
    backend: str,
    options: dict[str, Any],
    rows: int,
    seed: int,
    calibrate: bool,
) -> dict[str, dict[str, float]]:
    table = pq.read_table(path).replace_schema_metadata(None)
    order = np.random.default_rng([seed, 4]).permutation(table.num_rows)
    train, held = (table.take(pa.array(part)) for part in (order[:rows], order[rows : 2 * rows]))
    schema = {"columns": {target: {"role": "target", "kind": "categorical"}}}
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        gen = Generator(backend, "lab", options=options, ledger=place / "ledger.db")
        gen.fit(train, schema=schema, seed=seed)
        for kind, policy in policies(calibrate).items():
            gen.policy = policy
            start = time.perf_counter()
            made = gen.generate(len(train), place / kind, seed=seed, workers=1).to_arrow()
            seconds = time.perf_counter() - start
            both = (held, made, gen.schemas["table"])
            values = (
                shape_error(*both, seed=seed),
                pair_error(*both, seed=seed),
                c2st(*both, seed=seed),
                tstr(*both, target, seed=seed),
                rare_mass(*both, seed=seed),
            )
            found[kind] = {
                m: float("nan") if v is None else v.value
                for m, v in zip(METRICS, values, strict=True)
            } | {"seconds": seconds}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", action="append", required=True, help="FILE:TARGET")
    parser.add_argument("--backend", action="append", required=True, help="name,option=value,…")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--out", type=Path, help="JSON lines; runs that are in it are not repeated")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    known: dict[str, Any] = {}
    if given.out and given.out.exists():
        known = dict(json.loads(line) for line in given.out.read_text().splitlines())
    print("| backend | data | " + " | ".join(METRICS) + " |", flush=True)
    print("|---" * (2 + len(METRICS)) + "|")
    for chosen in given.backend:
        backend, *pairs = chosen.split(",")
        options = {k: json.loads(v) for k, v in (p.split("=", 1) for p in pairs)}
        for data in given.data:
            path, _, target = data.rpartition(":")
            runs = []
            for seed in range(1, given.seeds + 1):
                key = f"{chosen}|{Path(path).stem}|{given.rows}|{seed}|{given.calibrate}"
                if key not in known:
                    known[key] = run(
                        Path(path), target, backend, options, given.rows, seed, given.calibrate
                    )
                    if given.out:
                        with given.out.open("a") as file:
                            file.write(json.dumps([key, known[key]]) + "\n")
                runs.append(known[key])
            cells = []
            for m in METRICS:
                pair = np.array([[r["raw"][m], r["selected"][m]] for r in runs])
                middle = np.median(pair, axis=0)
                gap = pair[:, 1] - pair[:, 0]
                cells.append(
                    f"{middle[0]:.3f} → {middle[1]:.3f} ({gap.min():+.3f} to {gap.max():+.3f})"
                )
            print(f"| {chosen} | {Path(path).stem} | " + " | ".join(cells) + " |", flush=True)
    print(
        f"\nMedians over {given.seeds} seeds, {given.rows:,} rows; in brackets the least and the "
        f"largest change. {machine()}; {versions()}"
    )


if __name__ == "__main__":
    main()
