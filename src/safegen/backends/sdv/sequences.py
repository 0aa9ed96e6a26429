"""A fitted model of sequences: a copula draws what a sequence is, a network its steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from safegen.backends.arrays import (
    check_block,
    load_arrays,
    read_curves,
    read_document,
    whole,
)
from safegen.backends.networks import load_tensors, rebuilt, save_tensors
from safegen.backends.sdv.copula import CopulaModel, read_marginals
from safegen.backends.sdv.marginals import Levels, Marginal, Quantiles
from safegen.backends.undisturbed import undisturbed
from safegen.contracts import Scalar
from safegen.errors import UsageError, reading
from safegen.tables.codec import Codec, Feature

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

__all__ = ["BLOCK_ROWS", "CELLS", "Layout", "Parts", "SequenceModel", "new_network", "scored"]

FORMAT = "safegen.sequences/1"
BLOCK_ROWS = 1_024  # sequences
CELLS = 20_000_000  # held at once of a batch of sequences: 80 MB
LEAST_SPREAD = 1e-2  # of a number's normal score, given what came before


@dataclass(frozen=True)
class Parts:
    """How a table is cut: columns said once a sequence, columns said at each step.

    `length`, `start` and `step` are the names of derived columns: how many rows a sequence has,
    its first index, and the distance of each row's index from the one before.
    """

    key: str
    index: str | None
    length: str
    start: str
    step: str
    scale: int | None  # of a decimal index
    low: float  # of the index, in the numbers of `tables.numbers`
    high: float
    grid: int  # whole-number indexes are multiples of this, counted from `low`
    clip: bool
    longest: int


@dataclass(frozen=True)
class Layout:
    """Where each feature of a step stands in the network's vectors.

    A number has two slots, its score (mean) and a spread; a category one per level; the last slot
    marks the start.
    """

    features: tuple[Feature, ...]

    @property
    def slots(self) -> list[slice]:
        found, at = [], 0
        for feature in self.features:
            width = feature.levels or 2
            found.append(slice(at, at + width))
            at += width
        return found

    @property
    def size(self) -> int:
        return sum(f.levels or 2 for f in self.features) + 1


def scored(feature: Feature, marginal: Marginal, values: np.ndarray) -> np.ndarray:
    """The normal score of each value: of a step of the marginal the middle."""
    from scipy.special import ndtri

    if isinstance(marginal, Levels):
        return marginal.scores(values)
    assert isinstance(marginal, Quantiles)
    left = np.searchsorted(marginal.values, values, "left")
    right = np.searchsorted(marginal.values, values, "right")
    last = len(marginal.at) - 1
    middle = (marginal.at[np.minimum(left, last)] + marginal.at[np.maximum(right - 1, 0)]) / 2
    between = np.interp(values, marginal.values, marginal.at)
    at = np.where(right > left, middle, between)
    scores: np.ndarray = at if marginal.parametric else ndtri(np.clip(at, 1e-4, 1 - 1e-4))
    return scores


@dataclass(frozen=True, eq=False)
class SequenceModel:
    """Sequences, drawn on the CPU. Sampling changes nothing: block i depends on (seed, i) only."""

    table: str
    arrow_schema: pa.Schema
    parts: Parts
    context: CopulaModel  # of one row per sequence
    codec: Codec  # of the steps
    marginals: tuple[Marginal, ...]  # of the steps' features
    network: Any  # deepecho's PARNet; None when steps have no feature
    sample_size: int
    curves: dict[str, list[float]]

    def sample(
        self,
        rows: int,
        *,
        seed: int,
        block: int,
        conditions: Mapping[str, Scalar] | None = None,
    ) -> dict[str, pa.Table]:
        """`rows` sequences of a block, whole; fewer are a prefix of more.

        Raises: UsageError for rows or conditions.
        """
        import pyarrow as pa

        if conditions:
            raise UsageError("sdv.par takes no conditions")
        check_block(rows, BLOCK_ROWS, seed, block)
        [context] = self.context.sample(BLOCK_ROWS, seed=seed, block=block).values()
        lengths = np.asarray(context.column(self.parts.length), dtype=np.int64)
        asked = np.arange(BLOCK_ROWS) < max(rows, 1)
        lengths = np.where(asked, lengths, 0)  # the others keep the network's batches in shape
        steps = self._steps(context, lengths, seed, block)
        owner = np.repeat(np.arange(BLOCK_ROWS), lengths)
        columns = {}
        for name in self.arrow_schema.names:
            if name == self.parts.index:
                column = self._index(context, steps, lengths)
            elif name in steps.column_names:
                column = steps.column(name)
            else:
                column = context.column(name).take(pa.array(owner))
            columns[name] = column
        table = pa.table(columns, schema=self.arrow_schema)
        return {self.table: table.slice(0, int(lengths[:rows].sum()))}

    @property
    def _batch(self) -> int:
        """Sequences drawn at once: a fixed number, so that none depends on its company, and a
        power of two."""
        cells = self.parts.longest * max(len(self.codec.features), 1)
        return 1 << max(min(BLOCK_ROWS, CELLS // cells), 1).bit_length() - 1

    def _steps(self, context: pa.Table, lengths: np.ndarray, seed: int, block: int) -> pa.Table:
        """The columns of the steps, sequence after sequence."""
        total = int(lengths.sum())
        features: dict[str, np.ndarray] = {}
        if self.network is not None:
            flat = self._drawn(context, lengths, seed, block)
            for i, feature in enumerate(self.codec.features):
                values = flat[:, i].astype(np.float64)
                marginal = self.marginals[i]
                is_code = feature.kind == "categorical"
                features[feature.name] = (
                    values.astype(np.int32) if is_code else marginal.value(values)
                )
        first = block * BLOCK_ROWS * self.parts.longest
        return self.codec.decode(features, first_row=first, seed=seed, rows=total)

    def _drawn(self, context: pa.Table, lengths: np.ndarray, seed: int, block: int) -> np.ndarray:
        """Scores and codes, (steps, features), of each sequence the likeliest of `sample_size`."""
        import torch

        from safegen.backends.networks import torch_seed
        from safegen.backends.undisturbed import one_thread

        ctx = torch.from_numpy(self.contexts(context))
        parts = []
        with one_thread(), torch.inference_mode():
            for start in range(0, len(lengths), self._batch):
                some = lengths[start : start + self._batch]
                if not some.any():
                    break
                best, likeliest = None, np.full(len(some), -np.inf)
                for attempt in range(self.sample_size):
                    noise = torch.Generator().manual_seed(
                        torch_seed(seed, block, 1, start, attempt)
                    )
                    part = ctx[start : start + self._batch]
                    found, likelihood = self._once(part, some, noise)
                    better = (likelihood > likeliest)[:, None, None]
                    best = found if best is None else np.where(better, found, best)
                    likeliest = np.maximum(likelihood, likeliest)
                assert best is not None
                parts.append(best[np.arange(best.shape[1])[None, :] < some[:, None]])
        return np.concatenate(parts)

    def contexts(self, context: pa.Table) -> np.ndarray:
        """What the network is told of each sequence: the scores of the copula's features."""
        features = self.context.codec.encode(context, seed=0)
        pairs = list(zip(self.context.codec.features, self.context.marginals, strict=True))
        scores = [scored(f, m, features[f.name]) for f, m in pairs]
        if not scores:
            return np.zeros((context.num_rows, 0), np.float32)
        return np.stack(scores, axis=1).astype(np.float32)

    def _once(
        self, ctx: torch.Tensor, lengths: np.ndarray, generator: torch.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        import torch

        layout = Layout(self.codec.features)
        net, slots = self.network, layout.slots
        x = torch.zeros(len(lengths), layout.size)
        x[:, -1] = 1.0
        hidden = None
        longest = int(lengths.max())
        found = np.zeros((len(lengths), longest, len(slots)), np.float32)
        likelihood = np.zeros(len(lengths))
        for t in range(longest):
            out, hidden = net.rnn(net.down(torch.cat([x, ctx], dim=1))[None], hidden)
            out = net.up(out)[0]
            x = torch.zeros_like(x)
            step = np.zeros(len(lengths))
            for i, (feature, slot) in enumerate(zip(layout.features, slots, strict=True)):
                part = out[:, slot]
                if feature.levels:
                    logs = torch.log_softmax(part, dim=1)
                    code = torch.multinomial(logs.exp(), 1, generator=generator)
                    x[:, slot] = torch.zeros_like(part).scatter_(1, code, 1.0)
                    found[:, t, i] = code[:, 0].numpy()
                    step += logs.gather(1, code)[:, 0].numpy()
                else:
                    spread = torch.nn.functional.softplus(part[:, 1]) + LEAST_SPREAD
                    noise = torch.randn(len(lengths), generator=generator)
                    value = (part[:, 0] + spread * noise).clamp(-6.0, 6.0)
                    x[:, slot.start] = value
                    found[:, t, i] = value.numpy()
                    step += (-0.5 * noise**2 - spread.log()).numpy()
            likelihood += np.where(t < lengths, step, 0.0)
        return found, likelihood

    def _index(self, context: pa.Table, steps: pa.Table, lengths: np.ndarray) -> pa.Array:
        """The sequence index: it never falls, and stays within the source's bounds."""
        from safegen.tables.numbers import from_numbers, single, to_numbers

        parts = self.parts
        type_ = self.arrow_schema.field(parts.index).type
        start, _ = to_numbers(single(context.column(parts.start)), parts.scale)
        gaps = np.asarray(steps.column(parts.step))
        inside = np.arange(int(lengths.max()))[None, :] < lengths[:, None]
        whole = np.zeros(inside.shape, gaps.dtype)
        whole[inside] = gaps
        whole[:, 0] = 0
        behind = np.cumsum(whole, axis=1)
        if parts.clip:
            span = behind[:, -1]
            low, high = start.dtype.type(parts.low), start.dtype.type(parts.high)
            start = np.maximum(np.minimum(start, high - np.minimum(span, high - low)), low)
            room = high - start
            ratio = np.where(span > room, room / np.maximum(span, 1), 1.0)
            squeezed = behind * ratio[:, None]
            if behind.dtype.kind == "i":
                squeezed = np.floor(squeezed / parts.grid).astype(behind.dtype) * parts.grid
            behind = np.where(ratio[:, None] < 1.0, squeezed, behind)
        numbers = (start[:, None] + behind)[inside]
        if parts.clip:
            numbers = np.clip(numbers, low, high)
        return from_numbers(numbers, np.ones(len(numbers), dtype=bool), type_, parts.scale)

    # ---- on disk ---------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write JSON, arrays and safetensors: no pickle. The same model gives the same bytes."""
        import base64
        from dataclasses import asdict

        document = {
            "format": FORMAT,
            "table": self.table,
            "arrow_schema": base64.b64encode(self.arrow_schema.serialize()).decode("ascii"),
            "parts": asdict(self.parts),
            "codec": self.codec.to_json(),
            "parametric": [isinstance(m, Quantiles) and m.parametric for m in self.marginals],
            "sample_size": self.sample_size,
            "curves": self.curves,
        }
        arrays: dict[str, np.ndarray] = {}
        for i, marginal in enumerate(self.marginals):
            arrays |= {f"{name}_{i}": array for name, array in marginal.arrays().items()}
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, sort_keys=True, allow_nan=False)
        (folder / "model.json").write_text(text, encoding="utf-8")
        np.savez(folder / "arrays.npz", allow_pickle=False, **arrays)
        self.context.save(folder / "context")
        if self.network is not None:
            save_tensors(folder / "network.safetensors", self.network.state_dict())

    @classmethod
    def load(cls, folder: Path) -> SequenceModel:
        """Read what `save` wrote. Raises: BackendError for anything else."""
        import base64

        import pyarrow as pa

        with reading():
            context = CopulaModel.load(folder / "context")
            document = read_document(folder / "model.json", FORMAT)
            arrays = load_arrays(folder / "arrays.npz")
            codec = Codec.from_json(document["codec"])
            raw = base64.b64decode(document["arrow_schema"], validate=True)
            arrow_schema = pa.ipc.read_schema(pa.py_buffer(raw))
            parts = Parts(**document["parts"])
            known = {*codec.schema.names, *context.codec.schema.names, parts.index}
            if not set(arrow_schema.names) <= known:
                raise ValueError
            for number in (parts.longest, parts.grid):
                whole(number, 1, 1 << 53)
            if not np.isfinite([parts.low, parts.high]).all():
                raise ValueError
            marginals = read_marginals(codec.features, document["parametric"], arrays)
            network = None
            if codec.features:
                size = (Layout(codec.features).size, len(context.codec.features))
                tensors = load_tensors(folder / "network.safetensors")
                with undisturbed():
                    network = rebuilt(lambda: new_network(*size), tensors)
            return cls(
                str(document["table"]),
                arrow_schema,
                parts,
                context,
                codec,
                marginals,
                network,
                whole(document["sample_size"], 1, 100),
                read_curves(document["curves"]),
            )


def new_network(size: int, context: int) -> Any:
    """Deepecho's PARNet: a linear layer, a GRU of 32, a linear layer."""
    from deepecho.models.par import PARNet

    return PARNet(size, context)
