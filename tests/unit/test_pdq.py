"""PDQ: what a hash of an image's look keeps, and what changes it."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from PIL import Image, ImageFilter

from safegen.tables.images import encoded_images
from safegen.tables.pdq import BITS, NEAR, distances, luminance, pdq


@cache
def photos() -> list[Image.Image]:
    """Sections of two photographs."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    found = []
    for photo in map(Image.fromarray, load_sample_images().images):
        for _ in range(10):
            x, y = (int(rng.integers(0, size - 256)) for size in photo.size)
            found.append(photo.crop((x, y, x + 256, y + 256)))
    return found


def png(image: Image.Image) -> bytes:
    return encoded_images(np.asarray(image.convert("RGB"))[None])[0]


def jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def saved(image: Image.Image) -> Image.Image:
        sink = io.BytesIO()
        image.save(sink, "JPEG", quality=quality)
        return Image.open(sink)

    return saved


def scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize([round(side * factor) for side in image.size])


def hashes(images: list[Image.Image]) -> np.ndarray:
    return np.stack([pdq(luminance(png(image)))[0] for image in images])


def apart(edit: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    """Bits between each photograph and what an edit makes of it."""
    return np.diag(distances(hashes(photos()), hashes([edit(p) for p in photos()])))


@pytest.mark.parametrize(
    "edit",
    [
        jpeg(90),
        jpeg(70),
        jpeg(50),
        lambda p: scaled(p, 0.75),
        lambda p: scaled(p, 2),
        lambda p: scaled(scaled(p, 0.75), 4 / 3),
        lambda p: p.filter(ImageFilter.GaussianBlur(1)),
        lambda p: p.point(lambda x: min(round(1.1 * x), 255)),
        lambda p: p.convert("L"),
    ],
    ids=["jpeg90", "jpeg70", "jpeg50", "smaller", "larger", "back", "blurred", "brighter", "grey"],
)
def test_images_that_look_alike_are_near(edit: Callable[[Image.Image], Image.Image]) -> None:
    assert apart(edit).max() <= NEAR


@pytest.mark.parametrize(
    "edit",
    [
        lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda p: p.transpose(Image.Transpose.ROTATE_90),
        lambda p: p.crop((26, 26, 230, 230)),
    ],
    ids=["mirrored", "turned", "cropped"],
)
def test_images_that_are_laid_out_otherwise_are_far(
    edit: Callable[[Image.Image], Image.Image],
) -> None:
    assert np.median(apart(edit)) > NEAR


def test_other_images_are_far() -> None:
    found = distances(hashes(photos()), hashes(photos()))
    assert (np.diag(found) == 0).all()
    np.fill_diagonal(found, BITS)
    assert found.min() > 2 * NEAR


def test_half_of_the_bits_are_set_and_quality_tells_texture() -> None:
    for photo in photos():
        bits, quality = pdq(luminance(png(photo)))
        assert np.unpackbits(bits).sum() == BITS // 2
        assert quality > 50
    ramp = np.linspace(100, 110, 256)[None, :].repeat(256, axis=0)
    assert pdq(ramp)[1] < 10


@pytest.mark.parametrize("side", [1, 4, 5, 8, 63, 64, 65, 129, 600])
@pytest.mark.parametrize("grey", [0, 127, 255])
def test_flat_images_have_no_bits_of_rounding_errors(side: int, grey: int) -> None:
    flat = np.full((side, 2 * side, 3), grey, dtype=np.uint8)
    bits, quality = pdq(luminance(png(Image.fromarray(flat))))
    assert not bits.any()
    assert quality == 0


def blurred(luma: np.ndarray) -> np.ndarray:
    """What the reference does, step by step: boxes along rows, then columns, twice; then a cut."""
    for _ in range(2):
        for axis in (1, 0):
            size = luma.shape[axis]
            window = (size + 127) // 128
            half = (window + 2) // 2
            lines = np.moveaxis(luma, axis, 0)
            means = [lines[max(i + half - window, 0) : i + half].mean(axis=0) for i in range(size)]
            luma = np.moveaxis(np.stack(means), 0, axis)
    at = [((np.arange(64) + 0.5) * size / 64).astype(int) for size in luma.shape]
    return luma[np.ix_(*at)]


@pytest.mark.parametrize("shape", [(64, 64), (96, 200), (257, 129), (427, 500), (512, 512)])
def test_one_matrix_an_axis_is_the_filter_of_the_reference(shape: tuple[int, int]) -> None:
    luma = np.random.default_rng(1).uniform(0, 255, shape)
    small = blurred(luma)
    k, x = np.arange(1, 17)[:, None], np.arange(64)[None, :]
    cosines = np.sqrt(2 / 64) * np.cos(np.pi / 128 * k * (2 * x + 1))
    waves = (cosines @ small @ cosines.T).ravel()
    expected = np.packbits(waves > np.sort(waves)[127], bitorder="little")
    assert (pdq(luma)[0] == expected).all()


def test_a_hash_is_that_of_the_reference() -> None:
    """By Meta's C++ (as pdqhash 0.2.8 has it), of a picture that everybody can make."""
    y, x = np.mgrid[:200, :300]
    luma = np.round(127.5 + 60 * np.sin(x / 17 + y / 29) + 60 * np.cos(x * y / 4_001))
    bits, quality = pdq(luma)
    assert (bits.tobytes().hex(), quality) == (REFERENCE, 100)


REFERENCE = "b1aa19004c5552550aaaf5aa4a55f5aa4a55f5aa4a55f4bf4a55b5aa4a55f5ab"


def test_distances_are_counted_bit_by_bit() -> None:
    rng = np.random.default_rng(2)
    some, others = (rng.integers(0, 256, (n, 32), dtype=np.uint8) for n in (20, 30))
    one_by_one = [[np.unpackbits(a ^ b).sum() for b in others] for a in some]
    assert (distances(some, others) == one_by_one).all()


def test_large_images_are_brought_to_a_size_first() -> None:
    photo = photos()[0]
    large = photo.resize((2_000, 1_500))
    assert luminance(png(large)).shape == (512, 512)
    assert distances(hashes([photo]), hashes([large]))[0, 0] <= NEAR


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n", None])
def test_what_is_no_image_is_an_error(data: bytes | None) -> None:
    with pytest.raises(ValueError, match=r"no image|damaged"):
        luminance(png(photos()[0])[:2_000] if data is None else data)
