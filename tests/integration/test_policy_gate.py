"""The action for a repository of policies, and the pre-commit hooks: what they name exists, and
what they run passes a repository that tightens and stops one that loosens."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

import safegen
from safegen.cli import main
from safegen.policy import Policy
from safegen.testing import example_table

TOP = Path(__file__).parents[2]
COMPANY = """\
schema: safegen.policy/v1
id: company
version: "1"
description: The company's.
contact: us
rules:
  lineage: {severity: enforce, max_depth: 1.0}
  manifest: {severity: enforce}
tests:
  - name: what was made from a release is refused
    given: {sources: [{origin: synthetic, depth: 2}]}
    expect: {outcome: refuse, rules: [lineage]}
"""


def read(name: str) -> Any:
    return YAML(typ="safe").load((TOP / name).read_text())


def git(*words: str) -> None:
    named = ["-c", "user.name=A", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *named, *words], check=True, capture_output=True)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository in which one policy extends another, committed as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(safegen.__file__).parents[1]))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):  # of a hook that runs the tests
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "policies").mkdir()
    write("company", COMPANY)
    write("team", team())
    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-qm", "as it was")
    git("checkout", "-qb", "change")
    return tmp_path


def write(name: str, text: str) -> None:
    Path(f"policies/{name}.yaml").write_text(text)


def team(rules: str = "lineage: {unattested: refuse}") -> str:
    digest = Policy.load("policies/company.yaml").digest
    return (
        'schema: safegen.policy/v1\nid: team\nversion: "1"\n'
        f'extends: {{policy: company.yaml, digest: "{digest}"}}\nrules:\n  {rules}\n'
    )


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, its `safegen` run in this process: that takes hundredths of a second."""
    spec = importlib.util.spec_from_file_location("policy_gate", TOP / "tools" / "policy_gate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def ran(*words: str, quiet: bool = False) -> Any:
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main(words)
        if not quiet:
            print(out.getvalue(), err.getvalue())
        return subprocess.CompletedProcess(words, ended.value.code or 0, out.getvalue())

    monkeypatch.setattr(module, "safegen", ran)
    monkeypatch.setenv("BASE", "main")
    return module


def passes(gate: ModuleType, capsys: pytest.CaptureFixture[str]) -> tuple[bool, str]:
    capsys.readouterr()
    code = gate.main()
    assert not re.search(r"worktree|before/before", subprocess.check_output(
        ["git", "worktree", "list", "--porcelain"], text=True).partition("\n\n")[2])  # fmt: skip
    return code == 0, capsys.readouterr().out


KEYS = [f"MCowBQYDK2VwAyEA{c * 43}=" for c in "AEI"]


@pytest.mark.parametrize(
    ("rules", "ok", "said"),
    [
        ("lineage: {unattested: refuse}", True, ""),
        ("lineage: {unattested: refuse, ledger: required}", True, "TIGHTEN lineage.ledger"),
        ("lineage: {unattested: warn}", False, "LOOSEN lineage.unattested"),
        (
            "manifest: {trusted_keys: [%s]}\n  lineage: {unattested: refuse}" % KEYS[0],  # noqa: UP031
            False,
            "INCOMPARABLE manifest.trusted_keys",
        ),
        ("lineage: {unattested: refused}", False, "policy lint found something"),
    ],
)
def test_a_change_passes_unless_it_may_be_looser(
    place: Path, gate: ModuleType, capsys: Any, rules: str, ok: bool, said: str
) -> None:
    write("team", team(rules))
    passed, out = passes(gate, capsys)
    assert passed is ok, out
    assert said in out
    assert ("::error::" in out) is not ok


def test_a_label_approves_of_what_is_looser_and_of_nothing_else(
    place: Path, gate: ModuleType, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("team", team("lineage: {unattested: warn}"))
    for labels, ok in (
        ('["policy-loosening-approved"]', True),
        ('["policy-loosening-approved-not", "x"]', False),
        ('"policy-loosening-approved"', False),
        ("null", False),
        ("", False),
    ):
        monkeypatch.setenv("LABELS", labels)
        assert passes(gate, capsys)[0] is ok
    monkeypatch.setenv("LABELS", '["policy-loosening-approved"]')
    write("team", team("lineage: {unattested: warned}"))
    assert not passes(gate, capsys)[0]  # malformed stays malformed


def test_a_policy_that_is_gone_or_renamed_counts_as_looser(
    place: Path, gate: ModuleType, capsys: Any
) -> None:
    Path("policies/team.yaml").rename("policies/squad.yaml")
    passed, out = passes(gate, capsys)
    assert not passed
    assert "policies/team.yaml (gone)" in out
    Path("policies/squad.yaml").rename("policies/team.yaml")
    write("new", COMPANY)
    assert passes(gate, capsys)[0]


def test_a_case_that_no_longer_holds_stops_a_change(
    place: Path, gate: ModuleType, capsys: Any
) -> None:
    write("company", COMPANY.replace("severity: enforce, max", "severity: warn, max"))
    write("team", team())
    passed, out = passes(gate, capsys)
    assert not passed
    assert "policies/company.yaml:12: what was made from a release is refused: expected" in out
    # The parent changed, and nobody looked at the child.
    write("company", COMPANY.replace("1.0", "0.5"))
    passed, out = passes(gate, capsys)
    assert not passed
    assert "is not the policy that is pinned" in out


def test_where_there_is_nothing_to_compare_with(
    place: Path, gate: ModuleType, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BASE", "0" * 40)  # a first push
    assert passes(gate, capsys)[0]
    monkeypatch.setenv("BASE", "a-branch-that-was-not-fetched")
    passed, out = passes(gate, capsys)
    assert not passed
    assert "fetch-depth: 0" in out
    monkeypatch.setenv("BASE", "")
    monkeypatch.setenv("POLICIES", "nowhere")
    assert not passes(gate, capsys)[0]


def test_a_text_in_a_policy_is_no_command_of_the_log(
    place: Path, gate: ModuleType, capsys: Any
) -> None:
    """GitHub takes a line that begins with :: for a command."""
    write("team", team('lineage: {unattested: refuse, withdrawals: "x\\n::stop-commands::y"}'))
    _, out = passes(gate, capsys)
    assert "TIGHTEN lineage.withdrawals" in out
    assert not re.search(r"^::stop", out, re.M)


def test_the_action_runs_as_github_runs_it(place: Path) -> None:
    """Its step, in bash, with its inputs as the environment that it declares."""
    action = read("action.yml")
    assert action["runs"]["using"] == "composite"
    install, step = action["runs"]["steps"]
    assert "${{" not in step["run"] + install["run"]  # inputs are no part of a script
    assert install["if"] == "inputs.install != ''"
    inputs = {k: v["default"] for k, v in action["inputs"].items()}
    named = {k: re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", v)[1] for k, v in step["env"].items()}  # type: ignore[index]
    assert set(named.values()) == set(inputs) - {"install"}
    write("team", team("lineage: {unattested: warn}"))
    for labels, code in (([], 1), ([inputs["label"]], 0)):
        given = {**inputs, "base": "main", "labels": json.dumps(labels)}
        env = {k: given[name] for k, name in named.items()} | {"GITHUB_ACTION_PATH": str(TOP)}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "LOOSEN lineage.unattested" in done.stdout
    [job] = read("examples/ci/policies.yml")["jobs"].values()
    [used] = [s for s in job["steps"] if s.get("uses", "").startswith("OWNER/safegen@")]
    assert set(used["with"]) <= set(inputs)


# -- pre-commit ------------------------------------------------------------------------------------


def hook(name: str) -> dict[str, Any]:
    [found] = [h for h in read(".pre-commit-hooks.yaml") if h["id"] == name]
    return found


def committed(name: str, args: list[str]) -> int:
    """The hook's exit code as pre-commit runs it: its entry, args, and the files that it is for."""
    it = hook(name)
    files = [p for p in map(str, sorted(Path().rglob("*.*"))) if re.search(it["files"], p)]
    assert files
    given = files if it.get("pass_filenames", True) else []
    words = [*shlex.split(it["entry"]), *args, *given]
    return subprocess.run(words, capture_output=True).returncode


def test_hooks_pass_what_is_well_and_stop_what_is_not(place: Path) -> None:
    """The examples' arguments, and the entries as they stand."""
    [repo] = read("examples/ci/pre-commit-config.yaml")["repos"]
    hooks = {h["id"]: h.get("args", []) for h in repo["hooks"]}
    assert list(hooks) == [h["id"] for h in read(".pre-commit-hooks.yaml")]
    assert {h["language"] for h in read(".pre-commit-hooks.yaml")} == {"python"}
    Path("data").mkdir()
    pq.write_table(example_table(60), "data/train.parquet")
    safegen.attest("data/train.parquet", by="A")
    write("ours", (TOP / "policies" / "baseline.yaml").read_text())
    assert [committed(name, args) for name, args in hooks.items()] == [0, 0, 0]
    write("ours", (TOP / "policies" / "baseline.yaml").read_text().replace("refuse, r", "warn, r"))
    assert committed("safegen-policy-test", []) == 1
    write("ours", "rules: []\n")
    assert committed("safegen-policy-lint", []) == 2
    write("ours", (TOP / "policies" / "strict.yaml").read_text())
    pq.write_table(example_table(60, seed=9), "data/train.parquet")
    assert committed("safegen-check", hooks["safegen-check"]) == 3
