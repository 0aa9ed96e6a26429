"""The verdict: every numbered rule at the top of `safegen/decision.py`, and its monotonicity."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import safegen
from safegen.decision import Finding, decide

LEDGER = {"url": "memory", "datasets": 3, "key_epochs": ["abcdef"]}
SEVERITIES = ["audit", "warn", "enforce"]
STATUSES = ["met", "inconclusive", "unmet", "broken"]


def policy(**rules: Any) -> Any:
    """A policy with these rules active: name=severity, or name=(severity, inconclusive)."""
    active = {}
    for name, value in rules.items():
        severity, inconclusive = value if isinstance(value, tuple) else (value, None)
        params = SimpleNamespace(severity=severity)
        if inconclusive:
            params.inconclusive = inconclusive
        active[name] = params
    return SimpleNamespace(
        id="test",
        version="1",
        digest="sha256:0",
        contact="ask me",
        waivers=(),
        extends=(),
        at=lambda g: active,
    )


def finding(rule: str = "r", status: str = "met", **more: Any) -> Finding:
    return Finding(rule, more.pop("check", "c"), status, "seen", "wanted", **more)  # type: ignore[arg-type]


def verdict(rules: Any, *findings: Finding) -> safegen.Decision:
    return decide(rules, "release", findings, ledger=LEDGER, time="2026-01-01T00:00:00Z")


def test_every_rule_is_evaluated_and_nothing_is_short_circuited() -> None:
    found = verdict(policy(a="enforce", b="enforce"), finding("a", "unmet"), finding("b", "unmet"))
    assert [r.finding.rule for r in found.reasons] == ["a", "b"]


def test_a_rule_without_a_finding_is_unmet() -> None:
    found = verdict(policy(a="enforce", b="enforce"), finding("a"))
    assert not found.allowed
    assert found.findings["b/silent"].status == "broken"
    assert verdict(policy(a="enforce", b="enforce"), finding("a"), finding("b")).allowed


def test_a_policy_without_an_active_rule_admits_nothing() -> None:
    assert not verdict(policy()).allowed
    assert verdict(policy(a="audit"), finding("a")).allowed


@pytest.mark.parametrize(
    ("severity", "allowed"), [("enforce", False), ("warn", True), ("audit", True)]
)
def test_an_unmet_finding_blocks_only_under_enforce(severity: str, allowed: bool) -> None:
    found = verdict(policy(a=severity), finding("a", "unmet"))
    assert found.allowed is allowed
    assert bool(found.reasons) is (severity != "audit")


def test_a_finding_may_be_milder_than_its_rule_but_never_stricter() -> None:
    mild = finding("a", "unmet", at_most="warn")
    assert verdict(policy(a="enforce"), mild).allowed
    assert verdict(policy(a="audit"), finding("a", "unmet", at_most="enforce")).allowed


def test_a_broken_safeguard_has_no_say_in_how_mild_it_is() -> None:
    assert not verdict(policy(a="enforce"), finding("a", "broken", at_most="audit")).allowed


@pytest.mark.parametrize(
    ("inconclusive", "allowed", "warns"),
    [("pass", True, False), ("warn", True, True), ("fail", False, False), (None, False, False)],
)
def test_inconclusive_counts_as_the_rule_says(
    inconclusive: str | None, allowed: bool, warns: bool
) -> None:
    found = verdict(policy(a=("enforce", inconclusive)), finding("a", "inconclusive"))
    assert found.allowed is allowed
    assert bool(found.warnings) is warns


def test_a_finding_of_a_rule_that_is_not_active_counts_for_nothing() -> None:
    assert verdict(policy(a="enforce"), finding("a"), finding("b", "unmet")).allowed


rules_strategy = st.dictionaries(
    st.sampled_from("abc"),
    st.tuples(st.sampled_from(SEVERITIES), st.sampled_from(["pass", "warn", "fail"])),
    min_size=1,
)
findings_strategy = st.lists(
    st.builds(finding, st.sampled_from("abc"), st.sampled_from(STATUSES)), max_size=6
)


@given(rules_strategy, findings_strategy, st.data())
def test_losing_or_worsening_evidence_never_turns_no_into_yes(
    rules: dict[str, Any], findings: list[Finding], data: st.DataObject
) -> None:
    """Law 2, as a property: worsen any finding, or drop any rule's whole evidence."""
    before = verdict(policy(**rules), *findings)
    if before.allowed or not findings:
        return
    i = data.draw(st.integers(0, len(findings) - 1))
    worse = STATUSES[data.draw(st.integers(STATUSES.index(findings[i].status), 3))]
    changed = [*findings[:i], replace(findings[i], status=worse), *findings[i + 1 :]]  # type: ignore[arg-type]
    if findings[i].status == "inconclusive" and worse in ("unmet", "broken"):
        assert not verdict(policy(**rules), *changed).allowed
    lost = [f for f in findings if f.rule != findings[i].rule]
    gone = verdict(policy(**rules), *lost)
    enforced = rules.get(findings[i].rule, ("off",))[0] == "enforce"
    assert not (enforced and gone.allowed)


@given(rules_strategy, findings_strategy)
def test_a_tighter_severity_never_admits_more(
    rules: dict[str, Any], findings: list[Finding]
) -> None:
    tighter = {name: ("enforce", value[1]) for name, value in rules.items()}
    if verdict(policy(**tighter), *findings).allowed:
        assert verdict(policy(**rules), *findings).allowed


def test_enforce_raises_the_error_of_its_gate_and_carries_the_decision() -> None:
    refused = verdict(policy(a="enforce"), finding("a", "unmet", next_step="do this"))
    with pytest.raises(safegen.ReleaseRefused) as caught:
        refused.enforce()
    assert caught.value.decision is refused
    admission = replace(refused, gate="admission")
    with pytest.raises(safegen.AdmissionRefused):
        admission.enforce()
    allowed = verdict(policy(a="enforce"), finding("a"))
    assert allowed.enforce() is allowed


def test_a_refusal_says_rule_observed_required_next_step_and_whom_to_ask() -> None:
    text = verdict(policy(a="enforce"), finding("a", "unmet", next_step="do this")).to_text()
    for part in ("REFUSED", "a/c", "seen", "wanted", "do this", "ask me", "3 datasets"):
        assert part in text


def test_an_empty_ledger_is_called_underpowered() -> None:
    found = decide(
        policy(a="enforce"), "release", [finding("a")], ledger={"url": "x", "datasets": 0}
    )
    assert "underpowered" in found.to_text()
    assert "clean" not in found.to_text()


def test_the_notebook_face_is_escaped() -> None:
    found = verdict(policy(a="enforce"), finding("a", "unmet", next_step="<script>"))
    assert "<script>" not in found._repr_html_()


def test_a_decision_is_plain_json() -> None:
    found = verdict(policy(a="enforce"), finding("a", "unmet", interval=(0.0, 1.0), n=3))
    document = json.loads(json.dumps(found.to_json()))
    assert document["findings"]["a/c"]["outcome"] == "block"
    assert document["findings"]["a/c"]["interval"] == [0.0, 1.0]


def test_a_refusal_in_a_notebook_shows_the_decision_not_a_stack() -> None:
    error = safegen.AdmissionRefused(verdict(policy(a="enforce"), finding("a", "unmet")))
    assert error._render_traceback_()[0].startswith("REFUSED")


@pytest.mark.parametrize("name", ["baseline", "strict", "training", "anchored"])
def test_shipped_policies_refuse_when_every_safeguard_is_silent(name: str) -> None:
    loaded = safegen.Policy.load(name)
    for gate in ("admission", "release"):
        assert not decide(loaded, gate, [], ledger=LEDGER).allowed  # type: ignore[arg-type]


def test_the_lab_policy_watches_and_blocks_nothing_but_a_missing_manifest() -> None:
    lab = safegen.Policy.load("lab")
    bad = [finding(r, "met" if r == "manifest" else "unmet") for r in lab.at("admission")]
    assert decide(lab, "admission", bad, ledger=LEDGER).allowed
