"""The command line: arguments → API → exit code.

0 done, admitted, verified · 1 failed · 2 wrong use · 3 refused by policy · 4 not verified
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated

import typer

from safegen.cli import (
    backends,
    cases,
    controls,
    data,
    demo,
    evidence,
    generate,
    keys,
    lab,
    ledger,
    policy,
    replay,
    report,
    serve,
    waivers,
)
from safegen.cli.output import fail, group, say

__all__ = ["app", "main"]

app = group(
    "Synthetic data that does not eat itself: generate, verify, check, trace.",
    name="safegen",
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


for module in (generate, data, report, evidence, keys, backends, demo, serve):
    module.add_to(app)
for module in (cases, controls, replay, waivers):
    module.add_to(policy.app)
app.add_typer(policy.app, name="policy")
app.add_typer(ledger.app, name="ledger")
app.add_typer(lab.app, name="lab")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    if arguments is None and not sys.warnoptions:
        warnings.simplefilter("ignore")  # a library's warning may quote values of the data
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a sign is no failure
    log = logging.getLogger("safegen")
    if not log.handlers:
        log.addHandler(_Say())
        log.setLevel(logging.INFO)
    words = list(sys.argv[1:] if arguments is None else arguments)
    before = os.environ.get("SAFEGEN_DEBUG")
    if "--debug" in words:  # wherever it stands
        words = ["--debug", *(w for w in words if w != "--debug")]
    try:
        code = app(args=words, prog_name="safegen", standalone_mode=False)
        if code == 130:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        sys.stdout.flush()
    except BaseException as error:
        code = fail(error, as_json="--json" in words)
    finally:
        if before is None:
            os.environ.pop("SAFEGEN_DEBUG", None)
        else:
            os.environ["SAFEGEN_DEBUG"] = before
    sys.exit(code if isinstance(code, int) else 0)


class _Say(logging.Handler):
    """What safegen logs (progress, every 30 s) as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"safegen: {record.getMessage()}")
