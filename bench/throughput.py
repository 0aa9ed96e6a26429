"""Sampling throughput beside a plain diffusers loop: same network, steps and device, in one run.

    python bench/throughput.py                  # on the GPU when there is one
    python bench/throughput.py --rounds 5

The plain loop is what a user writes: a scheduler of diffusers around the network, batches of 256
images or 8,192 rows, float32, all of torch's threads. safegen's figure is of the whole way to
Arrow: sampling with as many processes as it chooses, decoding, PNG encoding. On a CPU the time
that worker processes take to start is in it. Rounds alternate; the median of each is printed.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from safegen.backends.diffusion.image import Image
from safegen.backends.diffusion.tabular import Tabular
from safegen.engines.local import sample_blocks
from safegen.tables.schema import infer_schema
from safegen.tables.sources import read_source
from safegen.testing import example_table


def images(rows: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    source = {"image": (digits.images * 15).astype(np.uint8), "label": digits.target}
    table = read_source(source).tables["table"].table()
    backend, schemas = Image(), {"table": infer_schema(table)}
    options = backend.Options.model_validate({"steps": 20})
    model = backend.fit({"table": table}, schemas, options, seed=1)

    def ours() -> None:
        list(sample_blocks(model, backend, schemas, rows=rows, seed=3))

    @torch.no_grad()
    def plain() -> None:
        for _ in range(rows // 256):
            scheduler = model.sampling.scheduler()
            x = torch.randn((256, 1, 8, 8), device=model.device)
            labels = torch.randint(0, 10, (256,), device=model.device)
            for t in scheduler.timesteps:
                said = model.net(scheduler.scale_model_input(x, t), t, class_labels=labels).sample
                x = scheduler.step(said, t, x).prev_sample
            x.cpu()

    return ours, plain


def tables(rows: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    table = example_table(20_000)
    backend, schemas = Tabular(), {"table": infer_schema(table)}
    options = backend.Options.model_validate({"steps": 20})
    model = backend.fit({"table": table}, schemas, options, seed=1)
    sampler = model._sampler

    def ours() -> None:
        list(sample_blocks(model, backend, schemas, rows=rows, seed=3))

    @torch.no_grad()
    def plain() -> None:
        shown = torch.zeros((1, sampler.layout.numbers + len(sampler.layout.order)), dtype=bool)
        shown = shown.to(sampler.device)
        for _ in range(rows // 8_192):
            scheduler = sampler.schedule.scheduler()
            x = torch.randn((8_192, sampler.denoiser.size), device=sampler.device)
            x = x * scheduler.init_noise_sigma
            sigmas = scheduler.sigmas[:-1].to(sampler.device).reshape(-1, 1, 1)
            for t, sigma in zip(scheduler.timesteps, sigmas, strict=True):
                whole, _ = sampler.denoiser.denoised(x, sigma, shown)
                skip = 1 / (sigma**2 + 1)
                x = scheduler.step((whole - skip * x) / (sigma * skip.sqrt()), t, x).prev_sample
            x.cpu()

    return ours, plain


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def compared(what: str, rounds: int) -> dict[str, float | str]:
    """Rows a second of safegen and of the plain loop, and on what. what: `image` or `tabular`."""
    gpu = torch.cuda.is_available()
    make, many, few = SIZES[what]
    rows = many if gpu else few
    ours, plain = make(rows)
    ours(), plain()  # imports, kernels
    times = [(seconds(ours), seconds(plain)) for _ in range(rounds)]
    mine, theirs = (rows / statistics.median(t) for t in zip(*times, strict=True))
    where = torch.cuda.get_device_name() if gpu else f"CPU, {torch.get_num_threads()} threads"
    return {"ours": mine, "plain": theirs, "device": where, "rows": rows}


SIZES = {"image": (images, 16_384, 1_024), "tabular": (tables, 1_048_576, 65_536)}
"""How each is made, and rows of a round on a GPU and without one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, torch {version('torch')}, ", end="")
    print(f"diffusers {version('diffusers')}; median of {arguments.rounds}")
    for what in SIZES:
        told = compared(what, arguments.rounds)
        ratio = told["ours"] / told["plain"]
        print(
            f"diffusion.{what} on {told['device']}: {told['ours']:,.0f} rows/s; "
            f"plain loop {told['plain']:,.0f}; ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
