"""A fitted tabular diffusion model: draws blocks of rows, by seed and number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from safegen.backends.arrays import check_block, read_curves, read_document, whole
from safegen.backends.diffusion.table_encoding import Encoding, Grouped, Layout
from safegen.backends.diffusion.table_network import Denoiser
from safegen.backends.diffusion.table_sampling import SAMPLERS, Fixed, Sampler, Schedule
from safegen.backends.networks import device_of, load_tensors, rebuilt, save_tensors
from safegen.backends.sdv.marginals import Quantiles
from safegen.backends.undisturbed import failing, undisturbed
from safegen.contracts import Scalar
from safegen.errors import reading
from safegen.tables.codec import Codec
from safegen.tables.matching import drawn_until
from safegen.tables.streams import stream

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TableModel"]

FORMAT = "safegen.diffusion.tabular/1"


@dataclass(frozen=True, eq=False)
class TableModel:
    """An encoding and a network. Sampling changes nothing: block i depends on (seed, i) only.

    Trained on a CPU it samples there and repeats its rows, also when it is loaded; else on the GPU
    when there is one, where the same seed may give other rows: `reproducible` is False.
    """

    table: str
    encoding: Encoding
    denoiser: Denoiser | None  # None for a table without features
    schedule: Schedule
    block_rows: int
    curves: dict[str, list[float]]

    @property
    def reproducible(self) -> bool:
        return not self.alone

    @property
    def alone(self) -> bool:
        """On a GPU one process makes all rows."""
        return self._device == "cuda"

    @property
    def _device(self) -> str:
        return "cpu" if self.denoiser is None else self.denoiser.share.device.type

    @cached_property
    def _sampler(self) -> Sampler:
        assert self.denoiser is not None
        return Sampler(self.denoiser, Layout.of(self.encoding), self.schedule)

    def sample(
        self,
        rows: int,
        *,
        seed: int,
        block: int,
        conditions: Mapping[str, Scalar] | None = None,
    ) -> dict[str, pa.Table]:
        """`rows` (at most `block_rows`) rows of a block; fewer are a prefix of more.

        With conditions, on any number of columns of any kind, every row meets them: their features
        are shown to the network without noise, as some were in training, and stay as they are.

        Those on columns of a constraint are met by rejection, where they fix nothing by themselves.

        Raises: UsageError for rows, or for a condition that no row can meet; BackendError.
        """
        check_block(rows, self.block_rows, seed, block)
        codec = self.encoding.codec
        known, rest = codec.conditions(conditions or {})
        if rest:
            native = {n: v for n, v in (conditions or {}).items() if n not in rest}

            def draw(number: int) -> pa.Table:
                whole = self.sample(self.block_rows, seed=seed, block=number, conditions=native)
                return whole[self.table]

            return {self.table: drawn_until(draw, rows, block, rest, "diffusion.tabular")}
        given = {name: x for name, (_, x) in known.items()}
        features: dict[str, np.ndarray] = {}
        if self.denoiser is not None:
            with undisturbed(), failing("sampling", "diffusers"):
                features = self._features(rows, [seed, 1, block], given)
        for name, x in given.items():
            features[name] = np.full(rows, x, features[name].dtype)
        first = block * self.block_rows
        return {self.table: codec.decode(features, first_row=first, seed=seed, rows=rows)}

    def _features(
        self, rows: int, seeds: list[int], given: Mapping[str, float]
    ) -> dict[str, np.ndarray]:
        fixed: Fixed = {}
        for i, feature in enumerate(self.encoding.numbers):
            if feature.name in given:
                fixed[i] = self.encoding.rank(i, given[feature.name])
        for i, feature in enumerate(self.encoding.categories, len(self.encoding.numbers)):
            if feature.name in given:
                group = self.encoding.groups[i - len(self.encoding.numbers)]
                token = float(group.token(np.array([int(given[feature.name])]))[0])
                fixed[i] = token, token
        scores, tokens = self._sampler.draw(rows, seeds, fixed)
        ranks = torch.special.ndtr(torch.from_numpy(scores)).numpy()
        uniform = np.random.default_rng(stream(*seeds)).random(tokens.shape)
        return self.encoding.features(ranks, tokens, uniform)

    def save(self, folder: Path) -> None:
        """Write `model.json` and `tensors.safetensors`: no pickle. The same model gives the same
        bytes."""
        shape = None
        tensors: dict[str, torch.Tensor] = {}
        if self.denoiser is not None:
            shape = self.denoiser.shape
            tensors = {f"network.{n}": t for n, t in self.denoiser.state_dict().items()}
        for i, quantiles in enumerate(self.encoding.quantiles):
            tensors[f"at.{i}"] = torch.from_numpy(quantiles.at)
            tensors[f"values.{i}"] = torch.from_numpy(quantiles.values)
        for i, group in enumerate(self.encoding.groups):
            tensors[f"order.{i}"] = torch.from_numpy(group.order)
            tensors[f"bounds.{i}"] = torch.from_numpy(group.bounds)
            tensors[f"counts.{i}"] = torch.from_numpy(group.counts)
        document = {
            "format": FORMAT,
            "table": self.table,
            "block_rows": self.block_rows,
            "codec": self.encoding.codec.to_json(),
            "schedule": asdict(self.schedule),
            "network": shape,
            "curves": self.curves,
            "device": self._device,
        }
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, sort_keys=True, allow_nan=False)
        (folder / "model.json").write_text(text, encoding="utf-8")
        save_tensors(folder / "tensors.safetensors", tensors)

    @classmethod
    def load(cls, folder: Path) -> TableModel:
        """Read what `save` wrote. Raises: BackendError for anything else."""
        with reading():
            tensors = load_tensors(folder / "tensors.safetensors")
            document = read_document(folder / "model.json", FORMAT)
            arrays = {n: t.numpy() for n, t in tensors.items() if not n.startswith("network.")}
            encoding = _encoding(Codec.from_json(document["codec"]), arrays)
            device = device_of("cpu" if document["device"] == "cpu" else "auto")
            denoiser = None
            if (document["network"] is None) != (not encoding.codec.features):
                raise ValueError
            if document["network"] is not None:
                width, layers = document["network"]
                shape = {"width": whole(width, 8, 8_192), "layers": whole(layers, 1, 64)}
                weights = {n[8:]: t for n, t in tensors.items() if n.startswith("network.")}
                with undisturbed():
                    denoiser = rebuilt(lambda: Denoiser.of(encoding, **shape), weights)
                denoiser = denoiser.to(device)
            return cls(
                str(document["table"]),
                encoding,
                denoiser,
                _schedule(document["schedule"]),
                whole(document["block_rows"], 1, 1 << 20),
                read_curves(document["curves"]),
            )


def _schedule(given: Mapping[str, Any]) -> Schedule:
    """Raises: TypeError, ValueError beyond the bounds of the options."""
    schedule = Schedule(**given)
    whole(schedule.steps, 2, 1_000)
    if not 0 < schedule.sigma_min <= 1 < schedule.sigma_max <= 1_000 or not 1 <= schedule.rho <= 20:
        raise ValueError
    if schedule.sampler not in SAMPLERS:
        raise ValueError
    return schedule


def _encoding(codec: Codec, arrays: Mapping[str, np.ndarray]) -> Encoding:
    quantiles: list[Quantiles] = []
    groups: list[Grouped] = []
    for feature in codec.features:
        if feature.kind == "numeric":
            i = len(quantiles)
            at, values = _checked(arrays[f"at.{i}"]), _checked(arrays[f"values.{i}"])
            if at.shape != values.shape or at.ndim != 1 or not len(at):
                raise ValueError
            quantiles.append(Quantiles(at, values, False))
        else:
            i = len(groups)
            group = Grouped(*(arrays[f"{n}.{i}"] for n in ("order", "bounds", "counts")))
            if any(a.dtype != np.int64 for a in (group.order, group.bounds, group.counts)):
                raise ValueError
            if not np.array_equal(np.sort(group.order), np.arange(feature.levels)):
                raise ValueError
            whole = group.bounds[0] == 0 and group.bounds[-1] == feature.levels
            if not whole or (np.diff(group.bounds) <= 0).any() or (group.counts < 0).any():
                raise ValueError
            if len(group.counts) != feature.levels or not 0 < group.counts.sum() < 1 << 53:
                raise ValueError
            groups.append(group)
    return Encoding(codec, tuple(quantiles), tuple(groups))


def _checked(array: np.ndarray) -> np.ndarray:
    """Finite float64, ascending along the last axis. Raises: ValueError."""
    if array.dtype != np.float64 or not np.isfinite(array).all() or (np.diff(array) < 0).any():
        raise ValueError
    return array
