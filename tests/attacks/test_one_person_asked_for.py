"""Way round: ask for rows like one person's, and read from what is selected who that person is.

Selection gives candidates the shares of the real rows that meet the conditions. Of one such row
these are that person's values, in every column.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import safegen
from safegen.errors import UsageError
from safegen.policy import NamedStratum, Policy, SelectionParams, TailsParams
from safegen.shaping.shape import PEOPLE, shape_for
from safegen.tables.schema import infer_schema
from safegen.tables.splits import split

# Rows are looked at here, and nothing is trained on them.
pytestmark = pytest.mark.filterwarnings("ignore:.*its rows count differently")

FLAGS = [f"flag{i}" for i in range(12)]


def people(rows: int = 3_000) -> pa.Table:
    """Flags that one in four has, and a code that few people share, most of them nobody."""
    rng = np.random.default_rng(0)
    code = np.where(rng.random(rows) < 0.3, 7, rng.integers(1_000, 4_000, rows))
    flags = {name: rng.random(rows) < 0.25 for name in FLAGS}
    return pa.table({**flags, "code": code})


def unique_codes(table: pa.Table) -> list[int]:
    values, counts = np.unique(np.asarray(table.column("code")), return_counts=True)
    return [int(v) for v in values[counts == 1]]


def policy(**rules: Any) -> Policy:
    lab = Policy.load("lab")
    return lab.model_copy(update={"rules": {**lab.rules, **rules}})


SELECTING = SelectionParams(severity="enforce")


@pytest.fixture
def fitted(tmp_path: Path) -> safegen.Generator:
    off = {
        n: Policy.load("lab").rule(n).model_copy(update={"severity": "off"})
        for n in ("fidelity", "privacy")
    }
    rules = policy(selection=SELECTING, **off)
    gen = safegen.Generator(policy=rules, ledger=tmp_path / "ledger.db")
    return gen.fit(people())


def test_rows_like_one_person_s_do_not_have_that_person_s_values(
    fitted: safegen.Generator, tmp_path: Path
) -> None:
    table = people()
    shown = had = 0
    for code in unique_codes(table)[:3]:
        made = fitted.generate(200, tmp_path / str(code), conditions={"code": code})
        person = table.filter(pa.compute.equal(table.column("code"), code)).to_pylist()[0]
        rows = made.to_arrow()
        for name in FLAGS:
            if person[name]:
                had += 1
                shown += np.mean(np.asarray(rows.column(name))) > 0.5
        done = made.manifest.safeguards["selection"]["done"]
        assert done["method"] == "none"
        assert any("nothing was selected" in w for w in made.manifest.warnings)
    assert had > 4
    assert shown == 0


def test_rows_like_those_of_many_are_selected(fitted: safegen.Generator, tmp_path: Path) -> None:
    made = fitted.generate(200, tmp_path / "many", conditions={"code": 7})
    assert made.manifest.safeguards["selection"]["done"]["method"] == "raking"
    assert not [w for w in made.manifest.warnings if w.startswith("selection")]


@pytest.mark.parametrize(("each", "method"), [(1, "raking"), (PEOPLE, "none")])
def test_many_rows_of_one_person_are_one(each: int, method: str) -> None:
    table = people(PEOPLE * 2)
    who = pa.array(np.arange(table.num_rows) // (2 * each))
    table = table.append_column("who", who)
    schema = infer_schema(table, {"who": {"role": "entity"}})

    def draw(rows: int) -> pa.Table:
        return table.take(pa.array(np.random.default_rng(1).integers(0, table.num_rows, rows)))

    shape = shape_for(table, schema, policy(selection=SELECTING), draw, seed=1)
    assert shape.facts["selection"]["method"] == method


@pytest.mark.parametrize(
    "rules", [{"selection": SELECTING}, {"tails": TailsParams(severity="warn")}]
)
def test_a_condition_that_only_rows_held_out_meet_ends_in_a_release(
    rules: dict[str, Any], tmp_path: Path
) -> None:
    """There is nothing to select or to boost by, and that is said."""
    table = people(1_500)
    lab = Policy.load("lab")
    held_out = lab.rule("fidelity").model_copy(update={"severity": "audit", "held_out": 0.2})
    gen = safegen.Generator(
        policy=policy(fidelity=held_out, **rules), ledger=tmp_path / "ledger.db"
    ).fit(table)
    levels = [c.name for c in gen.schemas["table"].columns if c.kind != "numeric"]
    parts = split(table, 0.2, levels=levels)
    seen = set(np.asarray(parts.anchor.column("code")).tolist())
    code = next(c for c in np.asarray(parts.held.column("code")).tolist() if c not in seen)
    made = gen.generate(20, tmp_path / "out", conditions={"code": code})
    assert set(made.to_arrow().column("code").to_pylist()) == {code}


def test_a_region_that_nobody_is_in_is_said_and_one_that_cannot_be_found_at_once(
    tmp_path: Path,
) -> None:
    table = people(1_000)
    named = (NamedStratum(column="code", equals=7), NamedStratum(column="code", above=1e9))
    rule = TailsParams(severity="warn", strata=named)
    gen = safegen.Generator(policy=policy(tails=rule), ledger=tmp_path / "ledger.db").fit(table)
    made = gen.generate(400, tmp_path / "out")
    done = made.manifest.safeguards["tails"]["done"]
    assert done["too_few_rows"] == ["named#2"]
    assert "named#1" in [s["id"] for s in done["strata"]]
    assert any("named#2" in w for w in made.manifest.warnings)
    for wrong in (NamedStratum(column="kode", equals=7), NamedStratum(column="code", equals="x")):
        rule = TailsParams(severity="warn", strata=(wrong,))
        gen = safegen.Generator(policy=policy(tails=rule), ledger=tmp_path / "other.db")
        with pytest.raises(UsageError, match="the policy names a stratum of column"):
            gen.fit(table)
        assert gen._model is None
