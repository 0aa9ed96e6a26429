"""Photographs, a model of them that makes new images, and what people do to images."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image, ImageFilter

from safegen.contracts import BackendOptions
from safegen.tables.images import decoded_images, encoded_images, image_column
from safegen.tables.schema import TableSchema
from safegen.tables.streams import stream
from safegen.testing import Rows

Edit = Callable[[Image.Image], Image.Image]
SIDE = 64


def photographs(n: int, seed: int) -> np.ndarray:
    """Sections of two photographs: (n, 64, 64, 3)."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(seed)
    photos = [Image.fromarray(p) for p in load_sample_images().images]
    found = []
    for i in range(n):
        photo, side = photos[i % 2], int(rng.integers(150, 400))
        x, y = (int(rng.integers(0, size - side)) for size in photo.size)
        found.append(photo.resize((SIDE, SIDE), box=(x, y, x + side, y + side)))
    return np.stack([np.asarray(image) for image in found])


class Blends(Rows):
    """A backend that makes new images: two real ones, one over the other, mirrored or not."""

    def fit(
        self,
        tables: Mapping[str, pa.Table],
        schemas: Mapping[str, TableSchema],
        options: BackendOptions,
        *,
        seed: int,
    ) -> Any:
        return BlendsModel(super().fit(tables, schemas, options, seed=seed))


class BlendsModel:
    alone: ClassVar[bool] = True  # no worker knows this class

    def __init__(self, rows: Any):
        ((self.name, self.table),) = rows.tables.items()
        self.pixels, _ = decoded_images("image", self.table["image"])

    def sample(
        self, rows: int, *, seed: int, block: int, conditions: Mapping[str, Any] | None = None
    ) -> dict[str, pa.Table]:
        rng = np.random.default_rng(stream(seed, block))
        at = rng.integers(0, len(self.pixels), (2, Rows.block_rows))[:, :rows]
        part = rng.uniform(0.4, 0.6, Rows.block_rows)[:rows, None, None, None]
        over = self.pixels[at[1]]
        flipped = rng.random(Rows.block_rows)[:rows] < 0.5
        over[flipped] = over[flipped][:, :, ::-1]
        made = (part * self.pixels[at[0]] + (1 - part) * over).astype(np.uint8)
        table = self.table.take(pa.array(at[0]))
        column = image_column(encoded_images(made), [None] * rows, table.schema.field("image").type)
        return {self.name: table.set_column(0, table.schema.field("image"), column)}

    def save(self, folder: Path) -> None:
        raise NotImplementedError


def _jpeg(quality: int) -> Edit:
    def edit(image: Image.Image) -> Image.Image:
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=quality)
        return Image.open(io.BytesIO(sink.getvalue()))

    return edit


def _scaled(factor: float) -> Edit:
    return lambda image: image.resize([round(s * factor) for s in image.size])


EDITS: dict[str, Edit] = {
    "JPEG 90": _jpeg(90),
    "JPEG 70": _jpeg(70),
    "smaller": _scaled(0.75),
    "larger": _scaled(2),
    "there and back": lambda image: _scaled(4 / 3)(_scaled(0.75)(image)),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "brighter": lambda image: image.point(lambda x: min(255, round(1.1 * x))),
}
"""What is done to images that are passed on."""


def edited(files: Iterable[bytes], edit: Edit) -> list[bytes]:
    """PNG files of edited images, without any metadata."""
    found = []
    for data in files:
        image = edit(Image.open(io.BytesIO(data)).convert("RGB"))
        found += encoded_images(np.asarray(image)[None])
    return found


def folder_of(files: Iterable[bytes], to: Path) -> Path:
    """Image files in a new folder, in two classes."""
    for i, data in enumerate(files):
        (to / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (to / "ab"[i % 2] / f"{i}.png").write_bytes(data)
    return to
