"""`make bench` measures what it says, says what fails, and goes on where it was."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

TOP = Path(__file__).parents[2]
MODULES = (
    "benchmarks", "charts", "fidelity", "material", "measuring", "steps", "targets", "telling",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _bench() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOP / "bench"))
        yield
        for name in MODULES:
            sys.modules.pop(name, None)


@pytest.fixture
def measuring() -> ModuleType:
    import measuring

    return measuring


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return tmp_path


def started(measuring: ModuleType, code: str) -> object:
    return measuring.Step("start", "one", "start", {"command": ["-c", code]})


def test_memory_of_all_processes_counts(measuring: ModuleType, place: Path) -> None:
    """64 MiB in a process that the step starts are the step's."""
    hold = "import time; x = bytearray(b'x' * 2**26); time.sleep(1.5)"
    large = measuring.run(started(measuring, hold), 0, place, 60)
    small = measuring.run(started(measuring, "import time; time.sleep(.8)"), 0, place, 60)
    assert (large.error, small.error) == ("", "")
    assert large.mib - small.mib > 55
    assert 1.5 <= large.seconds < 15
    assert large.cpu < large.seconds  # it slept


def test_a_failed_step_is_said_and_no_figure(measuring: ModuleType, place: Path) -> None:
    failed = measuring.run(started(measuring, "raise SystemExit(3)"), 0, place, 60)
    assert "CalledProcessError" in failed.error
    late = measuring.run(started(measuring, "import time; time.sleep(30)"), 0, place, 1.0)
    assert "more than 1 s" in late.error
    results = measuring.Results(place / "figures.jsonl", "here")
    results.add(failed)
    assert results.of("start/one") == []
    assert results.failed("start/one") == [failed]


def test_an_interrupted_run_goes_on_and_another_code_does_not(
    measuring: ModuleType, place: Path
) -> None:
    path, step = place / "figures.jsonl", started(measuring, "pass")
    measuring.rounds([step], 2, measuring.Results(path, "here"), place)
    whole = path.read_text()
    path.write_text(whole + '{"key": "start/one", "turn": 2, "sec')  # killed while it wrote
    again = measuring.Results(path, "here")
    assert [f.turn for f in again.of("start/one")] == [0, 1]
    measuring.rounds([step], 2, again, place)
    assert len(again.figures) == 2  # nothing was measured twice
    assert measuring.Results(path, "elsewhere").figures == []
    assert path.with_suffix(".before.jsonl").exists()


def test_ratios_are_of_the_same_turn(measuring: ModuleType, place: Path) -> None:
    import targets

    results = measuring.Results(place / "figures.jsonl", "here")
    for turn, (ours, theirs) in enumerate([(1.0, 2.0), (9.0, 9.0), (4.0, 2.0)]):
        results.add(measuring.Figure("a/ours", turn, ours))
        results.add(measuring.Figure("a/raw", turn, theirs))
    results.add(measuring.Figure("a/ours", 3, 100.0))  # its other side failed
    results.add(measuring.Figure("a/raw", 3, error="Killed"))
    assert targets.ratios(results, "a/ours", "a/raw") == [0.5, 1.0, 2.0]
    assert targets.ratio(results, "a/ours", "a/raw") == "1.00 (0.50–2.00)"


def test_targets_are_judged_by_what_was_measured(measuring: ModuleType, place: Path) -> None:
    import benchmarks
    import targets

    size = benchmarks.Size(rows=1_000)

    def judged(tags: float, mib: float) -> dict[str, bool | None]:
        path = place / f"{tags}.jsonl"
        results = measuring.Results(path, "here")
        results.add(measuring.Figure("generate 1000/raw", 0, 10.0, mib=900.0))
        results.add(measuring.Figure("generate 1000/tags", 0, tags, mib=mib))
        results.add(measuring.Figure("generate 10000/tags", 0, 10 * tags, mib=mib))
        return {what: met for what, _, met in targets.targets(results, size)}

    good, bad = judged(6.9, 900.0), judged(7.1, 2_000.0)
    for what in ("generate 1,000 rows, tags: ≤ 0.7 × raw SDV", "memory of all processes (PSS)"):
        [one] = [met for name, met in good.items() if name.startswith(what)]
        [other] = [met for name, met in bad.items() if name.startswith(what)]
        assert (one, other) == (True, False)
    assert good["`import safegen`: ≤ 0.15 s"] is None  # not measured is not met


def test_every_step_of_the_plan_is_there() -> None:
    import benchmarks
    import material
    import steps

    for size in (benchmarks.Size(), benchmarks.QUICK):
        named = [s for one in benchmarks.plan(size) for s in one.steps]
        assert {s.name for s in named} <= set(steps.STEPS)
        assert len({s.key for s in named}) == len(named)
        for policy in benchmarks.POLICIES:
            assert material.policy_of(policy).id == policy
    rows = material.policy_of("tags")
    assert all(rows.rule(n).severity == "off" for n in ("fidelity", "selection", "watermark"))


def test_charts_are_pictures_without_what_was_not_measured() -> None:
    import charts

    lines = {"raw": [(10, 1), (1_000, 90)], "a < b": [(10, 2.0), (1_000, 50)], "none": []}
    panels = [charts.Panel("A release", "rows", "seconds", lines), charts.Panel("Empty", "x", "y")]
    picture = ET.fromstring(charts.drawn(panels))
    words = {e.text for e in picture.iter() if e.tag.endswith("text")}
    assert {"A release", "rows", "seconds", "raw", "a < b", "100"} <= words
    assert not {"Empty", "none"} & words


def test_the_command_writes_a_page(place: Path) -> None:
    page = place / "page.md"
    command = [sys.executable, str(TOP / "bench" / "benchmarks.py"), "--quick", "--rows", "500"]
    only = [w for group in ("files", "verify") for w in ("--only", group)]
    done = subprocess.run(
        [*command, *only, "--work", str(place / "work"), "--page", str(page)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert "`safegen.verify` | 0." in text
    assert "not measured" in text
    assert ET.parse(page.with_suffix(".svg")).getroot().tag.endswith("svg")


@pytest.mark.slow
def test_all_steps_run_at_a_small_size(place: Path) -> None:
    command = [sys.executable, str(TOP / "bench" / "benchmarks.py"), "--quick", "--rows", "3000"]
    done = subprocess.run(
        [*command, "--work", str(place / "work"), "--page", str(place / "page.md")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    lines = (place / "work" / "quick" / "figures.jsonl").read_text().splitlines()
    figures = [json.loads(line) for line in lines[1:]]
    same = ("generate 3000/local", "generate 3000/ray", "generate 3000/tags")
    digests = {f["told"]["digest"] for f in figures if f["key"].startswith(same)}
    assert len(digests) == 1
    [found] = [f for f in figures if f["key"] == "check/pandas"]
    assert found["told"]["found"] == 0
