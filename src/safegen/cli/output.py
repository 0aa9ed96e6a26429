"""How the command line speaks: results on stdout, everything else on stderr, never a traceback."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.errors import Refused, SafegenError, debugging, upstream

if TYPE_CHECKING:
    from safegen.decision import Decision

__all__ = ["fail", "say", "show", "show_decision", "show_json", "table"]

# Options that several commands share, said once.
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else.")
]
LedgerOption = Annotated[
    str | None,
    typer.Option(
        "--ledger", help="The ledger's path or URL. Default: $SAFEGEN_LEDGER, else the user's own."
    ),
]
PolicyOption = Annotated[
    str, typer.Option("--policy", "-p", help="A shipped policy's name, or the path of a file.")
]
KeyOption = Annotated[
    str | None, typer.Option("--key", help="An Ed25519 private key to sign with (safegen key new).")
]
SourcesArgument = Annotated[
    list[str], typer.Argument(help="Data files or folders; NAME=PATH for related tables.")
]


def say(text: str) -> None:
    """A line for the person in front of it."""
    sys.stderr.write(text + "\n")


def show(text: str) -> None:
    """The result."""
    sys.stdout.write(text + "\n")


def show_json(document: Any) -> None:
    show(json.dumps(document, indent=2, ensure_ascii=False))


def show_decision(decision: Decision, as_json: bool) -> int:
    """Print a decision as the result; the exit code is 0 or 3."""
    if as_json:
        show_json(decision.to_json())
    else:
        show(paint(decision.to_text()))
    return 0 if decision.allowed else 3


def paint(text: str) -> str:
    """Colour a decision's text on a terminal."""
    if not sys.stdout.isatty():
        return text
    from io import StringIO

    from rich.console import Console
    from rich.text import Text

    buffer = StringIO()
    console = Console(file=buffer, force_terminal=True, width=200, highlight=False)
    for line in text.splitlines():
        bare = line.strip()
        style = ""
        if bare.startswith(("REFUSED", "✗")):
            style = "bold red"
        elif bare.startswith(("ADMITTED", "RELEASED", "✓")):
            style = "green"
        elif bare.startswith("!"):
            style = "yellow"
        console.print(Text(line, style=style), soft_wrap=True)
    return buffer.getvalue().rstrip("\n")


def table(rows: Iterable[tuple[str, str]]) -> None:
    """Print (name, text) rows as an aligned table."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in rows:
        grid.add_row(_plain(name), _plain(text))
    width = None if sys.stdout.isatty() else 110
    Console(width=width, highlight=False, markup=False).print(grid)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)


def fail(error: BaseException) -> int:
    """Say on stderr what went wrong, in one paragraph; the exit code of the contract."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if debugging():
        import traceback

        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt):
        say("safegen: stopped; nothing was published")
        return 130
    if isinstance(error, Refused):
        if "--json" in sys.argv:
            show_json(error.decision.to_json())
        say(str(error))
        return error.exit_code
    if isinstance(error, SafegenError):
        say(f"safegen: {error}")
        return error.exit_code
    if isinstance(error, BrokenPipeError):
        return 1
    if isinstance(error, MemoryError):
        say("safegen: out of memory; ask for fewer rows at once, or use fewer --workers")
        return 1
    say(
        f"safegen: failed with {upstream(error)}. This is a fault of safegen or of a library under "
        "it; run again with --debug to see it in full (real values may appear)"
    )
    return 1


def parse_sources(sources: list[str]) -> list[Any]:
    """Paths as given; NAME=PATH arguments together make one source of related tables."""
    from pathlib import Path

    named = {}
    plain: list[Any] = []
    for text in sources:
        name, sign, path = text.partition("=")
        if sign and name.isidentifier() and not Path(text).exists():
            named[name] = path
        else:
            plain.append(text)
    return [*plain, named] if named else plain
