"""Decisions as continuous integration reads them."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

import safegen
from safegen.cli import main
from safegen.decision import Decision, Finding, Reason
from safegen.exports.decisions import verdict

CASES = [("deep", "block"), ("odd", "warn"), ("noted", "audit"), ("fine", "pass")]


def decision(what: str = "rows.csv (10 rows)") -> Decision:
    judged = tuple(
        Reason(
            Finding("lineage", name, "met" if outcome == "pass" else "unmet", f"<{name}> & more",
                    "less", evidence=("a manifest",), next_step="attest it"),
            "enforce",
            outcome,  # type: ignore[arg-type]
        )
        for name, outcome in CASES
    )  # fmt: skip
    policy = {"id": "p", "version": "1", "digest": "d", "contact": "Bo"}
    return Decision(False, "admission", judged, policy, {}, (what,), time="2026-01-02T03:04:05Z")


def test_junit_has_a_case_for_each_finding() -> None:
    root = ElementTree.fromstring(verdict(decision(), "junit"))
    (suite,) = root
    assert suite.attrib["tests"] == "4"
    cases = {c.attrib["name"]: c for c in suite.iter("testcase")}
    assert [*cases] == [name for name, _ in CASES]
    assert [name for name, c in cases.items() if c.find("failure") is not None] == ["deep"]
    failure = cases["deep"].find("failure")
    assert failure is not None
    assert failure.attrib["message"] == "<deep> & more"
    assert failure.text is not None
    assert "next: attest it" in failure.text
    assert cases["odd"].find("system-out") is not None
    assert len(cases["fine"]) == 0
    strict = ElementTree.fromstring(verdict(decision(), "junit", fail_on="warn"))
    assert strict.attrib["failures"] == "2"
    assert suite.attrib["failures"] == "1"


@pytest.mark.parametrize("name", ["bell\x07.csv", "lone\udc80.csv", "tag<b>.csv", "]]>.csv"])
def test_any_name_of_a_file_makes_xml_and_json(name: str) -> None:
    made = verdict(decision(name), "junit")
    assert ElementTree.fromstring(made.encode("utf-8")) is not None
    assert "\x07" not in made
    json.loads(verdict(decision(name), "sarif"))


def test_sarif_has_a_result_for_each_finding() -> None:
    (run,) = json.loads(verdict(decision(), "sarif"))["runs"]
    rules = run["tool"]["driver"]["rules"]
    levels = {}
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        # SARIF 2.1.0, 3.27.9 and 3.27.10: a kind other than fail has the level none.
        assert (result["kind"] == "fail") == (result["level"] != "none")
        levels[result["ruleId"].partition("/")[2]] = result["level"]
    assert levels == {"deep": "error", "odd": "warning", "noted": "note", "fine": "none"}
    (strict,) = json.loads(verdict(decision(), "sarif", fail_on="warn"))["runs"]
    assert [r["level"] for r in strict["results"]] == ["error", "error", "note", "none"]


def run(*words: str) -> tuple[object, str]:
    out = io.StringIO()
    with pytest.raises(SystemExit) as end, redirect_stdout(out), redirect_stderr(io.StringIO()):
        main(["check", *words])
    return end.value.code, out.getvalue()


def test_the_command_fails_on_warnings_where_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFEGEN_LEDGER", str(tmp_path / "ledger.db"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    file = tmp_path / "rows.csv"
    pd.DataFrame({"a": range(50), "b": list("xy") * 25}).to_csv(file, index=False)
    words = [str(file), "--policy", "baseline"]  # warns of data that nobody attested
    assert run(*words)[0] == 0
    assert run(*words, "--fail-on", "warn")[0] == 3
    code, text = run(*words, "--format", "junit", "--fail-on", "warn")
    assert (code, ElementTree.fromstring(text).attrib["failures"]) == (3, "1")
    code, text = run(*words, "--format", "junit")
    assert (code, ElementTree.fromstring(text).attrib["failures"]) == (0, "0")
    assert json.loads(run(*words, "--format", "json")[1])["allowed"] is True
    assert json.loads(run(*words, "--format", "sarif")[1])["version"] == "2.1.0"
    assert run(*words, "--format", "xml")[0] == 2
    assert run(*words, "--fail-on", "never")[0] == 2
    safegen.attest(file, by="me")
    assert run(*words, "--fail-on", "warn")[0] == 0
