"""Write an evidence folder: what a ledger knows of a dataset, or of a time."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from safegen.errors import TargetError, UsageError, VerificationError, hidden
from safegen.evidence.athand import AtHand
from safegen.evidence.datasets import write_datasets
from safegen.evidence.draft import Draft
from safegen.evidence.index import (
    CONTROLS,
    HEAD,
    INDEX,
    LOG,
    PAGE,
    SIGNATURE,
    FileEntry,
    Index,
    PolicyEntry,
    Told,
    statement_of,
)
from safegen.evidence.page import page
from safegen.evidence.policies import POLICY, recorded, shipped_policies
from safegen.evidence.selecting import Decided, Period, registered, wanted
from safegen.evidence.telling import Told as Heard
from safegen.ledger import Ledger, LogEntry
from safegen.ledger.base import quick, sha256
from safegen.lineage.heads import read_head, signed_head
from safegen.lineage.withdrawals import descendants
from safegen.manifest import MANIFEST_NAME, SigningKey
from safegen.manifest.canonical import canonical_bytes
from safegen.manifest.check import check_folder
from safegen.manifest.identity import now
from safegen.manifest.sign import signature_of
from safegen.places import Place, local, place_of
from safegen.policy.controls import NOTICE, controls_table
from safegen.policy.matrix import Cell, matrix
from safegen.policy.organisation import pins

__all__ = ["gather"]

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
        index = _Work(ledger, Draft(draft), key, look_in).done(dataset, period)
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
    draft: Draft
    key: SigningKey | None
    look_in: Sequence[str]

    def done(self, dataset: str | None, period: Period | None) -> Index:
        at_hand = AtHand()
        at_hand.look_in(self.look_in)
        stretch, named = None, tuple[str, ...]()
        if period is None:
            asked, logical = self._asked(str(dataset), at_hand)
            named = (asked[0], logical)
            about: dict[str, str | None] = {"dataset": asked[0]}
        head, entries = self._head()  # after what can be wrong use: that it was signed is logged
        if period is not None:
            stretch = period.stretch(e for e in self.ledger.log() if e.seq <= entries)
            if stretch is None:
                raise UsageError("the ledger has no entry of that time: name another")
            asked = registered(self.ledger, stretch)
            until = period.until.isoformat() if period.until else None
            about = {"since": period.since.isoformat(), "until": until}
        decided = Decided()
        datasets = write_datasets(self.ledger, self.draft, asked, at_hand, decided)
        known = {d.dataset_id: d.asked for d in datasets}
        chosen = wanted(self.ledger, entries, stretch, known, decided, named)
        told = self._log(chosen)
        policies = self._policies(told)
        made = [] if dataset is None else [r.dataset_id for r in descendants(asked[0], self.ledger)]
        cells = self._controls(told)
        if len(self.draft.missing) > _MOST_TOLD:
            more = len(self.draft.missing) - _MOST_TOLD
            self.draft.missing[_MOST_TOLD:] = [f"and {more:,} more of the kind"]
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
            real_values=list(self.draft.real_values),
            missing=self.draft.missing,
            controls={"version": controls_table().version, "date": controls_table().date},
            signed_by=None if self.key is None else self.key.public.id,
            files=[],
        )
        self.draft.put(PAGE, page(index, told.shown, cells).encode())
        index = index.model_copy(update={"files": sorted(self.draft.files, key=lambda f: f.path)})
        data = index.to_bytes()
        (self.draft.folder / INDEX).write_bytes(data)
        if self.key is not None:
            (self.draft.folder / SIGNATURE).write_bytes(signature_of(statement_of(data), self.key))
        return index

    def _head(self) -> tuple[str, int]:
        """The head of the log, up to which the folder speaks; signed, where there is a key."""
        if self.key is None:
            state = self.ledger.state()
            return str(state["head"]), int(state["log_entries"])
        data = signed_head(self.ledger, self.key)
        self.draft.put(HEAD, data)
        head = read_head(self.draft.folder / HEAD, [self.key.public])
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
        self.draft.missing += [f"THE DATA ARE NOT AS RELEASED: {p}" for p in check.problems]
        at_hand.add(record.dataset_id, place / MANIFEST_NAME)
        return [record.dataset_id], record.logical_digest

    # ---- the log -----------------------------------------------------------------------------

    def _log(self, chosen: Sequence[int]) -> Heard:
        """Write the chosen entries of the log, and say what they say."""
        kept = recorded(self.ledger.log(kind=POLICY))
        told = Heard.under({**shipped_policies(), **kept})
        path, digest, size = self.draft.folder / LOG, hashlib.sha256(), 0
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
        self.draft.files.append(
            FileEntry(path=LOG, bytes=size, sha256=f"sha256:{digest.hexdigest()}")
        )
        return told

    def _policies(self, told: Heard) -> list[PolicyEntry]:
        """Write the policies that decisions name, as they were."""
        listed = []
        for digest, (id_, version, count) in sorted(told.policies.items()):
            found = told.known.get(digest)
            if found is None:
                self.draft.missing.append(
                    f"policy {id_} {version} ({digest}): nobody has recorded what it said"
                )
            else:
                self.draft.put(f"policies/{digest.removeprefix('sha256:')}.json", found.body)
                if found.policy.get("report", {}).get("real_values"):
                    self.draft.real_values[
                        f"policy {id_} {version} lets reports quote real values"
                    ] = None
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
        self.draft.put(CONTROLS, canonical_bytes(document))
        return cells


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


def _version() -> str:
    import safegen

    return safegen.__version__
