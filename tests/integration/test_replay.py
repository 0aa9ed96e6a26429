"""`safegen policy replay` on a ledger of real runs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

import safegen
from safegen.cli import main
from safegen.ledger import Ledger, open_ledger
from safegen.policy import Policy
from safegen.testing.recorded import record_decisions

POLICY = """\
schema: safegen.policy/v1
id: acme/credit
version: "2"
description: As baseline, but signed, and as deep as one model.
contact: governance@acme.example
rules:
  lineage: {severity: enforce, max_depth: 1.0}
  manifest: {severity: enforce, signature: required}
"""


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    made = open_ledger(tmp_path_factory.mktemp("replay") / "ledger.db")
    record_decisions(made, 60)
    return made


def run(capsys: Any, *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["policy", "replay", *map(str, words)])
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


@pytest.mark.parametrize("name", ["baseline", "strict", "anchored", "lab"])
def test_what_a_policy_decided_it_would_decide_again(ledger: Ledger, name: str) -> None:
    found = safegen.replay(name, ledger=ledger.url, by=name)
    assert found.decisions > 0
    kept = ("allow -> allow", "refuse -> refuse")
    assert found.decisions == sum(found.outcomes[same] for same in kept)
    assert found.unreadable == 0


def test_the_command_says_who_would_be_refused_and_why(
    ledger: Ledger, tmp_path: Path, capsys: Any
) -> None:
    file = tmp_path / "credit.yaml"
    file.write_text(POLICY)
    code, out, err = run(capsys, file, "--ledger", ledger.url)
    assert (code, err) == (0, "")
    assert "60 decisions in sqlite:///" in out
    assert "newly refused: " in out
    assert "refused by manifest/signature" in out
    assert "newly admitted: " in out
    assert "refused then by" in out
    assert "; the newest 20, --all lists all" in out
    code, out, _ = run(capsys, file, "--ledger", ledger.url, "--json", "--all")
    found = json.loads(out)
    assert (code, sum(found["outcomes"].values())) == (0, 60)
    assert len(found["refused"]) == found["outcomes"]["allow -> refuse"] > 20
    times = [one["time"] for one in found["refused"]]
    assert times == sorted(times, reverse=True)
    code, out, _ = run(
        capsys, "anchored", "--ledger", ledger.url, "--gate", "release", "--since", "2026-07-01"
    )
    assert (code, "at the release gate since 2026-07-01" in out) == (0, True)
    assert "left open by fidelity.held_out" in out
    assert "Releases whose rows would have been others" in out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["no-such-policy"], 2, "no policy is called"),
        (["broken.yaml"], 2, "broken.yaml:1"),
        (["lab", "--gate", "exit"], 2, "admission or release"),
        (["lab", "--since", "soon"], 2, "2026-01-31"),
        (["lab", "--ledger", "nowhere.db"], 1, "nowhere.db"),
    ],
)
def test_what_it_cannot_do_it_says(
    ledger: Ledger, tmp_path: Path, monkeypatch: Any, capsys: Any, words: Any, code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.yaml").write_text("rules: {")
    where = [] if "--ledger" in words else ["--ledger", ledger.url]
    ended, out, err = run(capsys, *words, *where)
    assert (ended, out) == (code, "")
    assert said in err


def test_it_changes_nothing(ledger: Ledger) -> None:
    before = ledger.state()
    safegen.replay("strict", ledger=ledger.url)
    assert ledger.state() == before
    assert ledger.verify() == []


@pytest.mark.slow
def test_ten_thousand_decisions_are_taken_again_in_ten_seconds(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "ledger.db")
    record_decisions(ledger, 10_000)
    safegen.replay("baseline", ledger=ledger.url, since="2100-01-01")  # what is loaded once
    base = Policy.load("baseline")
    margins: dict[str, Any] = {
        "schema": {"missing_margin": 0.03},
        "support": {"min_expected": 5.0},
        "fidelity": {"column_margin": 0.06, "pair_margin": 0.1},
        "privacy": {"copies": 0.02, "leaks": "refuse"},
        "lineage": {"max_depth": 0.5},
    }
    rules = {n: p.model_copy(update=margins.get(n, {})) for n, p in base.rules.items()}
    for policy in (base, base.model_copy(update={"rules": rules})):
        start = time.process_time()  # other tests may run beside it
        found = safegen.replay(policy, ledger=ledger.url)
        assert time.process_time() - start < 10
        assert (found.decisions, found.unreadable) == (10_000, 0)
