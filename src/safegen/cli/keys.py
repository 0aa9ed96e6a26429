"""`safegen key new` and `safegen key show`."""

from __future__ import annotations

from typing import Annotated

import typer

from safegen.cli.output import show

keys = typer.Typer(help="Signing keys.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(keys, name="key")


@keys.command("new")
def new(
    path: Annotated[
        str, typer.Argument(help="The private key's file; PATH.pub is the public one.")
    ],
) -> int:
    """Make an Ed25519 key pair (PEM; the private half readable by its owner only)."""
    from safegen.manifest import new_key

    key = new_key(path)
    show(f"private key  {path} (keep it secret)")
    show(f"public key   {path}.pub (give it to whoever verifies)")
    show(f"key id       {key.id}")
    return 0


@keys.command("show")
def show_key(path: Annotated[str, typer.Argument(help="A public key's file.")]) -> int:
    """Print a public key's id (the SHA-256 of its DER bytes), and how a policy names it."""
    from safegen.manifest import PublicKey

    key = PublicKey.read(path)
    show(f"key id       {key.id}")
    show(f"in a policy  trusted_keys: [{key.text}]")
    return 0
