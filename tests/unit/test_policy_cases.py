"""The cases in policy files: that they say what gates say, fail where a policy says otherwise, and
ask nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import safegen
from safegen.cli import app
from safegen.errors import PolicyError
from safegen.policy import Policy, diff, lint
from safegen.policy.cases import Case, Expected, Given, GivenSource, Placed, cases
from safegen.trials import decided, trials

TOP = Path(__file__).resolve().parents[2]
ONE, TWO = (f"MCowBQYDK2VwAyEA{c * 43}=" for c in "AI")
GOOD = """\
schema: safegen.policy/v1
id: acme/credit
version: "1.0"
description: A policy for tests.
contact: governance@acme.example
rules:
  lineage: {severity: enforce}
  manifest: {severity: enforce}
  support: {severity: enforce}
"""
CASE = """\
tests:
  - name: own output is refused
    given: {sources: [{origin: synthetic}]}
    expect: {outcome: refuse, rules: [lineage]}
"""


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "team.yaml"
        path.write_text(text)
        return path

    return write


def ran(*arguments: object) -> Any:
    words = ["policy", "test", *map(str, arguments)]
    return CliRunner().invoke(app, words, standalone_mode=False)


def said(policy: Policy | str, **given: Any) -> tuple[str, set[str]]:
    """The outcome of what a case describes, and what refuses or warns."""
    policy = Policy.load(policy) if isinstance(policy, str) else policy
    case = Case.model_validate_json(
        json.dumps({"name": "x", "given": given, "expect": {"outcome": "admit"}})
    )
    decision = decided(policy, case)
    outcome = "refuse" if not decision.allowed else "warn" if decision.warnings else "admit"
    wanted = "block" if outcome == "refuse" else "warn"
    return outcome, {r.finding.name for r in decision.judged if r.outcome == wanted}


def changed(policy: str, rule: str, **values: Any) -> Policy:
    loaded = Policy.load(policy)
    rules = {**loaded.rules, rule: loaded.rule(rule).model_copy(update=values)}
    return loaded.model_copy(update={"rules": rules})


# -- shipped files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", Policy.shipped())
def test_every_shipped_policy_says_what_its_cases_expect(name: str) -> None:
    done = trials(name)
    assert len(done) >= 3
    assert [(t.placed.case.name, t.problem) for t in done if t.problem] == []


@pytest.mark.parametrize("name", Policy.shipped())
def test_every_case_of_a_shipped_policy_can_fail(name: str, tmp_path: Path) -> None:
    """Where all rules only watch, each case that expects a refusal or a warning fails."""
    text = (TOP / "policies" / f"{name}.yaml").read_text()
    mild = re.sub(r"severity: (enforce|warn)", "severity: audit", text)
    path = tmp_path / "mild.yaml"
    path.write_text(mild)
    expected = [t.placed.case.expect.outcome for t in trials(name)]
    got = [t.problem is None for t in trials(path)]
    assert got == [outcome == "admit" for outcome in expected]


def test_cases_are_no_part_of_what_a_policy_asks(write: Any, tmp_path: Path) -> None:
    without = Policy.load(write(GOOD))
    with_cases = Policy.load(write(GOOD + CASE))
    assert with_cases.digest == without.digest
    assert "tests" not in with_cases.effective()
    assert diff(without, with_cases) == []


# -- what is described is what a gate would see ----------------------------------------------------


def test_what_a_case_describes_is_judged_as_the_thing_itself(tmp_path: Path) -> None:
    """Each source made for real, and its twin in a case: the same findings, the same statuses."""
    ledger = tmp_path / "ledger.db"
    rows = pa.table({"n": list(range(600)), "c": ["a", "b", "c"] * 200})
    made = {}
    for name in ("plain", "real", "fake", "copied"):
        made[name] = tmp_path / f"{name}.parquet"
        pq.write_table(rows.slice(len(made) * 100, 100), made[name])
    safegen.attest(made["real"], by="A", ledger=ledger)
    safegen.attest(made["fake"], by="A", origin="synthetic", tool="T", ledger=ledger)
    safegen.attest(made["copied"], by="A", ledger=ledger)
    made["copied"].with_name("copied.parquet.safegen.json").unlink()
    twins = {
        "plain": {"origin": "unknown"},
        "real": {"origin": "real"},
        "fake": {"origin": "synthetic", "ancestry": "unverified"},
        "copied": {"origin": "real", "stated_in": ["ledger"]},
    }
    for name, twin in twins.items():
        for policy in ("baseline", "strict", "anchored", "training"):
            thing = safegen.check(made[name], policy=policy, ledger=ledger)
            case = Case.model_validate_json(
                json.dumps({"name": "x", "given": {"sources": [{"rows": 100, **twin}]},
                            "expect": {"outcome": "admit"}})
            )  # fmt: skip
            told = decided(Policy.load(policy), case)
            assert {n: f.status for n, f in told.findings.items()} == {
                n: f.status for n, f in thing.findings.items()
            }, (name, policy)
            assert [r.outcome for r in told.judged] == [r.outcome for r in thing.judged]


def test_losing_evidence_refuses_no_less() -> None:
    """A dataset that the policy admits, and what is left when its papers get lost."""
    rank = {"admit": 0, "warn": 1, "refuse": 2}
    for policy in Policy.shipped():
        for origin in ({"origin": "real"}, {"origin": "synthetic"}):
            whole = said(policy, sources=[origin])[0]
            for less in (["file"], ["ledger"], []):
                lost = said(policy, sources=[{**origin, "stated_in": less}])[0]
                assert rank[lost] >= rank[whole], (policy, origin, less)
            for ledger in ("unreachable", "empty", "without its key"):
                lost = said(policy, sources=[origin], ledger=ledger)[0]
                assert rank[lost] >= rank[whole], (policy, origin, ledger)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"sources": [{"marks": True}]}, ("warn", {"lineage/marks"})),
        ({"sources": [{}], "model": "unknown"}, ("warn", {"lineage/model"})),
        ({"sources": [{}], "ledger": "empty"}, ("admit", set())),
        ({"sources": [{"verifies": False}]}, ("refuse", {"lineage/intact"})),
        ({"sources": [{"withdrawn": True}]}, ("refuse", {"lineage/intact"})),
        ({"sources": [{}, {"origin": "unknown"}]}, ("warn", {"lineage/unattested"})),
        ({"in_band": False}, ("refuse", {"manifest/in-band"})),
        ({"findings": {"support": "inconclusive"}}, ("warn", {"support/as-given"})),
        ({"findings": {"privacy/near-copies": "unmet"}}, ("warn", {"privacy/near-copies"})),
        ({"findings": {"privacy/copies": "broken"}}, ("refuse", {"privacy/copies"})),
        ({"findings": {"anchor/gain": "unmet"}, "sources": [{}]}, ("admit", set())),  # off there
    ],
)
def test_baseline_on_what_a_case_can_say(given: Any, expected: Any) -> None:
    assert said("baseline", **given) == expected


def test_keys_that_a_policy_trusts_are_told_from_others() -> None:
    trusting = changed("baseline", "manifest", signature="required", trusted_keys=(ONE,))
    for gate in (lambda k: {"signed_by": k}, lambda k: {"sources": [
            {"origin": "synthetic", "signed_by": k}]}):  # fmt: skip
        for keys, signed in (([ONE], True), ([TWO], False), (["a stranger"], False), ([], False)):
            refused = "manifest/signature" in said(trusting, **gate(keys))[1]
            assert refused is not signed
    both = changed("baseline", "manifest", signature="required", trusted_keys=(ONE, TWO), signers=2)
    sources = [{"origin": "synthetic", "signed_by": [ONE, TWO]}]
    assert "manifest/signature" not in said(both, sources=sources)[1]
    sources = [{"origin": "synthetic", "signed_by": [ONE, "a stranger"]}]
    assert "manifest/signature" in said(both, sources=sources)[1]


def test_the_policies_behind_a_dataset_can_be_described() -> None:
    ours, other = (f"sha256:{c * 64}" for c in "ab")
    asking = changed("training", "manifest", made_under=(ours,))
    for told, rules in (([other, ours], set()), ([other], {"manifest/policy"})):
        for stated in (["ledger"], ["ledger", "file"]):
            source = {"origin": "synthetic", "stated_in": stated, "made_under": told}
            assert said(asking, sources=[source])[1] == rules
    # A manifest that nobody signed, and that no ledger has, is anybody's word.
    source = {"origin": "synthetic", "stated_in": ["file"], "made_under": [ours]}
    assert said(asking, sources=[source])[1] == {"manifest/policy"}
    assert said(asking, sources=[{**source, "signed_by": [ONE]}])[1] == set()


def test_a_list_of_withdrawals_is_described_and_never_read(tmp_path: Path) -> None:
    for attitude, outcome in (("refuse", "refuse"), ("warn", "warn"), ("allow", "admit")):
        listing = changed(
            "baseline",
            "lineage",
            withdrawals=str(tmp_path / "nowhere.json"),
            withdrawals_on_unreachable=attitude,
        )
        assert said(listing, sources=[{}]) == ("admit", set())
        assert said(listing, sources=[{}], withdrawals="unreadable")[0] == outcome
        _, rules = said(listing, sources=[{"withdrawn": True}])
        assert rules == {"lineage/intact", "lineage/withdrawals"}
        without = said(listing, sources=[{"withdrawn": True}], ledger="empty")
        assert without == ("refuse", {"lineage/withdrawals"})


def test_a_content_credential_that_is_missing_is_refused_where_asked_for() -> None:
    asking = changed("baseline", "manifest", c2pa="required")
    assert said(asking) == ("admit", set())
    assert said(asking, credentials=False) == ("refuse", {"manifest/c2pa"})
    assert said("baseline", credentials=False) == ("admit", set())


def test_a_safeguard_that_breaks_on_a_case_counts_as_unmet(monkeypatch: pytest.MonkeyPatch) -> None:
    from safegen.safeguards.lineage import Lineage

    def broken(*_: object) -> None:
        raise RuntimeError("a secret value")

    monkeypatch.setattr(Lineage, "admission", broken)
    assert said("baseline", sources=[{}]) == ("refuse", {"lineage/broken"})


# -- expectations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expect", "problem"),
    [
        ("{outcome: refuse}", None),
        ("{outcome: refuse, rules: [lineage/depth]}", None),
        ("{outcome: admit}", "expected admit, got refuse by lineage/depth"),
        ("{outcome: warn, rules: [lineage]}", "expected warn, got refuse by lineage/depth"),
        (
            "{outcome: refuse, rules: [manifest]}",
            "it refuses as expected, but not by manifest and also by lineage/depth",
        ),
        (
            "{outcome: refuse, rules: [lineage, manifest]}",
            "it refuses as expected, but not by manifest",
        ),
        (
            "{outcome: refuse, rules: [lineage/share]}",
            "it refuses as expected, but not by lineage/share and also by lineage/depth",
        ),
    ],
)
def test_what_fails_says_what_was_expected_and_what_came(
    write: Any, expect: str, problem: str | None
) -> None:
    path = write(GOOD + CASE.replace("{outcome: refuse, rules: [lineage]}", expect))
    [trial] = trials(path)
    assert trial.problem == problem
    done = ran(path)
    assert done.return_value == (0 if problem is None else 1)
    if problem is not None:
        assert f"{path}:13: own output is refused: {problem}" in done.output
        assert "effective depth 1" in done.output


WAIVER = """\
waivers:
  - {id: W-1, rule: support, scope: "fraud-*", params: {min_real_rows: 60}, reason: r, ticket: t,
     requested_by: a, approved_by: [b], expires: 2026-12-31}
  - {id: W-2, rule: lineage, scope: "fraud-*", params: {max_depth: 1.0}, reason: r, ticket: t,
     requested_by: a, approved_by: [b], expires: 2026-12-31}
"""


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        ("sources: [{name: fraud-1, origin: synthetic}]", "admit"),
        ("sources: [{name: fraud-1, origin: synthetic, depth: 2}]", "refuse"),
        ("sources: [{name: other, origin: synthetic}]", "refuse"),
        ("sources: [{name: fraud-1}, {name: other, origin: synthetic}]", "refuse"),
        ("findings: {support/levels: unmet}, lowered: {support/levels: met}, trained_on: [fraud-1]",
         "admit"),
        ("findings: {support/levels: unmet}, lowered: {support/levels: met}", "refuse"),
        ("findings: {support/levels: unmet}, trained_on: [fraud-1]", "refuse"),
    ],
)  # fmt: skip
def test_a_waiver_counts_within_its_scope_and_until_its_day(
    write: Any, given: str, outcome: str
) -> None:
    """A case may fix its day, so that what passes today does not fail when a waiver ends."""
    case = "tests:\n"
    for day in ("2026-12-31", "2027-01-01"):
        case += f"  - {{name: on {day}, today: {day}, given: {{{given}}}, "
        case += "expect: {outcome: admit}}\n"
    before, after = trials(write(GOOD + WAIVER + case))
    assert (before.got, after.got) == (outcome, "refuse")
    statuses = [w["status"] for w in before.decision.waivers]
    assert ("applied" in statuses) is (outcome == "admit")
    assert {w["status"] for w in after.decision.waivers} == {"expired"}


def test_a_child_of_a_policy_has_its_own_cases(write: Any) -> None:
    parent = Policy.load("training")
    text = f"""\
schema: safegen.policy/v1
id: team
version: "1"
extends: {{policy: training, digest: "{parent.digest}"}}
rules:
  lineage: {{max_depth: 2.0}}
tests:
  - name: two models away are admitted here
    given: {{sources: [{{origin: synthetic, depth: 2}}]}}
    expect: {{outcome: admit}}
"""
    [trial] = trials(write(text))
    assert trial.problem is None


def test_the_command_speaks_json_and_counts(write: Any) -> None:
    path = write(GOOD + CASE + CASE[7:].replace("own", "their").replace("refuse,", "warn,"))
    done = ran(path, "baseline", "--json")
    assert done.return_value == 1
    told = json.loads(done.stdout)
    assert [t["passed"] for t in told[:2]] == [True, False]
    assert told[1] == {
        "file": str(path),
        "line": 14,
        "name": "their output is refused",
        "passed": False,
        "problem": "expected warn, got refuse by lineage/depth",
        "expected": {"outcome": "warn", "rules": ["lineage"]},
        "got": {"outcome": "refuse", "rules": ["lineage/depth"]},
    }
    assert len(told) > 10
    assert ran("baseline").return_value == 0
    nothing = ran(write(GOOD))
    assert nothing.return_value == 0
    assert "no cases" in nothing.output


def test_the_cases_in_the_reference_hold(write: Any) -> None:
    page = (TOP / "docs" / "policies.md").read_text()
    [block] = re.findall(r"```\n(tests:\n.*?)```", page, re.DOTALL)
    anchored = (TOP / "policies" / "anchored.yaml").read_text().partition("tests:")[0]
    done = trials(write(anchored + block))
    assert [t.got for t in done] == ["refuse", "admit", "refuse"]
    known = {*GivenSource.model_fields, *Given.model_fields, *Expected.model_fields, "today"}
    assert {f for f in known if f"`{f}" not in page} == {"name"}  # shown in the example


# -- malformed -------------------------------------------------------------------------------------

MALFORMED = [
    ("tests: 1\n", "10: tests has to be a list"),
    ("tests: [1]\n", "10: tests[0] has to be a mapping"),
    (CASE.replace("name", "nam"), "11: tests[0]: unknown key 'nam', did you mean 'name'?"),
    (CASE.replace("origin", "orign"), "12: tests[0].given.sources[0]: unknown key 'orign', did"),
    (CASE.replace("outcome", "outcom"), "13: tests[0].expect: unknown key 'outcom', did you mean"),
    (CASE.replace("synthetic", "fake"), "12: tests[0].given.sources[0].origin: has to be 'real',"),
    (CASE.replace("refuse", "deny"), "13: tests[0].expect.outcome: has to be 'refuse', 'warn' or"),
    (CASE.replace("{origin: synthetic}", "{rows: '9'}"), "12: tests[0].given.sources[0].rows"),
    (CASE.replace("{origin: synthetic}", "{depth: 1}"), "12: tests[0].given.sources[0]: rows of"),
    (CASE.replace("[{origin: synthetic}]", "[]"), "12: tests[0].given.sources"),
    (CASE.replace("sources:", "in_band: true, sources:"), "12: tests[0].given: in_band is of a"),
    (CASE.replace("{sources: [{origin: synthetic}]}", "{ledger: empty}"), "ledger needs sources"),
    (
        "tests: [{name: n, given: {}, expect: {outcome: admit}}, "
        "{name: n, given: {}, expect: {outcome: admit}}]\n",
        "10: tests[1]: the case on line 10 has the same name",
    ),
    (CASE + CASE[7:], "14: tests[1]: the case on line 11 has the same name"),
    (CASE.replace("refuse, rules", "admit, rules"), "13: tests[0].expect: where nothing refuses"),
    (CASE.replace("name: own", "today: 2026-02-30\n    name: own"), "11: tests[0].today"),
    ("tests:\n" + CASE[7:] * 201, "10: tests has more than 200 cases"),
]
UNKNOWN = [
    (CASE.replace("[lineage]", "[linage]"), "13: tests[0].expect.rules[0]: unknown rule 'linage',"),
    (
        CASE.replace("sources: [{origin: synthetic}]", "findings: {suport/levels: met}"),
        "12: tests[0].given.findings.suport/levels: unknown rule 'suport', did you mean 'support'",
    ),
    (
        CASE.replace("sources: [{origin: synthetic}]", "findings: {lineage/depth: met}"),
        "12: tests[0].given.findings.lineage/depth: lineage is judged by its sources",
    ),
    (
        CASE.replace("sources: [{origin: synthetic}]", "findings: {tails: met}"),
        "12: tests[0].given.findings.tails: tails shapes rows, and finds nothing",
    ),
    (
        CASE.replace("sources: [{", "findings: {support/levels: met}, sources: [{"),
        "12: tests[0].given.findings.support/levels: a finding of support is of a release",
    ),
]


@pytest.mark.parametrize(("text", "expected"), [*MALFORMED, *UNKNOWN])
def test_a_malformed_case_is_named_with_its_line(write: Any, text: str, expected: str) -> None:
    path = write(GOOD + text)
    done = ran(path)
    assert isinstance(done.exception, PolicyError)
    assert done.exception.exit_code == 2
    assert any(f"{path}:" in str(p) and expected in str(p) for p in done.exception.problems)


@pytest.mark.parametrize(("text", "expected"), [*MALFORMED, *UNKNOWN])
def test_lint_finds_what_is_malformed(write: Any, text: str, expected: str) -> None:
    assert any(expected in str(p) for p in lint(write(GOOD + text)))


def test_cases_are_read_with_their_lines(write: Any) -> None:
    [placed] = cases(path := write(GOOD + CASE))
    assert isinstance(placed, Placed)
    assert (placed.file, placed.line, placed.expects) == (str(path), 11, 13)
    assert cases(write(GOOD)) == []
