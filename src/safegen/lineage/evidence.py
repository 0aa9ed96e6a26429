"""What a source is, told by evidence and not by its position in a call.

The first ring, cheapest first; every piece found is kept:

1. a manifest in the folder, or an attestation beside the file   2. stamps in the file or frame
3. provenance columns, row by row                                4. digests known to the ledger
5. fingerprints of rows, parts of rows and images                6. the ledger's watermark
and marks of other tools, as hints. `lineage.beside_anchor` adds a note: nothing rests on it.

How they combine is said in `lineage.facts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from safegen.ledger import Ledger, Record
from safegen.lineage.documents import (
    from_folder,
    from_record,
    from_sidecar,
    from_stamps,
    vouched,
)
from safegen.lineage.facts import Evidence, SourceFacts, combined
from safegen.lineage.image_marks import Claims
from safegen.lineage.image_search import images_searched, with_images
from safegen.lineage.in_band import InBand
from safegen.lineage.marks import Marks, carded
from safegen.lineage.roots import expired
from safegen.lineage.search import Sample, Searched, copies, merged, searched
from safegen.lineage.withdrawals import withdrawal_of, withdrawals
from safegen.manifest import PublicKey
from safegen.tables.digesting import table_digests
from safegen.tables.digests import combine, without_index
from safegen.tables.sources import Source

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["as_of_now", "parts_of", "resolve", "resolve_released"]


def resolve(source: Source, ledger: Ledger | None, keys: Sequence[PublicKey] = ()) -> SourceFacts:
    """Read a source once and say what it is. `ledger` None means that none could be reached.
    `keys`: whose signatures of manifests are looked for, beside those that the ledger recorded."""
    problems: list[str] = []
    pieces: list[Evidence] = []
    # 1: of several tables, each may lie in a dataset of its own
    for part, one in parts_of(source):
        pieces += [replace(p, part=part) for p in from_folder(one, ledger, problems, keys)]
    # 2
    pieces += from_stamps(source.stamps)
    # 3, with the digests in the same pass
    held = ledger.lookup_keys() if ledger is not None else []
    digests: dict[str, str] = {}
    lookups: dict[str, dict[str, str]] = {key_id: {} for key_id, _ in held}
    rows = 0
    samples: dict[str, Sample] = {}
    hints: list[Evidence] = []
    for name, batches in source.tables.items():
        claims = Claims()
        tally, marks = InBand(batches.schema, claims), Marks(batches.schema, claims)
        seen: list[Callable[[pa.RecordBatch], None]] = [tally, marks]
        if held:  # without one nobody looks for rows
            seen.append(samples.setdefault(name, Sample(batches, held[0][1])))
        content, keyed = table_digests(batches, held, seen)
        hints += marks.evidence()
        digests[name] = content.value()
        rows += content.rows
        for key_id, lookup in keyed.items():
            lookups[key_id][name] = lookup.value()
        if (piece := tally.evidence(name)) is not None:
            pieces.append(piece)
        if ledger is not None and (bare := without_index(batches)) is not None:
            plain, plain_keyed = table_digests(bare, held)
            found = _known(ledger, plain.value(), {k: v.value() for k, v in plain_keyed.items()})
            pieces += [p for r in found.values() if (p := from_record(r, ledger)).synthetic]
    digest = combine(digests)
    together = {key_id: combine(values) for key_id, values in lookups.items()}
    each = {
        name: {"digest": value, "lookups": {k: values[name] for k, values in lookups.items()}}
        for name, value in digests.items()
        if len(digests) > 1
    }
    # 4
    if ledger is not None:
        pieces += _from_ledger(ledger, digest, together, each)
    for part, one in parts_of(source):
        own = digest if part is None else digests[part]
        pieces += [replace(p, part=part) for p in from_sidecar(one, own, ledger, keys)]
    if source.folder is None:
        hints += carded(source.place)
    # 5, where nothing cheaper has settled it
    searches: list[Searched] = []
    if held and ledger is not None and not any(_settles(p, ledger) for p in pieces):
        for name, batches in source.tables.items():
            search = with_images(
                searched(batches, samples[name], ledger), images_searched(batches, ledger)
            )
            searches.append(search)
            pieces += [replace(p, part=name if each else None) for p in copies(search)]
    problems += _known_withdrawn(pieces, problems, ledger)
    pieces += hints
    facts = combined(source.uri, list(digests), rows, digest, together, pieces, problems)
    return replace(facts, parts=each, search=merged(searches))


def resolve_released(
    source: Source, ledger: Ledger | None, keys: Sequence[PublicKey] = ()
) -> SourceFacts:
    """What `resolve` says, without reading rows where a manifest says it that is vouched for.

    Of a released dataset in its own folder the bytes are hashed, and that is all: their digest is
    exact, so nothing is gained by looking up what tolerates changes.
    """
    known = vouched(source, ledger, keys)
    if known is None or known[1].share < 1:
        return resolve(source, ledger, keys)
    manifest, piece = known
    pieces = [piece, *from_stamps(source.stamps)]
    if ledger is not None:
        pieces += _from_ledger(ledger, manifest.logical_digest, {}, {})
    problems = _known_withdrawn(pieces, [], ledger)
    digest, tables = manifest.logical_digest, list(source.tables)
    return combined(source.uri, tables, manifest.rows, digest, {}, pieces, problems)


def _settles(piece: Evidence, ledger: Ledger) -> bool:
    """Whether rows need not be looked up: all of them are synthetic, or this ledger has a statement
    that they are real, before which they were looked up. They were not where it was made elsewhere,
    nor for what other ledgers released, which may have come later."""
    stated = piece.ring == "ledger" and piece.origin == "real" and piece.part is None
    if not piece.proof or not stated or piece.dataset_id is None:
        return piece.proof and piece.share >= 1
    record = ledger.get(piece.dataset_id)
    here = record is not None and record.imported_from is None
    return here and len(ledger.lookup_keys()) == len(ledger.key_epochs())


def as_of_now(facts: SourceFacts, tables: Sequence[str], ledger: Ledger | None) -> SourceFacts:
    """Stored facts, held against the calendar and what the ledger says of their content today."""
    pieces = [
        replace(e, origin="unknown", proof=False, text=f"{e.text}; expired on {e.expires}")
        if e.origin == "real" and expired(e.expires)
        else e
        for e in facts.evidence
    ]
    if ledger is not None:
        held = {key_id for key_id, _ in ledger.lookup_keys()}
        lookups = {k: v for k, v in facts.lookups.items() if k in held}
        said = {(e.dataset_id, e.part) for e in pieces if e.ring in ("ledger", "claim")}
        each = {
            name: {**part, "lookups": {k: v for k, v in part["lookups"].items() if k in held}}
            for name, part in facts.parts.items()
        }
        known = _from_ledger(ledger, facts.logical_digest, lookups, each)
        pieces += [e for e in known if (e.dataset_id, e.part) not in said]
    problems = [*facts.problems, *_known_withdrawn(pieces, facts.problems, ledger)]
    if pieces == list(facts.evidence) and problems == list(facts.problems):
        return facts
    now = combined(
        facts.uri,
        tables,
        facts.rows,
        facts.logical_digest,
        facts.lookups,
        pieces,
        problems,
    )
    return replace(now, parts=facts.parts, search=facts.search)


def _known_withdrawn(
    pieces: Sequence[Evidence], problems: Sequence[str], ledger: Ledger | None
) -> list[str]:
    """Of each dataset that a piece of evidence names, whether it was withdrawn, once."""
    if ledger is None or not (known := withdrawals(ledger)):
        return []
    found: dict[str, None] = {}
    for dataset in dict.fromkeys(p.dataset_id for p in pieces if p.dataset_id is not None):
        one = withdrawal_of([dataset], ledger, known)
        said = "" if one is None else f"on {one.time[:10]} by {one.by}: {one.reason}"
        if one is not None and not any(said in p for p in problems):
            behind = "" if one.dataset_id == dataset else f", made from {one.dataset_id}, which"
            found[f"dataset {dataset}{behind} was withdrawn {said}"] = None
    return list(found)


def parts_of(source: Source) -> list[tuple[str | None, Source]]:
    """The sources of which a source is made, by table; a plain one is its own."""
    return list(source.parts.items()) or [(None, source)]


def _from_ledger(
    ledger: Ledger,
    digest: str,
    lookups: Mapping[str, str],
    parts: Mapping[str, Mapping[str, Any]],
) -> list[Evidence]:
    """What the ledger knows of a source's content, and of every single table of several: a
    released table may be one of them."""
    whole = _known(ledger, digest, lookups)
    pieces = [from_record(r, ledger) for r in whole.values()]
    for name, part in parts.items():
        pieces += [
            replace(
                piece := from_record(r, ledger), part=name, text=f"table {name!r}: {piece.text}"
            )
            for dataset_id, r in _known(ledger, part["digest"], part["lookups"]).items()
            if dataset_id not in whole
        ]
    return pieces


def _known(ledger: Ledger, digest: str, lookups: Mapping[str, str]) -> dict[str, Record]:
    """What the ledger knows of this content, by dataset id."""
    found = ledger.find(logical_digest=digest)
    for key_id, value in lookups.items():
        found += ledger.find(lookups={key_id: value})
    return {r.dataset_id: r for r in found}
