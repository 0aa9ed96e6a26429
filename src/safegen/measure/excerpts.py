"""Some made rows and images as a report may show them: without a real value.

Made rows hold words of the real data, and numbers that real rows have as well. A level is named by
its rank, `#k`, unless its column was declared public; a number or a date that some, but fewer than
`COMMON` real rows have is withheld, and so is every id and every piece of personal data that is
real, and an image whose pixels are those of a real one. Where the policy says `report.real_values`
nothing is withheld.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.measure.compared import plain
from safegen.measure.drawn import Drawn
from safegen.measure.figures import Picture, Sample, level_name
from safegen.measure.keys import KeyTally
from safegen.tables.images import image_bytes, opened_image, pixels_of
from safegen.tables.numbers import decoded, taken
from safegen.tables.schema import Column, TableSchema

__all__ = ["COMMON", "pictures", "sample"]

COMMON = 30  # real rows that have a number which singles nobody out
ROWS = 8
PICTURES = 12
EDGE = 96  # pixels of a picture's longer side, at most
COMPARED = 20_000  # real images, of which it is found out whether a made one is a copy

Say = Callable[[Any], str | None]


def sample(
    name: str, made: Drawn, real: pa.Table | None, schema: TableSchema, *, real_values: bool
) -> Sample | None:
    """The first rows of those drawn; None where no column may be shown.

    real: all real rows, trained on or not; None where they are not at hand: then nothing is shown
    but what is public.
    """
    rows = taken(made.table, np.arange(min(ROWS, made.table.num_rows)))
    kept = [c for c in schema.columns if c.kind != "image" and c.name in rows.column_names]
    if not kept or not rows.num_rows:
        return None
    columns = []
    for column in kept:
        values = decoded(rows.column(column.name))
        there = None if real is None else real.column(column.name)
        say = _say if real_values or column.public else _guarded(column, values, there)
        columns.append([say(v) for v in values.to_pylist()])
    return Sample(
        table=name, heads=[c.name for c in kept], rows=[list(r) for r in zip(*columns, strict=True)]
    )


def _say(value: Any) -> str | None:
    """A value as a page writes it; the empty text where it is missing."""
    if value is None or value != value:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else level_name(value)


def _guarded(column: Column, values: pa.Array, real: pa.ChunkedArray | None) -> Say:
    """How a column's values may be said."""
    if column.kind == "boolean":
        return _say
    if real is None:
        return lambda value: "" if value is None else None
    if column.kind == "categorical":
        found = pc.value_counts(plain(real))
        order = np.argsort(-found.field("counts").to_numpy(), kind="stable")
        levels = [
            v for v in found.field("values").take(pa.array(order)).to_pylist() if v is not None
        ]
        ranks = {level: f"#{rank}" for rank, level in enumerate(levels, 1)}
        return lambda value: "" if value is None or value != value else ranks.get(value, "new")
    few = COMMON if column.kind in ("numeric", "datetime") else len(real) + 1
    own, held = KeyTally(), KeyTally()  # exact, also beyond what a float tells apart
    own.update(values)
    held.update(decoded(real))
    there = held.hashes
    counts = [int((there == x).sum()) for x in own.hashes]
    told = zip(values.drop_null().to_pylist(), counts, strict=True)
    withheld = {value for value, n in told if 0 < n < few}
    return lambda value: None if value in withheld else _say(value)


def pictures(
    made: pa.ChunkedArray, real: pa.ChunkedArray | None, *, real_values: bool
) -> tuple[list[Picture], int]:
    """The first images of those drawn, small, and how many of them are withheld."""
    files = [data for data in image_bytes(made.slice(0, PICTURES)) if data is not None]
    if real_values:
        return [_small(data) for data in files], 0
    if real is None or len(real) > COMPARED:
        return [], len(files)
    copied = {_pixels(data) for data in image_bytes(real) if data is not None}
    kept = [data for data in files if _pixels(data) not in copied]
    return [_small(data) for data in kept], len(files) - len(kept)


def _pixels(data: bytes) -> bytes:
    return hashlib.sha256(pixels_of(data)).digest()


def _small(data: bytes) -> Picture:
    image = opened_image(data)
    image.thumbnail((EDGE, EDGE))
    kind: Literal["png", "jpeg"] = "png"
    if max(image.size) > EDGE // 2:
        image, kind = image.convert("RGB"), "jpeg"
    sink = io.BytesIO()
    image.save(sink, kind.upper())
    text = base64.b64encode(sink.getvalue()).decode("ascii")
    return Picture(kind=kind, data=text, width=image.width, height=image.height)
