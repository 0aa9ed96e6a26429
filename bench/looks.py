"""How near images stay to themselves under what people do to them, by PDQ; and how near others are.

    python bench/looks.py

Sections of scikit-learn's two photographs, of several sizes, and its digits of 8 x 8.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits, load_sample_images

from safegen.lineage.image_detection import RADII
from safegen.tables.images import encoded_images
from safegen.tables.pdq import distances, luminance, pdq

Edit = Callable[[Image.Image], Image.Image]
IMAGES = 200


def jpeg(quality: int) -> Edit:
    """Saved as JPEG, and opened again."""

    def edit(image: Image.Image) -> Image.Image:
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=quality)
        return Image.open(sink)

    return edit


def scaled(factor: float) -> Edit:
    """Larger or smaller."""
    return lambda image: image.resize([round(side * factor) for side in image.size])


def blurred(radius: float) -> Edit:
    """By a Gaussian."""
    return lambda image: image.filter(ImageFilter.GaussianBlur(radius))


def cropped(image: Image.Image) -> Image.Image:
    """Without a fortieth at each edge, a pixel at least."""
    x, y = (max(side // 40, 1) for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y))


EDITS: dict[str, Edit] = {
    "JPEG, quality 90": jpeg(90),
    "JPEG, quality 70": jpeg(70),
    "JPEG, quality 50": jpeg(50),
    "scaled to 75 %": scaled(0.75),
    "scaled to 50 %": scaled(0.5),
    "scaled to 200 %": scaled(2),
    "blurred by 1 pixel": blurred(1),
    "blurred by 2 pixels": blurred(2),
    "brighter by 15 %": lambda image: image.point(lambda x: min(255, round(1.15 * x))),
    "cropped at all edges": cropped,
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def sections(side: int) -> list[Image.Image]:
    """Sections of 150 to 400 pixels a side, brought to `side`."""
    rng = np.random.default_rng(side)
    photos = [Image.fromarray(p) for p in load_sample_images().images]
    found = []
    for i in range(IMAGES):
        photo, size = photos[i % 2], int(rng.integers(150, 400))
        x, y = (int(rng.integers(0, length - size)) for length in photo.size)
        found.append(photo.resize((side, side), box=(x, y, x + size, y + size)))
    return found


def hashes(images: list[Image.Image]) -> np.ndarray:
    """(images, 32) uint8."""
    files = [encoded_images(np.asarray(image.convert("RGB"))[None])[0] for image in images]
    return np.stack([pdq(luminance(data))[0] for data in files])


def main() -> None:
    """Print a table for each kind of images."""
    kinds = {f"photographs, {side} x {side}": sections(side) for side in (256, 64, 32)}
    digits = load_digits().images[:IMAGES] * 15
    kinds["digits, 8 x 8"] = [Image.fromarray(d.astype(np.uint8)) for d in digits]
    within = " | ".join(f"within {bits}" for bits in RADII)
    for kind, images in kinds.items():
        plain = hashes(images)
        print(f"\n{kind} | bits, median | {within}")
        for name, edit in EDITS.items():
            apart = np.diag(distances(plain, hashes([edit(image) for image in images])))
            shares = " | ".join(f"{(apart <= bits).mean():.0%}" for bits in RADII)
            print(f"{name} | {np.median(apart):.0f} | {shares}")
        others = distances(plain, plain)
        np.fill_diagonal(others, 256)
        nearest = others.min(axis=1)
        shares = " | ".join(f"{(nearest <= bits).mean():.0%}" for bits in RADII)
        print(f"nearest other image | {np.median(nearest):.0f} | {shares}")


if __name__ == "__main__":
    main()
