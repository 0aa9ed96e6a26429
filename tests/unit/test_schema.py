"""What a column is: declared strictly, inferred by written rules, refused with a way out."""

from __future__ import annotations

import datetime
import decimal
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import safegen
from safegen.errors import SourceError, UsageError
from safegen.tables.schema import (
    ANY_TABLE,
    TableSchema,
    check_table,
    declared_for,
    infer_schema,
    placed,
    read_declared,
)

N = 60


def kind_of(values: Any, name: str = "x", declared: dict[str, Any] | None = None) -> str:
    schema = infer_schema(pa.table({name: values}), {name: declared} if declared else None)
    return schema.column(name).kind


class TestInferred:
    @pytest.mark.parametrize(
        ("values", "kind"),
        [
            (pa.array([True, False] * 30), "boolean"),
            (pa.array(range(N)), "numeric"),
            (pa.array([1.5] * N), "numeric"),
            (pa.array([decimal.Decimal("1.5")] * N), "numeric"),
            (pa.array([datetime.date(2020, 1, 1)] * N), "datetime"),
            (pa.array([datetime.time(1)] * N), "datetime"),
            (pa.array([datetime.timedelta(1)] * N), "datetime"),
            (pa.array([datetime.datetime(2020, 1, 1)] * N, pa.timestamp("ms", "UTC")), "datetime"),
            (pa.array(["a", "b"] * 30), "categorical"),
            (pa.array(["a", "b"] * 30).dictionary_encode(), "categorical"),
            (pa.array([uuid.uuid4().bytes for _ in range(N)], pa.uuid()), "id"),
            (pa.array([str(uuid.uuid4()) for _ in range(N)]), "id"),
            (pa.array([f"word {i}" for i in range(N)]), "id"),
            (pa.array([f"word {i}" for i in range(49)]), "categorical"),  # too few to say
            (pa.array([f"u{i}@example.org" for i in range(N)]), "personal"),
            (pa.array([f"{i:03d}-12-3456" for i in range(N)]), "personal"),
            (pa.array([f"(030) 555-{i:04d}" for i in range(N)]), "personal"),
            (pa.array([f"+4930555{i:04d}" for i in range(N)]), "personal"),
            (pa.array(["2020-01-02", "01-02-2020", "12345678"] * 20), "categorical"),
        ],
    )
    def test_kind(self, values: pa.Array, kind: str) -> None:
        assert kind_of(values) == kind

    @pytest.mark.parametrize("name", ["id", "patient_id", "uuid", "key", "PatientID", "customerId"])
    def test_integers_named_like_an_id_are_ids_when_they_differ(self, name: str) -> None:
        assert kind_of(pa.array(range(N)), name) == "id"
        assert kind_of(pa.array([*range(30)] * 2), name) == "numeric"

    def test_repeating_ids_are_pointed_out(self) -> None:
        schema = infer_schema(pa.table({"patient_id": [*range(30)] * 2}))
        assert "declare role id" in (schema.columns[0].note or "")

    @pytest.mark.parametrize("name", ["paid", "valid", "humid", "monkey", "grid"])
    def test_a_name_that_only_ends_like_an_id_is_none(self, name: str) -> None:
        assert kind_of(pa.array(range(N)), name) == "numeric"

    @pytest.mark.parametrize("name", ["city", "State", "zip_code", "latitude", "phone_number"])
    def test_no_column_is_replaced_for_its_name_alone(self, name: str) -> None:
        schema = infer_schema(pa.table({name: ["a", "b"] * 30}))
        assert schema.columns[0].kind == "categorical"
        assert "declare role personal" in (schema.columns[0].note or "")

    def test_advice_about_a_personal_number_can_be_followed(self) -> None:
        """Texts can be invented, numbers cannot: role personal would be an error."""
        table = pa.table({"latitude": [48.1, 48.2] * 30})
        (column,) = infer_schema(table).columns
        assert "role personal" not in (column.note or "")
        assert "declare role id" in (column.note or "")
        assert infer_schema(table, {"latitude": {"role": "id"}}).columns[0].kind == "id"
        born = pa.table({"birth_date": pa.array([1, 2] * 30, pa.int32()).cast(pa.date32())})
        assert "drop the column" in (infer_schema(born).columns[0].note or "")

    def test_old_dates_as_strings_are_said_to_be_taken_as_ids(self) -> None:
        days = [str(datetime.date(1900, 1, 1) + datetime.timedelta(i)) for i in range(N)]
        column = infer_schema(pa.table({"born": days})).columns[0]
        assert column.kind == "id"
        assert "cast the column to a date" in (column.note or "")

    def test_declaration_beats_inference(self) -> None:
        mails = pa.array([f"u{i}@example.org" for i in range(N)])
        assert kind_of(mails, declared={"kind": "categorical"}) == "categorical"
        assert kind_of(pa.array(range(N)), "id", {"kind": "numeric"}) == "numeric"
        assert kind_of(pa.array(range(N)), "id", {"role": "target"}) == "numeric"
        assert kind_of(pa.array([*range(30)] * 2), "patient", {"role": "entity"}) == "id"

    def test_no_value_gets_into_the_schema(self) -> None:
        table = pa.table({"secret": [f"hunter{i}@example.org" for i in range(N)]})
        text = infer_schema(table).model_dump_json()
        assert "hunter" not in text
        assert TableSchema.model_validate_json(text) == infer_schema(table)


class TestDeclared:
    def write(self, folder: Path, text: str) -> Path:
        path = folder / "schema.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    def test_one_table_and_several(self, tmp_path: Path) -> None:
        text = "columns: {age: {kind: numeric}, ssn: id, pay: {role: target}, sex: categorical}"
        one = read_declared(self.write(tmp_path, text))
        assert one[ANY_TABLE]["ssn"] == {"role": "id"}
        assert one[ANY_TABLE]["sex"] == {"kind": "categorical"}
        assert declared_for(one, "anything") == one[ANY_TABLE]
        several = read_declared({"tables": {"a": {"columns": {"x": "id"}}, "b": {}}})
        assert declared_for(several, "a") == {"x": {"role": "id"}}
        assert declared_for(several, "c") == {}
        assert read_declared(None) == {}

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("columns: {age: {knd: numeric}}", ["schema.yaml", "'age'", "did you mean 'kind'"]),
            ("columns: {age: {kind: numerc}}", ["'age'", "did you mean 'numeric'"]),
            ("columns: {age: {role: targt}}", ["'age'", "did you mean 'target'"]),
            ("columns: {age: numeri}", ["'age'", "did you mean 'numeric'"]),
            ("colums: {}", ["did you mean 'columns'"]),
            ("columns: {1: id}", ["put it in quotes"]),
            ("columns: {a: id, a: id}", ["schema.yaml:1"]),
            ("columns: [", ["schema.yaml", "YAML"]),
            ("columns: {a: {public: 3}}", ["'a'", "true or false"]),
            ("[]", ["expected `columns:`"]),
        ],
    )
    def test_a_slip_is_named_with_its_file_and_the_nearest_word(
        self, tmp_path: Path, text: str, parts: list[str]
    ) -> None:
        with pytest.raises(UsageError) as caught:
            read_declared(self.write(tmp_path, text))
        for part in parts:
            assert part in str(caught.value)

    def test_a_file_that_is_absent_or_too_large(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="cannot be read"):
            read_declared(tmp_path / "none.yaml")
        with pytest.raises(SourceError, match="at most"):
            read_declared(self.write(tmp_path, "#" * (1 << 20) + "\n"))

    def test_a_python_tag_is_not_run(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError):
            read_declared(self.write(tmp_path, "columns: !!python/object/apply:os.getcwd []"))

    def test_sdv_metadata(self) -> None:
        document = {
            "tables": {
                "t": {
                    "primary_key": "key",
                    "columns": {
                        "key": {"sdtype": "id"},
                        "age": {"sdtype": "numerical"},
                        "when": {"sdtype": "datetime", "datetime_format": "%Y"},
                        "mail": {"sdtype": "email", "pii": True},
                        "town": {"sdtype": "city", "pii": False},
                        "what": {"sdtype": "unknown"},
                    },
                }
            },
            "relationships": [],
            "METADATA_SPEC_VERSION": "V1",
        }
        declared = read_declared(SimpleNamespace(to_dict=lambda: document))[ANY_TABLE]
        assert declared == {
            "key": {"role": "key"},
            "age": {"kind": "numeric"},
            "when": {"kind": "datetime"},
            "mail": {"role": "personal", "faker": "email"},
            "town": {"kind": "categorical"},
            "what": {},
        }

    def test_a_schema_declares_itself_again(self) -> None:
        table = pa.table({"a": [f"w{i}" for i in range(N)], "b": range(N)})
        schema = infer_schema(table, {"b": {"role": "target"}})
        again = infer_schema(table, declared_for(read_declared(schema), "t"))
        assert [(c.kind, c.role) for c in again.columns] == [
            (c.kind, c.role) for c in schema.columns
        ]
        assert (schema.target, schema.entity) == ("b", None)

    @pytest.mark.parametrize(
        ("declared", "error", "part"),
        [
            ({"agee": {"kind": "numeric"}}, UsageError, "did you mean 'age'"),
            ({"age": {"kind": "numeric", "role": "id"}}, UsageError, "contradicts"),
            ({"age": {"role": "target"}, "sex": {"role": "target"}}, UsageError, "more than one"),
            ({"sex": {"kind": "numeric"}}, SourceError, "cast it"),
            ({"age": {"kind": "personal"}}, SourceError, "cast it"),
            ({"age": {"kind": "numeric", "faker": "email"}}, UsageError, "faker"),
        ],
    )
    def test_contradictions(
        self, declared: dict[str, Any], error: type[Exception], part: str
    ) -> None:
        table = pa.table({"age": range(N), "sex": ["a", "b"] * 30})
        with pytest.raises(error, match=part):
            infer_schema(table, declared)


class TestRefused:
    @pytest.mark.parametrize(
        ("values", "part"),
        [
            ([[1]] * N, "flatten"),
            ([{"a": 1}] * N, "flatten"),
            (pa.array([[("a", 1)]] * N, pa.map_(pa.string(), pa.int8())), "flatten"),
            ([b"x"] * N, "hex"),
            (pa.array([b"xy"] * N, pa.binary(2)), "hex"),
            (pa.array([(1, 2, 3)] * N, pa.month_day_nano_interval()), "cast it"),
            (pa.RunEndEncodedArray.from_arrays([N], [1]), "decode"),
            (pa.DictionaryArray.from_arrays([0] * N, [b"x"]), "decode"),
        ],
    )
    def test_types_without_a_round_trip(self, values: Any, part: str) -> None:
        with pytest.raises(SourceError) as caught:
            check_table(pa.table({"secret": values}), "t")
        assert "'secret'" in str(caught.value)
        assert part in str(caught.value)

    def test_pandas_period(self) -> None:
        import pandas as pd

        frame = pd.DataFrame({"month": pd.period_range("2020-01", periods=N, freq="M")})
        with pytest.raises(SourceError, match="month"):
            check_table(pa.Table.from_pandas(frame), "t")

    def test_infinity_is_counted_not_swallowed(self) -> None:
        for type_ in (pa.float64(), pa.float32(), pa.float16()):
            column = pa.array(np.array([np.inf, -np.inf, np.nan] + [1.0] * N), pa.float64())
            with pytest.raises(SourceError, match=r"'pay' has 2 infinite"):
                check_table(pa.table({"pay": column.cast(type_)}), "t")

    def test_one_row_would_be_handed_back(self) -> None:
        with pytest.raises(SourceError, match="1 rows, and at least 20"):
            check_table(pa.table({"a": [1]}), "t")

    def test_names(self) -> None:
        twice = pa.Table.from_arrays([pa.array(range(N))] * 2, names=["a", "a"])
        with pytest.raises(SourceError, match="repeated: 'a'"):
            check_table(twice, "t")
        with pytest.raises(SourceError, match="no name"):
            check_table(pa.table({"": range(N)}), "t")
        with pytest.raises(SourceError, match="no columns"):
            check_table(pa.table({}), "t")

    def test_nothing_but_nulls(self) -> None:
        empty = {"a": pa.nulls(N), "b": pa.array([float("nan")] * N)}
        with pytest.raises(SourceError, match="every value in it is null"):
            check_table(pa.table(empty), "t")
        check_table(pa.table({**empty, "c": range(N)}), "t")

    def test_all_problems_come_at_once(self) -> None:
        with pytest.raises(SourceError) as caught:
            check_table(pa.table({"a": [b"x"], "b": [float("inf")]}), "t")
        assert str(caught.value).count("\n  - ") == 3


class TestPlaced:
    def test_a_table_that_is_not_there_is_an_error_with_the_nearest_name(self) -> None:
        declared = read_declared({"tables": {"peple": {"columns": {"name": "personal"}}}})
        with pytest.raises(UsageError, match="no table 'peple'; did you mean 'people'"):
            placed(declared, ["people", "orders"], "table")
        with pytest.raises(UsageError, match="no table 'peple'; did you mean 'people'"):
            placed(declared, ["people"], "table")
        with pytest.raises(UsageError, match=r"no table 'peple' \(here are: cats\)"):
            placed(declared, ["cats"], "table")
        right = read_declared({"tables": {"people": {"columns": {"name": "personal"}}}})
        assert placed(right, ["people", "orders"], "table") == right

    def test_one_declared_table_is_that_of_a_source_without_a_name(self) -> None:
        declared = read_declared({"tables": {"people": {"columns": {"name": "personal"}}}})
        found = declared_for(placed(declared, ["table"], "table"), "table")
        assert found == {"name": {"role": "personal"}}
        several = {"people": {"columns": {}}, "orders": {"columns": {"name": "personal"}}}
        with pytest.raises(UsageError, match="NAME=PATH"):
            placed(read_declared({"tables": several}), ["table"], "table")

    def test_a_generator_drops_no_declaration(self, tmp_path: Path) -> None:
        table = pa.table({"name": ["a", "b", "c"] * 20, "x": range(N)})
        gen = safegen.Generator(ledger=tmp_path / "l.db")
        declared = {"tables": {"peple": {"columns": {"name": "personal"}}}}
        with pytest.raises(UsageError, match="did you mean 'people'"):
            gen.prepare({"people": table}, schema=declared)
        gen.prepare(table, schema=declared)
        assert gen.schemas["table"].column("name").kind == "personal"
