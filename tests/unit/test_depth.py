"""Synthetic depth of hand-built lineages (the recursions of `lineage/depth.py`)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.lineage.depth import child_depth, pooled_depth


def test_replacing_three_times_gives_depth_three() -> None:
    depth = 0.0
    for _ in range(3):
        depth = child_depth([(1000, depth)])
    assert depth == 3


def test_accumulating_gives_the_harmonic_number() -> None:
    parts = [(1000.0, 0.0)]
    for _ in range(2):
        parts.append((1000.0, child_depth(parts)))
    assert child_depth(parts) == pytest.approx(1 + 1 / 2 + 1 / 3)


def test_half_real_gives_one_and_three_quarters_at_the_third_step() -> None:
    depth = 0.0
    for _ in range(3):
        depth = child_depth([(1000, 0.0), (1000, depth)])
    assert depth == pytest.approx(1.75)


def test_a_constant_real_share_settles_at_its_inverse() -> None:
    depth = 0.0
    for _ in range(200):
        depth = child_depth([(0.5, 0.0), (0.5, depth)])
    assert depth == pytest.approx(2.0)


@given(st.lists(st.tuples(st.floats(0.1, 1e6), st.floats(0, 100)), min_size=1, max_size=20))
def test_a_mixture_is_between_its_parts(parts: list[tuple[float, float]]) -> None:
    depths = [d for _, d in parts]
    assert min(depths) - 1e-6 <= pooled_depth(parts) <= max(depths) + 1e-6


def test_nothing_pooled_is_depth_zero() -> None:
    assert pooled_depth([]) == 0.0


@pytest.mark.parametrize("part", [(-1.0, 0.0), (1.0, -1.0)])
def test_negative_weights_and_depths_are_refused(part: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="not negative"):
        pooled_depth([part])
