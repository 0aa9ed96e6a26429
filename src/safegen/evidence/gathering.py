"""Write an evidence folder: what a ledger knows of a dataset, or of a time."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from safegen.errors import TargetError, UsageError, VerificationError, hidden
from safegen.evidence.athand import AtHand
from safegen.evidence.index import (
    CONTROLS,
    HEAD,
    INDEX,
    LOG,
    PAGE,
    SIGNATURE,
    DatasetEntry,
    FileEntry,
    Index,
    PolicyEntry,
    Told,
    statement_of,
)
from safegen.evidence.page import page
from safegen.evidence.policies import POLICY, recorded, shipped_policies
from safegen.evidence.selecting import Decided, Period, behind, registered, wanted
from safegen.evidence.telling import Told as Heard
from safegen.ledger import Ledger, LogEntry, Record
from safegen.ledger.base import quick, sha256
from safegen.lineage.descent import Descent
from safegen.lineage.heads import read_head, signed_head
from safegen.lineage.withdrawals import Withdrawal, descendants, withdrawal_of, withdrawals
from safegen.manifest import MANIFEST_NAME, Manifest, PublicKey, SigningKey
from safegen.manifest.canonical import canonical_bytes
from safegen.manifest.check import check_folder
from safegen.manifest.identity import now
from safegen.manifest.sign import signature_of
from safegen.pages import Standing, figures_in, report
from safegen.places import Place, local, place_of
from safegen.policy.controls import NOTICE, controls_table
from safegen.policy.matrix import Cell, matrix
from safegen.policy.organisation import pins

__all__ = ["gather"]

MOST_PAGES = 1_000
"""Reports that are made from manifests: the rest can be made from them at any time."""

_MOST_TOLD = 1_000  # lines about what is missing


def gather(
    ledger: Ledger,
    out: str | Path,
    *,
    dataset: str | None = None,
    period: Period | None = None,
    key: SigningKey | None = None,
    look_in: Sequence[str] = (),
) -> Index:
    """Write a new folder about a dataset (its folder, or its id) and all that is behind it, or
    about a time. It is there whole or not at all. look_in: folders in which signatures and
    reports are looked for. Without a key it is unsigned.

    Raises: UsageError for a dataset that the ledger does not know, for a folder that is there
    already, for a key that the organisation does not trust, and for a time in which nothing
    happened; VerificationError where the dataset's folder has another manifest than the ledger;
    LedgerError, also for a log that is not what was written; TargetError where it cannot be
    written.
    """
    target = Path(os.path.abspath(local(out, "evidence")))
    if key is not None:
        pins().check_keys([key.public.text])
    if os.path.lexists(target):
        raise UsageError(f"{target} is there already: name another folder")
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise TargetError(f"{target}: cannot be written ({error.strerror})") from hidden(error)
    try:
        index = _Work(ledger, draft, key, look_in).done(dataset, period)
        draft.chmod(0o755)
        draft.rename(target)
        return index
    except OSError as error:
        raise TargetError(f"{target}: cannot be written ({error.strerror})") from hidden(error)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@dataclass
class _Work:
    ledger: Ledger
    draft: Path
    key: SigningKey | None
    look_in: Sequence[str]
    files: list[FileEntry] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    real_values: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.near = _Near(self.ledger)

    def done(self, dataset: str | None, period: Period | None) -> Index:
        head, entries = self._head()
        at_hand = AtHand()
        at_hand.look_in(self.look_in)
        stretch, logical = None, None
        if period is None:
            asked, logical = self._asked(str(dataset), at_hand)
            about: dict[str, str | None] = {"dataset": asked[0]}
        else:
            stretch = period.stretch(e for e in self.ledger.log() if e.seq <= entries)
            if stretch is None:
                raise UsageError("the ledger has no entry of that time: name another")
            asked = registered(self.ledger, stretch)
            until = period.until.isoformat() if period.until else None
            about = {"since": period.since.isoformat(), "until": until}
        decided = Decided()
        datasets = self._datasets(asked, at_hand, decided)
        known = {d.dataset_id: d.asked for d in datasets}
        chosen = wanted(self.ledger, entries, stretch, known, decided, logical)
        told = self._log(chosen)
        policies = self._policies(told)
        made = [] if dataset is None else [r.dataset_id for r in descendants(asked[0], self.ledger)]
        cells = self._controls(told)
        if len(self.missing) > _MOST_TOLD:
            more = len(self.missing) - _MOST_TOLD
            self.missing[_MOST_TOLD:] = [f"and {more:,} more of the kind"]
        index = Index(
            created=now(),
            safegen=_version(),
            about=about,
            ledger=Told(
                ledger_id=self.ledger.ledger_id,
                log_entries=entries,
                head=head,
                entries=len(chosen),
                stretch=stretch,
                decisions=told.decisions,
                refused=told.refused,
            ),
            datasets=datasets,
            descendants=made,
            policies=policies,
            waivers=told.waivers,
            real_values=list(self.real_values),
            missing=self.missing,
            controls={"version": controls_table().version, "date": controls_table().date},
            signed_by=None if self.key is None else self.key.public.id,
            files=[],
        )
        self._put(PAGE, page(index, told.shown, cells).encode())
        index = index.model_copy(update={"files": sorted(self.files, key=lambda f: f.path)})
        data = index.to_bytes()
        (self.draft / INDEX).write_bytes(data)
        if self.key is not None:
            (self.draft / SIGNATURE).write_bytes(signature_of(statement_of(data), self.key))
        return index

    def _put(self, path: str, data: bytes) -> None:
        """A file of the folder, which the index will name."""
        place = self.draft / path
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        self.files.append(FileEntry(path=path, bytes=len(data), sha256=f"sha256:{digest}"))

    def _head(self) -> tuple[str, int]:
        """The head of the log, up to which the folder speaks; signed, where there is a key."""
        if self.key is None:
            state = self.ledger.state()
            return str(state["head"]), int(state["log_entries"])
        data = signed_head(self.ledger, self.key)
        self._put(HEAD, data)
        head = read_head(self.draft / HEAD, [self.key.public])
        return head.head, head.log_entries

    # ---- datasets ----------------------------------------------------------------------------

    def _asked(self, dataset: str, at_hand: AtHand) -> tuple[list[str], str]:
        """The dataset that is meant, and its logical digest."""
        place = _folder(dataset)
        if place is None:
            record = self.ledger.get(dataset)
            if record is None:
                raise UsageError(
                    f"{dataset!r} is no dataset's folder, and no id that {self.ledger.url} knows"
                )
            return [record.dataset_id], record.logical_digest
        check = check_folder(place)
        if check.manifest is None:
            raise VerificationError(check.problems)
        record = self.ledger.get(check.manifest.dataset_id)
        if record is None:
            raise UsageError(
                f"{place}: the ledger {self.ledger.url} has no record of it; name the one that has"
            )
        if record.manifest_digest != check.manifest.digest:
            raise VerificationError(
                [f"{place}: its manifest is not the one that the ledger has of this dataset"]
            )
        self.missing += [f"THE DATA ARE NOT AS RELEASED: {p}" for p in check.problems]
        at_hand.add(record.dataset_id, place / MANIFEST_NAME)
        return [record.dataset_id], record.logical_digest

    def _datasets(
        self, asked: Sequence[str], at_hand: AtHand, decided: Decided
    ) -> list[DatasetEntry]:
        """Write what there is of each dataset, one after the other."""
        signed: dict[str, list[str]] = {}
        for entry in self.ledger.log(kind="signature"):
            pem = str(entry.payload.get("public_key"))
            signed.setdefault(str(entry.payload.get("dataset_id")), []).append(pem)
        gone = withdrawals(self.ledger)
        entries: dict[str, int] = {}
        for entry in self.ledger.log(kind="register"):
            entries[str(entry.payload.get("dataset_id"))] = entry.seq
        found: list[DatasetEntry] = []
        pages = unnamed = 0
        # The newest first: what a dataset says of where its sources were is known before them.
        for record, was_asked in behind(self.ledger, reversed(asked)):
            if isinstance(record, str):
                self.missing.append(
                    f"dataset {record} is a source, and the ledger has no record of it"
                )
                continue
            body, manifest = _manifest(record)
            self._put(f"manifests/{record.dataset_id}.json", body)
            decided.add(record.manifest)
            at_hand.sources_of(record.manifest)
            unnamed += sum(s.dataset_id is None for s in manifest.sources)
            own = [record.public_key] if record.public_key and not record.claimed else []
            keys = [PublicKey(p.encode()) for p in (*own, *signed.get(record.dataset_id, ()))]
            beside = at_hand.beside(record, manifest, keys)
            self.missing += beside.problems
            for one in keys:
                self._once(f"keys/{one.id}.pub", one.pem.encode())
            if beside.envelope is not None:
                self._put(f"envelopes/{record.dataset_id}.json", beside.envelope)
            elif keys:
                self.missing.append(f"the signature of {record.dataset_id} was not at hand")
            withdrawn = withdrawal_of([record.dataset_id], self.ledger, gone) if gone else None
            shown, pages = self._report(record, manifest, beside.report, pages)
            found.append(
                DatasetEntry(
                    dataset_id=record.dataset_id,
                    asked=was_asked,
                    entry=entries.get(record.dataset_id, 0),
                    statement=record.statement,
                    origin=record.origin,
                    ancestry=record.ancestry,
                    depth=record.depth,
                    rows=record.rows,
                    created=record.created,
                    manifest_digest=record.manifest_digest,
                    claimed=record.claimed,
                    withdrawn=_withdrawn(record.dataset_id, withdrawn),
                    keys=sorted({k.id for k in keys}),
                    envelope=beside.envelope is not None,
                    report=shown,  # type: ignore[arg-type]
                )
            )
        if unnamed:
            self.missing.append(
                f"{unnamed:,} sources of these datasets have no statement: where they come from, "
                "nobody says"
            )
        return sorted(found, key=lambda d: (not d.asked, d.entry))

    def _once(self, path: str, data: bytes) -> None:
        if not (self.draft / path).exists():
            self._put(path, data)

    def _report(
        self,
        record: Record,
        manifest: Manifest,
        data: bytes | None,
        pages: int,
    ) -> tuple[str | None, int]:
        """Write a dataset's report: as it was, or made from its manifest."""
        path = f"reports/{record.dataset_id}.html"
        if data is not None:
            figures = figures_in(data.decode("utf-8", "replace"))
            if figures is not None and figures.real_values:
                self.real_values[f"the report of {record.dataset_id}"] = None
            self._put(path, data)
            return "as released", pages
        if pages >= MOST_PAGES:
            if pages == MOST_PAGES:
                self.missing.append(
                    f"reports are made from manifests for {MOST_PAGES:,} datasets, and not for more"
                )
            return None, pages + 1
        near: Any = self.near  # of a ledger a tree needs no more
        tree = Descent(near).ancestors({"dataset_id": record.dataset_id})
        standing = Standing(
            None,
            "Made for this evidence from the manifest that the ledger has. The data were not at "
            "hand, and nothing is said of them.",
        )
        self._put(path, report(manifest, None, tree, standing).encode())
        return "from the manifest", pages + 1

    # ---- the log -----------------------------------------------------------------------------

    def _log(self, chosen: Sequence[int]) -> Heard:
        """Write the chosen entries of the log, and say what they say."""
        kept = recorded(self.ledger.log(kind=POLICY))
        told = Heard.under({**shipped_policies(), **kept})
        path, digest, size = self.draft / LOG, hashlib.sha256(), 0
        numbers = iter(chosen)
        number = next(numbers, None)
        with path.open("wb") as stream:
            for entry in self.ledger.log(after=chosen[0] - 1 if chosen else 0):
                if number is None:
                    break
                if entry.seq != number:
                    continue
                line = _line(entry) + b"\n"
                stream.write(line)
                digest.update(line)
                size += len(line)
                told.take(entry)
                number = next(numbers, None)
        self.files.append(FileEntry(path=LOG, bytes=size, sha256=f"sha256:{digest.hexdigest()}"))
        return told

    def _policies(self, told: Heard) -> list[PolicyEntry]:
        """Write the policies that decisions name, as they were."""
        listed = []
        for digest, (id_, version, count) in sorted(told.policies.items()):
            found = told.known.get(digest)
            if found is None:
                self.missing.append(
                    f"policy {id_} {version} ({digest}): nobody has recorded what it said"
                )
            else:
                self._put(f"policies/{digest.removeprefix('sha256:')}.json", found.body)
                if found.policy.get("report", {}).get("real_values"):
                    self.real_values[f"policy {id_} {version} lets reports quote real values"] = (
                        None
                    )
            entry = None if found is None else (found.entry or "shipped")
            listed.append(
                PolicyEntry(
                    digest=digest,
                    id=id_,
                    version=version,
                    found=entry,  # type: ignore[arg-type]
                    decisions=count,
                )
            )
        return listed

    def _controls(self, told: Heard) -> list[Cell]:
        table = controls_table()
        cells = matrix(table.controls, told.trail.last)
        document = {
            "version": table.version,
            "date": table.date,
            "notice": NOTICE,
            "frameworks": dict(table.frameworks),
            "cells": [
                {**asdict(c.control), "last": None if c.last is None else asdict(c.last)}
                for c in cells
            ],
        }
        self._put(CONTROLS, canonical_bytes(document))
        return cells


class _Near:
    """A ledger whose last few records are not asked for again: trees share their branches."""

    def __init__(self, ledger: Ledger):
        self.get = lru_cache(maxsize=512)(ledger.get)
        self.log = ledger.log


def _manifest(record: Record) -> tuple[bytes, Manifest]:
    """A manifest as it was registered: its canonical bytes, and what they say."""
    body = {k: v for k, v in record.manifest.items() if k != "digest"}
    if f"sha256:{sha256(quick(body))}" == record.manifest_digest:  # then these are its bytes
        return quick(record.manifest), Manifest.model_validate(record.manifest)
    data = canonical_bytes(record.manifest)
    return data, Manifest.from_bytes(data, f"the manifest of {record.dataset_id}")


def _line(entry: LogEntry) -> bytes:
    """The canonical bytes of an entry that is sound."""
    body = {k: v for k, v in vars(entry).items() if k != "hash"}
    if sha256(quick(body)) == entry.hash:
        return quick(vars(entry))
    return canonical_bytes(dict(vars(entry)))


def _folder(dataset: str) -> Place | None:
    """The dataset's folder, where a path or a URI is named and no id."""
    if "/" not in dataset and os.sep not in dataset and not os.path.exists(dataset):
        return None
    place = place_of(dataset)
    if not place.is_dir():
        raise UsageError(f"{place} is no dataset's folder; of a file name the dataset's id")
    return place


def _withdrawn(dataset_id: str, one: Withdrawal | None) -> str | None:
    if one is None:
        return None
    behind_it = (
        "" if one.dataset_id == dataset_id else f"with {one.dataset_id}, which is behind it, "
    )
    return f"{behind_it}on {one.time[:10]} by {one.by}: {one.reason}"


def _version() -> str:
    import safegen

    return safegen.__version__
