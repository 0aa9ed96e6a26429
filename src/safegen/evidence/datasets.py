"""What an evidence folder has of each dataset: manifest, signature, report, how it stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from safegen.evidence.athand import AtHand
from safegen.evidence.draft import Draft
from safegen.evidence.index import DatasetEntry
from safegen.evidence.selecting import Decided, behind
from safegen.ledger import Ledger, Record
from safegen.ledger.base import quick, sha256
from safegen.lineage.descent import Descent
from safegen.lineage.withdrawals import Withdrawal, withdrawals
from safegen.manifest import Manifest, PublicKey
from safegen.manifest.canonical import canonical_bytes
from safegen.pages import Standing, figures_in, report

__all__ = ["write_datasets"]

MOST_PAGES = 1_000
"""Reports that are made from manifests: the rest can be made from them at any time."""

Shown = Literal["as released", "from the manifest"] | None


def write_datasets(
    ledger: Ledger, draft: Draft, asked: Sequence[str], at_hand: AtHand, decided: Decided
) -> list[DatasetEntry]:
    """Write manifest, signature and report of each dataset and of all behind it, one after the
    other; those that were asked for come first, in the order of the log. `decided` learns which
    decisions their manifests hold."""
    reports = _Reports(ledger, draft)
    signed: dict[str, list[str]] = {}
    for entry in ledger.log(kind="signature"):
        pem = str(entry.payload.get("public_key"))
        signed.setdefault(str(entry.payload.get("dataset_id")), []).append(pem)
    entries: dict[str, int] = {}
    for entry in ledger.log(kind="register"):
        entries[str(entry.payload.get("dataset_id"))] = entry.seq
    found: list[DatasetEntry] = []
    made_from: dict[str, list[str]] = {}
    unnamed = 0
    # The newest first: what a dataset says of where its sources were is known before them.
    for record, was_asked in behind(ledger, reversed(asked)):
        if isinstance(record, str):
            draft.missing.append(
                f"dataset {record} is a source, and the ledger has no record of it"
            )
            continue
        body, manifest = _manifest(record)
        draft.put(f"manifests/{record.dataset_id}.json", body)
        decided.add(record.manifest)
        at_hand.sources_of(record.manifest)
        unnamed += sum(s.dataset_id is None for s in manifest.sources)
        own = [record.public_key] if record.public_key and not record.claimed else []
        keys = [PublicKey(p.encode()) for p in (*own, *signed.get(record.dataset_id, ()))]
        beside = at_hand.beside(record, manifest, keys)
        draft.missing += beside.problems
        for one in keys:
            draft.once(f"keys/{one.id}.pub", one.pem.encode())
        if beside.envelope is not None:
            draft.put(f"envelopes/{record.dataset_id}.json", beside.envelope)
        elif keys:
            draft.missing.append(f"the signature of {record.dataset_id} was not at hand")
        made_from[record.dataset_id] = record.made_from
        # What another ledger claims may be a page with a script in it.
        own_report = None if record.claimed else beside.report
        shown = reports.write(record, manifest, own_report)
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
                withdrawn=None,
                keys=sorted({k.id for k in keys}),
                envelope=beside.envelope is not None,
                report=shown,
            )
        )
    if unnamed:
        draft.missing.append(
            f"{unnamed:,} sources of these datasets have no statement: where they come from, "
            "nobody says"
        )
    return sorted(_withdrawn(ledger, found, made_from), key=lambda d: (not d.asked, d.entry))


class _Reports:
    """The reports of datasets: as they were, or made from their manifests."""

    def __init__(self, ledger: Ledger, draft: Draft):
        self._near: Any = _Near(ledger)  # of a ledger a tree needs no more
        self._draft = draft
        self._made = 0

    def write(self, record: Record, manifest: Manifest, data: bytes | None) -> Shown:
        """Write a dataset's report; data: as it was released, where that is at hand."""
        path = f"reports/{record.dataset_id}.html"
        if data is not None:
            figures = figures_in(data.decode("utf-8", "replace"))
            if figures is not None and figures.real_values:
                self._draft.real_values[f"the report of {record.dataset_id}"] = None
            self._draft.put(path, data)
            return "as released"
        self._made += 1
        if self._made > MOST_PAGES:
            if self._made == MOST_PAGES + 1:
                self._draft.missing.append(
                    f"reports are made from manifests for {MOST_PAGES:,} datasets, and not for more"
                )
            return None
        tree = Descent(self._near).ancestors({"dataset_id": record.dataset_id})
        standing = Standing(
            None,
            "Made for this evidence from the manifest that the ledger has. The data were not at "
            "hand, and nothing is said of them.",
        )
        self._draft.put(path, report(manifest, None, tree, standing).encode())
        return "from the manifest"


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


def _withdrawn(
    ledger: Ledger, found: Sequence[DatasetEntry], made_from: Mapping[str, Sequence[str]]
) -> list[DatasetEntry]:
    """The datasets, each with its withdrawal or that of something behind it."""
    gone: dict[str, Withdrawal] = dict(withdrawals(ledger))
    for one in sorted(found, key=lambda d: d.entry):  # sources before what is made of them
        told = [gone[i] for i in (one.dataset_id, *made_from[one.dataset_id]) if i in gone]
        if told:
            gone[one.dataset_id] = told[0]
    return [d.model_copy(update={"withdrawn": _said(d, gone.get(d.dataset_id))}) for d in found]


def _said(dataset: DatasetEntry, one: Withdrawal | None) -> str | None:
    if one is None:
        return None
    other = one.dataset_id != dataset.dataset_id
    which = f"with {one.dataset_id}, which is behind it, " if other else ""
    return f"{which}on {one.time[:10]} by {one.by}: {one.reason}"
