"""Three outcomes: what is met, what is unmet, and what stays open."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.measure.samples import student_point, student_tail
from safegen.measure.verdicts import Cell, normal_point, spent, verdict


def cell(p: float = 1.0, kept: bool = True, judged: bool = True, name: str = "x") -> Cell:
    return Cell(name, 0.0, 0.0, 0.0, p, kept, judged)


def test_met_when_every_judged_cell_clears_the_margin() -> None:
    assert verdict([cell()], [cell(), cell()], 0.05).status == "met"
    assert verdict([cell()], [cell(), cell(kept=False)], 0.05).status == "inconclusive"
    assert verdict([cell(kept=False)], [cell()], 0.05).status == "inconclusive"


def test_a_cell_that_cannot_be_judged_neither_hinders_nor_counts() -> None:
    found = verdict([cell()], [cell(), cell(kept=False, judged=False)], 0.05)
    assert found.status == "met"
    assert found.judged == 1


def test_a_cell_that_cannot_be_judged_is_refused_all_the_same() -> None:
    assert verdict([cell()], [cell(1e-9, False, judged=False)], 0.05).status == "unmet"


def test_a_cell_of_which_nothing_is_known_is_no_pass() -> None:
    with pytest.raises(ValueError, match="no chance was found for 1 cells"):
        verdict([cell()], [cell(), cell(math.nan)], 0.05)


def test_holm_corrects_for_the_number_of_cells() -> None:
    """One in a hundred cells at p = 0.01 is what chance gives; at 0.0001 it is not."""
    many = [cell() for _ in range(99)]
    assert verdict([], [*many, cell(0.01, kept=False)], 0.05).status == "inconclusive"
    assert verdict([], [*many, cell(0.0001, kept=False)], 0.05).status == "unmet"
    assert verdict([], [cell(0.01, kept=False)], 0.05).status == "unmet"


def test_holm_steps_down_by_hand() -> None:
    """.01 ≤ .05/3, then .02 ≤ .05/2, then .04 ≤ .05: all three; with .06 only two."""
    three = [cell(p, name=str(p)) for p in (0.04, 0.01, 0.02)]
    assert [c.p for c in verdict([], three, 0.05).lost] == [0.01, 0.02, 0.04]
    two = [cell(p) for p in (0.06, 0.01, 0.02)]
    assert [c.p for c in verdict([], two, 0.05).lost] == [0.01, 0.02]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(0, 19), st.floats(0, 1))
def test_a_worse_cell_never_helps(ps: list[float], at: int, factor: float) -> None:
    at %= len(ps)
    worse = [p * factor if i == at else p for i, p in enumerate(ps)]
    before, after = (verdict([], [cell(p) for p in some], 0.05) for some in (ps, worse))
    assert len(after.lost) >= len(before.lost)


def test_what_a_loop_may_spend_adds_up_to_alpha() -> None:
    assert spent(0.05, 1) == pytest.approx(0.0304, abs=1e-4)
    total = sum(spent(0.05, t) for t in range(1, 100_000))
    assert total == pytest.approx(0.05, rel=1e-4)
    assert spent(0.05, 0) == spent(0.05, 1)


def test_students_t_as_in_the_tables() -> None:
    """38 degrees of freedom: 1.686 and 2.024 (any table of Student's t)."""
    assert student_point(0.05) == pytest.approx(1.68595, abs=1e-5)
    assert student_point(0.025) == pytest.approx(2.02439, abs=1e-5)
    assert student_tail(0.0) == pytest.approx(0.5)
    assert student_tail(-2.02439) == pytest.approx(0.975, abs=1e-6)
    assert [student_tail(x) for x in (math.inf, -math.inf)] == [0, 1]
    assert normal_point(0.05) == pytest.approx(1.64485, abs=1e-5)
