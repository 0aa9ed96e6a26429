"""docs/manifest.md as code of its own: clauses that the verifier of tools/ has no rows for."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pytest
from blake3 import blake3
from test_manifest import example

from safegen.manifest.schema import json_schema
from safegen.tables.digests import RowsDigest, combine, scheme_of

TOP = Path(__file__).parents[2]


def rows_digest(table: dict[str, list[Any]], scheme: str) -> str:
    """Clause E.1, by hand."""
    names = sorted(table)
    count = len(table[names[0]])
    head = hashlib.sha256(scheme.encode() + b"".join(b"\0" + n.encode() for n in names)).digest()
    lanes = [0] * 1024
    for i in range(count):
        cells = b"".join(cell(table[n][i]) for n in names)
        if scheme == "safegen-rows-v1":
            expanded = hashlib.shake_128(head + cells).digest(2048)
        else:
            expanded = blake3(head + cells).digest(length=2048)
        for j, lane in enumerate(struct.unpack("<1024H", expanded)):
            lanes[j] = (lanes[j] + lane) % 2**16
    whole = head + struct.pack("<Q", count) + struct.pack("<1024H", *lanes)
    return f"{scheme}:{hashlib.sha256(whole).hexdigest()}"


def cell(value: Any) -> bytes:
    """Clause E.2, by hand."""

    def hashed(tag: bytes, data: bytes) -> bytes:
        return tag + hashlib.blake2b(data, digest_size=16).digest()

    def words(tag: bytes, low: bytes, high: bytes = bytes(8)) -> bytes:
        return tag + low + high

    if value is None or value != value:
        return bytes(17)
    if isinstance(value, bool):
        return words(b"b", struct.pack("<q", value))
    if isinstance(value, int):
        return words(b"u" if value >= 2**63 else b"i", struct.pack("<Q", value % 2**64))
    if isinstance(value, float):
        return words(b"f", struct.pack("<d", value + 0.0))
    if isinstance(value, str):
        return hashed(b"s", value.encode())
    if isinstance(value, bytes):
        return hashed(b"y", value)
    if isinstance(value, decimal.Decimal):
        return hashed(b"m", str(value.normalize()).encode())
    epoch = datetime.datetime(1970, 1, 1)
    if isinstance(value, datetime.datetime):
        since = value.replace(tzinfo=None) - epoch
        seconds = since.days * 86_400 + since.seconds
        nanos = struct.pack("<q", since.microseconds * 1000)
        return words(b"T" if value.tzinfo else b"t", struct.pack("<q", seconds), nanos)
    if isinstance(value, datetime.date):
        return words(b"d", struct.pack("<q", (value - epoch.date()).days))
    assert isinstance(value, datetime.time)
    seconds = value.hour * 3600 + value.minute * 60 + value.second
    return words(b"c", struct.pack("<q", seconds), struct.pack("<q", value.microsecond * 1000))


TABLES: list[dict[str, list[Any]]] = [
    {"b": [1, None, -7], "a": ["x", "ü", None], "f": [-0.0, float("nan"), 1e300]},
    {"flag": [True, False, None], "raw": [b"", b"\0\xff", None]},
    {"cent": [decimal.Decimal("1.50"), decimal.Decimal("-0.001"), None], "ä": ["1", "1", "1"]},
    {
        "day": [datetime.date(1969, 12, 31), datetime.date(2026, 2, 3), None],
        "at": [datetime.datetime(1969, 12, 31, 23, 59, 59, 5), None, datetime.datetime(2026, 1, 1)],
        "clock": [datetime.time(1, 2, 3, 4), datetime.time(0), None],
        "there": [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), None, None],
    },
]


SCHEMES = ["safegen-rows-v1", "safegen-rows-v2"]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("columns", TABLES, ids=["plain", "bytes", "decimals", "times"])
def test_the_logical_digest_is_what_the_specification_says(
    columns: dict[str, list[Any]], scheme: str
) -> None:
    table = pa.table({**columns, "_safegen_origin": ["real"] * 3})
    digest = RowsDigest(table.schema, [scheme])
    for batch in table.to_batches(max_chunksize=2):
        digest.update(batch)
    assert digest.value(scheme) == rows_digest(columns, scheme)
    assert digest.value() == rows_digest(columns, "safegen-rows-v2")


def test_large_integers_have_a_tag_of_their_own() -> None:
    large = {"n": [2**63, 1, 2**64 - 1]}
    table = pa.table({"n": pa.array(large["n"], pa.uint64())})
    digest = RowsDigest(table.schema)
    digest.update(table.to_batches()[0])
    assert digest.value() == rows_digest(large, "safegen-rows-v2")


def test_the_extended_output_is_that_of_the_published_vectors() -> None:
    """The first of BLAKE3's test vectors, of no input: 131 bytes of output."""
    published = (
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262e00f03e7b69af26b7faaf09fcd"
        "333050338ddfe085b8cc869ca98b206c08243a26f5487789e8f660afe6c99ef9e0c52b92e7393024a80459cf91"
        "f476f9ffdbda7001c22e159b402631f277ca96f2defdf1078282314e763699a31c5363165421cce14d"
    )
    assert blake3(b"").digest(length=131).hex() == published


@pytest.mark.parametrize("version", [1, 2])
def test_the_digest_of_several_tables(version: int) -> None:
    rows, tables = f"safegen-rows-v{version}", f"safegen-tables-v{version}"
    digests = {"b": f"{rows}:01", "a": f"{rows}:02"}
    data = f"{tables}a\0{rows}:02\0b\0{rows}:01\0".encode()
    combined = combine(digests)
    assert combined == f"{tables}:" + hashlib.sha256(data).hexdigest()
    assert scheme_of(combined) == scheme_of(f"{rows}:01") == rows
    assert scheme_of(f"safegen-rows-v3:{'0' * 64}") is None


def test_the_published_schema_is_what_the_code_says() -> None:
    published = json.loads((TOP / "docs" / "manifest.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(published)
    assert plain(published) == plain(json_schema())


def plain(schema: Any) -> Any:
    """Without what says nothing: older releases of pydantic leave it out."""
    if isinstance(schema, dict):
        said = {k: plain(v) for k, v in schema.items()}
        return {k: v for k, v in said.items() if (k, v) != ("additionalProperties", True)}
    return [plain(v) for v in schema] if isinstance(schema, list) else schema


def test_manifests_of_every_release_have_the_published_form() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    kept = [*(TOP / "tests" / "releases").glob("*/dataset/safegen.manifest.json")]
    assert kept
    documents = [json.loads(p.read_text()) for p in kept] + [example().document()]
    for document in documents:
        validator.validate(document)
        for name in ("dataset_id", "depth", "digest", "schema"):
            less = {k: v for k, v in document.items() if k != name}
            with pytest.raises(jsonschema.ValidationError):
                validator.validate(less)
