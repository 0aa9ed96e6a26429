"""`make bench`: what safegen costs, beside what somebody does who has no safegen, in one run.

    python bench/benchmarks.py              # 40 minutes on two cores; writes docs/benchmarks.md
    python bench/benchmarks.py --quick      # minutes; writes out/bench/quick/benchmarks.md

Every step is a process of its own (bench/steps.py), sides that are compared take turns, and what a
step comes to is written down at once (`figures.jsonl` in the working folder): a run that was
interrupted goes on where it was, unless the code, the machine or the sizes are others.
`--tell` writes the page from what is there. docs/decisions/0036 says how and why.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fidelity import machine, versions
from measuring import Results, Step, rounds, state

TOP = Path(__file__).parents[1]
POLICIES = ("lab", "baseline", "strict", "anchored", "rare-events")
"""Those that tables are generated under: `training` is asked by who reads, `images` of images."""

STARTS = {
    "python -c pass": ["-c", "pass"],
    "import safegen": ["-c", "import safegen"],
    "import pandas": ["-c", "import pandas"],
    "safegen --help": ["-m", "safegen", "--help"],
    "safegen generate --help": ["-m", "safegen", "generate", "--help"],
    "safegen backends": ["-m", "safegen", "backends"],
    "safegen policy list": ["-m", "safegen", "policy", "list"],
    "safegen verify": ["-m", "safegen", "verify", "@RELEASE"],
}


@dataclass(frozen=True)
class Size:
    """How much: of rows, runs of each step, columns, releases in a ledger, bytes to verify."""

    rows: int = 1_000_000
    turns: int = 3
    columns: tuple[int, ...] = (10, 30, 100, 300, 500)
    datasets: tuple[int, ...] = (10, 50, 250)
    mib: int = 1_024
    starts: int = 10

    @property
    def grown(self) -> tuple[int, ...]:
        """The rows of the growth curve: ten thousand to ten million."""
        return tuple(self.rows * n // 100 for n in (1, 10, 100, 1_000))


QUICK = Size(20_000, 1, (10, 30), (5, 20), 64, 3)


@dataclass(frozen=True)
class Round:
    """Steps that take turns, and how many times."""

    steps: tuple[Step, ...]
    turns: int


def known(size: Size) -> str:
    """The ledger with ten releases of `rows` rows, by name."""
    return f"10x{size.rows}"


def engines() -> list[str]:
    """Those that there are: Ray where this safegen has it, and it is installed."""
    import safegen

    there = "engine" in inspect.signature(safegen.Generator.generate).parameters
    return ["local", *(["ray"] if there and importlib.util.find_spec("ray") else [])]


def gpu() -> bool:
    """Whether there is one: a diffusion model takes minutes to be trained without."""
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def made(rows: int, side: str, **given: object) -> Step:
    return Step(f"generate {rows}", side, "generate", {"rows": rows, **given})


def plan(size: Size) -> Iterator[Round]:
    """All that is measured, in order: what later steps need comes first."""
    rows, sides = size.rows, ("raw", "tags", *POLICIES)
    yield Round(tuple(Step("fit", s, "fit", {"kind": s}) for s in sides), 1)
    # Without a ledger nothing is registered: the difference to `tags` is what that costs.
    bare = made(rows, "without a ledger", kind="tags", ledger=False)
    yield Round((*(made(rows, s, kind=s) for s in sides), bare), size.turns)
    for few in size.grown[:2]:
        yield Round(tuple(made(few, s, kind=s) for s in ("raw", "tags", "anchored")), size.turns)
    for engine in engines():
        for workers in (1, 2):
            side = f"{engine} {workers}"
            given = {"kind": "tags", "engine": engine, "workers": workers}
            yield Round((made(rows, side, **given), made(3 * rows, side, **given)), 1)
    yield Round((Step("releases", "ten", "releases", {"rows": rows, "count": 10}),), 1)
    ledger = {"rows": rows, "known": known(size)}
    looks = (
        Step("check", "all rings", "check", ledger),
        Step("check", "digests, whole rows", "check", {**ledger, "rings": "whole"}),
        Step("check", "sampled, 1 %", "check", {**ledger, "power": 0.01}),
        Step("check", "sampled, .1 %", "check", {**ledger, "power": 0.001}),
        Step("check", "pandas", "merge", ledger),
        Step("check", "duckdb", "duckdb", ledger),
    )
    yield Round(looks, size.turns)
    release = f"known/{known(size)}/0"
    yield Round((Step("files", "files", "files", {"mib": size.mib, "count": 16}),), 1)
    opened = {"folder": release, "known": known(size)}
    yield Round(
        (
            Step("verify", "hashlib", "hashed", {"folder": "files"}),
            Step("verify", "verify", "verify", {"folder": "files", "deep": False}),
            Step("deep", "hashlib", "hashed", {"folder": release}),
            Step("deep", "verify", "verify", {"folder": release, "deep": False}),
            Step("deep", "verify --deep", "verify", {"folder": release, "deep": True}),
            Step("deep", "open", "opened", {**opened, "again": False}),
            Step("deep", "open again", "opened", {**opened, "again": True}),
        ),
        size.turns,
    )
    starts = {n: [w.replace("RELEASE", release) for w in words] for n, words in STARTS.items()}
    yield Round(
        tuple(Step("start", n, "start", {"command": w}) for n, w in starts.items()), size.starts
    )
    for columns in size.columns:
        some = {"columns": columns}
        sides = ("raw", "tags")
        yield Round(
            tuple(Step(f"fit of {columns}", s, "fit", {**some, "kind": s}) for s in sides), 1
        )
        wide = {**some, "rows": min(rows, 50_000)}
        yield Round(
            tuple(Step(f"columns {columns}", s, "generate", {**wide, "kind": s}) for s in sides), 1
        )
    for count in size.datasets:
        few = {"rows": 2_000, "count": count}
        many = {"rows": 10_000, "known": f"{count}x2000"}
        yield Round((Step(f"releases {count}", "small", "releases", few),), 1)
        yield Round((Step(f"datasets {count}", "check", "check", many),), size.turns)
    for what in ("image", "tabular") if gpu() else ():
        yield Round((Step("diffusion", what, "diffusion", {"what": what}),), 1)
    # What takes longest comes last.
    large = ("tags", "anchored", "raw")
    yield Round(tuple(made(10 * rows, s, kind=s) for s in large), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="minutes: all steps, few rows")
    parser.add_argument("--rows", type=int, help="of a release; the largest has ten times as many")
    parser.add_argument("--only", action="append", help="groups of steps whose names begin so")
    parser.add_argument("--tell", action="store_true", help="measure nothing, write the page anew")
    parser.add_argument("--work", type=Path, default=TOP / "out" / "bench")
    parser.add_argument("--page", type=Path, help="default: docs/benchmarks.md")
    given = parser.parse_args()
    size = QUICK if given.quick else Size()
    if given.rows:
        size = Size(**{**asdict(size), "rows": given.rows})
    place = (given.work / ("quick" if given.quick else "full")).resolve()
    page = given.page or (
        place / "benchmarks.md" if given.quick else TOP / "docs" / "benchmarks.md"
    )
    steps = [Path(__file__).with_name(n) for n in ("steps.py", "material.py")]
    code = [*(TOP / "src").rglob("*.py"), *steps]
    facts = versions(), platform.machine(), str(os.cpu_count()), str(size)
    results = Results(place / "figures.jsonl", None if given.tell else state(code, *facts))
    if not given.tell:
        from safegen.demo import place_data

        (place / "tmp").mkdir(parents=True, exist_ok=True)
        if not (place / "real").exists():
            place_data(place / "real")
        only = tuple(given.only or [""])
        for one in plan(size):
            rounds([s for s in one.steps if s.group.startswith(only)], one.turns, results, place)
    from telling import charts, written

    page.write_text(written(results, size, f"{machine()}; {versions()}", page), encoding="utf-8")
    page.with_suffix(".svg").write_text(charts(results, size), encoding="utf-8")
    print(f"{page}")
    if failed := sorted({f.key for f in results.figures if f.error}):
        sys.exit(f"{len(failed)} steps failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
