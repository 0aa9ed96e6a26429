"""The network of a tabular diffusion model: what a noisy row was before the noise.

A row is a vector: normal scores of the numbers, then a one-hot per category. Noise is Gaussian and
independent per entry (Karras et al. 2022, "Elucidating the design space of diffusion-based
generative models", EDM). Bayes' rule splits what a noisy row says of one of its columns: the
column's own evidence is known exactly, only what the *other* columns say of it has to be learned.
So the network's output is added to what is known, as EDM's c_skip does for numbers; untrained
it gives independent columns with exactly the training marginals, rare levels included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from safegen.backends.diffusion.table_encoding import Encoding, Layout

__all__ = ["Denoiser"]

NEVER = -1e4  # the logit of padding
KNOWN = 0.02  # the noise that a revealed column is taken to have
WAVES = 16  # sines and cosines of the noise level
TONE = 64  # width of its embedding


class Denoiser(nn.Module):
    """An MLP whose layers are modulated by the noise level (FiLM, Perez et al. 2018).

    numbers: how many. widths: of each category's one-hot, powers of two, ascending, so that those
    of one width are worked on at once. shares: of each level, one vector with 0 for padding.
    """

    share: Tensor
    log_share: Tensor
    owner: Tensor

    def __init__(
        self,
        numbers: int,
        widths: Sequence[int],
        shares: Tensor,
        *,
        width: int,
        layers: int,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.numbers = numbers
        self.categories = len(widths)
        self.runs = [(w, len(list(same))) for w, same in groupby(widths)]
        levels = sum(widths)
        self.register_buffer("share", shares)
        self.register_buffer(
            "log_share", torch.where(shares > 0, shares.clamp_min(1e-30).log(), NEVER)
        )
        device = shares.device  # also where the weights are built without memory
        places = torch.arange(len(widths), device=device)
        owner = torch.repeat_interleave(places, torch.tensor(widths, device=device).long())
        self.register_buffer("owner", owner, persistent=False)
        self.inside = nn.Linear(2 * levels + numbers + numbers + len(widths), width)
        self.noise = nn.Sequential(nn.Linear(2 * WAVES, TONE), nn.SiLU())
        films = [nn.Linear(TONE, 2 * width) for _ in range(layers)]
        self.films = nn.ModuleList(films)
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, elementwise_affine=False) for _ in range(layers)
        )
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self.outside = nn.Linear(width, numbers + levels)
        for film in films:
            nn.init.zeros_(film.weight)
            nn.init.zeros_(film.bias)
        nn.init.zeros_(self.outside.weight)
        nn.init.zeros_(self.outside.bias)

    @classmethod
    def of(cls, encoding: Encoding, *, width: int, layers: int, dropout: float = 0.0) -> Denoiser:
        """An untrained network for rows of an encoding."""
        layout = Layout.of(encoding)
        shares = torch.from_numpy(layout.shares(encoding)).float()
        return cls(
            layout.numbers, layout.widths, shares, width=width, layers=layers, dropout=dropout
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Width and number of layers."""
        return self.inside.out_features, len(self.layers)

    @property
    def size(self) -> int:
        """Length of a row vector."""
        return self.numbers + len(self.share)

    def forward(self, x: Tensor, sigma: Tensor, revealed: Tensor) -> tuple[Tensor, Tensor]:
        """Noisy rows (rows, size), the noise level (rows or 1, 1), which columns are without noise
        (rows, numbers + categories; bool). Gives F of the numbers, by EDM's preconditioning with
        σ_data = 1, and the levels' logits (rows, levels)."""
        n = self.numbers
        each = torch.where(revealed, KNOWN, sigma)
        scale = (each[:, :n] ** 2 + 1).rsqrt()
        spread = each[:, n:].index_select(1, self.owner)
        level = x[:, n:]
        known = self.log_share + (level + self.share) / spread**2
        soft = self.shares(known)
        seen = [soft - self.share, level * (spread**2 + 1).rsqrt(), x[:, :n] * scale]
        seen.append(revealed.to(x.dtype).expand(len(x), -1))
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda):
            out = self._body(torch.cat(seen, 1), sigma).float()
        return out[:, :n], known + out[:, n:]

    def _body(self, seen: Tensor, sigma: Tensor) -> Tensor:
        h = self.inside(seen)
        tone = self.noise(self._waves(sigma))
        for film, norm, layer in zip(self.films, self.norms, self.layers, strict=True):
            gain, shift = film(tone).chunk(2, 1)
            h = h + layer(self.dropout(nn.functional.silu(norm(h) * (1 + gain) + shift)))
        found: Tensor = self.outside(nn.functional.silu(self.norm(h)))
        return found

    def _waves(self, sigma: Tensor) -> Tensor:
        rates = torch.exp(torch.linspace(math.log(0.25), math.log(16), WAVES, device=sigma.device))
        angles = sigma.log() * rates
        return torch.cat([angles.sin(), angles.cos()], 1)

    def shares(self, logits: Tensor, log: bool = False) -> Tensor:
        """The (log-)probabilities of each category's levels."""
        parts, start = [], 0
        for width, count in self.runs:
            own = logits[:, start : start + width * count].reshape(-1, count, width)
            parts.append((own.log_softmax(2) if log else own.softmax(2)).flatten(1))
            start += width * count
        return torch.cat(parts, 1) if parts else logits

    def denoised(self, x: Tensor, sigma: Tensor, revealed: Tensor) -> tuple[Tensor, Tensor]:
        """The expected row (rows, size), and the probabilities of the levels."""
        f, logits = self(x, sigma, revealed)
        shares = self.shares(logits)
        skip = 1 / (sigma**2 + 1)
        numbers = skip * x[:, : self.numbers] + sigma * skip.sqrt() * f
        return torch.cat([numbers, shares - self.share], 1), shares
