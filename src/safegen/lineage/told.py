"""What a tree of datasets says of each of them, in words: for a terminal, and for a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from safegen.lineage.descent import Node, Verdict

__all__ = ["Tone", "facts", "title"]

Tone = Literal["plain", "doubt", "alarm"]


def title(node: Node) -> str:
    """What a node is called."""
    name = node.uri or node.dataset_id or "a source without a name"
    if node.uri and node.dataset_id:
        name += f" [{node.dataset_id}]"
    return name + (f" ({node.note})" if node.note else "")


def facts(node: Node) -> Iterator[tuple[str, Tone]]:
    """The lines about a node, and how each is meant."""
    if node.note:
        return
    yield _what(node), "plain"
    yield _amounts(node), "plain"
    for (policy, version), made in groupby(node.verdicts, lambda v: (v.policy, v.version)):
        yield f"{_gates(list(made))} by policy {policy} {version}", "plain"
    if node.claimed_by is not None:
        yield f"a claim of ledger {node.claimed_by[:8]}, imported; nobody states it here", "doubt"
    if node.expired:
        yield f"EXPIRED on {node.expires}: it counts as unknown", "alarm"
    if node.withdrawn is not None:
        one = node.withdrawn
        which = (
            "WITHDRAWN"
            if one.dataset_id == node.dataset_id
            else f"NOT TO BE USED: {one.dataset_id} was withdrawn"
        )
        yield f"{which} on {one.time[:10]} by {one.by}: {one.reason}", "alarm"


def _what(node: Node) -> str:
    on = f" on {node.created[:10]}" if node.created else ""
    made = f" by {node.backend}" if node.backend else ""
    if node.statement == "release":
        text = f"{node.origin}, released{made}{on}"
    elif node.statement == "attestation":
        until = f", until {node.expires}" if node.expires and not node.expired else ""
        text = f"{node.origin}, made{made}," if made else f"{node.origin},"
        text += f" attested by {node.by}{on}{until}"
    elif node.statement == "derivation":
        text = f"{node.origin}, derived by {node.by}{on}"
    elif node.origin == "unknown":
        return "unknown: nobody has stated here what it is"
    elif node.statement == "evidence":
        text = f"{node.origin}, as its rows show; nobody has stated here what it is"
    else:
        text = f"{node.origin}, as what was made from it says; nobody states it here"
    unverified = node.ancestry == "unverified" and node.origin != "real"
    return text + (", ancestry unverified" if unverified else "")


def _amounts(node: Node) -> str:
    part = node.synthetic_share
    share = "" if part is None else f", {part:.1%} synthetic"
    if part in (0, 1):
        share = ", all synthetic" if part else ", none synthetic"
    least = "at least " if node.depth_is_lower_bound else ""
    effective = ""
    if node.effective_depth != node.depth:
        effective = f", effective {least}{node.effective_depth:.3g}"
    return f"{node.rows:,} rows{share}, depth {least}{node.depth}{effective}"


def _gates(verdicts: Sequence[Verdict]) -> str:
    done = {"admission": "admitted", "release": "released"}
    said = []
    for one in verdicts:
        name = done.get(one.gate, one.gate) if one.allowed else f"refused at {one.gate}"
        warned = f" with {one.warnings} warning{'s' * (one.warnings > 1)}" if one.warnings else ""
        said.append(name + warned)
    return " and ".join(said)
