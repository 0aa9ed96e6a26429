"""The command line: arguments → API → exit code.

0 done, admitted, verified · 1 failed · 2 wrong use · 3 refused by policy · 4 not verified
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from safegen.cli import data, demo, generate, keys, ledger, policy
from safegen.cli.output import fail

__all__ = ["app", "main"]

app = typer.Typer(
    name="safegen",
    help="Synthetic data that does not eat itself: generate, verify, check, trace.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def _root(
    debug: Annotated[
        bool,
        typer.Option(
            "--debug",
            help="Show upstream errors and tracebacks. Real values may appear in them.",
        ),
    ] = False,
) -> None:
    if debug:
        os.environ["SAFEGEN_DEBUG"] = "1"


for module in (generate, data, keys, demo):
    module.add_to(app)
app.add_typer(policy.app, name="policy")
app.add_typer(ledger.app, name="ledger")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    import click

    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" in arguments:  # wherever it stands
        arguments = ["--debug", *(a for a in arguments if a != "--debug")]
    try:
        code = app(args=arguments, standalone_mode=False)
    except click.exceptions.Abort:
        code = fail(KeyboardInterrupt())
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except BaseException as error:
        code = fail(error)
    sys.exit(code if isinstance(code, int) else 0)
