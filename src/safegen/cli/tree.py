"""Trees of datasets, as a terminal shows them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from safegen.cli.output import columns, printable, show, styled
from safegen.lineage.told import facts, title

if TYPE_CHECKING:
    from safegen.lineage.descent import Node

__all__ = ["draw"]

_STYLES = {"plain": "", "doubt": "33", "alarm": "1;31"}  # yellow, bold red


def draw(node: Node, first: str = "", rest: str = "") -> None:
    """Print a node, what is known of it, and the nodes of the next level below it."""
    show(first + styled(printable(title(node)), "1"))
    inside = rest + ("│ " if node.nodes else "  ")
    for text, tone in facts(node):
        width = max(columns() - len(inside), 30)
        for line in textwrap.wrap(printable(text), width, subsequent_indent="  "):
            show(inside + styled(line, _STYLES[tone]))
    branches(node, rest)


def branches(node: Node, rest: str = "") -> None:
    """Print the nodes of the next level below something that was printed."""
    for i, one in enumerate(node.nodes, 1):
        last = i == len(node.nodes) and not node.more
        draw(one, rest + ("└── " if last else "├── "), rest + ("    " if last else "│   "))
    if node.more:
        show(f"{rest}└── {node.more:,} more, which are not shown")
