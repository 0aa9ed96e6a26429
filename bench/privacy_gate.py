"""How often the privacy rule refuses honest rows, and how often it finds planted leaks.

    python bench/privacy_gate.py adult.parquet airbnb_nyc.parquet --rows 4000 --runs 100

Honest rows are real rows that play the generator: from one table, disjoint at random, come rows
trained on, rows held out (a quarter as many) and rows "made". A planted leak replaces a part of
the made rows. Prints Markdown: how many runs were met, inconclusive and unmet, per check.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from safegen.decision import Finding
from safegen.gates import Release
from safegen.measure.drawn import Drawn
from safegen.measure.profile import TableTally, profiles
from safegen.policy import PrivacyParams
from safegen.safeguards.privacy import PrivacyKept
from safegen.tables.schema import TableSchema, infer_schema
from safegen.tables.streams import stream

Leak = Callable[[pa.Table, pa.Table, TableSchema, np.random.Generator], pa.Table]


def judge(
    made: pa.Table, real: pa.Table, held: pa.Table, schema: TableSchema, **params: object
) -> dict[str, Finding]:
    """The rule's findings on a staged table, by check."""
    tally = TableTally(profiles({"table": real}, {"table": schema})["table"])
    tally.update(made.combine_chunks())
    release = Release(
        rows=made.num_rows,
        units=made.num_rows,
        conditions={},
        schemas={"table": schema},
        real={"table": tally.profile},
        staged={"table": tally},
        anchor={"table": real},
        held={"table": held},
        made={"table": Drawn(made.slice(0, 50_000), np.ones(min(made.num_rows, 50_000)))},
    )
    rule = PrivacyParams(severity="enforce", **{"held_out": 0.2, **params})  # type: ignore[arg-type]
    return {f.check: f for f in PrivacyKept().release(release, rule)}


def draws(pool: pa.Table, rows: int, runs: int) -> Iterator[tuple[pa.Table, pa.Table, pa.Table]]:
    """Real, held and made rows, disjoint, anew in each run."""
    held = rows // 4
    for run in range(runs):
        order = np.random.default_rng(stream(run, rows)).permutation(pool.num_rows)
        cuts = np.cumsum([rows, held, rows])
        real, out, made = (pool.take(pa.array(o)) for o in np.split(order[: cuts[-1]], cuts[:-1]))
        yield real, out, made


# ---- leaks ---------------------------------------------------------------------------------------


def copied(share: float, jitter: float = 0.0, mixed: float = 0.0) -> Leak:
    """That share of the rows are real ones; each number becomes the one that stands `jitter` of all
    ranks away (times a normal number), and each level, with the chance `mixed`, that of another."""

    def leak(
        made: pa.Table, real: pa.Table, schema: TableSchema, rng: np.random.Generator
    ) -> pa.Table:
        count = round(share * made.num_rows)
        chosen = rng.choice(real.num_rows, count, replace=count > real.num_rows)
        rows = real.take(pa.array(chosen))
        columns = []
        for column, values in zip(schema.columns, rows.columns, strict=True):
            if column.kind in ("id", "personal"):
                values = made.column(column.name).slice(0, count)
            elif column.kind == "numeric" and jitter:
                values = _moved(real.column(column.name), values, jitter, rng)
            elif mixed:
                other = real.column(column.name).take(
                    pa.array(rng.integers(real.num_rows, size=count))
                )
                same = pa.array(rng.random(count) >= mixed)
                values = pc.if_else(same, values, other)
            columns.append(values)
        return pa.concat_tables([pa.table(columns, schema=real.schema), made.slice(count)])

    return leak


def _moved(
    real: pa.ChunkedArray, values: pa.ChunkedArray, jitter: float, rng: np.random.Generator
) -> pa.Array:
    known = real.drop_null().to_numpy()
    known = np.sort(known[known == known])
    low, high = (np.searchsorted(known, values.to_numpy(), side) for side in ("left", "right"))
    at = rng.uniform(low, high) + rng.normal(size=len(values)) * jitter * len(known)
    moved = known[np.clip(at, 0, len(known) - 1).astype(int)]
    missing = np.asarray(pc.is_null(values, nan_is_null=True))
    return pa.array(moved, mask=missing).cast(values.type)


def identifiers(share: float) -> Leak:
    """That share of the rows have real values in all columns of ids and personal data."""

    def leak(
        made: pa.Table, real: pa.Table, schema: TableSchema, rng: np.random.Generator
    ) -> pa.Table:
        count = max(1, round(share * made.num_rows))
        for at, column in enumerate(schema.columns):
            if column.kind in ("id", "personal"):
                some = real.column(column.name).slice(0, count)
                rest = made.column(column.name).slice(count)
                made = made.set_column(
                    at, column.name, pa.chunked_array([*some.chunks, *rest.chunks])
                )
        return made

    return leak


LEAKS: dict[str, Leak | None] = {
    "none": None,
    "0.1 % copied": copied(0.001),
    "1 % copied": copied(0.01),
    "10 % copied": copied(0.1),
    "0.1 % copied, numbers moved by 0.5 % of ranks": copied(0.001, 0.005),
    "1 % copied, numbers moved by 0.5 % of ranks": copied(0.01, 0.005),
    "10 % copied, numbers moved by 0.5 % of ranks": copied(0.1, 0.005),
    "10 % copied, numbers moved by 5 % of ranks": copied(0.1, 0.05),
    "10 % copied, 5 % of ranks, 10 % of levels": copied(0.1, 0.05, 0.1),
    "a kernel around each real row: 5 % of ranks, 10 % of levels": copied(1.0, 0.05, 0.1),
    "a kernel around each real row: 15 % of ranks, 30 % of levels": copied(1.0, 0.15, 0.3),
    "identifiers in 1 row": identifiers(0.0),
    "identifiers in 1 % of rows": identifiers(0.01),
}


# ---- runs ----------------------------------------------------------------------------------------


def identified(table: pa.Table) -> pa.Table:
    """The table with two ids: numbers of which one in a hundred is somebody's, and texts."""
    rng = np.random.default_rng(stream(0, 6))
    numbers = rng.choice(100 * table.num_rows, table.num_rows, replace=False)
    texts = pa.array([rng.bytes(16).hex() for _ in range(table.num_rows)])
    return table.append_column("customer_id", pa.array(numbers)).append_column("code", texts)


def surrogates(table: pa.Table, schema: TableSchema) -> pa.Table:
    """The rows with other values in columns of ids and personal data, as a backend makes them."""
    for at, column in enumerate(schema.columns):
        if column.kind in ("id", "personal"):
            numbers = np.arange(table.num_rows) + 10**12
            type_ = table.column(column.name).type
            made = pa.array(numbers).cast(type_ if pa.types.is_integer(type_) else pa.string())
            table = table.set_column(at, column.name, made.cast(type_))
    return table


def run(
    pool: pa.Table, schema: TableSchema, rows: int, runs: int, leak: Leak | None
) -> tuple[dict[str, Counter[str]], float, list[float]]:
    """Statuses by check, seconds of a run, and the areas of membership."""
    counts: dict[str, Counter[str]] = {}
    areas, start = [], time.perf_counter()
    for number, (real, held, made) in enumerate(draws(pool, rows, runs)):
        made = surrogates(made, schema)
        if leak is not None:
            made = leak(made, real, schema, np.random.default_rng(stream(number, 5)))
        found = judge(made, real, held, schema)
        for check, finding in found.items():
            counts.setdefault(check, Counter())[finding.status] += 1
        statuses = {f.status for f in found.values()}
        counts.setdefault("any", Counter())["unmet" if "unmet" in statuses else "no"] += 1
        if found["membership"].interval:
            areas.append(sum(found["membership"].interval) / 2)
    return counts, (time.perf_counter() - start) / runs, areas


CHECKS = ("identifiers", "copies", "near-copies", "membership", "small-groups")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--leaks", default="none", help="`all`, or parts of their names, by commas")
    parser.add_argument("--ids", action="store_true", help="add ids: numbers, and 32 hex digits")
    given = parser.parse_args()
    chosen = given.leaks.split(",")
    print("| table | rows | leak | runs | " + " | ".join(CHECKS) + " | refused | mean area | s |")
    print("|---" * (len(CHECKS) + 7) + "|")
    for path in given.tables:
        pool = pq.read_table(path)
        pool = identified(pool) if given.ids else pool
        schema = infer_schema(pool)
        rows = min(given.rows, int(pool.num_rows / 2.25))
        for name, leak in LEAKS.items():
            if given.leaks != "all" and not any(c in name for c in chosen):
                continue
            counts, seconds, areas = run(pool, schema, rows, given.runs, leak)
            cells = [
                "/".join(str(counts[c][s]) for s in ("met", "inconclusive", "unmet"))
                for c in CHECKS
            ]
            refused, area = counts["any"]["unmet"], np.mean(areas) if areas else np.nan
            print(
                f"| {path.stem} | {rows:,} | {name} | {given.runs} | "
                + " | ".join(cells)
                + f" | {refused} | {area:.3f} | {seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
