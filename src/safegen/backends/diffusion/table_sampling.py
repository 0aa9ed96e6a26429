"""diffusers' samplers over a tabular denoiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safegen.backends.diffusion.table_encoding import Layout
from safegen.backends.diffusion.table_network import Denoiser
from safegen.backends.networks import torch_seed

__all__ = ["SAMPLERS", "Fixed", "Sampler", "Schedule"]

CHUNK = 1_024  # rows at once on a CPU: a fixed shape, so a row does not depend on its company

SAMPLERS = {"dpm++": "dpmsolver++", "dpm++_sde": "sde-dpmsolver++", "euler": None}
"""Our name → algorithm of diffusers' multistep scheduler; Euler's has none."""

Fixed = dict[int, tuple[float, float]]
"""Place in the row (numbers first, then categories) → interval of ranks, or token twice."""


@dataclass(frozen=True)
class Schedule:
    """Which of diffusers' samplers, and the noise levels that it goes through."""

    sampler: str
    steps: int
    sigma_min: float
    sigma_max: float
    rho: float

    def scheduler(self) -> Any:
        """A fresh diffusers scheduler, which holds the state of one draw."""
        from diffusers import EDMDPMSolverMultistepScheduler, EDMEulerScheduler

        levels = {
            "sigma_min": self.sigma_min,
            "sigma_max": self.sigma_max,
            "sigma_data": 1.0,
            "rho": self.rho,
        }
        found: Any
        kind = SAMPLERS[self.sampler]
        if kind is None:
            found = EDMEulerScheduler(**levels)  # type: ignore[no-untyped-call]
        else:
            found = EDMDPMSolverMultistepScheduler(  # type: ignore[no-untyped-call]
                **levels, algorithm_type=kind
            )
        found.set_timesteps(self.steps)
        return found


class Sampler:
    """Draws rows in chunks of one shape; chunk i is a pure function of (network, seed, i)."""

    def __init__(self, denoiser: Denoiser, layout: Layout, schedule: Schedule):
        self.denoiser, self.layout, self.schedule = denoiser, layout, schedule
        self.device = denoiser.share.device

    def draw(
        self, rows: int, seeds: list[int], fixed: Fixed | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Normal scores (rows, numbers) and tokens (rows, categories), as the encoding orders
        them. `seeds` name the stream; `fixed` columns are held where they are."""
        size = CHUNK if self.device.type == "cpu" else rows
        parts = []
        for chunk in range(-(-rows // max(size, 1))):
            parts.append(self._chunk(size, torch_seed(*seeds, chunk), fixed or {}))
        scores = np.concatenate([np.zeros((0, self.layout.numbers)), *(p[0] for p in parts)])
        placed = np.concatenate(
            [np.zeros((0, len(self.layout.order)), int), *(p[1] for p in parts)]
        )
        tokens = np.empty_like(placed)
        tokens[:, list(self.layout.order)] = placed
        return scores[:rows], tokens[:rows]

    @torch.inference_mode()
    def _chunk(self, rows: int, seed: int, fixed: Fixed) -> tuple[np.ndarray, np.ndarray]:
        n = self.layout.numbers
        generator = torch.Generator(self.device).manual_seed(seed)
        clean, revealed = self._held(rows, fixed, generator)
        held = torch.cat([revealed[:, :n], revealed[:, n:].index_select(1, self.denoiser.owner)], 1)
        scheduler = self.schedule.scheduler()
        x = torch.randn((rows, self.denoiser.size), generator=generator, device=self.device)
        x = x * scheduler.init_noise_sigma
        shares = x[:, n:]
        sigmas = scheduler.sigmas[:-1].to(self.device)
        if fixed:  # noise starts around what is expected, which for all rows together is 0
            x = torch.where(held, clean, x)
            x = x + self.denoiser.denoised(x, sigmas[:1, None], revealed)[0]
        for time, sigma in zip(scheduler.timesteps, sigmas.reshape(-1, 1, 1), strict=True):
            if fixed:
                x = torch.where(held, clean, x)
            whole, shares = self.denoiser.denoised(x, sigma, revealed)
            skip = 1 / (sigma**2 + 1)
            f = (whole - skip * x) / (sigma * skip.sqrt())  # EDM's F, which the scheduler undoes
            x = scheduler.step(f, time, x, generator=generator).prev_sample
        places = zip(self.layout.starts, self.layout.widths, strict=True)
        tokens = [shares[:, start : start + width].argmax(1) for start, width in places]
        empty = torch.zeros((rows, 0), dtype=torch.long, device=self.device)
        placed = torch.stack(tokens, 1) if tokens else empty
        return x[:, :n].double().cpu().numpy(), placed.cpu().numpy()

    def _held(self, rows: int, fixed: Fixed, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The clean values of the fixed columns (rows, size), and which columns are fixed."""
        n = self.layout.numbers
        clean = torch.zeros((rows, self.denoiser.size), device=self.device)
        revealed = torch.zeros((1, n + len(self.layout.order)), dtype=torch.bool)
        clean[:, n:] = -self.denoiser.share
        for column, (low, high) in sorted(fixed.items()):
            if column < n:
                draw = torch.rand(rows, generator=generator, device=self.device)
                rank = (low + (high - low) * draw).clamp(1e-6, 1 - 1e-6)
                clean[:, column] = torch.special.ndtri(rank)
                place = column
            else:
                place = n + self.layout.order.index(column - n)
                clean[:, n + int(self.layout.starts[place - n]) + int(low)] += 1.0
            revealed[0, place] = True
        return clean, revealed.to(self.device)
