"""Steps as processes of their own: seconds, CPU seconds, and the memory of all their processes.

A step is `python bench/steps.py NAME JSON`. What it does before it calls `timed` is preparation and
not in any figure. Memory is PSS, the share of each page that is a process's own, summed over the
step's process and all that descend from it, and looked at from here every quarter of a second
(`/proc/*/smaps_rollup`, Linux); the most of these is what is told.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Figure", "Results", "Step", "median", "pss", "run", "timed"]

EVERY = 0.25  # seconds between two looks at memory
BEGIN = "begin"


# ---- in the step's process -----------------------------------------------------------------------


def timed(call: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Seconds of a call, CPU seconds of this process and of those that it started and that have
    ended, and cores that all others kept busy meanwhile; and what it gave."""
    print(BEGIN, flush=True)
    busy, before, start = _busy(), os.times(), time.perf_counter()
    given = call()
    seconds, after = time.perf_counter() - start, os.times()
    taken = {"seconds": seconds, "cpu": sum(after[:4]) - sum(before[:4])}
    if (
        busy is not None and seconds > 1
    ):  # the clock of all processes ticks a hundred times a second
        taken["others"] = max((_busy() or busy) - busy - taken["cpu"], 0.0) / seconds
    return taken, given


def _busy() -> float | None:
    """CPU seconds of all processes of this machine since it started."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, _, _, *more = map(int, words[1:])
    return (user + nice + system + sum(more[:2])) / os.sysconf("SC_CLK_TCK")


# ---- in the process that measures ----------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """What to run: a function of bench/steps.py and its arguments; `side` is which of those that
    are compared in a group."""

    group: str
    side: str
    name: str
    given: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.group}/{self.side}"


@dataclass(frozen=True)
class Figure:
    """One run of a step. mib: most PSS of all processes; None where there is no /proc. error: what
    went wrong, in which case nothing else counts."""

    key: str
    turn: int
    seconds: float = 0.0
    cpu: float = 0.0
    mib: float | None = None
    error: str = ""
    told: dict[str, Any] = field(default_factory=dict)


def pss(pid: int) -> float | None:
    """MiB of a process and of all that descend from it; None where the system does not say."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:  # it has ended
                continue
            # The name, in brackets, may have anything in it.
            children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
    kib, waiting, seen = 0, [pid], 0
    while waiting:
        one = waiting.pop()
        waiting += children.get(one, [])
        try:
            told = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        if found := re.search(r"^Pss:\s+(\d+)", told, re.MULTILINE):
            kib, seen = kib + int(found[1]), seen + 1
    return kib / 1024 if seen else None


def run(step: Step, turn: int, place: Path, limit: float) -> Figure:
    """One run of a step, in a process of its own; what fails, or takes longer than `limit` seconds,
    says so."""
    command = [sys.executable, str(Path(__file__).with_name("steps.py"))]
    process = subprocess.Popen(
        [*command, step.name, json.dumps({**step.given, "place": str(place), "turn": turn})],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(place),
        start_new_session=True,  # so that what it started ends with it
    )
    begun, ended, most = threading.Event(), threading.Event(), [0.0]

    def watch() -> None:
        while not ended.wait(EVERY):
            if begun.is_set():
                most[0] = max(most[0], pss(process.pid) or 0.0)

    def listen() -> None:
        for line in process.stdout or ():
            if line.strip() == BEGIN:
                most[0] = pss(process.pid) or 0.0
                begun.set()
            elif line.startswith("{"):
                ended.set()
                answers.append(line)

    answers: list[str] = []
    stderr: list[str] = []
    threads = [
        threading.Thread(target=f, daemon=True)
        for f in (watch, listen, lambda: stderr.extend(process.stderr or ()))
    ]
    for thread in threads:
        thread.start()
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        stderr.append(f"TimeoutExpired: more than {limit:.0f} s")
    finally:
        ended.set()
        _end(process)
    for thread in threads:
        thread.join(5)
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    if process.returncode or not answers:
        # The last line of a traceback, `package.Error: text`.
        last = re.findall(r"^(\w[\w.]*: .+)", "".join(stderr), re.MULTILINE)
        why = last[-1][:200] if last else f"exit {process.returncode}"
        return Figure(step.key, turn, error=why)
    found = json.loads(answers[-1])
    return Figure(
        step.key, turn, found.pop("seconds"), found.pop("cpu"), most[0] or None, "", found
    )


def _end(process: subprocess.Popen[str]) -> None:
    """The step's process and whatever of its session is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment(place: Path) -> dict[str, str]:
    """A home of the benchmark's own, so that nobody's ledger, keys or cache is touched."""
    homes = {f"XDG_{k}_HOME": str(place / "home" / k.lower()) for k in ("DATA", "CONFIG", "CACHE")}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SAFEGEN_")}
    return {**kept, **homes, "TMPDIR": str(place / "tmp"), "PYTHONWARNINGS": "ignore"}


class Results:
    """Figures as JSON lines, so that an interrupted run goes on where it was.

    What was measured with another code, machine or size is put aside: `state` says what they were;
    None takes whatever is there.
    """

    def __init__(self, path: Path, state: str | None):
        self.path = path
        self.figures: list[Figure] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        if lines and state in (None, json.loads(lines[0])["state"]):
            self.begun = json.loads(lines[0])["begun"]
            self.figures = [Figure(**json.loads(line)) for line in lines[1:] if line.endswith("}")]
            return
        if lines:
            os.replace(path, path.with_suffix(".before.jsonl"))
        self.begun = time.strftime("%Y-%m-%d")
        self._write({"state": state, "begun": self.begun})

    def has(self, step: Step, turn: int) -> bool:
        return any(f.key == step.key and f.turn == turn for f in self.figures)

    def add(self, figure: Figure) -> None:
        self.figures.append(figure)
        self._write(asdict(figure))

    def of(self, key: str) -> list[Figure]:
        """The runs of a step that went well."""
        return [f for f in self.figures if f.key == key and not f.error]

    def failed(self, key: str) -> list[Figure]:
        return [f for f in self.figures if f.key == key and f.error]

    def _write(self, document: dict[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(document) + "\n")


def state(parts: Iterable[Path], *facts: str) -> str:
    """A digest of files and facts, by which figures are known to be of one kind."""
    digest = hashlib.sha256("\0".join(facts).encode())
    for path in sorted(parts):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def rounds(
    steps: Sequence[Step], turns: int, results: Results, place: Path, limit: float = 1_800
) -> None:
    """Every step `turns` times, one after the other in each turn and the other way round in the
    next, so that what changes on the machine meets all of them."""
    for turn in range(turns):
        for step in steps if turn % 2 == 0 else [*reversed(steps)]:
            if results.has(step, turn):
                continue
            figure = run(step, turn, place, limit)
            results.add(figure)
            told = figure.error or f"{figure.seconds:.2f} s, {figure.mib or 0:,.0f} MiB"
            print(f"{step.key} {turn + 1}/{turns}: {told}", flush=True)


def median(values: Iterable[float]) -> float | None:
    """Their median, None of none."""
    found = [*values]
    return statistics.median(found) if found else None
