"""`safegen backends`: which generator families there are, and what can be set on each."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from safegen.cli.output import JsonOption, show, show_json, table

if TYPE_CHECKING:
    from safegen.contracts import BackendOptions

__all__ = ["described"]


def add_to(app: typer.Typer) -> None:
    app.command()(backends)


def backends(
    name: Annotated[str | None, typer.Argument(help="A backend, to see its options.")] = None,
    as_json: JsonOption = False,
) -> int:
    """List the generator families; of one of them, all options with their defaults."""
    from safegen import plugins

    if name is not None:
        options = described(plugins.load(plugins.BACKENDS, name).Options)
        if as_json:
            show_json({o: dict(zip(_FACTS, facts, strict=True)) for o, facts in options.items()})
        for option, (kind, default, text) in {} if as_json else options.items():
            show(f"{option} = {default}  ({kind})")
            table([("   ", text)])
        return 0
    rows = {n: _summary(plugins.load(plugins.BACKENDS, n)) for n in plugins.names(plugins.BACKENDS)}
    if as_json:
        show_json(rows)
    else:
        table(
            (n, f"{', '.join(r['kinds'])}; {r['license']}; {r['state']}") for n, r in rows.items()
        )
    return 0


def _summary(backend: Any) -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        state = ", ".join(f"{p} {version(p)}" for p in backend.packages)
    except PackageNotFoundError as error:
        state = f"not installed ({error.name})"
    return {
        "kinds": sorted(backend.kinds),
        "license": backend.license,
        "state": state,
        "options": list(backend.Options.model_fields),
    }


_FACTS = ("type", "default", "description")


def described(options: type[BackendOptions]) -> dict[str, tuple[str, str, str]]:
    """Of each option: its type in words, its default as `--set` takes it, what it does."""
    import json

    found = {}
    for name, field in options.model_fields.items():
        given = field.get_default(call_default_factory=True)
        default = "needed" if field.is_required() else json.dumps(given, default=str)
        kind = _words(field.annotation)
        limits = [f"{sign} {limit:g}" for sign, limit in _limits(field.metadata)]
        found[name] = (", ".join([kind, *limits]), default, field.description or "")
    return found


def _limits(metadata: list[Any]) -> list[tuple[str, float]]:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    return [
        (sign, getattr(m, name))
        for m in metadata
        for name, sign in signs.items()
        if getattr(m, name, None) is not None
    ]


_PLAIN = {int: "whole number", float: "number", bool: "true or false", str: "text"}


def _words(annotation: Any) -> str:
    """A type in words. A list says what it is of; a choice lists its words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(inner[0])
    if origin is Literal:
        return " or ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " or ".join("null" if a is type(None) else _words(a) for a in inner)
    if origin in (list, tuple):
        return f"list of {_words(inner[0])}"
    if origin is dict:
        return f"mapping of {_words(inner[0])} to {_words(inner[1])}"
    return _PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)))
