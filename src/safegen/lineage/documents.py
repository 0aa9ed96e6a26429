"""What documents say of a source: manifests, attestations beside a file, stamps, and what the
ledger recorded. Each becomes a piece of evidence; what they come to, `lineage.facts` says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

from safegen.errors import ManifestError
from safegen.ledger import Ledger, Record
from safegen.lineage.facts import Evidence
from safegen.lineage.heads import cut_off
from safegen.lineage.roots import expired, policies_of, roots_of, stated_of
from safegen.lineage.withdrawals import withdrawal_of
from safegen.manifest import Manifest, PublicKey, check_folder
from safegen.manifest.check import check_signature
from safegen.manifest.model import Ancestry, Origin
from safegen.manifest.sign import read_envelope, signed_by
from safegen.places import Place, absolute
from safegen.tables.sources import Source

__all__ = [
    "from_folder",
    "from_record",
    "from_sidecar",
    "from_stamps",
    "ledger_problems",
    "recorded_keys",
    "sidecar_of",
    "sidecars_at",
    "statements_at",
    "vouched",
]


def from_folder(
    source: Source, ledger: Ledger | None, problems: list[str], keys: Sequence[PublicKey] = ()
) -> list[Evidence]:
    """What the manifest of a dataset's own folder says; what is wrong goes to `problems`. keys:
    whose signatures are looked for, beside those with which the ledger saw it signed."""
    return [] if source.folder is None else [_folder(source, ledger, problems, keys)[1]]


def vouched(
    source: Source, ledger: Ledger | None, keys: Sequence[PublicKey] = ()
) -> tuple[Manifest, Evidence] | None:
    """The manifest of a dataset's own folder and what it says, where the folder verifies and the
    ledger, or a key that is known, vouches for each of its bytes; else None."""
    if source.folder is None:
        return None
    problems: list[str] = []
    manifest, piece = _folder(source, ledger, problems, keys)
    if manifest is None or problems or not piece.proof:
        return None
    return (manifest, piece) if piece.recorded or piece.signers else None


def _folder(
    source: Source, ledger: Ledger | None, problems: list[str], keys: Sequence[PublicKey]
) -> tuple[Manifest | None, Evidence]:
    folder = source.folder
    assert folder is not None
    check = source.checked or check_folder(folder)
    if check.manifest is not None and check.signed:
        known = recorded_keys(ledger, check.manifest.dataset_id)
        check_signature(folder, check, [*keys, *known])
    found = list(dict.fromkeys(check.problems))
    if check.manifest is not None and ledger is not None:
        found += ledger_problems(check.manifest, ledger, signed=check.signed)
    problems += [f"{folder}: {p}" for p in found]
    if check.manifest is None:
        piece = Evidence(
            "manifest",
            "its safegen manifest cannot be read",
            "synthetic",
            share=1.0,
            depth=1,
            effective_depth=1.0,
            lower_bound=True,
        )
        return None, piece
    piece = _from_manifest(check.manifest, "its manifest", ledger, sound=not found)
    if not found:  # whoever signed or recorded another content has not vouched for this
        record = ledger.get(check.manifest.dataset_id) if ledger is not None else None
        recorded = record is not None and not record.claimed
        piece = replace(piece, signers=_ids(check.signers), recorded=recorded)
    if piece.origin == "real":  # nobody releases real rows: only the ledger can vouch for this
        piece = replace(piece, origin="unknown", proof=False)
    return check.manifest, piece


def _from_manifest(
    manifest: Manifest, where: str, ledger: Ledger | None, *, sound: bool
) -> Evidence:
    share = _share(manifest.origin, manifest.composition, manifest.rows)
    origin: Origin = manifest.origin
    if not sound and origin == "real":
        origin = "unknown"
    maker = f", made by {manifest.generator.backend}" if manifest.generator else ""
    state = "" if sound else ", but the folder does not verify"
    return Evidence(
        "manifest",
        f"{where} says {manifest.origin}: dataset {manifest.dataset_id}, depth {manifest.depth}"
        f"{maker}{state}",
        origin,
        share=share,
        depth=max(manifest.depth, 1 if share else 0),
        effective_depth=max(manifest.effective_depth, share),
        lower_bound=manifest.depth_is_lower_bound or not sound,
        ancestry=manifest.ancestry if sound else "unverified",
        dataset_id=manifest.dataset_id,
        license=manifest.license,
        proof=sound,
        expires=manifest.expires,
        weighted=manifest.weighted,
        made_from=tuple(s.dataset_id for s in manifest.sources if s.dataset_id is not None),
        policies=policies_of(manifest.document(), ledger),
        **_behind(share, manifest.document(), ledger),
    )


def _behind(share: float, manifest: Mapping[str, Any], ledger: Ledger | None) -> dict[str, Any]:
    """Of synthetic rows the real sources behind them, of real ones when they were stated to be."""
    if share:
        return {"roots": roots_of(manifest, ledger)}
    return {"stated": stated_of(manifest, ledger)}


def _share(origin: str, composition: Mapping[str, Any], rows: int) -> float:
    """The share of synthetic rows that a statement admits to; each has a depth of 1 at least."""
    if origin not in ("synthetic", "mixed"):
        return 0.0
    rows = max(rows, 1)
    return float(min(max(composition.get("synthetic", rows), 1) / rows, 1.0))


def from_stamps(stamps: Sequence[Mapping[str, Any]]) -> list[Evidence]:
    """One piece per dataset that the stamps name, whatever number of places say it."""
    places: dict[str | None, list[str]] = {}
    depths: dict[str | None, float] = {}
    for stamp in stamps:
        if stamp.get("origin") == "real":
            continue  # a stamp never proves real
        named = stamp.get("dataset_id")
        dataset = named if isinstance(named, str) and len(named) <= 64 else None
        depth = stamp.get("depth")
        known = isinstance(depth, int | float) and not isinstance(depth, bool) and 0 < depth < 1e6
        places.setdefault(dataset, []).append(str(stamp["place"]))
        depths[dataset] = max(
            depths.get(dataset, 1.0), float(depth) if known and depth is not None else 1.0
        )
    return [
        Evidence(
            "stamp",
            f"stamped as synthetic{f', dataset {dataset}' if dataset else ''} "
            f"({', '.join(dict.fromkeys(where))})",
            "synthetic",
            share=1.0,
            depth=ceil(depths[dataset]),
            effective_depth=depths[dataset],
            lower_bound=True,
            dataset_id=dataset,
        )
        for dataset, where in places.items()
    ]


def from_record(record: Record, ledger: Ledger) -> Evidence:
    manifest = record.manifest
    if record.claimed:
        return _from_claim(record)
    if record.origin == "real" and expired(record.expires):
        return Evidence(
            "ledger",
            f"its attestation {record.dataset_id} as real expired on {record.expires}",
            "unknown",
            proof=True,
        )
    by = manifest.get("attested_by")
    tool = (manifest.get("extra") or {}).get("tool")
    made = f", made by {tool}" if isinstance(tool, str) else ""
    what = {
        "attestation": f"attested as {record.origin} by {by}{made}" if by else "attested",
        "release": "released as synthetic" if record.origin == "synthetic" else "released",
        "derivation": f"derived, {record.origin}",
    }.get(record.statement, record.statement)
    share = _share(record.origin, manifest.get("composition") or {}, record.rows)
    origin: Origin = record.origin  # type: ignore[assignment]
    ancestry: Ancestry = record.ancestry  # type: ignore[assignment]
    return Evidence(
        "ledger",
        f"the ledger knows this content: {what} on {record.created[:10]} as {record.dataset_id}"
        + (f", depth {record.depth}" if share else ""),
        origin,
        share=share,
        depth=max(record.depth, 1 if share else 0),
        effective_depth=max(record.effective_depth, share),
        lower_bound=record.depth_is_lower_bound,
        ancestry=ancestry,
        dataset_id=record.dataset_id,
        license=manifest.get("license"),
        proof=True,
        expires=record.expires,
        weighted=bool(manifest.get("weighted")),
        made_from=tuple(record.made_from),
        policies=policies_of(manifest, ledger),
        **_behind(share, manifest, ledger),
    )


def _from_claim(record: Record) -> Evidence:
    """What another ledger says: that rows are synthetic counts, that they are real does not."""
    share = _share(record.origin, record.manifest.get("composition") or {}, record.rows)
    text = f"ledger {str(record.imported_from)[:8]} claims this content as {record.dataset_id}"
    if not share:
        text = f"{text}: {record.origin}, which nobody states here"
        return Evidence("claim", text, "unknown", dataset_id=record.dataset_id)
    return Evidence(
        "claim",
        f"{text}: {record.origin}, depth {record.depth}, on {record.created[:10]}",
        "synthetic" if share >= 1 else "mixed",
        share=share,
        depth=max(record.depth, 1),
        effective_depth=max(record.effective_depth, share),
        lower_bound=True,
        dataset_id=record.dataset_id,
        license=record.manifest.get("license"),
        proof=True,
        weighted=bool(record.manifest.get("weighted")),
    )


def _withdrawn(dataset_ids: Sequence[str], ledger: Ledger) -> list[str]:
    """A problem, where a dataset was withdrawn or was made from one that was."""
    found = withdrawal_of(dataset_ids, ledger)
    if found is None:
        return []
    which = (
        "it" if found.dataset_id == dataset_ids[0] else f"{found.dataset_id}, which is behind it,"
    )
    return [f"{which} was withdrawn on {found.time[:10]} by {found.by}: {found.reason}"]


def sidecar_of(path: Place) -> Place:
    """Where the attestation of a file or folder lies: beside it."""
    path = absolute(path)  # "." has no name
    return path.with_name(path.name + ".safegen.json")


def from_sidecar(
    source: Source,
    digests: Collection[str],
    ledger: Ledger | None,
    keys: Sequence[PublicKey] = (),
) -> list[Evidence]:
    """What an attestation beside a file says, where its digest is one of the source's."""
    place = source.place
    if place is None or source.folder is not None or not sidecar_of(place).exists():
        return []
    name = sidecar_of(place).name
    try:
        manifest = Manifest.read(sidecar_of(place))
        signed, signers = _signature_of(sidecar_of(place), manifest, ledger, keys)
    except ManifestError:
        return [Evidence("sidecar", f"{name} beside it, or its signature, is damaged", "unknown")]
    if manifest.logical_digest not in digests:
        return [Evidence("sidecar", f"{name} beside it is of other content", "unknown")]
    # Its signature may have stayed behind; what the ledger wrote down otherwise is forged.
    if ledger is not None and ledger_problems(manifest, ledger, signed=True):
        return [Evidence("sidecar", f"{name} is not the statement that the ledger has", "unknown")]
    if manifest.origin == "real" and expired(manifest.expires):
        return [Evidence("sidecar", f"{name}: expired on {manifest.expires}", "unknown")]
    piece = _from_manifest(manifest, name, ledger, sound=True)
    by = f", attested by {manifest.attested_by} ({signed})" if manifest.attested_by else ""
    text = f"{name} says {manifest.origin}{by}"
    return [replace(piece, ring="sidecar", text=text, signers=signers)]


def sidecars_at(source: Source) -> list[Manifest]:
    """The attestations beside a source, and beside its parts, as far as they can be read."""
    found = [m for part in source.parts.values() for m in sidecars_at(part)]
    if source.place is not None and source.folder is None:
        with contextlib.suppress(ManifestError):
            found.append(Manifest.read(sidecar_of(source.place)))
    return found


def statements_at(source: Source) -> list[Manifest]:
    """The manifests in a source's folder and beside its file, and those of its parts, as far as
    they can be read; whether they are true, `resolve` says."""
    places = [source.folder, source.file and sidecar_of(source.file)]
    found = [m for part in source.parts.values() for m in statements_at(part)]
    for place in places:
        with contextlib.suppress(ManifestError):
            found += [Manifest.read(place)] if place is not None else []
    return found


def _signature_of(
    sidecar: Place, manifest: Manifest, ledger: Ledger | None, keys: Sequence[PublicKey]
) -> tuple[str, tuple[str, ...]]:
    """What the signature beside a statement is worth, and whose it is. Raises: ManifestError for
    another's."""
    envelope = read_envelope(sidecar.with_suffix(".dsse.json"))
    if envelope is None:
        return "not signed", ()
    known = [*keys, *recorded_keys(ledger, manifest.dataset_id)]
    signers = _ids(signed_by(manifest, envelope, known))
    return f"signed by {signers[0][:16]}" if signers else "signed by a key unknown here", signers


def recorded_keys(ledger: Ledger | None, dataset_id: str) -> list[PublicKey]:
    """The keys with which a dataset was signed, as the ledger recorded it: at release, or later."""
    record = ledger.get(dataset_id) if ledger is not None else None
    if ledger is None or record is None:
        return []
    pems = [record.public_key] if record.public_key and not record.claimed else []
    pems += [
        str(e.payload["public_key"])
        for e in ledger.log(kind="signature")
        if e.payload.get("dataset_id") == dataset_id
    ]
    return [PublicKey(p.encode()) for p in pems]


def _ids(keys: Sequence[PublicKey]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(k.id for k in keys))


def ledger_problems(manifest: Manifest, ledger: Ledger, *, signed: bool) -> list[str]:
    """Where a manifest contradicts what the ledger recorded when the dataset was made, or has on
    record since: that it, or what it was made from, was withdrawn."""
    record = ledger.get(manifest.dataset_id)
    behind = [s.dataset_id for s in manifest.sources if s.dataset_id is not None]
    problems = _withdrawn([manifest.dataset_id, *behind], ledger)
    problems += _cut(manifest, ledger, known=record is not None)
    if record is None:
        return problems
    if record.manifest_digest != manifest.digest:
        problems.append(
            "the manifest is not the one that the ledger recorded for this dataset "
            "(a consistent rewrite of files and digests)"
        )
    if record.public_key is not None and not signed:
        problems.append("the ledger recorded a signed dataset, but the signature is gone")
    return problems


def _cut(manifest: Manifest, ledger: Ledger, *, known: bool) -> list[str]:
    """A problem, where the ledger's log is not what it was when the dataset was decided on: each
    manifest is a witness of it."""
    told = [d.get("ledger") for d in manifest.decisions]
    ours = [t for t in told if isinstance(t, Mapping) and t.get("ledger_id") == ledger.ledger_id]
    for state in ours:
        entries = state.get("log_entries")
        if not isinstance(entries, int):
            continue
        problem = cut_off(ledger, ledger.ledger_id, entries, str(state.get("head")))
        if problem is not None:
            return [problem]
    if ours and not known:
        return [
            f"the ledger {ledger.url} decided on it and has no record of it: its newest entries "
            "were cut off. Restore the newest copy"
        ]
    return []
