"""Write what a ledger knows into a file for another one."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from safegen.errors import LedgerError, TargetError, UsageError, hidden, upstream
from safegen.ledger.base import WITHDRAWAL, Attached, Ledger, LogEntry
from safegen.ledger.exported import (
    BLOB,
    HEADER,
    MAX_RECORDS,
    RECORDS,
    SIGNATURE,
    Entry,
    Header,
    Line,
    Part,
    Withdrawn,
    statement_of,
)
from safegen.ledger.keys import key_file
from safegen.manifest import SigningKey, canonical_bytes
from safegen.manifest.sign import signature_of

__all__ = ["Exported", "export"]


@dataclass(frozen=True)
class Exported:
    """What was written: the datasets, the key files without which copies are not found by their
    lookup digests and fingerprints, and the file's SHA-256."""

    datasets: int
    key_files: tuple[Path, ...]
    sha256: str


def export(
    ledger: Ledger,
    path: str | os.PathLike[str],
    dataset_ids: Sequence[str] = (),
    key: SigningKey | None = None,
) -> Exported:
    """Write all datasets of a ledger, or some and all that they were made from, into a new file.

    No key of the ledger is in it. The same ledger gives the same bytes. `key` signs. Raises:
    UsageError for a dataset that the ledger does not know, for more than 100,000, and for a file
    that is there already; TargetError where it cannot be written; LedgerError.
    """
    target = Path(path)
    if os.path.lexists(target):
        raise UsageError(f"{target} is there already: name another file")
    wanted = _with_ancestors(ledger, dataset_ids) if dataset_ids else None
    ids = [r.dataset_id for r in ledger.records() if wanted is None or r.dataset_id in wanted]
    if len(ids) > MAX_RECORDS:
        raise UsageError(f"more than {MAX_RECORDS:,} datasets: name some with --dataset")
    try:
        descriptor, draft = tempfile.mkstemp(prefix=".safegen-", dir=target.parent)
        try:
            with open(descriptor, "w+b") as stream:
                owners = _write(ledger, ids, key, stream)
                stream.flush()
                os.fsync(stream.fileno())
                stream.seek(0)
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            os.replace(draft, target)
        except BaseException:
            os.unlink(draft)
            raise
    except OSError as error:
        raise TargetError(
            f"{target}: cannot be written ({error.strerror}; {upstream(error)})"
        ) from hidden(error)
    return Exported(len(ids), tuple(map(key_file, owners)), digest)


def _with_ancestors(ledger: Ledger, dataset_ids: Iterable[str]) -> set[str]:
    """These datasets, and all that they were made from, as far as the ledger knows."""
    found: set[str] = set()
    for one in dataset_ids:
        if ledger.get(one) is None:
            raise UsageError(f"the ledger knows no dataset {one!r}")
    open_ = list(dataset_ids)
    while open_:
        one = open_.pop()
        if one not in found and (record := ledger.get(one)) is not None:
            found.add(one)
            open_ += record.made_from
    return found


def _write(
    ledger: Ledger, dataset_ids: Sequence[str], key: SigningKey | None, stream: IO[bytes]
) -> list[str]:
    """Write the members; the ids of the ledgers whose keys the contents are under."""
    state = ledger.state()
    owners: dict[str, str] = {}
    for entry in ledger.log(kind="import"):
        owners = {**entry.payload["keys"], **owners}
    owners.update(dict.fromkeys(state["key_epochs"], ledger.ledger_id))
    withdrawn: dict[str, list[Withdrawn]] = {}
    for entry in ledger.log(kind=WITHDRAWAL):
        one = _withdrawn(entry, ledger)
        withdrawn.setdefault(one.dataset_id, []).append(one)
    used: set[str] = set()
    there: set[str] = set()
    digest = hashlib.sha256()
    with zipfile.ZipFile(stream, "w") as archive, tempfile.TemporaryFile() as lines:
        for dataset_id in dataset_ids:
            kept = ledger.kept(dataset_id)
            if kept is None:
                raise LedgerError(f"dataset {dataset_id} is gone from the ledger")
            parts = [*kept.attachments, *kept.needed]
            for where, sha256 in parts:
                if sha256 not in there:
                    _add(archive, BLOB + sha256, ledger.attachment(where))
                    there.add(sha256)
            used |= {*kept.lookups, *(where.key_id for where, _ in parts)}
            line = Line(
                manifest=kept.record.manifest,
                public_key=kept.record.public_key,
                claimed_by=kept.record.imported_from if kept.record.claimed else None,
                lookups=kept.lookups,
                attachments=_parts(kept.attachments),
                needed=_parts(kept.needed),
                entry=Entry(**vars(kept.entry)),
                withdrawals=withdrawn.get(dataset_id, []),
            )
            data = canonical_bytes(line.model_dump(mode="json")) + b"\n"
            digest.update(data)
            lines.write(data)
        lines.seek(0)
        with archive.open(_member(RECORDS), "w", force_zip64=True) as member:
            while piece := lines.read(1 << 20):
                member.write(piece)
        header = Header(
            ledger_id=ledger.ledger_id,
            head=state["head"],
            keys={k: owners[k] for k in sorted(used)},
            public_key=key.public.pem if key is not None else None,
            records=len(dataset_ids),
            sha256=digest.hexdigest(),
        )
        _add(archive, HEADER, canonical_bytes(header.document()))
        if key is not None:
            _add(archive, SIGNATURE, signature_of(statement_of(header), key))
    return sorted(set(header.keys.values()))


def _withdrawn(entry: LogEntry, ledger: Ledger) -> Withdrawn:
    told = {k: str(entry.payload.get(k)) for k in ("dataset_id", "by", "reason")}
    return Withdrawn(
        **told,
        ledger_id=str(entry.payload.get("ledger_id", ledger.ledger_id)),
        time=str(entry.payload.get("time", entry.time)),
    )


def _parts(parts: Iterable[tuple[Attached, str]]) -> list[Part]:
    return [Part(kind=w.kind, name=w.name, key_id=w.key_id, sha256=d) for w, d in parts]


def _member(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name)  # of 1980: the same ledger gives the same bytes


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(_member(name), data)
