"""Training the U-Net of `diffusion.image`: noise in, loss down, averaged weights out."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from safegen.backends.networks import finite, seeded
from safegen.backends.undisturbed import failing, undisturbed
from safegen.progress import progress

if TYPE_CHECKING:
    import torch

    from safegen.backends.diffusion.image import Options
    from safegen.backends.diffusion.image_model import Sampling

__all__ = ["built", "trained"]

CHECKS = 20
_WATCHED = 256  # noisy images on which the loss is watched, and
_WATCHED_PIXELS = 1 << 24  # of how many pixels in all: large images are fewer
_WARM_UP = 100
_CURVE = 500
_ADVICE = "try a smaller learning_rate, such as 5e-4"


def built(network: Mapping[str, Any], channels: int, size: Sequence[int]) -> Any:
    """diffusers' U-Net; one class more than there are stands for "no label"."""
    import diffusers

    library: Any = diffusers  # most of it has no types
    widths = tuple(network["channels"])
    attend = network["attention_levels"]
    plain = len(widths) - attend
    return library.UNet2DModel(
        sample_size=tuple(size),
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        down_block_types=("DownBlock2D",) * plain + ("AttnDownBlock2D",) * attend,
        up_block_types=("AttnUpBlock2D",) * attend + ("UpBlock2D",) * plain,
        layers_per_block=network["layers"],
        add_attention=network["attention"],
        attention_head_dim=network["attention_head_dim"],
        act_fn=network["activation"],
        resnet_time_scale_shift="scale_shift" if network["time_scale_shift"] else "default",
        norm_num_groups=8,
        dropout=network["dropout"],
        num_class_embeds=network["classes"] + 1 if network["classes"] else None,
    )


def trained(
    pixels: np.ndarray,
    codes: np.ndarray,
    network: Mapping[str, Any],
    options: Options,
    sampling: Sampling,
    device: torch.device,
    seed: int,
) -> tuple[Any, dict[str, list[float]]]:
    """The averaged network at its best, and the curves `loss` and `held_out_loss`.

    pixels: uint8 (n, height, width, channels). codes: int64 (n,), each image's class.
    Raises: BackendError when the loss is not finite, or torch fails.
    """
    import torch

    with (
        progress("training", options.steps, "steps") as advance,
        undisturbed(),
        seeded(seed, device),
        failing("training the U-Net", "diffusers"),
    ):
        images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        training = _Training(images, torch.from_numpy(codes), network, options, sampling, device)
        for step in range(options.steps):
            training.step(step)
            advance(1)
            if training.stops(step):
                break
        return training.result()


class _Training:
    """The state of one training run."""

    def __init__(
        self,
        images: torch.Tensor,
        codes: torch.Tensor,
        network: Mapping[str, Any],
        options: Options,
        sampling: Sampling,
        device: torch.device,
    ):
        import torch

        self.options, self.device = options, device
        self.classes = network["classes"]
        self.scheduler = sampling.training()
        # Only the order in memory: convolutions on a CPU are a third faster so.
        self.net = built(network, images.shape[1], images.shape[2:]).to(
            device, memory_format=torch.channels_last
        )
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.forward = self.net
        if options.compile and device.type == "cuda":
            self.forward = torch.compile(self.net)
        order = torch.randperm(len(images))
        watched = round(len(images) * options.held_out)
        self.images, self.codes = images[order[watched:]], codes[order[watched:]]
        self.watched = self._watched(images[order[:watched]], codes[order[:watched]])
        self.optimizer = torch.optim.AdamW(
            self.net.parameters(), options.learning_rate, weight_decay=options.weight_decay
        )
        self.losses: list[float] = []
        self.checks: list[float] = []
        self.best: dict[str, torch.Tensor] | None = None
        self.since = 0

    def _noisy(self, images: torch.Tensor, times: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Noisy images, their times, and what the network is to say of them."""
        import torch

        clean = images.to(self.device).float() / 127.5 - 1
        noise = torch.randn(images.shape).to(self.device)
        times = times.to(self.device)
        noisy = self.scheduler.add_noise(clean, noise, times)
        v = self.options.objective == "v"
        wanted = self.scheduler.get_velocity(clean, noise, times) if v else noise
        return noisy.contiguous(memory_format=torch.channels_last), times, wanted

    def _watched(
        self, images: torch.Tensor, codes: torch.Tensor
    ) -> tuple[torch.Tensor, ...] | None:
        """The same noisy images at every check, at times spread evenly."""
        import torch

        if not len(images):
            return None
        pixels = images.shape[2] * images.shape[3]
        count = min(_WATCHED, max(1, _WATCHED_PIXELS // pixels))
        take = torch.arange(count) % len(images)
        times = torch.linspace(0, len(self.scheduler.alphas_cumprod) - 1, len(take)).long()
        times = times[torch.randperm(len(times))]
        return (*self._noisy(images[take], times), codes[take].to(self.device))

    def _loss(
        self, net: Any, noisy: torch.Tensor, times: torch.Tensor, wanted: torch.Tensor, codes: Any
    ) -> torch.Tensor:
        import torch

        given = {"class_labels": codes} if self.classes else {}
        fast = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=fast):
            said = net(noisy, times, **given).sample
        return torch.nn.functional.mse_loss(said.float(), wanted)

    def step(self, step: int) -> None:
        import torch

        options = self.options
        rate = (
            min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = options.learning_rate * rate
        at = torch.randint(0, len(self.images), (options.batch_size,))
        times = torch.randint(0, len(self.scheduler.alphas_cumprod), (options.batch_size,))
        unlabelled = torch.rand(options.batch_size) < options.label_dropout
        codes = torch.where(unlabelled, self.classes, self.codes[at]).to(self.device)
        noisy, times, wanted = self._noisy(self.images[at], times)
        loss = self._loss(self.forward, noisy, times, wanted, codes)
        self.losses.append(finite(loss.item(), step + 1, _ADVICE))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        keep = min(options.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.net.parameters()), 1 - keep
            )

    def stops(self, step: int) -> bool:
        """Whether the watched loss has not improved for `patience` checks."""
        import torch

        every = max(1, self.options.steps // CHECKS)
        if self.watched is None or (step + 1) % every:
            return False
        count, size = len(self.watched[0]), self.options.batch_size
        said = []
        with torch.no_grad():
            for start in range(0, count, size):
                noisy, times, wanted, codes = (t[start : start + size] for t in self.watched)
                part = self._loss(self.average, noisy, times, wanted, codes)
                said.append(float(part) * len(noisy))
        loss = finite(sum(said) / count, step + 1, _ADVICE)
        if not self.checks or loss < min(self.checks):
            self.best = {n: t.clone() for n, t in self.average.state_dict().items()}
            self.since = 0
        else:
            self.since += 1
        self.checks.append(loss)
        return self.since >= self.options.patience

    def result(self) -> tuple[Any, dict[str, list[float]]]:
        if self.best is not None:
            self.average.load_state_dict(self.best)
        total = sum(float(p.double().abs().sum()) for p in self.average.parameters())
        finite(total, len(self.losses), _ADVICE)
        size = math.ceil(len(self.losses) / _CURVE)
        parts = [self.losses[i : i + size] for i in range(0, len(self.losses), size)]
        curves = {"loss": [sum(part) / len(part) for part in parts]}
        if self.checks:
            curves["held_out_loss"] = self.checks[-1000:]
        return self.average, curves
