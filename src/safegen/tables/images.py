"""Images in tables: encoded bytes in the layout of Hugging Face's `Image` feature.

An image column is `struct<bytes: binary, path: string>`. The path is a name, not content: no path
is ever followed. A PNG that safegen releases carries its stamp in a `tEXt` chunk, where programs
that copy files leave it; the stamp is no content either, as the provenance columns are none.
"""

from __future__ import annotations

import io
import json
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.errors import MissingExtra, SourceError, hidden, upstream

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "CREDENTIAL",
    "IMAGE",
    "MAGIC",
    "MAX_BYTES",
    "MODES",
    "PNG",
    "READABLE",
    "SUFFIXES",
    "decoded_images",
    "encoded_images",
    "image_bytes",
    "image_column",
    "image_problem",
    "is_image",
    "open_image",
    "opened_image",
    "pixels_of",
    "png_chunks",
    "stamp_of",
    "stamps_of",
    "stamped_images",
    "with_stamp",
    "without_stamp",
]

IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
"""The Arrow type of an image column, as Hugging Face writes it."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # none that starts a program

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode of images with so many channels."""

MAX_PIXELS = 1 << 26
"""Pixels of one image: 8,192 × 8,192. A small file can claim many more (a decompression bomb)."""

READABLE = f"of at most {MAX_PIXELS:,} pixels of 8 or 16 bits"
"""What `open_image` takes, in words."""

MAX_ALL_PIXELS = 1 << 31
"""Pixels of the images of one column, decoded at once: 1 to 4 bytes each."""

MAX_BYTES = (1 << 31) - 1
"""Encoded bytes of one column; they are held in memory while a model is fitted."""

PNG = b"\x89PNG\r\n\x1a\n"
"""What a PNG file begins with."""

MAGIC = (PNG, b"\xff\xd8\xff", b"RIFF", b"BM", b"GIF8", b"II*\x00", b"MM\x00*", b"P5", b"P6")
"""What files of the formats that are read begin with."""


CREDENTIAL = b"caBX"
"""The PNG chunk with a C2PA manifest ("C2PA Technical Specification 2.1", A.3.3)."""

_HEADER = b"\x00\x00\x00\x0dIHDR"
_AFTER_HEADER = len(PNG) + 25  # the IHDR chunk is always first, with 13 bytes of content
_KEYWORD = b"safegen"


def is_image(type_: pa.DataType) -> bool:
    """Whether a type is that of an image column: a struct of `bytes` and `path`, and no more."""
    t = pa.types
    if not t.is_struct(type_) or type_.num_fields != 2:
        return False
    kinds = {field.name: field.type for field in type_}
    if set(kinds) != {"bytes", "path"}:
        return False
    data, path = kinds["bytes"], kinds["path"]
    encoded = t.is_binary(data) or t.is_large_binary(data) or t.is_binary_view(data)
    named = t.is_string(path) or t.is_large_string(path) or t.is_string_view(path)
    return bool(encoded and (named or t.is_null(path)))


def image_bytes(values: pa.Array | pa.ChunkedArray) -> Iterator[bytes | None]:
    """The encoded bytes of every row of an image column; None where there are none."""
    for chunk in values.chunks if isinstance(values, pa.ChunkedArray) else [values]:
        for value in pc.struct_field(chunk, "bytes"):
            yield value.as_py()


def image_column(data: list[bytes], paths: list[str | None], type_: pa.DataType = IMAGE) -> Any:
    """An image column of encoded bytes and their names."""
    fields = {"bytes": pa.array(data, pa.large_binary()), "path": pa.array(paths, pa.string())}
    return pa.StructArray.from_arrays(
        [fields[field.name].cast(field.type) for field in type_], fields=list(type_)
    )


# ---- decoding, bounded ---------------------------------------------------------------------------


def open_image(data: bytes) -> Image:
    """The image in these bytes, its header read, its pixels not yet.

    Raises: ValueError for bytes that are no image, or one of more than `MAX_PIXELS` pixels or of 32
    bits to a number, of which nobody can tell what is white; MissingExtra without Pillow.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("images need Pillow: pip install 'safegen[diffusion]'") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        except Exception as error:  # whatever a decoder raises at what it does not understand
            raise ValueError("no image") from hidden(error)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError("too large")
    if image.mode in ("I", "F"):
        raise ValueError("32 bits")
    return image


def opened_image(data: bytes, mode: str | None = None) -> Image:
    """The image, decoded, of 8 bits. Raises: ValueError."""
    return _decoded(open_image(data), mode)


def _decoded(image: Image, mode: str | None = None) -> Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if image.mode.startswith("I;"):  # Pillow would cut off what is over 255
                from PIL import Image as images

                grey = images.fromarray((np.asarray(image) >> 8).astype(np.uint8))
                return grey.convert(mode or "L")
            return image.convert(mode or _plain_mode(image))
        except Exception as error:
            raise ValueError(f"damaged ({upstream(error)})") from hidden(error)


def _plain_mode(image: Image) -> str:
    """The least of L, RGB and RGBA that keeps the image (of sixteen bits the upper eight)."""
    if image.mode.startswith("I;"):
        return "L"
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return "RGBA"
    return "L" if image.mode in ("1", "L") else "RGB"


def image_problem(name: str, values: pa.ChunkedArray) -> str | None:
    """What is in the way of using an image column: the count of what is no image; else None."""
    without = broken = size = 0
    for chunk in values.chunks:
        names = pc.struct_field(chunk, "path").is_valid().to_pylist()
        for data, named in zip(image_bytes(chunk), names, strict=True):
            if data is None:
                without += named
                continue
            size += len(data)
            try:
                open_image(data)
            except ValueError:
                broken += 1
    if without:
        return (
            f"column {name!r}: {without:,} image(s) have a path and no bytes, and no path is "
            "followed: embed the files (in `datasets`: embed_external_files), or give their folder"
        )
    if broken:
        return (
            f"column {name!r}: {broken:,} value(s) are no image that can be read (PNG, JPEG, …, "
            f"{READABLE}): remove them"
        )
    if size > MAX_BYTES:
        return f"column {name!r} has more than {MAX_BYTES >> 30} GiB of images: take a part of them"
    return None


def decoded_images(
    name: str, values: pa.ChunkedArray, resolution: int | None = None
) -> tuple[np.ndarray, str]:
    """All images of a column as uint8 of shape (n, height, width, channels), and their mode.

    The mode is L, RGB or RGBA: the least that keeps every image. With `resolution` each is brought
    to that many pixels square: scaled to cover it, and cut to its centre.

    Raises: SourceError naming column and count, when images are missing or damaged, of more than
    `MAX_ALL_PIXELS` together, or, without `resolution`, not all of one size.
    """
    from PIL import ImageOps
    from PIL.Image import Resampling

    found = list(image_bytes(values))
    if absent := sum(data is None for data in found):
        raise SourceError(f"column {name!r}: {absent:,} images are missing: leave those rows out")
    images: list[Image] = []
    damaged = total = 0
    for data in found:
        try:
            assert data is not None
            image = open_image(data)
            size = image.size if resolution is None else (resolution, resolution)
            total += size[0] * size[1]
            if total > MAX_ALL_PIXELS:
                raise SourceError(
                    f"column {name!r}: its {len(found):,} images have more than "
                    f"{MAX_ALL_PIXELS:,} pixels: take fewer, or smaller ones by resolution=N"
                )
            image = _decoded(image)
        except ValueError:
            damaged += 1
            continue
        # Scaled at once: many large images do not go into memory together.
        images.append(
            image if resolution is None else ImageOps.fit(image, size, Resampling.LANCZOS)
        )
    if damaged:
        raise SourceError(
            f"column {name!r}: {damaged:,} images are damaged, or not {READABLE}: remove them"
        )
    modes = {image.mode for image in images}
    mode = next(m for m in ("RGBA", "RGB", "L") if m in modes)
    sizes = {image.size for image in images}
    if len(sizes) > 1:
        raise SourceError(
            f"column {name!r}: its images have {len(sizes):,} different sizes: say "
            "resolution=N, and each is scaled and cut to N × N"
        )
    pixels = np.stack([np.asarray(image.convert(mode)) for image in images])
    return pixels.reshape(*pixels.shape[:3], -1), mode


def pixels_of(data: bytes) -> bytes:
    """What a lossless re-encoding keeps: size and RGBA pixels. Raises: ValueError."""
    image = opened_image(data, "RGBA")
    return struct.pack("<II", *image.size) + image.tobytes()


def encoded_images(pixels: np.ndarray) -> list[bytes]:
    """PNG files of uint8 pixels of shape (n, height, width, channels): 1, 3 or 4 channels."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("images need Pillow: pip install 'safegen[diffusion]'") from None
    files = []
    for one in pixels:
        sink = io.BytesIO()
        Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one).save(sink, "PNG")
        files.append(sink.getvalue())
    return files


# ---- stamps in PNG files -------------------------------------------------------------------------


def png_chunks(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(start, end, type) of each chunk of a PNG file, as far as it is well formed."""
    start = len(PNG) if data.startswith(PNG) else len(data)
    while start + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, start)
        end = start + 12 + size
        if end > len(data):
            return
        yield start, end, data[start + 4 : start + 8]
        start = end


def _stamps(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(start, end, text) of the chunks of text under our keyword."""
    for start, end, kind in png_chunks(data):
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, _, text = data[start + 8 : end - 4].partition(b"\x00")
            if keyword.lower() == _KEYWORD:
                yield start, end, text


def with_stamp(data: bytes, stamp: Mapping[str, Any]) -> bytes:
    """The image as a PNG file that carries the stamp. Raises: ValueError for what is no image."""
    open_image(data)
    if not data.startswith(PNG):
        data = encoded_images(np.asarray(opened_image(data))[None, ...].reshape(_shape(data)))[0]
    if data[len(PNG) : len(PNG) + 8] != _HEADER:
        raise ValueError("a PNG file without its header")
    data = without_stamp(data)
    body = b"tEXt" + _KEYWORD + b"\x00" + json.dumps(dict(stamp), sort_keys=True).encode("ascii")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:_AFTER_HEADER] + chunk + data[_AFTER_HEADER:]


def _shape(data: bytes) -> tuple[int, int, int, int]:
    image = open_image(data)
    channels = {mode: n for n, mode in MODES.items()}[_plain_mode(image)]
    return 1, image.height, image.width, channels


def without_stamp(data: bytes) -> bytes:
    """The file without our stamp and without any C2PA manifest: its content. The signature in one
    is another each time. A file that has neither comes back as it is."""
    signed = ((start, end) for start, end, kind in png_chunks(data) if kind == CREDENTIAL)
    for start, end in sorted([*signed, *((a, b) for a, b, _ in _stamps(data))], reverse=True):
        data = data[:start] + data[end:]
    return data


def stamps_of(data: bytes) -> list[dict[str, Any]]:
    """The stamps in a PNG file, an empty one for each that is damaged. We put one; whoever adds
    another does not hide it."""
    found = []
    for _, _, text in _stamps(data):
        try:
            stamp = json.loads(text)
        except (ValueError, RecursionError):
            stamp = None
        found.append(dict(stamp) if isinstance(stamp, Mapping) else {})
    return found


def stamp_of(data: bytes) -> dict[str, Any] | None:
    """The stamp in a PNG file, of several the first that does not say real; None without one."""
    found = stamps_of(data)
    return next((s for s in found if s.get("origin") != "real"), next(iter(found), None))


def stamped_images(
    table: pa.Table,
    stamp: Mapping[str, Any],
    first_row: int,
    signed: Callable[[bytes], bytes] = bytes,
) -> pa.Table:
    """The table with the stamp in every image of its image columns, and each image named by its
    row number in the whole output. `signed`: what is to be done to each of the files at last.
    Raises: ValueError for what is no image."""
    for i, field in enumerate(table.schema):
        if not is_image(field.type):
            continue
        files = [
            b if b is None else signed(with_stamp(b, stamp)) for b in image_bytes(table.column(i))
        ]
        paths = [f"{first_row + row:07d}.png" for row in range(len(files))]
        column = image_column(files, paths, field.type)  # type: ignore[arg-type]
        if None in files:
            column = pc.if_else(pa.array([f is not None for f in files]), column, None)
        table = table.set_column(i, field, column)
    return table
