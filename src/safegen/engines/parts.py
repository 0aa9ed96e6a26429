"""A release in parts: runs of blocks, each a file per table, which any process can make.

How a request is cut into parts hangs on its rows alone. So the files, the digest and the manifest
are the same for every engine and for any number of workers, and a part that was lost is made again
as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safegen.engines.blocks import Block, block_plan, shaped_block
from safegen.engines.writing import PartWriter, Written, finished
from safegen.errors import BackendError
from safegen.lineage.image_prints import ImagePrinting
from safegen.measure.profile import TableTally
from safegen.tables.units import units

if TYPE_CHECKING:
    from safegen.contracts import Backend, Model, Scalar
    from safegen.lineage.printing import Printing
    from safegen.measure.drawn import Reservoir
    from safegen.measure.profile import TableProfile
    from safegen.shaping.shape import Shape
    from safegen.tables.credentials import ContentSigner
    from safegen.tables.schema import TableSchema

__all__ = ["ImageForm", "Part", "Recipe", "make_part", "part_plan"]

ImageForm = Literal["parquet", "png"]
"""How images go out: their bytes in Parquet, or as PNG files beside a table of the rest."""

FEW, MOST = 64, 16
"""A part is one block until there are 64 of them, so that small requests are shared out too; then
as many blocks as make 64 parts; and 16 at most, a million rows of the usual block: a file of tens
of megabytes, and what is made again when a worker is lost."""


@dataclass(frozen=True)
class Part:
    """A run of blocks. first: units of the request before it. blocks: (number, units) of each."""

    number: int
    first: int
    blocks: tuple[tuple[int, int], ...]

    @property
    def units(self) -> int:
        return sum(wanted for _, wanted in self.blocks)


def part_plan(rows: int, block_rows: int) -> Iterator[Part]:
    """How `rows` units are cut into parts, of blocks of `block_rows` each but the last."""
    blocks = -(-rows // block_rows)
    each = min(max(-(-blocks // FEW), 1), MOST)
    plan = block_plan(rows, block_rows)
    for number, first in enumerate(range(0, rows, each * block_rows)):
        yield Part(number, first, tuple(islice(plan, each)))


@dataclass(frozen=True, eq=False)
class Recipe:
    """All that parts are made by, beside the model: what is sampled, how its rows are marked, and
    what is to be known of them. Can be pickled, but for a `signer`, which stays with its key.

    `shape`: how candidates become rows. `stamp`, `depth`, `images`, `signer`: how they are written.
    `keys`: of the ledger, newest first. `profiles`: of the real rows, to tally against.
    `reservoirs`: what makes one for a part's number, by table; `printings`: for the number and the
    units before it. `looked_at`: the tables whose
    images are hashed, and how many of them. `decoys`: nothing is written; rows that are never
    released are printed.
    """

    backend: str
    schemas: Mapping[str, TableSchema]
    seed: int
    conditions: Mapping[str, Scalar] | None = None
    shape: Shape | None = None
    stamp: Mapping[str, Any] = field(default_factory=dict)
    depth: float = 1.0
    images: ImageForm = "parquet"
    signer: ContentSigner | None = None
    keys: list[tuple[str, bytes]] = field(default_factory=list)
    profiles: Mapping[str, TableProfile] = field(default_factory=dict)
    reservoirs: Mapping[str, Callable[[int], Reservoir]] = field(default_factory=dict)
    printings: Mapping[str, Callable[[int, int], Printing]] = field(default_factory=dict)
    looked_at: Mapping[str, int] = field(default_factory=dict)
    decoys: bool = False

    def full(self, block_rows: int) -> int:
        """Units of a full block, of a backend that makes `block_rows` at once."""
        return block_rows if self.shape is None else self.shape.capacity(block_rows)

    def blank(self, part: Part | None = None) -> Written:
        """What is known before any row of a part was seen; of all, before the first."""
        number, first = (0, 0) if part is None else (part.number, part.first)
        return Written(
            tallies={n: TableTally(p) for n, p in self.profiles.items()},
            reservoirs={n: make(number) for n, make in self.reservoirs.items()},
            printings={n: make(number, first) for n, make in self.printings.items()},
            image_printings={
                n: ImagePrinting(max(seen - first, 0)) for n, seen in self.looked_at.items()
            },
            strata=None if self.shape is None or self.decoys else self.shape.tally(),
            keys=self.keys,
        )


def make_part(
    recipe: Recipe,
    model: Model,
    backend: Backend,
    part: Part,
    folder: Path,
    advance: Callable[[int], object] = lambda units: None,
) -> Written:
    """Make a part, below `folder`, unless an interrupted run has finished it there.

    `advance` is called with the number of units that were made. Raises: BackendError when a block
    comes short or holds other tables.
    """
    if recipe.decoys:
        written = recipe.blank(part)
        for block in _blocks(recipe, model, backend, part):
            written.see_decoys(block.tables)
            advance(units(block.tables, recipe.schemas))
        return written
    if (known := finished(recipe, part, folder)) is not None:
        advance(part.units)
        return known
    with PartWriter(recipe, part, folder) as writer:
        for block in _blocks(recipe, model, backend, part):
            writer.write(block)
            advance(units(block.tables, recipe.schemas))
        return writer.finish()


def _blocks(recipe: Recipe, model: Model, backend: Backend, part: Part) -> Iterator[Block]:
    for number, wanted in part.blocks:
        made = shaped_block(
            model,
            backend,
            wanted,
            seed=recipe.seed,
            block=number,
            conditions=recipe.conditions or None,
            shape=recipe.shape,
        )
        if set(made.tables) != set(recipe.schemas):  # no safeguard would look at the others
            raise BackendError(f"{backend.name} gave other tables than the source's")
        got = units(made.tables, recipe.schemas)
        if got != wanted:
            raise BackendError(
                f"{backend.name} gave {got:,} rows for block {number} where {wanted:,} were asked "
                "for"
            )
        yield made
