"""Scores of cells, and the choice between two candidates: what they leave as it was, and what they
say of whose rows these are."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from test_fingerprints import columns, crowd, few, law, odd, profiles

from safegen.lineage.detection import ALPHA, Met, met_watermark
from safegen.lineage.forms import form_of
from safegen.lineage.watermark import Watermark, _nth
from safegen.shaping.drawing import inclusion, systematic


def key(number: int) -> bytes:
    return hashlib.sha256(f"key {number}".encode()).digest()


def marked(mark: Watermark, rows: int, seed: int, make=law) -> pa.Table:  # type: ignore[no-untyped-def]
    """Rows of a model, as a release with nothing but a watermark has them."""
    candidates = make(seed, 2 * rows, fitted=True)
    chosen = systematic(
        np.full(2 * rows, 0.5),
        rows,
        np.random.default_rng(seed),
        preferences=mark.preferences(candidates),
    )
    return candidates.take(pa.array(chosen))


def asked(mark: Watermark, table: pa.Table) -> Met:
    match = mark.form.matched(profiles(table))
    cells = columns(table)
    met = met_watermark(mark, match, {c.number: cells[c.name] for c in match.columns}, 1)
    assert met is not None
    return met


def z_of(met: Met) -> float:
    return float((met.decoys - met.found / 2) / (met.found / 12) ** 0.5)


@pytest.mark.parametrize("make", [law, few, crowd, odd])
def test_rows_that_have_nothing_to_do_with_the_key_have_no_watermark(make) -> None:  # type: ignore[no-untyped-def]
    """Over keys, whatever the rows are: of few different rows, too, where counting each row would
    accuse with certainty."""
    form = form_of(columns(law(1, 3_000) if make is odd else make(1, 3_000)), 7)
    table = make(2, 3_000)
    z = np.array([z_of(asked(Watermark.of(key(i), form), table)) for i in range(150)])
    assert kstest(z, "norm").pvalue > 1e-3
    assert abs(z.mean()) < 0.35
    assert 0.8 < z.std() < 1.2


def test_rows_are_known_by_the_key_that_chose_them_and_by_no_other() -> None:
    form = form_of(columns(law(1, 3_000, fitted=True)), 7)
    mark, other = Watermark.of(key(1), form), Watermark.of(key(2), form)
    table = marked(mark, 4_000, 5)
    met = asked(mark, table)
    assert met.p <= ALPHA
    assert met.interval[0] <= 1.0 <= met.interval[1] + 0.35
    assert mark.strength(table) == pytest.approx(met.share, abs=0.02)
    assert asked(other, table).p > 1e-3
    assert asked(mark, law(9, 4_000)).p > 1e-3
    # Nor by the ledger's key itself: what workers are given says nothing about fingerprints.
    assert mark.key != key(1)


def test_the_share_that_is_said_is_that_of_a_mixture() -> None:
    form = form_of(columns(law(1, 3_000, fitted=True)), 7)
    mark = Watermark.of(key(1), form)
    found = []
    for seed in range(6):
        table = pa.concat_tables([marked(mark, 3_000, seed), law(50 + seed, 7_000)])
        met = asked(mark, table)
        assert met.p <= ALPHA
        found.append(met.share)
    assert 0.18 < np.mean(found) < 0.36


@pytest.mark.parametrize("what", ["noise", "units", "a column less"])
def test_a_watermark_outlasts_edits(what: str) -> None:
    form = form_of(columns(law(1, 3_000, fitted=True)), 7)
    mark = Watermark.of(key(1), form)
    frame = marked(mark, 8_000, 5).to_pandas()
    if what == "noise":
        noise = np.random.default_rng(1).normal(0, 0.05, (len(frame), 2))
        frame["size"] += noise[:, 0] * frame["size"].std()
        frame["score"] += noise[:, 1] * frame["score"].std()
    elif what == "units":
        frame["score"] = (frame["score"] - 7) / 2.54
        frame["size"] = np.log(frame["size"] + 0.01)
    else:
        frame = frame.drop(columns="score")
    assert asked(mark, pa.Table.from_pandas(frame, preserve_index=False)).p <= ALPHA


def test_common_cells_do_not_become_more_common() -> None:
    """Without a bound on the rows that count, a key would favour some of the commonest cells."""
    form = form_of(columns(few(1, 3_000, fitted=True)), 7)
    gaps = []
    for i in range(8):
        mark = Watermark.of(key(i), form)
        made = marked(mark, 6_000, i, few).to_pandas()
        plain = few(i, 12_000, fitted=True).to_pandas()
        for name in made:
            a, b = (f[name].value_counts(normalize=True) for f in (made, plain))
            gaps.append(float(a.sub(b, fill_value=0).abs().sum() / 2))
    assert np.mean(gaps) < 0.012


def test_scores_are_as_if_uniform_whichever_the_row_is() -> None:
    form = form_of(columns(law(1, 3_000)), 7)
    table = pa.concat_tables([law(2, 20), law(2, 1)])
    every = np.array([Watermark.of(key(i), form).preferences(table) for i in range(300)])
    assert all(kstest(row, "uniform").pvalue > 1e-4 for row in every.T)


def test_the_first_rows_of_a_block_have_the_scores_that_they_have_in_all() -> None:
    form = form_of(columns(few(1, 3_000)), 7)
    mark, table = Watermark.of(key(1), form), few(2, 900)
    assert (mark.preferences(table)[:300] == mark.preferences(table.slice(0, 300))).all()


def test_what_came_before_is_counted() -> None:
    words = np.array([5, 3, 5, 5, 3, 9], dtype=np.uint64)
    assert _nth(words).tolist() == [0, 0, 1, 2, 1, 0]


# ---- drawing -------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 60), st.sampled_from([0.3, 1.0, 3.0]))
def test_drawing_by_preferences_gives_as_many_rows_none_of_them_twice(
    seed: int, rows: int, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, rows))
    chances = inclusion(rng.lognormal(0, spread, rows), count)
    groups = rng.integers(0, 4, rows)
    chosen = systematic(chances, count, rng, groups, rng.random(rows))
    assert len(set(chosen.tolist())) == count
    for group in range(4):
        due = chances[groups == group].sum()
        assert abs((groups[chosen] == group).sum() - due) < 1 + 1e-6


def test_preferences_leave_every_chance_what_it_is() -> None:
    """Over preferences and draws: of halves, of small and large chances, of rows that are sure."""
    rng = np.random.default_rng(3)
    chances = inclusion(rng.lognormal(0, 1.2, 30), 12)
    groups = rng.integers(0, 3, 30)
    draws = 6_000
    there = np.zeros(30)
    for _ in range(draws):
        there[systematic(chances, 12, rng, groups, rng.random(30))] += 1
    error = np.sqrt(np.maximum(chances * (1 - chances), 1e-9) / draws)
    assert (np.abs(there / draws - chances) < 4.5 * error + 1e-9).all()


def test_the_preferred_of_two_is_drawn() -> None:
    rng = np.random.default_rng(3)
    preferences = rng.random(1_000)
    chosen = systematic(np.full(1_000, 0.5), 500, rng, preferences=preferences)
    assert preferences[chosen].mean() == pytest.approx(2 / 3, abs=0.02)
    assert preferences[systematic(np.full(1_000, 0.5), 500, rng)].mean() < 0.55
