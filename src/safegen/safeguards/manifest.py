"""The `manifest` rule: rows leave with their provenance columns, and signed where asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from safegen.contracts import AdmissionContext, ReleaseContext
from safegen.decision import Finding

__all__ = ["ManifestComplete"]


class ManifestComplete:
    """Judges that every staged row says what it is, and that a signature will be there."""

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
        return findings
