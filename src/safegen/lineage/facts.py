"""Pieces of evidence, and what they come to together.

How pieces combine (law 2): evidence of synthetic rows always wins over a claim of real ones. Only
an attestation whose digest matches makes data real, and of several tables each needs one. Nothing
found means unknown, never real, and its depth of 0 is then a lower bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from safegen.manifest.model import Ancestry, Origin, SampledEntry, SourceEntry

__all__ = ["Evidence", "Root", "SourceFacts", "combined"]


@dataclass(frozen=True)
class Root:
    """A source of depth 0 behind a dataset: where it was, its content, the statement about it."""

    uri: str
    logical_digest: str
    dataset_id: str | None
    rows: int


@dataclass(frozen=True)
class Evidence:
    """One piece: where it was found, what it says, how much of the source it covers.

    `share` is the share of rows that it says are synthetic; `proof` whether it binds to the
    content (a verified manifest, a digest in the ledger) or is a hint (a stamp, a column). `part`
    is set when it speaks of one of several tables only. `roots` are the real sources behind a
    dataset, None where they are not known; `stated` is when somebody stated that data is real;
    `weighted` whether the rows were released with weights that differ; `signers` the ids of the
    keys, of those that were known, by which the statement is signed; `recorded` whether the ledger
    has it from when it was made; `made_from` the datasets that it names as its sources; `policies`
    the digests of the policies that it was made under: its own, and those that this one extends.
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
    expires: str | None = None
    roots: tuple[Root, ...] | None = None
    stated: str | None = None
    weighted: bool = False
    signers: tuple[str, ...] = ()
    recorded: bool = False
    made_from: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()

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

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Evidence:
        """The piece that a saved model keeps, of this version or an older one. Raises: TypeError,
        KeyError on anything else."""
        fields = dict(document)
        if fields.get("roots") is not None:
            fields["roots"] = tuple(Root(**root) for root in fields["roots"])
        for name in ("signers", "made_from", "policies"):
            fields[name] = tuple(fields.get(name) or ())
        return cls(**fields)


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
    expires: str | None = None
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of several tables each one's `digest`, `others` and `lookups`: it may be known by itself."""

    others: tuple[str, ...] = ()
    """Its logical digests of older schemes, those in which something asked for it."""

    search: Mapping[str, Any] | None = None
    """What looking for rows of registered releases could find: the `datasets` that have
    fingerprints, those `alike` in their columns, those `found`, the smallest `p` of all tests, and
    the `least` share that is found with a chance of `power`; p and share of each of `rings` (kinds
    of tests). None where nobody looked."""

    sampled: Mapping[str, Any] | None = None
    """Which of its rows are fitted on, where all are too many (`manifest.model.SampledEntry`)."""

    @property
    def digests(self) -> tuple[str, ...]:
        """Its logical digests of all schemes in which it is known."""
        return (self.logical_digest, *self.others)

    @property
    def attested(self) -> bool:
        """Whether the source's origin is known from a statement that binds to its content."""
        return self.origin != "unknown" and self.ancestry == "attested"

    @property
    def weighted(self) -> bool:
        """Whether anything says that the rows were released with weights that differ."""
        return any(e.weighted for e in self.evidence)

    @property
    def as_released(self) -> bool:
        """Whether the source's files, weights included, are proven to be those of a release with
        weights: by its manifest, which must be one that the ledger has where it knows the rows.

        A digest proves the rows alone.
        """
        known = {e.dataset_id for e in self.evidence if e.ring == "ledger" and e.synthetic}
        mine = [e for e in self.evidence if e.ring == "manifest" and e.proof]
        return bool(mine) and all(e.weighted and (not known or e.dataset_id in known) for e in mine)

    @property
    def roots(self) -> tuple[Root, ...] | None:
        """The real sources behind its synthetic rows, as proven statements list them; None where
        they are not known for all of its parts, and where there are no such rows."""
        told = [e for e in self.evidence if e.proof and e.synthetic]
        known = [e for e in told if e.roots is not None]
        parts = {e.part for e in known}
        if not known or not (None in parts or parts >= {e.part for e in told}):
            return None
        return tuple(dict.fromkeys(root for e in known for root in e.roots or ()))

    @property
    def stated(self) -> str | None:
        """When it was last stated that the source is real; None where nobody did."""
        dates = (e.stated for e in self.evidence if e.proof and e.origin == "real")
        return max((d for d in dates if d is not None), default=None)

    @property
    def names(self) -> tuple[str, ...]:
        """What a waiver may know it by: its dataset id where the ledger or a key that is known
        vouches for it (a stamp or an unsigned manifest can say any), its digests, its place (of a
        bare file name `./NAME`, so that `*/NAME` means it wherever it lies). Facts that a model
        brings, and nobody vouches for, have no name."""
        if any(e.ring == "model" for e in self.evidence):
            return ()
        vouched = any(
            e.proof and (e.ring == "ledger" or e.recorded or e.signers)
            for e in self.evidence
            if e.dataset_id == self.dataset_id and e.part is None
        )
        own = self.dataset_id if vouched else None
        place = self.uri if "/" in self.uri or ":" in self.uri else f"./{self.uri}"
        return tuple(name for name in (own, *self.digests, place) if name)

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
            sampled=None if self.sampled is None else SampledEntry(**self.sampled),
        )

    def to_json(self) -> dict[str, Any]:
        """The facts as a saved model keeps them."""
        document = asdict(self)
        if self.sampled is None:  # as versions before it read them
            document.pop("sampled")
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> SourceFacts:
        """The facts that `to_json` wrote. Raises: TypeError, KeyError on anything else."""
        fields = dict(document)
        fields["evidence"] = tuple(map(Evidence.from_json, fields["evidence"]))
        fields["problems"] = tuple(fields["problems"])
        fields["others"] = tuple(fields.get("others") or ())
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


def combined(
    uri: str,
    tables: Sequence[str],
    rows: int,
    digest: str,
    lookups: Mapping[str, str],
    pieces: Sequence[Evidence],
    problems: Sequence[str],
) -> SourceFacts:
    """What all pieces about the tables of one source come to."""
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
        # Equal content may have been released twice, once from a source that nobody had vouched
        # for yet: the statement whose ancestry is proven stands, for each part that is spoken of.
        # What the ledger recorded of a part is not outweighed by a file that anyone can write.
        told = {p.part for p in proven if p.ring == "ledger"}
        asked = [p for p in proven if p.ring == "ledger" or not told & {None, p.part}]
        stated = [p for p in asked if p.ancestry == "attested"]
        attested = covered and not problems and {p.part for p in stated} >= {p.part for p in asked}
        return SourceFacts(
            uri,
            rows,
            digest,
            lookups,
            origin="synthetic" if share >= 1.0 else "mixed",
            ancestry="attested" if proven and attested else "unverified",
            depth=max(p.depth for p in synthetic),
            effective_depth=max(p.effective_depth for p in synthetic),
            depth_is_lower_bound=not (proven and attested) or any(p.lower_bound for p in stated),
            synthetic_share=share,
            evidence=tuple(pieces),
            problems=tuple(problems),
            dataset_id=next((p.dataset_id for p in [*proven, *synthetic] if p.dataset_id), None),
            license=next((p.license for p in synthetic if p.license), None),
        )
    if not covered:
        pieces = [replace(p, proof=False) for p in pieces]
    real = [p for p in pieces if p.origin == "real" and p.proof]
    best = max(real, key=lambda p: p.expires or "9999-12-31", default=None)  # the longest word
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
        expires=best.expires if best else None,
    )
