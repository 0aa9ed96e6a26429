"""What a change of a policy tightens and loosens: a gate for repositories of policies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from safegen.cli import app
from safegen.policy import RULES, SECTIONS, Policy, diff

FLIP = {"TIGHTEN": "LOOSEN", "LOOSEN": "TIGHTEN", "INCOMPARABLE": "INCOMPARABLE"}
ONE, TWO = (f"MCowBQYDK2VwAyEA{c * 43}=" for c in "AI")
WAIVER = """
waivers:
  - {id: W-1, rule: support, params: {min_expected: 20.0}, reason: r, ticket: t,
     requested_by: a, approved_by: [b], expires: 2099-01-01}
"""

WAIVED_DIFFERENTLY = (
    ("min_expected: 20.0", "min_expected: 30.0", "LOOSEN"),
    ("min_expected: 20.0", "min_expected: 15.0", "INCOMPARABLE"),
    ("min_expected: 20.0", "min_expected: 20.0, min_real_rows: 60", "LOOSEN"),
    (
        "rule: support, params: {min_expected: 20.0}",
        "rule: lineage, params: {max_depth: 2.0}",
        "LOOSEN",
    ),
    ("reason: r", "reason: another", "INCOMPARABLE"),
)


def policy(folder: Path, name: str, rules: str = "", more: str = "") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(
        "schema: safegen.policy/v1\nid: p\nversion: '1'\ndescription: d\ncontact: us\nrules:\n"
        "  lineage: {severity: enforce, max_depth: 1.0}\n  manifest: {severity: enforce}\n"
        f"  support: {{severity: warn}}\n{rules}{more}"
    )
    return path


def changes(old: Path, new: Path) -> dict[str, str]:
    return {d.where: d.change for d in diff(Policy.load(old), Policy.load(new))}


def ran(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["policy", "diff", *map(str, arguments)], standalone_mode=False)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("max_depth: 1.0", "max_depth: 0.5", {"lineage.max_depth": "TIGHTEN"}),
        ("max_depth: 1.0", "max_depth: 2.0", {"lineage.max_depth": "LOOSEN"}),
        ("support: {severity: warn}", "support: {severity: enforce}",
         {"support.severity": "TIGHTEN"}),
        # Of a rule that is switched off nothing else matters.
        ("support: {severity: warn}", "support: {severity: off, min_expected: 5.0}",
         {"support.severity": "LOOSEN"}),
        ("support: {severity: warn}", "support: {severity: warn, tail: 0.02}",
         {"support.tail": "INCOMPARABLE"}),
        ("contact: us", "contact: them", {}),
        ("contact: us", "contact: us\nreport: {real_values: true}",
         {"report.real_values": "LOOSEN"}),
        ("manifest: {severity: enforce}",
         f"manifest: {{severity: enforce, trusted_keys: ['{ONE}']}}",
         {"manifest.trusted_keys": "INCOMPARABLE"}),
    ],
)  # fmt: skip
def test_each_value_says_what_it_does(
    tmp_path: Path, old: str, new: str, expected: dict[str, str]
) -> None:
    before = policy(tmp_path, "before")
    after = tmp_path / "after.yaml"
    after.write_text(before.read_text().replace(old, new))
    assert changes(before, after) == expected
    assert changes(after, before) == {k: FLIP[v] for k, v in expected.items()}
    assert changes(after, after) == {}


def test_a_further_trusted_key_loosens(tmp_path: Path) -> None:
    text = policy(tmp_path, "none").read_text()

    def trusting(name: str, *keys: str) -> Path:
        path = tmp_path / f"{name}.yaml"
        listed = ", ".join(f"'{k}'" for k in keys)
        path.write_text(text.replace("manifest: {", f"manifest: {{trusted_keys: [{listed}], "))
        return path

    one, two, both = trusting("one", ONE), trusting("two", TWO), trusting("both", TWO, ONE)
    assert changes(one, both) == {"manifest.trusted_keys": "LOOSEN"}
    assert changes(both, one) == {"manifest.trusted_keys": "TIGHTEN"}
    assert changes(one, two) == {"manifest.trusted_keys": "INCOMPARABLE"}
    assert changes(both, trusting("turned", ONE, TWO)) == {}


def test_a_waiver_that_is_new_loosens(tmp_path: Path) -> None:
    without, with_ = policy(tmp_path, "without"), policy(tmp_path, "with", more=WAIVER)
    longer = tmp_path / "longer.yaml"
    longer.write_text(with_.read_text().replace("2099", "2100"))
    assert changes(without, with_) == {"waivers.W-1": "LOOSEN"}
    assert changes(with_, without) == {"waivers.W-1": "TIGHTEN"}
    assert changes(with_, longer) == {"waivers.W-1": "LOOSEN"}
    assert changes(longer, with_) == {"waivers.W-1": "INCOMPARABLE"}
    text = with_.read_text()
    for old, new, change in WAIVED_DIFFERENTLY:
        longer.write_text(text.replace(old, new))
        assert longer.read_text() != text, old
        assert changes(with_, longer) == {"waivers.W-1": change}, new


def test_the_command_is_a_gate(tmp_path: Path) -> None:
    before = policy(tmp_path, "before")
    after = tmp_path / "after.yaml"
    after.write_text(before.read_text().replace("max_depth: 1.0", "max_depth: 2.0"))
    loosened = ran(before, after)
    assert loosened.return_value == 3
    said = " ".join(loosened.stdout.split())  # wrapped where a path is long
    assert said == f"LOOSEN lineage.max_depth: 1.0 → 2.0 ({after}:7) 1 loosened"
    assert ran(after, before).return_value == 0
    assert ran(before, before).stdout == "SAME: both ask the same\n"
    (told,) = json.loads(ran(before, after, "--json").stdout)
    assert told == {
        "change": "LOOSEN", "where": "lineage.max_depth", "before": 1.0, "after": 2.0,
        "origin": f"{after}:7",
    }  # fmt: skip


SHIPPED = st.sampled_from(Policy.shipped()).map(Policy.load)


@given(SHIPPED, SHIPPED)
def test_going_back_does_the_opposite(old: Policy, new: Policy) -> None:
    there, back = diff(old, new), diff(new, old)
    assert {d.where: FLIP[d.change] for d in there} == {d.where: d.change for d in back}
    assert [(d.before, d.after) for d in there] == [(d.after, d.before) for d in back]
    if old.effective()["rules"] == new.effective()["rules"]:
        assert there == []  # names and texts are no difference
    assert {d.where.partition(".")[0] for d in there} <= {*RULES, *SECTIONS, "waivers"}
