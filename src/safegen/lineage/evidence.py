"""What a source is, told by evidence and not by its position in a call.

The first ring, cheapest first; every piece found is kept:

1. a manifest in the folder, or an attestation beside the file   2. stamps in the file or frame
3. provenance columns, row by row                                4. digests known to the ledger

How pieces combine (law 2): evidence of synthetic rows always wins over a claim of real ones. Only
an attestation whose digest matches makes data real, and of several tables each needs one. Nothing
found means unknown, never real, and its depth of 0 is then a lower bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.errors import ManifestError
from safegen.ledger import Ledger, Record
from safegen.manifest import MANIFEST_NAME, Manifest, check_folder
from safegen.manifest.model import Ancestry, Origin, SourceEntry
from safegen.tables.batches import DEPTH_COLUMN, ORIGIN_COLUMN, PROVENANCE_PREFIX
from safegen.tables.digests import combine, table_digests
from safegen.tables.sources import Source

__all__ = ["Evidence", "SourceFacts", "ledger_problems", "resolve", "sidecar_of"]


@dataclass(frozen=True)
class Evidence:
    """One piece: where it was found, what it says, how much of the source it covers.

    `share` is the share of rows that it says are synthetic; `proof` whether it binds to the
    content (a verified manifest, a digest in the ledger) or is a hint (a stamp, a column). `part`
    is set when it speaks of one of several tables only.
    """

    ring: str
    text: str
    origin: Origin
    share: float = 0.0
    depth: int = 0
    effective_depth: float = 0.0
    lower_bound: bool = False
    ancestry: Ancestry = "unverified"
    dataset_id: str | None = None
    license: str | None = None
    proof: bool = False
    part: str | None = None

    @property
    def synthetic(self) -> bool:
        return self.share > 0

    def to_json(self) -> dict[str, Any]:
        return {
            "ring": self.ring,
            "says": self.text,
            "origin": self.origin,
            "share": self.share,
            "proof": self.proof,
        }


@dataclass(frozen=True)
class SourceFacts:
    """Everything established about one source; what the lineage rule judges."""

    uri: str
    rows: int
    logical_digest: str
    lookups: Mapping[str, str]
    origin: Origin
    ancestry: Ancestry
    depth: int
    effective_depth: float
    depth_is_lower_bound: bool
    synthetic_share: float
    evidence: tuple[Evidence, ...]
    problems: tuple[str, ...] = ()
    dataset_id: str | None = None
    license: str | None = None

    @property
    def attested(self) -> bool:
        """Whether the source's origin is known from a statement that binds to its content."""
        return self.origin != "unknown" and self.ancestry == "attested"

    def entry(self) -> SourceEntry:
        """The source as a manifest lists it."""
        return SourceEntry(
            uri=self.uri,
            logical_digest=self.logical_digest,
            dataset_id=self.dataset_id,
            origin=self.origin,
            ancestry=self.ancestry,
            depth=self.depth,
            effective_depth=self.effective_depth,
            rows=self.rows,
            evidence=[e.to_json() for e in self.evidence],
        )

    def to_json(self) -> dict[str, Any]:
        """The facts as a saved model keeps them."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SourceFacts:
        """The facts that `to_json` wrote. Raises: TypeError, KeyError on anything else."""
        fields = dict(document)
        fields["evidence"] = tuple(Evidence(**e) for e in fields["evidence"])
        fields["problems"] = tuple(fields["problems"])
        return cls(**fields)

    def untrusted(self, why: str) -> SourceFacts:
        """These facts when their record cannot be trusted: what they say is a lower bound."""
        origin: Origin = "unknown" if self.origin == "real" else self.origin
        return replace(
            self,
            origin=origin,
            ancestry="unverified",
            depth_is_lower_bound=True,
            evidence=(
                *(replace(e, proof=False) for e in self.evidence),
                Evidence("model", why, "unknown"),
            ),
        )


class _InBand:
    """Tally of the provenance columns over a table's batches.

    Databases fold the columns' names and joins append to them, so a name only has to begin as ours
    do. Where neither origin nor depth is left, a value in what is left marks its row.
    """

    def __init__(self, schema: pa.Schema) -> None:
        folded = {n: n.strip().casefold() for n in schema.names}
        ours = [n for n, f in folded.items() if f.startswith(PROVENANCE_PREFIX)]
        self.origins = [n for n in ours if folded[n].startswith(ORIGIN_COLUMN)]
        self.depths = [n for n in ours if folded[n].startswith(DEPTH_COLUMN)]
        self.rest = [] if self.origins or self.depths else ours
        self.rows = self.synthetic = self.max_depth = 0
        self.depth_sum = 0.0

    def __call__(self, batch: pa.RecordBatch) -> None:
        self.rows += batch.num_rows
        depths = np.zeros(batch.num_rows)
        for name in self.depths:
            depths = np.maximum(depths, _depths(batch.column(name)))
        for name in self.origins:
            depths[_not_real(batch.column(name)) & (depths < 1)] = 1.0
        for name in self.rest:
            depths[_present(batch.column(name))] = 1.0
        synthetic = depths > 0
        depths[synthetic & (depths < 1)] = 1.0
        self.synthetic += int(synthetic.sum())
        self.depth_sum += float(depths.sum())
        self.max_depth = max(self.max_depth, int(np.ceil(depths.max(initial=0.0))))

    def evidence(self, table: str) -> Evidence | None:
        if not self.synthetic:
            return None
        return Evidence(
            "columns",
            f"{self.synthetic:,} of {self.rows:,} rows of {table!r} are marked as not real by "
            "their provenance columns",
            "synthetic" if self.synthetic == self.rows else "mixed",
            share=self.synthetic / self.rows,
            depth=self.max_depth,
            effective_depth=round(self.depth_sum / self.rows, 6),  # the column has 32 bits
            lower_bound=True,
        )


def _present(column: pa.Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(column.is_valid(), dtype=bool)


def _not_real(column: pa.Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows say that they are anything but real; only an absent value says nothing."""
    try:
        text = pc.utf8_trim_whitespace(pc.utf8_lower(pc.cast(column, pa.string())))
    except pa.ArrowException:
        return _present(column)  # damaged: still a mark of ours
    said = pc.invert(pc.is_in(text, value_set=pa.array(["real", ""])))
    return np.asarray(pc.and_(said, text.is_valid()), dtype=bool)


def _depths(column: pa.Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        numbers = pc.cast(column, pa.float64()).fill_null(0.0)
    except pa.ArrowException:
        return _present(column).astype(np.float64)  # damaged: still a mark of ours
    values = np.nan_to_num(np.asarray(numbers, dtype=np.float64), nan=0.0, posinf=1e6)
    return np.clip(values, 0.0, 1e6)


def resolve(source: Source, ledger: Ledger | None) -> SourceFacts:
    """Read a source once and say what it is. `ledger` None means that none could be reached."""
    problems: list[str] = []
    pieces: list[Evidence] = []
    # 1
    pieces += _from_folder(source, ledger, problems)
    # 2
    pieces += _from_stamps(source.stamps)
    # 3, with the digests in the same pass
    keys = ledger.key_epochs() if ledger is not None else []
    digests: dict[str, str] = {}
    lookups: dict[str, dict[str, str]] = {key_id: {} for key_id, _ in keys}
    rows = 0
    for name, batches in source.tables.items():
        tally = _InBand(batches.schema)
        content, keyed = table_digests(batches, keys, tally)
        digests[name] = content.value()
        rows += content.rows
        for key_id, lookup in keyed.items():
            lookups[key_id][name] = lookup.value()
        if (piece := tally.evidence(name)) is not None:
            pieces.append(piece)
    digest = combine(digests)
    combined = {key_id: combine(values) for key_id, values in lookups.items()}
    # 4
    if ledger is not None:
        whole = _known(ledger, digest, combined)
        pieces += [_from_record(r) for r in whole.values()]
        # Every table of its own too: a released table may be one of several here.
        for name, value in digests.items() if len(digests) > 1 else ():
            keyed_values = {key_id: values[name] for key_id, values in lookups.items()}
            pieces += [
                replace(piece := _from_record(r), part=name, text=f"table {name!r}: {piece.text}")
                for dataset_id, r in _known(ledger, value, keyed_values).items()
                if dataset_id not in whole
            ]
    pieces += _from_sidecar(source, digest)
    return _combined(source.uri, list(digests), rows, digest, combined, pieces, problems)


def _known(ledger: Ledger, digest: str, lookups: Mapping[str, str]) -> dict[str, Record]:
    """What the ledger knows of this content, by dataset id."""
    found = ledger.find(logical_digest=digest)
    for key_id, value in lookups.items():
        found += ledger.find(lookups={key_id: value})
    return {r.dataset_id: r for r in found}


def _from_folder(source: Source, ledger: Ledger | None, problems: list[str]) -> list[Evidence]:
    if source.folder is None:
        return []
    check = check_folder(source.folder)
    found = [*check.problems]
    if check.manifest is not None and ledger is not None:
        found += ledger_problems(check.manifest, ledger, signed=check.signed)
    problems += [f"{source.folder}: {p}" for p in found]
    if check.manifest is None:
        return [
            Evidence(
                "manifest",
                f"{source.folder} carries a safegen manifest that cannot be read",
                "synthetic",
                share=1.0,
                depth=1,
                effective_depth=1.0,
                lower_bound=True,
            )
        ]
    piece = _from_manifest(check.manifest, f"{source.folder}/{MANIFEST_NAME}", sound=not found)
    if piece.origin == "real":  # nobody releases real rows: only the ledger can vouch for this
        piece = replace(piece, origin="unknown", proof=False)
    if source.uri != str(source.folder):  # one of several tables lies in this folder
        piece = replace(piece, part="")
    return [piece]


def _from_manifest(manifest: Manifest, where: str, *, sound: bool) -> Evidence:
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
    )


def _share(origin: str, composition: Mapping[str, Any], rows: int) -> float:
    """The share of synthetic rows that a statement admits to; each has a depth of 1 at least."""
    if origin not in ("synthetic", "mixed"):
        return 0.0
    rows = max(rows, 1)
    return float(min(max(composition.get("synthetic", rows), 1) / rows, 1.0))


def _from_stamps(stamps: Sequence[Mapping[str, Any]]) -> list[Evidence]:
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
            depth=int(np.ceil(depths[dataset])),
            effective_depth=depths[dataset],
            lower_bound=True,
            dataset_id=dataset,
        )
        for dataset, where in places.items()
    ]


def _expired(expires: str | None) -> bool:
    """Whether a statement's last day is over; a day that cannot be read is."""
    if expires is None:
        return False
    try:
        return date.fromisoformat(expires) < datetime.now(UTC).date()
    except ValueError:
        return True


def _from_record(record: Record) -> Evidence:
    manifest = record.manifest
    if record.origin == "real" and _expired(record.expires):
        return Evidence(
            "ledger",
            f"its attestation {record.dataset_id} as real expired on {record.expires}",
            "unknown",
            proof=True,
        )
    by = manifest.get("attested_by")
    what = {
        "attestation": f"attested as {record.origin} by {by}" if by else "attested",
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
    )


def sidecar_of(path: Path) -> Path:
    """Where the attestation of a file or folder lies: beside it."""
    return path.with_name(path.name + ".safegen.json")


def _from_sidecar(source: Source, digest: str) -> list[Evidence]:
    place = source.file or (Path(source.uri) if Path(source.uri).is_dir() else None)
    if place is None or source.folder is not None or not sidecar_of(place).exists():
        return []
    name = sidecar_of(place).name
    try:
        manifest = Manifest.read(sidecar_of(place))
    except ManifestError:
        return [Evidence("sidecar", f"{name} beside it cannot be read", "unknown")]
    if manifest.logical_digest != digest:
        return [Evidence("sidecar", f"{name} beside it is of other content", "unknown")]
    if manifest.origin == "real" and _expired(manifest.expires):
        return [Evidence("sidecar", f"{name}: expired on {manifest.expires}", "unknown")]
    piece = _from_manifest(manifest, name, sound=True)
    by = f", attested by {manifest.attested_by} (not signed)" if manifest.attested_by else ""
    return [replace(piece, ring="sidecar", text=f"{name} says {manifest.origin}{by}")]


def _combined(
    uri: str,
    tables: Sequence[str],
    rows: int,
    digest: str,
    lookups: Mapping[str, str],
    pieces: Sequence[Evidence],
    problems: Sequence[str],
) -> SourceFacts:
    synthetic = [p for p in pieces if p.synthetic]
    proofs = [p for p in pieces if p.proof and p.origin != "unknown"]
    parts = {p.part for p in proofs}
    covered = None in parts or parts >= set(tables)  # every table is spoken of
    if synthetic:
        # Provenance columns speak row by row, so where they are they say how much; a stamp on a
        # mixture speaks for the whole. Depth takes the largest of what anything says.
        by_row = [p for p in synthetic if p.ring == "columns"]
        proven = [p for p in synthetic if p.proof]
        measure = [*proven, *by_row] or synthetic
        share = max(p.share for p in measure)
        return SourceFacts(
            uri,
            rows,
            digest,
            lookups,
            origin="synthetic" if share >= 1.0 else "mixed",
            ancestry="attested"
            if proven and covered and all(p.ancestry == "attested" for p in proven) and not problems
            else "unverified",
            depth=max(p.depth for p in synthetic),
            effective_depth=max(p.effective_depth for p in measure),
            depth_is_lower_bound=not (proven and covered) or any(p.lower_bound for p in proven),
            synthetic_share=share,
            evidence=tuple(pieces),
            problems=tuple(problems),
            dataset_id=next((p.dataset_id for p in [*proven, *synthetic] if p.dataset_id), None),
            license=next((p.license for p in synthetic if p.license), None),
        )
    if not covered:
        pieces = [replace(p, proof=False) for p in pieces]
    best = next((p for p in pieces if p.origin == "real" and p.proof), None)
    return SourceFacts(
        uri,
        rows,
        digest,
        lookups,
        origin="real" if best else "unknown",
        ancestry="attested" if best else "unverified",
        depth=0,
        effective_depth=0.0,
        depth_is_lower_bound=best is None,
        synthetic_share=0.0,
        evidence=tuple(pieces),
        problems=tuple(problems),
        dataset_id=best.dataset_id if best else None,
        license=best.license if best else None,
    )


def ledger_problems(manifest: Manifest, ledger: Ledger, *, signed: bool) -> list[str]:
    """Where a manifest contradicts what the ledger recorded when the dataset was made."""
    record = ledger.get(manifest.dataset_id)
    if record is None:
        return []
    problems = []
    if record.manifest_digest != manifest.digest:
        problems.append(
            "the manifest is not the one that the ledger recorded for this dataset "
            "(a consistent rewrite of files and digests)"
        )
    if record.public_key is not None and not signed:
        problems.append("the ledger recorded a signed dataset, but the signature is gone")
    return problems
