"""Images in tables: their layout, their stamps, their content, and what cannot be read."""

from __future__ import annotations

import io
import json
import struct
import weakref
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
from safegen.tables.digesting import table_digests
from safegen.tables.digests import LookupDigest, RowsDigest
from safegen.tables.images import (
    IMAGE,
    MAX_PIXELS,
    decoded_images,
    encoded_images,
    image_bytes,
    image_column,
    is_image,
    open_image,
    pixels_of,
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


def _within(files: list[bytes]) -> dict[str, pa.Array]:
    """The same files in other layouts, a row to a file."""
    plain = pa.array(files)
    struct = pa.StructArray.from_arrays([plain, pa.array([8] * len(files))], ["bytes", "width"])
    lists = pa.array([[{"bytes": f}] if i % 2 else [{"bytes": b""}, {"bytes": f}]
                      for i, f in enumerate(files)])  # fmt: skip
    union = pa.UnionArray.from_dense(
        pa.array([1] * len(files), pa.int8()), pa.array(range(len(files)), pa.int32()),
        [pa.array([1]), plain],
    )  # fmt: skip
    return {
        "binary": plain,
        "large": plain.cast(pa.large_binary()),
        "view": plain.cast(pa.binary_view()),
        "fixed": pa.array([f.ljust(400, b"\0") for f in files], pa.binary(400)),
        "dictionary": plain.dictionary_encode(),
        "struct": struct,
        "list of structs": lists,
        "list view": pa.array([[f] for f in files], pa.list_view(pa.binary())),
        "map": pa.array([[("a", f)] for f in files], pa.map_(pa.string(), pa.binary())),
        "extension": pa.ExtensionArray.from_storage(pa.opaque(pa.binary(), "image", "x"), plain),
        "union": union,
    }


@pytest.mark.parametrize("layout", list(_within([b""])))
@pytest.mark.parametrize("marked", [True, False])
def test_a_stamp_is_found_whatever_the_image_is_put_into(layout: str, marked: bool) -> None:
    files = encoded_images(pixels(6))
    if marked:
        files[3] = with_stamp(files[3], STAMP)
    column = _within(files)[layout]
    tally = InBand(pa.schema([("photo", column.type)]))
    for part in (column[:2], column[2:]):  # slices: rows are counted from their start
        tally(pa.record_batch({"photo": part}))
    piece = tally.evidence("table")
    assert (piece is not None) is marked
    if piece is not None:
        assert (piece.share, piece.depth, piece.dataset_id) == (1 / 6, 2, STAMP["dataset_id"])


def test_a_stamp_says_which_row_of_a_list(tmp_path: Path) -> None:
    plain, marked = encoded_images(pixels(1))[0], with_stamp(encoded_images(pixels(1))[0], STAMP)
    column = pa.array([[plain, plain], None, [], [plain, marked, marked], [marked]])
    tally = InBand(pa.schema([("photos", column.type)]))
    tally(pa.record_batch({"photos": column}))
    assert (tally.synthetic, tally.rows, tally.depth_sum) == (2, 5, 4.0)


@pytest.mark.parametrize("planted", [{"origin": "real"}, {"origin": "synthetic", "depth": 1}])
def test_a_planted_stamp_hides_no_other(planted: dict[str, Any]) -> None:
    info = PngInfo()
    info.add_text("safegen", json.dumps(planted))
    info.add_text("safegen", json.dumps(STAMP))
    data = saved(pixels(1)[0], "PNG", pnginfo=info)
    tally = InBand(pa.schema([("image", IMAGE)]))
    tally(pa.record_batch({"image": image_column([data], [None])}))
    assert (tally.synthetic, tally.max_depth) == (1, 2)
    stamp = stamp_of(data)
    assert stamp is not None
    assert stamp["origin"] == "synthetic"


def test_what_is_no_image_gets_no_stamp() -> None:
    (plain,) = encoded_images(pixels(1))
    text = plain[33:33] + b"\x00\x00\x00\x01tEXta" + struct.pack(">I", zlib.crc32(b"tEXta"))
    for data in (plain[:8], plain[:8] + b"garbage" * 20, plain[:8] + text + plain[8:], b"", b"x"):
        with pytest.raises(ValueError, match=r"no image|header"):
            with_stamp(data, STAMP)
    assert stamp_of(with_stamp(plain, STAMP)) == STAMP


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


def test_an_image_without_its_struct_is_found_and_other_bytes_stay_what_they_are() -> None:
    (plain,) = encoded_images(pixels(1, 3))
    column = tolerant_cells(image_column([plain], [None]))
    again = saved(pixels(1, 3)[0], "BMP")
    for type_ in (pa.binary(), pa.large_binary(), pa.binary_view()):
        bare = pa.array([plain, None, with_stamp(plain, STAMP), again], type_)
        cells = tolerant_cells(bare)
        assert (cells[[0, 2, 3]] == column).all()
        assert not cells[1].any()
        other = pa.array([b"text", b"", plain[:8], b"P5 is a word", b"BM", None], type_)
        assert (tolerant_cells(other) == exact_cells(other)).all()


def test_an_image_is_decoded_once_for_all_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    from safegen.tables import cells

    counted = []
    monkeypatch.setattr(cells, "pixels_of", lambda data: counted.append(data) or data)
    table = pa.table({"image": image_column(encoded_images(pixels(5)), [None] * 5)})
    keys = [(name, name.encode() * 32) for name in "abc"]
    _, lookups = table_digests(Batches.of(table), keys)
    assert len(counted) == 5
    for name, key in keys:
        alone = LookupDigest(table.schema, key)
        for batch in table.to_batches():
            alone.update(batch)
        assert lookups[name].value() == alone.value()


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


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_cut_off(kind: str) -> None:
    wide = (np.arange(64).reshape(8, 8) * 1_000).astype(np.uint16)
    sink = io.BytesIO()
    Image.fromarray(wide).save(sink, kind)
    found, mode = decoded_images("i", pa.chunked_array([image_column([sink.getvalue()], [None])]))
    assert mode == "L"
    assert np.array_equal(found[0, ..., 0], wide >> 8)
    size = struct.pack("<II", 8, 8)
    assert (
        pixels_of(sink.getvalue())
        == size + Image.fromarray(found[0, ..., 0]).convert("RGBA").tobytes()
    )
    marked = with_stamp(sink.getvalue(), STAMP)
    assert np.array_equal(np.asarray(open_image(marked)) >> (8 if kind == "PNG" else 0), wide >> 8)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_numbers_of_32_bits_are_no_images(dtype: Any) -> None:
    sink = io.BytesIO()
    Image.fromarray(np.ones((6, 5), dtype)).save(sink, "TIFF")
    files = [*encoded_images(pixels(24)), sink.getvalue()]
    column = pa.chunked_array([image_column(files, [None] * 25)])
    with pytest.raises(SourceError, match=r"1 value.* 8 or 16 bits"):
        check_table(pa.table({"image": column}), "t")
    with pytest.raises(SourceError, match=r"1 images are damaged, or not .* 8 or 16 bits"):
        decoded_images("image", column)


def test_images_are_scaled_one_by_one_and_bounded_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from safegen.tables import images

    (large,) = encoded_images(np.zeros((1, 1_024, 1_024, 3), np.uint8))
    column = pa.chunked_array([image_column([large] * 40, [None] * 40)])
    held = []
    decoded = images._decoded

    def watched(image: Any, mode: str | None = None) -> Any:
        held.append(weakref.ref(made := decoded(image, mode)))
        assert sum(one() is not None for one in held) <= 3
        return made

    monkeypatch.setattr(images, "_decoded", watched)
    assert decoded_images("i", column, 8)[0].shape == (40, 8, 8, 3)
    monkeypatch.setattr(images, "MAX_ALL_PIXELS", 40 * 64)
    assert decoded_images("i", column, 8)[0].shape == (40, 8, 8, 3)
    for resolution in (9, None):
        with pytest.raises(SourceError, match=r"its 40 images have more than 2,560 pixels"):
            decoded_images("i", column, resolution)


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


def test_files_that_are_no_images_are_counted_and_not_named(
    tmp_path: Path, files: list[bytes]
) -> None:
    folder = lay(tmp_path, files, [f"{i}.png" for i in range(6)])
    (folder / "note.png").write_text("hello")
    (folder / "README.txt").write_text("of no kind that is read")
    with pytest.raises(SourceError, match=r"1 of 7 image files") as refused:
        read_source(folder)
    assert "note" not in str(refused.value)  # a file's name may be a person's
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
    with pytest.raises(SourceError, match="1 files are links"):
        read_source(folder)


def test_metadata_outside_the_folder_is_not_followed(tmp_path: Path, files: list[bytes]) -> None:
    names = [f"{i}.png" for i in range(6)]
    folder = lay(tmp_path / "here", files, names)
    pd.DataFrame({"file_name": names, "secret": names}).to_csv(tmp_path / "other.csv", index=False)
    (folder / "metadata.csv").symlink_to(tmp_path / "other.csv")
    with pytest.raises(SourceError, match="1 files are links to elsewhere"):
        read_source(folder)
    (folder / "metadata.csv").unlink()
    (folder / "_kept.csv").write_bytes((tmp_path / "other.csv").read_bytes())
    (folder / "metadata.csv").symlink_to(folder / "_kept.csv")
    assert table_of(folder).schema.names == ["image", "secret"]


def test_images_beside_a_table_are_not_dropped(tmp_path: Path, files: list[bytes]) -> None:
    names = [f"{i}.png" for i in range(6)]
    folder = lay(tmp_path, [with_stamp(f, STAMP) for f in files], names)
    table = pd.DataFrame({"file_name": names, "x": range(6)})
    table.to_csv(folder / "labels.csv", index=False)
    with pytest.raises(SourceError, match=r"6 images beside data files; name the one .*metadata"):
        read_source(folder)
    assert table_of(folder / "labels.csv").num_rows == 6
    (folder / "labels.csv").rename(folder / "metadata.csv")
    assert table_of(folder).schema.names == ["image", "x"]


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
