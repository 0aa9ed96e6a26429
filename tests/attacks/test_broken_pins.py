"""Organisation files that are no files, half filled in, or hang on what anybody says; and what
people under a floor can still do."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
from forging import cli

import safegen
from safegen import folders
from safegen.errors import PolicyError, UsageError, VerificationError
from safegen.gates import load_policy
from safegen.ledger import open_ledger
from safegen.ledger.places import ledger_place
from safegen.lineage.heads import write_head
from safegen.manifest import SigningKey, new_key
from safegen.policy import Param, Policy, RuleParams, raised
from safegen.policy.organisation import FILE
from safegen.testing import example_table

pytestmark = pytest.mark.usefixtures("own_home")

FLOOR = """\
schema: safegen.policy/v1
id: acme/floor
version: "1"
description: The least.
contact: governance@acme.example
rules:
  lineage: {severity: enforce, unattested: refuse}
  manifest: {severity: enforce}
"""
TEAM = FLOOR.replace("acme/floor", "acme/team")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "system"
    folder.mkdir()
    monkeypatch.setattr(folders, "_system_folder", lambda: folder)
    return folder


def pin(folder: Path, more: str) -> Path:
    (folder / FILE).write_text(f"schema: safegen.org/v1\n{more}")
    return folder / FILE


@pytest.mark.parametrize("line", ["floor:", "ledger: ~", "trusted_keys: null"])
def test_a_line_that_was_not_filled_in_is_not_taken_for_leave(line, system):
    pin(system, f"{line}\n")
    with pytest.raises(PolicyError, match="is empty: fill it in, or leave it out"):
        load_policy("baseline")
    pin(system, "")
    assert load_policy("baseline") == Policy.load("baseline")


@pytest.mark.parametrize("where", ["system", "variable", "floor"])
def test_nobody_waits_for_a_pipe(where, system, tmp_path, monkeypatch):
    os.mkfifo(pipe := tmp_path / "pipe.yaml")
    if where == "system":
        os.mkfifo(system / FILE)
    elif where == "variable":
        monkeypatch.setenv("SAFEGEN_ORG", str(pipe))
    else:
        pin(system, f"floor: {{policy: {pipe}, digest: 'sha256:{'0' * 64}'}}\n")
    with pytest.raises(PolicyError, match="is no file"):
        load_policy("baseline")


def test_a_parent_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "base.yaml")
    extends = f"extends: {{policy: base.yaml, digest: 'sha256:{'0' * 64}'}}\n"
    (tmp_path / "team.yaml").write_text(TEAM + extends)
    with pytest.raises(PolicyError, match=r"extends: base\.yaml is no file"):
        Policy.load(tmp_path / "team.yaml")


def test_a_name_that_the_system_cannot_look_at_is_no_fault(monkeypatch, tmp_path):
    monkeypatch.setenv("SAFEGEN_ORG", str(tmp_path / ("a" * 300)))
    ran = cli("policy", "explain", "baseline")
    assert (ran.code, "cannot be read" in ran.err) == (2, True)


def test_home_does_not_move_the_ledger_that_is_pinned(system, tmp_path, monkeypatch):
    account, other = tmp_path / "account", tmp_path / "other"
    monkeypatch.setattr(folders, "_home_of_account", lambda: account)
    pin(system, "ledger: ~/ours.db\n")
    monkeypatch.setenv("HOME", str(other))
    assert ledger_place(None) == account / "ours.db"
    with pytest.raises(UsageError, match="the ledger is pinned"):
        ledger_place(other / "ours.db")
    assert ledger_place(account / "ours.db") == account / "ours.db"


@pytest.mark.parametrize("address", ["postgresql://me:secret@host/db", '":memory:"', '"a\\0b"'])
def test_a_ledger_that_cannot_be_is_not_one_that_is_out_of_reach(address, system, tmp_path):
    path = pin(system, f"ledger: {address}\n")
    with pytest.raises(PolicyError) as caught:
        safegen.check(example_table(50, seed=1), policy="lab")
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value)
    pin(system, f"ledger: {tmp_path / 'own.db'}\n")
    assert safegen.check(example_table(50, seed=1), policy="lab").allowed


def test_other_keys_than_those_that_are_pinned_are_said_at_once(system, tmp_path):
    keys = {name: new_key(tmp_path / name) for name in ("ours", "theirs")}
    ledger = open_ledger(tmp_path / "own.db")
    for name in keys:
        write_head(tmp_path / f"{name}.head", ledger, SigningKey(tmp_path / name))
    pin(system, f"trusted_keys: [{keys['ours'].text}]\n")

    def verified(name: str) -> int:
        public = ("--trusted-key", tmp_path / f"{name}.pub")
        head = ("--head", tmp_path / f"{name}.head")
        return cli("ledger", "verify", "--ledger", tmp_path / "own.db", *head, *public).code

    assert (verified("ours"), verified("theirs")) == (0, 2)
    # Whoever signs with another key would find out when the release does not verify.
    with pytest.raises(UsageError, match="is none of them"):
        safegen.Generator(key=tmp_path / "theirs")
    assert safegen.Generator(key=tmp_path / "ours")


def test_a_key_that_is_pinned_is_known_where_no_ledger_saw_it(system, tmp_path):
    keys = {name: new_key(tmp_path / name) for name in ("ours", "theirs")}
    made = {}
    for name in keys:
        generator = safegen.Generator(ledger=tmp_path / "own.db", key=tmp_path / name)
        made[name] = generator.fit(example_table(200, seed=3)).generate(60, tmp_path / f"by-{name}")
    elsewhere = tmp_path / "elsewhere.db"
    open_ledger(elsewhere)
    with pytest.raises(VerificationError, match="not known here"):
        safegen.verify(made["ours"].path, ledger=elsewhere)
    pin(system, f"trusted_keys: [{keys['ours'].text}]\n")
    assert safegen.verify(made["ours"].path, ledger=elsewhere)
    with pytest.raises(VerificationError, match="not known here"):
        safegen.verify(made["theirs"].path, ledger=elsewhere)


class Asked(RuleParams):
    gates = frozenset({"admission"})
    share: Annotated[float, Param("A share.", unit="share", order="down")] = 0.0


class Unasked(RuleParams):
    gates: ClassVar = frozenset()


def test_a_rule_of_the_floor_is_not_replaced_by_one_of_the_same_name():
    def with_rule(rule: RuleParams) -> Policy:
        base = Policy.load("baseline")
        return base.model_copy(update={"rules": {**base.rules, "acme.rule": rule}})

    floor = with_rule(Asked(severity="enforce"))
    with pytest.raises(PolicyError, match="another rule of that name"):
        raised(with_rule(Unasked(severity="enforce")), floor)
    under = raised(with_rule(Asked(severity="warn", share=0.5)), floor)
    assert "acme.rule" in under.at("admission")
    assert under.rule("acme.rule") == Asked(severity="enforce", share=0.0)


def test_an_approver_of_the_floor_can_sign_a_waiver_of_a_team(system, tmp_path):
    keys = {name: new_key(tmp_path / name) for name in ("j.doe", "m.khan")}
    named = ", ".join(f"{{name: {n}, key: {k.text}}}" for n, k in keys.items())
    floor = tmp_path / "floor.yaml"
    floor.write_text(FLOOR + f"approvals: {{approvers: [{named}]}}\n")
    team, ledger = tmp_path / "team.yaml", tmp_path / "own.db"
    waiver = (
        "waivers:\n"
        "  - {id: W, rule: lineage, params: {unattested: warn}, reason: r, ticket: t,\n"
        "     requested_by: a.lee, approved_by: [j.doe, m.khan],\n"
        f"     expires: {datetime.now(UTC).date() + timedelta(days=3)}, signatures: {{SIGNED}}}}\n"
    )
    team.write_text(TEAM + waiver.replace("SIGNED", ""))
    pin(system, f"floor: {{policy: ../floor.yaml, digest: '{Policy.load(floor).digest}'}}\n")
    source = example_table(60, seed=2)
    assert not safegen.check(source, policy=team, ledger=ledger).allowed
    lines = []
    for name in keys:
        ran = cli("policy", "approve", team, "W", "--as", name, "--key", tmp_path / name)
        assert ran.code == 0, ran.err
        lines.append(ran.out.strip().removeprefix("signatures: {").removesuffix("}"))
    team.write_text(TEAM + waiver.replace("SIGNED", ", ".join(lines)))
    assert safegen.check(source, policy=team, ledger=ledger).allowed
