"""Backends and safeguards, found by name through entry points.

Ours register as anyone's would. Two installed packages that offer one name are an error, never a
pick: a stray package must not be able to stand in for the `lineage` rule.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any

from safegen.errors import MissingExtra, PluginError, UnknownBackend, hidden, upstream

__all__ = ["BACKENDS", "SAFEGUARDS", "load", "names", "versions"]

BACKENDS = "safegen.backends"
SAFEGUARDS = "safegen.safeguards"


def names(group: str) -> list[str]:
    """The names that installed packages offer. Loads none of them."""
    return sorted({e.name for e in entry_points(group=group)})


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of each package, or `not installed`."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def load(group: str, name: str) -> Any:
    """The object registered under `name`.

    Raises: UnknownBackend (with the nearest names), MissingExtra (its library is not installed),
    PluginError (two packages offer it, or it fails to import).
    """
    found: list[EntryPoint] = [e for e in entry_points(group=group) if e.name == name]
    if not found:
        known = names(group)
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        what = "backend" if group == BACKENDS else "safeguard"
        hint = f"did you mean {' or '.join(near)}?" if near else f"installed: {', '.join(known)}"
        raise UnknownBackend(f"no installed package offers the {what} {name!r}; {hint}")
    if len({e.value for e in found}) > 1 or len(found) > 1:
        packages = sorted({e.dist.name if e.dist else "?" for e in found})
        raise PluginError(
            f"{name!r} is offered by {len(found)} entry points (packages: {', '.join(packages)}); "
            "uninstall all but one: safegen never picks"
        )
    try:
        return found[0].load()
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{name!r} needs the package {error.name!r}, which is not installed"
        ) from hidden(error)
    except Exception as error:
        raise PluginError(f"{name!r} fails to import ({upstream(error)})") from hidden(error)
