"""What a watermark costs, and in how much of a large release it is found.

    python bench/watermark.py --data adult.parquet:income --data bank_marketing.parquet:y --seeds 5
    python bench/watermark.py --data adult.parquet:income --seeds 0 --large 1000000

Per seed one model is fitted on up to `--rows` rows, and three releases of `--rows` rows are made of
it: with a watermark, and two without. Measured: the AUC of a classifier that tells the first from
the second, and the third from the second (by chance); utility (TSTR) and the shape error against
rows that no model has seen, with the watermark less without. `--large` makes one release of so many
rows and looks for the watermark in shares of it.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fidelity import machine, versions
from scipy.stats import t as student

from safegen import Generator
from safegen.ledger import open_ledger
from safegen.lineage.detection import met_watermark
from safegen.lineage.forms import Profile
from safegen.lineage.registering import known_forms
from safegen.lineage.watermark import Watermark
from safegen.measure.classifiers import c2st, tstr
from safegen.measure.distances import shape_error
from safegen.policy import Policy
from safegen.tables.numbers import single
from safegen.tables.words import Column


def policy(*, marked: bool) -> Policy:
    lab = Policy.load("lab")
    changed = {
        name: lab.rule(name).model_copy(update={"severity": "off"})
        for name in ("fidelity", "privacy")
    }
    changed["watermark"] = lab.rule("watermark").model_copy(
        update={"severity": "enforce" if marked else "off"}
    )
    return lab.model_copy(update={"rules": {**lab.rules, **changed}})


def fitted(path: Path, target: str, backend: str, rows: int, seed: int, place: Path):  # type: ignore[no-untyped-def]
    table = pq.read_table(path).replace_schema_metadata(None)
    order = np.random.default_rng([seed, 4]).permutation(table.num_rows)
    half = min(rows, table.num_rows // 2)
    train, held = (table.take(pa.array(part)) for part in (order[:half], order[half : 2 * half]))
    schema = {"columns": {target: {"role": "target", "kind": "categorical"}}}
    gen = Generator(backend, "lab", ledger=place / "ledger.db")
    return gen.fit(train, schema=schema, seed=seed), held


def cost(path: Path, target: str, backend: str, rows: int, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        gen, held = fitted(path, target, backend, rows, seed, place)
        made = []
        for number, marked in enumerate((True, False, False)):
            gen.policy = policy(marked=marked)
            out = gen.generate(rows, place / str(number), seed=100 * seed + number)
            made.append(out.to_arrow())
            if marked:
                strength = out.manifest.safeguards["watermark"]["done"]["strength"]
        schema = gen.schemas["table"]
        with_, without, again = made
        return {
            "strength": strength,
            "C2ST": c2st(without, with_, schema, seed=seed).value,
            "C2ST by chance": c2st(without, again, schema, seed=seed).value,
            "TSTR, with less without": tstr(held, with_, schema, target, seed=seed).value
            - tstr(held, without, schema, target, seed=seed).value,
            "TSTR by chance": tstr(held, again, schema, target, seed=seed).value
            - tstr(held, without, schema, target, seed=seed).value,
            "shape error, with less without": shape_error(held, with_, schema, seed=seed).value
            - shape_error(held, without, schema, seed=seed).value,
        }


def large(path: Path, target: str, backend: str, rows: int, size: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        gen, _ = fitted(path, target, backend, rows, 1, place)
        gen.policy = policy(marked=True)
        made = gen.generate(size, place / "large", seed=7).to_arrow()
        ledger = open_ledger(place / "ledger.db")
        known = next(iter(known_forms(ledger, dict(ledger.key_epochs()))))
        mark = Watermark.of(known.key, known.form)
        rng = np.random.default_rng(5)
        print("\n| rows of it | looked at | share found | p |\n|---|---|---|---|")
        for share in (1.0, 0.2, 0.05, 0.01, 0.001):
            count = min(int(share * size), 32_768)
            part = made.take(pa.array(rng.choice(size, count, replace=False)))
            columns = {n: Column.of(single(part.column(n))) for n in part.column_names}
            match = known.form.matched({n: Profile(c) for n, c in columns.items()})
            some = {c.number: columns[c.name] for c in match.columns}
            met = met_watermark(mark, match, some, 1)
            assert met is not None
            print(f"| {100 * share:g} % | {count:,} | {met.share:.2f} | {met.p:.1g} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", action="append", required=True, help="FILE:TARGET")
    parser.add_argument("--backend", action="append")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--large", type=int, default=0)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    for entry in given.data:
        path, _, target = entry.rpartition(":")
        for backend in given.backend or ["sdv.gaussian_copula"]:
            runs = [
                cost(Path(path), target, backend, given.rows, seed + 1)
                for seed in range(given.seeds)
            ]
            if runs:
                print(f"\n{Path(path).stem}, {backend}, {given.seeds} seeds: mean ± 95 %")
            for what in runs[0] if runs else ():
                values = np.array([r[what] for r in runs])
                wide = student.ppf(0.975, max(len(values) - 1, 1)) * values.std(ddof=1)
                print(
                    f"| {what} | {values.mean():.4f} ± {wide / len(values) ** 0.5:.4f} |",
                    flush=True,
                )
            if given.large:
                large(Path(path), target, backend, given.rows, given.large)
    print(f"\n{machine()}; {versions()}")


if __name__ == "__main__":
    main()
