"""The privacy rule: planted leaks, each beside its honest twin, and what chance makes by itself."""

from __future__ import annotations

import uuid
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from safegen.decision import Finding
from safegen.gates import Release
from safegen.measure.copies import coincidence
from safegen.measure.drawn import Drawn
from safegen.measure.intervals import surely_above
from safegen.measure.keys import row_hashes
from safegen.measure.neighbours import able_before, closeness, told
from safegen.measure.profile import TableTally, profiles
from safegen.policy import PrivacyParams
from safegen.safeguards.privacy import PrivacyKept
from safegen.tables.schema import TableSchema, infer_schema
from safegen.testing import check_safeguard

ROWS = 4000


def people(seed: int, rows: int = ROWS) -> pa.Table:
    """Two numbers that nobody shares, and two columns of levels."""
    rng = np.random.default_rng([4, seed])
    income = rng.lognormal(10, 1, rows)
    return pa.table(
        {
            "income": income,
            "debt": income * rng.lognormal(-1, 0.5, rows),
            "age": rng.integers(18, 90, rows),
            "country": rng.choice(["a", "b", "c", "d"], rows, p=[0.9, 0.08, 0.015, 0.005]),
        }
    )


def context(
    made: pa.Table,
    real: pa.Table,
    schema: TableSchema | None = None,
    *,
    weights: np.ndarray | None = None,
    held: pa.Table | None = None,
    drawn: int | None = None,
) -> Release:
    """A staged table beside the real one; `drawn`: of how many rows `made` was drawn at random."""
    schema = schema or infer_schema(real)
    tally = TableTally(profiles({"table": real}, {"table": schema})["table"])
    for start in range(0, made.num_rows, 700):
        tally.update(made.slice(start, 700))
    tally.rows = drawn or tally.rows
    return Release(
        rows=tally.rows,
        units=tally.rows,
        conditions={},
        schemas={"table": schema},
        real={"table": tally.profile},
        staged={"table": tally},
        anchor={"table": real},
        held={"table": real.slice(0, 0) if held is None else held},
        made={"table": Drawn(made, np.ones(made.num_rows) if weights is None else weights)},
    )


def judged(*args: Any, params: dict[str, Any] | None = None, **more: Any) -> dict[str, Finding]:
    rule = PrivacyParams(severity="enforce", **(params or {}))
    return {f.check: f for f in PrivacyKept().release(context(*args, **more), rule)}


def mixed(made: pa.Table, real: pa.Table, rows: int) -> pa.Table:
    """The generated rows, of which the first `rows` are real ones."""
    return pa.concat_tables([real.slice(0, rows), made.slice(rows)])


class TestCopies:
    def test_rows_of_the_same_distribution_are_no_copies(self) -> None:
        found = judged(people(1), people(0))["copies"]
        assert (found.status, found.observed.split(" of ")[0]) == ("met", "0")

    def test_copied_rows_are_refused(self) -> None:
        found = judged(mixed(people(1), people(0), 40), people(0))["copies"]
        assert found.status == "unmet"
        assert found.observed.startswith("40 of 4,000 rows are copies")
        low, high = found.interval or (1, 0)
        assert low <= 0.01 <= high

    def test_what_chance_makes_is_no_copy_and_more_than_that_is(self) -> None:
        """Three columns of ten levels, unevenly used: singles are met by chance all the time."""

        def levels(seed: int) -> pa.Table:
            rng = np.random.default_rng([8, seed])
            p = 1.0 / np.arange(1, 11)
            return pa.table({n: rng.choice(10, ROWS, p=p / p.sum()) for n in "abc"})

        kinds = {n: {"kind": "categorical"} for n in "abc"}
        schema = infer_schema(levels(0), kinds)
        honest = judged(levels(1), levels(0), schema)["copies"]
        assert honest.status != "unmet"
        assert not honest.observed.startswith("0 of")
        real = levels(0)
        found, first, count = np.unique(
            row_hashes(real, list("abc")), return_index=True, return_counts=True
        )
        singles = real.take(pa.array(first[count == 1]))
        stolen = pa.concat_tables([singles] * (ROWS // 8 // singles.num_rows + 1))
        assert len(found) < ROWS
        copied = mixed(levels(1), stolen, ROWS // 8)
        assert judged(copied, real, schema)["copies"].status == "unmet"

    def test_turings_estimate_is_the_rate_at_which_new_rows_copy(self) -> None:
        """Zipf's law over 3,000 combinations, 1,000 real rows: the mean of the estimate and that
        of the rate over 300 pairs of samples agree within four standard errors."""
        p = 1.0 / np.arange(1, 3001)
        p /= p.sum()
        schema = infer_schema(pa.table({"x": [1, 2]}), {"x": {"kind": "categorical"}})
        gaps = []
        for seed in range(300):
            rng = np.random.default_rng([5, seed])
            real, made = (pa.table({"x": rng.choice(3000, 1000, p=p)}) for _ in range(2))
            found = coincidence(real, Drawn(made, np.ones(1000)), schema)
            assert [c.people for c in found] == [1, 2, 3]
            gaps.append([c.share - c.chance for c in found])
        assert (np.abs(np.mean(gaps, axis=0)) < 4 * np.std(gaps, axis=0) / 300**0.5).all()
        assert (np.std(gaps, axis=0) / 300**0.5 < 0.002).all()

    def test_a_source_that_holds_its_rows_several_times_hides_no_copy(self) -> None:
        for times in (2, 3):
            several = pa.concat_tables([people(0, 2000)] * times)
            assert judged(people(0, 2000), several)["copies"].status == "unmet"
            honest = {c: f.status for c, f in judged(people(1, 2000), several).items()}
            assert "unmet" not in honest.values()
            moved = np.asarray(people(0, 2000)["income"]) * (1 + 1e-9)
            near = people(0, 2000).set_column(0, "income", pa.array(moved))
            assert judged(near, several)["near-copies"].status == "unmet"
            held = pa.concat_tables([people(2, 1000)] * times)
            found = judged(near, several, held=held, params={"held_out": 0.2})
            assert found["membership"].status == "unmet"

    def test_a_row_of_several_people_points_at_nobody(self) -> None:
        """A row twice in the source belongs to two rows, but may belong to one entity."""
        twice = pa.concat_tables([people(0, 500), people(0, 500)])
        who = pa.array([f"p{i:04d}" for i in [*range(500), *range(500)]])
        entity = twice.append_column("who", who)
        made = people(0, 500).append_column("who", pa.array([f"s{i}" for i in range(500)]))
        schema = infer_schema(entity, {"who": {"role": "entity"}})
        assert "of 2 that are alike" in judged(people(0, 500), twice)["copies"].observed
        assert judged(made, entity, schema)["copies"].status == "unmet"

    def test_few_rows_drawn_of_many_rule_nothing_out_and_few_rows_in_all_do(self) -> None:
        assert judged(people(1, 200), people(0))["copies"].status == "met"
        drawn = judged(people(1, 200), people(0), drawn=10**6)["copies"]
        assert drawn.status == "inconclusive"

    def test_copies_of_oversampled_rows_are_copies_whatever_they_weigh(self) -> None:
        """Weights tell how much more often chance can make a copy, and no more."""
        weights = np.where(np.arange(ROWS) < 400, 0.2, 1.0)
        copied = judged(mixed(people(1), people(0), 400), people(0), weights=weights)["copies"]
        honest = judged(people(1), people(0), weights=weights)["copies"]
        assert (copied.status, honest.status) == ("unmet", "met")

    def test_images_are_compared_by_their_pixels(self) -> None:
        from io import BytesIO

        from PIL import Image

        def images(seed: int, level: int) -> pa.Table:
            rng = np.random.default_rng([6, seed])
            files = []
            for _ in range(60):
                out = BytesIO()
                pixels = rng.integers(0, 256, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(out, "PNG", compress_level=level)
                files.append({"bytes": out.getvalue(), "path": None})
            type_ = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            return pa.table({"image": pa.array(files, type_)})

        assert images(0, 9) != images(0, 0)
        assert judged(images(0, 9), images(0, 0))["copies"].status == "unmet"
        assert judged(images(1, 9), images(0, 0))["copies"].status == "met"


def test_rows_are_equal_by_value_and_by_column() -> None:
    """Not by the layout in memory; and null is not zero, nor one column's value another's."""
    rows = pa.table({"a": ["x", "y", "x", None], "b": [0.0, 1.0, -0.0, None]})
    first, second, third, missing = row_hashes(rows, ["a", "b"])
    assert first == third
    assert len({first, second, missing}) == 3
    coded = rows.set_column(0, "a", rows.column("a").dictionary_encode())
    assert (row_hashes(coded, ["a", "b"]) == row_hashes(rows, ["a", "b"])).all()
    numbers = pa.table({"a": [1, 2, 0, None], "b": [2, 1, None, 0]})
    assert len(set(row_hashes(numbers, ["a", "b"]).tolist())) == 4


class TestIdentifiers:
    def table(self, seed: int, ids: Any, **more: Any) -> pa.Table:
        table = people(seed, len(ids)).append_column("customer_id", pa.array(ids))
        for name, values in more.items():
            table = table.append_column(name, pa.array(values))
        return table

    def sparse(self, seed: int) -> np.ndarray:
        return np.random.default_rng([7, seed]).choice(10**7, ROWS, replace=False)

    def status(self, made: Any, real: Any, **more: Any) -> str:
        a, b = (self.table(s, ids) for s, ids in ((1, made), (0, real)))
        return judged(a, b, **more)["identifiers"].status

    def test_copied_numbers_are_refused_and_counted_ones_are_not(self) -> None:
        real = self.sparse(0)
        copied = np.where(np.arange(ROWS) < 40, real, 10**7 + np.arange(ROWS))
        assert self.status(copied, real) == "unmet"
        for surrogates in (10**7 + np.arange(ROWS), np.arange(ROWS), self.sparse(1)):
            assert self.status(surrogates, real) == "met"

    @pytest.mark.parametrize("copies", [0, 1, 3, 4])
    def test_copied_numbers_that_pass_are_not_said_to_be_none(self, copies: int) -> None:
        real = self.sparse(0)
        made = np.where(np.arange(ROWS) < copies, real, 10**8 + np.arange(ROWS))
        finding = judged(self.table(1, made), self.table(0, real))["identifiers"]
        assert finding.status == ("unmet" if copies == 4 else "met")
        assert ("no real identifier" in finding.observed) == (copies == 0)
        if copies:
            assert finding.evidence[0].startswith(f"customer_id: {copies} of {ROWS:,} real values")
        if finding.status == "met" and copies:
            words = (
                f"{copies} real identifiers in 1 of 1 columns, no more than counting up may meet"
            )
            assert finding.observed == words

    def test_running_numbers_of_the_source_are_nobodys_secret(self) -> None:
        assert self.status(np.arange(100, ROWS), np.arange(ROWS)) == "met"

    def test_one_copied_text_is_refused(self) -> None:
        real = [uuid.UUID(int=i * 7919 + 2**100).hex for i in range(ROWS)]
        made = [f"syn-{i:010d}" for i in range(ROWS)]
        assert self.status(made, real) == "met"
        assert self.status([real[7], *made[1:]], real) == "unmet"

    def test_texts_with_a_running_number_are_met_by_counting(self) -> None:
        real = [f"ID-{i:07d}" for i in range(ROWS)]
        assert self.status([f"ID-{i:07d}" for i in range(50, 3000)], real) == "met"

    def test_personal_data_of_few_is_refused_and_of_many_is_not(self) -> None:
        """Two in a thousand are called Zoë, all others Ann."""
        real = self.table(0, self.sparse(0), name=["Zoë"] * 8 + ["Ann"] * (ROWS - 8))
        schema = infer_schema(real, {"name": {"kind": "personal"}})
        ids = 10**7 + np.arange(ROWS)
        common = self.table(1, ids, name=["Ann"] * ROWS)
        rare = self.table(1, ids, name=["Zoë"] + ["Ann"] * (ROWS - 1))
        assert judged(common, real, schema)["identifiers"].status == "met"
        found = judged(rare, real, schema)["identifiers"]
        assert found.status == "unmet"
        assert found.evidence == ("name: 1 of 2 real values are shown",)
        declared = {"name": {"kind": "personal", "public": True}}
        public = judged(rare, real, infer_schema(real, declared))
        assert public["identifiers"].status == "met"

    def test_a_copied_identifier_is_refused_whatever_is_said_of_leaks(self) -> None:
        real = self.table(0, self.sparse(0))
        for leaks, cap in (("allow", "audit"), ("warn", "warn"), ("refuse", "enforce")):
            found = judged(real, real, params={"leaks": leaks})
            assert found["identifiers"].status == found["copies"].status == "unmet"
            assert found["identifiers"].at_most == "enforce"
            assert found["copies"].at_most == cap


def moved(table: pa.Table, by: float, seed: int = 0) -> pa.Table:
    """The rows with their incomes and debts multiplied by about 1 ± `by`."""
    rng = np.random.default_rng([3, seed])
    for at, name in enumerate(("income", "debt")):
        values = np.asarray(table.column(name)) * np.exp(by * rng.normal(size=table.num_rows))
        table = table.set_column(at, name, pa.array(values))
    return table


class TestNearCopies:
    def test_rows_that_keep_to_a_real_one_are_found_and_new_rows_are_not(self) -> None:
        real = people(0)
        leaked = mixed(people(1), moved(real, 0.0002), ROWS // 10)
        found = judged(leaked, real)
        assert (found["copies"].status, found["near-copies"].status) == ("met", "unmet")
        assert found["near-copies"].evidence
        assert judged(people(1), real)["near-copies"].status == "met"

    def test_honest_rows_are_as_close_as_real_ones(self) -> None:
        """Over 20 pairs of samples, shares of generated rows agree with the shares of real rows
        within four standard errors."""
        gaps = []
        for seed in range(20):
            real, made = people(2 * seed, 1000), people(2 * seed + 1, 1000)
            gaps += [[c.share - c.real_share for c in closeness(real, made, infer_schema(real))]]
        errors = np.std(gaps, axis=0) / 20**0.5
        assert (np.abs(np.mean(gaps, axis=0)) < 4 * errors).all()
        assert (errors < [0.002, 0.003, 0.005, 0.02]).all()

    def test_two_rows_of_one_person_hide_no_copy_of_either(self) -> None:
        """Everybody has two rows, nearly alike: beside them a near copy is nothing special, unless
        the column is declared that says whose they are."""
        once = people(0, 1000)
        real = pa.concat_tables([once, moved(once, 0.0002, 1)])
        real = real.append_column("who", pa.array([f"p{i % 1000:04d}" for i in range(2000)]))
        made = mixed(people(1, 2000), moved(once, 0.0002, 2), 200)
        made = made.append_column("who", pa.array([f"s{i:04d}" for i in range(2000)]))
        plain = infer_schema(real, {"who": {"role": "id"}})
        entity = infer_schema(real, {"who": {"role": "entity"}})
        assert judged(made, real, plain)["near-copies"].status != "unmet"
        assert judged(made, real, entity)["near-copies"].status == "unmet"

    def test_without_rows_of_their_own_there_is_nothing_to_be_near_to(self) -> None:
        flags = pa.table({"a": [True, False] * 500, "b": [True] * 300 + [False] * 700})
        found = judged(flags, flags)
        assert found["near-copies"].status == found["copies"].status == "met"

    def test_where_chance_may_decide_it_is_said_and_a_leak_is_refused(self) -> None:
        """At 1,500 rows: one honest release of ten is left open."""
        for seed in range(4):
            found = judged(people(2 * seed, 1500), people(2 * seed + 1, 1500))["near-copies"]
            assert found.status in ("met", "inconclusive")
            assert "chance may leave an honest release" in found.observed
        real = people(0, 1500)
        leaked = mixed(people(1, 1500), moved(real, 0.0002), 150)
        assert judged(leaked, real)["near-copies"].status == "unmet"
        assert "chance" not in judged(people(1), people(0))["near-copies"].observed

    def test_what_can_be_judged_is_known_before_fitting(self) -> None:
        limits = {"near": 0.01, "area": 0.55}
        for rows, held in ((1500, 300), (4000, 300), (4000, 1200)):
            real, out, made = people(0, rows), people(1, held), people(2, rows)
            near, area = able_before(real, out, rows, infer_schema(real), **limits)
            found = judged(made, real, held=out)
            assert near == ("chance" not in found["near-copies"].observed) == (rows == 4000)
            assert area == ("chance" not in found["membership"].observed) == (held == 1200)

    def test_few_rows_give_no_verdict(self) -> None:
        assert judged(people(1, 19), people(0))["near-copies"].status == "inconclusive"
        assert judged(people(1), people(0, 19))["near-copies"].status == "inconclusive"


class TestMembership:
    def parts(self, seed: int, rows: int = 3000) -> tuple[pa.Table, pa.Table, pa.Table]:
        return people(3 * seed, rows), people(3 * seed + 1, rows // 3), people(3 * seed + 2, rows)

    def test_rows_trained_on_are_told_only_where_the_generator_kept_to_them(self) -> None:
        real, held, made = self.parts(0)
        honest = judged(made, real, held=held)["membership"]
        assert honest.status == "met"
        low, high = honest.interval or (1, 0)
        assert low < 0.5 < high < 0.55
        leaky = judged(moved(real, 0.02), real, held=held)["membership"]
        assert leaky.status == "unmet"
        assert (leaky.interval or (0, 0))[0] > 0.8

    def test_with_few_rows_held_out_chance_may_decide_and_that_is_said(self) -> None:
        """Of 250 held-out rows the bound of an honest area is below .55 in half of all releases."""
        for seed in range(3):
            real, held, made = (
                people(3 * seed, 1000),
                people(3 * seed + 1, 250),
                people(3 * seed + 2),
            )
            found = judged(made, real, held=held)["membership"]
            assert found.status in ("met", "inconclusive")
            assert "chance may leave an honest release" in found.observed
        assert judged(real, real, held=held)["membership"].status == "unmet"

    def test_for_an_honest_generator_the_area_is_a_half(self) -> None:
        """Twenty samples, all rows and the tails: the mean of (area − ½) / its error is within four
        of its own errors, and the errors are of the right size."""
        scores = []
        for seed in range(20):
            real, held, made = self.parts(seed, 900)
            found = told(real, held, made, infer_schema(real))
            scores.append([(t.area - 0.5) / t.error for t in found])
        assert (np.abs(np.mean(scores, axis=0)) < 4 / 20**0.5).all()
        assert (np.std(scores, axis=0) < 1.6).all()  # of 20 normal numbers in 99.99 %: below 1.6

    def test_rows_held_out_together_with_their_duplicates_prove_nothing(self) -> None:
        """A generator that repeats what is frequent among the rows trained on gives away which
        combinations these are, and no person: rows that have an equal are not asked."""
        flags = pa.table({"a": [True, False] * 500, "b": [True] * 300 + [False] * 700})
        real = flags.filter(flags.column("a"))
        other = flags.filter(pc.invert(flags.column("a")))
        found = judged(real, real, held=other)["membership"]
        assert (found.status, found.interval) == ("met", None)

    def test_what_was_not_measured_is_said(self) -> None:
        real, _, made = self.parts(1)
        unasked = judged(made, real)["membership"]
        assert (unasked.status, unasked.observed[:12]) == ("met", "not measured")
        asked = judged(made, real, params={"held_out": 0.2})["membership"]
        assert (asked.status, asked.at_most) == ("inconclusive", "enforce")

    def test_sequences_cannot_be_held_out_and_are_not_refused_for_it(self) -> None:
        kinds = {"who": {"role": "sequence_key"}}
        parts = [
            t.append_column("who", pa.array([f"{side}{i // 10:04d}" for i in range(1000)]))
            for t, side in ((people(0, 1000), "p"), (people(1, 1000), "s"))
        ]
        found = judged(parts[1], parts[0], infer_schema(parts[0], kinds), params={"held_out": 0.2})
        membership = found["membership"]
        assert (membership.status, membership.at_most) == ("inconclusive", "warn")
        assert found["near-copies"].observed.startswith("not measured")


class TestSmallGroups:
    def names(self, seed: int, **declared: Any) -> tuple[pa.Table, TableSchema]:
        """A tenth of the people have a name of their own or of two, the others one of three."""
        rng = np.random.default_rng([2, seed])
        names = [f"name {i}" for i in rng.integers(0, 3, ROWS)]
        rare = int(declared.pop("rare"))
        names[:rare] = [f"rare {i // 2}" for i in range(rare)]
        table = people(seed).append_column("name", pa.array(names))
        return table, infer_schema(table, {"name": {"kind": "categorical", **declared}})

    @pytest.mark.parametrize(
        ("rare", "declared", "status"),
        [(40, {}, "met"), (2000, {}, "unmet"), (2000, {"public": True}, "met")],
    )
    def test_columns_that_mostly_show_levels_of_few(
        self, rare: int, declared: dict[str, Any], status: str
    ) -> None:
        real, schema = self.names(0, rare=rare, **declared)
        found = judged(self.names(1, rare=rare)[0], real, schema)["small-groups"]
        assert found.status == status
        if "public" not in declared:
            assert found.evidence == (
                f"name: {rare // 2:,} levels of fewer than 10 people, in {rare:,} of 4,000 rows",
            )

    def test_ten_rows_of_one_person_are_one_person(self) -> None:
        rows = people(0, 1000).append_column("town", pa.array([f"t{i // 20}" for i in range(1000)]))
        rows = rows.append_column("who", pa.array([f"p{i // 10}" for i in range(1000)]))
        kinds = {"town": {"kind": "categorical"}, "who": {"role": "id"}}
        assert judged(rows, rows, infer_schema(rows, kinds))["small-groups"].status == "met"
        kinds["who"] = {"role": "entity"}
        assert judged(rows, rows, infer_schema(rows, kinds))["small-groups"].status == "unmet"


def test_without_the_real_rows_nothing_can_be_judged() -> None:
    blind = Release(10, 10, {}, {}, None, {})
    found = PrivacyKept().release(blind, PrivacyParams(severity="enforce"))
    assert [f.status for f in found] == ["broken"]


def test_the_safeguard_conforms() -> None:
    releases = [context(people(1), people(0)), context(people(0), people(0))]
    check_safeguard(PrivacyKept(), PrivacyParams(severity="enforce"), releases=releases)


class Remembering(PrivacyKept):
    """Asked again for the same, it says the same: what takes long is found once."""

    def __init__(self) -> None:
        self._said: dict[Any, Any] = {}

    def release(self, context: Any, params: Any) -> Any:
        this = (id(context), params)
        if this not in self._said:
            self._said[this] = super().release(context, params)
        return self._said[this]


def test_what_it_says_beforehand_of_other_parameters_is_what_it_finds() -> None:
    real = people(0, 1_000)
    releases = [
        context(people(1, 1_000), real, held=people(2, 500)),
        context(mixed(people(1, 1_000), real, 30), real, held=people(2, 500)),
        context(real, real, held=people(2, 500)),
        context(people(1, 200), people(0, 300)),
    ]
    views: list[dict[str, Any]] = [
        {},
        {"copies": 0.0001, "near_copies": 0.001, "membership": 0.501},
        {"copies": 0.2, "near_copies": 0.5, "membership": 0.9, "small_group_rows": 0.001},
        {"leaks": "warn", "small_group": 500},
        {"leaks": "allow", "copies": 0.05},
    ]
    others = [PrivacyParams(severity="enforce", **view) for view in views]
    guard = Remembering()
    for start in others:
        check_safeguard(guard, start, releases=releases, others=others)


def test_no_real_value_is_in_a_finding() -> None:
    real = people(0).append_column("id", pa.array([f"CANARY{i * 7919}" for i in range(ROWS)]))
    found = judged(real, real)
    assert {f.status for f in found.values()} & {"unmet"}
    assert "CANARY" not in str(found)


@pytest.mark.parametrize("times", [1.0, 1.25])
def test_chance_is_rarely_called_more_than_chance(times: float) -> None:
    """At the ratio that is allowed, of 20,000 pairs of counts one in a thousand may be called
    more; four standard errors above that are 19 in 10,000."""
    rng = np.random.default_rng(11)
    counts = rng.poisson([20 * times, 10], (20_000, 2))
    pairs, often = np.unique(counts, axis=0, return_counts=True)
    said = [surely_above(a, 2, b, 1, times=times, alpha=0.001) for a, b in pairs.astype(float)]
    assert often[said].sum() / 20_000 < 0.0019
    assert surely_above(80, 2, 10, 1, times=times, alpha=0.001)


@pytest.mark.parametrize("columns", [1, 2])
def test_few_columns_make_no_rows_look_like_copies(columns: int) -> None:
    """Other rows of one law are as close to real ones as real ones to each other, in any number of
    dimensions."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=8_400)
        y = rng.choice(["a", "b", "c"], 8_400, p=[0.6, 0.3, 0.1])
        table = pa.table({"x": x, "y": y} if columns == 2 else {"x": x, "z": x})
        real, other = table.slice(0, 4_200), table.slice(4_200)
        found = judged(real, other)
        assert found["near-copies"].status != "unmet", found["near-copies"]


# ---- small and odd tables ------------------------------------------------------------------------


@pytest.mark.parametrize("type_", [pa.string(), pa.null(), pa.float64()])
def test_a_column_without_any_value_breaks_nothing(type_: pa.DataType) -> None:
    real, made = (
        people(seed).append_column("empty", pa.array([None] * ROWS, type_)) for seed in (0, 1)
    )
    assert {f.status for f in judged(made, real).values()} == {"met"}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rows", [60, 100, 300])
def test_new_rows_of_few_numbers_are_no_near_copies(rows: int, seed: int) -> None:
    """With every value a knot of the scale real rows would stand evenly, and new ones between."""
    rng = np.random.default_rng([9, rows, seed])
    x = rng.normal(size=2 * rows)
    rare = np.where(rng.random(20 * rows) < 0.97, 0, rng.exponential(size=20 * rows))
    for table in (pa.table({"x": x}), pa.table({"x": x, "y": x**2}), pa.table({"rare": rare})):
        half = table.num_rows // 2
        found = judged(table.slice(half), table.slice(0, half))
        assert found["near-copies"].status != "unmet"


def test_a_decoy_beside_real_texts_hides_none_of_them() -> None:
    """Three real ids, and one that only looks as if it had been counted up to."""
    ids = [f"Q{i * 977:07d}" + "ABCDEFGHIJ"[i % 10] for i in range(ROWS)]
    real = people(0).append_column("who", pa.array(ids))
    schema = infer_schema(real, {"who": {"role": "id"}})
    decoy = ids[3][:-1] + "C"
    assert decoy not in ids
    shown = [*ids[:3], decoy, *(f"new-{i}" for i in range(ROWS - 4))]
    made = people(1).append_column("who", pa.array(shown))
    assert judged(made, real, schema)["identifiers"].status == "unmet"
