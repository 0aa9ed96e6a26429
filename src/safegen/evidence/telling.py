"""What the chosen entries of a log say, gathered while they are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safegen.evidence.policies import Found
from safegen.ledger import LogEntry
from safegen.policy.matrix import Trail

__all__ = ["MOST_SHOWN", "Decided", "Told"]

MOST_SHOWN = 1_000
"""Decisions, datasets and waivers that a page lists, the newest ones; the files have all."""

_MOST_WAIVERS = 100_000


@dataclass(frozen=True)
class Decided:
    """A decision as a page lists it. why: the findings that refuse or warn."""

    entry: int
    time: str
    gate: str
    allowed: bool
    policy: str
    subject: tuple[str, ...]
    why: tuple[tuple[str, str, str, str], ...]  # finding, outcome, observed, required


@dataclass
class Told:
    """Counts, the newest decisions, the policies that they name, waivers, and the last evidence of
    each rule. policies: id, version and number of decisions, by digest."""

    known: Mapping[str, Found]
    trail: Trail
    decisions: int = 0
    refused: int = 0
    policies: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    waivers: list[dict[str, Any]] = field(default_factory=list)
    shown: deque[Decided] = field(default_factory=lambda: deque(maxlen=MOST_SHOWN))

    @classmethod
    def under(cls, known: Mapping[str, Found]) -> Told:
        """Nothing yet, where these policies are known."""
        return cls(known, Trail({digest: found.policy for digest, found in known.items()}))

    def take(self, entry: LogEntry) -> None:
        """What an entry says; nothing, where it is no decision."""
        said, policy = entry.payload, entry.payload.get("policy")
        if entry.kind != "decision" or not isinstance(policy, Mapping):
            return
        self.trail.told(entry)
        allowed = said.get("allowed") is True
        self.decisions += 1
        self.refused += not allowed
        id_, version = str(policy.get("id")), str(policy.get("version"))
        digest = str(policy.get("digest"))
        count = self.policies.get(digest, ("", "", 0))[2] + 1
        self.policies[digest] = id_, version, count
        for waiver in said.get("waivers") or ():
            if isinstance(waiver, Mapping) and len(self.waivers) < _MOST_WAIVERS:
                self.waivers.append({"entry": entry.seq, **waiver})
        subject = said.get("subject")
        self.shown.append(
            Decided(
                entry.seq,
                entry.time,
                str(said.get("gate")),
                allowed,
                f"{id_} {version}",
                tuple(map(str, subject)) if isinstance(subject, list) else (),
                _why(said.get("findings")),
            )
        )


def _why(findings: Any) -> tuple[tuple[str, str, str, str], ...]:
    found = []
    for name, one in findings.items() if isinstance(findings, Mapping) else ():
        if isinstance(one, Mapping) and one.get("outcome") in ("block", "warn", "waived"):
            texts = (str(one.get(k, "")) for k in ("outcome", "observed", "required"))
            found.append((str(name), *texts))
    return tuple(sorted(found, key=lambda f: ("block", "waived", "warn").index(f[1])))  # type: ignore[arg-type]
