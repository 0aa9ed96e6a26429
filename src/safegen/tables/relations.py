"""Which tables refer to which: declared, or detected by written rules; checked before any fit.

A reference is `Column.references = "table.column"`. Both its ends are kind `id`: keys are never
modelled as numbers, and every key that comes out is a surrogate.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from safegen.errors import SourceError, UsageError
from safegen.tables.declared import Declared, declared_for, nearest
from safegen.tables.numbers import decoded
from safegen.tables.schema import ID_NAME, ID_ROLES
from safegen.tables.types import family

if TYPE_CHECKING:
    from safegen.tables.schema import Column, TableSchema

__all__ = ["Reference", "generations", "references", "related"]

NEARLY_ALL = 0.95
"""Share of a column's values that must occur in a key before a reference to it is detected."""


@dataclass(frozen=True)
class Reference:
    """A foreign key: `table.column` holds values of `parent.key`."""

    table: str
    column: str
    parent: str
    key: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column}"

    @property
    def target(self) -> str:
        return f"{self.parent}.{self.key}"

    @property
    def way_out(self) -> str:
        return f"{self.column}: {{references: null}} in the schema of {self.table}"


def references(schemas: Mapping[str, TableSchema]) -> tuple[Reference, ...]:
    """Every reference of the schemas, in the order of tables and columns.

    Raises: UsageError for one that names no table or column of them.
    """
    found = []
    for table, schema in schemas.items():
        for column in schema.columns:
            if column.references is not None:
                found.append(_parsed(table, column.name, column.references, schemas))
    return tuple(found)


def generations(schemas: Mapping[str, TableSchema]) -> tuple[str, ...]:
    """The tables, each after all that it refers to. Raises: UsageError for a cycle."""
    links = references(schemas)
    order: list[str] = []
    while len(order) < len(schemas):
        ready = [
            n
            for n in schemas
            if n not in order and all(r.parent in order for r in links if r.table == n)
        ]
        if not ready:
            raise UsageError(f"references run in a circle: {_circle(links, order)}")
        order += ready
    return tuple(order)


def related(
    tables: Mapping[str, pa.Table], schemas: Mapping[str, TableSchema], declared: Declared
) -> dict[str, TableSchema]:
    """The schemas with all references: declared ones, and those that these rules detect.

    1. A table's key is its column of role `key`; else the first of these that is an integer, text
       or UUID without nulls and with a value of its own in every row: `id`, `<table>_id` (or
       `<table>_key`, the table's name also in the singular), its first column, any column named
       like an id.
    2. A column of another table refers to it when its type is of the same family; its name is the
       key's (other than plain `id`, `key`, …), or `<table>_<key>`, `<table>_id` or `<table>_key`;
       and at least 95 % of its distinct values occur in the key. A table's own key refers only to
       a table that is named in it.
    3. `references: null` in a declaration switches this off for a column, and so does any declared
       kind or role that is not an id's.

    Raises: UsageError (a declared reference names nothing, contradicts a declared kind, or runs in
    a circle); SourceError with every orphan, repeated or missing key, as counts.
    """
    if len(tables) == 1 and not any(c.references for s in schemas.values() for c in s.columns):
        return dict(schemas)
    links = {str(r): r for r in references(schemas)}
    keys = {name: _key(name, table, schemas[name]) for name, table in tables.items()}
    detected, doubtful = [], []
    for link, lost in _named(tables, schemas, declared, keys):
        if str(link) not in links and not _closes_circle(link, [*links.values()]):
            if lost > 1 - NEARLY_ALL:
                doubtful.append(link)
                continue
            detected.append(link)
            links[str(link)] = link
    _contradictions(links.values(), declared)
    _check(tables, links.values())
    found = dict(schemas)
    for link in links.values():
        found[link.parent] = _with_key(found[link.parent], link, declared)
    for link in links.values():
        found[link.table] = _with_reference(found[link.table], link, link in detected)
    for link in doubtful:
        column = found[link.table].column(link.column)
        note = f"named like {link.target}, but many values are not there: declare references if it"
        if column.inferred and column.references is None and column.kind != "id":
            noted = {"note": f"{note} holds that key"}
            found[link.table] = _replaced(found[link.table], column, noted)
    generations(found)
    return found


# ---- detection -----------------------------------------------------------------------------------


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _singulars(table: str) -> set[str]:
    """A table's name as it may stand in a key's: `orders`, `order`; `countries`, `country`."""
    plain = _plain(table)
    names = {plain}
    for ending, singular in (("ies", "y"), ("es", ""), ("s", "")):
        if plain.endswith(ending) and len(plain) > len(ending) + 1:
            names.add(plain[: -len(ending)] + singular)
    return names


_BARE = ("id", "key", "uuid", "guid", "pk", "code")


def _key(name: str, table: pa.Table, schema: TableSchema) -> str | None:
    """The column whose values name a table's rows, by rule 1; None when there is none."""
    declared = [c.name for c in schema.columns if c.role == "key"]
    if declared:
        return str(declared[0]) if len(declared) == 1 else None
    own = {n + word for n in _singulars(name) for word in ("id", "key")}
    names = table.column_names
    ranked = [n for n in names if _plain(n) == "id"]
    ranked += [n for n in names if _plain(n) in own]
    ranked += [*names[:1], *(n for n in names if re.match(ID_NAME, n))]
    for column in dict.fromkeys(ranked):
        values = table.column(column)
        if _keylike(values.type) and schema.column(column).role in (*ID_ROLES, "feature"):
            plain = decoded(values)
            if not plain.null_count and pc.count_distinct(plain).as_py() == len(plain):
                return str(column)
    return None


def _keylike(type_: pa.DataType) -> bool:
    inner = type_.value_type if pa.types.is_dictionary(type_) else type_
    return family(inner) in ("int", "text", "uuid")


def _family(type_: pa.DataType) -> str:
    return family(type_.value_type if pa.types.is_dictionary(type_) else type_)


def _named(
    tables: Mapping[str, pa.Table],
    schemas: Mapping[str, TableSchema],
    declared: Declared,
    keys: Mapping[str, str | None],
) -> Iterator[tuple[Reference, float]]:
    """Columns that are named like another table's key, and the share of their distinct values that
    this key does not hold."""
    for table, schema in schemas.items():
        said = declared_for(declared, table)
        for column in schema.columns:
            entry = said.get(column.name, {})
            if "references" in entry or entry.get("role", "id") not in ID_ROLES:
                continue
            if entry.get("kind", "id") != "id" or column.role in ("target", "sequence_key"):
                continue
            for parent, key in keys.items():
                if key is None or parent == table:
                    continue
                if not _named_for(column.name, parent, key, own=column.name == keys[table]):
                    continue
                values, known = tables[table].column(column.name), tables[parent].column(key)
                if _keylike(values.type) and _family(values.type) == _family(known.type):
                    distinct = pc.drop_null(decoded(values).unique())
                    lost = len(_orphans(distinct, known)) / max(len(distinct), 1)
                    if lost < 0.5:
                        yield Reference(table, column.name, parent, key), lost
                    if lost <= 1 - NEARLY_ALL:
                        break


def _named_for(column: str, parent: str, key: str, *, own: bool) -> bool:
    """Whether a column's name says that it holds the key of `parent`, by rule 2."""
    plain, tables = _plain(column), _singulars(parent)
    words = {_plain(key), "id", "key"}
    if any(plain == table + word for table in tables for word in words):
        return True
    same = plain == _plain(key) and plain not in _BARE
    return same and (not own or any(plain.startswith(t) for t in tables))


def _orphans(values: pa.Array, known: pa.ChunkedArray) -> pa.Array:
    """Those of `values` (plain, without nulls) that do not occur in the key."""
    keys = decoded(known)
    if isinstance(values.type, pa.BaseExtensionType):
        values, keys = values.storage, keys.storage
    try:
        keys = keys.cast(values.type)
    except pa.ArrowException:
        # 20 digits hold every 64-bit integer, signed or not.
        wider = pa.decimal128(20) if family(values.type) == "int" else pa.large_string()
        values, keys = values.cast(wider), keys.cast(wider)
    return values.filter(pc.invert(pc.is_in(values, value_set=keys)))


def _closes_circle(link: Reference, links: list[Reference]) -> bool:
    """Whether a detected reference would lead back to its own table."""
    above, seen = {link.parent}, set()
    while above:
        seen |= above
        above = {r.parent for r in links if r.table in above} - seen
    return link.table in seen


# ---- what cannot be ------------------------------------------------------------------------------


def _parsed(table: str, column: str, target: str, schemas: Mapping[str, TableSchema]) -> Reference:
    """`TABLE.COLUMN`, both known; either name may hold dots."""
    for parent, schema in schemas.items():
        if target.startswith(parent + ".") and target[len(parent) + 1 :] in schema.names:
            return Reference(table, column, parent, target[len(parent) + 1 :])
    known = [f"{n}.{c}" for n, s in schemas.items() for c in s.names]
    where = "" if len(schemas) > 1 else ", and this is the only table: name the others too"
    raise UsageError(
        f"schema: {table}.{column} references {target!r}, which is not here"
        f"{nearest(target, known)}{where}. Or say {column}: {{references: null}}"
    )


def _contradictions(links: Any, declared: Declared) -> None:
    for link in links:
        if link.table == link.parent:
            raise UsageError(
                f"{link} refers to its own table, which no backend here can model: say "
                f"{link.way_out}, with role: id to have its values replaced"
            )
        for table, column in ((link.table, link.column), (link.parent, link.key)):
            entry = declared_for(declared, table).get(column, {})
            if entry.get("kind", "id") != "id" or entry.get("role", "id") not in ID_ROLES:
                raise UsageError(
                    f"schema: {link} references {link.target}, so {table}.{column} is an id, and "
                    f"it is declared {entry.get('kind') or entry.get('role')}: leave that out, or "
                    f"say {link.way_out}"
                )


def _circle(links: tuple[Reference, ...], settled: list[str]) -> str:
    left = [r for r in links if r.table not in settled and r.parent not in settled]
    return ", ".join(f"{r} → {r.target}" for r in left) + f". Say {left[0].way_out} to cut it"


def _check(tables: Mapping[str, pa.Table], links: Any) -> None:
    """Raises: SourceError with every problem: kinds of keys, nulls, repeats, orphans."""
    problems = []
    for link in links:
        values, known = tables[link.table].column(link.column), tables[link.parent].column(link.key)
        plain = decoded(known)
        if not _keylike(known.type) or _family(values.type) != _family(known.type):
            problems.append(
                f"{link} is {values.type} and refers to {link.target}, which is {known.type}: "
                f"cast both to one integer or text type, or say {link.way_out}"
            )
            continue
        repeated = len(plain) - plain.null_count - pc.count_distinct(plain).as_py()
        if plain.null_count or repeated:
            problems.append(
                f"{link.target} is referred to by {link}, and is no key: {repeated:,} of its "
                f"{len(plain):,} rows repeat a value and {plain.null_count:,} have none. Keep one "
                f"row per key, or say {link.way_out}"
            )
            continue
        held = pc.drop_null(decoded(values))
        orphans = _orphans(held, known)
        if len(orphans):
            distinct = pc.count_distinct(orphans).as_py()
            problems.append(
                f"{link}: {distinct:,} value{'s' * (distinct != 1)} ({len(orphans):,} "
                f"row{'s' * (len(orphans) != 1)}) {'is' if distinct == 1 else 'are'} not in "
                f"{link.target}: remove these rows, or say {link.way_out}"
            )
    if problems:
        lines = problems[0] if len(problems) == 1 else "".join(f"\n  - {p}" for p in problems)
        raise SourceError(f"the tables do not fit together: {lines}")


# ---- what follows for the columns ----------------------------------------------------------------


def _with_key(schema: TableSchema, link: Reference, declared: Declared) -> TableSchema:
    column = schema.column(link.key)
    said = declared_for(declared, link.parent).get(link.key, {})
    note = None if "role" in said else f"{link} refers to it: surrogates"
    role = column.role if column.role in ("entity", "sequence_key") else "key"
    return _replaced(schema, column, {"kind": "id", "role": role, "faker": None, "note": note})


def _with_reference(schema: TableSchema, link: Reference, detected: bool) -> TableSchema:
    column = schema.column(link.column)
    found = "named and filled like" if detected else "declared to hold"
    note = f"{found} {link.target}: surrogates of that table"
    role = column.role if column.role in ID_ROLES else "id"
    settled = {"kind": "id", "role": role, "faker": None, "references": link.target, "note": note}
    return _replaced(schema, column, settled)


def _replaced(schema: TableSchema, column: Column, update: Mapping[str, Any]) -> TableSchema:
    changed = column.model_copy(update=dict(update))
    columns = tuple(changed if c.name == column.name else c for c in schema.columns)
    return schema.model_copy(update={"columns": columns})
