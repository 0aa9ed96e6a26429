"""`safegen demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from safegen.cli.output import paint, show, table


def add_to(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    data: Annotated[str | None, typer.Option("--data", help="Any table instead of Adult.")] = None,
    out: Annotated[
        str | None, typer.Option("--out", help="Where to put it. Default: a temporary folder.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", "-n", help="How many synthetic rows.")] = 10_000,
) -> int:
    """Show the whole story on real data: attest, fit, generate, verify, be refused."""
    from safegen.demo import run

    def facts(rows: list[tuple[str, str]]) -> None:
        show("")
        table(rows)
        show("")

    manifest, _ = run(
        data,
        out,
        rows,
        step=show,
        facts=facts,
        verdict=lambda decision: show("\n" + paint(decision)),
    )
    show(f"\nThat refusal was the point: {manifest.rows:,} synthetic rows stay out of training.")
    return 0
