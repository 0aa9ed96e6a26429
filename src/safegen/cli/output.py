"""How the command line speaks: results on stdout, everything else on stderr, never a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from safegen.errors import Refused, SafegenError, UsageError, debugging, upstream

if TYPE_CHECKING:
    from safegen.decision import Decision

__all__ = [
    "columns",
    "fail",
    "group",
    "say",
    "show",
    "show_decision",
    "show_json",
    "styled",
    "table",
]

_WRAP: Any = {"break_long_words": False, "break_on_hyphens": False}

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
TrustedKeysOption = Annotated[
    list[str] | None,
    typer.Option("--trusted-key", help="A public key that must have signed it. Repeatable."),
]
SourcesArgument = Annotated[
    list[str], typer.Argument(help="Data files or folders; NAME=PATH for related tables.")
]


class Commands(TyperGroup):
    """Commands that a help page lists with the whole line that says what each is for."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        found = [self.get_command(ctx, name) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(c.name, c.get_short_help_str(1_000)) for c in found if c])


def group(said: str, **options: Any) -> typer.Typer:
    """A group of commands, and what it is for. Its help is plain text: what draws boxes takes
    longer to load than all else."""
    return typer.Typer(
        help=said, cls=Commands, no_args_is_help=True, rich_markup_mode=None, **options
    )


def say(text: str) -> None:
    """A line for the person in front of it, wrapped on a terminal."""
    if sys.stderr.isatty():
        wrapped = [
            textwrap.fill(line, columns(), subsequent_indent="  ", **_WRAP)
            for line in text.splitlines()
        ]
        text = "\n".join(wrapped)
    sys.stderr.write(text + "\n")


def show(text: str) -> None:
    """The result."""
    sys.stdout.write(text + "\n")


def show_json(document: Any) -> None:
    """One JSON document; in ASCII where stdout is not in UTF-8."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    show(json.dumps(document, indent=2, ensure_ascii=not utf8, default=_plain))


def _plain(value: Any) -> Any:
    """A part of a policy's value, such as a named stratum, as JSON values."""
    return value.model_dump(mode="json")


def columns() -> int:
    """How wide lines are to be: as the terminal is, and readable; 100 when piped."""
    return max(40, min(shutil.get_terminal_size((100, 24)).columns, 120))


def show_decision(decision: Decision, as_json: bool) -> int:
    """Print a decision as the result; the exit code is 0 or 3."""
    if as_json:
        show_json(decision.to_json())
    else:
        show(paint(decision))
    return 0 if decision.allowed else 3


def paint(decision: Decision) -> str:
    """A decision's text, coloured on a terminal."""
    text = decision.to_text(min(columns(), 96))
    return "\n".join(styled(line, _style(line.strip())) for line in text.splitlines())


def _style(line: str) -> str:
    if line.startswith(("REFUSED", "✗")):
        return "1;31"  # bold red
    if line.startswith(("ADMITTED", "RELEASED", "✓")):
        return "32"  # green
    return "33" if line.startswith("! ") else ""  # yellow


def styled(text: str, style: str) -> str:
    """Text in an ANSI style, on a terminal that shows it."""
    plain = not style or not text or not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR"))
    return text if plain else f"\x1b[{style}m{text}\x1b[0m"


def table(rows: Iterable[tuple[str, str]]) -> None:
    """Print (name, text) rows, aligned; a digest or a path is never cut."""
    rows = [(printable(name), printable(text)) for name, text in rows]
    pad = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        lines = textwrap.wrap(text, max(columns() - pad - 2, 30), **_WRAP) or [""]
        for head, line in zip([name, *[""] * (len(lines) - 1)], lines, strict=True):
            show(f"{styled(head, '1')}{' ' * (pad - len(head))}  {line}".rstrip())


def printable(text: str) -> str:
    """Text without control characters, which a column's name may hold."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def fail(error: BaseException, as_json: bool = False) -> int:
    """Say on stderr what went wrong, in one paragraph; the exit code of the contract."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, BrokenPipeError):  # the reader went away: `safegen … | head`
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if debugging():
        import traceback

        traceback.print_exception(error)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        say("safegen: stopped; nothing was published")
        return 130
    if isinstance(error, Refused):
        if as_json:
            show_json(error.decision.to_json())
        say(error.decision.to_text(min(columns(), 96)))
        return error.exit_code
    if isinstance(error, SafegenError):
        say(f"safegen: {error}")
        return error.exit_code
    if hasattr(error, "format_message") and hasattr(error, "ctx"):
        return _misused(error)
    if isinstance(error, MemoryError):
        say("safegen: out of memory; ask for fewer rows at once, or use fewer --workers")
        return 1
    say(
        f"safegen: failed with {upstream(error)}. This is a fault of safegen or of a library under "
        "it; run again with --debug to see it in full (real values may appear)"
    )
    return 1


def _misused(error: Any) -> int:
    """Wrong arguments, as click says it: typer brings its own copy of click, or takes the other."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return 2
    message = " ".join(error.format_message().split()).rstrip(".")
    command = error.ctx.command_path if error.ctx is not None else "safegen"
    say(f"safegen: {message}; `{command} --help` lists what there is")
    return 2


def parse_sources(sources: list[str]) -> list[Any]:
    """Paths as given; NAME=PATH arguments together make one source of related tables."""
    from pathlib import Path

    named: dict[str, str] = {}
    plain: list[Any] = []
    for text in sources:
        name, sign, path = text.partition("=")
        if sign and name.isidentifier() and not Path(text).exists():
            if name in named:
                raise UsageError(f"table {name} is named twice; each table has one source")
            named[name] = path
        else:
            plain.append(text)
    return [*plain, named] if named else plain
