"""Step 10: the manifest of a release, drawn up from what was admitted, staged and decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safegen.contracts import Model, curves_of
from safegen.decision import Decision
from safegen.manifest import Manifest
from safegen.manifest.identity import now
from safegen.manifest.model import ColumnEntry, GeneratorEntry
from safegen.policy import Policy
from safegen.preparation import Prepared
from safegen.release import Staging
from safegen.requests import Request

__all__ = ["draft"]

_SHOWN = 20
_MARKED = 0.1  # of a watermark there can be; with less 20,000 rows are hardly known by it


def draft(
    prepared: Prepared,
    stage: Staging,
    maker: GeneratorEntry,
    policy: Policy,
    decision: Decision,
    digest: str,
    request: Request,
    model: Model,
    shaped: Mapping[str, Any],
) -> Manifest:
    """A manifest without its files, which are listed when all of them are written."""
    decisions = [prepared.decision, decision]
    return Manifest(
        dataset_id=stage.dataset_id,
        created=now(),
        kind=prepared.kind,
        origin="synthetic",
        ancestry=prepared.ancestry,
        depth=prepared.depth,
        effective_depth=prepared.effective_depth,
        depth_is_lower_bound=prepared.lower_bound,
        rows=stage.written.rows,
        composition={"synthetic": stage.written.rows, "real": 0},
        generator=maker,
        sources=[s.entry() for s in prepared.facts],
        columns=[
            ColumnEntry(name=c.name, type=c.type, role=c.role, table=table, references=c.references)
            for table, schema in prepared.schemas.items()
            for c in schema.columns
        ],
        policy={
            "id": policy.id,
            "version": policy.version,
            "digest": policy.digest,
            **({"extends": [a.digest for a in policy.extends]} if policy.extends else {}),
        },
        decisions=[d.to_json() for d in decisions],
        safeguards={
            **{
                rule: params.model_dump(mode="json")
                for rule, params in {**policy.at("admission"), **policy.at("release")}.items()
            },
            **_shaping(policy, shaped),
        },
        measurements=[
            {
                "name": f.name,
                "observed": f.observed,
                "interval": list(f.interval),
                "n": f.n,
                "method": f.method,
                **({} if f.value is None else {"value": f.value}),
                **({} if f.of is None else {"of": f.of}),
                **({} if f.within is None else {"within": list(f.within)}),
            }
            for f in decision.findings.values()
            if f.interval is not None
        ]
        + [
            {
                "name": f"training.{name}",
                "values": values,
                "n": len(values),
                "method": "the model's own record at epochs or steps; no test, so no interval",
            }
            for name, values in curves_of(model).items()
        ],
        claims=_claims(prepared, decision),
        privacy={"dp": None, "real_rows": 0},
        logical_digest=digest,
        weighted=stage.written.weighted,
        warnings=[
            *prepared.doubts,
            *(f"{r.finding.name}: {r.finding.observed}" for d in decisions for r in d.warnings),
            *_shortfalls(policy, shaped, prepared.kind),
        ],
        extra={
            "request": request.digest,
            "table_rows": dict(stage.written.table_rows),
            # The columns only: the values asked for are values of the data.
            "conditioned_on": sorted(request.conditions),
        },
    )


def _shaping(policy: Policy, shaped: Mapping[str, Any]) -> dict[str, Any]:
    """The rules that shape rows: what they ask, and what was done; None where none applies."""
    rules = {name: policy.rule(name) for name in ("selection", "tails", "watermark")}
    return {
        name: {**params.model_dump(mode="json"), "done": shaped.get(name)}
        for name, params in rules.items()
        if params.severity != "off"
    }


def _shortfalls(policy: Policy, shaped: Mapping[str, Any], kind: str) -> list[str]:
    """The levels and strata that have fewer rows than they should, by id, and a watermark that is
    not there."""
    what = [
        ("selection", "short", "levels have less than four fifths of their share among the rows"),
        ("tails", "short", "strata are short of their quotas"),
        ("tails", "too_few_rows", "strata that the policy names have too few real rows"),
    ]
    found = []
    done = shaped.get("selection", {})
    if done.get("method") == "none":
        found.append(
            f"selection: nothing was selected, for the {done['real_rows']:,} real rows to do it by "
            f"are of fewer than {done['least_people']} people"
        )
    marked = shaped.get("watermark")
    if kind == "table" and policy.rule("watermark").severity != "off":
        if marked is None:
            found.append("watermark: rows have none, for it takes a ledger's key")
        elif marked["strength"] < _MARKED:
            found.append(
                f"watermark: rows have {100 * max(marked['strength'], 0.0):.0f} % of it, for "
                "selection leaves next to nothing to choose: fingerprints alone know them"
            )
    if left_out := shaped.get("tails", {}).get("left_out"):
        found.append(f"tails: {left_out:,} strata are not boosted: there are too many")
    for rule, key, text in what:
        if short := shaped.get(rule, {}).get(key, []):
            more = f" and {len(short) - _SHOWN} more" if len(short) > _SHOWN else ""
            found.append(f"{rule}: {len(short)} {text}: {', '.join(short[:_SHOWN])}{more}")
    return found


def _claims(prepared: Prepared, decision: Decision) -> list[dict[str, Any]]:
    """Which definition of collapse is claimed not to have happened, and by which test.

    What was trained on unattested data makes no claims (law 2).
    """
    if prepared.ancestry != "attested":
        return []
    return [
        {"definition": "support", "test": f.name, "observed": f.observed}
        for f in decision.findings.values()
        if f.rule == "support" and f.status == "met"
    ]
