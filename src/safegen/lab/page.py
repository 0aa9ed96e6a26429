"""A run's page: one file, without scripts or anything from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from safegen.lab.plot import Chart, Line, legend
from safegen.lab.store import Check

__all__ = ["page", "table"]

_STYLE = """
body{font-family:system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1f2328}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(22rem,1fr));gap:1rem}
svg{width:100%;height:auto}text{font-size:11px;fill:#57606a}.title{font-size:13px;fill:#1f2328}
.left{text-anchor:end}.mid{text-anchor:middle}.grid{stroke:#e5e8eb;fill:none}
.theory{stroke:#1f2328;stroke-width:1;stroke-dasharray:1 3;fill:none}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;padding:0}
.pictures td{vertical-align:top}.pictures img{display:block;width:11rem;image-rendering:pixelated}
.legend svg{width:28px;height:10px;margin-right:.4rem}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}caption{text-align:left;font-weight:600}
th,td{border-bottom:1px solid #d0d7de;padding:3px 14px 3px 0;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}.not{color:#c92a2a;font-weight:600}
@media (prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}.title{fill:#e6edf3}
text{fill:#9da7b3}.grid{stroke:#30363d}.theory{stroke:#e6edf3}th,td{border-color:#30363d}}
"""


def page(
    title: str,
    says: str,
    settings: Mapping[str, Any],
    checks: Sequence[Check],
    sections: Sequence[tuple[str, Sequence[Line], Sequence[Chart]]],
    more: str = "",
) -> str:
    """The page. sections: a heading, the curves for its legend, and its charts. more: HTML of ours,
    after the verdicts."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1><p>{escape(says)}</p>",
        table("Verdicts", ("check", "seen", "expected", ""), [_line(c) for c in checks])
        if checks
        else "",
        more,
    ]
    for heading, lines, charts in sections:
        drawn = "".join(f"<figure>{chart.svg()}</figure>" for chart in charts)
        parts.append(f'<h2>{escape(heading)}</h2>{legend(lines)}<div class="charts">{drawn}</div>')
    facts = [(k, ", ".join(map(str, v)) if isinstance(v, list) else v) for k, v in settings.items()]
    parts.append(table("Settings", ("", ""), facts))
    return "".join([*parts, "</body></html>\n"])


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """An HTML table; numbers stand right, and a cell `not held` is red."""
    cells = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    head = "".join(f"<th>{escape(h)}</th>" for h in heads)
    return f"<table><caption>{escape(caption)}</caption><tr>{head}</tr>{cells}</table>"


def _line(check: Check) -> tuple[Any, ...]:
    return check.name, check.seen, check.expected, "held" if check.held else "not held"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f'<td class="n">{value:.4g}</td>'
    text = escape(str(value))
    return f'<td class="not">{text}</td>' if value == "not held" else f"<td>{text}</td>"
