"""One block of a request, whichever process makes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safegen.errors import BackendError, UsageError
from safegen.tables.matching import drawn_until

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from safegen.contracts import Backend, Model, Scalar
    from safegen.shaping.shape import Shape

__all__ = ["Block", "block_plan", "sample_block", "shaped_block"]


@dataclass(frozen=True, eq=False)
class Block:
    """A block's rows, by table; of the one table the weights, where they are not all 1."""

    tables: dict[str, pa.Table]
    weights: np.ndarray | None = None


def block_plan(rows: int, block_rows: int) -> Iterator[tuple[int, int]]:
    """(block number, rows wanted of it) for a request: all blocks are full but the last."""
    for block in range(-(-rows // block_rows)):
        yield block, min(block_rows, rows - block * block_rows)


def shaped_block(
    model: Model,
    backend: type[Backend] | Backend,
    rows: int,
    *,
    seed: int,
    block: int,
    conditions: Mapping[str, Scalar] | None = None,
    shape: Shape | None = None,
) -> Block:
    """A block of a release: what the model samples, or what `shape` makes of its candidates."""
    if shape is None:
        return Block(
            sample_block(model, backend, rows, seed=seed, block=block, conditions=conditions)
        )
    wanted = shape.candidates(rows, backend.block_rows)
    why = (
        f"the policy (selection, tails, watermark) picks {rows:,} rows of {wanted:,} that meet the "
        "conditions"
    )
    tables = sample_block(
        model, backend, wanted, seed=seed, block=block, conditions=conditions, why=why
    )
    if len(tables) != 1:
        raise BackendError(f"{backend.name} gave other tables than the source's")
    ((name, candidates),) = tables.items()
    if candidates.num_rows != wanted:
        raise BackendError(
            f"{backend.name} gave {candidates.num_rows:,} candidates for block {block} where "
            f"{wanted:,} were asked for"
        )
    table, weights = shape.rows(candidates, rows, backend.block_rows, seed=seed, block=block)
    return Block({name: table}, weights)


def sample_block(
    model: Model,
    backend: type[Backend] | Backend,
    rows: int,
    *,
    seed: int,
    block: int,
    conditions: Mapping[str, Scalar] | None = None,
    why: str = "",
) -> dict[str, pa.Table]:
    """A block's rows; by rejection where there are conditions that the backend does not take.

    why: what they are for, in errors, where nobody asked for so many.

    Raises: BackendError with the shortfall; UsageError for conditions on several tables.
    """
    if not conditions or backend.conditions:
        return model.sample(rows, seed=seed, block=block, conditions=conditions)

    def draw(number: int) -> pa.Table:
        drawn = model.sample(backend.block_rows, seed=seed, block=number)
        if len(drawn) != 1:
            raise UsageError(f"{backend.name} cannot take conditions")
        names.update(drawn)
        return next(iter(drawn.values()))

    names: dict[str, pa.Table] = {}
    table = drawn_until(draw, rows, block, conditions, backend.name, why)
    return {next(iter(names)): table}
