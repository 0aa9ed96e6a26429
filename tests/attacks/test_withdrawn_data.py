"""Way round: go on with what was withdrawn, or with what was made from it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from forging import World, check, cli, unmet

import safegen
from safegen.errors import VerificationError


@pytest.fixture
def line(world: World, tmp_path: Path) -> dict[str, object]:
    """In a ledger of its own: two real files, a release of each, features of the first's rows."""
    ledger = tmp_path / "ledger.db"
    real = pd.read_parquet(world.real)
    found: dict[str, object] = {"ledger": ledger}
    for name, rows in (("first", real.head(3_000)), ("second", real.tail(3_000))):
        path = tmp_path / f"{name}.parquet"
        rows.to_parquet(path)
        found[f"{name} real"] = safegen.attest(path, by="a test", ledger=ledger).dataset_id
        generator = safegen.Generator("sdv.gaussian_copula", ledger=ledger).fit(path)
        found[name] = generator.generate(2_000, tmp_path / f"{name}-made")
    first = found["first"]
    assert isinstance(first, safegen.Dataset)
    features = tmp_path / "features.csv"
    first.to_pandas().assign(n=1).to_csv(features, index=False)
    derived = safegen.derive(features, sources=[first], ledger=ledger)
    return {**found, "features": features, "derived": derived.dataset_id}


def test_what_was_withdrawn_and_what_came_of_it_is_refused(
    world: World, line: dict[str, object]
) -> None:
    first, second, ledger = line["first"], line["second"], line["ledger"]
    assert isinstance(first, safegen.Dataset)
    assert isinstance(second, safegen.Dataset)
    rows = first.to_pandas().sample(500, random_state=1)
    rows.attrs.clear()
    for path in (first.path, line["features"], rows):
        assert check(path, "lab", ledger=ledger).allowed
    assert check(first, "training", ledger=ledger).allowed

    why = ("--reason", "a person asked to be forgotten", "--by", "the privacy office")
    ran = cli("ledger", "withdraw", line["first real"], *why, "--ledger", ledger)
    assert ran.code == 0
    for after in (first.manifest.dataset_id, line["derived"]):
        assert str(after) in ran.out
    assert second.manifest.dataset_id not in ran.out

    said = "withdrawn on .* by the privacy office: a person asked to be forgotten"
    for refused in (safegen.verify, lambda p, **k: safegen.open(p, policy="lab", **k)):
        with pytest.raises(VerificationError, match=said):
            refused(first.path, ledger=ledger)
    real = Path(str(ledger)).with_name("first.parquet")
    for path in (first.path, real, line["features"], rows):
        assert "lineage/intact" in unmet(check(path, "baseline", ledger=ledger))
    assert check(second, "training", ledger=ledger).allowed
    safegen.verify(second.path, ledger=ledger)
    assert check(pd.read_parquet(world.real).tail(2_000), ledger=ledger).allowed


def test_a_withdrawal_names_a_dataset_a_person_and_a_reason(line: dict[str, object]) -> None:
    ledger = line["ledger"]
    for words in (
        ("01M00000000000000000000000", "--reason", "x", "--by", "y"),
        (line["derived"], "--reason", " ", "--by", "y"),
        (line["derived"], "--reason", "x", "--by", ""),
    ):
        assert cli("ledger", "withdraw", *words, "--ledger", ledger).code == 2
    ran = cli("ledger", "descendants", line["derived"], "--ledger", ledger)
    assert (ran.code, ran.out) == (0, "")
    assert "nothing in" in ran.err
