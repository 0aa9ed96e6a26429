"""The fidelity safeguard: every refusal beside its honest twin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from safegen.decision import Finding
from safegen.gates import Release
from safegen.measure.drawn import Drawn
from safegen.measure.questions import design_effects, judged_counts
from safegen.policy import FidelityParams
from safegen.safeguards.fidelity import FidelityKept
from safegen.tables.schema import TableSchema, infer_schema
from safegen.testing import check_safeguard

ROWS = 12_000
CANARY = "CANARY"
ROLES: dict[str, dict[str, Any]] = {"bought": {"role": "target"}}


def law(seed: int, rows: int = ROWS) -> pa.Table:
    rng = np.random.default_rng([11, seed])
    x = rng.normal(size=rows)
    shares = np.array([0.5, 0.3, 0.16, 0.008, 0.008, 0.008, 0.008, 0.008])
    levels = np.array([CANARY, *"bcdefgh"])
    return pa.table(
        {
            "x": x,
            "pay": np.exp(x + rng.normal(size=rows)),
            "near": x + 0.1 * rng.normal(size=rows),
            "kind": rng.choice(levels, rows, p=shares),
            "bought": np.where(x + rng.normal(size=rows) > 0.5, "yes", "no"),
        }
    )


def context(
    real: pa.Table,
    made: pa.Table,
    weights: np.ndarray | None = None,
    held: pa.Table | None = None,
    schema: TableSchema | None = None,
    depth: int = 1,
) -> Release:
    return Release(
        rows=made.num_rows,
        units=made.num_rows,
        conditions={},
        schemas={
            "table": schema or infer_schema(real, ROLES if "bought" in real.schema.names else {})
        },
        real=None,
        staged={},
        anchor={"table": real},
        held={"table": real.slice(0, 0) if held is None else held},
        made={"table": Drawn(made, np.ones(made.num_rows) if weights is None else weights)},
        depth=depth,
    )


def judge(where: Release, **given: Any) -> dict[str, Finding]:
    params = FidelityParams(severity="enforce", **given)
    return {f.check: f for f in FidelityKept().release(where, params)}


def statuses(where: Release, **given: Any) -> dict[str, str]:
    return {check: f.status for check, f in judge(where, **given).items()}


def put(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values))


def of(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table.column(name).to_numpy(zero_copy_only=False))


def thinned(table: pa.Table, keep: float) -> pa.Table:
    kind, rng = of(table, "kind").copy(), np.random.default_rng(0)
    kind[np.isin(kind, list("defgh")) & (rng.random(len(kind)) > keep)] = "b"
    return put(table, "kind", kind)


ALL_MET = dict.fromkeys(("marginals", "pairs", "tails", "rare"), "met")


def test_a_faithful_sample_meets_every_question() -> None:
    for seed in range(5):
        assert statuses(context(law(2 * seed), law(2 * seed + 1))) == ALL_MET


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        ("marginals", lambda t: put(t, "x", of(t, "x") + 0.5)),
        ("marginals", lambda t: put(t, "kind", np.where(of(t, "kind") == "b", "c", of(t, "kind")))),
        ("pairs", lambda t: put(t, "near", np.random.default_rng(0).permutation(of(t, "near")))),
        ("tails", lambda t: put(t, "pay", np.minimum(of(t, "pay"), 5.0))),
        ("rare", lambda t: thinned(t, 0.3)),
    ],
)
def test_a_fault_is_refused_by_the_question_about_it(check: str, fault: Any) -> None:
    real, made = law(1), law(2)
    found = judge(context(real, fault(made)))
    assert found[check].status == "unmet"
    assert found[check].evidence
    assert found[check].next_step
    assert judge(context(real, made))[check].status == "met"


def test_too_few_rows_are_inconclusive_and_never_met() -> None:
    found = statuses(context(law(1, 40), law(2, 40)))
    assert found.pop("rare") == "met"  # there is no rare level of 30 rows
    assert set(found.values()) == {"inconclusive"}


def test_findings_name_columns_and_ranks_and_never_values() -> None:
    real, made = law(1), thinned(law(2), 0.2)
    made = put(made, "kind", np.where(of(made, "kind") == CANARY, "b", of(made, "kind")))
    found = judge(context(real, made))
    assert "kind#" in str(found["rare"].evidence)
    assert "kind" in str(found["marginals"].evidence)
    assert CANARY not in str(found)


def test_every_number_has_an_interval_a_method_and_an_n() -> None:
    held = law(3, 1_000)
    real = law(1, 3_100)
    for made in (law(2, 3_100), put(law(2, 3_200), "x", of(law(2, 3_200), "x") + 1)):
        for finding in judge(context(real, made, held=held)).values():
            assert finding.interval is not None, finding
            assert finding.interval[0] <= finding.interval[1]
            assert finding.n in (made.num_rows, held.num_rows)
            assert "95 %" in (finding.method or "")


def test_oversampled_rows_need_their_weights() -> None:
    """Rare rows five times as often: with weights of a fifth nothing has changed."""
    real, made = law(1), law(2)
    rare = np.isin(of(made, "kind"), list("defgh"))
    at = np.concatenate([np.flatnonzero(~rare), np.repeat(np.flatnonzero(rare), 5)])
    boosted = made.take(pa.array(at))
    weights = np.where(rare[at], 0.2, 1.0)
    assert statuses(context(real, boosted, weights)) == ALL_MET
    assert statuses(context(real, boosted))["rare"] == "unmet"


def test_a_deep_release_has_less_to_spend_on_refusals() -> None:
    """The first release may be refused at p = .03, the tenth at .0003; met is met at any depth."""
    real = law(1)
    for shift in np.linspace(0.12, 0.4, 30):
        made = put(law(2), "x", of(law(2), "x") + shift)
        first, tenth = (
            judge(context(real, made, depth=depth))["marginals"].status for depth in (1, 10)
        )
        assert not (tenth == "unmet" and first != "unmet")
        if first == "unmet" and tenth == "inconclusive":
            break
    else:
        pytest.fail("depth makes no difference")
    assert statuses(context(real, law(2), depth=10)) == ALL_MET


class TestUtility:
    def test_nothing_is_said_where_nothing_is_held_out_and_nothing_asked(self) -> None:
        assert "utility" not in judge(context(law(1), law(2)))

    def test_a_lost_dependence_is_refused_and_a_kept_one_is_not(self) -> None:
        real, made, held = law(1), law(2), law(3, 3_000)
        labels = np.random.default_rng(0).permutation(of(made, "bought"))
        broken = judge(context(real, put(made, "bought", labels), held=held))["utility"]
        kept = judge(context(real, made, held=held))["utility"]
        assert (broken.status, kept.status) == ("unmet", "met")
        assert broken.n == 3_000
        assert "AUC" in broken.observed

    def test_asked_for_without_rows_to_test_on_is_inconclusive(self) -> None:
        found = judge(context(law(1), law(2)), held_out=0.2)["utility"]
        assert found.status == "inconclusive"
        assert found.next_step

    def test_without_a_target_there_is_nothing_to_predict(self) -> None:
        real = law(1)
        where = context(real, law(2), held=law(3, 500), schema=infer_schema(real))
        assert "utility" not in judge(where, held_out=0.2)


class TestKinds:
    def test_rows_of_few_sequences_are_not_taken_for_many(self) -> None:
        """Eight sequences of 500 rows that repeat one value each: eight facts, not 4,000."""

        def table(seed: int) -> pa.Table:
            rng = np.random.default_rng([12, seed])
            return pa.table(
                {
                    "who": np.repeat([f"s{i}" for i in range(8)], 500),
                    "x": np.repeat(rng.normal(size=8), 500),
                    "l": np.repeat(rng.choice(list("ab"), 8), 500),
                }
            )

        real = table(1)
        schema = infer_schema(real, {"who": {"role": "sequence_key"}})
        assert design_effects({"table": real}, {"table": schema}) == {"table": 500}
        for seed in range(2, 12):
            found = statuses(context(real, table(seed), schema=schema))
            assert "unmet" not in found.values()
            assert found["marginals"] == "inconclusive"
        plain = infer_schema(real, {"who": {"kind": "id"}})
        assert statuses(context(real, table(2), schema=plain))["marginals"] == "unmet"

    def test_related_tables_are_judged_each_by_its_own_rows(self) -> None:
        def tables(seed: int) -> dict[str, pa.Table]:
            rng = np.random.default_rng([13, seed])
            parents = pa.table({"key": np.arange(3_000), "x": rng.normal(size=3_000)})
            children = pa.table(
                {"key": np.repeat(np.arange(3_000), 2), "y": rng.normal(size=6_000)}
            )
            return {"parents": parents, "children": children}

        real, made = tables(1), tables(2)
        schemas = {
            "parents": infer_schema(real["parents"], {"key": {"role": "key"}}),
            "children": infer_schema(
                real["children"], {"key": {"kind": "id", "references": "parents.key"}}
            ),
        }
        assert design_effects(real, schemas) == {"parents": 1, "children": 2}
        wrong = {**made, "children": put(made["children"], "y", of(made["children"], "y") + 1)}
        for staged, status in ((made, "met"), (wrong, "unmet")):
            drawn = {n: Drawn(t, np.ones(t.num_rows)) for n, t in staged.items()}
            where = Release(9_000, 3_000, {}, schemas, None, {}, real, {}, drawn)
            found = judge(where)["marginals"]
            assert found.status == status
            if status == "unmet":
                assert "children.y" in found.evidence[0]

    def test_images_are_judged_by_their_classes_only(self) -> None:
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

        def table(share: float, seed: int) -> pa.Table:
            rng = np.random.default_rng([14, seed])
            label = (rng.random(8_000) < share).astype(np.int64)
            pictures = pa.array([{"bytes": b"x", "path": None}] * 8_000, image)
            return pa.table({"image": pictures, "label": label})

        real = table(0.3, 1)
        assert statuses(context(real, table(0.3, 2)))["marginals"] == "met"
        assert statuses(context(real, table(0.5, 2)))["marginals"] == "unmet"

    def test_a_table_without_anything_to_compare_is_no_obstacle(self) -> None:
        real = pa.table({"id": np.arange(500)})
        found = judge(context(real, real))
        assert set(statuses(context(real, real)).values()) == {"met"}
        assert "no columns" in found["marginals"].observed


def test_without_the_real_rows_nothing_can_be_judged() -> None:
    blind = Release(10, 10, {}, {}, None, {})
    assert [f.status for f in judge(blind).values()] == ["broken"]


def test_conditions_that_no_real_row_meets_leave_it_open() -> None:
    real = law(1)
    assert set(
        statuses(context(real.slice(0, 0), law(2, 500), schema=infer_schema(real))).values()
    ) == {"inconclusive"}


def test_a_missing_column_is_not_compared_and_not_met() -> None:
    real = law(1)
    found = statuses(context(real, law(2).drop_columns(["pay"])))
    assert set(found.values()) == {"inconclusive"}


def test_what_can_be_judged_is_known_before_fitting() -> None:
    real = law(1)
    params = FidelityParams(severity="enforce")
    schemas = {"table": infer_schema(real)}
    few, many = (judged_counts({"table": real}, schemas, n, params) for n in (500, ROWS))
    assert few["marginals"] == (0, 5)
    assert many["marginals"] == (5, 5)
    for check, found in many.items():
        said = judge(context(real, law(2)))[check].observed
        assert f"{found[0]} of {found[1]} " in said


def test_sequences_are_asked_for_by_number_and_judged_by_rows() -> None:
    """Three thousand sequences of four rows each, as many asked for: 12,000 rows on either side,
    worth 3,000."""
    rng = np.random.default_rng(0)
    real = pa.table({"who": np.repeat(np.arange(3_000).astype(str), 4), "x": rng.normal(size=ROWS)})
    schemas = {"table": infer_schema(real, {"who": {"role": "sequence_key"}})}
    plain = {"table": infer_schema(real, {"who": {"kind": "id"}})}
    params = FidelityParams(severity="enforce", column_margin=0.05)
    tables = {"table": real}
    assert judged_counts(tables, schemas, 3_000, params)["marginals"] == (0, 1)
    assert judged_counts(tables, plain, ROWS, params)["marginals"] == (1, 1)
    assert judged_counts(tables, plain, 3_000, params)["marginals"] == (0, 1)


def test_the_safeguard_conforms() -> None:
    params = FidelityParams(severity="enforce")
    check_safeguard(FidelityKept(), params, releases=[context(law(1, 500), law(2, 500))])


@pytest.mark.parametrize("seed", range(3))
def test_few_rows_of_many_columns_are_not_refused_for_what_chance_shows(seed: int) -> None:
    """KS between 100 rows and 2,000 of one law is .09 in the mean, and the margin is .05."""
    rng = np.random.default_rng([12, seed])
    table = pa.table({f"x{i}": rng.normal(size=2_100) for i in range(30)})
    real, made = table.slice(0, 2_000), table.slice(2_000)
    assert judge(context(real, made))["marginals"].status != "unmet"
    off = pa.table({c: pa.array(of(made, c) + 1.0) for c in made.column_names})
    assert judge(context(real, off))["marginals"].status == "unmet"


@pytest.mark.parametrize("seed", range(3))
def test_tails_of_columns_that_are_mostly_missing_count_the_rows_with_a_value(seed: int) -> None:
    """40 of 2,000 rows have a value: two in a tail of 5 % prove nothing."""
    rng = np.random.default_rng([13, seed])
    columns = {f"x{i}": rng.normal(size=4_000) for i in range(4)}
    table = pa.table({c: pa.array(x, mask=rng.random(4_000) < 0.98) for c, x in columns.items()})
    found = judge(context(table.slice(0, 2_000), table.slice(2_000)))["tails"]
    assert found.status == "inconclusive"
    assert "all in too few rows" in found.observed


def test_rows_of_one_level_of_the_target_are_not_asked_to_tell_it_apart() -> None:
    where = replace(context(law(0), law(1), held=law(2)), conditions={"bought": "yes"})
    assert "utility" not in judge(where)
    assert "utility" in judge(replace(where, conditions={"kind": "b"}))
