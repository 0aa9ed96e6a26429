"""Files in cells: binary values in columns of any type, in structs and lists too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["embedded", "holds_binary"]


def holds_binary(type_: pa.DataType) -> bool:
    """Whether values of a type hold binary ones."""
    type_ = _unwrapped(type_)
    return _is_binary(type_) or any(
        holds_binary(type_.field(i).type) for i in range(type_.num_fields)
    )


def embedded(array: pa.Array, starts: Sequence[bytes] = (b"",)) -> Iterator[tuple[int, bytes]]:
    """The binary cells in an array of any type that begin with one of these, each with the row that
    it stands in."""
    type_, t = array.type, pa.types
    if not holds_binary(type_):
        return
    if isinstance(type_, pa.BaseExtensionType):
        yield from embedded(array.storage, starts)
    elif t.is_dictionary(type_):
        yield from embedded(array.dictionary_decode(), starts)
    elif t.is_run_end_encoded(type_):
        yield from embedded(pc.run_end_decode(array), starts)
    elif t.is_struct(type_):
        for child in array.flatten():
            yield from embedded(child, starts)
    elif t.is_union(type_):
        codes = np.asarray(array.type_codes)
        for i, code in enumerate(type_.type_codes):
            rows = np.flatnonzero(codes == code)
            at = rows if type_.mode == "sparse" else np.asarray(array.offsets)[rows]
            for k, data in embedded(array.field(i).take(pa.array(at)), starts):
                yield int(rows[k]), data
    elif _is_binary(type_):
        array = array.cast(pa.large_binary())
        found = [pc.starts_with(array, pattern=start).fill_null(False) for start in starts]
        for row in np.flatnonzero(np.any(found, axis=0)):
            yield int(row), array[int(row)].as_py()
    else:  # lists; of maps Arrow flattens the keys alone
        if t.is_map(type_):
            array = array.cast(pa.list_(pa.struct([type_.key_field, type_.item_field])))
        rows = np.asarray(pc.list_parent_indices(array))
        for k, data in embedded(pc.list_flatten(array), starts):
            yield int(rows[k]), data


def _unwrapped(type_: pa.DataType) -> pa.DataType:
    t = pa.types
    if isinstance(type_, pa.BaseExtensionType):
        return _unwrapped(type_.storage_type)
    if t.is_dictionary(type_) or t.is_run_end_encoded(type_):
        return _unwrapped(type_.value_type)
    return type_


def _is_binary(type_: pa.DataType) -> bool:
    t = pa.types
    kinds = (t.is_binary, t.is_large_binary, t.is_binary_view, t.is_fixed_size_binary)
    return any(is_kind(type_) for is_kind in kinds)
