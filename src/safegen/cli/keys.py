"""`safegen key new` and `safegen backends`."""

from __future__ import annotations

from typing import Annotated

import typer

from safegen.cli.output import JsonOption, show, show_json, table

keys = typer.Typer(help="Signing keys.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(keys, name="key")
    app.command()(backends)


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
    """Print a public key's id: the SHA-256 of its DER bytes."""
    from safegen.manifest import PublicKey

    show(PublicKey.read(path).id)
    return 0


def backends(as_json: JsonOption = False) -> int:
    """List the generator families, their licences, and whether their libraries are installed."""
    from importlib.metadata import PackageNotFoundError, version

    from safegen import plugins

    rows = {}
    for name in plugins.names(plugins.BACKENDS):
        backend = plugins.load(plugins.BACKENDS, name)
        try:
            state = ", ".join(f"{p} {version(p)}" for p in backend.packages)
        except PackageNotFoundError as error:
            state = f"not installed ({error.name})"
        rows[name] = {
            "kinds": sorted(backend.kinds),
            "license": backend.license,
            "state": state,
            "options": list(backend.Options.model_fields),
        }
    if as_json:
        show_json(rows)
        return 0
    table(
        (name, f"{', '.join(r['kinds'])}; {r['license']}; {r['state']}") for name, r in rows.items()
    )
    return 0
