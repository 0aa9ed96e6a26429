"""What every backend with a neural network needs of torch: a device, one thread, plain files."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from safegen.errors import BackendError, MissingExtra, UsageError, hidden, upstream

if TYPE_CHECKING:
    import torch

__all__ = [
    "Device",
    "device_of",
    "finite",
    "load_tensors",
    "one_thread",
    "rebuilt",
    "require",
    "save_tensors",
    "seeded",
    "sound",
    "thinned",
]

Device = Literal["auto", "cpu", "cuda"]
"""`auto`: the GPU when there is one."""

Net = TypeVar("Net", bound="torch.nn.Module")


def require(package: str, extra: str) -> None:
    """Import a library. Raises: MissingExtra with the remedy."""
    import importlib

    from safegen.backends.undisturbed import undisturbed

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
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's global generators (every device's) start from `seed`; after, as before."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed % 2**63)
        yield


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch's CPU kernels, so that sums do not depend on the number of cores.

    And 32-bit tensors where none says otherwise, so that they do not depend on the caller's dtype.
    """
    import torch

    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)


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
    """Read what `save_tensors` wrote. Raises: BackendError for anything else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise BackendError(
            f"the model's weights cannot be read ({upstream(error)}): fit it again"
        ) from hidden(error)
