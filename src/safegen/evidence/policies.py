"""Effective policies as they were, found by the digest that decisions name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from safegen.ledger import LogEntry
from safegen.manifest.canonical import canonical_bytes, sha256
from safegen.policy import Policy

__all__ = ["POLICY", "Found", "found_policy", "recorded", "shipped_policies"]

POLICY = "policy"
"""The kind of log entries that hold an effective policy."""


@dataclass(frozen=True)
class Found:
    """An effective policy whose RFC 8785 bytes have the digest that was asked for.

    entry: the number of the log entry that holds it; None where it is a policy that comes with
    this version of safegen, and has that digest.
    """

    digest: str
    body: bytes
    policy: Mapping[str, Any]
    entry: int | None


def recorded(entries: Iterable[LogEntry]) -> dict[str, Found]:
    """The policies that log entries hold. One whose bytes have not the digest that it is under is
    none."""
    found: dict[str, Found] = {}
    for entry in entries:
        digest, policy = entry.payload.get("digest"), entry.payload.get("policy")
        if not isinstance(digest, str) or not isinstance(policy, Mapping) or digest in found:
            continue
        body = canonical_bytes(policy)
        if sha256(body) == digest:
            found[digest] = Found(digest, body, policy, entry.seq)
    return found


def shipped_policies() -> dict[str, Found]:
    """The policies that come with this version, by digest."""
    policies = [Policy.load(name).effective() for name in Policy.shipped()]
    bodies = [(canonical_bytes(p), p) for p in policies]
    return {sha256(body): Found(sha256(body), body, policy, None) for body, policy in bodies}


def found_policy(
    digest: str, recorded: Mapping[str, Found], shipped: Mapping[str, Found]
) -> Found | None:
    """A policy by its digest; None where nobody has kept it."""
    return recorded.get(digest) or shipped.get(digest)
