"""The `lineage` rule: refuse to train on prior synthetic output, and on what nobody vouches for.

Checks: `ledger` (could it be searched), `intact` (datasets verify), `depth` (pooled effective
depth of the training rows), `share` (rows shown to be synthetic), `unattested` (origin unknown),
`marks` (of other tools that make data: a warning, never more),
`model` (a model of which nobody knows what else it was trained on; it is judged as `unattested`
data), `unverified` (synthetic data whose ancestry is not proven),
`withdrawals` (what the signed head of a ledger lists as withdrawn).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from safegen.contracts import AdmissionContext, ReleaseContext
from safegen.decision import Finding
from safegen.errors import LedgerError
from safegen.ledger.places import ledger_place, ledger_url
from safegen.lineage.depth import pooled_depth
from safegen.lineage.marks import RING

if TYPE_CHECKING:
    from safegen.lineage.facts import SourceFacts
    from safegen.lineage.heads import Listed

__all__ = ["Lineage"]

_SHOWN = 20  # pieces of evidence in one finding


class Lineage:
    """Judges what the sources are. Params: see `safegen policy explain --rule lineage`."""

    rule: ClassVar[str] = "lineage"
    rests_on: ClassVar[Mapping[str, Sequence[str]]] = {
        "ledger": (),
        "intact": (),
        "depth": ("max_depth",),
        "share": ("max_synthetic_share",),
        "marks": (),
        "unattested": ("unattested", "ledger"),
        "model": ("unattested",),
        "unverified": ("unverified",),
        "withdrawals": ("withdrawals", "withdrawals_max_age", "withdrawals_on_unreachable"),
    }
    on_demand: ClassVar[Mapping[str, str]] = {
        "share": "max_synthetic_share",
        "withdrawals": "withdrawals",
    }

    def admission(self, context: AdmissionContext, params: Any) -> Sequence[Finding]:
        sources = context.sources
        findings = [
            _ledger(context.ledger),
            _intact(sources),
            _depth(sources, params.max_depth),
        ]
        # Where there are such rows it is asked in any case, so that a waiver to 1 has an answer.
        if params.max_synthetic_share < 1.0 or any(s.synthetic_share for s in sources):
            findings.append(_share(sources, params.max_synthetic_share))
        required = params.ledger == "required"
        if marked := [s for s in sources if any(e.ring == RING for e in s.evidence)]:
            findings.append(_marks(marked))
        findings.append(_unattested(sources, params.unattested, context.ledger, required))
        if context.doubts:
            findings.append(_model(context.doubts, params.unattested))
        findings.append(_unverified(sources, params.unverified))
        if context.listed is not None:
            findings.append(_withdrawn(sources, context.listed, params.withdrawals_on_unreachable))
        return findings

    def release(self, context: ReleaseContext, params: Any) -> Sequence[Finding]:
        return ()


def _ledger(ledger: Any) -> Finding:
    status = ledger.get("status")
    missing = ledger.get("key_epochs_missing") or []
    required = "a ledger that can be searched"
    if status == "unreachable":
        return Finding(
            "lineage",
            "ledger",
            "broken",
            f"the ledger {ledger.get('url')} cannot be searched ({ledger.get('problem')})",
            required,
            next_step="make the ledger reachable, or name another with --ledger; what could not "
            "be looked up is not known to be real",
        )
    if missing:
        return Finding(
            "lineage",
            "ledger",
            "unmet",
            f"{len(missing)} of its key epochs have no key here, so re-saved copies are not found",
            required,
            next_step="copy the ledger's key file from the machine that made it: what cannot be "
            "looked up is not known to be real",
        )
    known = int(ledger.get("datasets", 0))
    return Finding("lineage", "ledger", "met", f"it knows {known:,}", required, n=known)


def _intact(sources: Sequence[SourceFacts]) -> Finding:
    problems = [p for s in sources for p in s.problems]
    if problems:
        return Finding(
            "lineage",
            "intact",
            "unmet",
            f"{len(problems)} problems with the manifest of a source",
            "a dataset with a manifest verifies",
            evidence=tuple(problems[:_SHOWN]),
            next_step="do not use it; run `safegen verify` on the folder, or get it anew",
        )
    return Finding("lineage", "intact", "met", "no broken manifest", "datasets verify")


def _evidence(about: Sequence[SourceFacts], among: Sequence[SourceFacts]) -> tuple[str, ...]:
    """What was found about some of the sources; each piece names its source if there are more."""
    texts = []
    for source in about:
        name = "in memory" if source.uri == "memory:" else source.uri
        texts += [f"{name}: {e.text}" if len(among) > 1 else e.text for e in source.evidence]
    return tuple(texts[:_SHOWN])


def _marks(sources: Sequence[SourceFacts]) -> Finding:
    marks = [e.text for s in sources for e in s.evidence if e.ring == RING]
    return Finding(
        "lineage",
        "marks",
        "unmet",
        f"{len(marks)} marks of other tools that make data",
        "no mark of a tool that makes data",
        evidence=tuple(marks[:_SHOWN]),
        next_step="ask where it comes from; if another tool made it, put that on record: "
        "safegen attest SOURCE --origin synthetic --by YOUR-NAME",
        at_most="warn",
    )


def _depth(sources: Sequence[SourceFacts], most: float) -> Finding:
    pooled = pooled_depth((s.rows, s.effective_depth) for s in sources)
    rows = sum(s.rows for s in sources)
    synthetic = round(sum(s.rows * s.synthetic_share for s in sources))
    bound = " or more" if any(s.depth_is_lower_bound and s.synthetic_share for s in sources) else ""
    observed = (
        f"effective depth {pooled:.4g}{bound}: {synthetic:,} of {rows:,} rows come from a generator"
        if synthetic or pooled
        else "effective depth 0: nothing found that comes from a generator"
    )
    required = f"at most {most:g}" + (" (real rows only)" if most == 0 else "")
    if pooled <= most:
        return Finding("lineage", "depth", "met", observed, required, n=rows)
    guilty = [s for s in sources if s.synthetic_share or s.effective_depth]
    return Finding(
        "lineage",
        "depth",
        "unmet",
        observed,
        required,
        n=rows,
        method="weighted mean of the rows' depths",
        evidence=_evidence(guilty, sources),
        next_step="train on the real rows that it was made from (`safegen lineage` shows them), or "
        "keep all real rows and add synthetic ones under a policy that anchors them",
    )


def _share(sources: Sequence[SourceFacts], most: float) -> Finding:
    rows = sum(s.rows for s in sources)
    share = pooled_depth((s.rows, s.synthetic_share) for s in sources)
    met = share <= most
    return Finding(
        "lineage",
        "share",
        "met" if met else "unmet",
        f"{share:.2%} of the rows are shown to be synthetic",
        f"at most {most:.2%}",
        n=rows,
        evidence=() if met else _evidence(sources, sources),
        next_step=None if met else "take synthetic rows out, or add real ones",
    )


def _unattested(
    sources: Sequence[SourceFacts], wanted: str, ledger: Any, by_ledger: bool
) -> Finding:
    def vouched(source: SourceFacts) -> bool:
        if source.synthetic_share:  # `unverified` judges the ancestry of the synthetic rows only
            return source.synthetic_share >= 1.0 or source.attested
        proofs = [e for e in source.evidence if e.proof and e.origin == "real"]
        return any(e.ring == "ledger" for e in proofs) if by_ledger else bool(proofs)

    open_ = [s for s in sources if not vouched(s)]
    required = "a named person states each source's origin" + (
        ", and the ledger knows the statement" if by_ledger else ""
    )
    if not open_:
        return Finding("lineage", "unattested", "met", "every origin is stated", required)
    names = ", ".join(s.uri for s in open_)
    return Finding(
        "lineage",
        "unattested",
        "met" if wanted == "allow" else "unmet",
        f"{len(open_)} of {len(sources)} sources have an unknown origin ({names}); finding no "
        "mark of a generator does not make them real",
        required,
        evidence=_evidence(open_, sources),
        next_step=f"if you know that it is real: {_attest(open_[0].uri, str(ledger.get('url')))}",
        at_most="warn" if wanted == "warn" else "enforce",
    )


def _model(doubts: Sequence[str], wanted: str) -> Finding:
    return Finding(
        "lineage",
        "model",
        "met" if wanted == "allow" else "unmet",
        "nobody knows what the model was trained on besides these sources",
        "the model was trained on the stated sources, and on nothing else",
        evidence=tuple(doubts[:_SHOWN]),
        next_step="fit a backend here, on attested data; or use a policy that takes such models",
        at_most="warn" if wanted == "warn" else "enforce",
    )


def _withdrawn(sources: Sequence[SourceFacts], listed: Listed, wanted: str) -> Finding:
    named: dict[str, str] = {}
    for source in sources:
        for piece in source.evidence:
            roots = (root.dataset_id for root in piece.roots or ())
            ids = [piece.dataset_id, *piece.made_from, *roots]
            for one in (
                listed.withdrawn[i] for i in ids if i is not None and i in listed.withdrawn
            ):
                behind = "" if one.behind == one.dataset_id else f", made from {one.behind}, which"
                named[one.dataset_id] = (
                    f"dataset {one.dataset_id}{behind} was withdrawn on {one.time[:10]} by "
                    f"{one.by}: {one.reason}"
                )
    required = "no dataset that was withdrawn, nor what was made from one"
    if named:
        return Finding(
            "lineage",
            "withdrawals",
            "unmet",
            f"{len(named)} withdrawn datasets in or behind the sources",
            required,
            n=len(listed.withdrawn),
            evidence=tuple(named.values())[:_SHOWN],
            next_step="do not train on it; ask whoever withdrew it for what replaces it",
        )
    if listed.problem is not None:
        return Finding(
            "lineage",
            "withdrawals",
            "met" if wanted == "allow" else "unmet",
            f"the list of withdrawals at {listed.place} cannot be relied on: {listed.problem}",
            required,
            next_step="let the ledger's keeper write it anew: safegen ledger head FILE --key KEY",
            at_most="warn" if wanted == "warn" else "enforce",
        )
    return Finding(
        "lineage",
        "withdrawals",
        "met",
        f"none of {len(listed.withdrawn):,} that were withdrawn by {listed.time}",
        required,
        n=len(listed.withdrawn),
    )


def _attest(uri: str, ledger: str) -> str:
    """The one command that mends it, as a shell takes it."""
    if uri == "memory:":
        return 'safegen.attest(frame, by="YOUR-NAME") in Python'
    if ";" in uri and "=" in uri:
        return "safegen attest TABLE --by YOUR-NAME, for each of its tables"
    command = f"safegen attest {shlex.quote(uri)} --by YOUR-NAME"
    try:
        usual = ledger_url(ledger_place(None))
    except LedgerError:
        usual = ""
    return command if ledger == usual else f"{command} --ledger {shlex.quote(ledger)}"


def _unverified(sources: Sequence[SourceFacts], wanted: str) -> Finding:
    open_ = [s for s in sources if s.synthetic_share and s.ancestry != "attested"]
    required = "the ancestry of synthetic data is proven by a manifest or the ledger"
    if not open_:
        return Finding("lineage", "unverified", "met", "no doubtful ancestry", required)
    return Finding(
        "lineage",
        "unverified",
        "met" if wanted == "allow" else "unmet",
        f"{len(open_)} synthetic sources have an unverified ancestry, so their depth is a lower "
        "bound",
        required,
        evidence=_evidence(open_, sources),
        next_step="use the dataset's own folder with its manifest, or attest the real data first "
        "and generate anew",
        at_most="warn" if wanted == "warn" else "enforce",
    )
