"""One person who approves as if they were two, or what they asked for themselves."""

from __future__ import annotations

import base64
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from safegen.manifest import SigningKey, new_key
from safegen.policy import Approvals, Approver, Waiver, approved


def waiver(**more: Any) -> Waiver:
    fields: dict[str, Any] = {
        "id": "W",
        "rule": "support",
        "params": {"min_expected": 20.0},
        "reason": "r",
        "ticket": "t",
        "requested_by": "a.lee",
        "approved_by": ("j.doe", "m.khan"),
        "expires": date(2099, 1, 1),
    }
    return Waiver(**(fields | more))


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, SigningKey]:
    for name in ("j.doe", "m.khan"):
        new_key(tmp_path / name)
    return {name: SigningKey(tmp_path / name) for name in ("j.doe", "m.khan")}


def signature(key: SigningKey, of: Waiver) -> str:
    return base64.b64encode(key.sign(of.signed_bytes)).decode()


def test_one_signature_under_two_spellings_of_a_name_is_one(keys):
    who = tuple(Approver(name=n, key=k.public.text) for n, k in keys.items())
    approvals = Approvals(signature="required", approvers=who)
    one = signature(keys["j.doe"], waiver())
    with pytest.raises(ValidationError, match="signatures names somebody twice"):
        waiver(signatures={"j.doe": one, "J.Doe": one})
    # Neither does it count where nobody has looked at the waiver as a whole.
    twice = waiver().model_copy(update={"signatures": {"j.doe": one, "J.Doe": one}})
    assert "1 of 2 approvals signed" in str(approved(twice, approvals, locked=True).problem)
    # The honest twin: two people.
    both = waiver(signatures={n: signature(k, waiver()) for n, k in keys.items()})
    assert approved(both, approvals, locked=True).problem is None


@pytest.mark.parametrize(
    ("asks", "approves"),
    [
        ("a.lee", "A.Lee"),
        ("José", "Jose\N{COMBINING ACUTE ACCENT}"),
        ("a.lee", "a.\N{ZERO WIDTH SPACE}lee"),
        ("a.lee", "\N{FULLWIDTH LATIN SMALL LETTER A}.lee"),
        ("a.lee", "a.lee\N{RIGHT-TO-LEFT MARK}"),
    ],
)
def test_nobody_approves_under_another_spelling_what_they_asked_for(asks, approves):
    with pytest.raises(ValidationError, match="the requester may not be among"):
        waiver(requested_by=asks, approved_by=(approves, "m.khan"))
    with pytest.raises(ValidationError, match="names somebody twice"):
        waiver(approved_by=(asks, approves), requested_by="somebody")
    assert waiver(requested_by=asks, approved_by=("m.khan", "j.doe"))
