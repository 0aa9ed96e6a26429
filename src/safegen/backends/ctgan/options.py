"""The options of CTGAN and TVAE, by their library's names and with its defaults.

Left out: `verbose`, because safegen shows the progress itself, and `enable_gpu` and `cuda`, which
are `device` here.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from safegen.backends.networks import Device
from safegen.backends.options import TableOptions

__all__ = ["GANOptions", "NetworkOptions", "VAEOptions"]

_Width = Annotated[int, Field(ge=1, le=16_384)]
# Not strict, so that a list, which is all that JSON has, is taken for a tuple.
_Widths = Annotated[tuple[_Width, ...], Field(strict=False, min_length=1, max_length=16)]


class NetworkOptions(TableOptions):
    """What both networks share, and what safegen does around them."""

    embedding_dim: int = Field(
        128, ge=1, le=16_384, description="Length of the random vector that a row is made from."
    )
    epochs: int = Field(
        300, ge=1, le=1_000_000, description="How often training goes through the table."
    )
    device: Device = Field(
        "auto",
        description="Where to train; auto: a GPU when there is one. Rows are made on the CPU.",
    )

    OURS: ClassVar[frozenset[str]] = frozenset({*TableOptions.model_fields, "device"})
    """The options that the library's class does not get."""


class GANOptions(NetworkOptions):
    """CTGAN's (Xu and others 2019, "Modeling Tabular data using Conditional GAN")."""

    generator_dim: _Widths = Field(
        (256, 256), description="Width of each residual layer of the generator."
    )
    discriminator_dim: _Widths = Field(
        (256, 256), description="Width of each layer of the discriminator."
    )
    generator_lr: float = Field(2e-4, gt=0, le=1, description="Learning rate of the generator.")
    generator_decay: float = Field(1e-6, ge=0, le=1, description="Weight decay of the generator.")
    discriminator_lr: float = Field(
        2e-4, gt=0, le=1, description="Learning rate of the discriminator."
    )
    discriminator_decay: float = Field(
        1e-6, ge=0, le=1, description="Weight decay of the discriminator."
    )
    batch_size: int = Field(
        500, ge=2, le=1_000_000, description="Rows in a training step: even, and a multiple of pac."
    )
    discriminator_steps: int = Field(
        1, ge=1, le=100, description="Steps of the discriminator for each one of the generator."
    )
    log_frequency: bool = Field(
        True, description="Train on levels by the logarithm of their frequency: rare ones oftener."
    )
    pac: int = Field(
        10, ge=1, le=10_000, description="Rows that the discriminator judges together (PacGAN)."
    )

    @model_validator(mode="after")
    def _packed(self) -> Self:
        step = self.pac * (1 + self.pac % 2)  # the least that is even and a multiple of pac
        if self.batch_size % step:
            below, above = self.batch_size // step * step, -(-self.batch_size // step) * step
            ways = " or ".join(f"{n:,}" for n in (below, above) if n)
            raise ValueError(
                f"batch_size must be even and a multiple of pac: with pac={self.pac} take {ways}"
            )
        return self


class VAEOptions(NetworkOptions):
    """TVAE's (the same paper)."""

    compress_dims: _Widths = Field((128, 128), description="Width of each layer of the encoder.")
    decompress_dims: _Widths = Field((128, 128), description="Width of each layer of the decoder.")
    l2scale: float = Field(1e-5, ge=0, le=1, description="Weight decay.")
    batch_size: int = Field(500, ge=1, le=1_000_000, description="Rows in a training step.")
    loss_factor: float = Field(
        2, gt=0, le=1e6, description="Weight of the reconstruction error beside the divergence."
    )
