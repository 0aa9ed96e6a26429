"""Hashes of images in a ledger, and their test: what it knows again, whom it does not accuse."""

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow as pa
import pytest

from safegen.errors import LedgerError
from safegen.ledger import Attached, Attachment
from safegen.lineage import image_detection, image_search
from safegen.lineage.detection import ALPHA, Met, fisher
from safegen.lineage.fingerprints import SEEN
from safegen.lineage.image_detection import RADII, met_images
from safegen.lineage.image_prints import IMAGES, ImagePrinting, ImagePrints, decoys_for
from safegen.lineage.image_search import images_searched, near, with_images
from safegen.lineage.search import Searched
from safegen.tables.batches import Batches
from safegen.tables.images import encoded_images, image_column
from safegen.tables.pdq import pdq

KEY, OTHER = b"k" * 32, b"o" * 32


def printing(hashes: np.ndarray) -> ImagePrinting:
    found = ImagePrinting()
    found.images, found._hashes = len(hashes), list(hashes)
    return found


@cache
def worlds() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """By kind of images, hashes of what a model makes, and of real images that it has not seen."""
    from sklearn.datasets import load_digits, load_sample_images

    rng = np.random.default_rng(0)
    digits = load_digits().images * 15
    photos = [p @ [0.299, 0.587, 0.114] for p in load_sample_images().images]

    def sections(n: int) -> np.ndarray:
        found = []
        for i in range(n):
            y, x = (rng.integers(0, size - 64) for size in photos[0].shape)
            found.append(photos[i % 2][y : y + 64, x : x + 64])
        return np.stack(found)

    def blends(images: np.ndarray, n: int) -> np.ndarray:
        one, two = images[rng.integers(0, len(images), (2, n))]
        return np.round(0.6 * one + 0.4 * two)

    def hashed(images: np.ndarray) -> np.ndarray:
        return np.stack([pdq(image)[0] for image in images])

    few = hashed(blends(digits[:900], 30))
    return {
        "digits": (hashed(blends(digits[:900], 2_000)), hashed(digits[900:])),
        "photographs": (hashed(blends(sections(300), 2_000)), hashed(sections(600))),
        # A model that makes the same images again and again, and real ones that are these.
        "few": (few[rng.integers(0, 30, 2_000)], few[rng.integers(0, 12, 600)]),
        # Nearly flat ones, of which all are near each other.
        "flat": (
            hashed(rng.normal(128, 1, (2_000, 8, 8)).round()),
            hashed(rng.normal(128, 1, (600, 8, 8)).round()),
        ),
    }


def drawn(
    made: np.ndarray, rng: np.random.Generator, released: int, decoys: int
) -> tuple[ImagePrints, np.ndarray]:
    """Prints of a release, and the released hashes."""
    order = rng.permutation(len(made))
    some, others = made[order[:released]], made[order[released : released + decoys]]
    none = printing(made[:0])
    return ImagePrints.of(printing(some), printing(others), none), some


def asked(prints: ImagePrints, hashes: np.ndarray) -> Met:
    return met_images(prints, near(hashes, prints), 1)


@pytest.mark.parametrize("kind", ["digits", "photographs", "few", "flat"])
def test_real_images_have_p_values_that_chance_gives(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Super-uniform, where images coincide in masses, too: of a part of them as of all."""
    monkeypatch.setattr(
        image_detection, "_copies_for", lambda *_: None
    )  # of `least`, which takes long
    made, real = worlds()[kind]
    rng = np.random.default_rng(1)
    p_values = []
    for turn in range(200):
        prints, _ = drawn(made, rng, *((600, 300), (300, 300), (1_500, 400))[turn % 3])
        part = rng.permutation(len(real))[: (30, 200, 500)[turn // 3 % 3]]
        p_values.append(asked(prints, real[part]).p)
    p = np.array(p_values)
    for level in (0.5, 0.2, 0.05):
        assert (p <= level).mean() <= level + 2.5 * (level / len(p)) ** 0.5
    assert p.min() > 1e-4


@pytest.mark.parametrize("kind", ["digits", "photographs"])
def test_what_the_power_says_is_found(kind: str) -> None:
    """Images planted among real ones, as many as `least` says, are found in 19 of 20 tables."""
    made, real = worlds()[kind]
    rng = np.random.default_rng(2)
    found = []
    for _ in range(40):
        prints, released = drawn(made, rng, 800, 400)
        met = asked(prints, real)
        assert met.p > ALPHA
        planted = int(np.ceil(met.least * len(real)))
        assert planted < 0.5 * len(real)
        mixed = np.concatenate([released[rng.integers(0, 800, planted)], real[planted:]])
        again = asked(prints, mixed)
        found.append(again.p <= ALPHA)
        assert again.share == pytest.approx(planted / len(real), abs=0.05)
    assert np.mean(found) >= 0.95 - 3 * (0.95 * 0.05 / len(found)) ** 0.5


def test_what_is_met_by_chance_is_no_part_of_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    made, real = worlds()["digits"]
    prints, _ = drawn(made, np.random.default_rng(12), 800, 400)
    monkeypatch.setattr(image_detection, "RADII", (31,))
    found = near(real, prints)
    assert (found.to_released <= 31).mean() > 0.15
    assert asked(prints, real).share < 0.05


def test_a_release_of_the_same_model_is_not_taken_for_a_copy() -> None:
    made, _ = worlds()["digits"]
    prints, released = drawn(made[:1_200], np.random.default_rng(3), 800, 400)
    assert asked(prints, made[1_200:]).p > 0.01
    assert asked(prints, released).p <= ALPHA


def test_copies_that_are_too_few_are_not_counted_as_found() -> None:
    """What would have been found is more than what is there and was not."""
    made, real = worlds()["photographs"]
    prints, released = drawn(made, np.random.default_rng(13), 800, 400)
    few = np.concatenate([released[:30], real])
    met = asked(prints, few)
    assert ALPHA < met.p < 0.01
    assert met.least > 30 / len(few)


def test_of_a_large_release_a_part_stands_for_all() -> None:
    made, real = worlds()["photographs"]
    prints, released = drawn(made, np.random.default_rng(4), 800, 400)
    tenfold = ImagePrints(8_000, 800, prints.released, prints.decoys)
    mixed = np.concatenate([released[:60], real[:540]])
    one, ten = asked(prints, mixed), asked(tenfold, mixed)
    assert one.share == pytest.approx(0.1, abs=0.01)
    assert ten.share == pytest.approx(10 * one.share)
    assert one.least < 0.4
    assert ten.least == 1.0


@pytest.mark.parametrize(("released", "decoys"), [(0, 0), (0, 5), (5, 0), (10, 10)])
def test_what_has_too_few_images_finds_nothing_and_says_so(released: int, decoys: int) -> None:
    made, _ = worlds()["photographs"]
    prints, _ = drawn(made, np.random.default_rng(5), released, decoys)
    met = asked(prints, made)
    assert (met.p, met.least) == (1.0, 1.0)


def test_what_looks_like_real_images_is_left_out_on_both_sides() -> None:
    made, _ = worlds()["photographs"]
    near_it = made[:50].copy()
    near_it[:, 0] ^= 0b101  # two bits
    prints = ImagePrints.of(printing(made[:100]), printing(made[25:125]), printing(near_it))
    assert (prints.images, prints.seen) == (100, 100)
    for kept in (prints.released, prints.decoys):
        assert not {h.tobytes() for h in kept} & {h.tobytes() for h in made[:50]}
    assert len(prints.released) < 51
    assert len(prints.decoys) < 76


def test_a_release_has_as_many_decoys_as_it_can_pay_for() -> None:
    asked_for = [1, 100, 512, 1_000, 2_560, 10_000, SEEN, 10**6]
    assert [decoys_for(n) for n in asked_for] == [1, 100, 512, 512, 512, 2_000, 3_276, 3_276]


def test_the_first_images_are_hashed_and_what_cannot_be_read_is_counted() -> None:
    rng = np.random.default_rng(6)
    files = encoded_images(rng.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8))
    files[2] = files[2][:60]  # a header without pixels
    found = ImagePrinting()
    for _ in range(2):
        found.update(pa.table({"image": image_column(files, [None] * 4), "n": [1, 2, 3, 4]}))
    assert found.images == 8
    assert found.hashes.shape == (6, 32)
    assert found.hashes.dtype == np.uint8


# ---- in the ledger -------------------------------------------------------------------------------


class Books:
    """A ledger that has attachments, each of a dataset of its own."""

    def __init__(self, *kept: Attachment, keys: dict[str, bytes] | None = None):
        self.kept = kept
        self.keys = {"1": KEY} if keys is None else keys

    def lookup_keys(self) -> list[tuple[str, bytes]]:
        return list(self.keys.items())

    def attached(self, kind: str) -> list[Attached]:
        return [Attached(str(i), k.kind, k.name, k.key_id) for i, k in enumerate(self.kept)]

    def attachment(self, where: Attached) -> bytes:
        return self.kept[int(where.dataset_id)].body

    def get(self, dataset_id: str) -> None:
        return None


def test_nobody_without_the_key_reads_a_hash_and_nobody_changes_one() -> None:
    made, _ = worlds()["photographs"]
    prints, released = drawn(made, np.random.default_rng(7), 100, 50)
    kept = prints.attachment("table", "1", KEY)
    where = Attached("0", IMAGES, "table", "1")
    back = ImagePrints.read(Books(kept), where, KEY)  # type: ignore[arg-type]
    assert (back.images, back.seen) == (100, 100)
    assert (back.released == released).all()
    assert (back.decoys == prints.decoys).all()
    assert not any(h.tobytes() in kept.body for h in released)
    changed = bytearray(kept.body)
    changed[len(changed) // 2] ^= 1
    for body, key in ((kept.body, OTHER), (bytes(changed), KEY), (kept.body[:40], KEY), (b"", KEY)):
        with pytest.raises(LedgerError, match="images of dataset 0 cannot be read"):
            ImagePrints.read(Books(Attachment(IMAGES, "table", "1", body)), where, key)  # type: ignore[arg-type]


def noise(n: int, seed: int) -> tuple[pa.Table, np.ndarray]:
    """Images of noise as a table, and their hashes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 16, 16, 3), dtype=np.uint8)
    table = pa.table({"image": image_column(encoded_images(pixels), [None] * n)})  # type: ignore[arg-type]
    found = ImagePrinting()
    found.update(table)
    return table, found.hashes


def test_a_release_under_a_key_that_is_not_held_is_not_said_to_be_searched() -> None:
    table, hashes = noise(120, 8)
    _, others = noise(240, 9)
    prints = ImagePrints(120, 120, others[:120], others[120:])
    held, gone = (prints.attachment("table", key_id, KEY) for key_id in "12")
    searched = images_searched(Batches.of(table), Books(held))  # type: ignore[arg-type]
    assert searched.least is not None
    assert searched.least < 0.5
    both = images_searched(Batches.of(table), Books(held, gone))  # type: ignore[arg-type]
    assert (both.datasets, both.alike, both.found, both.least) == (2, 2, (), 1.0)
    mine = ImagePrints(120, 120, hashes, others).attachment("table", "1", KEY)
    with pytest.raises(LedgerError, match="dataset 1 has hashes and no record"):
        images_searched(Batches.of(table), Books(held, mine))  # type: ignore[arg-type]


def test_all_datasets_and_radii_share_the_level() -> None:
    made, real = worlds()["photographs"]
    prints, released = drawn(made, np.random.default_rng(10), 800, 400)
    mixed = np.concatenate([released[:15], real])
    one, ten = (met_images(prints, near(mixed, prints), n) for n in (1, 10))
    assert ten.p == pytest.approx(10 * one.p)
    assert ten.least > one.least
    best = min(
        fisher(int((d.released <= r).sum()), 800, int((d.decoys <= r).sum()), 400)
        for r in RADII
        for d in [near(mixed, prints)]
    )
    assert one.p == pytest.approx(3 * best)


def test_a_part_of_many_images_is_looked_at_and_only_the_key_says_which() -> None:
    table, hashes = noise(60, 11)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_search, "LOOKED_AT", 20)
        one, again, other = (
            {h.tobytes() for h in image_search.drawn(Batches.of(table), key).hashes}
            for key in (KEY, KEY, OTHER)
        )
    assert one == again
    assert one != other
    assert len(one) == len(other) == 20
    assert one | other <= {h.tobytes() for h in hashes}


def test_rows_and_images_are_told_together() -> None:
    nothing = Searched((), 3, 0, 1.0, None)
    rows, images = Searched((), 5, 2, 1e-3, 0.1), Searched((), 3, 3, 1e-4, 0.2)
    assert with_images(rows, nothing) == Searched((), 8, 2, 1e-3, 0.1)
    assert with_images(nothing, images) == Searched((), 6, 3, 1e-4, 0.2)
    assert with_images(rows, images) == Searched((), 8, 5, 2e-4, 0.2)
    assert with_images(nothing, nothing).least is None
