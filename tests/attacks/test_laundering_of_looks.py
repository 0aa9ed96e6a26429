"""Way round: edit released images until no digest knows them, and mix them with real ones."""

from __future__ import annotations

import base64
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forging import check, is_refused_as_synthetic
from looking import EDITS, Blends, edited, folder_of, photographs

import safegen
from safegen import plugins
from safegen.dataset import Dataset
from safegen.errors import LedgerError
from safegen.ledger import open_ledger
from safegen.lineage.evidence import resolve
from safegen.lineage.facts import SourceFacts
from safegen.tables.images import encoded_images, image_bytes, image_column
from safegen.tables.pdq import luminance, pdq
from safegen.tables.sources import read_source

REAL, RELEASED = 200, 400


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home for these tests alone: the ledger knows one release."""
    home = tmp_path_factory.mktemp("looks")
    with pytest.MonkeyPatch.context() as patch:
        for folder in ("DATA", "CONFIG", "CACHE"):
            patch.setenv(f"XDG_{folder}_HOME", str(home / folder.lower()))
        yield home


@pytest.fixture(autouse=True)
def _here(_same_home: None, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("DATA", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{folder}_HOME", str(place / folder.lower()))


@pytest.fixture(scope="module")
def released(place: Path) -> Dataset:
    load = plugins.load
    real = folder_of(encoded_images(photographs(REAL, 1)), place / "real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            plugins, "load", lambda g, n: Blends if n == "diffusion.image" else load(g, n)
        )
        safegen.attest(real, by="an attack test")
        gen = safegen.Generator("diffusion.image", "images").fit(real)
        return gen.generate(RELEASED, place / "released")


@pytest.fixture(scope="module")
def made(released: Dataset) -> list[bytes]:
    """The released images."""
    return [data for data in image_bytes(released.to_arrow().column("image")) if data is not None]


def facts_of(source: Any) -> SourceFacts:
    return resolve(read_source(source), open_ledger())


@pytest.mark.parametrize("edit", EDITS)
def test_edited_images_are_found(made: list[bytes], tmp_path: Path, edit: str) -> None:
    folder = folder_of(edited(made[:100], EDITS[edit]), tmp_path / "images")
    assert is_refused_as_synthetic(check(folder, "images"))


@pytest.mark.parametrize("edit", [None, *EDITS])
def test_real_images_are_left_in_peace(released: Dataset, tmp_path: Path, edit: str | None) -> None:
    """Those that the model was fitted on, and others of the same two photographs."""
    for name, seed in (("of the fit", 1), ("others", 2)):
        files = encoded_images(photographs(REAL, seed))[:-1]  # of all of them there is a statement
        folder = folder_of(edited(files, EDITS[edit]) if edit else files, tmp_path / name)
        assert check(folder, "images").allowed
        facts = facts_of(folder)
        assert not facts.evidence
        assert facts.search is not None
        assert facts.search["alike"] == 1
        assert facts.search["p"] > 0.01


def test_a_few_among_real_ones_are_found_in_any_cell(made: list[bytes], tmp_path: Path) -> None:
    real = encoded_images(photographs(1_425, 3))
    mixed = [*real, *edited(made[:75], EDITS["JPEG 70"])]
    facts = facts_of(folder_of(mixed, tmp_path / "images"))
    (piece,) = facts.evidence
    assert (piece.ring, piece.origin, piece.proof) == ("fingerprints", "mixed", False)
    assert 0.02 < facts.synthetic_share <= 0.05  # a lower bound: some look like real ones
    assert facts.search is not None
    assert (facts.search["datasets"], facts.search["alike"], facts.search["found"]) == (1, 1, 1)
    assert facts.search["least"] < 0.05
    assert is_refused_as_synthetic(check(tmp_path / "images", "baseline"))
    for layout, column in (
        ("bytes", pa.array(mixed)),
        ("list", pa.array([[{"file": data, "n": 1}] for data in mixed])),
    ):
        pq.write_table(pa.table({"x": column}), tmp_path / f"{layout}.parquet")
        assert is_refused_as_synthetic(check(tmp_path / f"{layout}.parquet", "images"))
    fewer = facts_of(folder_of(mixed[: 1_425 + 8], tmp_path / "fewer"))
    assert not fewer.evidence
    assert fewer.search is not None
    assert fewer.search["least"] > 8 / 1_433


def test_what_could_not_be_read_is_not_said_to_be_clean(made: list[bytes], tmp_path: Path) -> None:
    """Two thirds in a format that we have no decoder for."""
    real = encoded_images(photographs(300, 4))
    foreign = [b"\x00\x00\x00\x1cftypavif" + data for data in made[:300]]
    columns = [image_column([*real, *foreign, *foreign], [None] * 900)]
    facts = facts_of(pa.table(columns, ["image"]))
    assert not facts.evidence
    assert facts.search is not None
    assert facts.search["least"] > 2 / 3
    bare = facts_of(pa.table([image_column(foreign, [None] * 300)], ["image"]))
    assert bare.search is not None
    assert bare.search["least"] == 1.0
    # A column that holds no image says nothing of images.
    other = facts_of(pa.table({"x": pa.array([b"a", b"b"])}))
    assert other.search is not None
    assert (other.search["datasets"], other.search["alike"]) == (0, 0)
    assert other.search["least"] is None


@pytest.mark.parametrize(
    "damage",
    ["DELETE FROM attachments", "UPDATE attachments SET body = zeroblob(length(body))"],
)
def test_hashes_that_are_gone_or_changed_are_missed(
    released: Dataset, tmp_path: Path, damage: str
) -> None:
    ledger = open_ledger()
    assert ledger.verify() == []
    copy = tmp_path / "ledger.db"
    shutil.copy(ledger.url.removeprefix("sqlite://"), copy)
    with sqlite3.connect(copy) as db:
        for (name,) in db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'attachments'"
        ).fetchall():
            db.execute(f"DROP TRIGGER {name}")
        db.execute(f"{damage} WHERE kind = 'images'")
    db.close()
    folder = folder_of(encoded_images(photographs(60, 5)), tmp_path / "images")
    assert check(folder, "images", ledger=ledger).allowed
    decision = check(folder, "images", ledger=copy)
    assert not decision.allowed
    assert decision.findings["lineage/ledger"].status == "broken"
    with pytest.raises(LedgerError):
        resolve(read_source(folder), open_ledger(copy))


def test_the_ledger_alone_says_nothing_of_how_images_look(made: list[bytes]) -> None:
    file = Path(open_ledger().url.removeprefix("sqlite://")).read_bytes()
    for data in made:
        bits, _ = pdq(luminance(data))
        assert bits.tobytes() not in file
        assert base64.b64encode(bits.tobytes())[:40] not in file
