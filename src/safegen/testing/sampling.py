"""Checks of what `sample` gives: exact rows, the same again, and those that meet conditions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen import plugins
from safegen.engines import local
from safegen.engines.parts import Recipe, part_plan
from safegen.engines.writing import PARTS
from safegen.errors import SafegenError
from safegen.tables.numbers import decoded
from safegen.tables.units import units
from safegen.testing.process import disturbed
from safegen.testing.subject import Small, Subject, Tables, check, reproducible

if TYPE_CHECKING:
    from safegen.manifest.model import FileEntry

__all__ = ["same"]

PROMPT = 60.0
"""Seconds within which an impossible condition must be refused."""

NOWHERE = "safegen-no-such-level"


def same(one: Mapping[str, pa.Table], other: Mapping[str, pa.Table]) -> bool:
    """Whether two draws are equal cell by cell, NaN and null told apart."""
    return set(one) == set(other) and all(_equal(one[n], other[n]) for n in one)


def _equal(one: pa.Table, other: pa.Table) -> bool:
    if one.schema != other.schema or one.num_rows != other.num_rows:
        return False
    for left, right in zip(one.columns, other.columns, strict=True):
        if pa.types.is_floating(left.type):
            left, right = (c.combine_chunks().cast(pa.float64()) for c in (left, right))
            if not left.is_null().equals(right.is_null()):
                return False
            numbers, others = (c.fill_null(0.0).to_numpy() for c in (left, right))
            if not np.array_equal(numbers, others, equal_nan=True):
                return False
        elif not left.equals(right):
            return False
    return True


def _begins(long: Tables, short: Tables) -> bool:
    return same({n: t.slice(0, short[n].num_rows) for n, t in long.items()}, short)


@check()
def exact_rows(subject: Subject) -> None:
    """As many rows (sequences, rows of the roots) as asked for; a negative number is refused."""
    for rows in sorted({min(n, subject.most) for n in (1, 17, 100)}):
        made = subject.model.sample(rows, seed=3, block=0)
        assert set(made) == set(subject.example.tables), f"gives the tables {sorted(made)}"
        got = units(made, subject.example.schemas)
        assert got == rows, f"gave {got} rows where {rows} were asked for"
    try:
        subject.model.sample(-5, seed=3, block=0)
    except SafegenError:
        return
    raise AssertionError("rows=-5 is not refused")


@check()
def schema(subject: Subject) -> None:
    """Exactly the source's Arrow schema, in valid arrays."""
    made = subject.sample(20)
    for name, table in subject.example.tables.items():
        made[name].validate(full=True)
        if made[name].schema.equals(table.schema):
            continue
        pairs = zip(table.schema, made[name].schema, strict=False)
        wrong = [f"{a.name}: {a.type} became {b.type}" for a, b in pairs if not a.equals(b)]
        raise AssertionError(f"does not give the source's Arrow schema ({'; '.join(wrong)})")


@check(when=reproducible)
def repeats(subject: Subject) -> None:
    """The same seed gives the same rows, whatever else ran in the process in between."""
    first = subject.sample(50)
    subject.sample(20, seed=8, block=5)
    assert same(first, subject.sample(50)), "same seed, other rows"
    with disturbed():
        again = subject.sample(50)
    assert same(first, again), "same seed, other rows once other code has drawn random numbers"


@check()
def other_seeds(subject: Subject) -> None:
    """Another seed gives other rows, and so does another block."""
    first = subject.sample(50)
    assert not same(first, subject.sample(50, seed=4)), "other seed, same rows"
    second = subject.sample(50, block=1)
    assert not same(first, second), "other block, same rows"
    # numpy takes the entropy [3 + 2^32, 0] for [3, 1]
    far = subject.sample(50, seed=3 + 2**32)
    shared = _learned(subject, far)
    assert not shared or not same(shared, _learned(subject, second)), (
        "a seed 2^32 higher, the rows of the next block"
    )


def _learned(subject: Subject, made: Tables) -> Tables:
    """The columns whose values say nothing of where their row stands."""
    found: dict[str, list[str]] = {}
    for table, column, _ in subject.columns():
        if column.kind in ("numeric", "categorical", "datetime"):
            found.setdefault(table, []).append(column.name)
    return {table: made[table].select(names) for table, names in found.items()}


@check(when=reproducible)
def prefix(subject: Subject) -> None:
    """Fewer rows are a prefix of more."""
    long = subject.sample(subject.most, block=2)
    for rows in (1, 20, subject.most // 2 + 1):
        short = subject.sample(rows, block=2)
        assert _begins(long, short), f"{rows} rows are not a prefix of {subject.most:,}"


def _registered(subject: Subject) -> bool:
    name, group = subject.backend.name, plugins.BACKENDS
    return name in plugins.names(group) and plugins.load(group, name) is type(subject.backend)


@check(when=lambda s: reproducible(s) and _registered(s))
def workers(subject: Subject) -> None:
    """Two processes make the files of one. For backends that an entry point registers."""
    small: Any = Small(subject.backend, min(subject.backend.block_rows, 40))
    recipe = Recipe(subject.backend.name, subject.example.schemas, seed=5)

    def files(workers: int) -> list[FileEntry]:
        with TemporaryDirectory() as name:
            (Path(name) / PARTS).mkdir()
            plan = part_plan(2 * small.block_rows + 1, small.block_rows)
            made = local.made(recipe, subject.model, small, plan, Path(name), workers=workers)
            return [entry for written in made for entry in written.files]

    assert files(1) == files(2), "a worker process makes other rows"


def _conditionable(subject: Subject) -> str | None:
    """A column of levels to set a condition on."""
    columns = [
        c.name
        for _, c, values in subject.columns()
        if c.kind == "categorical" and len(decoded(values).unique()) > 1
    ]
    return columns[0] if columns else None


@check("table", "images")
def conditions(subject: Subject) -> None:
    """Every row meets the conditions, whether the backend takes them or safegen rejects rows."""
    name = _conditionable(subject)
    if name is None:
        return
    native = subject.backend.conditions
    of = next(iter((subject.example.tables if native else subject.many).values()))
    counts = decoded(of.column(name)).value_counts()
    at = pc.array_sort_indices(counts.field("counts"), order="descending")
    levels = counts.field("values").take(at).drop_null()
    level = levels[len(levels) - 1 if native else 0].as_py()  # the rarest, if it can be met
    rows = min(40, subject.most)
    [made] = subject.sample(rows, conditions={name: level}).values()
    assert made.num_rows == rows, f"conditions cost rows: {made.num_rows} of {rows}"
    assert set(made.column(name).to_pylist()) == {level}, "conditions are not met by every row"
    if reproducible(subject):
        [again] = subject.sample(rows // 2, conditions={name: level}).values()
        assert _begins({"": made}, {"": again}), "with conditions, fewer rows are no prefix"


@check("table")
def more_conditions(subject: Subject) -> None:
    """Numbers, missing values and two columns at once: met by every row, or a clear refusal."""
    [table] = subject.example.tables.values()
    found = [(c, v) for _, c, v in subject.columns() if c.kind in ("categorical", "numeric")]
    asked: list[dict[str, Any]] = []
    for column, values in found:
        there = values.drop_null()
        if len(there) and column.kind == "numeric" and pa.types.is_integer(values.type):
            asked.append({column.name: there[0].as_py()})
        if 0 < values.null_count < len(values):
            asked.append({column.name: None})
    names = [c.name for c, v in found if c.kind == "categorical" and not v.null_count][:2]
    asked.append({n: table.column(n)[0].as_py() for n in names})
    for wanted in asked:
        try:
            [made] = subject.sample(5, conditions=wanted).values()
        except SafegenError:
            continue
        assert made.num_rows == 5, f"conditions on {', '.join(wanted)} cost rows"
        for name, value in wanted.items():
            got = set(made.column(name).to_pylist())
            assert got == {value}, f"a condition on {name!r} is not met by every row"


@check("table", "images")
def impossible_conditions(subject: Subject) -> None:
    """A condition that no row meets: a prompt error with the column and the shortfall, no value."""
    names = [c.name for _, c, v in subject.columns() if pa.types.is_string(v.type)]
    if not names:
        return
    start = time.monotonic()
    try:
        subject.sample(30, conditions={names[0]: NOWHERE})
    except SafegenError as error:
        said = str(error)
    else:
        raise AssertionError("rows come back for a condition that no row can meet")
    assert names[0] in said, f"the error does not name the column: {said}"
    assert NOWHERE not in said, "the error quotes the value"
    assert subject.backend.conditions or "0 of 30" in said, f"no shortfall is said: {said}"
    took = time.monotonic() - start
    assert took < PROMPT, f"the refusal took {took:.0f} s"
