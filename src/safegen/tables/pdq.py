"""PDQ: hashes of how images look, which are near where the images look alike.

Luminance is blurred twice by boxes (Jarosz's filter), cut to 64 × 64 points, and of its cosine
transform the 16 × 16 lowest frequencies are compared with their median: 256 bits. (Davis and Rosen,
"The TMK+PDQF video-hashing algorithm and the PDQ image-hashing algorithm", Facebook 2019; the
reference is github.com/facebook/ThreatExchange, pdq/cpp.) Saving as JPEG, scaling, mild blur and
brightness change few of the bits; cropping, turning and mirroring change most.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from safegen.tables.images import opened_image

__all__ = ["BITS", "NEAR", "distances", "luminance", "pdq"]

BITS = 256

NEAR = 31
"""Bits by which hashes of images that look alike differ, at most, as is the custom."""

_SIDE, _FREQUENCIES = 64, 16
_LARGEST = 512  # pixels a side; the reference too brings larger images to this size first
_SMALLEST = 5
_PASSES = 2
_LUMINANCE = np.array([0.299, 0.587, 0.114])
_NOISE = 1e-6  # of sums; without it bits of flat and tiny images would be those of rounding errors


def luminance(data: bytes) -> np.ndarray:
    """(height, width) float64, 0 to 255: what is hashed of an encoded image, of 512 pixels a side
    at most.

    Raises: ValueError for what is no image that can be read.
    """
    image = opened_image(data, "RGB")
    if max(image.size) > _LARGEST:
        from PIL.Image import Resampling

        image = image.resize((_LARGEST, _LARGEST), Resampling.BOX)
    found: np.ndarray = np.asarray(image) @ _LUMINANCE
    return found


def pdq(luma: np.ndarray) -> tuple[np.ndarray, int]:
    """The hash of an image's luminance, (32,) uint8, and its quality: 0 (flat) to 100 (textured).

    luma: (height, width), 0 to 255. An image of fewer than 5 pixels a side has no bit set, as in
    the reference.
    """
    if min(luma.shape) < _SMALLEST:
        return np.zeros(BITS // 8, dtype=np.uint8), 0
    small = _reducing(luma.shape[0]) @ luma @ _reducing(luma.shape[1]).T
    waves = (_cosines() @ small @ _cosines().T).ravel()
    median = np.partition(waves, BITS // 2 - 1)[BITS // 2 - 1]
    steps = (np.trunc(np.diff(small, axis=axis) * (100 / 255)) for axis in (0, 1))
    quality = int(sum(np.abs(step).sum() for step in steps)) // 90
    return np.packbits(waves > median + _NOISE, bitorder="little"), min(quality, 100)


@lru_cache(maxsize=256)
def _reducing(size: int) -> np.ndarray:
    """(64, size): blurs and cuts one axis. Boxes are linear, so both passes and the cut are one."""
    window = -(-size // (2 * _SIDE))
    ahead = (window + 2) // 2  # the reference's: 7 → 4, 8 → 5, less what is cut off at the edges
    at = np.arange(size)
    offset = at[None, :] - at[:, None]
    box = ((offset < ahead) & (offset >= ahead - window)).astype(np.float64)
    box /= box.sum(axis=1, keepdims=True)
    centres = ((np.arange(_SIDE) + 0.5) * size / _SIDE).astype(int)
    found: np.ndarray = np.linalg.matrix_power(box, _PASSES)[centres]
    return found


@lru_cache(maxsize=1)
def _cosines() -> np.ndarray:
    """(16, 64): the cosine transform's lowest frequencies but the first."""
    waves, points = np.arange(1, _FREQUENCIES + 1)[:, None], np.arange(_SIDE)[None, :]
    found: np.ndarray = (2 / _SIDE) ** 0.5 * np.cos(np.pi / 2 / _SIDE * waves * (2 * points + 1))
    return found


def distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(some, others) int16: how many bits hashes differ in. some, others: (n, 32) uint8."""
    signs = [2 * np.unpackbits(h, axis=1).astype(np.float32) - 1 for h in (some, others)]
    # Of ±1: bits that agree less bits that differ. Whole numbers, so float32 is exact.
    return ((BITS - signs[0] @ signs[1].T) / 2).astype(np.int16)
