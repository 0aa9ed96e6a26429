"""Batches of tensors from a dataset: `Dataset.to_torch`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import IterableDataset, get_worker_info

from safegen.errors import UsageError
from safegen.loading.groups import Group
from safegen.loading.order import Order
from safegen.tables.batches import WEIGHT_COLUMN, is_provenance
from safegen.tables.images import image_bytes, is_image, opened_image
from safegen.tables.numbers import decoded, single, to_numbers
from safegen.tables.types import family, is_text

if TYPE_CHECKING:
    from safegen.manifest import Manifest

__all__ = ["TorchRows"]

Columns = dict[str, np.ndarray]
Batch = tuple[dict[str, torch.Tensor], torch.Tensor]


class TorchRows(IterableDataset[Batch]):
    """The rows of a dataset as batches `(features, weights)`, once an epoch, in a new order each.

    features: a tensor a column, by its name. Integers, and dates and times in the unit of their
    column, are int64, and booleans bool, where the column has no missing value; else, as other
    numbers and unsigned ones of 64 bits, float32 (times float64) with NaN; texts int64 codes, the
    position in `levels[column]`, -1 where missing; images uint8 (rows, height, width, channels).
    weights: float32, mean near 1; multiply the loss of each row by its own.

    `rank` of `world` processes see a share each, of the same number of rows but for one; within
    `torch.utils.data.DataLoader(rows, batch_size=None, num_workers=n)` the workers share that once
    more. `state_dict()`, `load_state_dict()`: to go on after the last batch that was given, in the
    same order; `epoch` counts on by itself, but not within workers: there it is to be set before
    each epoch.

    Every row group is hashed before it is parsed; VerificationError ends the epoch.
    """

    def __init__(
        self,
        manifest: Manifest,
        groups: Sequence[Group],
        kept: Sequence[np.ndarray | None],
        *,
        batch_size: int,
        weighted: bool = True,
        columns: Sequence[str] | None = None,
        seed: int | None = 7,
        rank: int | None = None,
        world: int | None = None,
    ):
        if batch_size < 1:
            raise UsageError("batch_size is a number of rows, 1 or more")
        self.rank, self.world = _place(rank, world)
        schema = groups[0].file.schema if groups else pa.schema([])
        there = [n for n in schema.names if not is_provenance(n)]
        names = there if columns is None else list(columns)
        if missing := [n for n in names if n not in there]:
            raise UsageError(f"the dataset has no column {', '.join(map(repr, missing))}")
        self.batch_size, self.seed, self.epoch, self.batches = batch_size, seed, 0, 0
        self.columns = tuple(names)
        self._digest, self._weighted = manifest.digest, weighted
        self._groups, self._kept = list(groups), list(kept)
        self._sizes = tuple(
            g.rows if k is None else len(k) for g, k in zip(groups, kept, strict=True)
        )
        self._missing = {n for g in groups if g.number == 0 for n in g.file.missing()}
        texts = [n for n in names if is_text(schema.field(n).type)]
        self.levels: Mapping[str, list[str]] = self._levels(texts)

    def __len__(self) -> int:
        """Batches of an epoch, of this rank where no worker shares it."""
        return -(-self._order(0, 1).rows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        order = self._order(*((0, 1) if worker is None else (worker.id, worker.num_workers)))
        for batch in self._batches(order, self.batches * self.batch_size):
            self.batches += 1
            yield batch
        self.epoch, self.batches = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where it is: to be saved with a checkpoint, by each rank its own."""
        return {"epoch": self.epoch, "batches": self.batches, **self._fixed()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken. Raises: UsageError when that was of another dataset,
        another rank, or other batches: rows would be seen twice, or never."""
        fixed = self._fixed()
        if other := [k for k, v in fixed.items() if state.get(k) != v]:
            raise UsageError(f"the state is of another {' and '.join(other)}: it cannot go on here")
        self.epoch, self.batches = int(state["epoch"]), int(state["batches"])

    def _fixed(self) -> dict[str, Any]:
        return {
            "dataset": self._digest,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "rank": self.rank,
            "world": self.world,
        }

    def _order(self, worker: int, workers: int) -> Order:
        share, shares = self.rank * workers + worker, self.world * workers
        return Order(self._sizes, self.seed, self.epoch, share, shares)

    def _batches(self, order: Order, first: int) -> Iterator[Batch]:
        """The batches from row `first` of the share on. Rows are made numbers a group at a time,
        and put into their order once."""
        held: Columns | None = None
        for pieces, rows in order.mixed(first):
            groups, numbers, at = [], [], 0
            for piece in pieces:
                kept = self._kept[piece.group]
                groups.append(self._columns(piece.group))
                numbers.append(at + (piece.rows if kept is None else kept[piece.rows]))
                at += self._groups[piece.group].rows
            taken = np.concatenate(numbers)[rows]
            mixed = {n: v[taken] for n, v in _joined(groups).items()}
            held = mixed if held is None else _joined([held, mixed])
            count = len(held[WEIGHT_COLUMN])
            whole = count // self.batch_size * self.batch_size
            for start in range(0, whole, self.batch_size):
                yield _batch(held, start, start + self.batch_size)
            held = {n: v[whole:] for n, v in held.items()}
        if held is not None and len(held[WEIGHT_COLUMN]):
            yield _batch(held, 0, self.batch_size)

    def _columns(self, group: int) -> Columns:
        """A group's columns, and its weights."""
        table = self._groups[group].read([*self.columns, WEIGHT_COLUMN])
        columns = {n: self._numbers(n, single(table.column(n))) for n in self.columns}
        weights = np.asarray(table.column(WEIGHT_COLUMN), dtype=np.float32)
        columns[WEIGHT_COLUMN] = weights if self._weighted else np.ones_like(weights)
        return columns

    def _numbers(self, name: str, values: pa.Array) -> np.ndarray:
        if name in self.levels:
            return _codes(values, self.levels[name])
        if is_image(values.type):
            return _pixels(name, values)
        plain = decoded(values)
        kind = family(plain.type)
        if kind == "decimal":
            plain, kind = plain.cast(pa.float64(), safe=False), "float"
        if kind not in ("int", "float", "bool", "time"):
            raise UsageError(f"column {name!r} ({values.type}) makes no tensor; leave it out")
        if kind == "bool":
            plain = plain.cast(pa.int8())
        numbers, present = to_numbers(plain)
        if kind == "float" or name in self._missing or pa.types.is_uint64(plain.type):
            narrow = np.float64 if kind == "time" else np.float32
            return np.where(present, numbers, np.nan).astype(narrow)
        return numbers.astype(bool if kind == "bool" else np.int64)

    def _levels(self, names: Sequence[str]) -> dict[str, list[str]]:
        """The texts of each column, in order; from all groups, for a code must mean one text."""
        found: dict[str, set[str]] = {n: set() for n in names}
        for group in self._groups if names else ():
            table = group.read(names)
            for name in names:
                words = decoded(table.column(name)).unique().drop_null()
                found[name].update(words.to_pylist())
        return {n: sorted(v) for n, v in found.items()}


def _joined(parts: Sequence[Columns]) -> Columns:
    if len(parts) == 1:
        return parts[0]
    return {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}


def _batch(columns: Columns, start: int, stop: int) -> Batch:
    # Each a tensor of its own: who writes into one changes no other batch.
    tensors = {n: torch.from_numpy(v[start:stop].copy()) for n, v in columns.items()}
    return tensors, tensors.pop(WEIGHT_COLUMN)


def _place(rank: int | None, world: int | None) -> tuple[int, int]:
    """Which process of how many: as told, else as torch.distributed has it, else the only one."""
    if rank is None and world is None:
        on = torch.distributed.is_available() and torch.distributed.is_initialized()
        if not on:
            return 0, 1
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    if rank is None or world is None or not 0 <= rank < world:
        raise UsageError("rank and world go together, and 0 <= rank < world")
    return rank, world


def _codes(values: pa.Array, levels: Sequence[str]) -> np.ndarray:
    coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    position = {text: i for i, text in enumerate(levels)}
    of_word = np.array(
        [position.get(w, -1) for w in coded.dictionary.to_pylist()] + [-1], dtype=np.int64
    )
    found: np.ndarray = of_word[np.asarray(coded.indices.cast(pa.int64()).fill_null(-1))]
    return found


def _pixels(name: str, values: pa.Array) -> np.ndarray:
    arrays = [np.asarray(opened_image(data)) for data in image_bytes(values) if data is not None]
    if len(arrays) != len(values) or len({a.shape for a in arrays}) > 1:
        raise UsageError(f"images of column {name!r} are missing or not all of one size")
    pixels = np.stack(arrays)
    return pixels if pixels.ndim == 4 else pixels[..., None]
