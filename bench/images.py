"""Train `diffusion.image` on scikit-learn's digits, and measure what it makes.

    python bench/images.py                       # the defaults: some minutes on two cores
    python bench/images.py '{"steps": 500}'      # other options, as JSON

70 % of the 1,797 digits (8 × 8) are for training, 30 % held out. From 2,000 generated images, by
class: the accuracy on the held-out digits of a classifier (a random forest of 300 trees) trained on
them; and precision, recall, density and coverage (k = 5) of as many as there are training images
against the held-out ones, beside those of the training images themselves.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from safegen.backends.diffusion.image import Image, Options
from safegen.measure.prdc import prdc
from safegen.tables.images import decoded_images
from safegen.tables.schema import infer_schema
from safegen.tables.sources import read_source

MADE = 2_000


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, held-out images and labels; images uint8 (n, 8, 8)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    pixels = np.round(data.images * (255 / 16)).astype(np.uint8)
    train, held, train_y, held_y = train_test_split(
        pixels, data.target, test_size=0.3, random_state=0, stratify=data.target
    )
    return train, train_y, held, held_y


def accuracy(images: np.ndarray, labels: np.ndarray, held: np.ndarray, held_y: np.ndarray) -> float:
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(300, random_state=0).fit(images.reshape(len(images), -1), labels)
    return float(model.score(held.reshape(len(held), -1), held_y))


def made(model: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Generated images, uint8 (rows, 8, 8), and their labels."""
    size = Image.block_rows
    blocks = [
        model.sample(min(size, rows - start), seed=11, block=start // size)["table"]
        for start in range(0, rows, size)
    ]
    table = pa.concat_tables(blocks)
    pixels, _ = decoded_images("image", table.column("image"))
    return pixels[..., 0], np.asarray(table.column("label"))


def measured(options: dict[str, Any]) -> dict[str, Any]:
    """All figures; times in seconds, of this process' processor and by the clock."""
    train, train_y, _, _ = digits()
    table = read_source({"image": train, "label": train_y}).tables["table"].table()
    clock, spent = time.perf_counter(), time.process_time()
    model = Image().fit(
        {"table": table}, {"table": infer_schema(table)}, Options.model_validate(options), seed=7
    )
    trained = (time.perf_counter() - clock, time.process_time() - spent)
    return judged(model) | {
        "training_seconds": trained[0],
        "training_processor_seconds": trained[1],
        "held_out_loss": model.curves.get("held_out_loss", []),
    }


def judged(model: Any) -> dict[str, Any]:
    """The figures of a trained model."""
    train, train_y, held, held_y = digits()
    clock, spent = time.perf_counter(), time.process_time()
    images, labels = made(model, MADE)
    sampled = (time.perf_counter() - clock, time.process_time() - spent)
    flat = held.reshape(len(held), -1)
    return {
        "accuracy": accuracy(images, labels, held, held_y),
        "accuracy_real": accuracy(train, train_y, held, held_y),
        "prdc": prdc(flat, images[: len(train)].reshape(len(train), -1)),
        "prdc_real": prdc(flat, train.reshape(len(train), -1)),
        "sampling_seconds": sampled[0],
        "sampling_processor_seconds": sampled[1],
    }


if __name__ == "__main__":
    print(platform.platform(), f"{os.cpu_count()} cores, Python {platform.python_version()}")
    print({p: version(p) for p in ("torch", "diffusers", "scikit-learn", "numpy")})
    found = measured(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
    for name, value in found.items():
        print(f"{name}: {value}")
    for name in ("recall", "coverage"):
        share = found["prdc"][name].value / found["prdc_real"][name].value
        print(f"{name}: {share:.3f} of real against real (target: at least .80)")
