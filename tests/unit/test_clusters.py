"""Rows that hang together are one piece of evidence: the gate on sequences and related tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from safegen.decision import Finding
from safegen.gates import Release
from safegen.measure.clusters import independent_units
from safegen.measure.profile import TableTally, profiles
from safegen.policy import SchemaParams, SupportParams
from safegen.safeguards.schema import SchemaKept
from safegen.safeguards.support import SupportKept
from safegen.tables.relations import related
from safegen.tables.schema import TableSchema, infer_schema

Tables = dict[str, pa.Table]
Schemas = dict[str, TableSchema]


def judged(real: Tables, made: Tables, schemas: Schemas, asked: int) -> dict[str, Finding]:
    found = profiles(real, schemas)
    tallies = {n: TableTally(p) for n, p in found.items()}
    for name, table in made.items():
        tallies[name].update(table)
    rows = sum(t.num_rows for t in made.values())
    context = Release(rows, asked, {}, schemas, found, tallies)
    support = SupportKept().release(context, SupportParams(severity="enforce"))
    schema = SchemaKept().release(context, SchemaParams(severity="enforce"))
    return {f.check: f for f in (*support, *schema)}


# ---- sequences -----------------------------------------------------------------------------------

SEQUENCES, STEPS = 200, 40


def sequences(seed: int = 0) -> pa.Table:
    """A level and a tail that stand in one sequence; a level in 60; missing by sequence."""
    rng = np.random.default_rng(seed)
    key = np.repeat(np.arange(SEQUENCES), STEPS)
    level = rng.choice(["a", "b"], len(key)).astype(object)
    level[(key % 10 < 3) & (rng.random(len(key)) < 0.5)] = "many"
    level[key == 7] = "one"
    number = rng.normal(size=len(key))
    number[key == 11] += 40
    return pa.table(
        {
            "key": key,
            "level": level.tolist(),
            "number": number,
            "gap": pa.array(rng.normal(size=len(key)), mask=key % 8 == 0),
            "same": np.where(key == 3, "y", "x"),  # varies, and in one sequence only
        }
    )


def sequence_schema(table: pa.Table) -> Schemas:
    return {"table": infer_schema(table, {"key": {"role": "sequence_key"}})}


def drawn_whole(table: pa.Table, rng: np.random.Generator, count: int) -> pa.Table:
    """A perfect generator: whole sequences of the source, drawn with replacement."""
    picks = rng.integers(0, SEQUENCES, count)
    rows = (picks[:, None] * STEPS + np.arange(STEPS)).ravel()
    made = table.take(pa.array(rows))
    return made.set_column(0, "key", pa.array(np.repeat(np.arange(count), STEPS)))


def test_chance_refuses_no_perfect_generator_of_sequences() -> None:
    """200 releases of 100 to 200 sequences: at most 1 % may be refused (seed 4)."""
    real = {"table": sequences()}
    schemas = sequence_schema(real["table"])
    rng = np.random.default_rng(4)
    refused: list[str] = []
    for run in range(200):
        count = 100 + run // 2
        made = drawn_whole(real["table"], rng, count)
        found = judged(real, {"table": made}, schemas, count)
        refused += [f.check for f in found.values() if f.status == "unmet"]
    assert len(refused) <= 2, refused


def test_what_many_sequences_hold_is_missed_when_it_is_lost() -> None:
    real = {"table": sequences()}
    schemas = sequence_schema(real["table"])
    made = drawn_whole(real["table"], np.random.default_rng(5), 200)
    honest = judged(real, {"table": made}, schemas, 200)
    assert honest["levels"].status == "met"
    assert "in too few real sequences to judge" in honest["levels"].observed
    assert honest["levels"].n == 200
    level = np.asarray(made.column("level"))
    lost = made.set_column(1, "level", pa.array(np.where(level == "many", "a", level).tolist()))
    found = judged(real, {"table": lost}, schemas, 200)["levels"]
    assert found.status == "unmet"
    assert "0 of 200 sequences, 60 expected" in found.evidence[0]
    whole = made.set_column(3, "gap", made.column("gap").fill_null(0.0))
    assert judged(real, {"table": whole}, schemas, 200)["missingness"].status == "unmet"
    assert honest["missingness"].status == "inconclusive"  # 200 sequences settle no 2 %


def test_a_column_that_collapses_in_every_sequence_is_refused() -> None:
    real = {"table": sequences()}
    schemas = sequence_schema(real["table"])
    made = drawn_whole(real["table"], np.random.default_rng(6), 50)
    flat = made.set_column(1, "level", pa.array(["a"] * made.num_rows))
    assert judged(real, {"table": flat}, schemas, 50)["constant"].evidence == ("level",)
    assert judged(real, {"table": made}, schemas, 50)["constant"].status == "met"


def test_what_can_never_be_judged_is_inconclusive_and_asks_for_real_sequences() -> None:
    """Twenty sequences of a hundred rows: none of 30 can be missed, however many are made."""
    key = np.repeat(np.arange(20), 100)
    table = pa.table({"key": key, "level": np.where(key % 2, "x", "y")})
    found = judged({"table": table}, {"table": table}, sequence_schema(table), 20)["levels"]
    assert found.status == "inconclusive"
    assert str(found.next_step).startswith("fit on more real sequences")


def test_advice_speaks_of_what_can_be_asked_for() -> None:
    real = {"table": sequences()}
    schemas = sequence_schema(real["table"])
    made = drawn_whole(real["table"], np.random.default_rng(7), 4)
    found = judged(real, {"table": made}, schemas, 4)["levels"]
    assert found.status == "inconclusive"
    assert found.next_step == "ask for more sequences"
    assert "with 4 sequences" in found.observed


# ---- related tables ------------------------------------------------------------------------------

SHOPS, BUYERS = 120, 90


def trade(shops: Any, buyers: Any) -> tuple[Tables, Schemas]:
    """Shops with tills with sales by buyers, of the shops and buyers drawn: all with them.

    Ten tills to a shop, three sales to a till; `rare` stands in one shop only, `usual` in one till
    of each shop; `his` in what one buyer bought, everywhere.
    """
    shop = np.repeat(shops, 10)  # of each till, which shop of the source it is
    own = np.repeat(np.arange(len(shops)), 10)
    sale = np.repeat(np.arange(len(shop)), 3)
    what = np.where(shop[sale] == 5, "rare", np.where(sale % 10 == 0, "usual", "other"))
    buyer = (sale * 7 + np.arange(len(sale)) // 11) % len(buyers)
    tables = {
        "shop": pa.table({"shop_id": np.arange(len(shops)), "size": np.arange(len(shops)) % 3}),
        "buyer": pa.table({"buyer_id": 9_000 + np.arange(len(buyers)), "age": buyers % 7}),
        "till": pa.table({"till_id": 70_000 + np.arange(len(shop)), "shop_id": own}),
        "sale": pa.table(
            {
                "till_id": 70_000 + sale,
                "buyer_id": 9_000 + buyer,
                "what": what,
                "who": np.where(buyers[buyer] == 8, "his", "all"),
            }
        ),
    }
    return tables, related(tables, {n: infer_schema(t) for n, t in tables.items()}, {})


def test_a_sale_hangs_on_its_shop_and_on_its_buyer() -> None:
    tables, schemas = trade(np.arange(SHOPS), np.arange(BUYERS))
    units = independent_units(tables, schemas)
    assert [(u.noun, u.count) for u in units["sale"]] == [
        ("rows of shop", SHOPS),
        ("rows of buyer", BUYERS),
    ]
    codes = units["sale"][0].codes
    assert codes is not None
    assert codes.tolist() == np.repeat(np.arange(SHOPS), 30).tolist()
    assert [u.noun for u in units["shop"]] == ["rows"]
    column = profiles(tables, schemas)["sale"].columns["what"]
    assert column.spreads[0].held["rare"] == 1 < column.spreads[1].held["rare"]
    assert column.spreads[0].held["usual"] == SHOPS - 1


def test_chance_refuses_no_perfect_generator_of_related_tables() -> None:
    """Shops drawn with all that is in them, buyers with all that they bought (seed 8)."""
    real, schemas = trade(np.arange(SHOPS), np.arange(BUYERS))
    rng = np.random.default_rng(8)
    refused = []
    for _ in range(60):
        made, _ = trade(rng.integers(0, SHOPS, 80), rng.integers(0, BUYERS, 60))
        found = judged(real, made, schemas, 140)
        refused += [f.check for f in found.values() if f.status == "unmet"]
    assert not refused


def test_what_many_shops_hold_is_missed_when_it_is_lost() -> None:
    real, schemas = trade(np.arange(SHOPS), np.arange(BUYERS))
    found = judged(real, real, schemas, SHOPS + BUYERS)["levels"]
    assert found.status == "met"
    assert found.n == SHOPS + BUYERS
    what = np.asarray(real["sale"].column("what"))
    kept = pa.array(np.where(what == "usual", "other", what))
    made = {**real, "sale": real["sale"].set_column(2, "what", kept)}
    found = judged(real, made, schemas, SHOPS + BUYERS)["levels"]
    assert found.status == "unmet"
    assert "sale.what#2" in found.evidence[0]
    assert "rows of" in found.evidence[0]


# ---- plain tables --------------------------------------------------------------------------------


def test_in_a_plain_table_every_row_is_a_unit() -> None:
    """Its counts are those of rows, to the last digit."""
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "x": pa.array(rng.choice(["a", "b"], 500), mask=rng.random(500) < 0.1),
            "y": rng.normal(size=500),
        }
    )
    schemas = {"table": infer_schema(table)}
    assert [(u.noun, u.codes) for u in independent_units({"table": table}, schemas)["table"]] == [
        ("rows", None)
    ]
    for column in profiles({"table": table}, schemas)["table"].columns.values():
        (spread,) = column.spreads
        rows = column.levels or {side: count for side, (_, count) in column.tails.items()}
        assert (spread.units, spread.worth, spread.held) == (500, 1.0, rows)


# ---- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("repeats", "status"), [(0, "met"), (1, "unmet"), (900, "unmet")])
def test_a_key_of_a_single_table_must_not_repeat(repeats: int, status: str) -> None:
    real = {"table": pa.table({"k": np.arange(1_000), "who": np.arange(1_000) // 2})}
    roles = {"k": {"role": "key"}, "who": {"role": "entity"}}
    schemas = {"table": infer_schema(real["table"], roles)}
    keys = 5_000 + np.maximum(np.arange(1_000), repeats)
    made = {"table": real["table"].set_column(0, "k", pa.array(keys))}
    found = judged(real, made, schemas, 1_000)["keys"]
    assert found.status == status  # and an entity may repeat
    if repeats:
        assert found.evidence == (f"k: {repeats:,} keys repeat",)


def test_keys_of_several_columns_are_unique_together_only() -> None:
    table = pa.table({"a": np.arange(100) // 10, "b": np.arange(100) % 10, "x": np.arange(100.0)})
    schemas = {"table": infer_schema(table, {"a": {"role": "key"}, "b": {"role": "key"}})}
    assert "keys" not in judged({"table": table}, {"table": table}, schemas, 100)


@pytest.mark.parametrize("role", ["sequence_key", "entity", "key"])
def test_a_parents_key_of_any_role_is_judged(role: str) -> None:
    real = {
        "person": pa.table({"no": np.arange(60), "age": np.arange(60) % 9}),
        "visit": pa.table({"person_no": np.arange(240) % 60, "cost": np.arange(240.0)}),
    }
    declared: dict[str, dict[str, Any]] = {
        "person": {"no": {"role": role}},
        "visit": {"person_no": {"references": "person.no"}},
    }
    schemas = {n: infer_schema(t, declared[n]) for n, t in real.items()}
    schemas = related(real, schemas, declared)
    assert judged(real, real, schemas, 60)["keys"].status == "met"
    twice = {**real, "person": pa.concat_tables([real["person"], real["person"].slice(0, 1)])}
    assert judged(real, twice, schemas, 61)["keys"].status == "unmet"
