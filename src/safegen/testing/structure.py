"""Checks of what belongs together: keys and the rows that refer to them, sequences, images."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.tables.images import pixels_of
from safegen.testing.subject import Subject, Tables, check


def _blocks(subject: Subject) -> Tables:
    """Two blocks, as they would stand in one dataset."""
    blocks = [subject.sample(15), subject.sample(15, block=1)]
    return {name: pa.concat_tables([b[name] for b in blocks]) for name in blocks[0]}


@check("tables")
def no_orphans(subject: Subject) -> None:
    """Every row that refers to another finds it, and no key is used twice, across blocks."""
    made = _blocks(subject)
    for table, column, _ in subject.columns():
        if column.references is None:
            continue
        parent, key = column.references.rsplit(".", 1)
        keys, holders = made[parent].column(key), made[table].column(column.name).drop_null()
        repeated = len(keys) - len(keys.unique())
        assert not repeated, f"{parent}.{key}: {repeated} keys are used twice"
        orphans = len(holders) - (
            pc.sum(pc.is_in(holders, value_set=keys.combine_chunks())).as_py() or 0
        )
        assert not orphans, f"{table}.{column.name}: {orphans} rows refer to none"
        assert made[table].num_rows, f"{table}: no row refers to another"


@check("sequences")
def whole_sequences(subject: Subject) -> None:
    """The rows of a sequence stand together, in the order of its index; no key is used twice."""
    ((name, schema),) = subject.example.schemas.items()
    table = _blocks(subject)[name]
    keys = np.asarray(
        table.column(schema.sequence_key).combine_chunks().dictionary_encode().indices
    )
    begins = int((np.diff(keys) != 0).sum()) + 1
    assert begins == 30, f"30 sequences were asked for, and {begins} stretches of rows have one key"
    assert len(np.unique(keys)) == 30, "the rows of a sequence do not stand together"
    if schema.sequence_index is not None:
        index = table.column(schema.sequence_index)
        steps = pc.less(index.slice(1), index.slice(0, len(index) - 1)).to_numpy()
        back = int((steps & (np.diff(keys) == 0)).sum())
        assert not back, f"{back} rows stand before one with a smaller {schema.sequence_index}"


@check("images")
def images(subject: Subject) -> None:
    """Images can be decoded, have the size of the source's, and are not copies of them."""
    from PIL import Image

    for table, column, values in subject.columns():
        if column.kind != "image":
            continue
        real = [value["bytes"] for value in values.to_pylist()]
        made = [v["bytes"] for v in subject.sample(8)[table].column(column.name).to_pylist()]
        sizes = {Image.open(io.BytesIO(data)).size for data in real}
        for data in made:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                assert image.size in sizes, f"an image of {image.size} pixels"
        # By pixels: an image that is encoded again has other bytes.
        copies = len({pixels_of(data) for data in real}.intersection(map(pixels_of, made)))
        assert not copies, f"{copies} images are copies of the source's"
