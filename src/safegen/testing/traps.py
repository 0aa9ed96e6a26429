"""Checks of what comes back for data that libraries trip over, and of what is refused instead."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.errors import SourceError
from safegen.tables.numbers import decoded, scale_of, to_numbers
from safegen.tables.schema import Column
from safegen.tables.types import family
from safegen.testing.examples import CANARY, Example, example_table
from safegen.testing.subject import Subject, check, refusal

TABULAR: Any = ("table", "tables", "sequences")


def _pairs(subject: Subject, *kinds: str) -> Iterator[tuple[Column, pa.Array, pa.Array]]:
    """The columns of some kinds: real values and sampled ones, both plain."""
    for table, column, values in subject.columns():
        if column.kind in kinds and not pa.types.is_null(values.type):
            yield column, decoded(values), decoded(subject.many[table].column(column.name))


def _numbers(real: pa.Array, made: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Both as plain numbers in one unit, without those that are missing."""
    if family(real.type) == "decimal":
        scale = max(scale_of(real) or 0, scale_of(made) or 0)
    else:
        scale = None
    found = []
    for values in (real, made):
        numbers, present = to_numbers(values, scale)
        found.append(numbers[present])
    return found[0], found[1]


def _missing(values: pa.Array) -> float:
    """The share of missing values; 0 of none."""
    return float(pc.mean(values.is_null(nan_is_null=True).cast(pa.float64())).as_py() or 0.0)


@check()
def refused_columns(subject: Subject) -> None:
    """A column that is not taken is refused by an error that names it, its type or its count."""
    _ = subject.model
    for name, said in subject.refused.items():
        assert CANARY not in said, "the error quotes a value of the data"
        lines = [line for line in said.splitlines() if repr(name) in line]
        assert any(len(line) > len(name) + 20 for line in lines), f"{name!r} without a reason"


@check(*TABULAR)
def levels(subject: Subject) -> None:
    """No level that the source has not; dictionaries with their unused levels and their order."""
    for column, real, made in _pairs(subject, "categorical", "boolean"):
        found = made.drop_null().unique()
        new = len(found) - (pc.sum(pc.is_in(found, value_set=real.unique())).as_py() or 0)
        assert not new, f"column {column.name!r}: {new} levels that the source has not"
    for table, column, values in subject.columns():
        if pa.types.is_dictionary(values.type):
            whole = values.chunk(0).dictionary
            for chunk in subject.many[table].column(column.name).chunks:
                assert chunk.dictionary.equals(whole), f"column {column.name!r}: another dictionary"


@check(*TABULAR)
def ranges(subject: Subject) -> None:
    """Numbers and dates near the source's: no date of 1970, no number lost in a conversion."""
    for column, real, made in _pairs(subject, "numeric", "datetime"):
        known, got = _numbers(real, made)
        if not len(known):
            continue
        assert len(got), f"column {column.name!r}: all values are missing"
        low, high = known.min().item(), known.max().item()
        width = high - low
        near = got.min().item() >= low - width and got.max().item() <= high + width
        assert near, f"column {column.name!r}: values far outside the source's"


@check(*TABULAR)
def missing(subject: Subject) -> None:
    """Null where the source has nulls, NaN where it has NaN, neither where it has neither."""
    for column, real, made in _pairs(subject, "numeric", "datetime", "categorical", "boolean"):
        share = _missing(real)
        if share == 0:
            assert _missing(made) == 0, f"column {column.name!r}: values are missing"
        if real.null_count == 0:
            assert made.null_count == 0, f"column {column.name!r}: nulls where the source has none"
        if share == 1:
            assert _missing(made) == 1, f"column {column.name!r}: values where the source has none"
        if real.null_count and family(real.type) == "float":
            nan = pc.sum(pc.is_nan(made)).as_py() or 0
            assert not nan, f"column {column.name!r}: NaN where the source has null"


def _faithful(subject: Subject) -> bool:
    return subject.tolerance is not None


@check("table", when=_faithful)
def shares(subject: Subject) -> None:
    """Levels, missing values and point masses (zeros) keep their shares, within the tolerance."""
    allowed = subject.tolerance or 0.0
    wrong = []
    for column, real, made in _pairs(subject, "numeric", "datetime", "categorical", "boolean"):
        gaps = {"missing values": _missing(made) - _missing(real)}
        known, got = real.drop_null(), made.drop_null()
        counts = known.value_counts()
        if column.kind in ("numeric", "datetime"):  # a mass is what a tenth of all rows share
            counts = counts.filter(pc.greater(counts.field("counts"), len(real) / 10))
        for i, value in enumerate(counts.field("values")):
            share = (pc.sum(pc.equal(got, value)).as_py() or 0) / max(1, len(got))
            gaps[f"level or mass {i}"] = share - counts.field("counts")[i].as_py() / len(known)
        what, gap = max(gaps.items(), key=lambda item: abs(item[1]))
        if abs(gap) > allowed:
            wrong.append(f"column {column.name!r}: the share of {what} is off by {gap:+.2f}")
    assert not wrong, "; ".join(wrong)


@check("table", when=_faithful)
def distributions(subject: Subject) -> None:
    """Numbers and dates are distributed as the source's: Kolmogorov's distance to it is small."""
    allowed = subject.tolerance or 0.0
    wrong = []
    for column, real, made in _pairs(subject, "numeric", "datetime"):
        known, got = _numbers(real, made)
        if not len(known):
            continue
        at = np.sort(np.concatenate([known, got]))
        steps = [np.searchsorted(np.sort(v), at, "right") / max(1, len(v)) for v in (known, got)]
        gap = float(np.abs(steps[0] - steps[1]).max())
        if gap > allowed:
            wrong.append(f"column {column.name!r}: {gap:.2f} from the source")
    assert not wrong, "; ".join(wrong)


@check()
def ids(subject: Subject) -> None:
    """Ids and personal values are never those of the source; unique ones are, across blocks."""
    blocks = [subject.sample(50), subject.sample(50, block=1)]
    for table, column, values in subject.columns():
        if column.kind not in ("id", "personal") or column.references:
            continue
        real = set(values.drop_null().to_pylist())
        drawn = [b[table].column(column.name).drop_null().to_pylist() for b in blocks]
        got = [value for values in drawn for value in values]
        copied = len(real.intersection(got))
        assert not copied, f"column {column.name!r}: {copied} of the source's ids come back"
        if column.role == "sequence_key":
            got = [value for values in drawn for value in set(values)]
        if column.role in ("id", "key", "sequence_key"):
            again = len(got) - len(set(got))
            assert not again, f"column {column.name!r}: {again} ids are used twice"


# ---- tables out of the ordinary ------------------------------------------------------------------


def _comes_back(subject: Subject, table: pa.Table) -> None:
    example = Example.of(table)
    made = subject.sample(30, model=subject.fit(example))["table"]
    assert made.schema.equals(table.schema), "does not give the source's Arrow schema"
    assert made.num_rows == 30, f"gave {made.num_rows} rows where 30 were asked for"
    for name in table.column_names:
        if pc.count_distinct(table.column(name), mode="all").as_py() == 1:
            assert made.column(name).unique().equals(table.column(name).unique()), f"{name} changes"


@check("table")
def one_column(subject: Subject) -> None:
    """A table of one column can be fitted."""
    _comes_back(subject, example_table(200).select(["age"]))


@check("table")
def constant_columns(subject: Subject) -> None:
    """A table in which nothing varies comes back as it is."""
    rows = 60
    _comes_back(
        subject,
        pa.table(
            {
                "number": pa.array([7.5] * rows),
                "text": pa.array(["ein Wert · 値"] * rows),
                "nothing": pa.nulls(rows, pa.int32()),
            }
        ),
    )


@check("table")
def all_null(subject: Subject) -> None:
    """A table without any value: nulls, or a clear refusal."""
    nothing = pa.table({"a": pa.nulls(60, pa.float64()), "b": pa.nulls(60, pa.string())})
    try:
        made = subject.sample(30, model=subject.fit(Example.of(nothing)))["table"]
    except SourceError as error:
        said = str(error)
    else:
        assert all(column.null_count == 30 for column in made.columns), "invents values"
        return
    assert "null" in said, f"does not say that every value is null: {said}"


# ---- refusals ------------------------------------------------------------------------------------


def _plain() -> pa.Table:
    table = example_table(60)
    return table.append_column("city", pa.array([CANARY, *["Basel"] * 59]))


@check("table")
def refuses_few_rows(subject: Subject) -> None:
    """One row, or none, is refused: the best model of it would hand it back."""
    for rows in (0, 1):
        refusal(subject, Example.of(_plain().slice(0, rows)), "row")


@check(*TABULAR)
def refuses_infinity(subject: Subject) -> None:
    """Infinite numbers are refused by an error that names the column and counts them."""
    _ = subject.model
    example = subject.example
    for name, table in example.tables.items():
        for at, field in enumerate(table.schema):
            if not pa.types.is_float64(field.type):
                continue
            numbers = table.column(at).to_numpy().copy()
            numbers[3:5] = [np.inf, -np.inf]
            changed = table.set_column(at, field, pa.array(numbers, field.type))
            tables = {**example.tables, name: changed}
            refusal(subject, Example(tables, example.schemas), repr(field.name), "2")
            return


@check("table")
def refuses_names(subject: Subject) -> None:
    """Column names that are repeated or empty are refused, the repeated ones by name."""
    table = _plain()
    columns = example_table(60).column_names
    for names, words in (
        (["age", "age", *columns[2:], "city"], ["'age'"]),
        (["", *columns[1:], "city"], ["name"]),
    ):
        schema = Example.of(table).schemas["table"]
        renamed = tuple(
            c.model_copy(update={"name": n}) for c, n in zip(schema.columns, names, strict=True)
        )
        schemas = {"table": schema.model_copy(update={"columns": renamed})}
        refusal(subject, Example({"table": table.rename_columns(names)}, schemas), *words)


@check("table")
def types(subject: Subject) -> None:
    """A type without a round trip is refused by an error that names the column and the type."""
    rows = 60
    day = datetime.date(2020, 1, 1)
    strange = {
        "bytes": pa.array([b"%d" % i for i in range(rows)], pa.binary()),
        "list": pa.array([[i] for i in range(rows)]),
        "struct": pa.array([{"a": i} for i in range(rows)]),
        "map": pa.array([[("a", i)] for i in range(rows)], pa.map_(pa.string(), pa.int64())),
        "interval": pa.array([(i, 1, 0) for i in range(rows)], pa.month_day_nano_interval()),
        "dates": pa.array([[day]] * rows),
    }
    for name, values in strange.items():
        table = _plain().append_column(name, values)
        try:
            model = subject.fit(Example.of(table))
        except SourceError as error:
            said = str(error)
            assert repr(name) in said, f"{name}: the error does not name the column: {said}"
            assert str(values.type) in said, f"{name}: the error does not name the type: {said}"
            assert CANARY not in said, "the error quotes a value of the data"
            continue
        made = subject.sample(30, model=model)["table"].schema
        assert made.equals(table.schema), f"a column of type {values.type} comes back otherwise"
