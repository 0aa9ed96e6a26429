"""A trained image model: sampling with diffusers' schedulers; on disk JSON and safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safegen.backends.arrays import read_curves, read_document
from safegen.backends.diffusion.image import BLOCK, Options
from safegen.backends.diffusion.image_table import ImageTable
from safegen.backends.diffusion.image_training import built
from safegen.backends.networks import device_of, load_tensors, rebuilt, save_tensors, torch_seed
from safegen.backends.undisturbed import failing, undisturbed
from safegen.errors import BackendError, SourceError, reading
from safegen.tables.images import MODES

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from safegen.contracts import Scalar

__all__ = ["ImageModel", "Picture", "Sampling"]

FORMAT = "safegen.images/1"
BATCH = {"cpu": 64, "cuda": BLOCK}
"""Images denoised at once, at most: small ones keep a CPU's cache and fill a GPU."""

BATCH_PIXELS = 1 << 22
"""Pixels denoised at once, at most, so that large images fit in memory."""

_STEPS = {"ddpm": 1_000, "ddim": 50, "dpm++": 25}
_TIMES = 1_000
_SCHEDULERS = {
    "ddpm": "DDPMScheduler",
    "ddim": "DDIMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
}


@dataclass(frozen=True)
class Picture:
    """What every image is: its Pillow mode, height and width in pixels."""

    mode: str
    height: int
    width: int

    @property
    def channels(self) -> int:
        return {mode: n for n, mode in MODES.items()}[self.mode]

    def check(self, column: str, widths: Sequence[int]) -> None:
        """Raises: SourceError when the size cannot be halved as often as there are widths."""
        unit: int = 2 ** (len(widths) - 1)
        if self.height % unit or self.width % unit:
            raise SourceError(
                f"column {column!r}: images of {self.width} × {self.height} pixels cannot be "
                f"halved {len(widths) - 1} times: say fewer channels, or "
                f"resolution={unit * max(1, self.width // unit)}"
            )


@dataclass(frozen=True)
class Sampling:
    """The noise schedule, and how it is walked back.

    `batch` images at once: always so many, because a matrix product's bits depend on its shape.
    """

    sampler: str
    steps: int
    guidance: float
    objective: str
    schedule: str
    batch: int

    @classmethod
    def of(cls, options: Options, picture: Picture, device: str) -> Sampling:
        steps = options.sampler_steps or _STEPS[options.sampler]
        batch = max(1, min(BATCH[device], BATCH_PIXELS // (picture.height * picture.width)))
        return cls(
            options.sampler, steps, options.guidance, options.objective, options.schedule, batch
        )

    @property
    def _common(self) -> dict[str, Any]:
        return {
            "num_train_timesteps": _TIMES,
            "beta_schedule": {"cosine": "squaredcos_cap_v2", "linear": "linear"}[self.schedule],
            "prediction_type": {"v": "v_prediction", "epsilon": "epsilon"}[self.objective],
        }

    def training(self) -> Any:
        import diffusers

        library: Any = diffusers  # most of it has no types
        return library.DDPMScheduler(**self._common)

    def scheduler(self) -> Any:
        """diffusers' scheduler, its time steps set: Ho et al. 2020 (ddpm), Song et al. 2021 (ddim),
        Lu et al. 2022 (dpm++, second order, two steps back).

        They start where the noise is all there is, whatever the number of steps ("trailing": Lin et
        al. 2024); dpm++ starts at log-SNR/2 = −5.1, before which the cosine schedule has so little
        signal that dividing by it yields noise.
        """
        import diffusers

        dpm = self.sampler == "dpm++"
        start = {"lambda_min_clipped": -5.1} if dpm else {"timestep_spacing": "trailing"}
        with undisturbed():
            scheduler: Any = getattr(diffusers, _SCHEDULERS[self.sampler])(**self._common, **start)
            scheduler.set_timesteps(self.steps)
        return scheduler


class ImageModel:
    """A fitted `diffusion.image`. On a CPU block i is a pure function of (model, seed, i)."""

    def __init__(
        self,
        table: ImageTable,
        picture: Picture,
        network: Mapping[str, Any],
        sampling: Sampling,
        net: Any,
        curves: Mapping[str, Sequence[float]],
        device: torch.device,
    ):
        self.table, self.picture, self.network = table, picture, dict(network)
        self.sampling, self.net, self.curves = sampling, net, dict(curves)
        self.device = device

    @property
    def reproducible(self) -> bool:
        """A GPU's sums depend on its kind and its library."""
        return self.device.type == "cpu"

    @property
    def alone(self) -> bool:
        """On a GPU one process makes all images."""
        return self.device.type == "cuda"

    def sample(
        self, rows: int, *, seed: int, block: int, conditions: Mapping[str, Scalar] | None = None
    ) -> dict[str, pa.Table]:
        """`rows` images of a block, and their labels: drawn by their shares in the training data,
        or fixed by a condition. Raises: UsageError for a condition on anything but the label."""
        codes = self.table.drawn(rows, seed, block, conditions, "diffusion.image")
        with undisturbed(), failing("sampling images", "diffusers"):
            size = self.sampling.batch
            batches = [
                self._batch(codes[start : start + size], [seed, block, start])
                for start in range(0, max(rows, 1), size)
            ]
        return self.table.rows(batches, codes, rows, seed, block)

    def _batch(self, codes: np.ndarray, entropy: list[int]) -> np.ndarray:
        """An image per code, uint8 (images, height, width, channels), from noise of their own."""
        import torch

        picture, sampling = self.picture, self.sampling
        noise = torch.Generator().manual_seed(torch_seed(*entropy))
        shape = (len(codes), picture.channels, picture.height, picture.width)
        images = torch.randn(shape, generator=noise).to(self.device)
        labels = torch.from_numpy(codes).to(self.device) if self.network["classes"] else None
        scheduler = sampling.scheduler()
        more = {"generator": noise} if sampling.sampler == "ddpm" else {}
        fast = self.device.type == "cuda"
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=fast):
            for time in scheduler.timesteps:
                said = self._said(scheduler.scale_model_input(images, time), time, labels)
                images = scheduler.step(said.float(), time, images, **more).prev_sample
        if not torch.isfinite(images).all():
            raise BackendError(
                "the model made images that are not finite: fit it again, with another sampler or "
                "a smaller learning_rate"
            )
        pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).cpu().numpy()

    def _said(self, images: torch.Tensor, time: Any, labels: torch.Tensor | None) -> torch.Tensor:
        """The network's answer, guided by what labels change in it (Ho and Salimans 2022)."""
        import torch

        images = images.contiguous(memory_format=torch.channels_last)
        if labels is None:
            plain: torch.Tensor = self.net(images, time).sample
            return plain
        said: torch.Tensor = self.net(images, time, class_labels=labels).sample
        if self.sampling.guidance == 1:
            return said
        nothing = torch.full_like(labels, self.network["classes"])
        without: torch.Tensor = self.net(images, time, class_labels=nothing).sample
        return without + self.sampling.guidance * (said - without)

    # ---- on disk ---------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """`model.json` and `weights.safetensors`. Labels and shares are in it; no image is."""
        document = {
            "format": FORMAT,
            "table": self.table.to_json(),
            "picture": asdict(self.picture),
            "network": self.network,
            "sampling": asdict(self.sampling),
            "curves": self.curves,
            "device": self.device.type,
        }
        text = json.dumps(document, sort_keys=True, indent=1)
        (folder / "model.json").write_text(text, encoding="utf-8")
        save_tensors(folder / "weights.safetensors", self.net.state_dict())

    @classmethod
    def load(cls, folder: Path) -> ImageModel:
        """Read what `save` wrote: what was fitted on a CPU stays there, and repeats its rows; else
        onto the GPU when there is one. Raises: BackendError."""
        import torch

        with reading():
            weights = load_tensors(folder / "weights.safetensors")
            document = read_document(folder / "model.json", FORMAT)
            table = ImageTable.from_json(document["table"])
            device = device_of("cpu" if document["device"] == "cpu" else "auto")
            picture, sampling = Picture(**document["picture"]), Sampling(**document["sampling"])
            network = document["network"]
            if len(table.shares) != max(1, network["classes"]):
                raise ValueError
            if not 1 <= sampling.batch <= BLOCK:
                raise ValueError
            size = picture.height, picture.width
            with undisturbed():
                net = rebuilt(lambda: built(network, picture.channels, size), weights)
            net = net.to(device, memory_format=torch.channels_last).requires_grad_(False)
            curves = read_curves(document["curves"])
        return cls(table, picture, network, sampling, net, curves, device)
