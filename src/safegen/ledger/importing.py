"""Read a file of another ledger, believe nothing that does not hold together, and take it in."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

from pydantic import BaseModel, ValidationError

from safegen.errors import ManifestError, UsageError, VerificationError
from safegen.ledger.base import (
    MAX_ATTACHED,
    Attachment,
    Ledger,
    LogEntry,
    Record,
    attachments_digest,
    lookups_digests,
    sha256,
)
from safegen.ledger.exported import (
    BLOB,
    HEADER,
    MAX_HEADER,
    MAX_LINE,
    RECORDS,
    SIGNATURE,
    Header,
    Line,
    Part,
    statement_of,
)
from safegen.ledger.parcels import Parcel, Sender, Taken
from safegen.manifest import Manifest, PublicKey, canonical_bytes
from safegen.manifest.canonical import parse_canonical
from safegen.manifest.sign import signers_of

__all__ = ["import_"]

_AGAIN = 4  # so many times its size is read of a file: one attachment may be named by all records
_Model = TypeVar("_Model", bound=BaseModel)


def import_(
    ledger: Ledger,
    path: str | os.PathLike[str],
    trust: PublicKey | None = None,
    readable: Callable[[Attachment, str], bool] = lambda attachment, ledger_id: True,
) -> tuple[Sender, Taken]:
    """Take in what another ledger wrote with `export`: all of it, or nothing.

    Its statements are claims: rows that it says are synthetic are, and what it says is real is
    not, unless the file is signed by `trust`, or by a key that was trusted in an import before.
    Importing it again changes nothing. readable: whether an attachment, under a key of the ledger
    with this id, is what its kind says; a ledger keeps any bytes. Raises: VerificationError for a
    file that was changed, is incomplete, contradicts itself or what is known here, or is not signed
    by `trust`; UsageError for what is no such file; LedgerError.
    """
    with _opened(Path(path)) as (archive, digest):
        file = _File(archive, str(path), readable)
        signer = file.signer()
        if trust is not None and (signer is None or signer.id != trust.id):
            by = "nobody" if signer is None else f"{signer.id[:16]}…"
            raise VerificationError([f"{path} is signed by {by}, not by the key that you trust"])
        sender = Sender(
            ledger_id=file.header.ledger_id,
            head=file.header.head,
            file=digest,
            signed_by=signer.id if signer is not None else None,
            trusted=trust is not None,
            keys=file.header.keys,
        )
        return sender, ledger.take_in(sender, file.parcels())


@contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, str]]:
    """The archive, and the file's SHA-256; what zipfile finds wrong is a problem of the file."""
    try:
        stream = open(path, "rb", opener=_not_waiting)  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    with stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode) or stream.read(4) != b"PK\x03\x04":
            raise UsageError(f"{path}: not a file that `safegen ledger export` wrote")
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        try:
            with zipfile.ZipFile(stream) as archive:
                yield archive, digest
        except (zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError) as error:
            if isinstance(error, UsageError):
                raise
            raise VerificationError(
                [f"{path} was changed or is incomplete ({type(error).__name__}): get it anew"]
            ) from None


def _not_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe in its place is not waited for."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


class _File:
    """An export, opened: stored members, of which no more is read than four times the file."""

    def __init__(
        self, archive: zipfile.ZipFile, name: str, readable: Callable[[Attachment, str], bool]
    ):
        self._archive = archive
        self._readable = readable
        self._name = name
        members = archive.infolist()
        self._sizes = {m.filename: m.file_size for m in members}
        assert archive.fp is not None
        self._left = _AGAIN * os.fstat(archive.fp.fileno()).st_size
        stored = all(m.compress_type == zipfile.ZIP_STORED for m in members)
        if not stored or len(self._sizes) < len(members):
            raise self._wrong("its members are not as `safegen ledger export` writes them")
        self.header = self._parsed(Header, self._read(HEADER, MAX_HEADER), HEADER)

    def signer(self) -> PublicKey | None:
        """Who signed it; the signature is verified. Raises: VerificationError."""
        pem = self.header.public_key
        if (pem is None) != (SIGNATURE not in self._sizes):
            raise self._wrong("its signature is gone")
        if pem is None:
            return None
        envelope = self._read(SIGNATURE, 2 * MAX_HEADER)
        try:
            key = PublicKey(pem.encode())
            found = signers_of(statement_of(self.header), envelope, [key], HEADER)
        except (ManifestError, UsageError) as error:
            raise self._wrong(str(error)) from None
        if not found:
            raise self._wrong("it is not signed by the key that it names")
        return key

    def parcels(self) -> Iterator[Parcel]:
        """The datasets, each held against its log entry. Raises: VerificationError."""
        digest, number = hashlib.sha256(), 0
        named = {HEADER, RECORDS, SIGNATURE}
        if RECORDS not in self._sizes:
            raise self._wrong(f"{RECORDS} is missing")
        with self._archive.open(RECORDS) as lines:
            for number, data in enumerate(_lines(lines), 1):
                digest.update(data)
                line = self._parsed(Line, data.removesuffix(b"\n"), f"line {number}")
                named |= {BLOB + p.sha256 for p in [*line.attachments, *line.needed]}
                yield self._parcel(line, number)
        if digest.hexdigest() != self.header.sha256 or number != self.header.records:
            raise self._wrong(f"{RECORDS} is not what {HEADER} says")
        if extra := self._sizes.keys() - named:
            raise self._wrong(f"{len(extra)} of its members are named nowhere")

    def _parcel(self, line: Line, number: int) -> Parcel:
        try:
            manifest = Manifest.from_bytes(canonical_bytes(line.manifest), f"line {number}")
        except ManifestError as error:
            raise self._wrong(str(error)) from None
        entry = LogEntry(**line.entry.model_dump())
        said = entry.payload
        parts = [(p.kind, p.name, p.key_id, p.sha256) for p in line.attachments]
        pairs = [(key_id, d) for key_id, digests in line.lookups.items() for d in digests]
        key_ids = {*line.lookups, *(p.key_id for p in [*line.attachments, *line.needed])}
        if (
            not entry.sound()
            or said.get("manifest_digest") != manifest.digest
            or said.get("lookups") != lookups_digests(pairs)
            or said.get("attachments") != (attachments_digest(parts) if parts else None)
            or any(w.dataset_id != manifest.dataset_id for w in line.withdrawals)
            or not key_ids <= self.header.keys.keys()
        ):
            raise self._wrong(f"line {number}: dataset {manifest.dataset_id} is not what was kept")
        return Parcel(
            record=Record.of(manifest, line.public_key),
            lookups=line.lookups,
            attachments=lambda: self._attachments(line.attachments),
            needed=lambda: self._attachments(line.needed),
            claimed_by=line.claimed_by,
            withdrawals=[w.model_dump() for w in line.withdrawals],
        )

    def _attachments(self, parts: Sequence[Part]) -> list[Attachment]:
        found = []
        for part in parts:
            body = self._read(BLOB + part.sha256, MAX_ATTACHED)
            if sha256(body) != part.sha256:
                raise self._wrong(f"the blob {part.sha256[:16]}… has other bytes")
            attachment = Attachment(part.kind, part.name, part.key_id, body)
            if not self._readable(attachment, self.header.keys[part.key_id]):
                raise self._wrong(f"the {part.kind} {part.sha256[:16]}… cannot be read")
            found.append(attachment)
        return found

    def _read(self, member: str, most: int) -> bytes:
        size = self._sizes.get(member, most + 1)
        self._left -= size
        if size > most or self._left < 0:
            raise self._wrong(f"{member[:40]} is missing, too large, or named too often")
        return self._archive.read(member)

    def _parsed(self, model: type[_Model], data: bytes, what: str) -> _Model:
        try:
            document = parse_canonical(data, what)
            return model.model_validate(document if isinstance(document, Mapping) else None)
        except ManifestError as error:
            raise self._wrong(str(error)) from None
        except ValidationError as error:  # its text quotes the input
            where = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, where["loc"][:2]))
            raise self._wrong(f"{what}: {place}: {where['type'].replace('_', ' ')}") from None

    def _wrong(self, why: str) -> VerificationError:
        return VerificationError([f"{self._name} cannot be imported: {why}; get it anew"])


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines with their ends; of one that is too long a piece, which is no JSON."""
    while data := stream.readline(MAX_LINE + 1):
        yield data
