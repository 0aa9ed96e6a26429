"""A trained generator or decoder over a codec's features: draws blocks of rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from safegen.backends.arrays import check_block, read_curves, read_document, whole
from safegen.backends.ctgan.backend import BLOCK_ROWS
from safegen.backends.networks import load_tensors, rebuilt, save_tensors
from safegen.backends.sdv.marginals import Quantiles
from safegen.backends.undisturbed import one_thread, undisturbed
from safegen.contracts import Scalar
from safegen.errors import reading
from safegen.tables.codec import Codec, Feature
from safegen.tables.matching import drawn_until
from safegen.tables.streams import stream

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

__all__ = ["Modes", "Network", "NeuralModel", "Number"]

FORMAT = "safegen.ctgan/1"
BATCH = 1_024  # rows per pass: a fixed shape, so a row does not depend on its company


@dataclass(frozen=True, eq=False)
class Modes:
    """The modes of a number: place −1 … 1 of mode m stands for means[m] + place · widths[m]."""

    means: np.ndarray
    widths: np.ndarray  # four standard deviations


@dataclass(frozen=True, eq=False)
class Number:
    """How a numeric feature is made of a mode and a place within it."""

    center: float
    scale: float  # the network learned (feature − center) / scale
    modes: Modes
    marginal: Quantiles | None  # CopulaGAN: the modes are those of normal scores of this

    def value(self, mode: np.ndarray, place: np.ndarray) -> np.ndarray:
        """The feature, float64."""
        learned = self.modes.means[mode] + np.clip(place, -1.0, 1.0) * self.modes.widths[mode]
        if self.marginal is not None:
            learned = self.marginal.value(learned)
        found: np.ndarray = learned * self.scale + self.center
        return found


Part = Number | np.ndarray  # of a categorical feature: the share of each of its levels


@dataclass(frozen=True, eq=False)
class Network:
    """What makes rows: CTGAN's generator or TVAE's decoder, by the library's own classes."""

    kind: Literal["generator", "decoder"]
    embedding_dim: int
    layers: tuple[int, ...]
    weights: Mapping[str, torch.Tensor]

    def build(self, levels: int, width: int) -> torch.nn.Module:
        """The module, ready to be evaluated, for `width` outputs and a condition on `levels`.

        Raises: ValueError when the weights are not those of such a network.
        """
        with undisturbed():
            from ctgan.synthesizers.ctgan import Generator
            from ctgan.synthesizers.tvae import Decoder

            def module() -> torch.nn.Module:
                if self.kind == "generator":
                    return Generator(self.embedding_dim + levels, self.layers, width)  # type: ignore[no-any-return]
                return Decoder(self.embedding_dim, self.layers, width)  # type: ignore[no-any-return]

            return rebuilt(module, self.weights)


@dataclass(frozen=True, eq=False)
class NeuralModel:
    """A network, and what its outputs stand for. Sampling changes nothing: block i depends on
    (seed, i) only."""

    backend: str
    table: str
    codec: Codec
    network: Network | None  # None for a table that has nothing to learn
    parts: tuple[Part, ...]  # one per feature of the codec, in order
    curves: Mapping[str, Sequence[float]]
    block_rows: int = BLOCK_ROWS

    def sample(
        self,
        rows: int,
        *,
        seed: int,
        block: int,
        conditions: Mapping[str, Scalar] | None = None,
    ) -> dict[str, pa.Table]:
        """`rows` (at most `block_rows`) rows of a block; fewer are a prefix of more.

        With conditions every row meets them. A generator is told the rarest level among them
        through its conditional vector, which makes such rows frequent, not certain; so rows are
        drawn until enough meet all conditions.

        Raises: UsageError for rows, or for a condition that no row can meet; BackendError with
        the shortfall when too few rows meet the conditions.
        """
        check_block(rows, self.block_rows, seed, block)
        if not conditions:
            return {self.table: self._block(rows, seed, block, None)}
        told = self._told(conditions)

        def draw(number: int) -> pa.Table:
            return self._block(self.block_rows, seed, number, told)

        return {self.table: drawn_until(draw, rows, block, conditions, self.backend)}

    def _told(self, conditions: Mapping[str, Scalar]) -> int | None:
        """The position in the conditional vector of the rarest level that is conditioned."""
        fixed, _ = self.codec.conditions(conditions)
        rarest, found, start = np.inf, None, 0
        for feature, part in zip(self.codec.features, self.parts, strict=True):
            if isinstance(part, Number):
                continue
            if feature.name in fixed and part[code := int(fixed[feature.name][1])] < rarest:
                rarest, found = part[code], start + code
            start += len(part)
        return found

    def _block(self, rows: int, seed: int, block: int, told: int | None) -> pa.Table:
        if self.network is None:
            features = {}
        else:
            rng = np.random.Generator(np.random.Philox(stream(seed, block)))
            with one_thread():
                batches = [self._batch(rng, told) for _ in range(max(-(-rows // BATCH), 1))]
            features = {n: np.concatenate([b[n] for b in batches])[:rows] for n in batches[0]}
        first = block * self.block_rows
        return self.codec.decode(features, first_row=first, seed=seed, rows=rows)

    def _batch(self, rng: np.random.Generator, told: int | None) -> dict[str, np.ndarray]:
        """The features of 1,024 rows. Levels and modes are drawn by a generator's probabilities
        (by Gumbel's maximum) and are a decoder's likeliest, places likewise, as in the library."""
        output, sigma = self._output(rng, told)
        scores, jitter = output, np.zeros_like(output)
        if sigma is None:
            waits = rng.standard_exponential(output.shape, dtype=np.float32)  # can be 0
            scores = output - np.log(np.maximum(waits, np.finfo(np.float32).tiny))
        else:
            jitter = rng.standard_normal(output.shape, dtype=np.float32) * sigma
        features: dict[str, np.ndarray] = {}
        start = 0
        for feature, part in zip(self.codec.features, self.parts, strict=True):
            if isinstance(part, Number):
                end = start + 1 + len(part.modes.means)
                place = np.tanh(output[:, start].astype(np.float64)) + jitter[:, start]
                mode = scores[:, start + 1 : end].argmax(axis=1)
                features[feature.name] = part.value(mode, place)
            else:
                end = start + len(part)
                features[feature.name] = scores[:, start:end].argmax(axis=1).astype(np.int32)
            start = end
        return features

    def _output(
        self, rng: np.random.Generator, told: int | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """A pass of the network: its outputs, and of a decoder their standard deviations."""
        import torch

        assert self.network is not None
        vector = rng.standard_normal((BATCH, self.network.embedding_dim), dtype=np.float32)
        if self.network.kind == "generator":
            vector = np.concatenate([vector, self._condition(rng, told)], axis=1)
        with torch.inference_mode():
            given = self._module(torch.from_numpy(vector))
        if self.network.kind == "generator":
            return given.numpy(), None
        return given[0].numpy(), given[1].detach().numpy()

    def _condition(self, rng: np.random.Generator, told: int | None) -> np.ndarray:
        """The conditional vectors: one level of one categorical feature each.

        The feature is any, the level as frequent as in the source: then every level's share comes
        out as it went in (the paper's section 4.3). The library draws levels by the logarithm of
        their frequency here too, where `log_frequency` is set, and so makes rare ones too often.
        """
        shares = self._shares
        vector = np.zeros((BATCH, len(shares)), dtype=np.float32)
        if len(shares):
            drawn = np.searchsorted(np.cumsum(shares)[:-1], rng.random(BATCH), side="right")
            vector[np.arange(BATCH), drawn if told is None else told] = 1
        return vector

    @cached_property
    def _shares(self) -> np.ndarray:
        """How likely each position of the conditional vector is, in all 1."""
        shares = [part for part in self.parts if not isinstance(part, Number)]
        return np.concatenate([np.zeros(0), *shares]) / max(len(shares), 1)

    @cached_property
    def _module(self) -> torch.nn.Module:
        assert self.network is not None
        width = sum(1 + len(p.modes.means) if isinstance(p, Number) else len(p) for p in self.parts)
        return self.network.build(len(self._shares), width)

    def save(self, folder: Path) -> None:
        """Write `model.json` and `weights.safetensors`: no pickle. Same model, same bytes."""
        import torch

        network, tensors = None, {}
        if self.network is not None:
            network = {
                "kind": self.network.kind,
                "embedding_dim": self.network.embedding_dim,
                "layers": list(self.network.layers),
            }
            tensors = {f"network.{n}": t for n, t in self.network.weights.items()}
        for i, part in enumerate(self.parts):
            if isinstance(part, Number) and part.marginal is not None:
                for name, array in part.marginal.arrays().items():
                    tensors[f"{name}.{i}"] = torch.from_numpy(array)
        document = {
            "format": FORMAT,
            "backend": self.backend,
            "table": self.table,
            "block_rows": self.block_rows,
            "codec": self.codec.to_json(),
            "network": network,
            "parts": [_part_to_json(part) for part in self.parts],
            "curves": {name: list(curve) for name, curve in self.curves.items()},
        }
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, sort_keys=True, allow_nan=False)
        (folder / "model.json").write_text(text, encoding="utf-8")
        save_tensors(folder / "weights.safetensors", tensors)

    @classmethod
    def load(cls, folder: Path) -> NeuralModel:
        """Read what `save` wrote. Raises: BackendError for anything else."""
        with reading():
            tensors = load_tensors(folder / "weights.safetensors")
            document = read_document(folder / "model.json", FORMAT)
            codec = Codec.from_json(document["codec"])
            parts = tuple(
                _part_from_json(part, feature, tensors, i)
                for i, (part, feature) in enumerate(
                    zip(document["parts"], codec.features, strict=True)
                )
            )
            network = None
            if (given := document["network"]) is not None:
                if given["kind"] not in ("generator", "decoder"):
                    raise ValueError
                network = Network(
                    given["kind"],
                    whole(given["embedding_dim"], 1, 16_384),
                    tuple(whole(n, 1, 16_384) for n in given["layers"]),
                    {n[8:]: t for n, t in tensors.items() if n.startswith("network.")},
                )
            if bool(parts) != (network is not None):
                raise ValueError
            model = cls(
                str(document["backend"]),
                str(document["table"]),
                codec,
                network,
                parts,
                read_curves(document["curves"]),
                whole(document["block_rows"], 1, BLOCK_ROWS),
            )
            if network is not None:
                _ = model._module  # whose weights must fit
        return model


def _part_to_json(part: Part) -> dict[str, Any]:
    if not isinstance(part, Number):
        return {"shares": part.tolist()}
    return {
        "center": part.center,
        "scale": part.scale,
        "means": part.modes.means.tolist(),
        "widths": part.modes.widths.tolist(),
        "marginal": part.marginal is not None,
    }


def _part_from_json(
    given: Mapping[str, Any], feature: Feature, tensors: Mapping[str, torch.Tensor], index: int
) -> Part:
    """Raises: KeyError, TypeError, ValueError for what is not a part of that feature."""
    if feature.kind == "categorical":
        shares = _vector(given["shares"])
        if len(shares) != feature.levels or (shares < 0).any() or not 0.99 < shares.sum() < 1.01:
            raise ValueError
        return shares
    modes = Modes(_vector(given["means"]), _vector(given["widths"]))
    if not len(modes.means) or len(modes.means) != len(modes.widths):
        raise ValueError
    center, scale = _vector([given["center"], given["scale"]]).tolist()
    marginal = None
    if given["marginal"]:
        at, values = (_vector(tensors[f"{n}.{index}"].tolist()) for n in ("at", "values"))
        if len(at) < 2 or len(at) != len(values) or (np.diff(at) < 0).any():
            raise ValueError
        marginal = Quantiles(at, values, True)
    return Number(center, scale, modes, marginal)


def _vector(numbers: Sequence[float]) -> np.ndarray:
    """A finite vector. Raises: ValueError."""
    array = np.array(numbers, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError
    return array
