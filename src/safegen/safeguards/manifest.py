"""The `manifest` rule: who has signed the datasets that are trained on, and what leaves: rows with
their provenance columns, signed where asked, with content credentials, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from safegen.contracts import AdmissionContext, ReleaseContext
from safegen.decision import Finding
from safegen.manifest.sign import key_id

if TYPE_CHECKING:
    from safegen.lineage.facts import SourceFacts

__all__ = ["ManifestComplete"]


class ManifestComplete:
    """Judges that every staged row says what it is, that keys that are trusted have signed, and
    that no content credential is missing."""

    rule: ClassVar[str] = "manifest"
    rests_on: ClassVar[Mapping[str, Sequence[str]]] = {
        "signature": ("signature", "trusted_keys", "signers"),
        "in-band": ("in_band",),
        "policy": ("made_under", "trusted_keys"),
        "c2pa": ("c2pa",),
    }
    on_demand: ClassVar[Mapping[str, str]] = {
        "signature": "signature",  # at release, by older versions
        "policy": "made_under",
        "c2pa": "c2pa",
    }

    def admission(self, context: AdmissionContext, params: Any) -> Sequence[Finding]:
        """Of each dataset, and of whatever else has synthetic rows. Real rows are asked for their
        statement by the rule `lineage`."""
        datasets = [s for s in context.sources if s.synthetic_share or _manifests(s)]
        trusted = {key_id(text) for text in params.trusted_keys}
        short = [s for s in datasets if _signers(s, trusted) < params.signers]
        keys = f"{params.signers} of " if params.signers > 1 else ""
        keys += f"the policy's {len(trusted)} trusted keys" if trusted else "keys known here"
        met = not short or params.signature == "optional"
        many = len(datasets)
        observed = f"{many - len(short)} of {many} datasets are signed by such keys"
        findings = [
            Finding(
                "manifest",
                "signature",
                "met" if met else "unmet",
                observed if datasets else "no dataset among the sources",
                f"{'none' if params.signature == 'optional' else 'each dataset'} has to be signed "
                f"by {keys}",
                evidence=() if met else tuple(_said(s) for s in short),
                next_step=None
                if met
                else "let a holder of such a key check and sign it: safegen sign DIR --key KEY",
            )
        ]
        if params.made_under:
            findings.append(_policies(datasets, set(params.made_under)))
        return findings

    def release(self, context: ReleaseContext, params: Any) -> Sequence[Finding]:
        tagged = sum(count for tally in context.in_band.values() for count in tally.values())
        complete = tagged == context.rows and context.rows > 0
        findings = [
            Finding(
                "manifest",
                "in-band",
                "met" if complete or params.in_band == "optional" else "unmet",
                f"{tagged:,} of {context.rows:,} rows carry origin, depth and weight",
                "every row",
                n=context.rows,
                next_step=None if complete else "report this: a backend's rows were not tagged",
            )
        ]
        # Asked in any case, so that a waiver of the signature has an answer.
        trusted = {key_id(t) for t in params.trusted_keys}
        findings.append(_signing(context.signer, trusted, params.signature == "required"))
        if params.c2pa == "required":
            findings.append(_credentials(context.credentials))
        return findings


def _policies(datasets: Sequence[SourceFacts], asked: set[str]) -> Finding:
    """Whether each dataset was made under a policy that is asked for. A manifest's word for it
    counts where the ledger recorded it, or a key that is known signed it."""
    short = [s for s in datasets if not _made_under(s, asked)]
    return Finding(
        "manifest",
        "policy",
        "unmet" if short else "met",
        f"{len(datasets) - len(short)} of {len(datasets)} datasets were made under such a policy"
        if datasets
        else "no dataset among the sources",
        f"made under one of {len(asked)} policies, or under one that extends it",
        evidence=tuple(map(_made, short)),
        next_step="ask whoever made it to make it under the policy that is asked for"
        if short
        else None,
    )


def _made_under(source: SourceFacts, asked: set[str]) -> bool:
    told = [e for e in source.evidence if e.synthetic and e.proof and asked & set(e.policies)]
    parts = {e.part for e in told if e.ring == "ledger" or e.recorded or e.signers}
    return None in parts or (bool(parts) and parts >= set(source.parts))


def _made(source: SourceFacts) -> str:
    name = "in memory" if source.uri == "memory:" else source.uri
    digests = dict.fromkeys(d for e in source.evidence for d in e.policies)
    told = ", ".join(d[:19] for d in digests) or "no policy that is known"
    return f"{name}: made under {told}"


def _signing(signer: str | None, trusted: set[str], required: bool) -> Finding:
    """Whether the release will be signed. Further signatures join the first when it is there."""
    met = not required or (signer is not None and (not trusted or signer in trusted))
    step = "safegen key new KEY, then pass --key KEY (key= in Python)"
    if trusted:
        step = "pass --key KEY (key= in Python), a key that the policy trusts"
    return Finding(
        "manifest",
        "signature",
        "met" if met else "unmet",
        "no signing key" if signer is None else f"a signing key is given: {signer[:16]}",
        f"the dataset is signed{' by a key that the policy trusts' if trusted else ''}"
        if required
        else "it need not be signed",
        next_step=None if met else step,
    )


def _manifests(source: SourceFacts) -> list[tuple[str | None, set[str]]]:
    """Who signed each manifest of a source, and of which of its tables it speaks."""
    return [
        (e.part, set(e.signers))
        for e in source.evidence
        if e.ring == "manifest" or (e.ring == "sidecar" and e.synthetic)
    ]


def _signers(source: SourceFacts, trusted: set[str]) -> int:
    """How many keys that count have signed; of several manifests, each."""
    manifests = _manifests(source)
    parts = {part for part, _ in manifests}
    if not manifests or not (None in parts or parts >= set(source.parts)):
        return 0
    return min(len(signers & trusted if trusted else signers) for _, signers in manifests)


def _said(source: SourceFacts) -> str:
    name = "in memory" if source.uri == "memory:" else source.uri
    keys = dict.fromkeys(k for _, signers in _manifests(source) for k in sorted(signers))
    if not keys:
        return f"{name}: no signature by a key that is known here"
    return f"{name}: signed by {', '.join(k[:16] for k in keys)}"


def _credentials(found: Mapping[str, tuple[int, int]]) -> Finding:
    missing = not found or any(have < wanted for have, wanted in found.values())
    said = [f"{have:,} of {wanted:,} {what}" for what, (have, wanted) in found.items() if wanted]
    step = "safegen key new KEY, safegen key certificate KEY --name NAME, then pass --key KEY"
    return Finding(
        "manifest",
        "c2pa",
        "unmet" if missing else "met",
        f"{' and '.join(said)} carry a content credential" if found else "no key to sign with",
        "every image and every file of rows carries one",
        n=sum(wanted for _, wanted in found.values()) or None,
        next_step=None if not missing else "try again, and report this" if found else step,
    )
