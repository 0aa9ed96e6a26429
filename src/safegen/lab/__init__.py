"""The collapse laboratory: loops of generators, watched, beside what theory says of them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from safegen.errors import UsageError

if TYPE_CHECKING:
    from safegen.lab.store import Result

__all__ = ["EXPERIMENTS", "run"]

EXPERIMENTS: Mapping[str, str] = {
    "gaussian": "loops of a Gaussian generator against their closed forms",
    "mixture": "which rare modes of a mixture die out, against theory",
    "table": "loops of a backend on a table of yours, through safegen's front door",
    "image": "loops of an image model on the digits, or on labelled images of yours, with pictures",
}
"""The experiments, by name; each is a module of this package with `run`."""


def run(experiment: str, out: str | os.PathLike[str], **settings: Any) -> Result:
    """Run an experiment into a folder, or go on with one that was stopped there.

    settings: the experiment's own; left out, its defaults. The folder gets the settings, the raw
    records of every chain (Parquet), `result.json` with versions and checks, and `index.html`.

    Raises: UsageError for an unknown experiment or settings that cannot be meant, TargetError for a
    folder that holds something else.
    """
    from safegen.tables.schema import nearest

    if experiment not in EXPERIMENTS:
        known = list(EXPERIMENTS)
        hint = nearest(experiment, known) or f": there are {', '.join(known)}"
        raise UsageError(f"no experiment {experiment!r}{hint}")
    play: Callable[..., Result] = import_module(f"safegen.lab.{experiment}").run
    given = list(inspect.signature(play).parameters.values())[1:]  # without `out`
    names = [p.name for p in given]
    for name in settings:
        if name not in names:
            raise UsageError(f"{experiment} has no setting {name!r}{nearest(name, names)}")
    if missing := [p.name for p in given if p.default is p.empty and p.name not in settings]:
        raise UsageError(f"{experiment} needs {', '.join(missing)}")
    return play(out, **settings)
