"""What each column of a table is: its kind, its role, and why. Holds no real values.

`read_declared` reads what the user says, `infer_schema` fills in the rest by written rules, and
`check_table` refuses what no backend could learn from, before hours are spent on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from safegen.errors import SourceError, UsageError
from safegen.tables.declared import (
    ANY_TABLE,
    ColumnKind,
    Declared,
    Role,
    declared_for,
    nearest,
    placed,
    read,
)
from safegen.tables.images import image_problem
from safegen.tables.numbers import decoded
from safegen.tables.types import family, is_supported, is_text, way_out

__all__ = [
    "ANY_TABLE",
    "ID_NAME",
    "ID_ROLES",
    "MINIMUM_ROWS",
    "Column",
    "Declared",
    "ColumnKind",
    "Role",
    "TableSchema",
    "check_table",
    "declared_for",
    "infer_schema",
    "nearest",
    "placed",
    "read_declared",
]

MINIMUM_ROWS = 20
"""Fewer rows are refused: with one row the best fit is that very row, i.e. a copy of a person."""

ID_ROLES = ("id", "key", "entity", "sequence_key")


class Column(BaseModel):
    """One column: what it is and how we know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    type: str  # str() of the Arrow type
    kind: ColumnKind
    role: Role = "feature"
    inferred: bool = True  # False when the user declared its kind or role
    faker: str | None = None  # the Faker provider of a personal column
    public: bool = False  # the user says that its levels may be shown
    references: str | None = None  # TABLE.COLUMN, the key of another table that this one holds
    note: str | None = None  # why it was inferred so; never a real value


class TableSchema(BaseModel):
    """The columns of one table, in order. `model_dump_json` and `model_validate_json` round-trip.

    No real value is in it: it may go into a manifest, unlike the metadata that SDV detects.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The column names, in order."""
        return tuple(column.name for column in self.columns)

    @property
    def kinds(self) -> dict[str, ColumnKind]:
        """What each column holds, by its name."""
        return {column.name: column.kind for column in self.columns}

    @property
    def target(self) -> str | None:
        """The column that a model will be trained to predict, when one is declared."""
        return self._with_role("target")

    @property
    def entity(self) -> str | None:
        """The column that says which person or thing a row is about, when one is declared."""
        return self._with_role("entity")

    @property
    def sequence_key(self) -> str | None:
        """The column that says which sequence a row belongs to, when one is declared."""
        return self._with_role("sequence_key")

    @property
    def sequence_index(self) -> str | None:
        """The column by which the rows of a sequence are ordered, when one is declared."""
        return self._with_role("sequence_index")

    def column(self, name: str) -> Column:
        """The column of that name. Raises: UsageError, with the nearest known name."""
        for column in self.columns:
            if column.name == name:
                return column
        raise UsageError(f"no column {name!r}{nearest(name, self.names)}")

    def _with_role(self, role: Role) -> str | None:
        return next((c.name for c in self.columns if c.role == role), None)


def read_declared(source: object) -> Declared:
    """What the user says about the columns, from None, a YAML path, a mapping, a `TableSchema` or
    SDV's metadata; the shapes are in `safegen.tables.declared`.

    Raises: UsageError for an unknown key or value, naming the file, the column and the nearest
    known word; SourceError for a file that cannot be read.
    """
    if isinstance(source, TableSchema):
        return {ANY_TABLE: {c.name: _of_column(c) for c in source.columns}}
    return read(source)


def _of_column(column: Column) -> dict[str, Any]:
    entry: dict[str, Any] = {"kind": column.kind, "role": column.role, "public": column.public}
    entry["references"] = column.references
    return entry | ({"faker": column.faker} if column.faker else {})


# --- what we infer --------------------------------------------------------------------------

MANY = 50  # fewer distinct values say little about whether a column identifies
MOSTLY = 0.95  # more than this share of distinct values: each row has its own
SHAPED = 0.90  # at least this share looks like an e-mail address, a phone number, …

_SHAPES: tuple[tuple[str, str, str], ...] = (
    ("e-mail addresses", "email", r"^[^@\s]+@[^@\s]+\.[A-Za-z]{2,}$"),
    ("social security numbers", "ssn", r"^\d{3}-\d{2}-\d{4}$"),
    (
        "phone numbers",
        "phone_number",
        r"^(\+\d{9,15}|(\+?\d{1,3}[\s.-]?)?(\(\d{2,4}\)[\s.-]?|\d{2,4}[\s.-])\d{2,4}[\s.-]?\d{3,4})"
        r"( ?(x|ext\.?) ?\d{1,6})?$",
    ),
)
_UUID = r"^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$"
_CLASS_NAME = r"^(.*_)?(label|class|category)(_id)?$"
_DATE = r"^\d{4}-\d{2}-\d{2}([T ].*)?$|^\d{1,2}[/.]\d{1,2}[/.]\d{2,4}$"
ID_NAME = r"^(id|uuid|guid|key|.*[_\- ](id|key|uuid)|(id|key)_.*|.*[a-z]Id|.*ID)$"
_PERSONAL_NAME = (
    r"(^|[_\- ])(e?mail|phone|mobile|ssn|address|street|city|town|state|county|zip|zip_?code|"
    r"post_?code|postal_?code|lat|latitude|lon|lng|longitude|first_?name|last_?name|full_?name|"
    r"surname|name|birth_?date|birthday|dob|passport|iban|ip)([_\- ]|$)|phone_number"
)


def infer_schema(
    table: pa.Table, declared: Mapping[str, Mapping[str, Any]] | None = None
) -> TableSchema:
    """The schema of a table: what is declared, and for the rest what these rules say.

    1. bool → boolean. Integers, floats, decimals → numeric. Timestamps, dates, times and
       durations → datetime. Strings and dictionaries → categorical. UUIDs → id. Structs of `bytes`
       and `path`, which is how Hugging Face writes images → image.
    2. An integer column whose name looks like an id (`id`, `*_id`, `uuid`, `key`, …), with at
       least 50 distinct values and more than 95 % of them distinct → id. When the name looks
       like an id but values repeat, it stays numeric and a note says so.
    3. A string column of which at least 90 % (of the non-null) look like e-mail addresses,
       phone numbers or social security numbers → personal: values will be invented. Like
       UUIDs → id.
    4. Any other string column with at least 50 values, more than 95 % distinct → id.
    5. A column is never replaced for its name alone: `city` or `zip_code` keep their kind, and a
       note says that personal data can be declared.
    6. Beside images an integer column named `label`, `class` or `category` → categorical: the
       classes of the images.
    7. Nulls (and NaN) do not count. A column without any value has a note that it comes back null.

    A declaration overrides all of this. Roles id, key, entity and sequence_key mean kind id
    unless a kind is declared beside them; role personal and kind personal mean each other.

    Raises: UsageError for a declared column that does not exist, a declaration that contradicts
    itself, two columns of a role that only one can have; SourceError when a type cannot have the
    declared kind.
    """
    declared = declared or {}
    names = table.column_names
    for name in declared:
        if name not in names:
            raise UsageError(f"schema: no column {name!r} in the data{nearest(name, names)}")
    columns = tuple(_column(name, table.column(name), declared.get(name)) for name in names)
    if any(c.kind == "image" for c in columns):
        columns = tuple(map(_class_of_images, columns, table.schema.types))
    for role in ("target", "entity", "sequence_key", "sequence_index"):
        holders = [c.name for c in columns if c.role == role]
        if len(holders) > 1:
            raise UsageError(f"schema: more than one column has role {role}: {', '.join(holders)}")
    return TableSchema(columns=columns)


def _class_of_images(column: Column, type_: pa.DataType) -> Column:
    if not column.inferred or family(type_) != "int" or not re.match(_CLASS_NAME, column.name):
        return column
    return column.model_copy(update={"kind": "categorical", "note": "the classes of the images"})


def _column(name: str, values: pa.ChunkedArray, entry: Mapping[str, Any] | None) -> Column:
    entry = entry or {}
    kind, role = entry.get("kind"), entry.get("role")
    if role == "personal" or (kind is None and entry.get("faker")):
        kind, role = kind or "personal", "personal"
    if kind is None and (role in ID_ROLES or (entry.get("references") and role is None)):
        kind = "id"
    declared = kind is not None
    note: str | None = None
    faker = entry.get("faker")
    if kind is None:
        kind, note, guessed = _infer_kind(name, values)
        faker = faker or guessed
        if kind in ("id", "personal") and role in ("target", "feature", "sequence_index"):
            kind, note = _plain_kind(values.type), f"kept for its declared role {role}"
            faker = None
    settled: Role = role or (kind if kind in ("id", "personal") else "feature")
    if kind != "personal" and faker is not None:
        raise UsageError(f"schema: column {name!r}: faker is for personal columns, not for {kind}")
    _consistent(name, values.type, kind, settled)
    return Column(
        name=name,
        type=str(values.type),
        kind=kind,
        role=settled,
        inferred=not (declared or entry.get("role")),
        faker=faker,
        public=entry.get("public", False),
        references=entry.get("references"),
        note=note,
    )


def _consistent(name: str, type_: pa.DataType, kind: str, role: str) -> None:
    invented = kind in ("id", "personal")
    if (role in ("id", "personal") and role != kind) or (
        role in ("target", "sequence_index") and invented
    ):
        raise UsageError(
            f"schema: column {name!r}: kind {kind} contradicts role {role}; leave one of them out"
        )
    if pa.types.is_null(type_):
        return
    plain = _plain_kind(type_)
    fits = {
        "numeric": plain == "numeric",
        "datetime": plain == "datetime",
        "boolean": plain == "boolean",
        "categorical": family(type_) not in ("uuid", "image"),
        "id": is_text(type_) or family(type_) in ("int", "float", "uuid"),
        "personal": is_text(type_),
        "image": plain == "image",
    }
    if not fits[kind]:
        raise SourceError(
            f"column {name!r} is declared {kind}, but its type is {type_}: "
            "cast it in the data, or declare another kind"
        )


def _plain_kind(type_: pa.DataType) -> ColumnKind:
    kinds: dict[str, ColumnKind] = {
        "bool": "boolean",
        "int": "numeric",
        "float": "numeric",
        "decimal": "numeric",
        "time": "datetime",
        "uuid": "id",
        "image": "image",
    }
    return kinds.get(family(type_), "categorical")


def _infer_kind(name: str, values: pa.ChunkedArray) -> tuple[ColumnKind, str | None, str | None]:
    """Kind, note and Faker provider by rules 1 to 7."""
    kind = _plain_kind(values.type)
    n = len(values) - values.null_count
    if n == 0:
        return kind, "has no value in the source: comes back null", None
    if kind == "id":
        return kind, "UUIDs identify: replaced by surrogates", None
    if kind == "image":
        return kind, None, None
    named_id = re.match(ID_NAME, name) is not None or re.match(ID_NAME, name.lower()) is not None
    if family(values.type) == "int" and named_id:
        distinct = pc.count_distinct(values).as_py()
        if n >= MANY and distinct > MOSTLY * n:
            return "id", "named like an id, and nearly all values differ: surrogates", None
        note = "named like an id, but values repeat: declare role id or entity if it identifies"
        return kind, note, None
    if is_text(values.type):
        counts = _text_counts(values)
        words, weights = counts.field("values"), counts.field("counts")
        for what, provider, shape in _SHAPES:
            if _share(words, weights, shape, n) >= SHAPED:
                return "personal", f"values look like {what}: invented ones instead", provider
        if _share(words, weights, _UUID, n) >= SHAPED:
            return "id", "values look like UUIDs: replaced by surrogates", None
        if n >= MANY and len(words) > MOSTLY * n:
            note = "nearly all values differ: taken as an id and replaced by surrogates"
            if _share(words, weights, _DATE, n) >= SHAPED:
                note += "; values look like dates: cast the column to a date to have it modelled"
            return "id", note + "; declare kind categorical to keep the values", None
    if re.search(_PERSONAL_NAME, name.lower()):
        return kind, f"the name suggests personal data, values are kept: {_hide(values.type)}", None
    return kind, None, None


def _hide(type_: pa.DataType) -> str:
    """How to keep a column's values out: only texts and numbers can be invented."""
    if is_text(type_):
        return "declare role personal"
    if family(type_) in ("int", "float"):
        return "round or drop the column, or declare role id for invented numbers"
    return "round or drop the column"


def _text_counts(values: pa.ChunkedArray) -> pa.StructArray:
    """Distinct non-null texts with their counts."""
    return decoded(values).drop_null().cast(pa.large_string()).value_counts()


def _share(words: pa.Array, weights: pa.Array, shape: str, n: int) -> float:
    """Share of the n values that match; phone numbers must also have 9 to 15 digits."""
    match = pc.match_substring_regex(words, shape)
    if shape == _SHAPES[2][2]:
        digits = pc.utf8_length(pc.replace_substring_regex(words, r"( ?(x|ext).*$)|\D", ""))
        match = pc.and_(match, pc.and_(pc.greater_equal(digits, 9), pc.less_equal(digits, 15)))
    return float(pc.sum(pc.if_else(match, weights, 0)).as_py() or 0) / n


# --- what we refuse -------------------------------------------------------------------------


def check_table(table: pa.Table, name: str) -> None:
    """Return when a model can be fitted to the table; else say everything that is in the way.

    Refused: duplicate or empty column names, no columns, fewer than 20 rows (`MINIMUM_ROWS`),
    types that have no round trip, infinite numbers, images that cannot be read, a table without any
    value. NaN counts as
    missing. Raises: SourceError with column names, types and counts, never a value.
    """
    problems = []
    names = list(table.column_names)
    repeated = sorted({c for c in names if names.count(c) > 1})
    if not names:
        problems.append("it has no columns")
    if repeated:
        problems.append(f"column names are repeated: {', '.join(map(repr, repeated))}")
    if any(not isinstance(c, str) or not c.strip() for c in names):
        count = sum(not isinstance(c, str) or not c.strip() for c in names)
        problems.append(f"{count} column(s) have no name: give every column a non-empty name")
    if names and table.num_rows < MINIMUM_ROWS:
        problems.append(
            f"it has {table.num_rows} rows, and at least {MINIMUM_ROWS} are needed: "
            "from fewer, a model hands the real rows back"
        )
    missing = 0
    for field, values in zip(table.schema, table.columns, strict=True):
        if not is_supported(field.type):
            problems.append(
                f"column {field.name!r} has the type {field.type}, which cannot be synthesised: "
                + way_out(field.type)
            )
            continue
        if family(field.type) == "image" and (found := image_problem(field.name, values)):
            problems.append(found)
        nan = 0
        if family(field.type) == "float":
            wide = values.cast(pa.float64())
            infinite = pc.sum(pc.is_inf(wide)).as_py() or 0
            nan = pc.sum(pc.is_nan(wide)).as_py() or 0
            if infinite:
                problems.append(
                    f"column {field.name!r} has {infinite:,} infinite value(s): "
                    "replace them with nulls or with a number"
                )
        missing += values.null_count + nan == len(values)
    if names and table.num_rows and missing == len(names):
        problems.append("every value in it is null")
    if problems:
        lines = problems[0] if len(problems) == 1 else "".join(f"\n  - {p}" for p in problems)
        raise SourceError(f"table {name!r} cannot be used: {lines}")
