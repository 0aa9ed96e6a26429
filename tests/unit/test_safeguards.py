"""The release safeguards on tables made to fail, each beside its honest twin."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from safegen.decision import Finding
from safegen.gates import Admission, Release
from safegen.measure.profile import TableTally, profiles
from safegen.policy import LineageParams, ManifestParams, SchemaParams, SupportParams
from safegen.safeguards.lineage import Lineage
from safegen.safeguards.manifest import ManifestComplete
from safegen.safeguards.schema import SchemaKept
from safegen.safeguards.support import SupportKept
from safegen.tables.schema import infer_schema
from safegen.testing import check_safeguard

ROWS = 4000


def real_table(seed: int = 0, rows: int = ROWS) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "country": pa.array(
                rng.choice(["a", "b", "c", "d"], rows, p=[0.9, 0.08, 0.015, 0.005])
            ),
            "income": pa.array(rng.lognormal(10, 1, rows)),
            "score": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.2),
            "flag": pa.array(rng.random(rows) < 0.4),
        }
    )


def context(staged: pa.Table, real: pa.Table | None = None, **more: Any) -> Release:
    real = real_table() if real is None else real
    schema = infer_schema(real)
    profile = profiles({"table": real}, {"table": schema})["table"]
    tally = TableTally(profile)
    for start in range(0, max(staged.num_rows, 1), 700):
        tally.update(staged.slice(start, 700))
    return Release(
        rows=staged.num_rows,
        units=staged.num_rows,
        conditions={},
        schemas={"table": schema},
        real={"table": profile},
        staged={"table": tally},
        in_band={"table": {"synthetic": staged.num_rows}},
        **more,
    )


def by_check(findings: Any) -> dict[str, Finding]:
    return {f.check: f for f in findings}


def support(staged: pa.Table, **params: Any) -> dict[str, Finding]:
    rule = SupportParams(severity="enforce", **params)
    return by_check(SupportKept().release(context(staged), rule))


def schema(staged: pa.Table, **params: Any) -> dict[str, Finding]:
    rule = SchemaParams(severity="enforce", **params)
    return by_check(SchemaKept().release(context(staged), rule))


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def test_a_faithful_sample_is_admitted_by_every_check() -> None:
    for seed in range(1, 11):
        honest = real_table(seed)
        for found in (support(honest), schema(honest, out_of_range=0.01)):
            assert {f.status for f in found.values()} <= {"met", "inconclusive"}, found


def test_dropped_level_is_refused_and_named_by_rank_not_by_value() -> None:
    """The third most frequent level has 60 real rows; 60 are expected, none is there."""
    table = real_table(1)
    values = [v if v != "c" else "a" for v in table.column("country").to_pylist()]
    found = support(with_column(table, "country", pa.array(values)))
    assert found["levels"].status == "unmet"
    assert "country#3" in found["levels"].evidence[0]
    assert "'c'" not in str(found["levels"])


def test_a_level_is_named_by_its_value_only_where_the_policy_says_so() -> None:
    table = real_table(1)
    values = [v if v != "c" else "a" for v in table.column("country").to_pylist()]
    staged = with_column(table, "country", pa.array(values))
    rule = SupportParams(severity="enforce")
    told = by_check(SupportKept().release(context(staged, real_values=True), rule))
    assert told["levels"].evidence[0].startswith("country#3 ('c')")


def test_a_level_too_rare_at_this_n_is_not_asked_for() -> None:
    table = real_table(1).slice(0, 300)
    values = ["a" if v in ("c", "d") else v for v in table.column("country").to_pylist()]
    found = support(with_column(table, "country", pa.array(values)))
    assert found["levels"].status == "met"
    assert "too rare to judge" in found["levels"].observed


def test_dropped_tail_is_refused() -> None:
    table = real_table(1)
    income = np.asarray(table.column("income"))
    cut = np.clip(income, *np.quantile(income, [0.02, 0.98]))
    found = support(with_column(table, "income", pa.array(cut)))
    assert found["tails"].status == "unmet"
    assert {e.split(":")[0] for e in found["tails"].evidence} == {"income#low", "income#high"}


@pytest.mark.parametrize(
    ("column", "values"),
    [("country", pa.array(["a"] * ROWS)), ("flag", pa.array([True] * ROWS))],
)
def test_a_newly_constant_column_is_refused(column: str, values: pa.Array) -> None:
    found = support(with_column(real_table(1), column, values))
    assert found["constant"].status == "unmet"
    assert found["constant"].evidence == (column,)


def test_a_newly_constant_number_is_refused_and_a_constant_source_is_not() -> None:
    rng = np.random.default_rng(1)
    varying = pa.table({"x": rng.normal(size=100), "y": np.ones(100)})
    constant = pa.table({"x": np.zeros(500), "y": np.ones(500)})
    found = by_check(
        SupportKept().release(context(constant, varying), SupportParams(severity="enforce"))
    )
    assert found["constant"].evidence == ("x",)


def test_three_rows_of_one_value_are_no_proof_of_collapse() -> None:
    """Nine in ten real rows are of one country, so three alike say nothing, and 300 do."""
    table = real_table(1)
    alike = table.filter(pc.equal(table.column("country"), "a")).slice(0, 3)
    assert support(alike)["constant"].status == "met"
    many = table.filter(pc.equal(table.column("country"), "a")).slice(0, 300)
    assert support(many)["constant"].evidence == ("country",)


def test_too_few_rows_to_judge_anything_is_inconclusive_never_met() -> None:
    found = support(real_table(1).slice(0, 5))
    assert found["levels"].status == "inconclusive"
    assert found["tails"].status == "inconclusive"


def test_a_value_outside_the_source_is_refused() -> None:
    table = real_table(1)
    values = table.column("country").to_pylist()
    values[7] = "CANARY"
    found = schema(with_column(table, "country", pa.array(values)), out_of_range=0.0)
    assert found["ranges"].status == "unmet"
    assert "CANARY" not in str(found["ranges"])
    honest = real_table(0)
    assert schema(honest, out_of_range=0.0)["ranges"].status == "met"


def test_another_type_or_a_missing_column_is_refused() -> None:
    table = real_table(1)
    assert schema(table.drop_columns(["flag"]))["columns"].status == "unmet"
    narrow = with_column(table, "income", table.column("income").cast(pa.float32()))
    assert schema(narrow)["columns"].status == "unmet"
    assert schema(table)["columns"].status == "met"


def test_lost_missing_values_are_refused() -> None:
    table = real_table(1)
    found = schema(with_column(table, "score", table.column("score").fill_null(0.0)))
    assert found["missingness"].status == "unmet"
    low, high = found["missingness"].interval or (0, 0)
    assert low < -0.2 < high
    assert schema(table)["missingness"].status in ("met", "inconclusive")


def test_missingness_at_small_n_is_inconclusive() -> None:
    assert schema(real_table(1).slice(0, 100))["missingness"].status == "inconclusive"


def test_nobody_is_told_to_ask_for_rows_that_cannot_settle_it() -> None:
    """A source of few rows is as uncertain as ever, however many are generated."""
    rule = SchemaParams(severity="enforce")

    def advice(rows: int) -> str:
        found = SchemaKept().release(context(real_table(1, 100), real_table(0, rows)), rule)
        return by_check(found)["missingness"].next_step or ""

    assert "raise missing_margin" in advice(300)
    assert advice(20_000).startswith("ask for more rows")


@pytest.mark.parametrize("guard", [SchemaKept(), SupportKept()])
def test_without_the_real_rows_nothing_can_be_judged(guard: Any) -> None:
    blind = Release(10, 10, {}, {}, None, {})
    params = {"schema": SchemaParams, "support": SupportParams}[guard.rule](severity="enforce")
    assert [f.status for f in guard.release(blind, params)] == ["broken"]


def test_untagged_rows_are_refused() -> None:
    params = ManifestParams(severity="enforce")
    whole = context(real_table(1))
    partly = Release(
        whole.rows, whole.units, {}, whole.schemas, None, {}, {"table": {"synthetic": 3}}
    )
    assert by_check(ManifestComplete().release(whole, params))["in-band"].status == "met"
    assert by_check(ManifestComplete().release(partly, params))["in-band"].status == "unmet"


def test_a_missing_signature_is_refused_where_one_is_required() -> None:
    params = ManifestParams(severity="enforce", signature="required")
    for signer, status in (("0" * 64, "met"), (None, "unmet")):
        found = by_check(ManifestComplete().release(context(real_table(1), signer=signer), params))
        assert found["signature"].status == status


def test_shipped_safeguards_conform() -> None:
    full = real_table(1)
    release = context(full)
    thin = full.slice(0, 300)
    odd = with_column(full, "score", pa.array(np.random.default_rng(1).normal(size=ROWS)))
    strange = with_column(full, "income", pa.array(np.linspace(-1, 1, ROWS)))
    releases = [release, context(thin), context(odd), context(strange), context(full.slice(0, 20))]
    for start in (_support(), _support(min_real_rows=2000), _support(min_expected=500.0)):
        others = [_support(min_real_rows=5), _support(min_expected=1.0), _support(tail=0.05)]
        check_safeguard(SupportKept(), start, releases=releases, others=[*others, _support()])
    margins = [
        SchemaParams(severity="enforce", missing_margin=m, out_of_range=r)
        for m, r in ((0.02, 0.0), (0.0, 0.5), (0.05, 0.001), (0.1, 1.0), (0.19, 0.0), (0.5, 0.0))
    ]
    for start in margins:
        check_safeguard(SchemaKept(), start, releases=releases, others=margins)
    asked: list[dict[str, Any]] = [{}, {"signature": "required"}, {"c2pa": "required"}]
    asked += [{"in_band": "optional", "signature": "required"}, {"signers": 2}]
    asked += [{"made_under": ("sha256:" + "a" * 64,)}]
    signed = [ManifestParams(severity="enforce", **more) for more in asked]
    admission = Admission([], {"datasets": 0})
    for start in signed:
        check_safeguard(
            ManifestComplete(), start, admissions=[admission], releases=releases, others=signed
        )
    doubted = Admission([], {"datasets": 0}, ("it came from nobody knows where",))
    views: list[dict[str, Any]] = [{}, {"unattested": "refuse"}, {"max_synthetic_share": 0.5}]
    views += [{"unattested": "allow", "ledger": "required"}, {"search_share": 0.5}]
    lineages = [LineageParams(severity="enforce", **more) for more in views]
    for start in lineages:
        check_safeguard(Lineage(), start, admissions=[admission, doubted], others=lineages)


def _support(**more: Any) -> SupportParams:
    return SupportParams(severity="enforce", **more)


def test_the_battery_finds_a_safeguard_that_foretells_wrong() -> None:
    class Hasty(SchemaKept):
        rests_on: ClassVar[Any] = {}

        @staticmethod
        def again(finding: Finding, before: Any, after: Any) -> list[Finding]:
            return [finding]

    class Forgetful(SchemaKept):
        rests_on: ClassVar[Any] = {**SchemaKept.rests_on, "missingness": ()}

    class Unasked(ManifestComplete):
        on_demand: ClassVar[Any] = {}

    lost = context(with_column(real_table(1), "score", pa.array(np.zeros(ROWS))))
    strict, loose = (SchemaParams(severity="enforce", missing_margin=m) for m in (0.02, 0.5))
    optional = ManifestParams(severity="enforce")
    required = ManifestParams(severity="enforce", c2pa="required")
    check_safeguard(SchemaKept(), strict, releases=[lost], others=[loose])
    for guard, said in ((Hasty(), "again tells wrong"), (Forgetful(), "rests on more")):
        with pytest.raises(AssertionError, match=said):
            check_safeguard(guard, strict, releases=[lost], others=[loose])
    for params in ((optional, required), (required, optional)):
        check_safeguard(ManifestComplete(), params[0], releases=[lost], others=[params[1]])
        with pytest.raises(AssertionError, match="on_demand"):
            check_safeguard(Unasked(), params[0], releases=[lost], others=[params[1]])


def test_the_battery_finds_a_silent_safeguard() -> None:
    class Silent:
        rule = "support"

        def admission(self, context: Any, params: Any) -> list[Finding]:
            return []

        def release(self, context: Any, params: Any) -> list[Finding]:
            return []

    with pytest.raises(AssertionError, match="silent"):
        check_safeguard(
            Silent(), SupportParams(severity="enforce"), releases=[context(real_table(1))]
        )


def test_chance_refuses_no_honest_table_of_many_nullable_columns() -> None:
    """Twelve nullable columns, 200 honest samples of 20 to 100 rows: none is refused (seeds 0-199);
    the same tables without their missing values are, as soon as there are rows enough to tell."""

    def table(seed: int, rows: int) -> pa.Table:
        rng = np.random.default_rng([9, seed])
        return pa.table(
            {
                f"x{i:02d}": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.03 * (i + 1))
                for i in range(12)
            }
        )

    real = table(999, 3000)
    rule = SchemaParams(severity="enforce", out_of_range=1.0)
    for seed in range(200):
        found = by_check(SchemaKept().release(context(table(seed, 20 + seed % 81), real), rule))
        assert found["missingness"].status != "unmet", seed
    lost = pa.table({n: real.column(n).fill_null(0.0) for n in real.schema.names})
    found = by_check(SchemaKept().release(context(lost.slice(0, 200), real), rule))
    assert found["missingness"].status == "unmet"
