"""Statements about data that safegen did not make: `attest` (a person says what it is) and
`derive` (this came out of those)."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal

from safegen.dataset import Dataset
from safegen.decision import Finding, decide
from safegen.errors import SourceError, TargetError, UsageError
from safegen.gates import Books, LedgerLike, load_policy, resolve_all
from safegen.ledger import Attachment, Record
from safegen.lineage.documents import sidecar_of
from safegen.lineage.facts import SourceFacts
from safegen.lineage.registering import printed_beside
from safegen.lineage.withdrawals import ancestors
from safegen.manifest import Manifest, SigningKey
from safegen.manifest.identity import new_ulid, now
from safegen.manifest.model import Ancestry, ColumnEntry, Origin, write_whole
from safegen.manifest.sign import envelope_for
from safegen.places import StorePath, redacted
from safegen.tables.batches import is_provenance
from safegen.tables.entries import file_entry
from safegen.tables.images import is_image
from safegen.tables.sources import Source, SourceLike, read_source

__all__ = ["attest", "derive", "derived", "parents_of", "register"]


def register(
    books: Books,
    manifest: Manifest,
    lookups: Mapping[str, Sequence[str]],
    key: SigningKey | None,
    attachments: Sequence[Attachment] = (),
) -> None:
    """Write a manifest, its lookup digests and its fingerprints into the ledger, in one entry."""
    if books.ledger is None:
        return
    public_key = key.public.pem if key is not None else None
    books.ledger.register(Record.of(manifest, public_key), lookups, attachments)


def attest(
    source: SourceLike,
    origin: Origin = "real",
    *,
    by: str,
    tool: str | None = None,
    decoys: SourceLike | None = None,
    source_uri: str | None = None,
    license: str | None = None,
    expires: str | date | None = None,
    ledger: LedgerLike = None,
    key: str | Path | None = None,
) -> Manifest:
    """Put on record that a named person states where data comes from.

    The statement binds to the content by digest and goes into the ledger; for a file or folder it
    also lies beside it (`NAME.safegen.json`, signed with `key` as `NAME.safegen.dsse.json`).
    `by` is the person; `tool` what made synthetic rows; `source_uri` where the data came from;
    `license` an SPDX id or a name; `expires` the last day on which the statement counts (ISO date;
    default never).

    `decoys` are other rows of the tool's same model, which nobody was given: with them parts,
    mixtures and edited rows of synthetic output are known again, and not only all of it. As many as
    it has rows, or 16,384; without them real rows would be accused that are as regular.

    Raises: AdmissionRefused when data attested as real carries evidence of a generator, or the
    ledger cannot be searched; SourceError; UsageError.
    """
    if not by or not by.strip():
        raise UsageError("by= must name the person who states the origin")
    if origin not in ("real", "synthetic", "mixed"):
        raise UsageError(f"origin= is real, synthetic or mixed, not {origin!r}")
    if tool and origin == "real":
        raise UsageError("tool= is what made synthetic rows; these are attested as real")
    until = _date(expires)
    if decoys is not None and origin != "synthetic":
        raise UsageError("decoys= are for what is attested as synthetic as a whole")
    signer = SigningKey(key) if key is not None else None
    books = Books.open(ledger)
    [opened], [facts], books = resolve_all([source], books)
    if origin == "real":
        _refuse_contradiction(facts, books)
    if facts.rows == 0:
        raise SourceError(f"{facts.uri}: it has no rows; there is nothing to attest")
    synthetic = origin != "real"
    manifest = Manifest(
        dataset_id=new_ulid(),
        created=now(),
        statement="attestation",
        kind=_kind(opened),
        origin=origin,
        # Who states that rows are synthetic does not know what real rows stand behind them.
        ancestry=facts.ancestry if synthetic else "attested",
        depth=max(1, facts.depth) if synthetic else 0,
        effective_depth=max(1.0, facts.effective_depth) if synthetic else 0.0,
        depth_is_lower_bound=synthetic,
        rows=facts.rows,
        composition={"real": facts.rows} if not synthetic else {"synthetic": facts.rows},
        columns=_columns(opened),
        logical_digest=facts.logical_digest,
        license=license,
        attested_by=by.strip(),
        expires=until,
        extra={k: v for k, v in (("source_uri", _uri(opened, source_uri)), ("tool", tool)) if v},
        files=_source_files(opened),
    ).sealed()
    attachments = () if decoys is None else _prints(opened, read_source(decoys), books)
    _state(manifest, facts, books, opened, signer, attachments)
    return manifest


def _uri(source: Source, stated: str | None) -> str | None:
    """Where the data came from, as stated, else where it lies in a store. Without credentials."""
    if stated is None and isinstance(source.place, StorePath):
        stated = str(source.place)
    return None if stated is None else redacted(stated)


def _prints(source: Source, decoys: Source, books: Books) -> Sequence[Attachment]:
    """Fingerprints of output beside its decoys. Raises: UsageError, AdmissionRefused."""
    _refuse_unreachable(books)
    if len(source.tables) != 1 or len(decoys.tables) != 1 or _kind(source) != "table":
        raise UsageError("decoys= are for one table: attest the others without")
    ((name, made),), (beside,) = source.tables.items(), decoys.tables.values()
    assert books.ledger is not None
    keys = books.ledger.key_epochs()
    return printed_beside(name, made.table(), beside.table(), books.ledger, *keys[0])


def derive(
    frame: SourceLike,
    sources: Sequence[SourceLike],
    *,
    by: str | None = None,
    ledger: LedgerLike = None,
    key: str | Path | None = None,
) -> Manifest:
    """Put on record that `frame` was made from `sources` by a join, a filter, or features.

    Real in, real out; synthetic in, synthetic out. What the frame itself shows counts too, so a
    derivation never washes anything. A mixture hands on its whole depth, because nobody can say
    which of its rows were kept. What was made of rows with weights has weights, which no fit takes
    from a derivation: derive from `Dataset.resampled()`, and name that as the source. `by` names
    who states it (default: the user of this process).

    Raises: SourceError; UsageError without sources; AdmissionRefused when the ledger cannot be
    searched.
    """
    signer = SigningKey(key) if key is not None else None
    parents, books = parents_of(sources, ledger)
    return derived(frame, sources, parents, books, by, signer)


def parents_of(
    sources: Sequence[SourceLike], ledger: LedgerLike
) -> tuple[list[SourceFacts], Books]:
    """What the sources of a derivation are, and the ledger to keep it in."""
    if not isinstance(sources, list | tuple) or not sources:
        raise UsageError("sources= is a list of one or more sources")
    _, parents, books = resolve_all(sources, Books.open(ledger))
    _refuse_unreachable(books)
    return parents, books


def derived(
    frame: SourceLike,
    sources: Sequence[SourceLike],
    parents: Sequence[SourceFacts],
    books: Books,
    by: str | None,
    signer: SigningKey | None,
) -> Manifest:
    """The statement that `frame` was made of `sources`, which are `parents`; put on record."""
    opened, [own], books = resolve_all([frame], books)
    _refuse_unreachable(books)
    telling = [*parents]
    if own.synthetic_share and not _marks_of(parents, own, books):
        telling.append(own)
    origins = {p.origin for p in telling}
    origin: Origin = origins.pop() if len(origins) == 1 else "mixed"
    if origin == "mixed" and not any(p.synthetic_share for p in telling):
        origin = "unknown"  # real and unknown do not make a mixture
    ancestry: Ancestry = (
        "attested" if all(p.ancestry == "attested" for p in telling) else "unverified"
    )
    manifest = Manifest(
        dataset_id=new_ulid(),
        created=now(),
        statement="derivation",
        kind=_kind(opened[0]),
        origin=origin,
        ancestry=ancestry,
        depth=max(p.depth for p in telling),
        effective_depth=max(_row_depth(p) for p in telling),
        depth_is_lower_bound=any(p.depth_is_lower_bound for p in telling),
        rows=own.rows,
        composition={origin: own.rows},
        sources=[p.entry() for p in parents],
        columns=_columns(opened[0]),
        logical_digest=own.logical_digest,
        attested_by=by or _user(),
        expires=min((p.expires for p in parents if p.expires), default=None),
        files=_source_files(opened[0]),
        weighted=own.weighted
        or any(p.weighted and _counts(s) for s, p in zip(sources, parents, strict=True)),
    ).sealed()
    _state(manifest, own, books, opened[0], signer)
    return manifest


def _marks_of(parents: Sequence[SourceFacts], own: SourceFacts, books: Books) -> bool:
    """Whether all that a frame shows are the marks of its sources, or of what these were made
    from: they add nothing to what is known of the sources, and take nothing from it."""
    if books.ledger is None:
        return False
    synthetic = [p.dataset_id for p in parents if p.synthetic_share and p.dataset_id]
    known = set(ancestors(synthetic, books.ledger))
    shown = {e.dataset_id for e in own.evidence if e.synthetic}
    return shown <= known and own.depth <= max(p.depth for p in parents)


def _counts(source: SourceLike) -> bool:
    """Whether a source's weights count: not those of the rows that were resampled by them."""
    return not isinstance(source, Dataset) or source.weighted


def _user() -> str | None:
    """Who runs this, for a statement that names nobody."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return None


def _row_depth(facts: SourceFacts) -> float:
    """The depth that any one row of a source may have."""
    return float(facts.depth) if facts.origin == "mixed" else facts.effective_depth


def _date(value: str | date | None) -> str | None:
    if value is None or isinstance(value, date):
        return value.isoformat()[:10] if value else None
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise UsageError("expires= is a date like 2027-12-31") from None


def _refuse_unreachable(books: Books) -> None:
    missing = books.state.get("key_epochs_missing")
    if books.ledger is None or missing:
        problem = books.state.get("problem") or f"no key for {len(missing or ())} of its epochs"
        finding = Finding(
            "lineage",
            "ledger",
            "broken",
            f"the ledger cannot be searched ({problem})",
            "a ledger to search, and to keep the statement",
            next_step="make it reachable, or name another with --ledger; its key file lies in "
            "the config folder of whoever made it",
        )
        _refuse(finding, books, [])


def _refuse_contradiction(facts: SourceFacts, books: Books) -> None:
    _refuse_unreachable(books)
    if not facts.synthetic_share and not facts.problems:
        return
    finding = Finding(
        "lineage",
        "contradiction",
        "unmet",
        f"{facts.synthetic_share:.2%} of the rows show that a generator made them",
        "data attested as real shows no mark of a generator",
        n=facts.rows,
        evidence=tuple(e.text for e in facts.evidence) + facts.problems,
        next_step="attest the real data that it was made from; or state what it is: "
        "--origin synthetic",
    )
    _refuse(finding, books, [f"{facts.uri} ({facts.rows:,} rows)"])


def _refuse(finding: Finding, books: Books, subject: list[str]) -> None:
    policy = load_policy("baseline")
    unasked = Finding("manifest", "signature", "met", "not asked of statements", "signed datasets")
    decision = decide(
        policy, "admission", [finding, unasked], ledger=books.state, subject=subject, time=now()
    )
    books.write("decision", decision.to_json())
    decision.enforce()


def _kind(source: Source) -> Literal["table", "tables", "images"]:
    if len(source.tables) > 1:
        return "tables"
    (batches,) = source.tables.values()
    return "images" if any(is_image(f.type) for f in batches.schema) else "table"


def _columns(source: Source) -> list[ColumnEntry]:
    return [
        ColumnEntry(name=f.name, type=str(f.type), role="feature", table=table)
        for table, batches in source.tables.items()
        for f in batches.schema
        if not is_provenance(f.name)
    ]


def _source_files(source: Source) -> list[Any]:
    return [file_entry(source.file, source.file.name)] if source.file is not None else []


def _state(
    manifest: Manifest,
    facts: SourceFacts,
    books: Books,
    source: Source,
    key: SigningKey | None,
    attachments: Sequence[Attachment] = (),
) -> None:
    """Into the ledger first, then beside the data: a statement that nobody recorded is worth less
    than a record without its sidecar."""
    # What is not real is known by each of its tables too, as a release is: none of them is real.
    parts = facts.parts.values() if manifest.origin != "real" else ()
    own = dict(books.ledger.key_epochs()) if books.ledger is not None else {}
    lookups = {
        k: [v, *(part["lookups"][k] for part in parts)]
        for k, v in facts.lookups.items()
        if k in own  # under others' keys nothing is kept
    }
    register(books, manifest, lookups, key, attachments)
    place = source.place
    if place is None or not place.exists() or source.folder is not None:
        return
    sidecar = sidecar_of(place)
    try:
        write_whole(sidecar, manifest.to_bytes())
        if key is not None:
            write_whole(sidecar.with_suffix(".dsse.json"), envelope_for(manifest, key))
    except OSError as error:
        if not books.ledger:
            raise TargetError(f"{sidecar}: cannot be written ({error.strerror})") from None
