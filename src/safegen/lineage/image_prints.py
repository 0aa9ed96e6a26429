"""What a ledger keeps of released images: how they look (PDQ), beside decoys.

Near matches are wanted, so hashes of looks cannot be keyed as fingerprints of rows are. All of them
are sealed with the ledger's key instead: its file alone says nothing of any image.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from safegen.errors import LedgerError
from safegen.ledger import Attached, Attachment, Ledger
from safegen.lineage.fingerprints import SEEN
from safegen.lineage.sealing import opened, sealed
from safegen.tables.images import image_bytes, is_image
from safegen.tables.pdq import BITS, distances, luminance, pdq

__all__ = ["IMAGES", "ImagePrinting", "ImagePrints", "decoys_for"]

IMAGES = "images"
"""The kind of attachment."""

_EACH = 512
_PART = 5

_AT_ONCE = 512

_COPY = 15
"""Bits that differ between a copy of a real image and that, at most. Nobody is accused by either,
as decoys are copies as often; but copies hide what else there is to find."""


def decoys_for(images: int) -> int:
    """How many decoys a release of so many images has: as many, up to 512; from 2,560 images on a
    fifth, 3,276 at most. An image can take a second to sample."""
    return min(images, max(_EACH, min(images, SEEN) // _PART))


class ImagePrinting:
    """The hashes of a table's images while its rows pass by: of the first 16,384. An image that
    cannot be read has none.

    seen: how many are hashed, at most.
    """

    def __init__(self, seen: int = SEEN) -> None:
        self.seen = seen
        self.images = 0
        self._hashes: list[np.ndarray] = []

    def update(self, table: pa.Table) -> None:
        """Let rows pass."""
        for data in _images(table):
            self.images += 1
            if self.images <= self.seen:
                with suppress(ValueError):
                    self._hashes.append(pdq(luminance(data))[0])

    def merge(self, other: ImagePrinting) -> None:
        """Let pass what has passed another, which knew how many come before its own."""
        self.images += other.images
        self._hashes += other._hashes

    @property
    def hashes(self) -> np.ndarray:
        """(images, 32) uint8."""
        return np.array(self._hashes, dtype=np.uint8).reshape(-1, BITS // 8)


def _unlike(hashes: np.ndarray, real: np.ndarray) -> np.ndarray:
    alike = [
        distances(some, real).min(axis=1, initial=BITS) <= _COPY
        for some in np.array_split(hashes, max(len(hashes) // _AT_ONCE, 1))
    ]
    found: np.ndarray = hashes[~np.concatenate(alike)]
    return found


def _images(table: pa.Table) -> Iterator[bytes]:
    for field in table.schema:
        if is_image(field.type):
            yield from (data for data in image_bytes(table.column(field.name)) if data is not None)


@dataclass(frozen=True, eq=False)
class ImagePrints:
    """What is kept of one released table.

    images: in all of it. seen: those of them that were hashed. released, decoys: (n, 32) uint8
    hashes of these, and of images of the same model that were never released, without those that
    look like real ones.
    """

    images: int
    seen: int
    released: np.ndarray
    decoys: np.ndarray

    @classmethod
    def of(cls, released: ImagePrinting, decoys: ImagePrinting, real: ImagePrinting) -> ImagePrints:
        """What is kept of a release; of real images nothing is."""
        others = (_unlike(made.hashes, real.hashes) for made in (released, decoys))
        return cls(released.images, len(released.hashes), *others)

    def attachment(self, table: str, key_id: str, key: bytes) -> Attachment:
        """These prints, sealed."""
        document = {
            "images": self.images,
            "seen": self.seen,
            "released": base64.b64encode(self.released.tobytes()).decode("ascii"),
            "decoys": base64.b64encode(self.decoys.tobytes()).decode("ascii"),
        }
        return Attachment(IMAGES, table, key_id, sealed(key, document, IMAGES))

    @classmethod
    def read(cls, ledger: Ledger, where: Attached, key: bytes) -> ImagePrints:
        """What `attachment` sealed. Raises: LedgerError when it is gone or was changed."""
        try:
            document = opened(key, ledger.attachment(where), IMAGES)
            hashes = (
                np.frombuffer(base64.b64decode(document[side]), np.uint8).reshape(-1, BITS // 8)
                for side in ("released", "decoys")
            )
            return cls(int(document["images"]), int(document["seen"]), *hashes)
        except (ValueError, KeyError, TypeError):
            raise LedgerError(
                f"the hashes of the images of dataset {where.dataset_id} cannot be read: run "
                "`safegen ledger verify`"
            ) from None
