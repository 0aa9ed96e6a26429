"""Pages for people: the report of a release, verified or not, and that of a refusal.

A report is one file: no script, no font, no picture from elsewhere. What it draws and no manifest
holds (`measure.figures`) lies in it once more as JSON, so that `safegen report` can write it anew
on a machine that has neither the real rows nor the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from html import unescape
from pathlib import Path

from pydantic import ValidationError

from safegen.decision import Decision
from safegen.lineage.descent import Node
from safegen.manifest import Manifest
from safegen.measure.figures import Figures
from safegen.pages import columns, story
from safegen.pages.gates import gates
from safegen.pages.html import document, text
from safegen.pages.lineage import lineage
from safegen.pages.story import Standing
from safegen.places import Place

__all__ = ["Standing", "figures_in", "refusal_report", "report", "unreadable_report"]

_SECTIONS = (
    ("lineage", "Lineage"),
    ("asked", "Asked"),
    ("gates", "Gates"),
    ("columns", "Columns"),
    ("pairs", "Pairs"),
    ("tails", "Tails"),
    ("sample", "Sample"),
    ("weights", "Weights"),
    ("privacy", "Privacy"),
    ("licences", "Licences"),
    ("repeat", "Repeat"),
    ("digests", "Digests"),
)
_OPEN, _CLOSE = '<pre hidden id="safegen-figures">', "</pre>"


def report(
    manifest: Manifest,
    figures: Figures | None,
    tree: Node | None,
    standing: Standing | None = None,
) -> str:
    """The page about a dataset. figures: None where its own report holds none."""
    standing = standing or Standing()
    what = "Synthetic dataset" if manifest.composition.get("synthetic") else "Dataset"
    head = (
        f"<h1>{what} <span class='id'>{text(manifest.dataset_id)}</span></h1>"
        f"<p class='lead'>{_made(manifest)}</p>"
        + (story.unverified(standing) if standing.verified is False else "")
        + story.verdict(manifest, standing)
        + story.tiles(manifest, standing)
    )
    sections = (
        lineage(tree)
        + story.asked(manifest, figures)
        + gates(manifest.decisions, figures)
        + _drawn(figures, manifest)
        + story.privacy(manifest)
        + story.licences(manifest, tree)
        + story.repeat(manifest, figures)
        + story.files(manifest)
    )
    return _page(f"safegen: dataset {manifest.dataset_id}", head, sections, figures)


def _made(manifest: Manifest) -> str:
    by = f" by {text(manifest.generator.backend)}" if manifest.generator is not None else ""
    return f"Made{by} on {text(manifest.created)}."


def _drawn(figures: Figures | None, manifest: Manifest | None) -> str:
    if figures is None:
        return (
            '<section id="columns"><h2>Columns</h2><p class="note">This dataset\'s own report '
            "holds no comparison with the real rows: it was written by an older version, or is "
            "not to be trusted.</p></section>"
        )
    problem = ""
    if figures.problem is not None:
        problem = f'<p class="note">Not all of this could be drawn: {text(figures.problem)}</p>'
    return (
        problem
        + columns.columns(figures, manifest)
        + columns.pairs(figures)
        + columns.tails(figures)
        + columns.samples(figures)
        + columns.weights(figures)
    )


def _page(title: str, head: str, sections: str, figures: Figures | None) -> str:
    links = [(id_, name) for id_, name in _SECTIONS if f'<section id="{id_}"' in sections]
    kept = "" if figures is None else f"{_OPEN}{text(figures.model_dump_json())}{_CLOSE}"
    footer = (
        "<footer>Written by safegen. The manifest beside the data is the source of truth.</footer>"
    )
    return document(title, head, sections + footer + kept, links)


def figures_in(page: str) -> Figures | None:
    """The figures that a report holds; None where it holds none that can be read."""
    _, found, rest = page.partition(_OPEN)
    if not found:
        return None
    try:
        return Figures.model_validate_json(unescape(rest.partition(_CLOSE)[0]))
    except ValidationError:
        return None


def unreadable_report(name: str, problems: Sequence[str]) -> str:
    """The page about a folder whose manifest cannot be read: why, and nothing else."""
    standing = Standing(False, "Its manifest cannot be read.", tuple(problems))
    head = f"<h1>{text(name)}</h1>{story.unverified(standing)}"
    return document(f"safegen: {name}", head, "")


def refusal_report(target: Place, decisions: Sequence[Decision], figures: Figures) -> None:
    """The findings of a refused release, as a page where the dataset would have been; without one
    of its rows."""
    path = target.with_name(f"{target.name}.refused.html")
    figures = figures.without_rows()
    documents = [d.to_json() for d in decisions]
    refused = [r for d in decisions for r in d.judged if r.outcome == "block"]
    listed = "".join(
        f"<li>{text(r.finding.name)}: {text(r.finding.observed)}</li>" for r in refused
    )
    head = f"<h1>Release refused</h1><p class='lead'>{text(target.name)}</p>" + story.banner(
        "block",
        f"Refused by policy {decisions[-1].policy.get('id')}: no rows were written",
        f"<ul>{listed}</ul><p>Ask: {text(decisions[-1].policy.get('contact', ''))}</p>",
    )
    sections = gates(documents, figures) + _drawn(figures, None)
    # The refusal itself is what matters: it is raised, and it is in the ledger.
    with suppress(OSError):
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_page("safegen: release refused", head, sections, figures).encode())
