"""README.md is executed: its commands, its Python, what it shows of the output and of the disk."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from safegen.errors import (
    AdmissionRefused,
    BackendError,
    ManifestError,
    PolicyError,
    SourceError,
    VerificationError,
)
from safegen.gates import held_out
from safegen.policy import Policy

TOP = Path(__file__).parents[2]
README = (TOP / "README.md").read_text(encoding="utf-8")

ULID = r"\b[0-9A-HJKMNP-TV-Z]{26}\b"
NOT_RUN = ("make ", "pip ")  # they install; `make install` is what got us here


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def text_block(start: str) -> str:
    [block] = [b for b in blocks("text") if b.startswith(start)]
    return block


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """User folders of the test's own, and this interpreter's programs first."""
    home = tmp_path_factory.mktemp("home")
    kept = {k: v for k, v in os.environ.items() if k != "SAFEGEN_LEDGER"}
    own = {f"XDG_{n}_HOME": str(home / n.lower()) for n in ("DATA", "CONFIG", "CACHE")}
    path = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]
    return {**kept, **own, "HOME": str(home), "PATH": path}


@pytest.fixture(scope="module")
def place(environment: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder after the README's first Python block: it holds data/adult.parquet."""
    folder = tmp_path_factory.mktemp("readme")
    subprocess.run(
        [sys.executable, "-c", blocks("python")[0]], cwd=folder, env=environment
    ).check_returncode()
    return folder


@pytest.fixture(scope="module")
def python_output(environment: Mapping[str, str], place: Path) -> str:
    """What the README's other Python blocks print, run as one program."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks("python")[1:])],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_python_blocks_run(python_output: str) -> None:
    assert python_output.startswith("REFUSED at the admission gate by policy baseline")
    assert python_output.endswith("10,000 of 10,000 rows come from a generator\n")


def test_the_folder_is_as_shown(python_output: str, place: Path) -> None:
    head, *lines = text_block("out/py/").splitlines()
    shown = {line.split()[0] for line in lines if "only with a key" not in line}
    folder = place / head
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == shown


def test_shell_commands_end_as_stated(environment: Mapping[str, str], place: Path) -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    commands = [c for c in commands if c.strip() and not c.startswith(NOT_RUN)]
    assert sum(c.startswith("safegen ") for c in commands) == len(commands) >= 8
    for command in commands:
        stated = re.search(r"# exit code (\d)$", command)
        done = subprocess.run(
            ["bash", "-c", command], cwd=place, env=environment, capture_output=True, text=True
        )
        wanted = int(stated[1]) if stated else 0
        assert done.returncode == wanted, f"{command}: {done.returncode}\n{done.stderr}"
    assert not (place / "out" / "again").exists()


def test_the_refusal_is_what_the_demo_prints(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    place = tmp_path / "demo"
    done = subprocess.run(
        ["safegen", "demo", "--out", str(place)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout[done.stdout.index("REFUSED") : done.stdout.index("6  Now hide it")]
    printed = printed.replace(str(place), "/tmp/demo")
    assert _masked(printed) == _masked(text_block("REFUSED"))


def _masked(text: str) -> str:
    """Without ids, dates and key epochs, and with one space where a line may have been wrapped."""
    text = re.sub(ULID, "ULID", text)
    text = re.sub(r"\d{4}-\d\d-\d\d", "DATE", text)
    text = re.sub(r"(?<=key epochs )[0-9a-f]{8}", "EPOCH", text)
    return " ".join(text.split())


def test_the_policies_are_as_the_table_says() -> None:
    shown = dict(re.findall(r"^\| `([a-z-]+)` \| [^|]+ \| ([^|]+) \|", README, re.MULTILINE))
    policies = {name: Policy.load(name) for name in Policy.shipped()}
    assert policies.keys() <= shown.keys()
    base = policies["baseline"]
    for name in ("rare-events", "images"):
        assert shown[name] == "as `baseline`"
        assert policies[name].at("admission") == base.at("admission")
        assert policies[name].at("release").keys() == base.at("release").keys()
    for name, policy in policies.items():
        lineage = policy.rule("lineage").model_dump()
        told = shown[name]
        if name in ("rare-events", "images"):
            continue
        assert (lineage["severity"] == "audit") == told.startswith("recorded")
        assert (lineage["max_depth"] == 1.0) == ("at most 1" in told)
        assert (lineage["ledger"] == "required") == ("a ledger required" in told)
        assert (lineage["unattested"] == "refuse") == ("refused" in told and name != "lab")
    for rule in ("schema", "support"):
        for name in ("anchored", "rare-events", "images"):
            assert policies[name].rule(rule) == base.rule(rule)
        assert policies["strict"].rule(rule).model_dump()["inconclusive"] == "fail"
        assert policies["training"].rule(rule).severity == "off"
        assert policies["lab"].rule(rule).severity == "audit"
    selecting = {n for n, p in policies.items() if p.rule("selection").severity != "off"}
    assert selecting == {"strict", "anchored", "rare-events"}
    assert {n for n, p in policies.items() if p.rule("tails").severity != "off"} == {"rare-events"}
    assert {n for n, p in policies.items() if held_out(p)} == {"strict", "anchored"}
    assert policies["strict"].rule("manifest").model_dump()["signature"] == "required"


def test_the_rules_are_named() -> None:
    rules = ", ".join(f"`{name}`" for name in Policy.load("baseline").rules)
    assert f"Rules: {rules}." in " ".join(README.split())


def test_the_exit_codes_are_those_of_the_errors() -> None:
    shown = dict(re.findall(r"^\| (\d) \| ([^|]+) \|$", README, re.MULTILINE))
    assert sorted(shown) == ["0", "1", "2", "3", "4"]
    for error, code in (
        (BackendError, 1),
        (SourceError, 2),
        (PolicyError, 2),
        (AdmissionRefused, 3),
        (VerificationError, 4),
        (ManifestError, 4),
    ):
        assert error.exit_code == code


def test_the_first_paragraph_has_five_lines() -> None:
    opening = README.split("\n\n")[1]
    assert len(opening.splitlines()) <= 5
    assert "```sh\nmake demo" in README.split("\n\n")[2] + README.split("\n\n")[3]
