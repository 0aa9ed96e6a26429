"""Waivers: who has to approve them, for what they hold, and how they stand."""

from __future__ import annotations

import base64
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from safegen.errors import PolicyError, UsageError
from safegen.manifest.sign import SigningKey, new_key
from safegen.policy import (
    Approval,
    Approvals,
    Approver,
    Note,
    Policy,
    Waiver,
    approved,
    lint,
)

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


def test_lint_says_how_each_waiver_stands(path):
    path.write_text(HEAD + WAIVER)
    assert Policy.load(path).waivers[0].expires == date(2026, 12, 31)
    (before,) = lint(path, now=date(2026, 12, 31))
    (after,) = lint(path, now=date(2027, 1, 1))
    assert isinstance(before, Note)
    assert (before.file, before.line) == (str(path), 11)
    assert before.message == (
        "note: waiver 'W-1' on 'support' counts until 2026-12-31 (self-asserted)"
    )
    assert "has expired (2026-12-31) and does nothing" in after.message
    path.write_text(HEAD.replace("rules:", "approvals: {signature: required}\nrules:") + WAIVER)
    (unsigned,) = lint(path, now=date(2026, 12, 31))
    assert "does not count: self-asserted: 0 of 1 approvals signed" in unsigned.message
    path.write_text(HEAD.replace("rules:", "locked: [support.min_real_rows]\nrules:") + WAIVER)
    (locked,) = lint(path, now=date(2026, 12, 31))
    assert "does not count: what it lowers is locked: that takes two approvers" in locked.message
    path.write_text(HEAD.replace("rules:", "locked: [support.tail]\nrules:") + WAIVER)
    (other,) = lint(path, now=date(2026, 12, 31))
    assert "counts until" in other.message


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
        ("ticket: GOV-1", "ticket: GOV-1\n    signed: true", "unknown key 'signed', did you mean"),
        (
            "min_real_rows: 60",
            "min_real_rows: 30",
            "13: waiver 'W-1': support.min_real_rows: the po",
        ),
        ("min_real_rows: 60", "min_real_rows: 20", "has 30, and a waiver lowers to less"),
        ("ticket: GOV-1", "ticket: GOV-1\n    signatures: {me: x}", "16: waivers[0].signatures"),
        (
            "ticket: GOV-1",
            f"ticket: GOV-1\n    signatures: {{me: '{'A' * 86}=='}}",
            "signatures has 'me', who is not in approved_by",
        ),
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


def waiver(**more: Any) -> Waiver:
    fields: dict[str, Any] = {
        "id": "W",
        "rule": "support",
        "params": {"tail": 0.02},
        "reason": "r",
        "ticket": "t",
        "requested_by": "a",
        "approved_by": ("b", "c"),
        "expires": date(2026, 12, 31),
    }
    return Waiver(**(fields | more))


def test_a_waiver_ends_with_the_utc_day():
    assert not waiver().expired(date(2026, 12, 31))
    assert waiver().expired(date(2027, 1, 1))
    # In UTC+5 the new year has begun; in UTC it has not.
    east = datetime(2027, 1, 1, 1, tzinfo=timezone(timedelta(hours=5)))
    assert not waiver().expired(east)
    assert waiver().expired(datetime(2027, 1, 1, tzinfo=UTC))
    with pytest.raises(UsageError, match="time zone"):
        waiver().expired(datetime(2026, 1, 1))


@pytest.mark.parametrize(
    ("scope", "sources", "covered"),
    [
        (None, [], True),
        (None, [["x"]], True),
        ("01J8*", [["01J8ABC", "data/a.csv"]], True),
        ("*/a.csv", [["01J8ABC", "data/a.csv"]], True),
        ("01J8*", [["01J9ABC", "data/a.csv"]], False),
        # A source that rides along is not within it.
        ("01J8*", [["01J8ABC"], ["01J9ABC"]], False),
        (("01J8*", "01J9*"), [["01J8ABC"], ["01J9ABC"]], True),
        ("01J8*", [], False),
        ("01J8*", [[]], False),
    ],
)
def test_a_waiver_holds_for_what_is_in_its_scope(scope, sources, covered):
    assert waiver(scope=scope).covers(sources) is covered


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> dict[str, SigningKey]:
    folder = tmp_path_factory.mktemp("keys")
    for name in "bcd":
        new_key(folder / name)
    return {name: SigningKey(folder / name) for name in "bcd"}


def signed(keys, *names: str, of: Waiver | None = None, **more: Any) -> Waiver:
    plain = waiver(**more)
    by = {n: base64.b64encode(keys[n].sign((of or plain).signed_bytes)).decode() for n in names}
    return waiver(**more, signatures=by)


def approvals(keys, *names: str, signature: str = "required") -> Approvals:
    who = tuple(Approver(name=n, key=keys[n].public.text) for n in names)
    return Approvals(signature=signature, approvers=who)  # type: ignore[arg-type]


def test_an_approval_counts_with_the_approvers_own_signature(keys):
    both = approvals(keys, "b", "c")
    one, two = signed(keys, "b"), signed(keys, "b", "c")
    assert approved(one, both, locked=False) == Approval(("b",), 1, None)
    assert approved(two, both, locked=True) == Approval(("b", "c"), 2, None)
    assert approved(two, both, locked=True).said == "signed"
    for refused in (
        approved(one, both, locked=True),  # one of two
        approved(waiver(), both, locked=False),  # nobody
        approved(one, approvals(keys, "c"), locked=False),  # of somebody who is no approver
        approved(signed(keys, "b", of=waiver(id="W-2")), both, locked=False),  # of another waiver
        approved(signed(keys, "b", of=waiver(expires=date(2030, 1, 1))), both, locked=False),
    ):
        assert refused.problem is not None
        assert refused.said == "self-asserted"
    # d's key under b's name.
    stolen = waiver(
        signatures={"b": base64.b64encode(keys["d"].sign(waiver().signed_bytes)).decode()}
    )
    assert "is not of this waiver" in str(approved(stolen, both, locked=False).problem)


def test_names_in_a_file_count_where_a_policy_does_without_signatures(keys):
    without = approvals(keys, "b", signature="optional")
    assert approved(waiver(), without, locked=False) == Approval((), 1, None)
    assert approved(waiver(), without, locked=False).said == "self-asserted"
    assert approved(waiver(approved_by=("b",)), without, locked=True).problem is not None
    # Signed wrongly is worse than not signed.
    wrong = signed(keys, "b", of=waiver(id="W-2"))
    assert approved(wrong, without, locked=False).problem is not None


def test_one_person_with_two_names_is_not_two_approvers(keys):
    one = keys["b"].public.text
    with pytest.raises(ValueError, match="a person or a key twice"):
        Approvals(approvers=(Approver(name="b", key=one), Approver(name="c", key=one)))
