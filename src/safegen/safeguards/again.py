"""What findings of the shipped rules would be under other parameters, as far as they tell.

A finding names the numbers that it rests on, so where only a margin moved it can be judged again
without the rows. Each function gives all that the finding may be then: one where that is certain,
several where it is not, none where nothing can be said. They err on the side of several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from safegen.decision import Finding, Part, Severity, Status, Within

__all__ = ["fidelity", "privacy", "schema"]

_STRICT_LAST: tuple[Severity, ...] = ("off", "audit", "warn", "enforce")


def _all(finding: Finding, *statuses: Status) -> list[Finding]:
    return [replace(finding, status=status) for status in statuses]


# ---- schema --------------------------------------------------------------------------------------


def schema(finding: Finding, before: Any, after: Any) -> Sequence[Finding]:
    """Of `ranges` the largest share is known, and of `missingness` each column's interval at 95 %;
    the wider one by which a column is lost is not."""
    if finding.check == "ranges" and finding.value is not None:
        return _all(finding, "met" if finding.value <= after.out_of_range else "unmet")
    if finding.check == "missingness":
        if finding.value is None:  # no missing values on either side
            return [finding]
        if not finding.parts:
            return ()
        margin = after.missing_margin
        ends = [p.interval for p in finding.parts]
        if all(-margin <= low and high <= margin for low, high in ends):
            return _all(finding, "met")
        if finding.status == "unmet" and margin <= before.missing_margin:
            return [finding]
        if any(low > margin or high < -margin for low, high in ends):
            return _all(finding, "inconclusive", "unmet")
        return _all(finding, "inconclusive")
    return ()


# ---- fidelity ------------------------------------------------------------------------------------


def fidelity(finding: Finding, before: Any, after: Any) -> Sequence[Finding]:
    """By the bounds of all its parts, which lie at the policy's `alpha`."""
    if before.alpha != after.alpha:
        return ()
    if finding.check == "utility":
        return _utility(finding, before, after)
    if finding.check not in _MARGINS:
        return ()
    if finding.value is None:  # nothing to compare, or in too few rows: no margin enters
        return [finding]
    old, new = _MARGINS[finding.check](before), _MARGINS[finding.check](after)
    moved: dict[Within, Within] = {}
    for was, now in zip(old, new, strict=True):
        if moved.setdefault(was, now) != now:  # of which question a part is cannot be told
            return ()
    if not finding.parts or any(p.within not in moved for p in finding.parts):
        return ()
    if finding.status == "unmet" and all(_inside(moved[w], w) for w in moved):
        return [finding]  # what lay beyond the margin lies beyond a tighter one
    return list(_judged(finding, moved))


def _judged(finding: Finding, moved: Mapping[Within, Within]) -> Iterator[Finding]:
    """A part whose bounds do not reach a margin is not beyond it (the bounds are at a level that is
    no stricter than Holm's). Looser margins leave all parts judged that were; which ones of the
    others are then, and which ones still are under tighter margins, the parts do not say."""
    parts = [(p, moved[p.within]) for p in finding.parts]
    tighter = any(not _inside(w, moved[w]) for w in moved)
    if any(_beyond(p, within) for p, within in parts):
        yield replace(finding, status="unmet", at_most="enforce")
    wide = [p for p, within in parts if not _clear(p, within)]
    if any(p.judged and _inside(p.within, moved[p.within]) for p in wide) or not wide:
        statuses: list[Status] = ["inconclusive" if wide else "met"]
    else:
        statuses = ["met", "inconclusive"]
    for status in statuses:
        yield replace(finding, status=status)
        if status == "inconclusive":  # where chance may leave it open it warns, for some tables
            if tighter and finding.at_most == "enforce":
                yield replace(finding, status=status, at_most="warn")
            if finding.at_most != "enforce":
                yield replace(finding, status=status, at_most="enforce")


def _utility(finding: Finding, before: Any, after: Any) -> Sequence[Finding]:
    if before.held_out != after.held_out:
        return ()
    if finding.value is None or finding.interval is None:
        return [finding]
    low, high = finding.interval
    if high <= after.utility_drop:
        return _all(finding, "met")
    if finding.status == "unmet" and after.utility_drop <= before.utility_drop:
        return [finding]
    if low > after.utility_drop:
        return _all(finding, "inconclusive", "unmet")
    return _all(finding, "inconclusive")


_MARGINS: Mapping[str, Callable[[Any], Sequence[Within]]] = {
    "marginals": lambda p: [(None, p.column_margin)],
    "pairs": lambda p: [(None, p.pair_margin), (None, p.worst_pair)],
    "tails": lambda p: [
        (p.tail_ratio, None),
        (None, p.tail_upper),
        (p.tail_ratio, p.tail_upper),
    ],
    "rare": lambda p: [
        (p.rare_mass, None),
        (None, p.rare_upper),
        (p.rare_level, 1 / p.rare_level),
    ],
}
"""The margins of each question's parts, in one order."""


def _inside(inner: Within, outer: Within) -> bool:
    (low, high), (least, most) = inner, outer
    return (low is None or least is None or low >= least) and (
        high is None or most is None or high <= most
    )


def _clear(part: Part, within: Within) -> bool:
    (low, high), (least, most) = part.interval, within
    return (least is None or low >= least) and (most is None or high <= most)


def _beyond(part: Part, within: Within) -> bool:
    (low, high), (least, most) = part.interval, within
    return (least is not None and high <= least) or (most is not None and low >= most)


# ---- privacy -------------------------------------------------------------------------------------


def privacy(finding: Finding, before: Any, after: Any) -> Sequence[Finding]:
    """Copies that are certainly too many are so at any margin; what has to be ruled out moves."""
    judged: Sequence[Finding] = [finding]
    if finding.check == "copies":
        judged = _copies(finding, before.copies, after.copies)
    elif finding.check == "near-copies":
        judged = _near_copies(finding, after.near_copies)
    elif finding.check == "membership":
        judged = _membership(finding, before, after)
    elif finding.check == "small-groups":
        same = (before.small_group, before.small_group_rows)
        judged = [finding] if same == (after.small_group, after.small_group_rows) else ()
    else:
        return ()
    return [one for f in judged for one in _capped(f, before, after)]


def _capped(finding: Finding, before: Any, after: Any) -> Iterator[Finding]:
    """By `leaks`. A membership test that cannot be had warns at most, whatever the policy says."""
    caps: Mapping[str, Severity] = {"allow": "audit", "warn": "warn", "refuse": "enforce"}
    if before.leaks == after.leaks:
        yield finding
        return
    yield replace(finding, at_most=caps[after.leaks])
    lost = finding.at_most == caps[before.leaks] != "enforce"  # whether it was milder by itself
    milder = finding.check == "membership" and finding.value is None
    if milder and (lost or finding.at_most == "warn"):
        least = min("warn", caps[after.leaks], key=_STRICT_LAST.index)
        yield replace(finding, at_most=least)


def _copies(finding: Finding, before: float, after: float) -> Sequence[Finding]:
    if before == after or finding.status == "unmet":
        return [finding]
    if finding.within is None or finding.interval is None:  # nothing that a margin is asked of
        return [finding]
    high, most = finding.interval[1], finding.within[1]
    if high <= after:
        return _all(finding, "met")
    # A quarter more than chance makes is allowed as well: known where it was more than the margin.
    if most is not None and high > max(after, most):
        return _all(finding, "inconclusive")
    return _all(finding, "met", "inconclusive")


def _near_copies(finding: Finding, after: float) -> Sequence[Finding]:
    if finding.status == "unmet" or finding.within is None or finding.interval is None:
        return [finding]
    return _all(finding, "met" if finding.interval[1] <= after else "inconclusive")


def _membership(finding: Finding, before: Any, after: Any) -> Sequence[Finding]:
    """Of an area that is not certainly too large the interval over all rows is known, and nothing
    of the tails' own, which may be too large for a tighter limit."""
    if before.held_out != after.held_out:
        return ()
    if finding.value is None or finding.interval is None or before.membership == after.membership:
        return [finding]
    tighter = after.membership < before.membership
    if finding.status == "unmet":
        return [finding] if tighter else ()
    wide: Status = "met" if finding.interval[1] <= after.membership else "inconclusive"
    return _all(finding, wide, "unmet") if tighter else _all(finding, wide)
