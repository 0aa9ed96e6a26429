"""What the user says about columns: strict words, from a file, a mapping or SDV's metadata."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from safegen.errors import SourceError, UsageError, hidden, upstream

__all__ = [
    "ANY_TABLE",
    "Declared",
    "ColumnKind",
    "Role",
    "declared_for",
    "nearest",
    "placed",
    "read",
]

ColumnKind = Literal["numeric", "categorical", "boolean", "datetime", "id", "personal", "image"]
Role = Literal[
    "feature", "target", "entity", "key", "sequence_key", "sequence_index", "id", "personal"
]
Declared = dict[str, dict[str, dict[str, Any]]]
"""`{table: {column: {kind?, role?, faker?, public?, references?}}}`; see `read`."""

ANY_TABLE = "*"
"""The table name of a declaration that was written for one table and names none."""

MAX_SCHEMA_BYTES = 1 << 20

_KEYS = ("kind", "role", "faker", "public", "references")
_KINDS: tuple[str, ...] = get_args(ColumnKind)
_ROLES: tuple[str, ...] = get_args(Role)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, else the empty string."""
    match = get_close_matches(name, list(known), n=1)
    return f"; did you mean {match[0]!r}?" if match else ""


def read(source: object) -> Declared:
    """What the user says: `{table: {column: {kind?, role?, faker?, public?, references?}}}`.

    `source` is None (nothing declared), the path of a YAML file, a mapping of the same shape, or
    SDV's `Metadata` (anything with `to_dict()`; its JSON file or dict; also those of SDV 1, which
    knew a `SingleTableMetadata`). A declaration for one table
    comes back under `ANY_TABLE`; `declared_for` picks the right one. Two shapes:

        columns: {age: {kind: numeric}, ssn: id, email: {role: personal, faker: email}}
        tables:  {people: {columns: {…}}, orders: {columns: {…}}}

    `ssn: id` is short for `ssn: {role: id}` where the word is a role, else for `{kind: …}`.
    `references: TABLE.COLUMN` names the key of another table that a column holds; `references:
    null` says that it holds none, whatever it looks like.
    From SDV: the primary key becomes role `key`; `sequence_key` and `sequence_index` keep their
    names; personal sdtypes (`pii: true`) become role `personal` with the sdtype as provider;
    relationships become references.

    Raises: UsageError for an unknown key or value, naming the file, the column and the nearest
    known word; SourceError for a file that cannot be read.
    """
    if source is None:
        return {}
    if isinstance(source, str | Path):
        return _document(_read_yaml(Path(source)), f"{source}: ")
    if isinstance(source, Mapping):
        return _document(source, "schema: ")
    to_dict = getattr(source, "to_dict", None)
    if callable(to_dict):
        return _from_sdv(to_dict())
    raise UsageError(
        "schema must be a path to a YAML file, a mapping, a TableSchema or SDV metadata, "
        f"not {type(source).__name__}"
    )


def placed(declared: Declared, tables: Collection[str], unnamed: str) -> Declared:
    """The declarations, each for a table that is there.

    A single table whose source names none is called `unnamed`: what is declared for one table,
    whatever its name, is then meant for it. Raises: UsageError for any other table's name: what
    hides personal data is never dropped for a typing error.
    """
    unknown = [name for name in declared if name != ANY_TABLE and name not in tables]
    if unknown and [*tables] == [unnamed]:
        if len(declared) == 1:
            return {ANY_TABLE: next(iter(declared.values()))}
        raise UsageError(
            f"schema: it declares several tables ({', '.join(declared)}), and the source is one "
            "without a name: name it (NAME=PATH, in Python {name: path}), or declare `columns:`"
        )
    if unknown:
        hint = nearest(unknown[0], tables) or f" (here are: {', '.join(tables)})"
        raise UsageError(f"schema: no table {unknown[0]!r}{hint}")
    return declared


def declared_for(declared: Declared, table: str) -> dict[str, dict[str, Any]]:
    """The declarations of one table: its own, else those written for a single table."""
    return declared.get(table, declared.get(ANY_TABLE, {}))


def _read_yaml(path: Path) -> object:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        with path.open("rb") as file:
            text = file.read(MAX_SCHEMA_BYTES + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SourceError(f"{path}: the schema cannot be read ({reason})") from None
    if len(text) > MAX_SCHEMA_BYTES:
        raise SourceError(f"{path}: a schema file has at most {MAX_SCHEMA_BYTES:,} bytes")
    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f"{path}:{line + 1}" if line is not None else str(path)
        raise UsageError(f"{where}: not a YAML 1.2 document ({upstream(error)})") from hidden(error)


def _document(document: object, where: str) -> Declared:
    top = _mapping(document, f"{where}expected `columns:` or `tables:`")
    if "METADATA_SPEC_VERSION" in top:
        return _from_sdv(top)
    for key in top:
        if key not in ("columns", "tables"):
            raise UsageError(
                f"{where}unknown key {key!r}{nearest(str(key), ('columns', 'tables'))}"
            )
    if len(top) != 1:
        raise UsageError(f"{where}expected exactly one of `columns:` and `tables:`")
    if "columns" in top:
        return {ANY_TABLE: _columns(top["columns"], where)}
    declared: Declared = {}
    for name, body in _mapping(top["tables"], f"{where}`tables:` must map names").items():
        at = f"{where}table {name!r}: "
        inner = _mapping(body, f"{at}expected `columns:`")
        for key in inner:
            if key != "columns":
                raise UsageError(f"{at}unknown key {key!r}{nearest(str(key), ('columns',))}")
        declared[str(name)] = _columns(inner.get("columns", {}), at)
    return declared


def _mapping(value: object, message: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{message}, not {type(value).__name__}")
    return value


def _columns(value: object, where: str) -> dict[str, dict[str, Any]]:
    columns = {}
    for name, entry in _mapping(value, f"{where}`columns:` must map column names").items():
        if not isinstance(name, str):
            raise UsageError(f"{where}column name {name!r} must be text: put it in quotes")
        at = f"{where}column {name!r}: "
        if isinstance(entry, str):
            entry = {("role" if entry in _ROLES else "kind"): entry}
            if "kind" in entry:
                _word(at, "kind or role", entry["kind"], (*_KINDS, *_ROLES))
        entry = dict(_mapping(entry, f"{at}expected a mapping or one word"))
        for key in entry:
            if key not in _KEYS:
                raise UsageError(f"{at}unknown key {key!r}{nearest(str(key), _KEYS)}")
        if "kind" in entry:
            _word(at, "kind", entry["kind"], _KINDS)
        if "role" in entry:
            _word(at, "role", entry["role"], _ROLES)
        if entry.get("faker") is not None and not isinstance(entry["faker"], str):
            raise UsageError(f"{at}faker must be the name of a Faker provider, such as email")
        if not isinstance(entry.get("public", False), bool):
            raise UsageError(f"{at}public must be true or false")
        if not isinstance(entry.get("references"), str | None):
            raise UsageError(f"{at}references must be TABLE.COLUMN, or null for none")
        columns[name] = entry
    return columns


def _word(where: str, key: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        words = ", ".join(dict.fromkeys(known))
        hint = nearest(str(value), known)
        raise UsageError(f"{where}unknown {key} {value!r}{hint} (one of: {words})")


_SDV_KINDS = {
    "numerical": {"kind": "numeric"},
    "categorical": {"kind": "categorical"},
    "boolean": {"kind": "boolean"},
    "datetime": {"kind": "datetime"},
    "id": {"role": "id"},
    "unknown": {},
}


def _from_sdv(document: object) -> Declared:
    top = _mapping(document, "SDV metadata: expected a mapping")
    tables = top.get("tables", {ANY_TABLE: top})
    declared: Declared = {}
    for table, body in tables.items():
        columns: dict[str, dict[str, Any]] = {}
        for name, entry in body.get("columns", {}).items():
            sdtype = entry.get("sdtype", "unknown")
            if sdtype in _SDV_KINDS:
                columns[name] = dict(_SDV_KINDS[sdtype])
            elif entry.get("pii", True):
                columns[name] = {"role": "personal", "faker": sdtype}
            else:
                columns[name] = {"kind": "categorical"}
        for key, role in (
            ("primary_key", "key"),
            ("sequence_key", "sequence_key"),
            ("sequence_index", "sequence_index"),
        ):
            named = body.get(key) or []
            for name in [named] if isinstance(named, str) else named:
                if role == "sequence_index":
                    columns.setdefault(name, {})["role"] = role
                else:
                    columns[name] = {"role": role}
        declared[str(table)] = _columns(columns, f"SDV metadata, table {table!r}: ")
    for link in top.get("relationships") or []:
        child = declared.setdefault(str(link["child_table_name"]), {})
        column, key = link["child_foreign_key"], link["parent_primary_key"]
        if not isinstance(column, str) or not isinstance(key, str):
            raise UsageError("SDV metadata: a relationship by several columns is not supported")
        child.setdefault(column, {})["references"] = f"{link['parent_table_name']}.{key}"
    if len(declared) == 1:
        return {ANY_TABLE: next(iter(declared.values()))}
    return declared
