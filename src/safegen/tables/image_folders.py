"""Image folders, both ways: `class/name.png`, with Hugging Face's `metadata.*` beside them; and
arrays of pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from safegen.errors import SourceError, UsageError
from safegen.places import Place
from safegen.tables.files import open_file, reading
from safegen.tables.images import (
    MAX_BYTES,
    MODES,
    READABLE,
    SUFFIXES,
    encoded_images,
    image_bytes,
    image_column,
    is_image,
    open_image,
)

__all__ = [
    "FILE_NAME",
    "METADATA",
    "from_arrays",
    "is_image_file",
    "is_metadata",
    "read_image_folder",
    "written_as_files",
]

METADATA = "metadata.parquet"
"""The table beside the images of a folder: a row per image, `file_name` first of all."""

FILE_NAME = "file_name"
"""That column: the image's path below the folder."""

_METADATA = ("metadata.csv", "metadata.jsonl", METADATA)
_COLUMN = b"safegen_image_column"  # field metadata of `file_name`: what the image column is called
_PER_FOLDER = 1_000


def is_image_file(path: Place) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def is_metadata(path: Place) -> bool:
    return path.name.lower() in _METADATA


def read_image_folder(root: Any, images: Sequence[Any], data: Sequence[Any]) -> pa.Table:
    """The table of an image folder: a column `image`, then `label` or the columns of its metadata.

    `images` and `data` are the image files and the metadata files in `root`. With a metadata file
    of Hugging Face's layout its rows are joined by `file_name`; else, when the images lie in
    sub-folders, the name of the folder is the column `label`.

    Raises: SourceError with counts, no names: files that are no image or lie elsewhere (links),
    several metadata files, images without a row or rows without an image.
    """
    home = root.resolve()
    strays = [p for p in (*images, *data) if not p.resolve().is_relative_to(home)]
    if strays:
        raise SourceError(f"{root}: {len(strays):,} files are links to elsewhere: copy them")
    if (size := sum(p.stat().st_size for p in images)) > MAX_BYTES:
        raise SourceError(f"{root}: {size >> 20:,} MiB of images, and {MAX_BYTES >> 20:,} is most")
    files: dict[str, bytes] = {}
    broken = 0
    for path in images:
        with reading(f"{root}: an image file"):  # its name may be a person's
            content = path.read_bytes()
        try:
            open_image(content)
        except ValueError:
            broken += 1
        files[path.relative_to(root).as_posix()] = content
    if broken:
        raise SourceError(
            f"{root}: {broken:,} of {len(images):,} image files are no image that can be read, "
            f"{READABLE}: remove them"
        )
    if len(data) > 1 or any(p.parent != root for p in data):
        raise SourceError(
            f"{root}: {len(data):,} metadata files; an image folder has one at most, beside its "
            "images or their folders"
        )
    if data:
        return _joined(root, files, open_file(data[0]).table())
    names = list(files)
    table = pa.table({"image": image_column(list(files.values()), list(names))})
    folders = [Path(name).parent.name for name in names]
    if not all(folders):
        if any(folders):
            flat = sum(not f for f in folders)
            raise SourceError(
                f"{root}: {flat:,} of {len(names):,} images lie outside the folders that name the "
                "classes: put them into one"
            )
        return table
    return table.append_column("label", pa.array(folders))


def _joined(root: Place, files: Mapping[str, bytes], rows: pa.Table) -> pa.Table:
    """The metadata's rows with their images where `file_name` stood."""
    at = rows.schema.get_field_index(FILE_NAME)
    if at < 0:
        raise SourceError(f"{root}: its metadata has no column {FILE_NAME!r}")
    names = [str(name) for name in rows.column(at).to_pylist()]
    absent = [name for name in names if name not in files]
    left = len(set(files) - set(names))
    if absent or left or len(set(names)) < len(names):
        raise SourceError(
            f"{root}: of {len(names):,} rows of its metadata {len(absent):,} name no image in this "
            f"folder, {len(names) - len(set(names)):,} one that another row names, and {left:,} "
            "images have no row"
        )
    called = (rows.schema.field(at).metadata or {}).get(_COLUMN, b"image").decode()
    if called in rows.schema.names:
        raise SourceError(f"{root}: its metadata has a column {called!r}: rename it")
    column = image_column([files[name] for name in names], [Path(name).name for name in names])
    return rows.set_column(at, called, column)


def written_as_files(table: pa.Table, folder: Path, first_row: int) -> pa.Table:
    """Write a table's images below `folder`; gives its other columns, with `file_name` for the
    images, such that `read_image_folder` gives the table back.

    Images are named by row number, a thousand to a sub-folder. Raises: UsageError when a row has
    no image.
    """
    (at,) = (i for i, field in enumerate(table.schema) if is_image(field.type))
    field = table.schema.field(at)
    names = []
    for row, data in enumerate(image_bytes(table.column(at)), first_row):
        place = folder / f"{row // _PER_FOLDER:05d}"
        place.mkdir(parents=True, exist_ok=True)
        if data is None:
            raise UsageError("a row without an image has no PNG file: say images=parquet")
        (place / f"{row:07d}.png").write_bytes(data)
        names.append(f"{place.name}/{row:07d}.png")
    named = pa.field(FILE_NAME, pa.string(), metadata={_COLUMN: field.name.encode()})
    return table.set_column(at, named, pa.array(names))


def from_arrays(source: Any) -> pa.Table:
    """The table of an array of images, or of `{"image": array, "label": array}`.

    Images are uint8 of shape (n, height, width) or (n, height, width, channels) with 1, 3 or 4
    channels. Raises: SourceError.
    """
    columns = source if isinstance(source, Mapping) else {"image": source}
    made: dict[str, Any] = {}
    for name, values in columns.items():
        array = np.asarray(values)
        if array.ndim < 2:
            made[str(name)] = pa.array(array)
            continue
        pixels = array[..., None] if array.ndim == 3 else array
        if pixels.ndim != 4 or pixels.dtype != np.uint8 or pixels.shape[3] not in MODES:
            raise SourceError(
                f"the array {name!r} has shape {array.shape} and type {array.dtype}; images are "
                "uint8, (n, height, width) or (n, height, width, channels) with 1, 3 or 4 channels"
            )
        if not pixels.size:
            raise SourceError(f"the array {name!r} is empty")
        made[str(name)] = image_column(encoded_images(pixels), [None] * len(pixels))
    if len({len(column) for column in made.values()}) > 1:
        raise SourceError("the arrays are not of one length")
    return pa.table(made)
