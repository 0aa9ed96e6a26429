"""What a source is, told by evidence and not by its position in a call.

The first ring, cheapest first; every piece found is kept:

1. a manifest in the folder, or an attestation beside the file   2. stamps in the file or frame
3. provenance columns, row by row                                4. digests known to the ledger
5. fingerprints of rows, parts of rows and images                6. the ledger's watermark
and marks of other tools, as hints. `lineage.beside_anchor` adds a note: nothing rests on it.

How they combine is said in `lineage.facts`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from safegen.ledger import Ledger, Record
from safegen.lineage.documents import (
    from_folder,
    from_record,
    from_sidecar,
    from_stamps,
    sidecars_at,
    vouched,
)
from safegen.lineage.facts import Evidence, SourceFacts, combined
from safegen.lineage.image_search import images_searched, with_images
from safegen.lineage.looking import digested, looked
from safegen.lineage.marks import carded
from safegen.lineage.roots import expired
from safegen.lineage.search import Sample, Searched, copies, merged, searched
from safegen.lineage.withdrawals import withdrawal_of, withdrawals
from safegen.manifest import Manifest, PublicKey
from safegen.tables.digests import SCHEME, SCHEMES, combine, scheme_of, without_index
from safegen.tables.sources import Source

if TYPE_CHECKING:
    pass

__all__ = ["as_of_now", "parts_of", "resolve", "resolve_released"]


_UNSEEN = (
    "the ledger knows content by digests of a scheme that the model's record of its sources lacks: "
    "fit it again, or with the keys of that ledger"
)


def resolve(
    source: Source,
    ledger: Ledger | None,
    keys: Sequence[PublicKey] = (),
    also: Collection[str] = (),
) -> SourceFacts:
    """Read a source once and say what it is. `ledger` None means that none could be reached.
    `keys`: whose signatures of manifests are looked for, beside those that the ledger recorded.
    `also`: older schemes in which its logical digest is wanted too."""
    problems: list[str] = []
    pieces: list[Evidence] = []
    # 1: of several tables, each may lie in a dataset of its own
    for part, one in parts_of(source):
        pieces += [replace(p, part=part) for p in from_folder(one, ledger, problems, keys)]
    # 2
    pieces += from_stamps(source.stamps)
    # 3, with the digests in the same pass
    held = ledger.lookup_keys() if ledger is not None else []
    older = _older(source, ledger, [key_id for key_id, _ in held], also)
    digests: dict[str, str] = {}
    others: dict[str, dict[str, str]] = {scheme: {} for scheme in older}
    lookups: dict[str, dict[str, str]] = {key_id: {} for key_id, _ in held}
    rows = 0
    samples: dict[str, Sample] = {}
    hints: list[Evidence] = []
    for name, batches in source.tables.items():
        look = looked(batches, held, older)
        content = look.rows
        if look.sample is not None:
            samples[name] = look.sample
        hints += look.marks.evidence()
        digests[name] = content.value()
        for scheme, values in others.items():
            values[name] = content.value(scheme)
        rows += content.rows
        for key_id, lookup in look.lookups.items():
            lookups[key_id][name] = lookup.value()
        if (piece := look.in_band.evidence(name)) is not None:
            pieces.append(piece)
        if ledger is not None and (bare := without_index(batches)) is not None:
            plain, plain_keyed = digested(bare, held, older)
            marked = {k: v.value() for k, v in plain_keyed.items()}
            found = _known(ledger, [plain.value(s) for s in (SCHEME, *older)], marked)
            pieces += [p for r in found.values() if (p := from_record(r, ledger)).synthetic]
    digest = combine(digests)
    together = {key_id: combine(values) for key_id, values in lookups.items()}
    former = tuple(combine(values) for values in others.values())
    each = {
        name: {
            "digest": value,
            "others": [values[name] for values in others.values()],
            "lookups": {k: values[name] for k, values in lookups.items()},
        }
        for name, value in digests.items()
        if len(digests) > 1
    }
    # 4
    if ledger is not None:
        pieces += _from_ledger(ledger, (digest, *former), together, each)
    for part, one in parts_of(source):
        own = (digest, *former)
        if part is not None:
            own = (digests[part], *(values[part] for values in others.values()))
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
    return replace(facts, parts=each, search=merged(searches), others=former)


def _older(
    source: Source, ledger: Ledger | None, key_ids: Sequence[str], also: Collection[str]
) -> list[str]:
    """The older schemes in which a source's content is to be known: those of statements beside it,
    and of what a ledger knows by nothing else."""
    asked = {*also, *(scheme_of(m.logical_digest) for m in sidecars_at(source))}
    asked |= _unseen([SCHEME], ledger, key_ids)
    return [s for s in SCHEMES if s != SCHEME and s in asked]


def _unseen(
    seen: Iterable[str | None], ledger: Ledger | None, key_ids: Collection[str]
) -> set[str | None]:
    """The schemes of digests by which alone a ledger knows content, where these schemes and lookup
    digests under these keys are looked up. A lookup digest finds the same whatever the scheme."""
    others = {*SCHEMES} - {*seen}
    return set() if ledger is None else {s for s in others if ledger.digest_alone(s, key_ids)}


def resolve_released(
    source: Source, ledger: Ledger | None, keys: Sequence[PublicKey] = ()
) -> SourceFacts:
    """What `resolve` says, without reading rows where a manifest says it that is vouched for.

    Of a released dataset in its own folder the bytes are hashed, and that is all: their digest is
    exact, so nothing is gained by looking up what tolerates changes. Records of another scheme are
    found by the lookup digests with which its own was registered, or the rows are read.
    """
    known = vouched(source, ledger, keys)
    if known is None or known[1].share < 1:
        return resolve(source, ledger, keys)
    manifest, piece = known
    lookups = {} if ledger is None else _registered(ledger, manifest)
    if scheme_of(manifest.logical_digest) != SCHEME or _unseen([SCHEME], ledger, lookups):
        return resolve(source, ledger, keys)
    pieces = [piece, *from_stamps(source.stamps)]
    if ledger is not None:
        pieces += _from_ledger(ledger, [manifest.logical_digest], lookups, {})
    problems = _known_withdrawn(pieces, [], ledger)
    digest, tables = manifest.logical_digest, list(source.tables)
    return combined(source.uri, tables, manifest.rows, digest, {}, pieces, problems)


def _registered(ledger: Ledger | None, manifest: Manifest) -> dict[str, str]:
    """The lookup digests of a dataset of one table, as it was registered."""
    kept = None if ledger is None else ledger.kept(manifest.dataset_id)
    lookups = {} if kept is None or kept.record.claimed else kept.lookups
    return {key_id: values[0] for key_id, values in lookups.items() if len(values) == 1}


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
    """Stored facts, held against the calendar and what the ledger says of their content today.

    They are doubted where the ledger knows content by digests of a scheme that they lack, and by
    nothing else: it may be theirs, and cannot be looked up.
    """
    unseen = set[str | None]()
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
        known = _from_ledger(ledger, facts.digests, lookups, each)
        pieces += [e for e in known if (e.dataset_id, e.part) not in said]
        unseen = _unseen(map(scheme_of, facts.digests), ledger, lookups)
    problems = [*facts.problems, *_known_withdrawn(pieces, facts.problems, ledger)]
    if pieces != list(facts.evidence) or problems != list(facts.problems):
        now = combined(
            facts.uri,
            tables,
            facts.rows,
            facts.logical_digest,
            facts.lookups,
            pieces,
            problems,
        )
        facts = replace(
            now,
            parts=facts.parts,
            search=facts.search,
            others=facts.others,
            sampled=facts.sampled,
        )
    return facts.untrusted(_UNSEEN) if unseen else facts


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
    digests: Sequence[str],
    lookups: Mapping[str, str],
    parts: Mapping[str, Mapping[str, Any]],
) -> list[Evidence]:
    """What the ledger knows of a source's content, and of every single table of several: a
    released table may be one of them."""
    whole = _known(ledger, digests, lookups)
    pieces = [from_record(r, ledger) for r in whole.values()]
    for name, part in parts.items():
        pieces += [
            replace(
                piece := from_record(r, ledger), part=name, text=f"table {name!r}: {piece.text}"
            )
            for dataset_id, r in _known(
                ledger, [part["digest"], *part.get("others", ())], part["lookups"]
            ).items()
            if dataset_id not in whole
        ]
    return pieces


def _known(ledger: Ledger, digests: Iterable[str], lookups: Mapping[str, str]) -> dict[str, Record]:
    """What the ledger knows of this content, by dataset id."""
    found = [r for digest in digests for r in ledger.find(logical_digest=digest)]
    for key_id, value in lookups.items():
        found += ledger.find(lookups={key_id: value})
    return {r.dataset_id: r for r in found}
