"""`safegen policy lint|schema|explain|list`. Loads no data library."""

from __future__ import annotations

import textwrap
from typing import Annotated

import typer

from safegen.cli.output import JsonOption, columns, say, show, show_json
from safegen.errors import PolicyError

app = typer.Typer(help="Policy files: check them, read them.", no_args_is_help=True)


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
    """Show every value of a policy: what it means, and which file and line set it."""
    from dataclasses import asdict

    from safegen.policy import Policy
    from safegen.policy import explain as explain_

    loaded = Policy.load(policy)
    rows = explain_(loaded, rule)
    if as_json:
        show_json([asdict(r) for r in rows])
        return 0
    show(f"{loaded.id} {loaded.version}, {loaded.digest}")
    for text in (loaded.description, f"ask: {loaded.contact}"):
        show(textwrap.fill(text, columns()))
    last = ""
    for r in rows:
        if r.rule != last:
            show(f"\n{r.rule}")
            last = r.rule
        unit = "" if r.unit == "choice" else f" {r.unit}"
        show(f"  {r.parameter} = {r.value}{unit}  ({r.origin})")
        order = f"from loose to tight: {r.tighter}" if "<" in r.tighter else r.tighter
        meaning = f"{r.doc} {order[:1].upper()}{order[1:]}." if order else r.doc
        show(textwrap.fill(meaning, columns(), initial_indent="      ", subsequent_indent="      "))
    return 0
