"""Trees of datasets, as a terminal shows them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from safegen.cli.output import columns, printable, show, styled

if TYPE_CHECKING:
    from safegen.lineage.descent import Node, Verdict

__all__ = ["draw"]

_ALARM, _DOUBT = "1;31", "33"  # bold red, yellow


def draw(node: Node, first: str = "", rest: str = "") -> None:
    """Print a node, what is known of it, and the nodes of the next level below it."""
    name = node.uri or node.dataset_id or "a source without a name"
    if node.uri and node.dataset_id:
        name += f" [{node.dataset_id}]"
    show(first + styled(printable(name + (f" ({node.note})" if node.note else "")), "1"))
    inside = rest + ("│ " if node.nodes else "  ")
    for text, style in () if node.note else _facts(node):
        width = max(columns() - len(inside), 30)
        for line in textwrap.wrap(printable(text), width, subsequent_indent="  "):
            show(inside + styled(line, style))
    branches(node, rest)


def branches(node: Node, rest: str = "") -> None:
    """Print the nodes of the next level below something that was printed."""
    for i, one in enumerate(node.nodes, 1):
        last = i == len(node.nodes) and not node.more
        draw(one, rest + ("└── " if last else "├── "), rest + ("    " if last else "│   "))
    if node.more:
        show(f"{rest}└── {node.more:,} more, which are not shown")


def _facts(node: Node) -> Iterator[tuple[str, str]]:
    """The lines about a node, each with its style."""
    yield _what(node), ""
    yield _amounts(node), ""
    for (policy, version), made in groupby(node.verdicts, lambda v: (v.policy, v.version)):
        yield f"{_gates(list(made))} by policy {policy} {version}", ""
    if node.claimed_by is not None:
        yield f"a claim of ledger {node.claimed_by[:8]}, imported; nobody states it here", _DOUBT
    if node.expired:
        yield f"EXPIRED on {node.expires}: it counts as unknown", _ALARM
    if node.withdrawn is not None:
        one = node.withdrawn
        which = (
            "WITHDRAWN"
            if one.dataset_id == node.dataset_id
            else f"NOT TO BE USED: {one.dataset_id} was withdrawn"
        )
        yield f"{which} on {one.time[:10]} by {one.by}: {one.reason}", _ALARM


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
