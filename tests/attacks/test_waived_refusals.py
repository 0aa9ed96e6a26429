"""Exceptions to a refusal: those that count are shown, those that do not change nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from forging import cli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import safegen
from policy_nodes import node
from safegen.decision import Finding, Waived, decide, to_lower
from safegen.manifest import new_key
from safegen.policy import Policy
from safegen.policy.load import Draft
from safegen.testing import example_table

pytestmark = pytest.mark.usefixtures("own_home")

TODAY = datetime.now(UTC).date()
LEDGER = {"url": "memory", "datasets": 1, "key_epochs": ["a"]}
POLICY = """\
schema: safegen.policy/v1
id: acme/team
version: "1"
description: A policy for tests.
contact: governance@acme.example
rules:
  lineage: {severity: enforce, max_depth: 0.0, unattested: refuse}
  manifest: {severity: enforce}
  watermark: {severity: off}
"""
WAIVER = """\
waivers:
  - id: W-1
    rule: lineage
    params: {unattested: warn}
    reason: nobody answers
    ticket: GOV-1
    requested_by: a.lee
    approved_by: [j.doe, m.khan]
    expires: EXPIRES
"""


APPROVERS = f"approvals: {{approvers: [{{name: j.doe, key: MCowBQYDK2VwAyEA{'A' * 43}=}}]}}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    pq.write_table(example_table(300, seed=31), tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "own.db"


def written(folder: Path, more: str = WAIVER, head: str = POLICY, days: int = 3) -> Path:
    path = folder / "team.yaml"
    path.write_text(head + more.replace("EXPIRES", (TODAY + timedelta(days=days)).isoformat()))
    return path


def test_what_is_waived_is_admitted_and_says_so_everywhere(tmp_path, source, ledger):
    refused = safegen.check(source, policy=written(tmp_path, ""), ledger=ledger)
    assert not refused.allowed
    policy = written(tmp_path)
    generator = safegen.Generator(policy=policy, ledger=ledger).fit(source)
    decision = generator._decision
    assert decision is not None
    [reason] = decision.reasons
    assert (reason.finding.name, reason.outcome) == ("lineage/unattested", "waived")
    assert reason.finding.status == "unmet"  # it is reported as it was found
    assert reason.finding.observed == refused.findings["lineage/unattested"].observed
    text = decision.to_text()
    assert "~ lineage/unattested" in text
    assert "waived by W-1" in text
    assert f"W-1: applied; until {TODAY + timedelta(days=3)}, self-asserted" in text
    made = generator.generate(100, tmp_path / "out")
    first = made.manifest.decisions[0]
    assert first["findings"]["lineage/unattested"]["waived_by"] == ["W-1"]
    assert first["waivers"][0]["status"] == "applied"
    assert first["waivers"][0]["ticket"] == "GOV-1"
    assert made.manifest.ancestry == "unverified"  # a waiver makes nothing true
    report = (tmp_path / "out" / "report.html").read_text()
    assert "waived by" in report
    assert "W-1: applied" in report


@pytest.mark.parametrize(
    ("head", "waiver", "days", "status"),
    [
        (POLICY, WAIVER, -1, "expired"),
        (POLICY, WAIVER + "    scope: elsewhere*\n", 3, "out of scope"),
        (
            POLICY.replace("rules:", "approvals: {signature: required}\nrules:"),
            WAIVER,
            3,
            "not accepted",
        ),
        (
            POLICY.replace("rules:", "locked: [lineage]\nrules:"),
            WAIVER.replace("[j.doe, m.khan]", "[j.doe]"),
            3,
            "not accepted",
        ),
        # Names in a file, where the policy that locks the rule says who may approve.
        (
            POLICY.replace("rules:", f"locked: [lineage]\n{APPROVERS}\nrules:"),
            WAIVER,
            3,
            "not accepted",
        ),
        # Of another parameter: the question is as unmet as before.
        (POLICY, WAIVER.replace("unattested: warn", "max_depth: 1.0"), 3, "not enough"),
    ],
)
def test_a_waiver_that_does_not_count_changes_nothing(
    head, waiver, days, status, tmp_path, source, ledger
):
    decision = safegen.check(source, policy=written(tmp_path, waiver, head, days), ledger=ledger)
    assert not decision.allowed
    assert decision.waivers[0]["status"] == status
    assert f"W-1: {status}" in decision.to_text()


def test_a_source_out_of_scope_does_not_ride_along(tmp_path, source, ledger):
    other = tmp_path / "other.parquet"
    pq.write_table(example_table(300, seed=32), other)
    policy = written(tmp_path, WAIVER + "    scope: '*/rows.parquet'\n")
    assert safegen.check(source, policy=policy, ledger=ledger).allowed
    assert not safegen.check(other, policy=policy, ledger=ledger).allowed
    assert not safegen.check(source, other, policy=policy, ledger=ledger).allowed


def test_a_waiver_of_depth_lowers_to_what_it_states_and_no_further(tmp_path, source, ledger):
    policy = written(tmp_path, WAIVER.replace("unattested: warn", "max_depth: 1.0"))
    safegen.attest(source, by="a test", ledger=ledger)
    first = safegen.Generator(policy=policy, ledger=ledger).fit(source)
    one = first.generate(200, tmp_path / "one")
    second = safegen.Generator(policy=policy, ledger=ledger).fit(one)
    two = second.generate(200, tmp_path / "two")
    assert two.manifest.depth == 2
    refused = safegen.check(two, policy=policy, ledger=ledger)
    assert not refused.allowed
    assert refused.waivers[0]["status"] == "not enough"
    assert safegen.check(source, policy=policy, ledger=ledger).waivers[0]["status"] == "not needed"


def test_a_share_is_waived_to_all_of_the_rows(tmp_path, source, ledger):
    asked = POLICY.replace("max_depth: 0.0", "max_depth: 1.0, max_synthetic_share: 0.1")
    safegen.attest(source, by="a test", ledger=ledger)
    made = safegen.Generator(ledger=ledger).fit(source).generate(100, tmp_path / "made")
    for share, allowed in (("1.0", True), ("0.9", False)):
        waiver = WAIVER.replace("unattested: warn", f"max_synthetic_share: {share}")
        policy = written(tmp_path, waiver, asked)
        assert safegen.check(made, policy=policy, ledger=ledger).allowed is allowed


def test_signed_approvals_count_where_they_are_asked_for(tmp_path, source, ledger):
    keys = {name: new_key(tmp_path / name) for name in ("j.doe", "m.khan")}
    named = ", ".join(f"{{name: {n}, key: {k.text}}}" for n, k in keys.items())
    approvals = f"approvals: {{signature: required, approvers: [{named}]}}\nlocked: [lineage]\n"
    head = POLICY.replace("rules:", f"{approvals}rules:")
    policy = written(tmp_path, head=head)
    assert not safegen.check(source, policy=policy, ledger=ledger).allowed

    def signature(name: str) -> str:
        ran = cli("policy", "approve", policy, "W-1", "--as", name, "--key", tmp_path / name)
        assert ran.code == 0, ran.err
        return str(ran.out.strip().removeprefix("signatures: {").removesuffix("}"))

    one, other = signature("j.doe"), signature("m.khan")
    half = written(tmp_path, f"{WAIVER}    signatures: {{{one}}}\n", head)
    refused = safegen.check(source, policy=half, ledger=ledger)
    assert not refused.allowed
    assert "1 of 2 approvals signed" in refused.waivers[0]["problem"]
    both = written(tmp_path, f"{WAIVER}    signatures: {{{one}, {other}}}\n", head)
    allowed = safegen.check(source, policy=both, ledger=ledger)
    assert allowed.allowed
    assert allowed.waivers[0]["signed"] == "signed"
    assert allowed.waivers[0]["signed_by"] == ["j.doe", "m.khan"]
    listed = cli("policy", "waivers", both, "--expiring", "30d")
    assert "counts (signed)" in listed.out
    assert cli("policy", "waivers", both, "--expiring", "1d").out.strip() == "0 waivers"
    # What was signed is this waiver, and no longer one.
    longer = written(tmp_path, f"{WAIVER}    signatures: {{{one}, {other}}}\n", head, days=300)
    assert not safegen.check(source, policy=longer, ledger=ledger).allowed
    told = json.loads(cli("policy", "waivers", longer, "--json").out)
    assert told[0]["status"] == "not accepted"
    stranger = new_key(tmp_path / "x")
    assert stranger
    for arguments in (("W-1", "j.doe", "x"), ("W-2", "j.doe", "j.doe"), ("W-1", "a.lee", "j.doe")):
        waiver, name, file = arguments
        ran = cli("policy", "approve", both, waiver, "--as", name, "--key", tmp_path / file)
        assert ran.code == 2


# ---- the decision itself -------------------------------------------------------------------------


def with_waivers(*params: Mapping[str, Any]) -> Policy:
    about = {
        "expires": "2099-01-01",
        "reason": "r",
        "ticket": "t",
        "requested_by": "a",
        "approved_by": ["b", "c"],
    }
    draft = Draft(
        node(
            {
                "schema": "safegen.policy/v1",
                "id": "p",
                "version": "1",
                "description": "d",
                "contact": "c",
                "rules": {
                    "lineage": {"severity": "enforce", "max_depth": 0.5},
                    "manifest": {"severity": "enforce"},
                    "support": {"severity": "enforce", "inconclusive": "fail"},
                },
                "waivers": [
                    {
                        "id": f"W{n}",
                        "rule": "support",
                        "params": p,
                        "expires": "2099-01-01",
                        **about,
                    }
                    for n, p in enumerate(params)
                ],
            }
        ),
        "p.yaml",
        [],
    )
    policy = draft.policy()
    assert policy is not None, draft.problems
    return policy


LOWERED = with_waivers({"min_expected": 20.0}, {"min_expected": 15.0, "inconclusive": "warn"})
WORSE = ["met", "inconclusive", "unmet", "broken"]
STATUS = st.sampled_from(WORSE)
FOUND = st.dictionaries(st.sampled_from(["levels", "tails", "constant"]), STATUS, max_size=3)


def verdict(found: Mapping[str, str], again: Mapping[str, str]) -> bool:
    def findings(of: Mapping[str, str]) -> list[Finding]:
        return [Finding("support", c, s, "seen", "wanted") for c, s in of.items()]  # type: ignore[arg-type]

    time = "2026-01-01T00:00:00Z"
    others = [Finding("manifest", "in-band", "met", "seen", "wanted")]
    every = [*others, *findings(found)]
    first = decide(LOWERED, "release", every, ledger=LEDGER, time=time, sources=[["x"]])
    lower = to_lower(LOWERED, first, [["x"]])
    assert set(lower) <= {"support"}
    waived = {r: Waived(p, ids, findings(again)) for r, (p, ids) in lower.items()}
    last = decide(
        LOWERED, "release", every, ledger=LEDGER, time=time, sources=[["x"]], waived=waived
    )
    assert last.allowed or not first.allowed
    return last.allowed


@settings(suppress_health_check=[HealthCheck.too_slow])  # of the machine, when it is busy
@given(FOUND, FOUND, st.data())
def test_losing_or_worsening_a_finding_never_turns_a_refusal_into_an_admission(found, again, data):
    before = verdict(found, again)
    worse = [dict(found), dict(again)]
    for one in worse:
        for check in data.draw(st.sets(st.sampled_from(sorted(one)))) if one else ():
            if data.draw(st.booleans()):
                one[check] = WORSE[min(WORSE.index(one[check]) + 1, 3)]
    after = verdict(worse[0], worse[1])
    assert before or not after
    # What was not found with the lower values is not waived by them.
    if found and again:
        lost = dict(again)
        del lost[data.draw(st.sampled_from(sorted(lost)))]
        assert verdict(found, again) or not verdict(found, lost)


def test_of_several_waivers_the_lowest_value_counts_and_only_those_that_set_one_are_named():
    refused = decide(
        LOWERED,
        "release",
        [Finding("support", "levels", "unmet", "seen", "wanted")],
        ledger=LEDGER,
        time="2026-01-01T00:00:00Z",
        sources=[],
    )
    params, ids = to_lower(LOWERED, refused, [])["support"]
    assert (params.min_expected, params.inconclusive) == (20.0, "warn")  # type: ignore[attr-defined]
    assert ids == ("W0", "W1")
    alone = with_waivers({"min_expected": 20.0}, {"min_expected": 15.0})
    assert to_lower(alone, refused, [])["support"][1] == ("W0",)
    # A decision without a time is one in which every waiver has ended.
    timeless = decide(alone, "release", [], ledger=LEDGER)
    assert to_lower(alone, timeless, []) == {}
    assert {w["status"] for w in timeless.waivers} == {"expired"}


@pytest.mark.parametrize(("again", "allowed"), [(["unmet", "met"], False), (["met", "met"], True)])
def test_a_question_with_several_answers_is_waived_where_all_of_them_are(again, allowed):
    def answers(*of: str) -> list[Finding]:
        return [Finding("support", "levels", s, "seen", "wanted") for s in of]  # type: ignore[arg-type]

    others = [Finding("manifest", "in-band", "met", "seen", "wanted")]
    asked = {"ledger": LEDGER, "time": "2026-01-01T00:00:00Z", "sources": [["x"]]}
    every = [*others, *answers("unmet", "unmet")]
    lower = to_lower(LOWERED, decide(LOWERED, "release", every, **asked), [["x"]])
    waived = {r: Waived(p, ids, answers(*again)) for r, (p, ids) in lower.items()}
    assert decide(LOWERED, "release", every, waived=waived, **asked).allowed is allowed


def test_a_signature_is_waived_where_data_is_released(tmp_path, source, ledger):
    head = POLICY.replace("manifest: {severity", "manifest: {signature: required, severity")
    asked = WAIVER.replace("rule: lineage", "rule: manifest")
    safegen.attest(source, by="a test", ledger=ledger)
    for params, allowed in (("signature: optional", True), ("in_band: optional", False)):
        policy = written(tmp_path, asked.replace("unattested: warn", params), head)
        generator = safegen.Generator(policy=policy, ledger=ledger).fit(source)
        if not allowed:
            with pytest.raises(safegen.ReleaseRefused, match="manifest/signature"):
                generator.generate(100, tmp_path / "refused")
            continue
        made = generator.generate(100, tmp_path / "made").manifest
        assert made.decisions[-1]["findings"]["manifest/signature"]["waived_by"] == ["W-1"]


def test_a_scope_of_places_means_a_file_where_it_lies(tmp_path, source, ledger, monkeypatch):
    policy = written(tmp_path, WAIVER + "    scope: '*/rows.parquet'\n")
    monkeypatch.chdir(tmp_path)
    for named in (source, "rows.parquet", "./rows.parquet", f"../{tmp_path.name}/rows.parquet"):
        assert safegen.check(named, policy=policy, ledger=ledger).allowed, named
    assert not safegen.check(
        "rows.parquet",
        policy=written(tmp_path, WAIVER + "    scope: '*/s.parquet'\n"),
        ledger=ledger,
    ).allowed
