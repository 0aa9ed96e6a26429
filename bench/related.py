"""How related tables come out of sdv.hma, beside the raw library in the same run.

    python bench/related.py FOLDER account order loan      # NAME.parquet each, such as Berka's
    python bench/related.py FOLDER account order --no-raw

Printed of real and made tables: rows per parent; for every column of a table with a parent, how
much rows of one parent go together (the rank correlation of all pairs of them; of columns of levels
the share of pairs that are equal); and the mean over all pairs of numeric columns of the distance
of their rank correlation from the real one: within a table, between a row and its parent's, and
between the means of two tables' rows of one parent.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from fidelity import machine, versions

from safegen.engines.blocks import block_plan
from safegen.tables.relations import Reference, references, related
from safegen.tables.schema import infer_schema

Frames = dict[str, pd.DataFrame]


def ours(tables: dict[str, pa.Table], schemas: Any, seed: int) -> tuple[Frames, float, float]:
    from safegen.backends.sdv.hma import HMA, Options

    start = time.perf_counter()
    model = HMA().fit(tables, schemas, Options(), seed=seed)
    fitted = time.perf_counter()
    roots = sum(
        t.num_rows for n, t in tables.items() if all(r.table != n for r in references(schemas))
    )
    plan = block_plan(roots, HMA.block_rows)
    drawn = [model.sample(rows, seed=seed, block=b) for b, rows in plan]
    made = {n: pa.concat_tables([d[n] for d in drawn]).to_pandas() for n in tables}
    return made, fitted - start, time.perf_counter() - fitted


def raw(tables: dict[str, pa.Table], found: Sequence[Reference]) -> tuple[Frames, float, float]:
    from sdv.metadata import Metadata
    from sdv.multi_table import HMASynthesizer

    warnings.simplefilter("ignore")
    frames = {n: t.to_pandas() for n, t in tables.items()}
    metadata = Metadata.detect_from_dataframes(frames, infer_keys="primary_only")
    for r in found:
        metadata.update_column(table_name=r.table, column_name=r.column, sdtype="id")
        metadata.update_column(table_name=r.parent, column_name=r.key, sdtype="id")
        if metadata.tables[r.parent].primary_key != r.key:
            metadata.set_primary_key(table_name=r.parent, column_name=r.key)
        metadata.add_relationship(
            parent_table_name=r.parent,
            child_table_name=r.table,
            parent_primary_key=r.key,
            child_foreign_key=r.column,
        )
    start = time.perf_counter()
    synthesizer = HMASynthesizer(metadata, verbose=False)
    synthesizer.fit(frames)
    fitted = time.perf_counter()
    main_table = found[0].parent
    made = synthesizer.sample(len(frames[main_table]), main_table_name=main_table)
    return made, fitted - start, time.perf_counter() - fitted


def alike(frame: pd.DataFrame, key: str, column: str) -> float:
    values, owner = frame[column], frame[key]
    many = owner.groupby(owner).transform("size")
    values, owner, many = values[many > 1], owner[many > 1], many[many > 1]
    if not len(values):
        return float("nan")
    if pd.api.types.is_numeric_dtype(values):
        ranks = values.rank() - values.rank().mean()
        others = (ranks.groupby(owner).transform("sum") - ranks) / (many - 1)
        return float((others * ranks).sum() / (ranks**2).sum())
    same = values.groupby([owner, values.astype(str)]).transform("size") - 1
    return float((same / (many - 1)).mean())


def correlations(frames: Frames, found: Sequence[Reference], keys: set[str]) -> pd.Series:
    """Rank correlations of all pairs of numeric columns, within rows and with the parent's row."""
    numbers: dict[str, pd.DataFrame] = {
        n: f[[c for c in f if pd.api.types.is_numeric_dtype(f[c]) and f"{n}.{c}" not in keys]]
        for n, f in frames.items()
    }
    pairs = {}
    for name, frame in numbers.items():
        for a, b in itertools.combinations(frame, 2):
            pairs[f"{name}.{a} ~ {b}"] = frame[a].corr(frame[b], method="spearman")
    for r in found:
        above = frames[r.parent].set_index(r.key)
        for a in numbers[r.parent]:
            lifted = frames[r.table][r.column].map(above[a])
            for b in numbers[r.table]:
                pair = numbers[r.table][b]
                pairs[f"{r.parent}.{a} ~ {r.table}.{b}"] = lifted.corr(pair, method="spearman")
    # Tables of one parent: means of one against means of the other.
    for one, other in itertools.combinations(found, 2):
        if one.parent == other.parent and one.table != other.table:
            first, second = (
                numbers[r.table].groupby(frames[r.table][r.column]).mean().add_prefix(r.table + ".")
                for r in (one, other)
            )
            both = first.join(second, how="inner")
            for a, b in itertools.product(first, second):
                pairs[f"means {a} ~ {b}"] = both[a].corr(both[b], method="spearman")
    return pd.Series(pairs, dtype=float)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-raw", action="store_true", help="leave the raw library out")
    arguments = parser.parse_args()
    tables = {n: pq.read_table(arguments.folder / f"{n}.parquet") for n in arguments.tables}
    schemas = related(tables, {n: infer_schema(t) for n, t in tables.items()}, {})
    found = references(schemas)
    print(f"{', '.join(map(str, found))}; seed {arguments.seed}. {machine()}, {versions()}.\n")
    made: dict[str, Frames] = {"real": {n: t.to_pandas() for n, t in tables.items()}}
    seconds = {}
    made["sdv.hma"], *seconds["sdv.hma"] = ours(tables, schemas, arguments.seed)
    if not arguments.no_raw:
        name = "raw HMASynthesizer"
        made[name], *seconds[name] = raw(tables, found)
    keys = {f"{n}.{c}" for n, s in schemas.items() for c, kind in s.kinds.items() if kind == "id"}
    keys |= {f"{r.table}.{r.column}" for r in found} | {f"{r.parent}.{r.key}" for r in found}
    lines: dict[str, list[float]] = {}
    for r in found:
        label = f"rows of {r.table} per row of {r.parent}"
        lines[label] = [len(f[r.table]) / len(f[r.parent]) for f in made.values()]
        for column in made["real"][r.table]:
            if (
                f"{r.table}.{column}" not in keys
                and made["real"][r.table][r.column].duplicated().any()
            ):
                label = f"{r.table}.{column}: rows of one {r.parent} alike"
                lines[label] = [alike(f[r.table], r.column, column) for f in made.values()]
    pairs = [correlations(f, found, keys) for f in made.values()]
    lines[f"mean error of {len(pairs[0])} rank correlations"] = [
        float((p - pairs[0]).abs().mean()) for p in pairs
    ]
    print("| | " + " | ".join(made) + " |")
    print("|---" * (len(made) + 1) + "|")
    for label, numbers in lines.items():
        print(f"| {label} | " + " | ".join(f"{x:.3f}" for x in numbers) + " |")
    for what, at in (("fit", 0), ("sample", 1)):
        times = " | ".join(f"{seconds[n][at]:.1f}" for n in made if n in seconds)
        print(f"| {what}, seconds | | {times} |")


if __name__ == "__main__":
    main()
