"""The way round that users take when a safeguard cries wolf: so real data must get in."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from forging import World, check, cli, unmet

import safegen


def test_attested_real_data_is_admitted_everywhere(world: World) -> None:
    for policy in ("baseline", "strict", "training"):
        assert cli("check", world.real, "--policy", policy).code == 0
    decision = check(world.real, "strict")
    assert not decision.warnings
    assert decision.findings["lineage/unattested"].status == "met"


@pytest.mark.parametrize(("n", "seed"), [(500, 1), (501, 2), (1_000, 3), (3_000, 4)])
def test_any_real_rows_are_admitted_with_a_warning(world: World, n: int, seed: int) -> None:
    rows = world.rows(n, 100 + seed)
    decision = safegen.Generator(policy="baseline").prepare(rows)
    assert decision.allowed
    assert [r.finding.name for r in decision.warnings] == ["lineage/unattested"]
    assert unmet(check(rows, "strict")) == {"lineage/unattested"}


def test_real_rows_are_not_taken_for_output(world: World, tmp_path: Path) -> None:
    """Nothing of the release's marks is found in rows that the model was fitted on."""
    path = tmp_path / "rows.csv"
    world.rows(2_000, 105).to_csv(path, index=False)
    ran = cli("inspect", path, "--json")
    facts = json.loads(ran.out)
    assert (facts["origin"], facts["synthetic_share"], facts["evidence"]) == ("unknown", 0.0, [])


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("rows.csv", False),
        ("its rows.csv", False),
        ("$(rows);.csv", False),
        ("rows.csv", True),
    ],
    ids=["plain", "space", "shell", "named-ledger"],
)
def test_the_command_in_the_refusal_mends_it(
    world: World, tmp_path: Path, name: str, named: bool
) -> None:
    path = tmp_path / name
    world.rows(600, sum(map(ord, name)) + named).to_csv(path, index=False)
    ledger = ["--ledger", str(tmp_path / "ledger.db")] if named else []
    ran = cli("check", path, "--policy", "strict", "--json", *ledger)
    assert ran.code == 3
    findings = json.loads(ran.out)["findings"]
    _, _, command = findings["lineage/unattested"]["next_step"].partition("safegen ")
    assert shlex.quote(str(path)) in command
    assert cli(*shlex.split(command)).code == 0, command
    assert cli("check", path, "--policy", "strict", *ledger).code == 0
