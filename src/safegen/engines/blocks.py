"""One block of a request, whichever process makes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from safegen.errors import UsageError
from safegen.tables.matching import drawn_until

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.contracts import Backend, Model, Scalar

__all__ = ["block_plan", "sample_block"]


def block_plan(rows: int, block_rows: int) -> Iterator[tuple[int, int]]:
    """(block number, rows wanted of it) for a request: all blocks are full but the last."""
    for block in range(-(-rows // block_rows)):
        yield block, min(block_rows, rows - block * block_rows)


def sample_block(
    model: Model,
    backend: type[Backend] | Backend,
    rows: int,
    *,
    seed: int,
    block: int,
    conditions: Mapping[str, Scalar] | None = None,
) -> dict[str, pa.Table]:
    """A block's rows; by rejection where there are conditions that the backend does not take.

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
    table = drawn_until(draw, rows, block, conditions, backend.name)
    return {next(iter(names)): table}
