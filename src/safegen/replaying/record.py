"""A recorded decision as it can be read again, and safeguards asked about what was kept of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from functools import cached_property
from typing import Any, get_args

from safegen import grounds
from safegen.decision import Finding, Gate, Status
from safegen.gates import Admission
from safegen.measure.gains import Probe
from safegen.policy import RuleParams
from safegen.replaying.changes import Moved

__all__ = ["Case", "asked_again", "lacking"]

_FIELDS = {f.name for f in fields(Finding)}
_STATUSES = frozenset(get_args(Status))


class Case:
    """The payload of a log entry of the kind `decision`. rules: those of its policy, as JSON; None
    where nobody knows it. Raises: TypeError, KeyError, ValueError, AttributeError for another."""

    unknown_policy = "the policy that decided, which the ledger does not have"

    def __init__(self, payload: Mapping[str, Any], rules: Mapping[str, Any] | None):
        if payload["gate"] not in get_args(Gate):
            raise ValueError("no gate")
        self.gate: Gate = payload["gate"]
        self.rules = rules
        self.digest = str(payload["policy"]["digest"])
        self.allowed = bool(payload["allowed"])
        self.time = str(payload["time"])
        self.ledger: Mapping[str, Any] = payload["ledger"]
        self.waivers: Sequence[Mapping[str, Any]] = payload.get("waivers", ())
        self.outcomes = {name: str(f["outcome"]) for name, f in payload["findings"].items()}
        # What waivers may know a source by. Decisions of older versions do not say, and had none.
        self.sources = [[str(n) for n in s.get("names", ())] for s in payload.get("sources", ())]
        self._payload = payload
        self.kept: Mapping[str, Any] = payload.get("grounds") or {}
        self._unsaid: set[str] = set()

    def findings(self, rule: str) -> Sequence[Finding]:
        """What was found about a rule."""
        return self._findings.get(rule, ())

    @cached_property
    def _findings(self) -> Mapping[str, list[Finding]]:
        found: dict[str, list[Finding]] = {}
        for name, document in self._payload["findings"].items():
            rule, _, check = name.partition("/")
            found.setdefault(rule, []).append(self._finding(rule, check, document))
        return found

    def _finding(self, rule: str, check: str, document: Mapping[str, Any]) -> Finding:
        if document["status"] not in _STATUSES:
            raise ValueError("no status")
        name = f"{rule}/{check}"
        known: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in document.items() if k in _FIELDS
        }
        known["at_most"] = self._at_most(name, document)
        parts = self.kept.get("parts", {}).get(name)
        return Finding(rule, check, **known, parts=grounds.read_parts(parts) if parts else ())

    def _at_most(self, name: str, document: Mapping[str, Any]) -> Any:
        """How severe a finding may be at most. Decisions of older versions do not say; of a finding
        that was judged more mildly than its rule it can be told."""
        if "at_most" in self.kept:
            return self.kept["at_most"].get(name, "enforce")
        rule = (self.rules or {}).get(name.partition("/")[0]) or {}
        milder = document["severity"] != rule.get("severity") and document["severity"] != "enforce"
        if milder and document["status"] != "inconclusive" and rule:
            return document["severity"]
        self._unsaid.add(name)
        return "enforce"

    def all_of(self, finding: Finding) -> tuple[Finding, ...]:
        """A recorded finding, and a milder one where nobody knows which it was."""
        milder = self._payload["findings"][finding.name]["severity"]
        if finding.name not in self._unsaid or milder == "enforce":
            return (finding,)
        return (finding, replace(finding, at_most=milder))

    @cached_property
    def admission(self) -> Admission | None:
        """What was known before training; None where that was not kept."""
        if "sources" not in self.kept:
            return None
        try:
            probe = self.kept.get("probe")
            return Admission(
                [grounds.read_source(s) for s in self.kept["sources"]],
                self.ledger,
                tuple(self.kept["doubts"]),
                None if probe is None else Probe.from_json(probe),
                now=datetime.fromisoformat(self.time),
            )
        except (TypeError, KeyError, ValueError, AttributeError):  # of another version
            return None


class _Release:
    """What was kept of a release, as its safeguards look at it. `missed`: whether one looked at
    what was not kept, such as the rows: then what it says is not to be believed."""

    conditions: Mapping[str, Any] = {}
    real_values = False

    def __init__(self, kept: Mapping[str, Any]):
        self.missed = False
        self.rows, self.units, self.depth = kept["rows"], kept["units"], kept["depth"]
        self.signer, self.in_band = kept["signer"], kept["in_band"]
        self.credentials = {what: tuple(pair) for what, pair in kept["credentials"].items()}

    def __getattr__(self, name: str) -> Any:
        self.missed = True
        raise AttributeError(f"{name} was not recorded")


def asked_again(
    case: Case, guard: Any, params: RuleParams, unsure: Mapping[str, Sequence[str]]
) -> list[Finding] | None:
    """What the safeguard says of what was kept; None where that is not enough for it."""
    try:
        if case.gate == "release":
            if "rows" not in case.kept:
                return None
            rows = _Release(case.kept)
            found = list(guard.release(rows, params))
            return None if rows.missed else [f for f in found if f.rule == guard.rule]
        context = case.admission
        if context is None:
            return None
        if guard.rule == "lineage" and params.withdrawals and "withdrawals" not in unsure:  # type: ignore[attr-defined]
            context = replace(context, listed=grounds.read_listed(case.kept["listed"]))
        return [f for f in guard.admission(context, params) if f.rule == guard.rule]
    except Exception:  # whatever it is, nothing was established
        return None


def lacking(
    case: Case, rule: str, params: Any, change: Moved | None
) -> Mapping[str, tuple[str, ...]]:
    """The checks of an admission that rest on what was gathered under the policy of then and would
    be gathered otherwise now, each with the statuses that are certain all the same."""
    if case.gate != "admission" or case.admission is None:
        return {}
    if rule == "lineage" and params.withdrawals:
        gathered = {"withdrawals", "withdrawals_max_age"}
        if change is None or gathered & change.changes.keys() or case.kept.get("listed") is None:
            return {"withdrawals": ()}
    if rule == "manifest":
        return _signatures(case, params)
    if rule == "anchor":
        shares = [s.synthetic_share for s in case.admission.sources]
        unprobed = change is None and case.admission.probe is None
        if "probe" not in case.kept or (unprobed and any(shares) and not all(shares)):
            return {"gain": ()}
    return {}


def _signatures(case: Case, params: Any) -> Mapping[str, tuple[str, ...]]:
    """Signatures were looked for by the keys that the policy trusted, and by those that the ledger
    has seen. By others there may be more; without the policy's own there may be fewer."""
    keys = set(params.trusted_keys)
    before = None if case.rules is None else set(case.rules["manifest"].get("trusted_keys") or ())
    found: dict[str, tuple[str, ...]] = {}
    if params.signature == "required":
        if before and not keys:
            found["signature"] = ("unmet",)
        elif before is None or (keys and not (before and keys <= before)):
            found["signature"] = ("met",)
    if params.made_under and keys != before:
        more = before is not None and before <= keys
        found["policy"] = ("met",) if more else ("unmet",) if before and keys <= before else ()
    return found
