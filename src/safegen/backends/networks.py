"""What every backend with a neural network needs of torch: a device, one thread, plain files."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from safegen.backends.undisturbed import PROCESS, undisturbed
from safegen.errors import BackendError, MissingExtra, UsageError, hidden, upstream

if TYPE_CHECKING:
    import torch

__all__ = [
    "Device",
    "device_of",
    "finite",
    "load_tensors",
    "rebuilt",
    "require",
    "save_tensors",
    "seeded",
    "sound",
    "thinned",
    "torch_seed",
]

Device = Literal["auto", "cpu", "cuda"]
"""`auto`: the GPU when there is one."""

Net = TypeVar("Net", bound="torch.nn.Module")


def require(package: str, extra: str) -> None:
    """Import a library. Raises: MissingExtra with the remedy."""
    import importlib

    try:
        with undisturbed():
            importlib.import_module(package)
    except ImportError:
        raise MissingExtra(
            f"this backend needs {package}: pip install 'safegen[{extra}]'"
        ) from None


def device_of(option: Device) -> torch.device:
    """The device to train on. Raises: UsageError when a GPU is asked for and none is there."""
    import torch

    if option == "cuda" and not torch.cuda.is_available():
        raise UsageError("device: torch finds no GPU here; say device=auto or cpu")
    return torch.device("cpu" if option == "cpu" or not torch.cuda.is_available() else "cuda")


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Inside, torch's global generators start from `seed`: the CPU's, and that of `device` when it
    is a GPU. After, they are as before; no other GPU is touched, nor any where none is used."""
    import torch

    gpus = [torch.cuda.current_device()] if device is not None and device.type == "cuda" else []
    with PROCESS, torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed % 2**63)
        if gpus:
            torch.cuda.manual_seed(seed % 2**63)
        yield


def torch_seed(seed: int, *path: int) -> int:
    """What a torch generator starts from, for the stream of that name: 63 bits of it."""
    import numpy as np

    from safegen.tables.streams import stream

    return int(stream(seed, *path).generate_state(1, np.uint64)[0]) >> 1


def finite(loss: float, step: int, advice: str) -> float:
    """The loss. Raises: BackendError with what to change when it is NaN or infinite."""
    if math.isfinite(loss):
        return loss
    raise BackendError(
        f"training diverged: the loss became {'NaN' if math.isnan(loss) else 'infinite'} at step "
        f"{step:,}; {advice}"
    )


def sound(weights: Mapping[str, torch.Tensor], advice: str) -> None:
    """Raises: BackendError with what to change when a trained weight is NaN or infinite.

    The last step of a training has no loss after it that would show it.
    """
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise BackendError(
            f"training diverged: weights are not finite after the last step; {advice}"
        )


def thinned(curve: Sequence[float], most: int = 1_000) -> list[float]:
    """At most `most` of the numbers, evenly spaced, with the first and the last."""
    if len(curve) <= most:
        return list(curve)
    return [curve[round(i * (len(curve) - 1) / (most - 1))] for i in range(most)]


def rebuilt(build: Callable[[], Net], weights: Mapping[str, torch.Tensor]) -> Net:
    """The network that `build` makes, with these weights, on the CPU, ready to be evaluated.

    It is built without memory for weights, which are then put in: a file that names a width has
    to hold that width. Raises: ValueError for weights that are not finite, or not the network's.
    """
    import torch

    with torch.device("meta"):
        module = build()
    own = module.state_dict()
    if own.keys() != weights.keys():
        raise ValueError
    for name, weight in weights.items():
        if weight.shape != own[name].shape or weight.dtype != own[name].dtype:
            raise ValueError
        if not bool(weight.isfinite().all()):
            raise ValueError
    module.load_state_dict(dict(weights), assign=True)
    module.eval().requires_grad_(False)
    return module


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors as safetensors: plain numbers, no pickle, the same bytes for the same model."""
    from safetensors.torch import save_file

    save_file({n: t.detach().cpu().contiguous() for n, t in tensors.items()}, path)


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read what `save_tensors` wrote, each tensor into memory of its own. Raises: BackendError for
    anything else.

    In the file they lie one after the other. Products of matrices that do not begin at a multiple
    of 64 bytes take other paths on some processors, and end in other last digits.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name: tensor.clone() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError, ValueError) as error:
        raise BackendError(
            f"the model's weights cannot be read ({upstream(error)}): fit it again"
        ) from hidden(error)
