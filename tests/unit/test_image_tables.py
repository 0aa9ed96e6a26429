"""Images in tables: their layout, their stamps, their content, and what cannot be read."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from safegen.errors import SourceError, UsageError
from safegen.lineage.in_band import InBand
from safegen.tables.batches import Batches
from safegen.tables.cells import exact_cells, tolerant_cells
from safegen.tables.codec import Codec
from safegen.tables.digests import RowsDigest
from safegen.tables.images import (
    IMAGE,
    MAX_PIXELS,
    decoded_images,
    encoded_images,
    image_bytes,
    image_column,
    is_image,
    open_image,
    stamp_of,
    with_stamp,
    without_stamp,
)
from safegen.tables.schema import check_table, infer_schema, read_declared
from safegen.tables.sources import Source, read_source

STAMP = {"dataset_id": "01JABCDEFGHJKMNPQRSTVWXYZ0", "origin": "synthetic", "depth": 2.0}
SIZE = (6, 5)


def pixels(n: int = 4, channels: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *SIZE, channels), dtype=np.uint8)


def saved(one: np.ndarray, kind: str, **more: Any) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one).save(sink, kind, **more)
    return sink.getvalue()


def table_of(source: Any) -> pa.Table:
    return read_source(source).tables["table"].table()


def bomb(side: int = 60_000) -> bytes:
    """A PNG of a few bytes that claims 3.6 thousand million pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (header, b"IDAT" + zlib.compress(b"\0"), b"IEND")
    )
    return b"\x89PNG\r\n\x1a\n" + body


# ---- the stamp in a file -------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_stamp_changes_no_pixel_and_comes_off_without_a_trace(channels: int) -> None:
    (plain,) = encoded_images(pixels(1, channels))
    marked = with_stamp(plain, STAMP)
    assert stamp_of(marked) == STAMP
    assert stamp_of(plain) is None
    assert without_stamp(marked) == plain
    assert with_stamp(marked, STAMP) == marked  # one stamp, however often it is put on
    opened = Image.open(io.BytesIO(marked))
    assert json.loads(opened.text["safegen"]) == STAMP  # where every PNG reader finds it
    assert np.array_equal(np.asarray(opened), np.asarray(Image.open(io.BytesIO(plain))))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_stamp_that_another_tool_wrote_again_still_counts(zipped: bool) -> None:
    info = PngInfo()
    info.add_text("safegen", json.dumps(STAMP), zip=zipped)
    data = saved(pixels(1)[0], "PNG", pnginfo=info)
    assert stamp_of(data) == ({} if zipped else STAMP)  # known at least to have been there


def test_a_damaged_stamp_is_a_stamp() -> None:
    info = PngInfo()
    info.add_text("safegen", "{nonsense")
    assert stamp_of(saved(pixels(1)[0], "PNG", pnginfo=info)) == {}


@pytest.mark.parametrize("cut", [0, 5, 8, 20, 33, 40, 60])
def test_a_cut_file_has_no_stamp_and_raises_nothing(cut: int) -> None:
    data = with_stamp(encoded_images(pixels(1))[0], STAMP)[:cut]
    assert stamp_of(data) in (None, STAMP)
    assert without_stamp(data) is not None


def test_another_format_becomes_a_png_when_it_is_stamped() -> None:
    one = pixels(1, 3)[0]
    marked = with_stamp(saved(one, "BMP"), STAMP)
    assert stamp_of(marked) == STAMP
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(marked))), one)


def test_rows_are_told_by_their_own_images_and_a_real_stamp_proves_nothing() -> None:
    files = encoded_images(pixels(4))
    files[1] = with_stamp(files[1], STAMP)
    files[2] = with_stamp(files[2], {"origin": "real"})
    batches = Batches.of(pa.table({"image": image_column(files, [None] * 4)}))
    tally = InBand(batches.schema)
    for batch in batches:
        tally(batch)
    piece = tally.evidence("table")
    assert piece is not None
    assert (piece.origin, piece.share, piece.depth) == ("mixed", 0.25, 2)
    assert piece.dataset_id == STAMP["dataset_id"]


# ---- content -------------------------------------------------------------------------------------


def test_content_is_the_file_without_its_name_and_stamp_and_its_pixels_to_the_lookup() -> None:
    (plain,) = encoded_images(pixels(1, 3))
    loose = saved(pixels(1, 3)[0], "PNG", compress_level=0)
    assert loose != plain
    one = image_column([plain, with_stamp(plain, STAMP), loose], ["a.png", None, "a.png"])
    exact, tolerant = exact_cells(one), tolerant_cells(one)
    assert (exact[0] == exact[1]).all()
    assert (exact[0] != exact[2]).any()
    assert (tolerant == tolerant[0]).all()
    (other,) = encoded_images(pixels(1, 3, seed=1))
    assert (tolerant_cells(image_column([other], ["a.png"]))[0] != tolerant[0]).any()


def test_the_digest_does_not_depend_on_the_layout() -> None:
    files = encoded_images(pixels(3))
    wide = pa.struct([("path", pa.large_string()), ("bytes", pa.large_binary())])
    values = []
    for type_ in (IMAGE, wide):
        digest = RowsDigest(pa.schema([("image", type_)]))
        batch = pa.record_batch({"image": image_column(files, ["x", None, "y"], type_)})
        digest.update(batch)
        values.append(digest.value())
    assert values[0] == values[1]


def test_only_the_layout_of_hugging_face_is_an_image() -> None:
    assert is_image(IMAGE)
    assert is_image(pa.struct([("bytes", pa.binary()), ("path", pa.null())]))
    assert not is_image(pa.struct([("bytes", pa.binary())]))
    assert not is_image(pa.struct([("bytes", pa.string()), ("path", pa.string())]))
    assert not is_image(pa.struct([*IMAGE, pa.field("extra", pa.int8())]))
    assert not is_image(pa.binary())


# ---- what cannot be read -------------------------------------------------------------------------


def test_a_decompression_bomb_is_refused_unopened() -> None:
    with pytest.raises(ValueError, match=r"large|no image"):
        open_image(bomb())
    side = int(MAX_PIXELS**0.5) + 1
    with pytest.raises(ValueError, match="large"):
        open_image(bomb(side))


def test_a_table_of_broken_images_is_refused_with_their_number() -> None:
    files = encoded_images(pixels(30))
    files[3], files[7] = b"no image", bomb()
    table = pa.table({"image": image_column(files, [None] * 30)})
    with pytest.raises(SourceError, match="column 'image': 2 value"):
        check_table(table, "t")
    check_table(table.slice(8), "t")


def test_paths_are_not_followed(tmp_path: Path) -> None:
    place = tmp_path / "secret.png"
    place.write_bytes(encoded_images(pixels(1))[0])
    rows = [{"bytes": None, "path": str(place)}] * 25
    with pytest.raises(SourceError, match=r"25 image.*no path is followed"):
        check_table(pa.table({"image": pa.array(rows, IMAGE)}), "t")


def test_a_cut_image_is_counted_when_it_is_decoded() -> None:
    files = encoded_images(pixels(3))
    files[1] = files[1][:-30]
    with pytest.raises(SourceError, match="1 images are damaged"):
        decoded_images("image", pa.chunked_array([image_column(files, [None] * 3)]))


def test_images_of_several_sizes_need_a_resolution() -> None:
    files = [*encoded_images(pixels(2)), *encoded_images(np.zeros((1, 9, 9, 1), np.uint8))]
    column = pa.chunked_array([image_column(files, [None] * 3)])
    with pytest.raises(SourceError, match=r"2 different sizes.*resolution=N"):
        decoded_images("image", column)
    found, mode = decoded_images("image", column, 8)
    assert found.shape == (3, 8, 8, 1)
    assert mode == "L"


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_decoded_images_are_those_that_were_encoded(channels: int, mode: str) -> None:
    made = pixels(5, channels)
    column = pa.chunked_array([image_column(encoded_images(made), [None] * 5)])
    found, how = decoded_images("image", column)
    assert how == mode
    assert np.array_equal(found, made)


# ---- sources -------------------------------------------------------------------------------------


@pytest.fixture
def files() -> list[bytes]:
    return encoded_images(pixels(6, 3))


def lay(folder: Path, files: list[bytes], names: list[str]) -> Path:
    for name, data in zip(names, files, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_sub_folders_name_the_classes_and_a_flat_folder_has_none(
    tmp_path: Path, files: list[bytes]
) -> None:
    names = [f"{'cat' if i % 2 else 'dog'}/{i}.png" for i in range(6)]
    table = table_of(lay(tmp_path / "classes", files, names))
    assert table.schema.names == ["image", "label"]
    assert table.column("image").type == IMAGE
    labels = dict(
        zip(image_bytes(table.column("image")), table.column("label").to_pylist(), strict=True)
    )
    assert labels == {data: "cat" if i % 2 else "dog" for i, data in enumerate(files)}
    flat = table_of(lay(tmp_path / "flat", files, [f"{i}.png" for i in range(6)]))
    assert flat.schema.names == ["image"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_of_hugging_face_is_joined_by_file_name(
    tmp_path: Path, files: list[bytes], kind: str
) -> None:
    folder = lay(tmp_path, files, [f"in/{i}.png" for i in range(6)])
    frame = pd.DataFrame(
        {"text": [f"t{i}" for i in range(6)], "file_name": [f"in/{i}.png" for i in range(6)]}
    )
    frame = frame.sample(frac=1, random_state=0)
    if kind == "csv":
        frame.to_csv(folder / "metadata.csv", index=False)
    elif kind == "jsonl":
        frame.to_json(folder / "metadata.jsonl", orient="records", lines=True)
    else:
        frame.to_parquet(folder / "metadata.parquet", index=False)
    table = table_of(folder)
    assert table.schema.names == ["text", "image"]
    for row, data in zip(
        table.column("text").to_pylist(), image_bytes(table["image"]), strict=True
    ):
        assert data == files[int(row[1:])]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["0.png", "1.png"], "4 images have no row"),
        ([*(f"{i}.png" for i in range(6)), "../outside.png"], "1 name no image in this folder"),
        ([*(f"{i}.png" for i in range(6)), "0.png"], "1 one that another row names"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(
    tmp_path: Path, files: list[bytes], names: list[str], message: str
) -> None:
    folder = lay(tmp_path / "here", files, [f"{i}.png" for i in range(6)])
    (tmp_path / "outside.png").write_bytes(files[0])
    pd.DataFrame({"file_name": names}).to_csv(folder / "metadata.csv", index=False)
    with pytest.raises(SourceError, match=message):
        read_source(folder)


def test_files_that_are_no_images_are_named_and_counted(tmp_path: Path, files: list[bytes]) -> None:
    folder = lay(tmp_path, files, [f"{i}.png" for i in range(6)])
    (folder / "note.png").write_text("hello")
    (folder / "README.txt").write_text("of no kind that is read")
    with pytest.raises(SourceError, match=r"1 of 7 image files .*'note\.png'"):
        read_source(folder)
    (folder / "note.png").unlink()
    assert table_of(folder).num_rows == 6


def test_images_outside_their_class_folders_are_refused(tmp_path: Path, files: list[bytes]) -> None:
    folder = lay(tmp_path, files, ["0.png", *(f"a/{i}.png" for i in range(1, 6))])
    with pytest.raises(SourceError, match="1 of 6 images lie outside"):
        read_source(folder)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path, files: list[bytes]) -> None:
    folder = lay(tmp_path / "here", files, [f"{i}.png" for i in range(6)])
    (tmp_path / "secret.png").write_bytes(files[0])
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(SourceError, match="1 image files are links"):
        read_source(folder)


@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 1), (5, 6, 7, 3), (5, 6, 7, 4)])
def test_an_array_is_a_table_of_images(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    kept = array.copy()
    table = table_of(array)
    found, _ = decoded_images("image", table.column("image"))
    assert np.array_equal(found.reshape(shape), array)
    assert np.array_equal(array, kept)


def test_arrays_with_labels_are_one_table() -> None:
    source = read_source({"image": pixels(5), "label": np.arange(5)})
    assert list(source.tables) == ["table"]
    assert source.tables["table"].table().column("label").to_pylist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "array",
    [np.zeros((5, 6, 7)), np.zeros((5, 6, 7, 2), np.uint8), np.zeros((2, 3, 4, 5, 6), np.uint8)],
)
def test_arrays_that_are_no_images_are_refused(array: np.ndarray) -> None:
    with pytest.raises(SourceError, match="images are uint8"):
        read_source(array)


def test_parquet_and_frames_of_hugging_face_are_images(tmp_path: Path, files: list[bytes]) -> None:
    table = pa.table({"image": image_column(files, [None] * 6), "label": [0, 1] * 3})
    pq.write_table(table, tmp_path / "x.parquet")
    for source in (tmp_path / "x.parquet", table, table.to_pandas()):
        opened: Source = read_source(source)
        kinds = [c.kind for c in infer_schema(opened.tables["table"].table()).columns]
        assert kinds == ["image", "categorical"]  # beside images an integer `label` is a class


def test_a_model_of_tables_refuses_images_by_name() -> None:
    table = pa.table({"photo": image_column(encoded_images(pixels(25)), [None] * 25)})
    with pytest.raises(SourceError, match="column 'photo' holds images"):
        Codec.fit(table, infer_schema(table), seed=0)


def test_a_column_of_images_cannot_be_declared_something_else() -> None:
    table = pa.table({"photo": image_column(encoded_images(pixels(25)), [None] * 25)})
    for kind in ("categorical", "numeric"):
        declared = read_declared({"columns": {"photo": {"kind": kind}}})
        with pytest.raises((SourceError, UsageError), match="photo"):
            infer_schema(table, declared["*"])


# ---- measures ------------------------------------------------------------------------------------


def test_precision_recall_density_and_coverage_by_hand() -> None:
    from safegen.measure.prdc import prdc

    rng = np.random.default_rng(0)
    real = rng.normal(size=(400, 4))

    def values(a: Any, b: Any, k: int = 5) -> dict[str, float]:
        return {name: found.value for name, found in prdc(a, b, k).items()}

    same = values(real, rng.normal(size=(400, 4)))
    assert all(0.85 < same[name] <= 1.15 for name in same)
    half = values(real, np.abs(rng.normal(size=(400, 4))))  # a sixteenth of reality
    assert half["precision"] > 0.8
    assert half["coverage"] < 0.4
    assert half["recall"] < 0.6
    far = values(real, rng.normal(size=(400, 4)) + 50)
    assert far == {"precision": 0.0, "recall": 0.0, "density": 0.0, "coverage": 0.0}
    line = np.arange(4.0)[:, None]  # balls of radius 1, open
    exact = values(line, line + 0.5, k=1)
    assert exact == {"precision": 1.0, "recall": 1.0, "density": 1.75, "coverage": 1.0}
    with pytest.raises(ValueError, match="k is at least 1"):
        prdc(line, line, k=4)


def test_precision_recall_density_and_coverage_come_with_intervals() -> None:
    """One sample's interval holds the mean over 30 others, in about 19 of 20 cases (seed 1)."""
    from safegen.measure.prdc import prdc

    rng = np.random.default_rng(1)

    def draw() -> Any:
        return prdc(rng.normal(size=(120, 2)), 0.8 * rng.normal(size=(150, 2)), seed=3)

    samples = [draw() for _ in range(30)]
    for name in ("precision", "recall", "density", "coverage"):
        mean = np.mean([s[name].value for s in samples])
        held = [s[name].interval[0] <= mean <= s[name].interval[1] for s in samples]
        assert sum(held) >= 26, name
        found = samples[0][name]
        assert (found.n, found.real_n, found.seed) == (150, 120, 3)
        assert 0.01 < found.interval[1] - found.interval[0] < 0.6, name
    far = prdc(rng.normal(size=(99, 2)), rng.normal(size=(99, 2)) + 50)
    assert far["coverage"].interval == (0.0, pytest.approx(0.037, abs=0.002))
