"""Whether a table has images that look like those of a registered release.

A random part of the images is looked at, which only the ledger's key names, in whatever column and
type the files are.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from safegen.errors import LedgerError
from safegen.ledger import Ledger
from safegen.lineage.detection import ALPHA
from safegen.lineage.image_detection import Near, met_images
from safegen.lineage.image_prints import IMAGES, ImagePrints
from safegen.lineage.search import Found, Searched
from safegen.tables.batches import Batches, is_provenance
from safegen.tables.embedded import embedded, holds_binary
from safegen.tables.images import is_image
from safegen.tables.pdq import BITS, distances, luminance, pdq

__all__ = ["LOOKED_AT", "Sample", "drawn", "images_searched", "near", "with_images"]

LOOKED_AT = 4_096
"""Images that are looked at, of all columns together."""

_COPIES = 512  # that are planted, at most, to see from which number on they are found
_AT_ONCE = 512  # images whose distances to all hashes of a release are in memory at once


@dataclass(frozen=True, eq=False)
class Sample:
    """hashes: (n, 32) uint8. unread: files among those drawn that are no image we can read."""

    hashes: np.ndarray
    unread: int


_NONE = Sample(np.zeros((0, 32), dtype=np.uint8), 0)


def images_searched(batches: Batches, ledger: Ledger) -> Searched:
    """Look for images of registered releases in a table. Raises: LedgerError."""
    some = any(holds_binary(f.type) for f in batches.schema if not is_provenance(f.name))
    every, keys = ledger.attached(IMAGES) if some else [], dict(ledger.lookup_keys())
    sample = drawn(batches, next(iter(keys.values()))) if every and keys else _NONE
    looked_at = len(sample.hashes)
    asked = looked_at + sample.unread
    if not asked:
        return Searched((), 0, 0, 1.0, None)
    found: list[Found] = []
    least: list[float] = []
    smallest = 1.0
    for where in every:
        if where.key_id not in keys or not looked_at:
            least.append(1.0)  # it is there and was not compared
            continue
        prints = ImagePrints.read(ledger, where, keys[where.key_id])
        met = met_images(prints, near(sample.hashes, prints), len(every))
        smallest = min(smallest, met.p)
        # Copies may all be among what could not be read.
        least.append((sample.unread + looked_at * met.least) / asked)
        if met.p <= ALPHA:
            record = ledger.get(where.dataset_id)
            if record is None:
                raise LedgerError(f"dataset {where.dataset_id} has hashes and no record")
            found.append(Found(where.dataset_id, met, record.depth, record.effective_depth))
    found.sort(key=lambda f: -f.met.share)
    rings = {"images": (smallest, max(least))}
    return Searched(tuple(found), len(every), len(every), smallest, max(least), rings=rings)


def with_images(rows: Searched, images: Searched) -> Searched:
    """What the searches of one table's rows and of its images came to."""
    least = [s.least for s in (rows, images) if s.least is not None]
    return replace(
        rows,
        found=rows.found + images.found,
        datasets=rows.datasets + images.datasets,
        alike=rows.alike + images.alike,
        p=min(max(len(least), 1) * min(rows.p, images.p), 1.0),
        least=max(least, default=None),
        rings={**rows.rings, **images.rings},
    )


def near(hashes: np.ndarray, prints: ImagePrints) -> Near:
    """How near a table's images, at least one, and those of a release come to each other."""
    kept = np.concatenate([prints.released, prints.decoys])
    to_kept = np.full(len(kept), BITS, dtype=np.int16)
    to_released, to_decoys = [], []
    n = len(prints.released)
    for start in range(0, len(hashes), _AT_ONCE):
        apart = distances(hashes[start : start + _AT_ONCE], kept)
        to_kept = np.minimum(to_kept, apart.min(axis=0))
        to_released.append(apart[:, :n].min(axis=1, initial=BITS))
        to_decoys.append(apart[:, n:].min(axis=1, initial=BITS))
    # What `least` is found with; any will do.
    copies = np.random.default_rng(n).integers(0, n, _COPIES) if n else np.arange(0)
    return Near(
        to_kept[:n],
        to_kept[n:],
        np.concatenate(to_released),
        np.concatenate(to_decoys),
        distances(prints.released[copies], kept),
    )


def drawn(batches: Batches, key: bytes) -> Sample:
    """Of each column that has images some, drawn without replacement (as `measure.drawn` does)."""
    names = [f.name for f in batches.schema if holds_binary(f.type) and not is_provenance(f.name)]
    if not names:
        return _NONE
    seed = hashlib.blake2b(key=key, digest_size=7, person=b"safegen-images").digest()
    rng = np.random.default_rng(int.from_bytes(seed, "little"))
    columns: dict[str, list[tuple[float, bytes]]] = {name: [] for name in names}
    for batch in batches.select(names):
        for name, kept in columns.items():
            for _, data in embedded(batch.column(batch.schema.get_field_index(name))):
                one = (rng.random(), data)
                if len(kept) < max(LOOKED_AT // len(names), 1):
                    heapq.heappush(kept, one)
                elif one > kept[0]:
                    heapq.heapreplace(kept, one)
    hashes: list[np.ndarray] = []
    unread = 0
    for name, kept in columns.items():
        found = list(_hashes(data for _, data in kept))
        if found or is_image(batches.schema.field(name).type):
            hashes += found
            unread += len(kept) - len(found)
    return Sample(np.array(hashes, dtype=np.uint8).reshape(-1, 32), unread)


def _hashes(files: Iterator[bytes]) -> Iterator[np.ndarray]:
    for data in files:
        try:
            yield pdq(luminance(data))[0]
        except ValueError:
            continue
