"""What the gates asked and found: a card for each finding, its number drawn beside its margin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safegen.decision import waiver_text
from safegen.measure.figures import Figures, Measured
from safegen.pages.charts import Axis, interval, is_ratio
from safegen.pages.given import findings, finite, items, mapping, pair, texts, within
from safegen.pages.html import breaking, counted, facts, number, section, sign, table, text

__all__ = ["card", "forest", "gates", "part_outcome", "verdict_of"]

_ORDER = ("block", "waived", "warn", "audit", "pass")
_ELSEWHERE = {  # where the numbers behind a finding have a section of their own
    "fidelity/marginals": ("columns", "each column"),
    "fidelity/pairs": ("pairs", "each pair"),
    "fidelity/tails": ("tails", "each tail"),
    "fidelity/rare": ("tails", "each rare level"),
}
_GATES = {
    "admission": "Admission: may this data be learned from?",
    "release": "Release: may these rows go out?",
}


def verdict_of(decisions: Sequence[Any]) -> tuple[bool, int, int]:
    """Whether all decisions allow, how many findings refuse, and how many warn."""
    every = [mapping(d) for d in decisions]
    outcomes = [f.get("outcome") for d in every for f in findings(d).values()]
    allowed = bool(every) and all(d.get("allowed") is True for d in every)
    return allowed, outcomes.count("block"), outcomes.count("warn")


def gates(decisions: Sequence[Any], figures: Figures | None) -> str:
    """The section; the last gate first."""
    return section(
        "gates",
        "Gates",
        *(_gate(mapping(d), figures) for d in reversed(decisions)),
        lead="Each finding says what was asked and what was seen. In the drawings the green field "
        "is what the policy allows, the bar the interval, and the mark on it the number: ● inside "
        "for certain, ▲ a warning, ■ refused, ◆ open, or recorded only.",
    )


def _gate(decision: Mapping[str, Any], figures: Figures | None) -> str:
    found = findings(decision)
    policy = mapping(decision.get("policy"))
    ledger = mapping(decision.get("ledger"))
    gate = str(decision.get("gate"))
    ranked = sorted(found.items(), key=lambda item: _rank(item[1]))
    plain = [(n, f) for n, f in ranked if f.get("outcome") == "pass" and not _drawn(f, "pass")]
    cards = "".join(card(name, one, figures) for name, one in ranked if (name, one) not in plain)
    allowed = decision.get("allowed") is True
    known = finite(ledger.get("datasets")) or 0
    searched = f"{text(ledger.get('url', 'none'))}: {counted(int(known), 'dataset')}"
    if ledger.get("status") == "unreachable":
        searched += ": it could not be reached"
    said = [
        ("verdict", sign("pass", "allowed") if allowed else sign("block", "refused")),
        ("policy", f"{text(policy.get('id', '?'))} {text(policy.get('version', ''))}"),
        ("about", "<br>".join(map(text, texts(decision.get("subject"))))),
        ("when", text(decision.get("time", ""))),
        ("ledger searched", searched),
        *(("note", text(n)) for n in texts(decision.get("notes"))),
        *(("waiver", text(waiver_text(mapping(w)))) for w in items(decision.get("waivers"))),
    ]
    if policy.get("contact") and (not allowed or _rank_of(found) < _ORDER.index("audit")):
        said.append(("ask", text(policy["contact"])))
    heading = text(_GATES.get(gate, gate))
    body = f'<div class="cards">{cards}</div>' if cards else ""
    if plain:
        body += _passed(plain)
    return f'<h3 class="gate">{heading}</h3>{facts(said)}{body}'


def _passed(found: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Findings without a number that have passed, a line each."""
    rows = [
        (
            f"<b>{breaking(name)}</b>{sign('pass')}",
            f"{text(one.get('observed', ''))}<br><small>required: "
            f"{text(one.get('required', ''))}</small>",
        )
        for name, one in found
    ]
    return table("Passed, with nothing to draw", ("finding", "observed"), rows, "passed")


def _rank(finding: Mapping[str, Any]) -> int:
    outcome = finding.get("outcome")
    return _ORDER.index(outcome) if outcome in _ORDER else 0


def _rank_of(found: Mapping[str, Mapping[str, Any]]) -> int:
    return min((_rank(f) for f in found.values()), default=0)


def card(name: str, finding: Mapping[str, Any], figures: Figures | None) -> str:
    """One finding: what was asked, what was seen, what to do."""
    outcome = str(finding.get("outcome"))
    rows = [("required", text(finding.get("required", "")))]
    if finding.get("n") is not None:
        rows.append(("n", number(finding["n"])))
    if outcome == "waived":
        rows.append(("waived by", text(", ".join(texts(finding.get("waived_by"))))))
    elif outcome not in ("pass", "audit") and finding.get("next_step"):
        rows.append(("next", text(finding["next_step"])))
    parts = figures.parts.get(name, []) if figures is not None else []
    more = ""
    if name in _ELSEWHERE and parts:
        id_, what = _ELSEWHERE[name]
        more = f'<p class="note"><a href="#{id_}">{text(what)}</a></p>'
    elif len(parts) > 1:
        more = f"<details><summary>all {len(parts)}</summary>{forest(parts)}</details>"
    if finding.get("method"):
        method = text(finding["method"])
        more += f"<details><summary>method</summary><p class='note'>{method}</p></details>"
    evidence = texts(finding.get("evidence"))
    if evidence:
        listed = "".join(f"<li>{text(e)}</li>" for e in evidence)
        more += f"<details><summary>evidence ({len(evidence)})</summary><ul>{listed}</ul></details>"
    known = outcome if outcome in _ORDER else "audit"
    return (
        f'<article class="card {known}"><header><h4>{text(name)}</h4>{sign(known)}'
        f"</header><p>{text(finding.get('observed', ''))}</p>{_drawn(finding, known)}"
        f"{facts(rows)}{more}</article>"
    )


def _drawn(finding: Mapping[str, Any], outcome: str) -> str:
    """The number that a finding rests on; nothing where it has none."""
    value, ends = finite(finding.get("value")), pair(finding.get("interval"))
    if ends is None or value is None:
        return ""
    margin = within(finding.get("within"))
    of = str(finding.get("of", ""))
    svg = interval(value, ends, margin, outcome, label=f"{of}: " if of else "")
    said = f"{text(of)}: " if of else ""
    return (
        f'<figure class="drawn">{svg}<figcaption class="note">{said}<b>{number(value)}</b> '
        f"({number(ends[0])} to {number(ends[1])})</figcaption></figure>"
    )


def part_outcome(part: Measured) -> str:
    """Whether an interval lies within its margin, beyond it, or on both sides."""
    least, most = part.within
    low, high = part.interval
    if (least is None or low >= least) and (most is None or high <= most):
        return "pass"
    if (least is not None and high < least) or (most is not None and low > most):
        return "block"
    return "audit"


def forest(parts: Sequence[Measured], caption: str = "", head: str = "") -> str:
    """Numbers with their intervals, one below the other on one axis."""
    numbers = [x for p in parts for x in (p.value, *p.interval)]
    margins = [m for p in parts for m in p.within if m is not None]
    ratio = any(is_ratio(p.within) for p in parts)
    axis = Axis.over([*numbers, *margins], 4, 256, ratio)
    rows = [
        (
            breaking(p.name),
            interval(
                p.value,
                p.interval,
                p.within,
                part_outcome(p),
                axis=axis,
                label=f"{p.name}: ",
                width=260,
            ),
            f"<b>{number(p.value)}</b> <small>({number(p.interval[0])} to "
            f"{number(p.interval[1])})</small>",
        )
        for p in parts
    ]
    return table(caption, (head or "of", "interval and margin", "number"), rows, "forest")
