"""The manifest: the statement beside the data, and the source of truth about it.

Reading keeps unknown fields (writing a manifest back changes nothing that a newer version said)
and refuses an unknown major version. 64-bit integers, seeds and digests are strings, because JSON
readers round integers above 2^53.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from safegen.errors import ManifestError
from safegen.manifest.canonical import (
    MAX_DOCUMENT_BYTES,
    canonical_bytes,
    digest_of,
    parse_canonical,
)
from safegen.places import Place, StorePath, place_of

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA",
    "SIGNATURE_NAME",
    "Ancestry",
    "ColumnEntry",
    "FileEntry",
    "GeneratorEntry",
    "Manifest",
    "Origin",
    "RowGroup",
    "SampledEntry",
    "SourceEntry",
]

SCHEMA = "safegen.manifest/v1"
MANIFEST_NAME = "safegen.manifest.json"
SIGNATURE_NAME = "safegen.manifest.dsse.json"
_MAJOR = SCHEMA.rpartition("/")[2]

Origin = Literal["real", "synthetic", "mixed", "unknown"]
Ancestry = Literal["attested", "unverified"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


class RowGroup(_Part):
    """Where a row group's bytes stand in its file, and its Merkle leaf."""

    offset: int = Field(ge=0)
    bytes: int = Field(gt=0)
    rows: int = Field(ge=0)
    leaf: str = Field(pattern=r"^[0-9a-f]{64}$")


class FileEntry(_Part):
    """One file of the dataset: its path inside the folder, size, digest and, for data, its tree."""

    path: str = Field(min_length=1, max_length=1024)
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    table: str | None = None
    rows: int | None = None
    merkle_root: str | None = None
    row_groups: list[RowGroup] = []


class SampledEntry(_Part):
    """Which rows of a source were fitted on and measured, where all of them were too many: `rows`
    of its `of` (`asked` were asked for), drawn as `method` says by a seed, from so many strata."""

    rows: int = Field(ge=0)
    of: int = Field(ge=0)
    asked: int = Field(ge=1)
    seed: str
    method: str
    strata: int = Field(ge=1)
    logical_digest: str


class SourceEntry(_Part):
    """What a source was found to be, and by which evidence."""

    uri: str
    logical_digest: str | None = None
    dataset_id: str | None = None
    origin: Origin
    ancestry: Ancestry = "unverified"
    depth: int = Field(ge=0)
    effective_depth: float = Field(ge=0)
    rows: int = Field(ge=0)
    evidence: list[dict[str, Any]] = []
    sampled: SampledEntry | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """No `sampled` where all rows were: as manifests of 0.1.0 were written, and signed."""
        document: dict[str, Any] = dump(self)
        if self.sampled is None:
            document.pop("sampled", None)
        return document


class ColumnEntry(_Part):
    """A column: name, Arrow type, role. Never a value of it."""

    name: str
    type: str
    role: str
    table: str = "table"
    references: str | None = None  # TABLE.COLUMN, the key that a foreign key holds

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """No `references` where there is none: as manifests of 0.1.0 were written, and signed."""
        document: dict[str, Any] = dump(self)
        if self.references is None:
            document.pop("references", None)
        return document


class GeneratorEntry(_Part):
    """What made the rows; `null` in an attestation, where nobody made any."""

    backend: str
    license: str
    versions: dict[str, str]
    options: dict[str, Any]
    seed: str
    fit_seed: str
    reproducible: bool


class Manifest(_Part):
    """What a dataset is, where it comes from, and what was measured (fields: `docs/manifest.md`).

    `Manifest.read(path)` reads and checks a document; `.to_bytes()` writes it. `.digest` covers
    every other field, known or not.
    """

    schema_: str = Field(default=SCHEMA, alias="schema")
    dataset_id: str = Field(pattern=r"^[0-9A-HJKMNP-TV-Z]{26}$")
    created: str
    statement: Literal["release", "attestation", "derivation"] = "release"
    kind: Literal["table", "tables", "sequences", "images"]
    origin: Origin
    ancestry: Ancestry
    depth: int = Field(ge=0)
    effective_depth: float = Field(ge=0)
    depth_is_lower_bound: bool
    rows: int = Field(ge=0)
    composition: dict[str, int]
    generator: GeneratorEntry | None = None
    sources: list[SourceEntry] = []
    columns: list[ColumnEntry] = []
    policy: dict[str, Any] | None = None
    decisions: list[dict[str, Any]] = []
    safeguards: dict[str, Any] = {}
    measurements: list[dict[str, Any]] = []
    claims: list[dict[str, Any]] = []
    privacy: dict[str, Any] = {}
    files: list[FileEntry] = []
    logical_digest: str
    weighted: bool = False
    license: str | None = None
    attested_by: str | None = None
    expires: str | None = None
    warnings: list[str] = []
    extra: dict[str, Any] = {}
    digest: str = ""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, populate_by_name=True)

    @model_serializer(mode="wrap")
    def _without_false(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """No `weighted` where nothing is: as manifests of 0.1.0 were written, and signed."""
        document: dict[str, Any] = dump(self)
        if not self.weighted:
            document.pop("weighted", None)
        return document

    @property
    def illustrated(self) -> bool:
        """Whether images lie beside the table as files."""
        return any(f.path.startswith("data/") and f.path.endswith(".png") for f in self.files)

    def document(self) -> dict[str, Any]:
        """The manifest as a JSON document, unknown fields included."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=False)

    def sealed(self) -> Manifest:
        """This manifest with its self-digest filled in."""
        body = {k: v for k, v in self.document().items() if k != "digest"}
        return self.model_copy(update={"digest": digest_of(body)})

    def to_bytes(self) -> bytes:
        """The canonical bytes of the sealed manifest."""
        return canonical_bytes(self.sealed().document())

    @classmethod
    def from_bytes(cls, data: bytes, what: str = MANIFEST_NAME) -> Manifest:
        """The manifest in `data`.

        Raises: ManifestError when the bytes are not canonical JSON, the schema's major version is
        unknown, a field is missing or of the wrong type, or the self-digest does not match.
        """
        document = parse_canonical(data, what)
        if not isinstance(document, dict):
            raise ManifestError([f"{what} is not a JSON object"])
        name, _, major = str(document.get("schema", "")).rpartition("/")
        if name != SCHEMA.rpartition("/")[0] or major != _MAJOR:
            raise ManifestError(
                [f"{what} has a schema that this version cannot read; it reads {SCHEMA}"]
            )
        try:
            manifest = cls.model_validate(document)
        except ValidationError as error:
            # The text of a pydantic error quotes the input; take place and kind of each only.
            raise ManifestError(
                [
                    f"{what}: {'.'.join(map(str, e['loc']))}: {e['type'].replace('_', ' ')}"
                    for e in error.errors(include_input=False, include_url=False)
                ]
            ) from None
        # Over the document as it stands, so that no default of ours can fill a hole in it.
        body = {k: v for k, v in document.items() if k != "digest"}
        if digest_of(body) != manifest.digest:
            raise ManifestError([f"{what} was edited: its self-digest does not match its content"])
        return manifest

    @classmethod
    def read(cls, path: str | Place) -> Manifest:
        """The manifest at `path` (or URI): a dataset folder, or the file itself.

        Raises: ManifestError; it checks the document only, `safegen.verify` checks the data too.
        """
        file = place_of(path)
        if file.is_dir():
            file = file / MANIFEST_NAME
        try:
            data = read_plain(file, MAX_DOCUMENT_BYTES + 1)
        except OSError as error:
            raise ManifestError(
                [f"{file}: cannot be read ({error.strerror or type(error).__name__})"]
            ) from None
        return cls.from_bytes(data, str(file))

    def facts(self) -> list[tuple[str, str]]:
        """The main facts as (name, text) rows, for a terminal or a page."""
        rows = [
            ("dataset", self.dataset_id),
            ("statement", self.statement),
            ("created", self.created),
            ("origin", f"{self.origin}, ancestry {self.ancestry}"),
            (
                "depth",
                f"{self.depth}{' or more' if self.depth_is_lower_bound else ''}"
                f" (effective {self.effective_depth:.3g})",
            ),
            ("rows", f"{self.rows:,}"),
            ("columns", str(len(self.columns))),
        ]
        if self.generator is not None:
            g = self.generator
            versions = ", ".join(f"{k} {v}" for k, v in sorted(g.versions.items()))
            rows += [
                ("generator", f"{g.backend} ({g.license}); {versions}"),
                ("seeds", f"fit {g.fit_seed}, sample {g.seed}"),
                ("reproducible", "yes" if g.reproducible else "no"),
            ]
        rows += [
            (
                "source" if len(self.sources) == 1 else f"source {i}",
                f"{s.uri}: {s.origin}, {s.ancestry}, depth {s.effective_depth:.3g}, "
                f"{s.rows:,} rows{_fitted_on(s)}",
            )
            for i, s in enumerate(self.sources, 1)
        ]
        if self.policy:
            rows.append(("policy", f"{self.policy.get('id')} {self.policy.get('version')}"))
        if self.attested_by:
            rows.append(("attested by", self.attested_by))
        if self.expires:
            rows.append(("expires", self.expires))
        rows.append(("logical digest", self.logical_digest))
        rows += [("warning", w) for w in self.warnings]
        return rows

    def __str__(self) -> str:
        return _aligned(self.facts())

    def _repr_html_(self) -> str:
        return html_table("safegen manifest", self.facts())


def _fitted_on(source: SourceEntry) -> str:
    if (part := source.sampled) is None:
        return ""
    return f", of which {part.rows:,} were drawn (stratified, seed {part.seed}) and fitted on"


def _aligned(rows: Iterable[tuple[str, str]]) -> str:
    rows = list(rows)
    width = max(len(k) for k, _ in rows)
    return "\n".join(f"{k:<{width}}  {v}" for k, v in rows)


def html_table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """A two-column table for a notebook; every cell is escaped."""
    from html import escape

    body = "".join(
        f"<tr><th style='text-align:left'>{escape(k)}</th>"
        f"<td style='text-align:left'>{escape(v)}</td></tr>"
        for k, v in rows
    )
    return f"<table><caption>{escape(title)}</caption><tbody>{body}</tbody></table>"


def read_plain(path: Place, most: int) -> bytes:
    """The first `most` bytes of a plain file; a pipe in its place is not waited for.

    Raises: OSError.
    """
    if isinstance(path, StorePath):
        return path.read_bytes(most)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a plain file")
        return stream.read(most)


def write_whole(path: Place, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    if isinstance(path, StorePath):
        path.write_bytes(data)
        return
    descriptor, name = tempfile.mkstemp(prefix=".safegen-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        os.chmod(name, 0o644)  # mkstemp's 0600 would hide a statement from its readers
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
