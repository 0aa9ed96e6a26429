"""A table of images with at most one column of levels beside them: a class, or a prompt."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from safegen.backends.arrays import check_block
from safegen.backends.diffusion.image import BLOCK
from safegen.errors import UsageError
from safegen.tables.columns import LevelsColumn, Place
from safegen.tables.images import encoded_images, image_column, is_image
from safegen.tables.numbers import single
from safegen.tables.schema import nearest
from safegen.tables.streams import stream

if TYPE_CHECKING:
    from safegen.contracts import Scalar

__all__ = ["ImageTable"]


@dataclass(frozen=True, eq=False)
class ImageTable:
    """What an image model's rows look like: the columns, and how often each level stands there."""

    name: str
    arrow_schema: pa.Schema
    image: str
    levels: LevelsColumn | None
    shares: tuple[float, ...]  # one per level; (1.0,) where there are no levels to tell apart

    @classmethod
    def of(
        cls, name: str, table: pa.Table, image: str, levels: LevelsColumn | None
    ) -> tuple[Self, np.ndarray]:
        """The layout of a source's table, and the level of every row: int64 (n,)."""
        codes = np.zeros(table.num_rows, dtype=np.int64)
        if levels is not None and levels.features:
            values = single(table.column(levels.name))
            codes = levels.encode(values, np.random.default_rng(0))[levels.name].astype(np.int64)
        shares = tuple((np.bincount(codes) / len(codes)).tolist())  # every level occurs
        return cls(name, table.schema.remove_metadata(), image, levels, shares), codes

    def drawn(
        self,
        rows: int,
        seed: int,
        block: int,
        conditions: Mapping[str, Scalar] | None,
        backend: str,
    ) -> np.ndarray:
        """The levels of a whole block, int64 (256,), or as a condition fixes them.

        In random order, each as often as its share says, one more or less: so a class of few
        images is in a release as it is in the source, whatever chance would do.

        Raises: UsageError for rows that no block has, and for a condition on another column.
        """
        check_block(rows, BLOCK, seed, block)
        rng = np.random.default_rng(stream(seed, block))
        even = (np.arange(BLOCK) + rng.random()) / BLOCK
        codes = np.searchsorted(np.cumsum(self.shares), even, "right")
        codes = rng.permutation(np.minimum(codes, len(self.shares) - 1))
        for column, value in (conditions or {}).items():
            if self.levels is None or column != self.levels.name:
                known = [] if self.levels is None else [self.levels.name]
                where = f"{known[0]!r} only, not on " if known else "no column, and not on "
                raise UsageError(
                    f"{backend} takes conditions on {where}{column!r}{nearest(column, known)}"
                )
            for _, code in self.levels.condition(value).values():
                codes[:] = int(code)
        return codes

    def rows(
        self, batches: Sequence[np.ndarray], codes: np.ndarray, rows: int, seed: int, block: int
    ) -> dict[str, pa.Table]:
        """The first `rows` rows of a block, of images uint8 (n, height, width, channels)."""
        files = encoded_images(np.concatenate(batches)[:rows])
        first = block * BLOCK
        paths: list[str | None] = [f"{first + row:07d}.png" for row in range(rows)]
        columns = []
        for field in self.arrow_schema:
            if field.name == self.image:
                columns.append(image_column(files, paths, field.type))
            else:
                assert self.levels is not None
                drawn = {field.name: codes[:rows]}
                columns.append(self.levels.decode(drawn, Place(first, rows, seed, 0)))
        return {self.name: pa.Table.from_arrays(columns, schema=self.arrow_schema)}

    def to_json(self) -> dict[str, Any]:
        """Labels or prompts and their shares are in it; no image is."""
        return {
            "name": self.name,
            "arrow_schema": base64.b64encode(self.arrow_schema.serialize()).decode("ascii"),
            "image": self.image,
            "levels": None if self.levels is None else self.levels.to_json(),
            "shares": list(self.shares),
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote. Raises: any exception for what it did not write."""
        raw = base64.b64decode(given["arrow_schema"], validate=True)
        arrow_schema = pa.ipc.read_schema(pa.py_buffer(raw))
        image, found, levels = str(given["image"]), given["levels"], None
        if found is not None:
            levels = LevelsColumn.from_json(found, arrow_schema.field(found["name"]).type)
        names = [image] if levels is None else [image, levels.name]
        shares = tuple(given["shares"])
        if not all(isinstance(share, float | int) for share in shares):
            raise ValueError
        features = () if levels is None else levels.features
        if sorted(arrow_schema.names) != sorted(names):
            raise ValueError
        if len(shares) != sum(f.levels for f in features) + (not features):
            raise ValueError
        if min(shares) < 0 or not math.isclose(sum(shares), 1):
            raise ValueError
        if not is_image(arrow_schema.field(image).type):
            raise ValueError
        if levels is not None:  # every level must come back in the column's type
            codes = {f.name: np.arange(f.levels) for f in features}
            levels.decode(codes, Place(0, len(shares), 0, 0))
        return cls(str(given["name"]), arrow_schema, image, levels, shares)
