"""SDV's probabilistic autoregressive model for sequences, seeded, in batches, without a pickle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from safegen.backends.networks import Device
from safegen.backends.options import TableOptions
from safegen.contracts import BackendOptions, Kind
from safegen.errors import SourceError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from safegen.backends.sdv.sequences import Layout, SequenceModel
    from safegen.tables.schema import TableSchema

__all__ = ["PAR", "Options"]

MOST_SLOTS = 4_096  # of a step's vector: levels of its columns


class Options(TableOptions):
    """SDV's options, by SDV's names (`device` is its `cuda`), and `batch_size`."""

    epochs: int = Field(128, ge=1, description="Passes over all sequences.")
    batch_size: int = Field(
        500,
        ge=1,
        description="Sequences per step of training. SDV takes all at once, so 128 epochs are 128 "
        "steps, and they do not fit in memory when there are many.",
    )
    context_columns: list[str] | None = Field(
        None,
        description="Columns that are constant within each sequence. Default: all that are.",
    )
    segment_size: int | None = Field(
        None, ge=2, description="Cut training sequences into pieces of this many rows."
    )
    sample_size: int = Field(
        1,
        ge=1,
        le=100,
        description="Draws per sequence, of which the likeliest is kept. More than 1 makes "
        "sequences more alike than real ones are.",
    )
    device: Device = Field("auto", description="Where to train; sampling runs on the CPU.")


class PAR:
    """Sequences by `sequence_key`, ordered by `sequence_index`; `rows` counts sequences.

    What is constant within sequences, their length and their start are drawn by a Gaussian copula,
    so lengths are as in the source; the steps by SDV's network (deepecho's PARNet, a GRU), which
    sees all of that. The index never falls within a sequence. Unlike SDV's, it can be seeded, it
    trains in batches (23,570 sequences in seconds an epoch), and it draws a block at once.
    """

    name: ClassVar[str] = "sdv.par"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"sequences"})
    license: ClassVar[str] = "BUSL-1.1"
    packages: ClassVar[tuple[str, ...]] = ("sdv", "deepecho", "copulas", "rdt", "torch")
    weights: ClassVar[bool] = False
    conditions: ClassVar[bool] = False
    reproducible: ClassVar[bool] = True
    pickles: ClassVar[bool] = False
    block_rows: ClassVar[int] = 1_024
    Options: ClassVar[type[BackendOptions]] = Options

    def fit(
        self,
        tables: Mapping[str, pa.Table],
        schemas: Mapping[str, TableSchema],
        options: BackendOptions,
        *,
        seed: int,
    ) -> SequenceModel:
        """Fit the sequences of one table. On a CPU the same input gives the same model.

        Raises: SourceError (no sequences, or unusable ones), UsageError (options), BackendError
        (training diverged, SDV failed), MissingExtra.
        """
        from safegen.backends.networks import device_of, require
        from safegen.backends.sdv.cutting import Cut
        from safegen.backends.sdv.gaussian_copula import fit_copula
        from safegen.backends.sdv.library import require_sdv
        from safegen.backends.sdv.marginals import Levels, Quantiles
        from safegen.backends.sdv.sequences import BLOCK_ROWS, Layout, SequenceModel, scored
        from safegen.backends.undisturbed import undisturbed
        from safegen.tables.constraints import by_table
        from safegen.tables.schema import check_table

        if not isinstance(options, Options):
            raise UsageError("the options are not those of sdv.par")
        if len(tables) != 1:
            raise SourceError(f"sdv.par takes one table, not {len(tables)}")
        ((name, table),) = tables.items()
        check_table(table, name)
        require_sdv()
        require("deepecho", "sdv")
        device = device_of(options.device)
        cut = Cut.of(
            name,
            table,
            schemas[name],
            options.context_columns,
            options.enforce_min_max_values,
        )
        once, at_steps = cut.apart(by_table(options.constraints, tables)[name])
        context_codec = options.codec(
            cut.context, cut.context_schema, seed=seed, masses=False, constraints=once
        )
        codec = options.codec(cut.steps, cut.steps_schema, seed=seed, constraints=at_steps)
        layout = Layout(codec.features)
        _check_size(layout)
        known = context_codec.encode(cut.context, seed=seed)
        features = codec.encode(cut.steps, seed=seed)
        with undisturbed():
            numeric = [f.column for f in context_codec.features if f.kind == "numeric"]
            empirical = dict.fromkeys(numeric, "empirical")
            context = fit_copula("context", context_codec, known, empirical, seed, BLOCK_ROWS)
        marginals = tuple(
            Levels.fit(features[f.name], f.levels)
            if f.kind == "categorical"
            else Quantiles.empirical(features[f.name])
            for f in codec.features
        )
        model = SequenceModel(
            name,
            table.schema.remove_metadata(),
            cut.parts,
            context,
            codec,
            marginals,
            None,
            options.sample_size,
            {},
        )
        if not codec.features:
            return model
        pairs = zip(codec.features, marginals, strict=True)
        values = [
            features[f.name] if f.kind == "categorical" else scored(f, m, features[f.name])
            for f, m in pairs
        ]
        pieces = cut.segments(options.segment_size)
        _check_length(layout, int(pieces[:, 1].max()), cut.parts.longest)
        data = _Data(layout, values, pieces, model.contexts(cut.context))
        network, losses = _trained(data, options, seed, device)
        return replace(model, network=network, curves={"loss": losses})

    def load(self, folder: Path) -> SequenceModel:
        """Read what `SequenceModel.save` wrote. Raises: BackendError, MissingExtra."""
        from safegen.backends.networks import require
        from safegen.backends.sdv.sequences import SequenceModel

        require("deepecho", "sdv")
        return SequenceModel.load(folder)


def _check_size(layout: Layout) -> None:
    if layout.size > MOST_SLOTS:
        widest = max(layout.features, key=lambda f: f.levels)
        raise SourceError(
            f"column {widest.column!r} has {widest.levels:,} levels that change within sequences, "
            f"and a step can hold {MOST_SLOTS:,} levels of all columns: group its rare levels, "
            "declare role id, or drop it"
        )


def _check_length(layout: Layout, piece: int, longest: int) -> None:
    """Raises: SourceError for a sequence that would fill the memory, to train on or to make."""
    from safegen.backends.sdv.sequences import CELLS

    if max(piece * layout.size, longest * len(layout.features)) <= CELLS:
        return
    way = "cut such sequences before the fit"
    if longest * len(layout.features) <= CELLS:
        way = f"say segment_size={min(CELLS // layout.size, 1_000)}, or {way}"
    raise SourceError(
        f"the longest sequence has {longest:,} rows of {layout.size:,} slots, and {CELLS:,} cells "
        f"are the most that is learned at once: {way}"
    )


# ---- training ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Data:
    """The rows as scores and codes, the pieces to train on, what is known of each sequence."""

    layout: Layout
    values: list[np.ndarray]
    pieces: np.ndarray
    contexts: np.ndarray

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """The pieces in batches of about equal lengths, in an order of this epoch's own."""
        import numpy as np

        from safegen.backends.sdv.sequences import CELLS

        shuffled = rng.permutation(len(self.pieces))
        by_length = shuffled[np.argsort(self.pieces[shuffled, 1], kind="stable")]
        batches, start = [], 0
        while start < len(by_length):
            end = min(start + size, len(by_length))
            while end - start > 1:
                longest = self.pieces[by_length[end - 1], 1]
                if (end - start) * longest * self.layout.size <= CELLS:
                    break
                end = start + (end - start) // 2
            batches.append(by_length[start:end])
            start = end
        for i in rng.permutation(len(batches)):
            yield batches[i]


def _trained(data: _Data, options: Options, seed: int, device: Any) -> tuple[Any, list[float]]:
    """The trained network, on the CPU, and the loss of each epoch: nats per row."""
    import numpy as np
    import torch

    from safegen.backends.networks import finite, seeded, sound, thinned
    from safegen.backends.sdv.sequences import new_network
    from safegen.backends.undisturbed import failing, undisturbed
    from safegen.progress import progress
    from safegen.tables.streams import stream

    losses: list[float] = []
    with (
        progress("training", options.epochs, "epochs") as advance,
        undisturbed(),
        failing("training the autoregressive network", "deepecho"),
        seeded(seed, device),
    ):
        network = new_network(data.layout.size, data.contexts.shape[1])
        _start_at_the_marginals(network, data)
        network = network.to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)  # deepecho's
        rng = np.random.default_rng(stream(seed, 4))
        steps, advice = 0, "try fewer columns, or drop columns with extreme numbers"
        for _ in range(options.epochs):
            total, rows = 0.0, 0
            for batch in data.batches(options.batch_size, rng):
                optimizer.zero_grad()
                loss = _loss(network, data, batch, device)
                held = int(data.pieces[batch, 1].sum())
                (loss / held).backward()
                steps += 1
                total += finite(float(loss.detach()), steps, advice)
                rows += held
                optimizer.step()
            losses.append(total / rows)
            advance(1)
        network = network.to("cpu").requires_grad_(False).eval()
        sound(network.state_dict(), advice)
    return network, thinned(losses)


def _start_at_the_marginals(network: Any, data: _Data) -> None:
    """The output layer says the shares of levels and N(mean, spread) of scores, whatever came
    before: what is left to learn is dependence, and a short training loses no share."""
    import math

    import numpy as np
    import torch

    with torch.no_grad():
        network.up.weight.zero_()
        network.up.bias.zero_()
        for feature, slot, values in zip(
            data.layout.features, data.layout.slots, data.values, strict=True
        ):
            if feature.levels:
                shares = np.bincount(values, minlength=feature.levels) / len(values)
                network.up.bias[slot] = torch.from_numpy(np.log(np.maximum(shares, 1e-9)))
            else:
                spread = max(float(values.std()), 0.1)
                network.up.bias[slot.start] = float(values.mean())
                network.up.bias[slot.start + 1] = math.log(math.expm1(spread))


def _loss(network: Any, data: _Data, batch: np.ndarray, device: Any) -> Any:
    """The negative log-likelihood of a batch's rows, each given those before it; a scalar."""
    import numpy as np
    import torch

    from safegen.backends.sdv.sequences import LEAST_SPREAD

    first, lengths, owners = data.pieces[batch].T
    longest = int(lengths.max())
    at = np.minimum(np.arange(longest)[:, None], lengths - 1)
    rows = first + at  # (longest, batch); what pads a piece is masked
    mask = torch.from_numpy(np.arange(longest)[:, None] < lengths).to(device)
    x = torch.zeros(longest, len(batch), data.layout.size, device=device)
    targets = []
    for feature, slot, values in zip(
        data.layout.features, data.layout.slots, data.values, strict=True
    ):
        if feature.levels:
            codes = torch.from_numpy(values[rows].astype(np.int64)).to(device)
            x[:, :, slot].scatter_(2, codes[:, :, None], 1.0)
            targets.append(codes)
        else:
            scores = torch.from_numpy(values[rows].astype(np.float32)).to(device)
            x[:, :, slot.start] = scores
            targets.append(scores)
    before = torch.zeros_like(x)
    before[0, :, -1] = 1.0
    before[1:] = x[:-1]
    context = torch.from_numpy(data.contexts[owners]).to(device)
    out = network(before, context)
    loss = torch.zeros((), device=device)
    for feature, slot, target in zip(data.layout.features, data.layout.slots, targets, strict=True):
        part = out[:, :, slot]
        if feature.levels:
            logs = torch.log_softmax(part, dim=2).gather(2, target[:, :, None])[:, :, 0]
        else:
            spread = torch.nn.functional.softplus(part[:, :, 1]) + LEAST_SPREAD
            logs = -0.5 * ((target - part[:, :, 0]) / spread) ** 2 - spread.log()
        loss = loss - (logs * mask).sum()
    return loss
