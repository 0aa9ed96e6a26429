"""`safegen policy lint|schema|explain|diff|list`. Loads no data library."""

from __future__ import annotations

import textwrap
from collections import Counter
from typing import Annotated, Any

import typer

from safegen.cli.output import JsonOption, columns, group, say, show, show_json
from safegen.errors import PolicyError

app = group("Policy files: check them, read them.")


@app.command("list")
def list_(as_json: JsonOption = False) -> int:
    """List the shipped policies."""
    from safegen.cli.output import table
    from safegen.policy import Policy

    policies = [Policy.load(name) for name in Policy.shipped()]
    if as_json:
        show_json([{"id": p.id, "version": p.version, "digest": p.digest} for p in policies])
    else:
        table((p.id, f"{p.version}  {p.description}") for p in policies)
    return 0


@app.command()
def lint(
    files: Annotated[list[str], typer.Argument(help="Policy files, or shipped names.")],
    as_json: JsonOption = False,
) -> int:
    """Find everything that is wrong with policy files: exit code 0, or 2."""
    from safegen.policy import Note
    from safegen.policy import lint as lint_

    found = lint_(files)
    wrong = [p for p in found if not isinstance(p, Note)]
    if as_json:
        show_json(
            [
                {
                    "file": p.file,
                    "line": p.line,
                    "message": p.message,
                    "level": "note" if isinstance(p, Note) else "error",
                }
                for p in found
            ]
        )
    for problem in found:
        if isinstance(problem, Note) and not as_json:
            say(str(problem))
    if wrong:
        raise PolicyError(wrong)
    if not as_json:
        show(f"{len(files)} {'policy' if len(files) == 1 else 'policies'}, no problems")
    return 0


@app.command()
def schema() -> int:
    """Print the JSON Schema of policy files (2020-12)."""
    from safegen.policy import json_schema

    show_json(json_schema())
    return 0


@app.command()
def explain(
    policy: Annotated[str, typer.Argument(help="A policy file, or a shipped name.")],
    rule: Annotated[str | None, typer.Option("--rule", help="One rule only.")] = None,
    as_json: JsonOption = False,
) -> int:
    """Show every value of a policy as it is in force here, tightened to what the organisation pins:
    what it means, which file and line set it, and which clauses its rule serves."""
    from dataclasses import asdict

    from safegen.policy import Policy, in_force
    from safegen.policy import explain as explain_

    loaded = in_force(Policy.load(policy))
    rows = explain_(loaded, rule)
    if as_json:
        show_json([asdict(r) for r in rows])
        return 0
    show(f"{loaded.id} {loaded.version}, {loaded.digest}")
    for text in (loaded.description, f"ask: {loaded.contact}"):
        show(textwrap.fill(text, columns()))
    for above in loaded.extends:
        show(f"extends {above.id} {above.version}, {above.digest}")
    if loaded.locked:
        show(textwrap.fill(f"locked: {', '.join(loaded.locked)}", columns()))
    last = ""
    for r in rows:
        if r.rule != last:
            show(f"\n{r.rule}")
            if r.controls:
                serves = f"serves: {'; '.join(r.controls)}"
                show(
                    textwrap.fill(serves, columns(), initial_indent="  ", subsequent_indent="    ")
                )
            last = r.rule
        unit = "" if r.unit == "choice" else f" {r.unit}"
        show(f"  {r.parameter} = {r.value}{unit}  ({r.origin})")
        order = f"from loose to tight: {r.tighter}" if "<" in r.tighter else r.tighter
        meaning = f"{r.doc} {order[:1].upper()}{order[1:]}." if order else r.doc
        show(textwrap.fill(meaning, columns(), initial_indent="      ", subsequent_indent="      "))
    return 0


@app.command()
def diff(
    old: Annotated[str, typer.Argument(help="A policy file, or a shipped name.")],
    new: Annotated[str, typer.Argument(help="What it is to become.")],
    as_json: JsonOption = False,
) -> int:
    """Say what a change of a policy tightens and loosens: exit code 3 when anything is loosened."""
    from dataclasses import asdict

    from safegen.cli.output import table
    from safegen.policy import Policy
    from safegen.policy import diff as diff_

    found = diff_(Policy.load(old), Policy.load(new))
    counts = Counter[str](d.change for d in found)
    if as_json:
        show_json([asdict(d) for d in found])
    else:
        table(
            (d.change, f"{d.where}: {_value(d.before)} → {_value(d.after)}{_at(d)}") for d in found
        )
        words = {"LOOSEN": "loosened", "TIGHTEN": "tightened", "INCOMPARABLE": "not comparable"}
        told = [f"{counts[change]} {word}" for change, word in words.items() if counts[change]]
        show(", ".join(told) or "SAME: both ask the same")
    return 3 if counts["LOOSEN"] else 0


def _value(value: Any) -> str:
    if isinstance(value, dict):  # a waiver
        return f"{value['rule']} lowered until {value['expires']}"
    return "none" if value is None else str(value)


def _at(difference: Any) -> str:
    return "" if difference.origin == "default" else f"  ({difference.origin})"
