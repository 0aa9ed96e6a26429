"""A recorded decision taken again under another policy, as far as what was recorded tells.

Of each finding there is a list of all that it may be:

1. A rule whose parameters are what they were keeps its findings (`severity` and `inconclusive` are
   the decision's business).
2. Else the safeguard itself is asked about what the log kept (`grounds`), where that is all that it
   looks at.
3. Else each finding goes by what it rests on. Nothing that changed leaves it as it was; the
   safeguard's own `again` may know more; and by the declared order a tighter parameter keeps an
   unmet finding unmet, a looser one a met one met.
4. Everything else may be met or not.

Then `decision.decide` judges the worst of it and the best of it, as at the gates. Where both agree,
that is the answer; where they do not, nobody can tell, and the parameters say why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

from safegen import plugins
from safegen.contracts import Safeguard, again, on_demand, rests_on
from safegen.decision import Decision, Finding, Waived, decide, to_lower
from safegen.gates import held_out
from safegen.policy import GATES, Policy, RuleParams, Waiver
from safegen.policy.sections import Approvals
from safegen.policy.standing import lowered, standing
from safegen.replaying.changes import Moved, moved, shaped_otherwise
from safegen.replaying.record import Case, asked_again, lacking

__all__ = ["Answer", "Rejudge", "Verdict"]

Answer = Literal["allow", "refuse", "cannot tell"]

_BURDEN = {"met": 0, "inconclusive": 1, "unmet": 2, "broken": 2}


def _burden(finding: Finding) -> int:
    """How easily a finding refuses, whatever the severity is and counts as inconclusive."""
    mild = finding.at_most != "enforce" and finding.status != "broken"
    return 0 if mild else _BURDEN[finding.status]


@dataclass(frozen=True)
class Verdict:
    """What another policy says. `because`: the findings that refuse; of an admission those that
    refused before; where nobody can tell those that decide it. `parameters`: why nobody can tell.
    `shaped`: the rules by which the rows would have been made otherwise, which no verdict knows."""

    answer: Answer
    because: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    shaped: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Group:
    """All that one finding may be, and the parameters that leave it open."""

    may_be: tuple[Finding, ...]
    why: tuple[str, ...] = ()

    @property
    def settled(self) -> bool:
        return len(self.may_be) == 1 or len({_burden(f) for f in self.may_be}) == 1


class _Settled:
    """A policy that does not change while decisions are taken again. What is the same for all of
    them is found once: its digest, and which waivers it accepts (those are accepted whatever
    signatures it requires)."""

    approvals = Approvals()
    locked = ()

    def __init__(self, policy: Policy, waivers: Sequence[Waiver]):
        self._policy = policy
        self.digest = policy.digest
        self._at = {gate: policy.at(gate) for gate in GATES}
        self.held_out = held_out(policy)
        self.waivers = tuple(waivers)

    def at(self, gate: str) -> Mapping[str, RuleParams]:
        return self._at[gate]  # type: ignore[index]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)


@dataclass
class _Judged:
    """The groups of one decision, and of its rules lowered by waivers; what is open, and why."""

    groups: list[_Group]
    why: dict[str, set[str]] = field(default_factory=dict)
    open: bool = False

    def picked(self, groups: Iterable[_Group], pick: Callable[..., Finding]) -> Iterator[Finding]:
        for group in groups:
            if not group.settled:
                self.open = True
                self.why.setdefault(group.may_be[0].name, set()).update(group.why)
            yield group.may_be[0] if len(group.may_be) == 1 else pick(group.may_be, key=_burden)


class Rejudge:
    """Takes recorded decisions again under one policy. known: effective policies by their digests;
    shipped ones are known anyway."""

    def __init__(self, policy: Policy, known: Mapping[str, Mapping[str, Any]]):
        today = standing(policy, date.min)  # on which none has expired
        accepted = [s.waiver for s in today if s.status == "not needed"]
        self._waiving: Any = _Settled(policy, accepted)
        self._policy: Any = _Settled(policy, ())
        self._known = {**known, self._policy.digest: policy.effective()}
        self._shipped = False
        self._moved: dict[tuple[str, str], Moved | None] = {}
        self._shaped: dict[str, tuple[str, ...]] = {}
        self._guards: dict[str, Safeguard | None] = {}

    def __call__(self, payload: Mapping[str, Any]) -> Verdict:
        """The verdict about the payload of a log entry. Raises: TypeError, KeyError, ValueError,
        AttributeError for one that this version cannot read."""
        case = Case(payload, self._rules_of(str(payload["policy"]["digest"])))
        active = self._policy.at(case.gate)
        judged = _Judged([g for rule, p in active.items() for g in self._groups(case, rule, p)])
        worst = self._decided(case, judged, max)
        shaped = self._shaped_otherwise(case)
        if worst.allowed:
            refused = tuple(n for n, outcome in case.outcomes.items() if outcome == "block")
            return Verdict("allow", refused, shaped=shaped)
        best = self._decided(case, judged, min) if judged.open else worst
        blocked = [r.finding.name for r in best.judged if r.outcome == "block"]
        if blocked:
            return Verdict("refuse", tuple(dict.fromkeys(blocked)), shaped=shaped)
        names = dict.fromkeys(r.finding.name for r in worst.judged if r.outcome == "block")
        why = sorted({w for name in names for w in judged.why.get(name, ())})
        return Verdict("cannot tell", tuple(names), tuple(why), shaped)

    def _decided(self, case: Case, judged: _Judged, pick: Callable[..., Finding]) -> Decision:
        """What `decide` says of the worst, or the best, that findings may be."""
        decided = partial(
            decide,
            self._policy,
            case.gate,
            list(judged.picked(judged.groups, pick)),
            ledger=case.ledger,
            time=case.time,
            sources=case.sources,
        )
        decision = decided()
        lower = to_lower(self._waiving, decision, case.sources)
        if not lower:
            return decision
        return decided(
            waived={
                rule: Waived(
                    params, ids, list(judged.picked(self._twins(case, rule, params), pick))
                )
                for rule, (params, ids) in lower.items()
            }
        )

    # ---- findings --------------------------------------------------------------------------------

    def _groups(self, case: Case, rule: str, params: RuleParams) -> Sequence[_Group]:
        """The findings of a rule under these parameters, each with all that it may be."""
        change = self._change(case, rule, params)
        recorded = case.findings(rule)
        if change is not None and recorded and not change.changes:
            return [_Group(case.all_of(f), (f"{rule}.severity",)) for f in recorded]
        guard = self._guard(rule)
        if guard is not None:
            unsure = lacking(case, rule, params, change)
            found = asked_again(case, guard, params, unsure)
            if found is not None:
                return list(self._completed(case, found, unsure, guard, params, change))
        if change is None or not recorded or guard is None:
            said = f"{rule}.severity" if case.rules is not None else case.unknown_policy
            return [_open(rule, "all", (said,))]
        return [
            *(_either(case, guard, f, params, change) for f in recorded),
            *_unasked(guard, rule, recorded, change),
        ]

    def _completed(
        self,
        case: Case,
        found: Iterable[Finding],
        unsure: Mapping[str, tuple[str, ...]],
        guard: Safeguard,
        params: RuleParams,
        change: Moved | None,
    ) -> Iterator[_Group]:
        """What the safeguard says now; where it lacked what was not kept, what was recorded."""
        done = set()
        for f in found:
            if f.check not in unsure or f.status in unsure[f.check]:
                done.add(f.check)
                yield _Group((f,))
        for check in [c for c in unsure if c not in done]:
            name = f"{guard.rule}.{_GATHERED.get(check, 'severity')}"
            before = next((f for f in case.findings(guard.rule) if f.check == check), None)
            if before is None or change is None:
                yield _open(guard.rule, check, (name,))
            else:
                yield _either(case, guard, before, params, change)

    def _twins(self, case: Case, rule: str, params: RuleParams) -> Sequence[_Group]:
        """The findings of a rule that waivers lower. Where these lowered it just so when the
        decision was taken, and the rule is what it was, the record says what came of it."""
        own = self._policy.rule(rule)
        change = self._change(case, rule, own)
        same = case.rules is not None and case.rules.get(rule) == own.model_dump(mode="json")
        if same and change is not None and not change.changes:
            stood = [
                SimpleNamespace(id=w["id"], params=w["params"])
                for w in case.waivers
                if w.get("rule") == rule
                and w.get("status") in ("applied", "not enough", "not needed")
            ]
            if lowered(own, stood)[0] == params:  # type: ignore[arg-type]
                return [
                    _Group((replace(f, status="met") if case.outcomes[f.name] == "waived" else f,))
                    for f in case.findings(rule)
                ]
        return self._groups(case, rule, params)

    # ---- what is looked up once ------------------------------------------------------------------

    def _guard(self, rule: str) -> Safeguard | None:
        """The rule's safeguard; None where no installed package has it."""
        if rule not in self._guards:
            try:
                self._guards[rule] = plugins.load(plugins.SAFEGUARDS, rule)()
            except Exception:
                self._guards[rule] = None
        return self._guards[rule]

    def _change(self, case: Case, rule: str, params: RuleParams) -> Moved | None:
        if case.rules is None:
            return None
        if params is not self._policy.rules.get(rule):  # lowered by a waiver
            return moved(case.rules, rule, params, self._policy)
        this = (case.digest, rule)
        if this not in self._moved:
            self._moved[this] = moved(case.rules, rule, params, self._policy)
        return self._moved[this]

    def _shaped_otherwise(self, case: Case) -> tuple[str, ...]:
        if case.gate != "release" or case.rules is None:
            return ()
        if case.digest not in self._shaped:
            self._shaped[case.digest] = shaped_otherwise(case.rules, self._policy)
        return self._shaped[case.digest]

    def _rules_of(self, digest: str) -> Mapping[str, Any] | None:
        """The rules of a policy as JSON; None for one that nobody knows."""
        if digest not in self._known and not self._shipped:
            self._shipped = True
            for name in Policy.shipped():
                policy = Policy.load(name)
                self._known.setdefault(policy.digest, policy.effective())
        policy_ = self._known.get(digest)
        return None if policy_ is None else policy_["rules"]


_GATHERED = {
    "withdrawals": "withdrawals",
    "signature": "trusted_keys",
    "policy": "trusted_keys",
}
"""The parameter by which facts are gathered that a check rests on."""


def _open(rule: str, check: str, why: tuple[str, ...]) -> _Group:
    met = Finding(rule, check, "met", "not known", "not known")
    return _Group((met, replace(met, status="unmet")), why)


def _either(
    case: Case, guard: Safeguard, finding: Finding, params: RuleParams, change: Moved
) -> _Group:
    """All that a recorded finding may be under other parameters."""
    rests = rests_on(guard) or {}
    keys = rests.get(finding.check, tuple(change.changes))
    changes = {key: c for key, c in change.changes.items() if key in keys}
    same = case.all_of(finding)
    if not changes:
        return _Group(same, (f"{guard.rule}.severity",))
    why = tuple(f"{guard.rule}.{key}" for key in changes)
    if change.before is not None:
        try:
            judged = tuple(g for f in same for g in again(guard, f, change.before, params))
        except Exception:  # another package's: then the declared order has to do
            judged = ()
        if judged:
            return _Group(judged, why)
    orders = set(changes.values())
    if (finding.status, orders) == ("met", {"LOOSEN"}):
        return _Group(same, why)
    if (finding.status, orders) == ("unmet", {"TIGHTEN"}):  # and it may be taken less mildly
        return _Group((*same, replace(finding, at_most="enforce")), why)
    return _open(guard.rule, finding.check, why)


def _unasked(
    guard: Safeguard, rule: str, recorded: Sequence[Finding], change: Moved
) -> Iterator[_Group]:
    """Questions that nobody asked then, and that these parameters ask."""
    asked = {f.check for f in recorded}
    more = [key for key, c in change.changes.items() if c != "LOOSEN"]
    if rests_on(guard) is None and more:
        yield _open(rule, "all", tuple(f"{rule}.{key}" for key in more))
    for check, key in on_demand(guard).items():
        if key in more and check not in asked:
            yield _open(rule, check, (f"{rule}.{key}",))
