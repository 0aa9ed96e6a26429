"""The `manifest` rule: rows leave with their provenance columns, and signed where asked, with
content credentials, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from safegen.contracts import AdmissionContext, ReleaseContext
from safegen.decision import Finding

__all__ = ["ManifestComplete"]


class ManifestComplete:
    """Judges that every staged row says what it is, that a signature will be there, and that no
    content credential is missing."""

    rule: ClassVar[str] = "manifest"

    def admission(self, context: AdmissionContext, params: Any) -> Sequence[Finding]:
        return ()

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
        if params.signature == "required":
            findings.append(
                Finding(
                    "manifest",
                    "signature",
                    "met" if context.signed else "unmet",
                    "a signing key is given" if context.signed else "no signing key",
                    "the dataset is signed",
                    next_step=None
                    if context.signed
                    else "safegen key new KEY, then pass --key KEY (key= in Python)",
                )
            )
        if params.c2pa == "required":
            findings.append(_credentials(context.credentials))
        return findings


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
