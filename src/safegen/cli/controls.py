"""`safegen policy controls`: which clauses rules serve, and the last evidence for each."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli.output import JsonOption, LedgerOption, columns, show, show_json, styled
from safegen.errors import UsageError

if TYPE_CHECKING:
    from safegen.policy import Policy
    from safegen.policy.controls import Control
    from safegen.policy.matrix import Cell


def add_to(app: typer.Typer) -> None:
    app.command()(controls)


def controls(
    with_matrix: Annotated[
        bool, typer.Option("--matrix", help="With the last evidence that a ledger has for each.")
    ] = False,
    framework: Annotated[
        str | None, typer.Option("--framework", help="One only, such as eu-ai-act.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option("--policy", "-p", help="Show which clauses no active rule of it serves."),
    ] = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show which clauses of laws and standards each rule serves. No legal advice."""
    from safegen.policy.controls import NOTICE, controls_table

    if policy is not None and not with_matrix:
        raise UsageError("--policy shows gaps in the matrix: add --matrix")
    table = controls_table()
    wanted = table.of(framework)
    if not with_matrix:
        if as_json:
            show_json(table.to_json(framework))
            return 0
        _head(f"controls {table.version} of {table.date}", NOTICE)
        _clauses(wanted, table.frameworks)
        return 0
    cells, about, active = _matrix(wanted, ledger, policy)
    if as_json:
        told = [{**asdict(c), **asdict(c.control)} for c in cells]
        for one in told:
            del one["control"]
        head = {"version": table.version, "date": table.date, "notice": NOTICE}
        digest = active.digest if active is not None else None
        show_json({**head, "ledger": about, "policy": digest, "cells": told})
        return 0
    under = f", gaps of {active.id} {active.version}" if active is not None else ""
    _head(f"controls {table.version} of {table.date}; evidence in {about['url']}{under}", NOTICE)
    _cells(cells, table.frameworks)
    return 0


def _matrix(
    wanted: Iterable[Control], ledger: str | None, policy: str | None
) -> tuple[list[Cell], dict[str, Any], Policy | None]:
    from safegen.evidence.policies import POLICY, recorded, shipped_policies
    from safegen.ledger import open_ledger
    from safegen.policy import Policy, in_force
    from safegen.policy.matrix import Trail, matrix

    active = in_force(Policy.load(policy)) if policy is not None else None
    books = open_ledger(ledger, create=False)
    known = {**shipped_policies(), **recorded(books.log(kind=POLICY))}
    trail = Trail({digest: found.policy for digest, found in known.items()})
    for entry in books.log(kind="decision"):
        trail.told(entry)
    state = books.state()
    about = {k: state[k] for k in ("url", "ledger_id", "log_entries", "head")}
    return matrix(wanted, trail.last, active), about, active


def _head(title: str, notice: str) -> None:
    show(title)
    show(textwrap.fill(notice, columns()))


def _clauses(wanted: Iterable[Control], frameworks: Any) -> None:
    for framework, of in groupby(wanted, lambda c: c.framework):
        show(f"\n{styled(frameworks[framework], '1')} ({framework})")
        for _, entries in groupby(of, lambda c: c.clause):
            listed = list(entries)
            _clause(listed[0])
            for one in listed:
                _line(f"{one.rule} ({one.sure})", one.gives)


def _cells(cells: Iterable[Cell], frameworks: Any) -> None:
    for framework, of in groupby(cells, lambda c: c.control.framework):
        show(f"\n{styled(frameworks[framework], '1')} ({framework})")
        for _, entries in groupby(of, lambda c: c.control.clause):
            listed = list(entries)
            _clause(listed[0].control)
            if listed[0].gap:
                show(textwrap.fill(f"GAP: {listed[0].gap}", columns(), initial_indent="    ! "))
            for one in listed:
                _line(f"{one.control.rule} ({one.control.sure})", _evidence(one))


def _evidence(cell: Cell) -> str:
    off = "off; " if cell.active is False else ""
    last = cell.last
    if last is None:
        return f"{off}no evidence yet"
    severity = f" at {last.severity}" if last.severity else ""
    verdict = "allowed" if last.allowed else "REFUSED"
    return (
        f"{off}{last.time[:10]} {last.outcome}{severity} under {last.policy} {last.version} "
        f"({last.gate}, {verdict}, log entry {last.entry})"
    )


def _clause(control: Control) -> None:
    doubt = " [unverified]" if control.check else ""
    text = f"{control.clause}{doubt}: {control.asks}"
    show(textwrap.fill(text, columns(), initial_indent="  ", subsequent_indent="    "))


def _line(name: str, text: str) -> None:
    head = f"      {name:<22} "
    show(textwrap.fill(text, columns(), initial_indent=head, subsequent_indent=" " * len(head)))
