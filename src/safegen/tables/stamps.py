"""Stamps: three places in a Parquet file that say which dataset its rows come from.

pandas carries `PANDAS_ATTRS` through its own re-saves, Spark carries column metadata, Arrow
carries its own key; the in-band columns travel with everyone else. A stamp can prove that rows
are synthetic. It can never prove that they are real.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

__all__ = ["KEY", "described", "read_stamps", "stamped"]

KEY = "safegen"
_PANDAS = b"PANDAS_ATTRS"
_SPARK = b"org.apache.spark.sql.parquet.row.metadata"
_MAX_BYTES = 1 << 24  # the Spark schema of some ten thousand stamped columns

_SPARK_TYPES = {
    "bool": "boolean",
    "int8": "byte",
    "int16": "short",
    "int32": "integer",
    "int64": "long",
    "float": "float",
    "halffloat": "float",
    "double": "double",
    "date32[day]": "date",
}


def _spark_type(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return "timestamp" if kind.tz else "timestamp_ntz"
    if pa.types.is_dictionary(kind):
        return _spark_type(kind.value_type)
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision},{kind.scale})"
    return _SPARK_TYPES.get(str(kind), "string")


def stamped(schema: pa.Schema, stamp: Mapping[str, Any]) -> pa.Schema:
    """The schema with the stamp in its three places; everything else in the metadata is kept."""
    text = json.dumps(dict(stamp), sort_keys=True)
    spark = {
        "type": "struct",
        "fields": [
            {
                "name": f.name,
                "type": _spark_type(f.type),
                "nullable": True,
                "metadata": {KEY: text},
            }
            for f in schema
        ],
    }
    metadata = dict(schema.metadata or {})
    metadata[KEY.encode()] = text.encode()
    metadata[_PANDAS] = json.dumps({KEY: dict(stamp)}).encode()
    metadata[_SPARK] = json.dumps(spark).encode()
    return schema.with_metadata(metadata)


def described(text: str | None) -> list[dict[str, Any]]:
    """The stamps in the description of a Hugging Face dataset: a line each, for datasets that were
    put together have the descriptions of all. Prose that names safegen is none."""
    lines = [_parsed(line) for line in (text or "").splitlines() if f'"{KEY}"' in line]
    found = [
        _known(line[KEY] or "damaged", "Hugging Face description")
        for line in lines
        if isinstance(line, Mapping) and KEY in line
    ]
    return [s for s in found if s is not None]


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None


def _document(data: bytes | None, place: str) -> tuple[Any, list[dict[str, Any]]]:
    """A metadata document of another tool, parsed; and a stamp if it is damaged but named ours."""
    if data is None:
        return None, []
    parsed = _parsed(data) if len(data) <= _MAX_BYTES else None
    damaged = parsed is None and f'"{KEY}"'.encode() in data
    return parsed, [{"place": place}] if damaged else []


def _known(stamp: Any, place: str) -> dict[str, Any] | None:
    """A stamp as a small dict; a damaged one still says that there was a stamp."""
    if stamp is None:
        return None
    if not isinstance(stamp, Mapping):
        return {"place": place}
    known = {k: stamp[k] for k in ("dataset_id", "origin", "depth") if k in stamp}
    return {**known, "place": place}


def read_stamps(schema: pa.Schema, attrs: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Every stamp found in a schema's metadata, in its fields, and in a frame's `attrs`.

    Each is {dataset_id?, origin?, depth?, place}. What cannot be parsed is still reported.
    """
    found: list[dict[str, Any] | None] = []
    metadata = schema.metadata or {}
    if (own := metadata.get(KEY.encode())) is not None:
        stamp = _parsed(own) if len(own) <= _MAX_BYTES else None
        found.append(_known(stamp or "damaged", "Parquet key"))
    pandas, damaged = _document(metadata.get(_PANDAS), "pandas attrs")
    found += damaged
    if isinstance(pandas, Mapping) and KEY in pandas:
        found.append(_known(pandas[KEY] or "damaged", "pandas attrs"))
    arrow, damaged = _document(metadata.get(b"pandas"), "pandas attrs")
    found += damaged
    kept = arrow.get("attributes") if isinstance(arrow, Mapping) else None
    if isinstance(kept, Mapping) and KEY in kept:  # pyarrow's own place for them
        found.append(_known(kept[KEY] or "damaged", "pandas attrs"))
    spark, damaged = _document(metadata.get(_SPARK), "Spark column metadata")
    found += damaged
    if isinstance(spark, Mapping) and isinstance(spark.get("fields"), list):
        for field in spark["fields"]:
            inner = field.get("metadata") if isinstance(field, Mapping) else None
            if isinstance(inner, Mapping) and KEY in inner:
                found.append(_known(_parsed(inner[KEY]) or "damaged", "Spark column metadata"))
                break
    for field in schema:
        if field.metadata and KEY.encode() in field.metadata:
            stamp = _parsed(field.metadata[KEY.encode()]) or "damaged"
            found.append(_known(stamp, "Arrow field metadata"))
            break
    if attrs and KEY in attrs:
        found.append(_known(attrs[KEY] or "damaged", "pandas attrs"))
    return [s for s in found if s is not None]
