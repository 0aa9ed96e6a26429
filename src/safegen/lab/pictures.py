"""Sheets of sample pictures: for each release a few of each class, small, in a PNG file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import numpy as np
import pyarrow as pa

from safegen.tables.images import decoded_images, encoded_images

__all__ = ["album", "sheet", "shown_classes"]

CLASSES = 10  # in a sheet, at most: the rarest, and the most frequent of the others
EACH = 3
SIDE = 32  # pixels: larger images are scaled to so many square


def sheet(table: pa.Table, image: str, label: str, classes: Sequence[str]) -> bytes:
    """A PNG file with the first images of each class, a column to a class, `EACH` below each other,
    a white line between them; what a class does not have is white."""
    labels = np.array([str(value) for value in table.column(label).to_pylist()])
    places = [np.flatnonzero(labels == c)[:EACH] for c in classes]
    first, _ = decoded_images(image, table.column(image).slice(0, 1))
    side = min(SIDE, *first.shape[1:3])
    # A first one that is shown nowhere: there may be no other.
    chosen = table.column(image).take(pa.array([0, *np.concatenate(places).tolist()], pa.int64()))
    pixels, _ = decoded_images(image, chosen, side)
    shape = (len(classes), EACH, side + 1, side + 1, pixels.shape[-1])
    drawn = np.full(shape, 255, dtype=np.uint8)
    at = 1
    for column, rows in enumerate(places):
        drawn[column, : len(rows), :side, :side] = pixels[at : at + len(rows)]
        at += len(rows)
    # (classes, EACH, height, width, channels) → (EACH · height, classes · width, channels)
    whole = drawn.transpose(1, 2, 0, 3, 4).reshape(EACH * (side + 1), len(classes) * (side + 1), -1)
    return encoded_images(whole[None])[0]


def shown_classes(classes: Sequence[str], shares: np.ndarray) -> list[str]:
    """Those that sheets show, in the order of `classes`."""
    order = np.argsort(-shares, kind="stable")
    kept = set(order[: CLASSES - 1]) | {int(np.argmin(shares))}
    return [c for i, c in enumerate(classes) if i in kept]


def album(caption: str, real: bytes, sheets: Sequence[tuple[str, Sequence[bytes]]]) -> str:
    """Sheets as an HTML table: a column to an arm, a row to a fit, the real images on top."""

    def cell(png: bytes, says: str) -> str:
        data = base64.b64encode(png).decode("ascii")
        return f'<td><img src="data:image/png;base64,{data}" alt="{escape(says)}"></td>'

    rows = [f"<tr><th>real</th>{cell(real, 'real images, by class')}</tr>"]
    rows.append(f"<tr><th>fit</th>{''.join(f'<th>{escape(arm)}</th>' for arm, _ in sheets)}</tr>")
    for fit, pngs in enumerate(zip(*(some for _, some in sheets), strict=True), 1):
        cells = [
            cell(png, f"{arm}: images of fit {fit}, by class")
            for (arm, _), png in zip(sheets, pngs, strict=True)
        ]
        rows.append(f"<tr><td>{fit}</td>{''.join(cells)}</tr>")
    return f'<table class="pictures"><caption>{escape(caption)}</caption>{"".join(rows)}</table>'
