"""Way round: say that it is real, or that it was made from something real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from forging import World, check, cli, is_refused_as_synthetic, unmet

import safegen


def _bare(world: World, to: Path) -> Path:
    path = to / "bare.csv"
    world.dataset.to_pandas().sample(frac=1, random_state=4).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    "form",
    [
        lambda w, to: w.dataset,
        lambda w, to: w.dataset.path,
        lambda w, to: w.file,
        lambda w, to: w.dataset.to_pandas(),
        lambda w, to: w.dataset.to_polars(),
        lambda w, to: w.dataset.to_arrow(),
        lambda w, to: _bare(w, to),
        lambda w, to: {"real": w.real, "bare": _bare(w, to)},
        lambda w, to: pd.concat(
            [w.rows(600, 21), w.dataset.to_pandas(provenance=True).head(100)], ignore_index=True
        ),
    ],
    ids=["dataset", "folder", "file", "pandas", "polars", "arrow", "bare", "dict", "mixture"],
)
def test_output_cannot_be_attested_as_real(
    world: World, tmp_path: Path, form: Callable[[World, Path], Any]
) -> None:
    with pytest.raises(safegen.AdmissionRefused) as refusal:
        safegen.attest(form(world, tmp_path), origin="real", by="a launderer")
    assert "lineage/contradiction" in unmet(refusal.value.decision)
    assert not list(tmp_path.glob("*.safegen.json"))


def test_the_command_refuses_to_attest_output(world: World, tmp_path: Path) -> None:
    bare = _bare(world, tmp_path)
    assert cli("attest", bare, "--by", "a launderer").code == 3
    assert cli("attest", world.dataset.path, "--by", "a launderer").code == 3
    honest = tmp_path / "honest.csv"
    world.rows(600, 22).to_csv(honest, index=False)
    assert cli("attest", honest, "--by", "an attack test").code == 0


def test_an_older_attestation_does_not_outweigh_evidence(world: World, tmp_path: Path) -> None:
    """Attested before anyone knew better; the release under the same digest still counts."""
    real = tmp_path / "r.parquet"
    world.rows(600, 23).to_parquet(real)
    safegen.attest(real, by="an attack test")
    assert check(real, "strict").allowed
    safegen.attest(real, origin="synthetic", by="somebody who knows")
    assert is_refused_as_synthetic(check(real))


def test_synthetic_by_word_is_not_proven_ancestry(world: World) -> None:
    """Who states that rows are synthetic does not know what real rows stand behind them."""
    foreign = world.rows(600, 24)
    manifest = safegen.attest(foreign, origin="synthetic", by="an attack test")
    assert (manifest.ancestry, manifest.depth_is_lower_bound) == ("unverified", True)
    assert "lineage/unverified" in unmet(check(foreign, "training"))
    assert check(world.dataset, "training").allowed


def test_what_is_derived_from_output_is_refused(world: World, tmp_path: Path) -> None:
    def features(frame: pd.DataFrame) -> pd.DataFrame:
        made = frame.drop(columns=[c for c in frame if c.startswith("_safegen")]).iloc[:, :5]
        made.attrs.clear()
        rank = made.groupby("education")["age"].rank()
        return pd.DataFrame({"rank": rank, "n": range(len(made))})

    synthetic = features(world.dataset.to_pandas())
    assert check(synthetic).allowed  # nothing shows it any more: unknown, with a warning
    safegen.derive(synthetic, sources=[world.real, world.dataset])
    assert is_refused_as_synthetic(check(synthetic))
    synthetic.to_csv(tmp_path / "features.csv", index=False)
    assert is_refused_as_synthetic(check(tmp_path / "features.csv"))

    honest = features(pd.read_parquet(world.real))
    safegen.derive(honest, sources=[world.real])
    assert check(honest, "strict").allowed


def test_a_derivation_does_not_wash_the_frame_itself(world: World, tmp_path: Path) -> None:
    bare = _bare(world, tmp_path)
    made = safegen.derive(bare, sources=[world.real])
    assert made.origin == "mixed"
    assert is_refused_as_synthetic(check(bare))


def test_a_derivation_from_doubt_is_doubtful(world: World) -> None:
    frame = world.rows(600, 25)
    made = safegen.derive(frame, sources=[world.real, world.rows(600, 26)])
    assert (made.origin, made.ancestry) == ("unknown", "unverified")
    assert unmet(check(frame, "strict")) == {"lineage/unattested"}


def test_no_statement_without_a_ledger_to_keep_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tmp_path / "rows.csv"
    world.rows(600, 27).to_csv(rows, index=False)
    monkeypatch.setenv("SAFEGEN_LEDGER", str(rows))  # no ledger, but a file that is in the way
    assert cli("attest", rows, "--by", "an attack test").code == 3
    monkeypatch.delenv("SAFEGEN_LEDGER")
    assert cli("attest", rows, "--by", "an attack test").code == 0


@pytest.mark.parametrize("statement", ["attest", "derive"])
def test_one_table_of_a_synthetic_statement_is_not_attested_as_real(
    world: World, tmp_path: Path, statement: str
) -> None:
    ledger = tmp_path / "own.db"
    seeds = (41, 42) if statement == "attest" else (43, 44)
    tables = {name: world.rows(500, seed) for name, seed in zip("ab", seeds, strict=True)}
    if statement == "attest":
        safegen.attest(tables, "synthetic", by="an attack test", ledger=ledger)
    else:
        safegen.derive(tables, [world.dataset], ledger=ledger)
    for table in tables.values():
        assert is_refused_as_synthetic(check(table, ledger=ledger))
        with pytest.raises(safegen.AdmissionRefused) as refusal:
            safegen.attest(table, by="an attack test", ledger=ledger)
        assert unmet(refusal.value.decision) == {"lineage/contradiction"}

    honest = {name: world.rows(500, seed) for name, seed in zip("ab", (45, 46), strict=True)}
    safegen.attest(honest, by="an attack test", ledger=ledger)
    assert check(honest, "baseline", ledger=ledger).allowed
    for table in honest.values():
        safegen.attest(table, by="an attack test", ledger=ledger)
