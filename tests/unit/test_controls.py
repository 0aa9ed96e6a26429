"""Which clauses rules serve, and the last evidence for each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from safegen.cli import main
from safegen.errors import UsageError
from safegen.ledger import open_ledger
from safegen.policy import RULES, Policy, controls_of, controls_table
from safegen.policy.controls import WHOLES
from safegen.policy.matrix import Trail, matrix


@dataclass
class Told:
    """A log entry."""

    seq: int
    payload: dict[str, Any] = field(default_factory=dict)
    time: str = "2026-12-01T00:00:00Z"


def decision(
    policy: str = "p", gate: str = "release", allowed: bool = True, **outcomes: str
) -> Any:
    """A decision as the log has it; `rule="pass"`, or `rule__check="block"`."""
    findings = {
        name.replace("__", "/") if "__" in name else f"{name}/check": {
            "outcome": outcome,
            "severity": "enforce",
            "status": "met",
        }
        for name, outcome in outcomes.items()
    }
    return {
        "allowed": allowed,
        "gate": gate,
        "policy": {"id": policy, "version": "1", "digest": f"sha256:{policy}"},
        "findings": findings,
        "subject": ["rows"],
        "waivers": [],
    }


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    code = end.value.code
    assert isinstance(code, int)
    said = capsys.readouterr()
    return code, said.out + said.err


# ---- the table -----------------------------------------------------------------------------------


def test_every_rule_serves_something_and_nothing_else_does() -> None:
    table = controls_table()
    assert {c.rule for c in table.controls} == {*RULES, *WHOLES}
    assert {c.framework for c in table.controls} == set(table.frameworks)
    for rule in (*RULES, *WHOLES):
        assert controls_of(rule)
    assert controls_of("somebody_elses_rule") == []


def test_no_clause_is_said_twice_or_in_two_ways() -> None:
    table = controls_table()
    pairs = [(c.name, c.rule) for c in table.controls]
    assert len(set(pairs)) == len(pairs)
    asked = {(c.name, c.asks, c.check) for c in table.controls}
    assert len(asked) == len({c.name for c in table.controls})
    assert all(c.asks.endswith(".") and c.gives.endswith(".") for c in table.controls)


def test_what_nobody_has_read_is_marked() -> None:
    doubted = {c.name for c in controls_table().controls if c.check}
    for name in ("iso-5259 part 2", "iso-42001 A.6.2.8"):
        assert name in doubted
    assert any("Code of Practice" in name for name in doubted)
    assert "nist-ai-600-1 MS-2.11-005" not in doubted
    assert next(c for c in controls_table().controls if c.check).label.endswith("(unverified)")


def test_the_clause_about_model_collapse_is_answered_by_lineage_and_anchor() -> None:
    direct = {
        c.rule
        for c in controls_table().controls
        if c.clause == "MS-2.11-005" and c.sure == "direct"
    }
    assert direct == {"lineage", "anchor"}


def test_an_unknown_framework_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'eu-ai-act'"):
        controls_table().of("eu-ai-akt")


# ---- the matrix ----------------------------------------------------------------------------------


def trail(*payloads: Any, policies: Any = None) -> Trail:
    found = Trail(policies or {})
    for seq, payload in enumerate(payloads, 1):
        found.told(Told(seq, payload))
    return found


def test_the_newest_decision_counts_and_its_worst_finding() -> None:
    last = trail(
        decision("old", lineage="pass", schema="pass"),
        decision("new", lineage__a="pass", lineage__b="warn", lineage__c="pass"),
    ).last
    assert (last["lineage"].policy, last["lineage"].entry, last["lineage"].outcome) == (
        "new",
        2,
        "warn",
    )
    assert (last["schema"].policy, last["schema"].outcome) == ("old", "pass")
    assert last["decisions"].entry == 2
    assert "waivers" not in last


def test_a_waiver_is_evidence_only_where_it_was_applied() -> None:
    said = decision(lineage="waived")
    said["waivers"] = [{"id": "W-1", "status": "expired"}]
    assert "waivers" not in trail(said).last
    said["waivers"].append({"id": "W-2", "status": "applied"})
    last = trail(said).last
    assert last["waivers"].outcome == "applied"
    assert last["lineage"].outcome == "waived"


def test_a_rule_that_only_shapes_rows_is_shown_by_the_policy_of_a_release() -> None:
    on = {
        "sha256:p": {"rules": {"watermark": {"severity": "enforce"}, "tails": {"severity": "off"}}}
    }
    assert "watermark" not in trail(decision(schema="pass")).last  # nobody has the policy
    last = trail(decision(schema="pass"), policies=on).last
    assert (last["watermark"].outcome, last["watermark"].severity) == ("applied", "enforce")
    assert "tails" not in last
    for other in (decision(gate="admission"), decision(allowed=False)):
        assert "watermark" not in trail(other, policies=on).last


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"policy": 3, "findings": {}},
        {"policy": {}, "findings": []},
        {"policy": {}, "findings": {"lineage/x": 3}, "waivers": 4, "subject": 5},
        {"policy": {"digest": []}, "findings": {"lineage/x": {"outcome": [], "severity": {}}}},
    ],
)
def test_entries_of_another_form_are_no_traceback(payload: Any) -> None:
    assert "privacy" not in trail(payload).last


def test_a_clause_that_no_active_rule_serves_is_a_gap() -> None:
    controls, policy = controls_table().controls, Policy.load("baseline")
    last = trail(decision(lineage="pass", manifest="pass", schema="pass")).last
    cells = matrix(controls, last, policy)
    gaps = {c.control.name: c.gap for c in cells if c.gap}
    # `baseline` has privacy on, of which nothing was recorded.
    assert gaps["nist-ai-rmf MEASURE 2.10"] == (
        "no decision in this ledger speaks of a rule that serves it"
    )
    assert "eu-ai-act Art. 10(2)(b)" not in gaps
    off = {
        **policy.rules,
        "privacy": policy.rules["privacy"].model_copy(update={"severity": "off"}),
    }
    cells = matrix(controls, last, policy.model_copy(update={"rules": off}))
    gaps = {c.control.name: c.gap for c in cells if c.gap}
    assert gaps["nist-ai-rmf MEASURE 2.10"] == "no active rule of baseline serves it"
    anchor = next(c for c in cells if c.control.rule == "anchor")
    assert anchor.active is False
    assert all(c.active is None for c in matrix(controls, last))


# ---- the commands --------------------------------------------------------------------------------


def test_the_commands_show_table_matrix_and_gaps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(capsys, "policy", "controls", "--framework", "iso-5259")
    assert code == 0
    assert "no legal advice" in said
    assert "part 2 [unverified]" in said
    assert "Art. 10" not in said
    code, said = run(capsys, "policy", "controls", "--json")
    assert (code, json.loads(said)["version"]) == (0, controls_table().version)

    path = tmp_path / "ledger.db"
    books = open_ledger(path)
    baseline = Policy.load("baseline").digest
    told = decision(support="block", schema="pass", allowed=False)
    told["policy"]["digest"] = baseline
    books.record("decision", told)
    matrix_ = ("policy", "controls", "--matrix", "--ledger", path)
    code, said = run(capsys, *matrix_)
    assert code == 0
    assert "block at enforce under p 1 (release, REFUSED, log entry 1)" in " ".join(said.split())
    assert "GAP: no decision in this ledger speaks" in said
    code, said = run(capsys, *matrix_, "--policy", "baseline", "--json")
    document = json.loads(said)
    assert (code, document["policy"]) == (0, baseline)
    cells = {(c["framework"], c["clause"], c["rule"]): c for c in document["cells"]}
    assert cells["eu-ai-act", "Art. 10(3)", "support"]["last"]["entry"] == 1
    assert cells["eu-ai-act", "Art. 10(3)", "anchor"]["active"] is False


def test_what_was_never_made_or_makes_no_sense_is_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = run(capsys, "policy", "controls", "--framework", "gdpr")
    assert (code, "known: eu-ai-act" in said) == (2, True)
    code, said = run(capsys, "policy", "controls", "--policy", "baseline")
    assert (code, "add --matrix" in said) == (2, True)
    code, _ = run(capsys, "policy", "controls", "--matrix", "--ledger", tmp_path / "none.db")
    assert code == 1
    assert not (tmp_path / "none.db").exists()


def test_explain_says_which_clauses_a_rule_serves(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = run(capsys, "policy", "explain", "baseline", "--rule", "lineage")
    assert code == 0
    assert "serves: eu-ai-act Art. 10(2)(b);" in said
    assert "iso-5259 part 3 (unverified)" in " ".join(said.split())
    _, said = run(capsys, "policy", "explain", "baseline", "--rule", "lineage", "--json")
    assert "nist-ai-600-1 MS-2.11-005" in json.loads(said)[0]["controls"]
