"""What every SDV backend shares: its licence, its packages, and the check that it is there."""

from __future__ import annotations

from safegen.backends.undisturbed import undisturbed
from safegen.errors import MissingExtra

__all__ = ["LICENSE", "PACKAGES", "require_sdv"]

LICENSE = "BUSL-1.1"
PACKAGES = ("sdv", "copulas", "rdt")


def require_sdv() -> None:
    """Import SDV (3 s, once). Raises: MissingExtra with the remedy."""
    try:
        with undisturbed():
            import sdv.single_table  # noqa: F401
    except ImportError:
        raise MissingExtra(
            "this backend needs SDV (BUSL-1.1, no commercial synthetic-data service): "
            "pip install 'safegen[sdv]'"
        ) from None
