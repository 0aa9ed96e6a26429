"""`index.html` of an evidence folder: what it says, for people who do not program."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, time, timedelta
from itertools import groupby

from safegen.evidence.index import DatasetEntry, Index
from safegen.evidence.telling import MOST_SHOWN, Decided
from safegen.pages.html import breaking, document, facts, section, sign, table, text, wide
from safegen.pages.story import banner
from safegen.policy.controls import NOTICE, controls_table
from safegen.policy.matrix import Cell, Last

__all__ = ["page"]

_SECTIONS = (
    ("check", "How to check"),
    ("missing", "What is missing"),
    ("datasets", "Datasets"),
    ("made", "Made from it"),
    ("decisions", "Decisions"),
    ("policies", "Policies"),
    ("waivers", "Waivers"),
    ("controls", "Controls"),
    ("words", "Words"),
)
_WORDS = {
    "dataset": "Rows that somebody attested or that safegen released, with an id of 26 letters and "
    "digits.",
    "manifest": "The statement about a dataset: what it is, what it was made from, what was "
    "measured. It names each file by its digest.",
    "digest": "A number computed from bytes. Other bytes have another digest: whoever has it "
    "notices each change.",
    "ledger": "The book of what was attested, decided and released. Each entry holds the digest of "
    "the one before, so that none can be changed or taken out of the middle unnoticed.",
    "origin": "Whether rows are real, synthetic, mixed, or unknown. “attested”: a named person "
    "stated it. “unverified”: somewhere behind it nobody did.",
    "depth": "How many models stand between a row and reality: 0 for real rows, 1 for rows of a "
    "model that learned from real ones.",
    "policy, rule": "What the organisation demands, and one demand of it. A rule is off, audit "
    "(recorded), warn, or enforce (refused where unmet).",
    "decision, gate": "The verdict of a policy: at admission, before data are learned from; at "
    "release, before rows go out.",
    "waiver": "A dated exception to a rule, with reason and names.",
    "withdrawn": "Not to be used any more, nor what was made from it.",
}
_MET = {
    "pass": "met",
    "audit": "not met or open, recorded only",
    "warn": "not met or open, with a warning",
    "waived": "not met, waived",
    "block": "not met, refused",
    "applied": "applied",
}
_FINDS = (
    "any file that was changed, added or taken away; an entry of the log that was edited, or left "
    "out where entries follow each other; a manifest or a policy that is not the one that the log "
    "names; a signature that does not hold"
)
_LEFT_OUT = "a decision about this dataset that was left out when the folder was made; "
_CANNOT_FIND = (
    "what never reached the ledger; an organisation that rewrites its whole ledger and signs anew. "
    "Compare the head below with one that you were given earlier"
)


def page(index: Index, decisions: Sequence[Decided], cells: Sequence[Cell]) -> str:
    """The page. decisions: the newest ones, in the order of the log."""
    sections = (
        _check(index)
        + _missing(index)
        + _datasets(index)
        + _made(index)
        + _decisions(index, decisions)
        + _policies(index)
        + _waivers(index)
        + _controls(cells)
        + section("words", "Words", facts((k, text(v)) for k, v in _WORDS.items()))
        + f"<footer>Written by safegen {text(index.safegen)} on {_moment(index.created)}.</footer>"
    )
    links = [(id_, name) for id_, name in _SECTIONS if f'<section id="{id_}"' in sections]
    head = (
        f"<h1>Evidence: {_about(index)}</h1>"
        f'<p class="lead">What the ledger {_code(index.ledger.ledger_id[:16])} knows of it, up to '
        f"its entry {index.ledger.log_entries:,}. Collected on {_moment(index.created)}.</p>"
        + _standing(index)
        + _tiles(index)
    )
    named = index.about.get("dataset") or " to ".join(_days(index))
    return document(f"safegen: evidence, {named}", head, sections, links)


def _days(index: Index) -> tuple[str, str]:
    """The time that was asked for, as people say it: a day counts whole."""
    since, until = str(index.about["since"]), index.about["until"]
    if until is None:
        return _short(since), f"{index.created[:16].replace('T', ' ')} UTC"
    last = datetime.fromisoformat(until)
    if last.time() == time():
        return _short(since), (last - timedelta(days=1)).date().isoformat()
    return _short(since), _short(until)


def _short(moment: str) -> str:
    when = datetime.fromisoformat(moment)
    return when.date().isoformat() if when.time() == time() else f"{when:%Y-%m-%d %H:%M} UTC"


def _moment(moment: str) -> str:
    return f"{_whole(moment[:16].replace('T', ' '))} UTC"


def _whole(value: str) -> str:
    """Text that is not broken."""
    return f'<span style="white-space:nowrap">{text(value)}</span>'


def _about(index: Index) -> str:
    if "dataset" in index.about:
        return f'dataset <span class="id">{text(index.about["dataset"])}</span>'
    since, until = _days(index)
    return f"{_whole(since)} to {_whole(until)}"


def _standing(index: Index) -> str:
    said = ""
    if index.real_values:
        listed = "".join(f"<li>{text(one)}</li>" for one in index.real_values)
        said += banner(
            "warn",
            "Real values may be in this folder: treat it as you treat the data",
            f"<p>A policy allowed it:</p><ul>{listed}</ul>",
        )
    if index.signed_by is None:
        return said + banner(
            "warn",
            "UNSIGNED",
            "<p>Nobody vouches for this folder. Its digests show accidents and careless edits; "
            "whoever rewrites all of it together is noticed by the ledger only.</p>",
        )
    return said + banner(
        "pass",
        "Signed",
        f"<p>By the key {_code(index.signed_by)}. That this page says so proves nothing: the check "
        "below does, with the public key that you got from its owner.</p>",
    )


def _tiles(index: Index) -> str:
    asked = sum(d.asked for d in index.datasets)
    gone = sum(d.withdrawn is not None for d in index.datasets)
    tiles = [
        (asked, "dataset" + "s" * (asked != 1) + " asked for"),
        (len(index.datasets) - asked, "more that they were made from"),
        (index.ledger.decisions, f"decisions, {index.ledger.refused:,} of them refusals"),
        (len({str(w.get("id")) for w in index.waivers}), "waivers"),
        (gone, "datasets withdrawn"),
        (len(index.missing), "remarks on what is missing"),
    ]
    shown = "".join(f'<div class="tile"><b>{n:,}</b><span>{text(t)}</span></div>' for n, t in tiles)
    return f'<div class="tiles">{shown}</div>'


def _check(index: Index) -> str:
    trusted = " --trusted-key KEY.pub" if index.signed_by else ""
    rows = [
        ("what it finds", text(_FINDS)),
        ("what it cannot find", text(_LEFT_OUT * ("dataset" in index.about) + _CANNOT_FIND)),
        ("head of the log", f"entry {index.ledger.log_entries:,}, {_code(index.ledger.head)}"),
        (
            "files",
            "<a href='evidence.json'>evidence.json</a> names every file with its digest; "
            "<a href='log.jsonl'>log.jsonl</a> has the log's entries",
        ),
    ]
    command = f"safegen evidence --verify FOLDER{trusted}"
    return section(
        "check",
        "How to check this folder",
        f"<pre>{text(command)}</pre>",
        facts(rows),
        lead="Somebody who has safegen can check it, without the ledger and without a network. The "
        "command answers VERIFIED, or lists what is wrong.",
    )


def _missing(index: Index) -> str:
    if not index.missing:
        return section("missing", "What is missing", "<p>Nothing that the ledger speaks of.</p>")
    listed = "".join(f"<li>{text(one)}</li>" for one in index.missing[:MOST_SHOWN])
    return section(
        "missing",
        "What is missing",
        f"<ul>{listed}</ul>",
        lead="What an auditor would want and the folder does not have.",
    )


def _datasets(index: Index) -> str:
    # Those asked for come first in the index, the newest last.
    asked = [d for d in index.datasets if d.asked][-MOST_SHOWN:]
    others = [d for d in index.datasets if not d.asked][:MOST_SHOWN]
    heads = ("dataset", "what it is", "rows", "created", "signature", "documents")
    body = "".join(
        wide(caption, table(caption, heads, map(_dataset, rows)))
        for caption, rows in (("Asked for", asked), ("Made from these", others))
        if rows
    )
    left = len(index.datasets) - len(asked) - len(others)
    return section("datasets", "Datasets", body, _left(left))


def _left(left: int) -> str:
    return f'<p class="note">and {left:,} more: evidence.json has all</p>' if left > 0 else ""


def _dataset(one: DatasetEntry) -> Sequence[str]:
    what = f"{text(one.origin)}, {text(one.ancestry)}, depth {one.depth}; {text(one.statement)}"
    if one.claimed:
        what += "<br>" + sign("warn", "a claim of another ledger")
    if one.withdrawn:
        what += f"<br>{sign('block', 'withdrawn')} {text(one.withdrawn)}"
    signature = sign("audit", "not signed")
    if one.keys:
        signature = sign("pass", "signed") if one.envelope else sign("warn", "signed; not here")
    documents = [f'<a href="manifests/{one.dataset_id}.json">manifest</a>']
    if one.report:
        documents.insert(0, f'<a href="reports/{one.dataset_id}.html">report</a>')
        documents.append(text(f"({one.report})"))
    return (
        f'<span class="id">{text(one.dataset_id)}</span>',
        what,
        f"{one.rows:,}",
        _whole(one.created[:10]),
        signature,
        " ".join(documents),
    )


def _made(index: Index) -> str:
    if "dataset" not in index.about:
        return ""
    listed = "".join(f'<li class="id">{text(d)}</li>' for d in index.descendants[:MOST_SHOWN])
    said = f"<ul>{listed}</ul>" if listed else "<p>Nothing, as far as the ledger knows.</p>"
    return section(
        "made",
        "What was made from it",
        said,
        _left(len(index.descendants) - MOST_SHOWN),
        lead="Datasets further down, which are not in this folder.",
    )


def _decisions(index: Index, decisions: Sequence[Decided]) -> str:
    rows = (
        (
            f"{one.entry:,}",
            text(one.time[:16].replace("T", " ")),
            sign("pass", "allowed") if one.allowed else sign("block", "refused"),
            text(one.gate),
            text(one.policy),
            "<br>".join(text(s) for s in one.subject) + _why(one),
        )
        for one in reversed(decisions)
    )
    heads = ("entry", "when", "verdict", "gate", "policy", "about, and what refused or warned")
    return section(
        "decisions",
        "Decisions",
        wide("Decisions", table("", heads, rows, "num")) if decisions else "<p>None.</p>",
        _left(index.ledger.decisions - len(decisions)),
        lead="Every verdict of a policy on these data, the newest first. Times are in UTC.",
    )


def _why(one: Decided) -> str:
    listed = "".join(
        f"<li>{sign(outcome if outcome in ('block', 'warn') else 'audit', _said(outcome))} "
        f"{breaking(name)}: {text(observed)} <small>(required: {text(required)})</small></li>"
        for name, outcome, observed, required in one.why
    )
    return f"<ul>{listed}</ul>" if listed else ""


def _said(outcome: str) -> str:
    return {"block": "refused", "warn": "warning"}.get(outcome, outcome)


def _policies(index: Index) -> str:
    rows = []
    for one in index.policies:
        where = "nobody has recorded it"
        if one.found is not None:
            name = one.digest.removeprefix("sha256:")
            source = "comes with safegen" if one.found == "shipped" else f"log entry {one.found:,}"
            where = f'<a href="policies/{text(name)}.json">as it was</a> ({source})'
        rows.append(
            (
                f"{text(one.id)} {text(one.version)}",
                f"{one.decisions:,}",
                where,
                _code(one.digest),
            )
        )
    body = wide("Policies", table("", ("policy", "decisions", "text", "digest"), rows))
    return section(
        "policies",
        "Policies as they were",
        body if rows else "<p>None.</p>",
        lead="With every default in place. A file's digest is the one that decisions name.",
    )


def _waivers(index: Index) -> str:
    shown = index.waivers[-MOST_SHOWN:]
    rows = (
        (
            text(w.get("id", "?")),
            text(w.get("status", "")),
            text(w.get("rule", "")),
            _whole(str(w.get("expires", ""))),
            text(w.get("signed", "")),
            text(w.get("requested_by", "")),
            text(_names(w.get("approved_by"))),
            text(" ".join(str(w[k]) for k in ("ticket", "reason") if w.get(k))),
            f"{w['entry']:,}",
        )
        for w in reversed(shown)
    )
    heads = (
        "waiver",
        "status",
        "rule",
        "until",
        "signed",
        "asked for by",
        "approved by",
        "why",
        "entry",
    )
    return section(
        "waivers",
        "Waivers",
        wide("Waivers", table("", heads, rows)) if shown else "<p>None.</p>",
        _left(len(index.waivers) - len(shown)),
        lead="Exceptions in the policies of these decisions, and what became of each.",
    )


def _names(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "")


def _controls(cells: Iterable[Cell]) -> str:
    full = controls_table().frameworks
    body = ""
    for framework, of in groupby(cells, lambda c: c.control.framework):
        rows = []
        for _, entries in groupby(of, lambda c: c.control.clause):
            listed = list(entries)
            one = listed[0].control
            doubt = sign("warn", "unverified") + "<br>" if one.check else ""
            gap = sign("warn", "nothing here speaks of it") if listed[0].gap else ""
            rows.append(
                (
                    f"<b>{text(one.clause)}</b>{doubt}<small>{text(one.asks)}</small>",
                    gap + "".join(f"<div>{_answer(c)}</div>" for c in listed),
                )
            )
        heads = (
            "clause, and what it asks",
            "rule, what it contributes, and its last evidence here",
        )
        body += table(full[framework], heads, rows, "passed")
    return section("controls", "Controls", body, lead=text(NOTICE))


def _answer(cell: Cell) -> str:
    last = f"<small>{_last(cell.last)}</small>" if cell.last else "<small>no evidence here</small>"
    how = "" if cell.control.sure == "direct" else " (in part)"
    return f"<b>{text(cell.control.rule)}</b>{how}: {text(cell.control.gives)} {last}"


def _last(last: Last) -> str:
    verdict = "allowed" if last.allowed else "refused"
    at = f" ({last.severity})" if last.severity else ""
    shown = last.severity is not None or last.outcome == "applied"
    said = f"{_MET.get(last.outcome, last.outcome)}{at}, " if shown else ""
    return text(
        f"[{said}{last.gate} {verdict} by {last.policy} {last.version} on {last.time[:10]}, entry "
        f"{last.entry:,}]"
    )


def _code(value: str) -> str:
    return f"<code>{text(value)}</code>"
