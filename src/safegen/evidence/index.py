"""What lies in an evidence folder, and `evidence.json`, which names every file by its digest.

    index.html            what it all means, for people
    evidence.json         what was asked for, what is in it, what is missing; every file's SHA-256
    evidence.dsse.json    its signature, where there was a key
    log.jsonl             log entries as the ledger has them, one a line
    head.dsse.json        the ledger's signed head, where there was a key
    manifests/ID.json     as they were registered: the log has their digests
    envelopes/ID.json     their signatures, where these were at hand; keys/KEY.pub, who signed
    policies/DIGEST.json  effective policies: a file's SHA-256 is its name
    reports/ID.html       as released, where at hand; else made from the manifest
    controls.json         clauses, rules, and the last evidence in this folder

All JSON is RFC 8785 bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safegen.errors import ManifestError
from safegen.manifest.canonical import canonical_bytes, parse_canonical, sha256
from safegen.manifest.sign import STATEMENT_TYPE

__all__ = [
    "CONTROLS",
    "HEAD",
    "INDEX",
    "LOG",
    "PAGE",
    "SIGNATURE",
    "DatasetEntry",
    "FileEntry",
    "Index",
    "PolicyEntry",
    "Told",
    "statement_of",
]

INDEX, SIGNATURE, PAGE = "evidence.json", "evidence.dsse.json", "index.html"
LOG, HEAD, CONTROLS = "log.jsonl", "head.dsse.json", "controls.json"
PREDICATE_TYPE = "urn:safegen:evidence:v1"

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
DatasetId = Annotated[str, Field(pattern=r"^[0-9A-HJKMNP-TV-Z]{26}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FileEntry(_Part):
    """A file of the folder, by its path in it."""

    path: str = Field(min_length=1, max_length=256)
    bytes: int = Field(ge=0)
    sha256: Digest


class DatasetEntry(_Part):
    """A dataset that the folder speaks of: because it was asked for, or behind one that was.

    entry: the log entry that registered it. claimed: it is no more than another ledger's claim.
    keys: the ids of the keys that the ledger saw it signed with.
    """

    dataset_id: DatasetId
    asked: bool
    entry: int
    statement: str
    origin: str
    ancestry: str
    depth: int
    rows: int
    created: str
    manifest_digest: Digest
    claimed: bool
    withdrawn: str | None
    keys: list[Hex]
    envelope: bool
    report: Literal["as released", "from the manifest"] | None


class PolicyEntry(_Part):
    """A policy that a decision names. found: the log entry that holds it, "shipped" where it comes
    with safegen, None where nobody has kept it."""

    digest: str
    id: str
    version: str
    found: int | Literal["shipped"] | None
    decisions: int


class Told(_Part):
    """The ledger, as far as its log had got, and which of its entries are in the folder.

    stretch: the first and the last entry of the time that was asked for: none between is missing.
    """

    ledger_id: str
    log_entries: int
    head: Hex
    entries: int
    stretch: tuple[int, int] | None
    decisions: int
    refused: int


class Index(_Part):
    """`evidence.json`."""

    schema_: Literal["safegen.evidence/v1"] = Field(default="safegen.evidence/v1", alias="schema")
    created: str
    safegen: str
    about: dict[str, str | None]
    ledger: Told
    datasets: list[DatasetEntry]
    descendants: list[str]
    policies: list[PolicyEntry]
    waivers: list[dict[str, Any]]
    real_values: list[str]
    missing: list[str]
    controls: dict[str, str]
    signed_by: Hex | None
    files: list[FileEntry]

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)

    def to_bytes(self) -> bytes:
        """Canonical bytes."""
        return canonical_bytes(self.model_dump(mode="json", by_alias=True))

    @classmethod
    def from_bytes(cls, data: bytes) -> Index:
        """Raises: ManifestError for what is no such document."""
        parse_canonical(data, INDEX)
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:  # its text quotes the input
            raise ManifestError(
                [
                    f"{INDEX}: {'.'.join(map(str, e['loc']))}: {e['type'].replace('_', ' ')}"
                    for e in error.errors(include_input=False, include_url=False)[:20]
                ]
            ) from None


def statement_of(index: bytes) -> dict[str, Any]:
    """What is signed: an in-toto statement about `evidence.json`, which names all other files."""
    read = Index.from_bytes(index)
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": INDEX, "digest": {"sha256": sha256(index).removeprefix("sha256:")}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "version": 1,
            "created": read.created,
            "about": read.about,
            "ledger_id": read.ledger.ledger_id,
            "head": read.ledger.head,
            "files": len(read.files),
        },
    }
