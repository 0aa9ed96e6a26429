"""Way round: take the images out of a release, and train on them as if they were real."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forging import check, cli, is_refused_as_synthetic
from PIL import Image

import safegen
from safegen import plugins
from safegen.dataset import Dataset
from safegen.tables.images import encoded_images, image_bytes
from safegen.tables.sources import read_source
from safegen.testing import Rows


@pytest.fixture(scope="module")
def place(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the images lie; the ledger and its key are those of all attacks."""
    with pytest.MonkeyPatch.context() as patch:
        for folder in ("DATA", "CONFIG", "CACHE"):
            patch.setenv(f"XDG_{folder}_HOME", str(home / folder.lower()))
        yield tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def real(place: Path) -> Path:
    """Attested photographs of noise, in two classes."""
    array = np.random.default_rng(5).integers(0, 256, (160, 8, 8, 3), dtype=np.uint8)
    for i, data in enumerate(encoded_images(array)):
        (place / "real" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (place / "real" / "ab"[i % 2] / f"{i}.png").write_bytes(data)
    safegen.attest(place / "real", by="an attack test")
    return place / "real"


@pytest.fixture(scope="module")
def released(place: Path, real: Path) -> Dataset:
    load = plugins.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "load", lambda g, n: Rows if n == "diffusion.image" else load(g, n))
        gen = safegen.Generator("diffusion.image", "images").fit(real)
        return gen.generate(150, place / "released", images="png")


def _files(dataset: Dataset, to: Path, change: Callable[[bytes], bytes] = bytes) -> Path:
    """The images as a plain folder, a sub-folder to a class: what a person would make of them."""
    rows = dataset.to_arrow()
    labels = rows.column("label").to_pylist()
    for i, data in enumerate(image_bytes(rows.column("image"))):
        assert data is not None
        (to / labels[i]).mkdir(parents=True, exist_ok=True)
        (to / labels[i] / f"{i}.png").write_bytes(change(data))
    return to


def _encoded_again(data: bytes) -> bytes:
    sink = io.BytesIO()
    Image.open(io.BytesIO(data)).save(sink, "PNG", compress_level=1)  # without our chunk
    return sink.getvalue()


def _as_bitmap(data: bytes) -> bytes:
    sink = io.BytesIO()
    Image.open(io.BytesIO(data)).save(sink, "BMP")
    return sink.getvalue()


def _parquet(dataset: Dataset, to: Path) -> Path:
    """A new Parquet file of the bytes alone: no stamp in it, no provenance column."""
    to.mkdir(parents=True)
    rows = dataset.to_arrow().replace_schema_metadata(None).select(["image"])
    pq.write_table(rows, to / "new.parquet")
    return to / "new.parquet"


@pytest.mark.parametrize("form", ["release", "folder", "parquet", "one among real ones"])
def test_images_say_themselves_that_they_were_made(
    released: Dataset, real: Path, tmp_path: Path, no_ledger: Path, form: str
) -> None:
    """On another machine, where no ledger knows them."""
    source: Any = released.path
    if form == "folder":
        source = _files(released, tmp_path / "images")
    elif form == "parquet":
        source = _parquet(released, tmp_path / "images")
    elif form == "one among real ones":
        source = tmp_path / "mixed"
        mine = next(iter(sorted(released.path.rglob("*.png"))))
        for path in real.rglob("*.png"):
            (source / path.parent.name).mkdir(parents=True, exist_ok=True)
            (source / path.parent.name / path.name).write_bytes(path.read_bytes())
        (source / "a" / "added.png").write_bytes(mine.read_bytes())
    assert is_refused_as_synthetic(check(source, "images"))
    out = tmp_path / "out"
    ran = cli(
        *("generate", source, "--backend", "diffusion.image", "--policy", "images"),
        *("--rows", 10, "--out", out),
    )
    assert ran.code == 3, ran.err
    assert not out.exists()


def _flattened(files: list[bytes], labels: list[str], layout: str) -> pa.Table:
    """The same files, not in the struct that an image column is."""
    plain = pa.array(files)
    if layout == "struct":
        wide = [plain, pa.array([None] * len(files), pa.string()), pa.array([8] * len(files))]
        plain = pa.StructArray.from_arrays(wide, ["bytes", "path", "width"])
    elif layout == "list":
        plain = pa.array([[{"bytes": f}] for f in files])
    return pa.table({"image": plain, "label": labels})


@pytest.mark.parametrize("layout", ["binary", "struct", "list"])
def test_a_stamp_is_found_where_images_are_not_in_their_struct(
    released: Dataset, real: Path, tmp_path: Path, no_ledger: Path, layout: str
) -> None:
    rows = released.to_arrow()
    files = [f for f in image_bytes(rows.column("image")) if f is not None]
    place = tmp_path / "flat.parquet"
    pq.write_table(_flattened(files, rows.column("label").to_pylist(), layout), place)
    assert is_refused_as_synthetic(check(place, "images"))
    with pytest.raises(safegen.AdmissionRefused):
        safegen.attest(place, by="a launderer")
    honest = sorted(real.rglob("*.png"))
    table = _flattened([p.read_bytes() for p in honest], [p.parent.name for p in honest], layout)
    pq.write_table(table, tmp_path / "honest.parquet")
    assert check(tmp_path / "honest.parquet", "images").allowed
    safegen.attest(tmp_path / "honest.parquet", by="its owner")


def test_pixels_are_found_in_a_column_of_plain_bytes(released: Dataset, tmp_path: Path) -> None:
    rows = released.to_arrow()
    files = [_encoded_again(f) for f in image_bytes(rows.column("image")) if f is not None]
    place = tmp_path / "flat.parquet"
    pq.write_table(_flattened(files, rows.column("label").to_pylist(), "binary"), place)
    assert is_refused_as_synthetic(check(place, "images"))
    assert check(place, "images", ledger=tmp_path / "new.db").allowed


@pytest.mark.parametrize("change", [_encoded_again, _as_bitmap])
def test_encoding_again_without_the_stamp_is_found_by_pixels(
    released: Dataset, tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    folder = _files(released, tmp_path / "images", change)
    assert is_refused_as_synthetic(check(folder, "images"))
    # and that it is the ledger which knows: nothing in the files says it
    decision = check(folder, "images", ledger=tmp_path / "new.db")
    assert decision.allowed


def test_real_images_are_admitted_whatever_their_form(real: Path, tmp_path: Path) -> None:
    assert check(real, "images").allowed
    table: pa.Table = read_source(real).tables["table"].table()
    pq.write_table(table, tmp_path / "real.parquet")
    decision = check(tmp_path / "real.parquet", "images")
    assert decision.allowed
    assert not decision.warnings  # known by its digest as what was attested


def test_synthetic_images_cannot_be_attested_as_real(released: Dataset, tmp_path: Path) -> None:
    folder = _files(released, tmp_path / "images")
    with pytest.raises(safegen.AdmissionRefused):
        safegen.attest(folder, by="a launderer")
