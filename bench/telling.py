"""The page and the charts of `make bench`, from the figures that were written down."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import POLICIES, STARTS, Size, engines
from charts import Panel, drawn
from measuring import Results
from targets import busy, least, mib, of, rate, ratio, registering, spread, targets

NAMES = {
    "raw": "raw SDV: `sample`, `to_parquet`",
    "tags": "safegen, tags and manifest only",
    "without a ledger": "the same without a ledger",
    **{p: f"safegen, `{p}`" for p in POLICIES},
}


# ---- tables --------------------------------------------------------------------------------------


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    every = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in every) + "\n"


def releasing(results: Results, rows: int) -> str:
    """Sides of a release of so many rows."""
    group = f"generate {rows}"
    lines = []
    for side, name in NAMES.items():
        key = f"{group}/{side}"
        if not results.of(key) and not results.failed(key):
            continue
        refused = sorted({r for f in results.of(key) for r in f.told.get("refused", ())})
        if refused:
            name += f" (refused at the gate: {', '.join(refused)})"
        lines.append(
            [name, of(results, key), ratio(results, key, f"{group}/raw"),
             of(results, key, value=lambda f: f.cpu), of(results, key, "{:,.0f}", mib)]
        )  # fmt: skip
    return table([f"{rows:,} rows", "seconds", "× raw", "CPU seconds", "PSS, MiB"], lines)


def growing(results: Results, size: Size) -> str:
    lines = []
    for rows in size.grown:
        cells = [f"{rows:,}"]
        for side in ("raw", "tags", "anchored"):
            key = f"generate {rows}/{side}"
            cells.append(of(results, key, "{:,.1f}", lambda f: f.seconds / rows * 1e6))  # noqa: B023
            cells.append(of(results, key, "{:,.0f}", mib))
        lines.append(cells)
    head = ["rows"]
    for side in ("raw", "tags", "anchored"):
        head += [f"{side}: seconds per million rows", "MiB"]
    return table(head, lines)


def by_columns(results: Results, size: Size) -> str:
    lines = []
    for n in size.columns:
        raw, tags = (f"columns {n}/{s}" for s in ("raw", "tags"))
        lines.append(
            [str(n), of(results, f"fit of {n}/raw"), of(results, f"fit of {n}/tags"),
             of(results, raw), of(results, tags), ratio(results, tags, raw),
             of(results, raw, "{:,.0f}", mib), of(results, tags, "{:,.0f}", mib)]
        )  # fmt: skip
    head = [
        "columns",
        "fit, raw",
        "fit, safegen",
        "release, raw",
        "tags",
        "× raw",
        "MiB, raw",
        "MiB",
    ]
    return table(head, lines)


def by_workers(results: Results, size: Size) -> str:
    lines = []
    for engine in engines():
        for workers in (1, 2):
            side = f"{engine} {workers}"
            each = rate(results, size, side)
            lines.append(
                [engine, str(workers),
                 *(of(results, f"generate {n * size.rows}/{side}") for n in (1, 3)),
                 "–" if each is None else f"{each:,.0f}",
                 of(results, f"generate {3 * size.rows}/{side}", "{:,.0f}", mib)]
            )  # fmt: skip
    few, many = (f"{n * size.rows:,} rows, s" for n in (1, 3))
    return table(["engine", "workers", few, many, "rows a second between them", "MiB"], lines)


def compared(results: Results, group: str, sides: Mapping[str, str], under: str) -> str:
    lines = [
        [name, of(results, key), ratio(results, key, f"{group}/{under}"),
         of(results, key, value=lambda f: f.cpu), of(results, key, "{:,.0f}", mib)]
        for side, name in sides.items()
        for key in [f"{group}/{side}"]
    ]  # fmt: skip
    return table(["", "seconds", "ratio", "CPU seconds", "PSS, MiB"], lines)


def starting(results: Results) -> str:
    lines = [
        [
            f"`{n}`",
            of(results, f"start/{n}", "{:.3f}"),
            ratio(results, f"start/{n}", "start/python -c pass"),
        ]
        for n in STARTS
    ]
    return table(["", "seconds", "× `python -c pass`"], lines)


def by_datasets(results: Results, size: Size) -> str:
    lines = [
        [f"{n:,}", of(results, f"datasets {n}/check"),
         of(results, f"datasets {n}/check", "{:,.0f}", mib),
         of(results, f"releases {n}/small", "{:.3f}", lambda f: f.seconds / n),  # noqa: B023
         of(results, f"releases {n}/small", "{:,.1f}", lambda f: f.told["bytes"] / 2**20)]
        for n in size.datasets
    ]  # fmt: skip
    head = [
        "releases in the ledger",
        "check of 10,000 rows, s",
        "MiB",
        "a release of 2,000 rows, s",
    ]
    return table([*head, "ledger, MiB"], lines)


def diffusing(results: Results) -> str:
    lines = []
    for what in ("image", "tabular"):
        for f in results.of(f"diffusion/{what}"):
            ours, plain = f.told["ours"], f.told["plain"]
            lines.append(
                [f"`diffusion.{what}`", str(f.told["device"]), f"{ours:,.0f}", f"{plain:,.0f}",
                 f"{ours / plain:.2f}"]
            )  # fmt: skip
        for f in results.failed(f"diffusion/{what}")[:1]:
            lines.append([f"`diffusion.{what}`", f"failed: {f.error}", "", "", ""])
    if not lines:
        return "Not measured: there was no GPU.\n"
    return table(["", "on", "rows a second", "a plain loop", "ratio"], lines)


# ---- the page ------------------------------------------------------------------------------------


def written(results: Results, size: Size, where: str, page: Path) -> str:
    """The page as Markdown."""
    lines = []
    judged = size.rows == Size().rows
    for what, found, met in targets(results, size):
        met = met if judged else None
        lines.append([what, found, {None: "–", True: "met", False: "**not met**"}[met]])
    others = busy(results)
    noisy = others is None or others > 0.1 * len(os.sched_getaffinity(0))
    quiet = (
        "**Not a quiet machine: to be measured anew.** " if noisy else "The machine was quiet. "
    ) + (
        f"Other programs kept {others:.2f} cores busy, in the median." if others is not None else ""
    )
    failed = sorted({f"{f.key} ({f.error})" for f in results.figures if f.error})
    failures = f"\n**Failed**: {'; '.join(failed)}.\n" if failed else ""
    wide = min(size.rows, 50_000)
    small = "" if judged else f"**A try of few rows: targets are of {Size().rows:,}.** "
    ten, checked = f"{10 * size.rows:,}", f"{size.rows:,}"
    registered = spread(registering(results, size), "{:.2f}")
    rings = {
        "all rings": "`safegen.check`, all rings",
        "digests, whole rows": "digests and whole rows alone",
        "sampled, .1 %": "`safegen check --power 0.001`",
        "sampled, 1 %": "`safegen check --power 0.01`",
        "pandas": "pandas: `drop_duplicates`, `merge` with each released file",
        "duckdb": "DuckDB: `INTERSECT` with all released files",
    }
    hashing = {"hashlib": "`hashlib`, all cores, the same files", "verify": "`safegen.verify`"}
    looked = {
        **hashing,
        "verify --deep": "`safegen.verify(deep=True)`: every row's digest",
        "open": "`safegen.open`, the first time",
        "open again": "`safegen.open`, again",
    }
    return f"""# Benchmarks

Written by `make bench`, which measures all of it in one run, beside what somebody does who has
no safegen, and says what fails ([0036](decisions/0036-how-speed-is-measured.md)). Medians, with
the least and the most where a step ran several times; each run is a process of its own, and those
that are compared take turns. *PSS* is the memory of all processes of a run, each page counted once.
Preparation (imports of what is compared, loading a model) is in no figure but those of starts.

{results.begun}; {where}. {quiet}
{failures}
## Targets

{table(["on two cores", "measured", ""], lines)}
{small}A ratio is the median of the turns' ratios; a GB is 10⁹ bytes.

## Generate

Adult, 15 columns, the Gaussian copula, from a model that is fitted and saved: SDV's own synthesizer
with metadata that it detects itself, and safegen with its rows tagged, digested, fingerprinted,
written, hashed and registered, under each policy that releases tables. All are signed. *Tags* is
`lab` with every rule off that looks at rows.

{releasing(results, size.rows)}
{releasing(results, 10 * size.rows)}
**Registering** {checked} rows (fingerprints, decoys, lookup digests, the entry): what a release
takes with a ledger and not without, {registered} s.

## Check

{checked} rows that are nobody's against the {ten} rows of ten releases. Who has no ledger needs
the released rows at hand and finds what is equal to the last digit; `check` finds edited rows and
parts too ([lineage.md](lineage.md)). Ratios are to pandas.

{compared(results, "check", rings, "pandas")}
## Verify and open

{size.mib:,} MiB of random numbers in 16 files, in the page cache:

{compared(results, "verify", hashing, "hashlib")}
A release of {checked} rows, which a ledger knows:

{compared(results, "deep", looked, "hashlib")}
## Starts

Each command from its start to its end, {size.starts} times.

{starting(results)}
## Growth

![How time grows]({page.with_suffix(".svg").name})

**By rows** of a release:

{growing(results, size)}
**By columns**, half of them numbers and half of eight levels, {wide:,} rows, seconds:

{by_columns(results, size)}
**By workers and engines**, tags only; Ray itself runs before the clock does:

{by_workers(results, size)}
**By releases in the ledger**, of 2,000 rows each:

{by_datasets(results, size)}
## Diffusion

Sampling beside a plain loop of diffusers: the same network, steps and device
(`python bench/throughput.py`).

{diffusing(results)}"""


def charts(results: Results, size: Size) -> str:
    """The growth curves."""

    def line(keys: Mapping[int, str]) -> list[tuple[float, float]]:
        found = [(float(n), least(results, key)) for n, key in keys.items()]
        return [(n, y) for n, y in found if y]

    sides = ("raw", "tags", "anchored")
    by_rows = {s: line({n: f"generate {n}/{s}" for n in size.grown}) for s in sides}
    wide = {s: line({n: f"columns {n}/{s}" for n in size.columns}) for s in sides[:2]}
    ledger = {"check": line({n: f"datasets {n}/check" for n in size.datasets})}
    crew = {e: line({w: f"generate {3 * size.rows}/{e} {w}" for w in (1, 2)}) for e in engines()}
    return drawn(
        [
            Panel("A release", "rows", "seconds", by_rows),
            Panel("A release", "columns", "seconds", wide),
            Panel("A check of 10,000 rows", "releases in the ledger", "seconds", ledger),
            Panel("A release, tags only", "workers", "seconds", crew),
        ]
    )
