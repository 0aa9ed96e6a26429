"""The tree of what a dataset was made from."""

from __future__ import annotations

from safegen.lineage.descent import Node
from safegen.lineage.told import facts, title
from safegen.pages.html import section, text

__all__ = ["licences_behind", "lineage"]


def lineage(tree: Node | None) -> str:
    """The section: the dataset at the root, what it was made from below it."""
    if tree is None:
        return ""
    return section(
        "lineage",
        "Where it comes from",
        f'<ul class="tree">{_item(tree)}</ul>',
        lead="Depth counts the models between a row and reality: real rows have 0, what was "
        "trained on them 1.",
    )


def _item(node: Node) -> str:
    told = "".join(f'<span class="{tone}">{text(said)}</span>' for said, tone in facts(node))
    below = "".join(_item(n) for n in node.nodes)
    if node.more:
        below += f"<li><span>{node.more:,} more, which are not shown</span></li>"
    inside = f"<ul>{below}</ul>" if below else ""
    return f"<li><b>{text(title(node))}</b>{told}{inside}</li>"


def licences_behind(tree: Node | None) -> list[tuple[str, str]]:
    """What sources are called, and under which licence they are, where somebody stated one."""
    if tree is None:
        return []
    own = [(title(n), n.license) for n in tree.nodes if n.license and not n.note]
    return [*own, *(pair for n in tree.nodes for pair in licences_behind(n))]
