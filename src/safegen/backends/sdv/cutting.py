"""A table of sequences, cut into what is said once of each and what is said at each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safegen.errors import SourceError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from safegen.backends.sdv.sequences import Parts
    from safegen.tables.constraints import Constraint
    from safegen.tables.schema import TableSchema

__all__ = ["FEWEST", "Cut"]

FEWEST = 20  # sequences: from fewer, whole histories of real people come back


@dataclass(frozen=True, eq=False)
class Cut:
    """One row per sequence, and all rows ordered by sequence and index."""

    parts: Parts
    context: pa.Table
    context_schema: TableSchema
    steps: pa.Table
    steps_schema: TableSchema
    lengths: np.ndarray

    @classmethod
    def of(
        cls,
        name: str,
        table: pa.Table,
        schema: TableSchema,
        context_columns: list[str] | None,
        clip: bool,
    ) -> Cut:
        """Raises: SourceError for sequences that cannot be used, UsageError for context columns."""
        import numpy as np
        import pyarrow as pa

        from safegen.backends.sdv.sequences import Parts
        from safegen.tables.numbers import scale_of, single, to_numbers
        from safegen.tables.schema import Column, TableSchema
        from safegen.tables.types import family

        key, index = schema.sequence_key, schema.sequence_index
        if key is None:
            raise SourceError(
                f"table {name!r} has no sequence key: declare one, for example "
                "`user_id: sequence_key` in the schema"
            )
        codes = _codes(table.column(key))
        if lost := int((codes < 0).sum()):
            raise SourceError(f"column {key!r}: {lost:,} rows have no sequence key: remove them")
        count = int(codes.max()) + 1
        if count < FEWEST:
            raise SourceError(
                f"table {name!r} has {count} sequences, and at least {FEWEST} are needed: from "
                "fewer, a model hands real ones back"
            )
        scale, numbers = None, np.zeros(len(codes), np.int64)
        if index is not None:
            values = single(table.column(index))
            kind = family(values.type)
            scale = scale_of(values) if kind == "decimal" else None
            if kind not in ("int", "float", "time", "decimal") or pa.types.is_uint64(values.type):
                raise SourceError(
                    f"column {index!r} is the sequence index, and {values.type} is not to be "
                    "counted with: cast it to a date, a timestamp, int64 or double"
                )
            numbers, there = to_numbers(values, scale)
            if lost := int((~there).sum()):
                raise SourceError(f"column {index!r}: {lost:,} rows have no index: remove them")
        order = np.lexsort((numbers, codes))
        codes, numbers = codes[order], numbers[order]
        first = np.flatnonzero(np.diff(codes, prepend=-1))
        lengths = np.diff(np.append(first, len(codes)))
        table = table.take(pa.array(order))
        others = [c for c in schema.columns if c.name not in (key, index)]
        constant = _constant(table, [c.name for c in others], first)
        chosen = _chosen(context_columns, [c.name for c in others], constant)
        taken = [*table.column_names]
        names = []
        for word in ("#length", "#start", "#step"):
            while word in taken:
                word += "#"
            names.append(word)
        length, start, step = names

        once = table.take(pa.array(first))
        context = once.select([key, *chosen]).append_column(length, pa.array(lengths, pa.int64()))
        columns = [schema.column(key).model_copy(update={"kind": "id"})]
        columns += [c for c in others if c.name in chosen]
        columns.append(Column(name=length, type="int64", kind="numeric"))
        varying = [c for c in others if c.name not in chosen]
        steps, step_columns = table.select([c.name for c in varying]), varying
        if index is not None:
            context = context.append_column(start, once.column(index))
            plain = "datetime" if family(once.column(index).type) == "time" else "numeric"
            columns.append(schema.column(index).model_copy(update={"name": start, "kind": plain}))
            gaps = np.diff(numbers, prepend=numbers[:1])
            inner = np.ones(len(gaps), dtype=bool)
            inner[first] = False
            least = gaps[inner].min() if inner.any() else gaps.dtype.type(0)
            after = np.append(gaps[1:], least)
            followed = np.append(inner[1:], False)
            gaps = np.where(inner, gaps, np.where(followed, after, least))  # as SDV fills it
            steps = steps.append_column(step, pa.array(gaps))
            step_columns = [
                *varying,
                Column(name=step, type=str(steps.column(step).type), kind="numeric"),
            ]
        parts = Parts(
            key,
            index,
            length,
            start,
            step,
            scale,
            numbers.min().item(),
            numbers.max().item(),
            max(int(np.gcd.reduce(numbers - numbers.min())), 1) if numbers.dtype.kind == "i" else 1,
            clip,
            int(lengths.max()),
        )
        plain_roles = {"role": "feature", "references": None}
        context_schema = TableSchema(columns=tuple(_featured(c, plain_roles) for c in columns))
        steps_schema = TableSchema(columns=tuple(_featured(c, plain_roles) for c in step_columns))
        return cls(parts, context, context_schema, steps, steps_schema, lengths)

    def apart(self, constraints: Sequence[Constraint]) -> tuple[list[Constraint], list[Constraint]]:
        """The constraints on what is said once of a sequence, and those on its steps.

        Raises: UsageError for one on both, or on the key or the index.
        """
        from safegen.tables.constraints import on
        from safegen.tables.schema import nearest

        once: list[Constraint] = []
        steps: list[Constraint] = []
        ours = (self.parts.length, self.parts.start, self.parts.step)
        parts = (*self.context.column_names, *self.steps.column_names, self.parts.index)
        known = [name for name in parts if name is not None and name not in ours]
        for constraint in constraints:
            names = constraint.columns
            for name in names:
                if name not in known:
                    raise UsageError(
                        f"constraint {on(constraint.type, names)}: no column {name!r}"
                        f"{nearest(name, known)}"
                    )
            for what, own in (("key", self.parts.key), ("index", self.parts.index)):
                if own in names:
                    raise UsageError(
                        f"constraint {on(constraint.type, names)}: {own!r} is the sequence "
                        f"{what}, which is made anew; leave it out"
                    )
            still = [n for n in names if n in self.context.column_names]
            if still and len(still) < len(names):
                moving = [n for n in names if n not in still]
                raise UsageError(
                    f"constraint {on(constraint.type, names)}: {', '.join(still)} is constant "
                    f"within each sequence and {', '.join(moving)} is not, and sdv.par draws the "
                    "one before the other; say context_columns without it, or leave the "
                    "constraint out"
                )
            (once if still else steps).append(constraint)
        return once, steps

    def segments(self, size: int | None) -> np.ndarray:
        """Training pieces: (pieces, 3) of first row, number of rows, sequence."""
        import numpy as np

        first = np.cumsum(self.lengths) - self.lengths
        if size is None:
            return np.stack([first, self.lengths, np.arange(len(first))], axis=1)
        found = [
            (start + at, min(size, length - at), i)
            for i, (start, length) in enumerate(zip(first, self.lengths, strict=True))
            for at in range(0, length, size)
        ]
        return np.array(found, dtype=np.int64)


def _featured(column: Any, plain: Mapping[str, Any]) -> Any:
    """A column of a part: what it is for in the whole table does not matter there."""
    invented = column.kind in ("id", "personal")
    return column if invented else column.model_copy(update=dict(plain))


def _codes(values: pa.ChunkedArray) -> np.ndarray:
    """Numbers of the distinct values in the order of their first row; −1 for null."""
    import numpy as np

    from safegen.tables.numbers import decoded

    plain = decoded(values)
    plain = plain.storage if hasattr(plain, "storage") else plain
    indices = plain.dictionary_encode().indices.fill_null(-1)
    return np.asarray(indices, dtype=np.int64)


def _constant(table: pa.Table, names: list[str], first: np.ndarray) -> list[str]:
    """The columns that have one value within each sequence of the ordered rows."""
    import numpy as np

    inner = np.ones(table.num_rows, dtype=bool)
    inner[first] = False
    found = []
    for name in names:
        codes = _codes(table.column(name))
        if not (np.diff(codes, prepend=codes[:1])[inner] != 0).any():
            found.append(name)
    return found


def _chosen(given: list[str] | None, names: list[str], constant: list[str]) -> list[str]:
    from safegen.tables.schema import nearest

    if given is None:
        return constant
    for name in given:
        if name not in names:
            raise UsageError(f"context_columns: no column {name!r}{nearest(name, names)}")
        if name not in constant:
            raise UsageError(
                f"context_columns: column {name!r} changes within sequences; leave it out"
            )
    return given
