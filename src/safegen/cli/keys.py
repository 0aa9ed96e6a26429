"""`safegen key new`, `safegen key certificate` and `safegen key show`."""

from __future__ import annotations

from typing import Annotated

import typer

from safegen.cli.output import group, show

keys = group("Signing keys.")


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


@keys.command("certificate")
def certificate(
    path: Annotated[str, typer.Argument(help="The private key's file.")],
    name: Annotated[
        str, typer.Option("--name", help="Who signs. It stands in every content credential.")
    ],
    years: Annotated[int, typer.Option("--years", help="For how long it counts.")] = 10,
) -> int:
    """Make a certificate of a key, for content credentials (C2PA), by an authority of its own."""
    from safegen.manifest.certificate import new_certificate

    made = new_certificate(path, name, years)
    show(f"certificate  {made} (leave it beside the key)")
    show(f"authority    {path}.ca.crt (give it to whoever reads the credentials)")
    return 0


@keys.command("show")
def show_key(path: Annotated[str, typer.Argument(help="A public key's file.")]) -> int:
    """Print a public key's id (the SHA-256 of its DER bytes), and how a policy names it."""
    from safegen.manifest import PublicKey

    key = PublicKey.read(path)
    show(f"key id       {key.id}")
    show(f"in a policy  trusted_keys: [{key.text}]")
    return 0
