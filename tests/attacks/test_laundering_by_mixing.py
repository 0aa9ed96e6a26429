"""Way round: hide the output among real rows, or as one table of several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forging import World, check, cli, is_refused_as_synthetic, unmet

import safegen

Mix = Callable[[Path, Path, Path], Any]
EACH = 800


def _pandas(before: Path, middle: Path, behind: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(p) for p in (before, middle, behind)], ignore_index=True)


def _pandas_csv(before: Path, middle: Path, behind: Path) -> Path:
    place = middle.with_suffix(".csv")
    _pandas(before, middle, behind).sample(frac=1, random_state=2).to_csv(place, index=False)
    return place


def _arrow(before: Path, middle: Path, behind: Path) -> pa.Table:
    tables = [pq.read_table(p) for p in (before, middle, behind)]
    return pa.concat_tables(tables, promote_options="permissive")


def _polars(before: Path, middle: Path, behind: Path) -> pl.DataFrame:
    frames = [pl.read_parquet(p) for p in (before, middle, behind)]
    return pl.concat(frames, how="diagonal_relaxed")


def _duckdb(before: Path, middle: Path, behind: Path) -> pa.Table:
    return duckdb.sql(
        " UNION ALL BY NAME ".join(f"SELECT * FROM '{p}'" for p in (before, middle, behind))
    ).to_arrow_table()


MIXES = [_pandas, _pandas_csv, _arrow, _polars, _duckdb]


@pytest.fixture
def parts(world: World, tmp_path: Path) -> tuple[Path, Path, Path, Path]:
    """Real rows, released rows with their columns, real rows, and more real rows."""
    places = tuple(tmp_path / f"{n}.parquet" for n in ("before", "released", "behind", "honest"))
    rows = world.rows(3 * EACH, 11)
    for i, place in enumerate(p for p in places if p.stem != "released"):
        rows.iloc[i * EACH : (i + 1) * EACH].to_parquet(place, index=False)
    # Row by row only: the stamps of the file are taken off.
    some = pq.read_table(world.file).slice(0, EACH).replace_schema_metadata(None)
    pq.write_table(some, places[1])
    return places  # type: ignore[return-value]


@pytest.mark.parametrize("mix", MIXES, ids=lambda f: f.__name__.strip("_"))
def test_a_mixture_is_refused_and_measured(parts: tuple[Path, Path, Path, Path], mix: Mix) -> None:
    before, released, behind, _ = parts
    decision = check(mix(before, released, behind))
    assert is_refused_as_synthetic(decision)
    observed = decision.findings["lineage/depth"].observed
    assert f"{EACH:,} of {3 * EACH:,} rows come from a generator" in observed


@pytest.mark.parametrize("mix", MIXES, ids=lambda f: f.__name__.strip("_"))
def test_a_mixture_of_real_rows_is_admitted(parts: tuple[Path, Path, Path, Path], mix: Mix) -> None:
    before, _, behind, honest = parts
    assert check(mix(before, honest, behind)).allowed


def test_one_released_row_is_enough(world: World) -> None:
    real = world.rows(1000, 12)
    assert check(real).allowed
    one = world.dataset.to_pandas(provenance=True).head(1)
    one.attrs.clear()
    assert is_refused_as_synthetic(check(pd.concat([real, one], ignore_index=True)))


def test_several_sources_are_judged_together(world: World) -> None:
    real = world.rows(1000, 13)
    assert safegen.check(real, world.real, policy="baseline").allowed
    with pytest.raises(safegen.AdmissionRefused) as refusal:
        safegen.Generator(policy="baseline").fit(world.real, real, world.dataset)
    assert is_refused_as_synthetic(refusal.value.decision)


def test_a_folder_is_as_synthetic_as_its_parts(world: World, tmp_path: Path) -> None:
    """A stamp counts wherever its file stands, and whatever other files say of themselves."""
    (tmp_path / "honest").mkdir()
    (tmp_path / "mixed").mkdir()
    real = world.rows(900, 14)
    real.attrs["note"] = "ours"  # so that this file has a PANDAS_ATTRS of its own
    for place in ("honest", "mixed"):
        real.to_parquet(tmp_path / place / "a.parquet", index=False)
    world.rows(900, 15).to_parquet(tmp_path / "honest" / "b.parquet", index=False)
    world.dataset.to_pandas().head(900).to_parquet(tmp_path / "mixed" / "b.parquet", index=False)
    assert check(tmp_path / "honest").allowed
    assert is_refused_as_synthetic(check(tmp_path / "mixed"))


@pytest.mark.parametrize("first", [True, False])
def test_one_synthetic_table_of_several_is_refused(
    world: World, tmp_path: Path, first: bool
) -> None:
    bare = tmp_path / "bare.csv"
    world.dataset.to_pandas().to_csv(bare, index=False)
    names = ("a", "b") if first else ("b", "a")
    tables = {names[0]: bare, names[1]: world.real}
    assert is_refused_as_synthetic(check(tables))
    ran = cli("check", *(f"{n}={p}" for n, p in tables.items()), "--policy", "baseline")
    assert ran.code == 3
    assert check({"a": world.real, "b": world.rows(700, 16)}).allowed


def test_one_attested_table_does_not_vouch_for_another(world: World) -> None:
    """Real is what every table is attested to be; one of them says nothing of the others."""
    tables = {"a": world.real, "b": world.rows(700, 17)}
    assert unmet(check(tables, "strict")) == {"lineage/unattested"}
    safegen.attest(tables["b"], by="an attack test")
    assert check(tables, "strict").allowed


def test_one_proven_table_does_not_prove_another(world: World) -> None:
    """A released table and one of unknown origin are together of unverified ancestry."""
    assert check(world.dataset, "training").allowed
    tables = {"a": world.dataset, "b": world.rows(700, 18)}
    decision = check(tables, "training")
    assert not decision.allowed
    assert "lineage/unverified" in unmet(decision)


def test_every_dataset_of_several_must_verify(world: World, tmp_path: Path) -> None:
    good, bad = world.copy(tmp_path / "good"), world.copy(tmp_path / "bad")
    assert safegen.check({"a": good, "b": good}, policy="training").allowed
    (bad / "README.md").write_text("edited")
    for tables in ({"a": bad, "b": good}, {"a": good, "b": bad}):
        assert "lineage/intact" in unmet(check(tables, "training"))
