"""Ranks and tokens: what stands between the codec and a tabular diffusion model."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from safegen.backends.diffusion.table_encoding import TOKENS, Encoding, Grouped, Layout
from safegen.tables.codec import Codec
from safegen.tables.schema import infer_schema


def encoded(columns: dict[str, object]) -> tuple[Encoding, object]:
    table = pa.table(columns)
    codec = Codec.fit(table, infer_schema(table), seed=0)
    return Encoding.fit(codec, codec.encode(table, seed=0))


def test_uniform_ranks_give_the_marginal_back_with_its_ties() -> None:
    rng = np.random.default_rng(0)
    ages = rng.integers(0, 90, 5_000)
    encoding, rows = encoded({"age": ages})
    ranks = rows.low + rows.width * rng.random(rows.low.shape)  # type: ignore[attr-defined]
    assert abs(np.sort(ranks[:, 0]) - np.linspace(0, 1, 5_000)).max() < 0.01  # uniform as a whole
    back = encoding.features(ranks, np.zeros((5_000, 0), int), np.zeros((5_000, 0)))
    assert np.array_equal(back["age"], ages)


def test_a_value_has_the_ranks_of_its_rows() -> None:
    encoding, _ = encoded({"age": np.repeat(np.arange(40), 50)})
    low, high = encoding.rank(0, 10.0)
    assert (low, high) == (pytest.approx(10 / 40), pytest.approx(11 / 40))


def test_a_number_hidden_by_its_state_takes_any_rank() -> None:
    values = np.where(np.arange(1_000) < 500, 0.0, np.random.default_rng(0).normal(9, 1, 1_000))
    _, rows = encoded({"gain": values})
    hidden = values == 0
    assert (rows.width[hidden, 0] == 1).all()  # type: ignore[attr-defined]
    assert (rows.width[~hidden, 0] < 0.01).all()  # type: ignore[attr-defined]


def test_few_levels_are_tokens_and_many_share_them_by_their_shares() -> None:
    rng = np.random.default_rng(0)
    few = Grouped.fit(rng.integers(0, 5, 100), 5)
    assert few.tokens == 5
    assert np.array_equal(few.code(np.arange(5), np.zeros(5)), np.arange(5))
    codes = np.concatenate([np.arange(20_000), rng.integers(0, 300, 40_000), np.full(99, 19_999)])
    many = Grouped.fit(codes, 20_000)
    assert many.tokens <= TOKENS
    assert many.shares.sum() == pytest.approx(1)
    tokens = many.token(codes)
    drawn = many.code(tokens, rng.random(len(codes)))
    assert np.array_equal(many.token(drawn), tokens)  # never another token's level
    assert abs((drawn < 300).mean() - (codes < 300).mean()) < 0.01
    assert (drawn == 19_999).sum() == (codes == 19_999).sum()  # frequent: a token of its own


def test_one_hots_of_a_width_stand_together_and_padding_has_no_share() -> None:
    rng = np.random.default_rng(0)
    words = {f"c{n}": rng.integers(0, n, 400).astype(str) for n in (9, 2, 3, 5)}
    encoding, _ = encoded(words)
    layout = Layout.of(encoding)
    assert layout.widths == (2, 4, 8, 16)
    assert layout.order == (1, 2, 3, 0)
    shares = layout.shares(encoding)
    spans = zip(layout.starts, layout.widths, strict=True)
    assert [int((shares[start : start + w] > 0).sum()) for start, w in spans] == [2, 3, 5, 9]
