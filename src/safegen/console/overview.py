"""The first page: what came out, what was refused, what expires, and how much is synthetic."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from safegen.console.datasets import named, tags
from safegen.console.decisions import HEADS, row
from safegen.console.desk import DeskOf
from safegen.console.index import Contents, Use
from safegen.console.layout import link, listing, moment, page
from safegen.console.waivers import STATES, every
from safegen.pages.html import number, percent, section, text

__all__ = ["api", "html"]

api = APIRouter(tags=["overview"])
html = APIRouter(include_in_schema=False)

_DAYS = 30


@api.get("/overview", summary="Releases, refusals, expiring waivers, share of synthetic rows")
def overview(desk: DeskOf) -> dict[str, Any]:
    now = desk.index.contents()
    use, waivers = now.use, every(desk, now)[0]
    return {
        "ledger": {"url": now.url, "ledger_id": now.ledger_id, "log_entries": now.seq},
        "datasets": len(now.datasets),
        "decisions": len(now.decisions),
        "refusals": sum(not d.allowed for d in now.decisions),
        "withdrawn": len(now.withdrawn),
        "days": now.days,
        "use": {
            "datasets": use.datasets,
            "real_rows": use.real,
            "synthetic_rows": use.synthetic,
            "unknown_rows": use.unknown,
            "synthetic_share": use.synthetic_share,
        },
        "waivers": {s: sum(w.state == s for w in waivers) for s in STATES},
    }


@html.get("/")
def overview_page(request: Request, desk: DeskOf) -> HTMLResponse:
    now = desk.index.contents()
    waivers, _ = every(desk, now)
    month = _month(now)
    soon = sum(w.state == "expiring" for w in waivers)
    over = sum(w.state == "expired" for w in waivers)
    share = now.use.synthetic_share
    tiles = (
        ("", f"{month['release']:,}", f"releases in {_DAYS} days", "/datasets?statement=release"),
        (
            "block" if month["refused"] else "",
            f"{month['refused']:,}",
            f"refusals in {_DAYS} days",
            "/decisions?verdict=refused",
        ),
        (
            "warn" if soon else "",
            f"{soon:,}",
            f"waivers that expire soon, {over:,} expired",
            "/waivers",
        ),
        ("", "–" if share is None else percent(share), "of rows in use synthetic", "#use"),
        (
            "block" if now.withdrawn else "",
            f"{len(now.withdrawn):,}",
            "datasets not to be used",
            "/datasets?state=withdrawn",
        ),
    )
    refused = [d for d in reversed(now.decisions) if not d.allowed][:8]
    newest = now.find_datasets(size=8).items
    return page(
        request,
        "Overview",
        "<h1>Overview</h1>",
        '<div class="tiles">' + "".join(_tile(*t) for t in tiles) + "</div>",
        section("days", "Decisions by day", _bars(now)),
        section("use", "What may be used", _use(now.use)),
        section(
            "refusals",
            "Last refusals",
            listing("", HEADS, map(row, refused), "Nothing was refused."),
        ),
        section(
            "newest",
            "Newest datasets",
            listing(
                "",
                ("dataset", "origin", "rows", "registered"),
                (
                    (
                        f"{named(now, d.dataset_id)}<small>{tags(now, d)}</small>",
                        text(d.origin),
                        number(d.rows),
                        moment(d.registered),
                    )
                    for d in newest
                ),
                "The ledger has no dataset yet.",
            ),
        ),
    )


def _tile(kind: str, big: str, small: str, to: str) -> str:
    return (
        f'<a class="tile {kind}" href="{text(to)}"><b>{text(big)}</b><span>{text(small)}</span></a>'
    )


def _month(now: Contents) -> Counter[str]:
    first = (datetime.now(UTC) - timedelta(days=_DAYS - 1)).date().isoformat()
    total: Counter[str] = Counter()
    for day, counts in now.days.items():
        if day >= first:
            total.update(counts)
    return total


def _bars(now: Contents) -> str:
    """Allowed and refused decisions of the last weeks, a bar for each day."""
    last = datetime.now(UTC).date()
    days = [(last - timedelta(days=k)).isoformat() for k in reversed(range(_DAYS))]
    counts = [now.days.get(d, {}) for d in days]
    most = max((c.get("admitted", 0) + c.get("refused", 0) for c in counts), default=0)
    if not most:
        return f'<p class="note">No decision in the last {_DAYS} days.</p>'
    bars = []
    for k, (day, c) in enumerate(zip(days, counts, strict=True)):
        yes, no = c.get("admitted", 0), c.get("refused", 0)
        h, r = 90 * yes / most, 90 * no / most
        x = 20 * k + 2
        bars.append(
            f"<g><title>{day}: {yes:,} allowed, {no:,} refused</title>"
            f'<rect class="ok" x="{x}" y="{96 - h:.1f}" width="16" height="{h:.1f}"/>'
            f'<rect class="no" x="{x}" y="{96 - h - r:.1f}" width="16" height="{r:.1f}"/></g>'
        )
    yes, no = (sum(c.get(w, 0) for c in counts) for w in ("admitted", "refused"))
    label = f"{yes:,} allowed and {no:,} refused in {_DAYS} days, at most {most:,} a day"
    return (
        f'<figure><svg class="bars" viewBox="0 0 {20 * _DAYS} 98" role="img" aria-label="{label}">'
        f'<line class="axis" x1="0" y1="96.5" x2="{20 * _DAYS}" y2="96.5"/>{"".join(bars)}</svg>'
        f'<p class="days"><span>{days[0]}</span><span>{days[-1]}</span></p>'
        f'<figcaption class="key"><span><i class="swatch s"></i>allowed {yes:,}</span>'
        f'<span><i class="swatch no"></i>refused {no:,}</span></figcaption></figure>'
    )


def _use(use: Use) -> str:
    """Rows of datasets that are neither withdrawn nor expired, by origin."""
    every_ = use.real + use.synthetic + use.unknown
    if not every_:
        return '<p class="note">No dataset with rows may be used.</p>'
    parts = (
        ("r", "real", use.real),
        ("s", "synthetic", use.synthetic),
        ("u", "unknown", use.unknown),
    )
    x, bars, said = 0.0, "", ""
    for kind, name, rows in parts:
        width = 1000 * rows / every_
        bars += f'<rect class="{kind}" x="{x:.2f}" y="0" width="{width:.2f}" height="20"/>'
        said += (
            f'<span><i class="swatch {kind}"></i>{name} {rows:,} ({percent(rows / every_)})</span>'
        )
        x += width
    label = ", ".join(f"{name} {percent(rows / every_)}" for _, name, rows in parts)
    return (
        f'<figure><svg class="share" viewBox="0 0 1000 20" preserveAspectRatio="none" role="img" '
        f'aria-label="{label}">{bars}</svg><figcaption class="key">{said}</figcaption></figure>'
        f'<p class="note">Rows of {use.datasets:,} datasets that are neither withdrawn nor '
        f"expired. Rows of which nobody knows the origin count as unknown, never as real. "
        f"{link('lineage', shows='How they descend')}</p>"
    )
