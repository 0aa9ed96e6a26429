"""Training a tabular diffusion model: batches, the loss, EMA, early stopping."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from safegen.backends.diffusion.table_encoding import Encoding, Layout, Rows
from safegen.backends.diffusion.table_model import TableModel
from safegen.backends.diffusion.table_network import Denoiser
from safegen.backends.diffusion.table_sampling import Schedule
from safegen.backends.networks import device_of, finite, seeded, sound
from safegen.backends.undisturbed import failing, undisturbed
from safegen.errors import SourceError
from safegen.progress import progress
from safegen.tables.codec import Codec
from safegen.tables.streams import stream

if TYPE_CHECKING:
    from safegen.backends.diffusion.tabular import Options

__all__ = ["fit", "train"]

MEDIAN, SPREAD = 0.5, 1.3  # of the noise levels of training: log-normal, as in EDM
HELD = 50  # validation rows at least, or a quarter of the table: few rows are soon memorised
CHECK_ROWS = 4_096  # validation rows at most
CHECK_DRAWS = 2  # noise levels of each at a look
REVEALED = 0.5  # share of the rows of which some columns are shown without noise
LOUDER = 4.0  # their noise, relative: what is shown settles most of the rest while noise is high
WARM_UP = 100  # steps in which the learning rate rises
LOOKS = 1_000  # at the validation rows, at most
FINITE_EVERY = 250  # steps: asking a GPU for the loss more often would make it wait
MOST_BYTES = 2e9
BATCH_COPIES, WEIGHT_COPIES = 24, 21  # 32-bit numbers per level and row, and per level and unit
ADVICE = "set a lower learning_rate"


class _Batches:
    """Training rows on the device, in place order, and the loss of some of them."""

    def __init__(self, rows: Rows, layout: Layout, denoiser: Denoiser):
        device = denoiser.share.device
        tokens = rows.tokens[:, list(layout.order)].astype(np.int64) + layout.starts
        self.low = torch.from_numpy(rows.low).to(device)
        self.width = torch.from_numpy(rows.width).to(device)
        self.at = torch.from_numpy(tokens.astype(np.int32)).to(device)
        self.share, self.owner, self.shares = denoiser.share, denoiser.owner, denoiser.shares

    def __len__(self) -> int:
        return len(self.low)

    def loss(
        self,
        network: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]],
        index: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """The denoising loss of rows, mean over columns: of numbers EDM's, whose target has unit
        variance at every noise level; of categories the cross-entropy of the level (Dieleman et
        al. 2022, "Continuous diffusion for categorical data")."""
        device, count = self.share.device, len(index)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        ranks = self.low[index] + self.width[index] * uniform(count, self.low.shape[1])
        scores = torch.special.ndtri(ranks.clamp(1e-6, 1 - 1e-6))
        at = self.at[index].long()
        levels = torch.zeros(count, len(self.share), device=device).scatter_(1, at, 1.0)
        clean = torch.cat([scores, levels - self.share], 1)
        columns = scores.shape[1] + at.shape[1]
        some = uniform(count, 1) < REVEALED
        revealed = uniform(count, columns) < uniform(count, 1) ** 2 * some
        strata = (torch.arange(count, device=device)[:, None] + uniform(count, 1)) / count
        sigma = MEDIAN * torch.exp(SPREAD * torch.special.ndtri(strata.clamp(1e-6, 1 - 1e-6)))
        sigma = torch.where(some, LOUDER * sigma, sigma)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        n = scores.shape[1]
        hidden = torch.cat([~revealed[:, :n], ~revealed[:, n:].index_select(1, self.owner)], 1)
        noisy = clean + sigma * noise * hidden
        f, logits = network(noisy, sigma, revealed)
        skip = 1 / (sigma**2 + 1)
        target = (scores - skip * noisy[:, :n]) / (sigma * skip.sqrt())
        entropy = -self.shares(logits, log=True).gather(1, at)
        losses = torch.cat([(f - target) ** 2, entropy], 1) * ~revealed
        total: Tensor = losses.sum() / (count * columns)
        return total


def train(
    denoiser: Denoiser,
    rows: Rows,
    layout: Layout,
    options: Options,
    seed: int,
    advance: Callable[[int], None],
) -> dict[str, list[float]]:
    """Train in place, and leave the best exponential moving average of the weights.

    Gives the curves: the training loss and the validation loss at each look. Raises: BackendError
    when the loss is not finite.
    """
    from diffusers.optimization import get_cosine_schedule_with_warmup
    from diffusers.training_utils import EMAModel

    device = denoiser.share.device
    shuffled = np.random.default_rng(stream(seed, 1)).permutation(len(rows.tokens))
    held = max(round(len(shuffled) * options.validation), min(HELD, len(shuffled) // 4))
    held = min(held, CHECK_ROWS) if options.validation else 0
    checked = _Batches(rows.take(shuffled[:held]), layout, denoiser)
    batches = _Batches(rows.take(shuffled[held:]), layout, denoiser)
    generator = torch.Generator(device).manual_seed(seed % 2**63)
    parameters = list(denoiser.parameters())
    optimizer = torch.optim.AdamW(
        parameters,
        lr=options.learning_rate,
        weight_decay=options.weight_decay,
        fused=True,
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, WARM_UP, options.steps)
    ema = EMAModel(parameters, decay=options.ema, foreach=True)
    network = torch.compile(denoiser) if device.type == "cuda" else denoiser
    every = max(options.validate_every, -(-options.steps // LOOKS))
    curves: dict[str, list[float]] = {"loss": [], "validation": []}
    best, best_weights, stale = float("inf"), [p.detach().clone() for p in parameters], 0
    total = torch.zeros((), device=device)
    since = 0
    denoiser.train()
    for step, index in enumerate(_indices(len(batches), options, generator), 1):
        loss = batches.loss(network, index, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        ema.step(parameters)
        total += loss.detach()
        since += 1
        advance(1)
        if not step % FINITE_EVERY:
            finite(float(total), step, ADVICE)
        if step % every and step != options.steps:
            continue
        curves["loss"].append(finite(float(total) / since, step, ADVICE))
        total.zero_()
        since = 0
        ema.store(parameters)
        ema.copy_to(parameters)
        found = curves["loss"][-1]
        if held:
            found = _check(network, denoiser, checked, options.batch_size, seed)
            curves["validation"].append(finite(found, step, ADVICE))
        if not held or found < best:
            best, stale = found, 0
            best_weights = [p.detach().clone() for p in parameters]
        else:
            stale += 1
        ema.restore(parameters)
        if stale >= options.patience:
            break
    with torch.no_grad():
        for parameter, weight in zip(parameters, best_weights, strict=True):
            parameter.copy_(weight)
    denoiser.eval()
    sound(denoiser.state_dict(), ADVICE)
    return {name: curve for name, curve in curves.items() if curve}


def _indices(rows: int, options: Options, generator: torch.Generator) -> Iterator[Tensor]:
    """`steps` batches of row numbers; each row comes once before any comes again."""
    size = options.batch_size
    waiting = torch.empty(0, dtype=torch.long, device=generator.device)
    for _ in range(options.steps):
        while len(waiting) < size:
            again = torch.randperm(rows, generator=generator, device=generator.device)
            waiting = torch.cat([waiting, again])
        yield waiting[:size]
        waiting = waiting[size:]


@torch.no_grad()
def _check(
    network: Callable[..., tuple[Tensor, Tensor]],
    denoiser: Denoiser,
    rows: _Batches,
    size: int,
    seed: int,
) -> float:
    """The loss of the validation rows, `size` at once, with the same noise at every look."""
    generator = torch.Generator(denoiser.share.device).manual_seed((seed + 1) % 2**63)
    denoiser.eval()
    index = torch.arange(len(rows), device=denoiser.share.device)
    parts = index.split(size) * CHECK_DRAWS  # type: ignore[no-untyped-call]
    losses = [float(rows.loss(network, part, generator)) * len(part) for part in parts]
    denoiser.train()
    return sum(losses) / (len(index) * CHECK_DRAWS)


def fit(
    table: str,
    codec: Codec,
    features: Mapping[str, np.ndarray],
    options: Options,
    seed: int,
    block_rows: int,
) -> TableModel:
    """Train on a codec's features. Raises: BackendError, UsageError."""
    schedule = Schedule(
        options.sampler,
        options.sampling_steps,
        options.sigma_min,
        options.sigma_max,
        options.rho,
    )
    encoding, rows = Encoding.fit(codec, features)
    if not codec.features:
        return TableModel(table, encoding, None, schedule, block_rows, {})
    device = device_of(options.device)
    _check_size(encoding, options, device)
    with (
        progress("training", options.steps) as advance,
        undisturbed(),
        _threads(options.threads),
        failing("training", "torch"),
        seeded(seed, device),
    ):
        denoiser = Denoiser.of(
            encoding, width=options.width, layers=options.layers, dropout=options.dropout
        ).to(device)
        curves = train(denoiser, rows, Layout.of(encoding), options, seed, advance)
    return TableModel(table, encoding, denoiser, schedule, block_rows, curves)


def _check_size(encoding: Encoding, options: Options, device: torch.device) -> None:
    """Raises: SourceError when a training step would fill the memory: 2 GB, or the GPU's."""
    width = sum(Layout.of(encoding).widths) + len(encoding.numbers)
    copies = BATCH_COPIES * options.batch_size + WEIGHT_COPIES * options.width
    needed, most = 4.0 * width * copies, MOST_BYTES
    if device.type == "cuda":
        most = 0.8 * torch.cuda.mem_get_info(device)[0]
    if needed <= most:
        return
    ways = "smaller batch_size or width, or fewer columns"
    where = f"{len(encoding.numbers):,} numeric ones"
    if encoding.groups:
        widest = max(encoding.categories, key=lambda f: f.levels)
        where += (
            f" and {len(encoding.groups):,} of levels, of which {widest.column!r} has the most, "
            f"{widest.levels:,}"
        )
        ways += "; group rare levels, or declare role id where a column names things"
    raise SourceError(
        f"diffusion.tabular would need about {needed / 1e9:,.1f} GB, and {most / 1e9:,.0f} GB are "
        f"the most: a row has {width:,} units for {len(encoding.codec.features):,} features, "
        f"{where}. Take a {ways}"
    )


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Inside, torch's CPU kernels run in `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
