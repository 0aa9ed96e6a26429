"""Run the cases of a policy file: through the real safeguards, and the real decision.

What a case says of a source becomes the pieces of evidence that such a source would have; what they
come to together, what the safeguards make of it, and what the policy says, is decided by the code
that decides about data. Rules that look at rows have none here: what they find is the case's to
say, and what it does not say is met.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from safegen import plugins
from safegen.decision import Decision, Finding, Status, Waived, decide, to_lower
from safegen.errors import SafegenError, upstream
from safegen.gates import Admission, Release
from safegen.lineage.facts import Evidence, Root, SourceFacts, combined
from safegen.lineage.heads import Listed, Withdrawn
from safegen.lineage.marks import RING as MARKS
from safegen.manifest.sign import key_id
from safegen.policy import RULES, Policy, RuleParams
from safegen.policy.cases import Case, Given, GivenSource, Outcome, Placed, cases
from safegen.safeguards.privacy import softened

__all__ = ["Trial", "decided", "trials"]

_ROWS = 1000  # of a release that a case describes
_LEDGER = "sqlite:///the ledger of the case"


@dataclass(frozen=True)
class Trial:
    """A case, what was decided, and why that is not what was expected (None where it is)."""

    placed: Placed
    decision: Decision
    got: Outcome
    rules: tuple[str, ...]
    problem: str | None


def trials(path_or_name: str | Path) -> list[Trial]:
    """Every case of a policy file, or of a shipped policy, run.

    Raises: PolicyError for a file that is no policy or has malformed cases, with every problem.
    """
    policy = Policy.load(path_or_name)
    return [_tried(policy, placed) for placed in cases(path_or_name, tuple(policy.rules))]


def _tried(policy: Policy, placed: Placed) -> Trial:
    decision = decided(policy, placed.case)
    got: Outcome = "refuse" if not decision.allowed else "warn" if decision.warnings else "admit"
    blocking = "warn" if got == "warn" else "block"
    names = [r.finding.name for r in decision.judged if r.outcome == blocking]
    rules = tuple(dict.fromkeys(names)) if got != "admit" else ()
    expect = placed.case.expect
    problem = None
    if got != expect.outcome:
        problem = f"expected {expect.outcome}, got {got}{_by(rules)}"
    elif expect.rules is not None and (wrong := _other(expect.rules, rules)):
        verb = "refuses" if got == "refuse" else "warns"
        problem = f"it {verb} as expected, but {wrong}"
    return Trial(placed, decision, got, rules, problem)


def _other(expected: Sequence[str], got: Sequence[str]) -> str:
    """In what the rules differ from those that were expected; empty where they do not."""
    missing = [e for e in expected if not any(_names(e, g) for g in got)]
    more = [g for g in got if not any(_names(e, g) for e in expected)]
    told = [f"not by {', '.join(missing)}"] if missing else []
    return " and ".join([*told, *([f"also by {', '.join(more)}"] if more else [])])


def _names(expected: str, found: str) -> bool:
    return found == expected or found.partition("/")[0] == expected


def _by(rules: Sequence[str]) -> str:
    return f" by {', '.join(rules)}" if rules else ""


def decided(policy: Policy, case: Case) -> Decision:
    """What a policy says of what a case describes, on its day."""
    day = case.today or datetime.now(UTC).date()
    given = case.given

    def found(rule: str, params: RuleParams, told: Mapping[str, Status]) -> list[Finding]:
        try:
            return [*_found(policy, rule, params, given, told)]
        except Exception as error:
            what = str(error) if isinstance(error, SafegenError) else upstream(error)
            return [Finding(rule, "broken", "broken", what, "a finding")]

    active = policy.at(given.gate).items()
    sources = [[name] for name in (*(n for _, n in _named(given)), *given.trained_on)]
    judged = partial(
        decide,
        policy,
        given.gate,
        [f for rule, params in active for f in found(rule, params, given.findings)],
        ledger=_ledger(given),
        subject=[case.name],
        time=f"{day.isoformat()}T12:00:00+00:00",
        sources=sources,
    )
    decision = judged()
    lower = to_lower(policy, decision, sources)
    if not lower:
        return decision
    now = {**given.findings, **given.lowered}
    return judged(
        waived={
            rule: Waived(params, waivers, found(rule, params, now))
            for rule, (params, waivers) in lower.items()
        }
    )


def _found(
    policy: Policy, rule: str, params: RuleParams, given: Given, statuses: Mapping[str, Status]
) -> Sequence[Finding]:
    """What a rule finds: of what is described by its own safeguard, of rows by what is given."""
    told = [_told(name, status, params) for name, status in statuses.items()]
    told = [f for f in told if f.rule == rule]
    if given.gate == "admission" and rule in RULES:
        guard = plugins.load(plugins.SAFEGUARDS, rule)()
        return [*guard.admission(_admission(policy, given), params), *told]
    if rule == "manifest":
        guard = plugins.load(plugins.SAFEGUARDS, rule)()
        return [*guard.release(_release(given), params), *told]
    return told or [Finding(rule, "as-given", "met", "nothing else is given", "as the rule asks")]


def _told(name: str, status: Status, params: RuleParams) -> Finding:
    rule, _, check = name.partition("/")
    finding = Finding(rule, check or "as-given", status, "as given", "as the rule asks")
    if rule == "privacy" and check != "identifiers":
        return softened(finding, getattr(params, "leaks", "refuse"))
    return finding


def _ledger(given: Given) -> Mapping[str, Any]:
    known = 1 if given.ledger in ("searched", "without its key") else 0
    state: dict[str, Any] = {"url": _LEDGER, "datasets": known, "key_epochs": ["of-the-case"]}
    if given.ledger == "unreachable":
        return {**state, "status": "unreachable", "problem": "as given", "key_epochs": []}
    if given.ledger == "without its key":
        return {**state, "key_epochs": [], "key_epochs_missing": ["of-the-case"]}
    return state


def _named(given: Given) -> list[tuple[GivenSource, str]]:
    return [(s, s.name or f"source {n}") for n, s in enumerate(given.sources or (), 1)]


def _admission(policy: Policy, given: Given) -> Admission:
    named = _named(given)
    real = tuple(name for source, name in named if not source.share)
    facts = [_facts(source, name, real, given) for source, name in named]
    doubts = () if given.model == "fitted here" else ("the case says so",)
    return Admission(facts, _ledger(given), doubts, None, _listed(policy, given, named))


def _listed(
    policy: Policy, given: Given, named: Sequence[tuple[GivenSource, str]]
) -> Listed | None:
    """What the policy's list of withdrawals says, without reading it."""
    lineage: Any = policy.rule("lineage")
    if not lineage.withdrawals:
        return None
    day = datetime.now(UTC).date().isoformat()
    gone = {
        name: Withdrawn(dataset_id=name, behind=name, time=day, by="the case", reason="as given")
        for source, name in named
        if source.withdrawn
    }
    unreadable = given.withdrawals == "unreadable"
    problem = "it cannot be read, as given" if unreadable else None
    return Listed(lineage.withdrawals, {} if unreadable else gone, day, problem)


def _facts(source: GivenSource, name: str, real: tuple[str, ...], given: Given) -> SourceFacts:
    """The facts about a source, from the pieces of evidence that it would have."""
    problems = [] if source.verifies else [f"{name}: its files do not fit its manifest"]
    looked = given.ledger in ("searched", "without its key")
    if source.withdrawn and looked:
        problems.append(f"dataset {name} was withdrawn, as given")
    pieces = list(_pieces(source, name, real, looked))
    return combined(name, ["table"], source.rows, f"digest of {name}", {}, pieces, problems)


def _pieces(
    source: GivenSource, name: str, real: tuple[str, ...], looked: bool
) -> Iterator[Evidence]:
    told: dict[str, Any] = {"origin": source.origin, "dataset_id": name}
    if source.share:
        behind = real if source.made_from is None else source.made_from
        roots = tuple(Root(r, f"digest of {r}", r, 1) for r in behind) or None
        told |= {
            "share": source.share,
            "depth": source.deepest,
            "effective_depth": source.mean_depth,
            "lower_bound": source.ancestry == "unverified",
            "ancestry": source.ancestry,
            "roots": roots,
            "policies": source.made_under,
        }
    else:
        stated = datetime.now(UTC) - timedelta(days=source.stated_days_ago)
        told |= {"ancestry": "attested", "stated": stated.isoformat(timespec="seconds")}
    recorded = looked and "ledger" in source.statements
    if recorded:
        yield Evidence("ledger", "the ledger knows it", **told, proof=True, recorded=True)
    if "file" in source.statements:
        ring = "manifest" if source.share else "sidecar"
        told |= {"proof": True, "recorded": recorded}
        signers = tuple(map(_key_id, source.signed_by))
        yield Evidence(ring, "a file beside it says so", **told, signers=signers)
    if source.share:  # the stamp stays where all else is lost, and proves nothing
        stamped = ("origin", "dataset_id", "share", "depth", "effective_depth")
        yield Evidence("stamps", "it is stamped so", **{k: told[k] for k in stamped})
    if source.marks:
        yield Evidence(MARKS, "values such as another tool makes up", "unknown")


def _key_id(key: str) -> str:
    """The id of a public key; a name that is none stands for a key of its own."""
    try:
        return key_id(key)
    except ValueError:
        return key


def _release(given: Given) -> Release:
    return Release(
        rows=_ROWS,
        units=_ROWS,
        conditions={},
        schemas={},
        real=None,
        staged={},
        in_band={"table": {"synthetic": _ROWS if given.in_band else 0}},
        signer=_key_id(given.signed_by[0]) if given.signed_by else None,
        credentials={"files": (1 if given.credentials else 0, 1)},
    )
