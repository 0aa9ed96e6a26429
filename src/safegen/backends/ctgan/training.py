"""The library's own training, watched: an epoch's losses as soon as they are there.

The library calls nobody back, but it assigns: the losses to an attribute after every epoch, the
transformer to another before it is fitted, the generator to a third before it is trained. So
properties are all that has to be put in, in subclasses, and no module of the library is changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import ctgan
import numpy as np

from safegen.backends.ctgan.model import Network
from safegen.backends.ctgan.modes import Columns, SideBySide
from safegen.backends.networks import finite

if TYPE_CHECKING:
    import pandas as pd
    import torch

__all__ = ["Average", "WatchedCTGAN", "WatchedTVAE", "Watch"]

EXPONENT = 16.97
"""Of the average's power law: its spread is a twentieth of the training so far."""


class Average:
    """A network's weights averaged over the training, the late ones most.

    A GAN's two networks chase each other in circles, and the middle of the circle is better than
    any point on it (Yazıcı and others 2019, "The Unusual Effectiveness of Averaging in GAN
    Training"). The average follows a power law of time, so it fits 10 epochs as well as 1,000
    (Karras and others 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models",
    section 3.1: w = 1 − (1 − 1/t)^(γ+1)).
    """

    def __init__(self, network: torch.nn.Module):
        self.network, self.times = network, 0
        self.tensors = {n: t.detach().clone() for n, t in network.state_dict().items()}
        # Called by every step, before it.
        self._hook: Any = network.register_forward_pre_hook(self._update)

    def _update(self, *_: Any) -> None:
        import torch

        self.times += 1
        weight = 1 - (1 - 1 / self.times) ** (EXPONENT + 1)
        with torch.no_grad():
            for name, now in self.network.state_dict().items():
                if now.is_floating_point():
                    self.tensors[name].lerp_(now, weight)
                else:  # BatchNorm counts its batches
                    self.tensors[name].copy_(now)

    def weights(self) -> dict[str, torch.Tensor]:
        """The average, the weights after the last step included, on the CPU. Ends the watching."""
        if self._hook is not None:
            self._update()
            self._hook.remove()
            self._hook = None
        return {name: tensor.cpu() for name, tensor in self.tensors.items()}


class Watch:
    """What is seen of a training: one number per epoch and loss. And what is known of its data:
    the seed, and by column which rows have no number of their own (`gaps`)."""

    def __init__(
        self,
        advance: Callable[[int], None],
        seed: int,
        advice: str,
        gaps: Mapping[str, np.ndarray],
    ):
        self.advance, self.seed, self.advice, self.gaps = advance, seed, advice, gaps
        self.curves: dict[str, list[float]] = {}
        self.average: Average

    def quiet(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame, with the median of each number where a row has none of its own.

        Such rows (missing, or on a point mass; another feature says which) hold numbers that the
        codec drew for whoever fits a distribution to the whole column. A discriminator would have
        to see through them as noise.
        """
        frame = frame.copy()
        for name, gap in self.gaps.items():
            if gap.any() and not gap.all():
                numbers = frame[name].to_numpy()
                frame[name] = np.where(gap, np.median(numbers[~gap]), numbers)
        return frame

    def transformer(self, given: object) -> SideBySide | None:
        """A transformer that fits its columns side by side, for the library's own."""
        return None if given is None else SideBySide(self.seed)

    def generator(self, network: torch.nn.Module | None) -> torch.nn.Module | None:
        """A generator, averaged from now on."""
        if network is not None:
            self.average = Average(network)
        return network

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
    """`ctgan.CTGAN`, watched, its generator averaged."""

    loss_values = _assigned("epoch")
    _transformer = _assigned("transformer")
    _generator = _assigned("generator")

    def __init__(self, watch: Watch, **options: Any):
        self.watch = watch
        super().__init__(**options)

    def fit(self, train_data: pd.DataFrame, discrete_columns: Any = ()) -> None:
        """Train, as the library does, without the noise of numbers that rows do not have."""
        super().fit(self.watch.quiet(train_data), discrete_columns)

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
        """The trained generator, averaged."""
        layers = tuple(self._generator_dim)
        weights = self.watch.average.weights()
        return Network("generator", self._embedding_dim, layers, weights)


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
        weights = {n: t.detach().cpu() for n, t in self.decoder.state_dict().items()}
        return Network("decoder", self.embedding_dim, layers, weights)
