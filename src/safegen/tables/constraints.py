"""What must hold in every row: SDV's constraints, by SDV's names and parameters, as plain data.

They can be written in JSON, so they stand in the manifest and in a saved model; SDV's own objects
(`sdv.cag`) are converted. What makes them hold is `safegen.tables.constrained`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from safegen.errors import SourceError, UsageError

__all__ = [
    "Constraint",
    "ConstraintList",
    "FixedCombinations",
    "FixedIncrements",
    "Inequality",
    "OneHotEncoding",
    "Range",
    "by_table",
    "on",
    "refuse_violated",
]


class _Base(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    table_name: str | None = Field(
        default=None, description="Needed only where there are several tables."
    )


class FixedCombinations(_Base):
    """The values of these columns stand together only as they do in some row of the source."""

    type: Literal["FixedCombinations"] = "FixedCombinations"
    column_names: list[str] = Field(min_length=2)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.column_names)


class OneHotEncoding(_Base):
    """Exactly one of these columns is 1 (or true), the others are 0; none is missing."""

    type: Literal["OneHotEncoding"] = "OneHotEncoding"
    column_names: list[str] = Field(min_length=2)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.column_names)


class Inequality(_Base):
    """low ≤ high (with `strict_boundaries` low < high) wherever both are there."""

    type: Literal["Inequality"] = "Inequality"
    low_column_name: str
    high_column_name: str
    strict_boundaries: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        return self.low_column_name, self.high_column_name


class Range(_Base):
    """low < middle < high (≤ without `strict_boundaries`) for each two of them that are there."""

    type: Literal["Range"] = "Range"
    low_column_name: str
    middle_column_name: str
    high_column_name: str
    strict_boundaries: bool = True

    @property
    def columns(self) -> tuple[str, ...]:
        return self.low_column_name, self.middle_column_name, self.high_column_name


class FixedIncrements(_Base):
    """Every number of the column is a multiple of `increment_value`, a whole number above 0."""

    type: Literal["FixedIncrements"] = "FixedIncrements"
    column_name: str
    increment_value: int | float = Field(gt=0, multiple_of=1, lt=2**53)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column_name,)


Constraint = Annotated[
    FixedCombinations | OneHotEncoding | Inequality | Range | FixedIncrements,
    Field(discriminator="type"),
]


def _converted(given: object) -> object:
    if not isinstance(given, list | tuple):
        return given
    return [_plain(item) for item in given]


def _plain(item: object) -> object:
    """An object of `sdv.cag` as the mapping that says the same; anything else as it is."""
    kind = type(item)
    names = (
        [str(item.get("type"))] if isinstance(item, Mapping) else [c.__name__ for c in kind.mro()]
    )
    if _CODE.intersection(names):
        raise ValueError(
            "a ProgrammableConstraint is code, which can neither stand in a manifest nor be "
            "checked when it is read: fit with SDV itself, then use Generator.wrap"
        )
    to_dict = getattr(item, "to_dict", None)
    if not kind.__module__.startswith("sdv.") or not callable(to_dict):
        return item
    # How SDV learns the columns of a one-hot code; here they are one categorical column always.
    parameters = {k: v for k, v in to_dict()["parameters"].items() if k != "learning_strategy"}
    return {"type": kind.__name__, **parameters}


_CODE = {"ProgrammableConstraint", "SingleTableProgrammableConstraint"}

ConstraintList = Annotated[list[Constraint], BeforeValidator(_converted)]
"""The type of an option `constraints`: mappings with a `type`, the models above, SDV's objects."""


def by_table(constraints: Iterable[Constraint], tables: Iterable[str]) -> dict[str, list[Any]]:
    """The constraints of each table. Raises: UsageError for a table that is not there."""
    found: dict[str, list[Any]] = {name: [] for name in tables}
    for constraint in constraints:
        name = constraint.table_name
        if name is None and len(found) == 1:
            (name,) = found
        if name not in found:
            what = "needs a table_name" if name is None else f"names no table here: {name!r}"
            raise UsageError(f"constraint {constraint.type} {what} (one of: {', '.join(found)})")
        found[name].append(constraint)
    return found


def on(constraint: str, names: Sequence[str]) -> str:
    """How messages name it."""
    return f"{constraint} on {', '.join(map(repr, names))}"


def refuse_violated(constraint: str, rows: int) -> None:
    """Raises: SourceError when the number of rows that break it is not 0."""
    if rows:
        raise SourceError(
            f"constraint {constraint}: {rows:,} row(s) of the source violate it: mend them, leave "
            "them out, or leave the constraint out"
        )
