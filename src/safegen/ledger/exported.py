"""The file in which datasets go from one ledger to another.

A zip of stored members: `export.json` says which ledger it is from, whose the keys are, and the
SHA-256 of `records.jsonl`; this has a line per dataset, which names what is attached by its
SHA-256; `blobs/SHA-256` are those bytes. `export.dsse.json` is an in-toto statement about
`records.jsonl` with the whole of `export.json` in it, where the exporter has signed.

Members are read by names that are computed, never unpacked to a path; and as they are stored, a
file unpacks to no more than it is.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "BLOB",
    "HEADER",
    "MAX_HEADER",
    "MAX_LINE",
    "MAX_RECORDS",
    "RECORDS",
    "SIGNATURE",
    "Header",
    "Line",
    "Part",
    "statement_of",
]

HEADER, SIGNATURE, RECORDS, BLOB = "export.json", "export.dsse.json", "records.jsonl", "blobs/"
PREDICATE_TYPE = "urn:safegen:ledger-export:v1"
MAX_RECORDS = 100_000
MAX_HEADER = 1024 * 1024  # bytes
MAX_LINE = 16 * 1024 * 1024  # bytes: a record, its lookups, its log entry, of 4 MiB each at most

LedgerId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, Field(pattern=r"^([A-Za-z0-9._-]{1,40}:)?[0-9a-f]{16,128}$")]
Short = Annotated[str, Field(max_length=1024)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Header(_Part):
    """Which ledger a file is from and when; the keys (key id → ledger id) that its lookups and
    attachments are under; who signed it; the lines."""

    schema_: Literal["safegen.ledger-export/v1"] = Field(
        default="safegen.ledger-export/v1", alias="schema"
    )
    ledger_id: LedgerId
    head: Sha256
    keys: dict[KeyId, LedgerId]
    public_key: str | None
    records: int = Field(ge=0, le=MAX_RECORDS)
    sha256: Sha256

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    def document(self) -> dict[str, Any]:
        return self.model_dump(mode="json", by_alias=True)


class Part(_Part):
    """Something that is attached to a record; its bytes are the blob of this SHA-256."""

    kind: Short
    name: Short
    key_id: KeyId
    sha256: Sha256


class Entry(_Part):
    """The log entry of the exporting ledger that vouches for a record."""

    seq: int
    time: Short
    kind: Literal["register"]
    payload: dict[str, Any]
    prev: Sha256
    hash: Sha256


class Withdrawn(_Part):
    """That a dataset was withdrawn: in which ledger, when, by whom and why."""

    dataset_id: Short
    by: str
    reason: str
    ledger_id: LedgerId
    time: Short


class Line(_Part):
    """One dataset: what the exporting ledger keeps of it."""

    manifest: dict[str, Any]
    public_key: str | None
    claimed_by: LedgerId | None
    lookups: dict[KeyId, list[Digest]]
    attachments: list[Part]
    needed: list[Part]
    entry: Entry
    withdrawals: list[Withdrawn]


def statement_of(header: Header) -> dict[str, Any]:
    """What the exporter signs: an in-toto statement about the lines, with the header in it."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": RECORDS, "digest": {"sha256": header.sha256}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": header.document(),
    }
