"""Rows of unknown origin beside attested ones: a note, and never a verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import safegen
from safegen.decision import Decision
from safegen.lineage import beside_anchor

ROWS = 3_000


def people(seed: int, shift: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age = rng.normal(40, 10, ROWS)
    return pd.DataFrame(
        {"age": age, "pay": 900 * age + rng.normal(1e4 * shift, 9e3, ROWS),
         "city": rng.choice(["Ulm", "Bonn", "Kiel"], ROWS, p=[0.5, 0.3, 0.2])}
    )  # fmt: skip


@pytest.fixture
def anchor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAFEGEN_LEDGER", str(tmp_path / "ledger.db"))
    place = tmp_path / "real.parquet"
    people(1).to_parquet(place)
    safegen.attest(place, origin="real", by="data office")
    return place


def said(decision: Decision) -> list[str]:
    return [n for n in decision.notes if "beside the attested rows of" in n]


def test_rows_of_another_law_are_told_apart_and_let_in(anchor: Path, tmp_path: Path) -> None:
    for number, (shift, told) in enumerate([(0.0, "not told apart"), (0.5, "told apart: another")]):
        suspect = tmp_path / f"{number}.csv"  # other types than the anchor's
        people(2, shift).to_csv(suspect, index=False)
        alone, beside = (safegen.check(suspect, *more) for more in ([], [anchor]))
        assert not said(alone)
        (note,) = said(beside)
        assert f", {told}" in note
        assert "no verdict rests on this" in note
        assert beside.allowed == alone.allowed


def test_what_cannot_be_compared_stops_nothing(anchor: Path) -> None:
    other = people(3)
    few = safegen.check(other.head(50), anchor)
    strangers = safegen.check(other.rename(columns={"age": "a", "pay": "b"}), anchor)
    assert not said(few)
    assert not said(strangers)
    other.loc[0, "pay"] = np.inf
    (note,) = said(safegen.check(other, anchor))
    assert "not compared" in note or "AUC" in note
    # Texts where the anchor has numbers are no column of it.
    (note,) = said(safegen.check(other.assign(pay=other["pay"].astype(str)), anchor))
    assert "AUC" in note


@pytest.mark.parametrize("where", ["infer_schema", "_rows"])
def test_a_comparison_that_fails_is_said_without_a_value_and_stops_nothing(
    anchor: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("Ada Lovelace")

    monkeypatch.setattr(beside_anchor, where, broken)
    decision = safegen.check(people(3), anchor)
    (note,) = said(decision)
    assert "not compared: " in note
    assert "Lovelace" not in str(decision.to_json())


def test_only_rows_without_evidence_beside_attested_ones_are_compared(
    anchor: Path, tmp_path: Path
) -> None:
    assert not said(safegen.check(people(4), people(5)))
    assert not said(safegen.check(anchor, anchor))
    made = people(6)
    made["_safegen_origin"] = "synthetic"
    assert not said(safegen.check(made, anchor))
