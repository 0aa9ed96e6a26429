"""The library's own training, watched: an epoch's losses as soon as they are there.

The library calls nobody back, but it assigns: the losses to an attribute after every epoch, the
transformer to another before it is fitted. So two properties are all that has to be put in, in
subclasses, and no module of the library is changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ctgan

from safegen.backends.ctgan.model import Network
from safegen.backends.ctgan.modes import Columns, SideBySide
from safegen.backends.networks import finite

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["WatchedCTGAN", "WatchedTVAE", "Watch"]


class Watch:
    """What is seen of a training: one number per epoch and loss; and the seed of its data."""

    def __init__(self, advance: Callable[[int], None], seed: int, advice: str):
        self.advance, self.seed, self.advice = advance, seed, advice
        self.curves: dict[str, list[float]] = {}

    def transformer(self, given: object) -> SideBySide | None:
        """A transformer that fits its columns side by side, for the library's own."""
        return None if given is None else SideBySide(self.seed)

    def epoch(self, frame: pd.DataFrame | None) -> pd.DataFrame | None:
        """Take the last epoch's losses. Raises: BackendError when one is NaN or infinite."""
        if frame is None or frame.empty:
            return frame
        last = frame[frame["Epoch"] == frame["Epoch"].iloc[-1]]
        for name in last.columns:
            if name.endswith("Loss"):
                curve = self.curves.setdefault(name.lower().replace(" ", "_"), [])
                loss = float(last[name].to_numpy(dtype=float).mean())
                curve.append(finite(loss, len(curve) + 1, self.advice))
        self.advance(1)
        return frame

    def diverged(self) -> None:
        """Raises: BackendError for a network that gives no numbers any more."""
        finite(math.nan, max(map(len, self.curves.values()), default=0) + 1, self.advice)


def _assigned(told: str) -> property:
    """An attribute: what the library assigns to it goes through that method of the watch."""
    place = f"_{told}_assigned"

    def put(self: Any, value: Any) -> None:
        setattr(self, place, getattr(self.watch, told)(value))

    return property(lambda self: getattr(self, place, None), put)


class WatchedCTGAN(ctgan.CTGAN):  # type: ignore[misc]
    """`ctgan.CTGAN`, watched."""

    loss_values = _assigned("epoch")
    _transformer = _assigned("transformer")

    def __init__(self, watch: Watch, **options: Any):
        self.watch = watch
        super().__init__(**options)

    def _gumbel_softmax(self, *args: Any, **options: Any) -> Any:
        try:
            return ctgan.CTGAN._gumbel_softmax(*args, **options)
        except ValueError:  # it gives up on NaN, before the epoch and its losses are complete
            return self.watch.diverged()

    @property
    def columns(self) -> Columns:
        """How the training matrix codes each column of the frame."""
        columns: Columns = self._transformer.columns
        return columns

    @property
    def network(self) -> Network:
        """The trained generator."""
        layers = tuple(self._generator_dim)
        return Network("generator", self._embedding_dim, layers, _weights(self._generator))


class WatchedTVAE(ctgan.TVAE):  # type: ignore[misc]
    """`ctgan.TVAE`, watched."""

    loss_values = _assigned("epoch")
    transformer = _assigned("transformer")

    def __init__(self, watch: Watch, **options: Any):
        self.watch = watch
        super().__init__(**options)

    @property
    def columns(self) -> Columns:
        """How the training matrix codes each column of the frame."""
        columns: Columns = self.transformer.columns
        return columns

    @property
    def network(self) -> Network:
        """The trained decoder."""
        layers = tuple(self.decompress_dims)
        return Network("decoder", self.embedding_dim, layers, _weights(self.decoder))


def _weights(module: Any) -> dict[str, Any]:
    return {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
