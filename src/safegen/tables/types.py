"""Which Arrow types have an exact round trip, and what to do about those that have none."""

from __future__ import annotations

from typing import Literal

import pyarrow as pa

from safegen.tables.images import is_image

__all__ = ["Family", "family", "is_supported", "is_text", "is_uuid", "computable", "way_out"]

Family = Literal[
    "bool",
    "int",
    "float",
    "decimal",
    "time",
    "text",
    "dictionary",
    "uuid",
    "image",
    "null",
    "other",
]


def family(type_: pa.DataType) -> Family:
    """The family of an Arrow type; "other" has no round trip. Dates and durations are "time"."""
    t = pa.types
    if t.is_boolean(type_):
        return "bool"
    if t.is_integer(type_):
        return "int"
    if t.is_floating(type_):
        return "float"
    if t.is_decimal(type_):
        return "decimal" if type_.scale >= 0 else "other"  # Arrow cannot rescale the others
    if t.is_timestamp(type_) or t.is_date(type_) or t.is_time(type_) or t.is_duration(type_):
        return "time"
    if t.is_string(type_) or t.is_large_string(type_) or t.is_string_view(type_):
        return "text"
    if t.is_dictionary(type_):
        return "dictionary"
    if is_uuid(type_):
        return "uuid"
    if is_image(type_):
        return "image"
    return "null" if t.is_null(type_) else "other"


def is_uuid(type_: pa.DataType) -> bool:
    """Whether the type is Arrow's canonical `arrow.uuid`."""
    return isinstance(type_, pa.BaseExtensionType) and type_.extension_name == "arrow.uuid"


def is_text(type_: pa.DataType) -> bool:
    """Whether values are strings, also when dictionary-encoded."""
    inner = type_.value_type if pa.types.is_dictionary(type_) else type_
    return family(inner) == "text"


def is_supported(type_: pa.DataType) -> bool:
    """Whether columns of this type come back exactly as they are."""
    if pa.types.is_dictionary(type_):
        return family(type_.value_type) not in ("other", "dictionary", "uuid", "image", "null")
    return family(type_) != "other"


def computable(type_: pa.DataType) -> pa.DataType:
    """The type to compute in: Arrow has few functions for string views and half floats."""
    if pa.types.is_string_view(type_):
        return pa.large_string()
    if pa.types.is_float16(type_):
        return pa.float32()
    return type_


def way_out(type_: pa.DataType) -> str:
    """What the user can do about a type that is not supported."""
    t = pa.types
    if t.is_dictionary(type_) or t.is_run_end_encoded(type_):
        return "decode it to its plain type, or drop it"
    if t.is_nested(type_):
        return "flatten it into one column per value, or drop it"
    if t.is_binary(type_) or t.is_large_binary(type_) or t.is_fixed_size_binary(type_):
        return "cast it to a string (hex, for instance) and declare role id, or drop it"
    if isinstance(type_, pa.BaseExtensionType):
        return f"cast it to its storage type ({type_.storage_type}) or to a date, or drop it"
    if t.is_decimal(type_):
        return "cast it to a decimal of scale 0 or more, or drop it"
    return "cast it to a number, a string or a timestamp, or drop it"
