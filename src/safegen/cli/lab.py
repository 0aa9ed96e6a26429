"""`safegen lab`: loops of generators, watched."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from safegen.cli.given import options
from safegen.cli.output import JsonOption, group, say, show, show_json, table

app = group("The collapse laboratory: loops of generators, watched.")


@app.command("list")
def list_() -> int:
    """List the experiments."""
    from safegen.lab import EXPERIMENTS

    table(EXPERIMENTS.items())
    return 0


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="Its name: see safegen lab list.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Its folder; a stopped run goes on.")],
    rows: Annotated[
        list[int] | None, typer.Option("--rows", "-n", help="Real rows; several times for several.")
    ] = None,
    depth: Annotated[int | None, typer.Option("--depth", help="Fits in a chain.")] = None,
    chains: Annotated[int | None, typer.Option("--chains", help="Loops of each arm.")] = None,
    arms: Annotated[str | None, typer.Option("--arms", help="Some arms only, A,B,….")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Real rows, for `table` and `image`.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="Its column of classes, which TSTR predicts.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option("--backend", "-b", help="Whose loops, for `table` and `image`.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="An option of the backend, name=value.")
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed")] = None,
    as_json: JsonOption = False,
) -> int:
    """Run an experiment, or go on with it; 0 when every check holds, else 1."""
    from safegen import lab

    given: dict[str, Any] = {
        "rows": rows,
        "depth": depth,
        "chains": chains,
        "arms": arms.split(",") if arms else None,
        "data": data,
        "target": target,
        "backend": backend,
        "options": options(settings) or None,
        "seed": seed,
    }
    result = lab.run(experiment, out, **{k: v for k, v in given.items() if v is not None})
    if as_json:
        show_json(
            {
                "held": result.held,
                "page": str(result.page),
                "checks": [vars(check) for check in result.checks],
            }
        )
        return 0 if result.held else 1
    for check in result.checks:
        sign = "✓" if check.held else "✗"
        show(f"{sign} {check.name}: {check.seen:.3g} ({check.expected})")
    say(f"page: {result.page}")
    return 0 if result.held else 1
