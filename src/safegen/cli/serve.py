"""`safegen serve`: the console."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from safegen.cli.output import LedgerOption, say, show
from safegen.errors import MissingExtra, UsageError

_VARIABLE = "SAFEGEN_CONSOLE_PASSWORD"
_LEAST = 12  # characters of a password that somebody chose


def add_to(app: typer.Typer) -> None:
    app.command()(serve)


def serve(
    ledger: LedgerOption = None,
    host: Annotated[
        str, typer.Option("--host", help="Where to listen. Beyond loopback all pages need a login.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 8321,
    policies: Annotated[
        str | None, typer.Option("--policies", help="The folder of your policy files.")
    ] = None,
    allow_edit: Annotated[
        bool,
        typer.Option(
            "--allow-edit", help="Let people who sign in save policy files into --policies."
        ),
    ] = False,
) -> int:
    """Show ledger and policies as a web page, until Ctrl-C. Read-only unless --allow-edit."""
    try:
        import uvicorn

        from safegen.console.app import console
        from safegen.console.guard import is_loopback
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("fastapi", "starlette", "uvicorn"):
            raise
        raise MissingExtra(
            "the console needs fastapi and uvicorn: pip install 'safegen[console]'"
        ) from None
    from safegen.ledger import open_ledger

    if policies is not None and not Path(policies).is_dir():
        raise UsageError(f"--policies: {policies} is no folder")
    if allow_edit and policies is None:
        raise UsageError("--allow-edit: name the folder of your policy files with --policies")
    password = _password() if allow_edit or not is_loopback(host) else None
    books = open_ledger(ledger, create=False)
    app = console(
        books,
        policies=None if policies is None else Path(policies),
        password=password,
        host=host,
        edit=allow_edit,
    )
    desk = app.state.desk
    desk.index.contents()  # now, and not while the first page is waited for
    desk.newest.last()
    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    show(f"http://{shown}:{listening.getsockname()[1]}/")
    sys.stdout.flush()
    if not is_loopback(host):
        say("safegen: others reach this, and nothing is encrypted: put a proxy with TLS before it")
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, proxy_headers=False
    )
    uvicorn.Server(settings).run(sockets=[listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Raises: UsageError where that cannot be."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UsageError(f"--host, --port: cannot listen at {host}:{port} ({reason})") from None


def _password() -> str:
    """The one of the environment; else one that is drawn, and shown here only."""
    given = os.environ.get(_VARIABLE)
    if given is None:
        drawn = secrets.token_urlsafe(18)
        say(f"safegen: the password of this run is {drawn}")
        return drawn
    if len(given) < _LEAST:
        raise UsageError(f"${_VARIABLE}: a password has at least {_LEAST} characters")
    return given
