"""Pages for people, derived from manifests and decisions: the reports."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from safegen.decision import Decision
from safegen.manifest import Manifest
from safegen.manifest.model import html_table
from safegen.places import Place

__all__ = ["refusal_report", "report"]


def report(manifest: Manifest, decisions: list[str]) -> str:
    body = html_table(f"Dataset {manifest.dataset_id}", manifest.facts()) + "".join(decisions)
    return _page("safegen report", body)


def _page(title: str, body: str) -> str:
    """A page of its own around a piece of HTML."""
    from html import escape

    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        f"<title>{escape(title)}</title><style>body{{font-family:system-ui,sans-serif;"
        "max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1f2328}table{border-collapse:"
        "collapse;margin-bottom:1.5rem}th,td{border-bottom:1px solid #d0d7de;padding:4px 12px 4px"
        " 0;vertical-align:top}caption{font-weight:600;text-align:left;padding:8px 0}"
        "pre{font-size:13px}</style></head><body>"
        f"{body}</body></html>\n"
    )


def refusal_report(target: Place, decision: Decision) -> None:
    """The findings of a refused release, as a page where the dataset would have been."""
    path = target.with_name(f"{target.name}.refused.html")
    # The refusal itself is what matters: it is raised, and it is in the ledger.
    with suppress(OSError):
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_page("safegen: release refused", decision._repr_html_()).encode())
