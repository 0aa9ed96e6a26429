"""Which of SDV's distributions a user may give to which column."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from safegen.errors import UsageError

__all__ = ["Distribution", "check_distributions", "distributions_of"]

Distribution = Literal["norm", "beta", "truncnorm", "uniform", "gamma", "gaussian_kde"]

KDE_ROWS = 1_000


def check_distributions(
    chosen: Mapping[str, str], default: str, kinds: Mapping[str, str], rows: int, instead: str
) -> None:
    """kinds: of every column. Raises: UsageError for a column that is not numeric, and for
    `gaussian_kde` on many rows, which names what to use `instead`."""
    from safegen.tables.schema import nearest

    numeric = [name for name, kind in kinds.items() if kind in ("numeric", "datetime")]
    for name in chosen:
        if name not in numeric:
            known = "is not numeric" if name in kinds else "does not exist"
            raise UsageError(
                f"numerical_distributions: column {name!r} {known}{nearest(name, numeric)}"
            )
    if "gaussian_kde" in {default, *chosen.values()} and rows > KDE_ROWS:
        raise UsageError(
            f"gaussian_kde is for at most {KDE_ROWS:,} rows, and there are {rows:,}: at 8,000 it "
            f"takes half a minute to fit and over five minutes to sample. Use {instead}"
        )


def distributions_of(
    numeric: Collection[str], chosen: Mapping[str, str], default: str
) -> dict[str, str]:
    """The distribution of every column that is a numeric feature. Raises: UsageError."""
    for name in chosen:
        if name not in numeric:
            raise UsageError(
                f"numerical_distributions: column {name!r} has too few distinct values for a "
                "distribution, or is held by a constraint: leave it out, and its shares are kept"
            )
    return {name: chosen.get(name, default) for name in numeric}
