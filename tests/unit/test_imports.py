"""What importing safegen costs, and what it offers."""

from __future__ import annotations

import inspect
import json
import pickle
import subprocess
import sys

import pytest

import safegen
from safegen import errors
from safegen.decision import Finding, decide
from safegen.policy import Policy

HEAVY = (
    "c2pa",
    "psycopg",
    "torch",
    "sdv",
    "ctgan",
    "pandas",
    "pyarrow",
    "numpy",
    "scipy",
    "sklearn",
)


def _loaded(code: str) -> tuple[list[str], float]:
    """The heavy packages that a fresh interpreter loads for `code`, and its seconds."""
    script = (
        "import contextlib, io, json, sys, time\n"
        "start = time.perf_counter()\n"
        f"with contextlib.redirect_stdout(io.StringIO()):\n    {code}\n"
        "took = time.perf_counter() - start\n"
        f"print(json.dumps([[m for m in {HEAVY} if m in sys.modules], took]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    found, took = json.loads(done.stdout)
    return found, took


def test_importing_safegen_is_light() -> None:
    runs = [_loaded("import safegen") for _ in range(5)]
    assert all(found == [] for found, _ in runs)
    assert min(took for _, took in runs) < 0.2


@pytest.mark.parametrize(
    "code",
    [
        "import safegen; safegen.Policy.load('baseline'); safegen.backends()",
        "import safegen; safegen.Manifest; safegen.Decision; safegen.SafegenError",
        "import safegen.ledger, safegen.cli",
        *(
            "import safegen.cli\n"
            f"    with contextlib.suppress(SystemExit): safegen.cli.main({words})"
            for words in (
                ["policy", "lint", "baseline"],
                ["policy", "explain", "strict"],
                ["policy", "schema"],
                ["policy", "controls"],
                ["policy", "list"],
                ["--help"],
            )
        ),
    ],
)
def test_the_reading_side_loads_no_data_library(code: str) -> None:
    assert _loaded(code)[0] == []


def test_everything_listed_is_there_and_everything_there_is_listed() -> None:
    assert len(set(safegen.__all__)) == len(safegen.__all__)
    for name in safegen.__all__:
        assert getattr(safegen, name) is not None
    import safegen.errors as errors

    public = {n for n in errors.__all__ if n not in ("Problem", "reading", "upstream")}
    assert set(safegen.__all__) == set(safegen._HOME) | public | {"backends"}
    assert set(dir(safegen)) == {*safegen.__all__, "__version__"}
    with pytest.raises(AttributeError, match="nothing"):
        _ = safegen.nothing
    described = [getattr(safegen, n) for n in safegen.__all__]
    assert all(inspect.getdoc(thing) for thing in described)


def test_every_error_is_listed() -> None:
    classes = {
        name
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, Exception) and not name.startswith("_")
    }
    assert classes <= set(safegen.__all__)
    assert classes <= set(errors.__all__)


def _examples() -> list[errors.SafegenError]:
    decision = decide(
        Policy.load("baseline"),
        "admission",
        [Finding("lineage", "depth", "unmet", "observed", "required")],
        ledger={"url": "x", "datasets": 0},
    )
    found: list[errors.SafegenError] = []
    for name in safegen.__all__:
        thing = getattr(safegen, name)
        if not (inspect.isclass(thing) and issubclass(thing, errors.SafegenError)):
            continue
        if issubclass(thing, errors.Refused):
            found.append(thing(decision))
        elif issubclass(thing, errors._Problems):
            found.append(thing([errors.Problem("wrong", "file.yaml", 3), "also wrong"]))
        else:
            found.append(thing("what, where, what to do"))
    return found


@pytest.mark.parametrize("error", _examples(), ids=lambda e: type(e).__name__)
def test_errors_survive_pickling(error: errors.SafegenError) -> None:
    """Worker processes hand their errors on."""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.exit_code == error.exit_code
    if isinstance(error, errors._Problems):
        assert [(p.file, p.line, p.message) for p in again.problems] == [
            (p.file, p.line, p.message) for p in error.problems
        ]
    if isinstance(error, errors.Refused):
        assert again.decision.to_json() == error.decision.to_json()
