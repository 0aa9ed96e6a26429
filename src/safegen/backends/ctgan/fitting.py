"""From a table to a trained network, and back to a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from safegen.backends.ctgan.model import NeuralModel, Number, Part
from safegen.backends.ctgan.options import GANOptions
from safegen.backends.networks import device_of, seeded, sound, thinned
from safegen.backends.undisturbed import failing, undisturbed
from safegen.errors import SourceError
from safegen.progress import progress
from safegen.tables.constraints import by_table
from safegen.tables.schema import check_table
from safegen.tables.streams import stream

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from safegen.backends.ctgan.backend import NetworkBackend
    from safegen.backends.ctgan.training import Watch, WatchedCTGAN, WatchedTVAE
    from safegen.backends.sdv.marginals import Quantiles
    from safegen.tables.codec import Codec
    from safegen.tables.schema import TableSchema

__all__ = ["MOST_BYTES", "Lesson", "Taught", "fit_network"]

MOST_BYTES = 2e9


@dataclass(frozen=True, eq=False)
class Lesson:
    """What a library gets to learn: plain columns under neutral names."""

    frame: pd.DataFrame  # c0, c1, …: codes of levels, or standardised float64
    columns: Mapping[str, str]  # the user's column that a numeric one of them comes from
    watch: Watch
    gpu: bool

    @property
    def discrete(self) -> list[str]:
        """The columns of codes."""
        return [name for name in self.frame.columns if name not in self.columns]


@dataclass(frozen=True, eq=False)
class Taught:
    """What the library made of it."""

    model: WatchedCTGAN | WatchedTVAE
    marginals: Mapping[str, Quantiles] = field(default_factory=dict)  # of CopulaGAN's numbers


def fit_network(
    backend: NetworkBackend,
    tables: Mapping[str, pa.Table],
    schemas: Mapping[str, TableSchema],
    options: Any,
    *,
    seed: int,
) -> NeuralModel:
    """Fit one table. The same table, options and seed give the same model on a CPU.

    Raises: SourceError, UsageError, BackendError.
    """
    if len(tables) != 1:
        raise SourceError(f"{backend.name} takes one table, not {len(tables)}")
    ((title, table),) = tables.items()
    check_table(table, title)
    device = device_of(options.device)
    codec = options.codec(
        table,
        schemas[title],
        seed=seed,
        smooth=backend._whole(options, schemas[title], table.num_rows),
        constraints=by_table(options.constraints, tables)[title],
    )
    if not codec.features:
        return NeuralModel(backend.name, title, codec, None, (), {})
    _check_size(backend.name, codec, table.num_rows, options)
    features = codec.encode(table, seed=seed)
    with (
        progress(f"training {backend.name}", options.epochs, "epochs") as advance,
        undisturbed(),
        seeded(seed, device),
        failing("training", backend.name),
    ):
        np.random.seed(stream(seed).generate_state(4))
        lesson, scales = _lesson(codec, features, advance, options, device.type == "cuda", seed)
        taught = backend._teach(lesson, options)
        parts: list[Part] = []
        for name, column in taught.model.columns.items():
            if isinstance(column, int):
                codes = lesson.frame[name].to_numpy()
                parts.append(np.bincount(codes, minlength=column) / len(codes))
            else:
                parts.append(Number(*scales[name], column.modes, taught.marginals.get(name)))
        curves = {name: thinned(curve) for name, curve in lesson.watch.curves.items()}
        network = taught.model.network
        sound(network.weights, lesson.watch.advice)
        return NeuralModel(backend.name, title, codec, network, tuple(parts), curves)


def _lesson(
    codec: Codec,
    features: Mapping[str, np.ndarray],
    advance: Callable[[int], None],
    options: Any,
    gpu: bool,
    seed: int,
) -> tuple[Lesson, dict[str, tuple[float, float]]]:
    """The lesson; and of its numeric columns the centre and the scale that were taken out.

    They are, because the library's mixtures add 10⁻⁶ to every variance: numbers that differ by
    less than 0.001 would all be one.
    """
    import pandas as pd

    from safegen.backends.ctgan.training import Watch

    scales: dict[str, tuple[float, float]] = {}
    columns: dict[str, np.ndarray] = {}
    owners: dict[str, str] = {}
    gaps: dict[str, np.ndarray] = {}
    for i, feature in enumerate(codec.features):
        name, values = f"c{i}", features[feature.name]
        if feature.kind == "numeric":
            scales[name] = center, scale = float(values.mean()), float(values.std()) or 1.0
            values = (values - center) / scale
            owners[name] = feature.column
            gaps[name] = ~codec.is_continuous(feature.column, features)
        columns[name] = values
    advice = "make loss_factor smaller, or batch_size larger"
    if isinstance(options, GANOptions):
        advice = "make generator_lr and discriminator_lr ten times smaller, or batch_size larger"
    return Lesson(pd.DataFrame(columns), owners, Watch(advance, seed, advice, gaps), gpu), scales


def _check_size(backend: str, codec: Codec, rows: int, options: Any) -> None:
    """Raises: SourceError when one-hot coding, which these libraries do, would fill the memory.

    Counted are the training matrix (4 bytes a number, twice), a batch with its gradients, and
    the weights that touch it, with their gradients and Adam's two moments.
    """
    levels = sum(f.levels for f in codec.features)
    width = levels + 11 * sum(f.kind == "numeric" for f in codec.features)
    if isinstance(options, GANOptions):
        touching = options.pac * options.discriminator_dim[0] + options.generator_dim[-1]
    else:
        touching = options.compress_dims[0] + options.decompress_dims[-1]
    matrix = 2 * 4 * rows * width
    needed = matrix + 16 * (4 * options.batch_size + touching) * (width + levels)
    if needed <= MOST_BYTES:
        return
    widest = max(codec.features, key=lambda f: f.levels)
    raise SourceError(
        f"{backend} would need about {needed / 1e9:,.1f} GB, because it codes every level as a "
        f"column of its own, and {MOST_BYTES / 1e9:.0f} GB are the most. The column with the most "
        f"levels is {widest.column!r}: {widest.levels:,} in {rows:,} rows. If it names things, "
        "declare it role id; else group its rare levels"
        + (", fit on fewer rows," if matrix > needed / 2 else "")
        + " or use sdv.gaussian_copula, which needs no such columns, or diffusion.tabular, which "
        "groups rare levels by itself"
    )
