"""Which column holds whose key: declared, detected, switched off, and what is in the way."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from safegen.errors import SourceError, UsageError
from safegen.tables.relations import generations, references, related
from safegen.tables.schema import declared_for, infer_schema, read_declared
from safegen.tables.units import pilot

SECRET = 987_654


def shop(orders: int = 200, **columns: Any) -> dict[str, pa.Table]:
    """Customers and their orders; `columns` replace or add columns of the orders."""
    own = {"id": range(orders), "customer_id": [i % 50 for i in range(orders)]}
    own |= {"amount": [float(i % 7) for i in range(orders)]}
    return {
        "customers": pa.table({"id": range(50), "age": [20 + i % 30 for i in range(50)]}),
        "orders": pa.table({**own, **columns}),
    }


def roles(tables: dict[str, pa.Table], schema: Any = None) -> dict[str, Any]:
    declared = read_declared(schema)
    schemas = {n: infer_schema(t, declared_for(declared, n)) for n, t in tables.items()}
    return related(tables, schemas, declared)


def links(tables: dict[str, pa.Table], schema: Any = None) -> dict[str, str]:
    return {str(r): r.target for r in references(roles(tables, schema))}


def said(column: str, value: Any, table: str = "orders") -> dict[str, Any]:
    return {"tables": {table: {"columns": {column: value}}}}


@pytest.mark.parametrize("name", ["customer_id", "customers_id", "customerId", "CUSTOMER_ID"])
def test_a_column_named_after_a_table_and_filled_with_its_key_refers_to_it(name: str) -> None:
    tables = shop()
    tables["orders"] = tables["orders"].rename_columns(["id", name, "amount"])
    found = roles(tables)
    assert {str(r): r.target for r in references(found)} == {f"orders.{name}": "customers.id"}
    held, key = found["orders"].column(name), found["customers"].column("id")
    assert (held.kind, key.kind, key.role) == ("id", "id", "key")
    assert held.inferred
    assert "customers.id" in (held.note or "")


def test_a_key_of_its_own_name_is_found_in_other_tables() -> None:
    planes = pa.table({"tailnum": [f"N{i}" for i in range(60)], "seats": range(60)})
    flights = pa.table({"tailnum": [f"N{i % 60}" for i in range(300)], "delay": range(300)})
    assert links({"planes": planes, "flights": flights}) == {"flights.tailnum": "planes.tailnum"}


def test_equal_numbers_alone_make_no_reference() -> None:
    assert links(shop(customer_id=None or [i % 50 for i in range(200)], amount=range(200))) == {
        "orders.customer_id": "customers.id"
    }
    assert links({n: t for n, t in shop().items() if n == "orders"}) == {}
    plain = shop()
    plain["orders"] = plain["orders"].rename_columns(["id", "number", "amount"])
    assert links(plain) == {}


def test_ids_of_two_tables_do_not_refer_to_each_other() -> None:
    assert "orders.id" not in links(shop())


def test_two_keys_of_one_name_refer_one_way() -> None:
    client = pa.table({"client_id": range(60), "age": range(60)})
    disp = pa.table({"disp_id": range(60), "client_id": range(60)})
    assert links({"client": client, "disp": disp}) == {"disp.client_id": "client.client_id"}


def test_a_detected_reference_is_switched_off() -> None:
    assert links(shop(), said("customer_id", {"references": None})) == {}
    assert links(shop(), said("customer_id", {"kind": "numeric"})) == {}


def test_a_declared_reference_needs_no_likely_name() -> None:
    tables = shop()
    tables["orders"] = tables["orders"].rename_columns(["id", "buyer", "amount"])
    assert links(tables, said("buyer", {"references": "customers.id"})) == {
        "orders.buyer": "customers.id"
    }


def test_sdv_metadata_brings_its_relationships() -> None:
    class Metadata:
        def to_dict(self) -> dict[str, Any]:
            ids = {"id": {"sdtype": "id"}}
            return {
                "tables": {
                    "customers": {"columns": ids, "primary_key": "id"},
                    "orders": {"columns": {"buyer": {"sdtype": "id"}}},
                },
                "relationships": [
                    {
                        "parent_table_name": "customers",
                        "parent_primary_key": "id",
                        "child_table_name": "orders",
                        "child_foreign_key": "buyer",
                    }
                ],
            }

    tables = shop()
    tables["orders"] = tables["orders"].rename_columns(["id", "buyer", "amount"])
    assert links(tables, Metadata()) == {"orders.buyer": "customers.id"}


def test_orphans_are_counted_and_never_shown() -> None:
    tables = shop(customer_id=[SECRET if i < 3 else i % 50 for i in range(200)])
    with pytest.raises(SourceError) as caught:
        roles(tables)
    text = str(caught.value)
    assert "orders.customer_id: 1 value (3 rows) is not in customers.id" in text
    assert "customer_id: {references: null}" in text
    assert str(SECRET) not in text
    assert links(tables, said("customer_id", {"references": None})) == {}  # the way out


def test_a_repeated_or_missing_key_is_counted() -> None:
    tables = shop()
    ids = [None, *range(48), 47]
    tables["customers"] = tables["customers"].set_column(0, "id", pa.array(ids))
    wanted = said("customer_id", {"references": "customers.id"})
    with pytest.raises(SourceError, match="1 of its 50 rows repeat a value and 1 have none"):
        roles(tables, wanted)


def test_all_problems_come_at_once() -> None:
    tables = shop(customer_id=[SECRET if i < 3 else i % 50 for i in range(200)], other=["x"] * 200)
    columns = {
        "customer_id": {"references": "customers.id"},
        "other": {"references": "customers.id"},
    }
    with pytest.raises(SourceError) as caught:
        roles(tables, {"tables": {"orders": {"columns": columns}}})
    assert "customer_id" in str(caught.value)
    assert "cast both" in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (said("customer_id", {"references": "customer.id"}), "did you mean 'customers.id'"),
        (said("customer_id", {"references": "orders.id"}), "refers to its own table"),
        (said("customer_id", {"references": "customers.id", "kind": "numeric"}), "is declared"),
        (said("customer_id", {"references": 3}), "TABLE.COLUMN"),
    ],
)
def test_references_that_cannot_be_meant(schema: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        roles(shop(), schema)


def test_circles_are_refused_and_shown() -> None:
    a = pa.table({"id": range(60), "b": range(60)})
    b = pa.table({"id": range(60), "a": range(60)})
    columns = {"a": {"columns": {"b": {"references": "b.id"}}}}
    columns |= {"b": {"columns": {"a": {"references": "a.id"}}}}
    with pytest.raises(UsageError, match=r"in a circle: a\.b → b\.id, b\.a → a\.id"):
        roles({"a": a, "b": b}, {"tables": columns})


def test_parents_come_before_their_children() -> None:
    assert generations(roles({n: shop()[n] for n in ("orders", "customers")})) == (
        "customers",
        "orders",
    )


def test_a_near_miss_is_said_and_not_taken() -> None:
    tables = shop(customer_id=[i % 70 for i in range(200)])
    found = roles(tables)
    assert references(found) == ()
    assert "named like customers.id" in (found["orders"].column("customer_id").note or "")


def test_a_pilot_hangs_together() -> None:
    tables = shop(400, customer_id=[49 - i % 50 for i in range(400)])
    schemas = roles(tables)
    few = pilot(tables, schemas, 10)
    assert few["orders"].num_rows == 10
    held = set(few["orders"].column("customer_id").to_pylist())
    assert held <= set(few["customers"].column("id").to_pylist())
    assert few["customers"].num_rows < 50
