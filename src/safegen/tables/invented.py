"""Columns whose values must never be modelled: ids get surrogates, personal data is invented.

Neither makes a feature, and neither keeps a real value: an id column keeps a starting point above
every real id, a personal column a pool of invented values from which the real ones were removed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.contracts import Scalar
from safegen.errors import MissingExtra, SourceError, UsageError
from safegen.tables.columns import Condition, Feature, Features, Place, impossible, pack, unpack
from safegen.tables.numbers import decoded, to_numbers
from safegen.tables.streams import stream
from safegen.tables.types import family, is_text

__all__ = ["IdColumn", "PersonalColumn"]

POOL = 2_000  # invented values per column: Faker makes about 10,000 a second
DIGITS = 10  # of a surrogate: "syn-0000000042"
HEADROOM = 1_000  # a type that cannot number so many rows beyond the real ids is refused
UNIQUE = ("email", "company_email", "free_email", "safe_email", "ascii_email", "user_name")


def _share(values: pa.Array) -> float:
    nulls = int(values.null_count)
    if family(values.type) == "float":
        nulls += int(pc.sum(pc.is_nan(values.cast(pa.float64()))).as_py() or 0)
    return nulls / len(values)


def _read_share(document: Mapping[str, Any]) -> float:
    """Raises: TypeError, ValueError for what is no share."""
    share = float(document["null_share"])
    if not 0 <= share <= 1:
        raise ValueError
    return share


def _nulls(share: float, place: Place) -> np.ndarray | None:
    """Which rows are null, by a draw that a longer request extends; None when none is."""
    return place.rng().random(place.rows) < share if share else None


def _dictionary_is_wide(name: str, type_: pa.DataType, kind: str) -> None:
    if pa.types.is_dictionary(type_) and type_.index_type.bit_width < 32:
        raise SourceError(
            f"column {name!r} is {kind}, and its dictionary of type {type_} has no room for "
            "new values: cast it to string, or declare kind categorical"
        )


@dataclass(frozen=True)
class IdColumn:
    """An id: a surrogate made of the row's number in the whole output, so unique in it.

    Integers and floats start at the power of ten above the largest |value| of the source; texts
    are `syn-` (with as many `x` before the dash as it takes to differ from every real value) and
    ten digits; UUIDs are of version 8 (RFC 9562, custom), the seed in front, the row behind.
    """

    name: str
    type: pa.DataType
    start: int  # of numbers
    prefix: str  # of texts
    null_share: float
    features: tuple[Feature, ...] = ()

    @classmethod
    def fit(cls, name: str, values: pa.Array) -> Self:
        type_, share = values.type, _share(values)
        if is_text(type_):
            _dictionary_is_wide(name, type_, "an id")
            prefix, plain = "syn-", decoded(values)
            while pc.any(pc.starts_with(plain, prefix)).as_py():
                prefix = prefix[:-1] + "x-"
            return cls(name, type_, 0, prefix, share)
        if family(type_) == "uuid":
            return cls(name, type_, 0, "", share)
        numbers, present = to_numbers(values)
        known = numbers[present]
        largest = max(abs(int(known.min())), abs(int(known.max()))) if len(known) else 0
        start = 10 ** len(str(largest))
        if start + max(HEADROOM, len(values)) > _top(type_):
            raise SourceError(
                f"column {name!r} is an id of type {type_}, which has no room for surrogates above "
                "the real ids: cast it to int64 or to string, or drop it"
            )
        return cls(name, type_, start, "", share)

    def encode(self, values: pa.Array, rng: np.random.Generator) -> Features:
        return {}

    def decode(self, features: Mapping[str, np.ndarray], place: Place) -> pa.Array:
        rows = np.arange(place.first_row, place.first_row + place.rows, dtype=np.int64)
        absent = _nulls(self.null_share, place)
        if is_text(self.type):
            number = pc.utf8_lpad(pa.array(rows, mask=absent).cast(pa.string()), DIGITS, "0")
            return _as_text(pc.binary_join_element_wise(self.prefix, number, ""), self.type)
        if family(self.type) == "uuid":
            return _uuids(rows, absent, place, self.type)
        if len(rows) and self.start + int(rows[-1]) > _top(self.type):
            raise UsageError(
                f"column {self.name!r} of type {self.type} can number "
                f"{_top(self.type) - self.start:,} rows: ask for fewer, or fit on a wider type"
            )
        wide = rows.astype(np.uint64) + np.uint64(self.start)
        return pa.array(wide.astype(self.type.to_pandas_dtype()), type=self.type, mask=absent)

    def condition(self, value: Scalar) -> Condition:
        raise impossible(self.name, "it is an id, and its values are surrogates")

    def to_json(self) -> dict[str, Any]:
        fields = {"name": self.name, "start": self.start, "prefix": self.prefix}
        return {"codec": "id", **fields, "null_share": self.null_share}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], type_: pa.DataType) -> Self:
        start, prefix = int(document["start"]), str(document["prefix"])
        return cls(str(document["name"]), type_, start, prefix, _read_share(document))


def _top(type_: pa.DataType) -> int:
    if family(type_) == "float":
        return 1 << (np.finfo(type_.to_pandas_dtype()).nmant + 1)
    return int(np.iinfo(type_.to_pandas_dtype()).max)


def _as_text(values: pa.Array, type_: pa.DataType) -> pa.Array:
    if not pa.types.is_dictionary(type_):
        return values.cast(type_)
    coded = values.dictionary_encode()
    return pa.DictionaryArray.from_arrays(
        coded.indices.cast(type_.index_type),
        coded.dictionary.cast(type_.value_type),
        ordered=type_.ordered,
    )


def _uuids(
    rows: np.ndarray, absent: np.ndarray | None, place: Place, type_: pa.DataType
) -> pa.Array:
    raw = np.zeros((len(rows), 16), dtype=np.uint8)
    rng = np.random.default_rng(stream(place.seed, place.index))
    raw[:, :8] = rng.integers(0, 256, 8, np.uint8)
    raw[:, 8:] = rows.astype(">i8").view(np.uint8).reshape(-1, 8)
    raw[:, 6] = raw[:, 6] & 0x0F | 0x80  # version 8
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80  # variant
    bits = None if absent is None else pa.array(~absent).buffers()[1]
    storage = pa.Array.from_buffers(pa.binary(16), len(rows), [bits, pa.py_buffer(raw.tobytes())])
    return pa.ExtensionArray.from_storage(type_, storage)


@dataclass(frozen=True, eq=False)
class PersonalColumn:
    """Personal data: each value drawn from a pool that Faker invented at fit.

    E-mail addresses and user names get the row's number and so are unique; other providers
    repeat values (2,000 in the pool).
    """

    name: str
    type: pa.DataType
    pool: pa.Array
    unique: bool
    null_share: float
    features: tuple[Feature, ...] = ()

    @classmethod
    def fit(
        cls, name: str, values: pa.Array, provider: str | None, locales: Sequence[str], seed: int
    ) -> Self:
        _dictionary_is_wide(name, values.type, "personal")
        provider = provider or _provider_for(name)
        invented = pa.array(_invent(name, provider, locales, seed), pa.large_string()).unique()
        real = decoded(values).cast(pa.large_string()).unique()
        kept = invented.filter(pc.invert(pc.is_in(invented, value_set=real)))
        if not len(kept):
            raise SourceError(
                f"column {name!r}: every value that Faker's {provider} invents is a real one here: "
                "declare another faker, or kind categorical"
            )
        return cls(name, values.type, kept, provider in UNIQUE, _share(values))

    def encode(self, values: pa.Array, rng: np.random.Generator) -> Features:
        return {}

    def decode(self, features: Mapping[str, np.ndarray], place: Place) -> pa.Array:
        rng = np.random.default_rng(stream(place.seed, place.first_row, place.index, 1))
        at = (rng.random(place.rows) * len(self.pool)).astype(np.int64)
        drawn = self.pool.take(pa.array(at, mask=_nulls(self.null_share, place)))
        if self.unique:
            rows = np.arange(place.first_row, place.first_row + place.rows)
            number = pa.array(rows).cast(pa.large_string())
            parts = pc.split_pattern(self.pool, "@", max_splits=1)
            local = pc.list_element(parts, 0).take(pa.array(at))
            domain = pc.replace_substring_regex(drawn, r"^[^@]*", "")
            drawn = pc.binary_join_element_wise(
                local, number, domain, pa.scalar("", pa.large_string())
            )
        return _as_text(drawn, self.type)

    def condition(self, value: Scalar) -> Condition:
        raise impossible(self.name, "it is personal data, and its values are invented")

    def to_json(self) -> dict[str, Any]:
        fields = {"name": self.name, "pool": pack(self.pool), "unique": self.unique}
        return {"codec": "personal", **fields, "null_share": self.null_share}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], type_: pa.DataType) -> Self:
        pool = unpack(document["pool"])
        unique = bool(document["unique"])
        return cls(str(document["name"]), type_, pool, unique, _read_share(document))


_PROVIDERS = (  # part of a column's name → Faker provider
    ("mail", "email"),
    ("phone", "phone_number"),
    ("mobile", "phone_number"),
    ("ssn", "ssn"),
    ("first", "first_name"),
    ("last_name", "last_name"),
    ("surname", "last_name"),
    ("user", "user_name"),
    ("company", "company"),
    ("street", "street_address"),
    ("address", "address"),
    ("city", "city"),
    ("town", "city"),
    ("country", "country"),
    ("zip", "postcode"),
    ("post", "postcode"),
    ("state", "administrative_unit"),
    ("iban", "iban"),
    ("ip", "ipv4"),
    ("name", "name"),
)


def _provider_for(name: str) -> str:
    lower = name.lower()
    for part, provider in _PROVIDERS:
        if part in lower:
            return provider
    raise UsageError(
        f"schema: column {name!r} is personal: say which Faker provider invents its values, "
        "for example `faker: email`"
    )


def _invent(name: str, provider: str, locales: Sequence[str], seed: int) -> list[str]:
    try:
        from faker import Faker
    except ImportError:
        raise MissingExtra(
            f"column {name!r} is personal, and inventing values needs Faker: "
            "pip install 'safegen[sdv]'"
        ) from None
    try:
        fake = Faker(list(locales))
        fake.seed_instance(seed)
        if provider.startswith("_"):
            raise AttributeError(provider)
        call = getattr(fake, provider)
        return [str(call()) for _ in range(POOL)]
    except Exception as error:
        raise UsageError(
            f"schema: column {name!r}: Faker has no provider {provider!r} that needs no argument "
            f"for locale {', '.join(locales)} ({type(error).__name__})"
        ) from None
