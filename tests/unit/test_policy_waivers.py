"""Waivers: recorded, checked, and never applied."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from safegen.errors import PolicyError, UsageError
from safegen.policy import Note, Policy, SupportParams, Waiver, lint

HEAD = """\
schema: safegen.policy/v1
id: acme/credit
version: "1.0"
description: A policy for tests.
contact: governance@acme.example
rules:
  lineage: {severity: enforce}
  manifest: {severity: enforce}
  support: {severity: enforce}
waivers:
"""
WAIVER = """\
  - id: W-1
    rule: support
    params: {min_real_rows: 60}
    reason: few rows
    ticket: GOV-1
    requested_by: a.lee
    approved_by: [j.doe]
    expires: 2026-12-31
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "team.yaml"


def refused(path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(PolicyError) as caught:
        Policy.load(path)
    (problem,) = caught.value.problems
    return f"{problem.line}: {problem.message}"


def test_a_waiver_lowers_nothing(path):
    path.write_text(HEAD + WAIVER)
    policy = Policy.load(path)
    assert policy.rule("support") == SupportParams(severity="enforce")
    assert policy.at("release")["support"].min_real_rows == 30
    assert policy.waivers[0].expires == date(2026, 12, 31)
    (before,) = lint(path, now=date(2026, 12, 31))
    (after,) = lint(path, now=date(2027, 1, 1))
    assert isinstance(before, Note)
    assert (before.file, before.line) == (str(path), 11)
    assert "'W-1'" in before.message
    assert "not applied" in before.message
    assert "expired" in after.message


def test_a_waiver_is_part_of_the_digest(path):
    digests = set()
    for text in (HEAD + WAIVER, HEAD + WAIVER.replace("60", "61"), HEAD.replace("waivers:\n", "")):
        path.write_text(text)
        digests.add(Policy.load(path).digest)
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[j.doe]", "[j.doe, ' A.Lee ']", "the requester may not be among approved_by"),
        ("[j.doe]", "[]", "17: waivers[0].approved_by"),
        ("[j.doe]", "j.doe", "17: waivers[0].approved_by"),
        ("[j.doe]", "[j.doe, J.Doe]", "names somebody twice"),
        ("[j.doe]", "[j.doe, '']", "17: waivers[0].approved_by[1]: may not be empty"),
        ("2026-12-31", "2026-02-30", "18: waivers[0].expires"),
        ("2026-12-31", "20261231", "18: waivers[0].expires"),
        ("2026-12-31", "soon", "18: waivers[0].expires"),
        ("rule: support", "rule: suport", "12: waiver 'W-1': unknown rule 'suport', did you mean"),
        ("min_real_rows: 60", "min_real_row: 60", "did you mean 'min_real_rows'?"),
        ("min_real_rows: 60", "min_real_rows: 0", "13: waiver 'W-1': support.min_real_rows"),
        ("min_real_rows: 60", "min_real_rows: x", "13: waiver 'W-1': support.min_real_rows"),
        ("min_real_rows: 60", "severity: off", "13: waiver 'W-1': a waiver lowers a parameter"),
        ("{min_real_rows: 60}", "{}", "13: waivers[0].params"),
        ("    ticket: GOV-1\n", "", "11: waivers[0].ticket: is missing"),
        ("ticket: GOV-1", "ticket: GOV-1\n    signed: 'yes'", "16: waivers[0].signed"),
    ],
)
def test_a_waiver_that_nobody_could_stand_by_is_refused(path, old, new, expected):
    assert expected in refused(path, HEAD + WAIVER.replace(old, new))


def test_one_waiver_id_twice_is_refused(path):
    assert refused(path, HEAD + WAIVER + WAIVER) == "19: waiver id 'W-1' is used twice"


def test_a_waiver_for_a_misspelt_rule_after_a_bad_one_keeps_its_own_line(path):
    bad_rule = HEAD.replace("manifest: {severity: enforce}", "manifest: {severity: x}")
    path.write_text(
        bad_rule
        + WAIVER.replace("rule: support", "rule: manifest")
        + WAIVER.replace("W-1", "W-2").replace("rule: support", "rule: suport")
    )
    with pytest.raises(PolicyError) as caught:
        Policy.load(path)
    assert [problem.line for problem in caught.value.problems] == [8, 20]


def test_status_follows_the_utc_day_and_never_says_applied():
    waiver = Waiver(
        id="W",
        rule="support",
        params={"tail": 0.02},
        reason="r",
        ticket="t",
        requested_by="a",
        approved_by=("b",),
        expires=date(2026, 12, 31),
    )
    assert waiver.status(date(2026, 12, 31)) == "not applied"
    assert waiver.status(date(2027, 1, 1)) == "expired"
    # In UTC+5 the new year has begun; in UTC it has not.
    east = datetime(2027, 1, 1, 1, tzinfo=timezone(timedelta(hours=5)))
    assert waiver.status(east) == "not applied"
    assert waiver.status(datetime(2027, 1, 1, tzinfo=UTC)) == "expired"
    with pytest.raises(UsageError, match="time zone"):
        waiver.status(datetime(2026, 1, 1))
