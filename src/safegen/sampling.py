"""Steps 6 and 7: a fitted model's candidates, and the rows that they become."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.contracts import Backend, BackendOptions, Model, Scalar
from safegen.engines import local
from safegen.engines.blocks import block_plan, sample_block
from safegen.engines.named import Engine
from safegen.engines.parts import Recipe, part_plan
from safegen.engines.writing import Written
from safegen.errors import BackendError, SourceError
from safegen.ledger import Ledger
from safegen.lineage.printing import Printing
from safegen.lineage.registering import form_like, recognised
from safegen.lineage.watermark import Watermark
from safegen.policy import Policy, TailsParams
from safegen.preparation import Prepared
from safegen.shaping.coding import check_named
from safegen.shaping.shape import Shape, asked_for, marked_shape, shape_for
from safegen.tables.streams import stream

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.requests import Request

__all__ = ["Sampling", "candidates", "check_strata", "constrained", "seed_of"]

FORMED = 8_192
"""Candidates by which a table's form is described, to which a watermark is tied."""

_PILOT = 7_002  # names the stream of the rows from which constants are found


@dataclass
class Sampling:
    """A fitted model under a policy. `shapes` keeps the constants found for sets of conditions.
    `ledger` has the key for a watermark; `engine` makes the parts."""

    model: Model
    backend: Backend
    policy: Policy
    prepared: Prepared
    options: BackendOptions
    shapes: dict[str, Shape]
    ledger: Ledger | None = None
    engine: Engine = local.made

    def shape(self, request: Request) -> Shape | None:
        """How candidates become rows; None where all do.

        Raises: SourceError when the real rows to select by are not at hand.
        """
        prepared, selected = self.prepared, asked_for(self.policy)
        marked = self.policy.rule("watermark").severity != "off"
        if prepared.kind != "table" or not (selected or marked):
            return None
        if selected and prepared.parts is None:
            raise SourceError(
                "the policy has rows selected by the real ones, which are not where the model "
                "remembers them: name them (Generator.load(..., source=...), --source)"
            )
        keys = self.ledger.key_epochs()[:1] if marked and self.ledger is not None else []
        key = repr((sorted(request.conditions.items()), [key_id for key_id, _ in keys]))
        if key not in self.shapes:
            found = self._shape(request, keys, selected=selected)
            if found is None:
                return None
            self.shapes[key] = found
        return self.shapes[key]

    def _shape(
        self, request: Request, keys: Sequence[tuple[str, bytes]], *, selected: bool
    ) -> Shape | None:
        """The constants for a request's conditions; a watermark only under a ledger's key."""
        prepared = self.prepared
        ((name, schema),) = prepared.schemas.items()
        seed = seed_of(prepared, _PILOT)
        names = recognised(schema)
        mark: Watermark | None = None
        shape: Shape | None = None
        if keys and names and self.ledger is not None:
            key_id, key = keys[0]
            # Without conditions: what rows are known by must not hang on what was asked for.
            made = candidates(self.model, self.backend, FORMED, seed)
            printing = Printing(names, key)
            form = form_like(printing.columns(made), printing.hasher, self.ledger, key_id, key)
            mark = Watermark.of(key, form)
            shape = marked_shape(made, schema, mark, conditions=bool(request.conditions))
        if selected:
            assert prepared.parts is not None

            def draw(rows: int) -> pa.Table:
                return candidates(self.model, self.backend, rows, seed, request.conditions)

            shape = shape_for(
                request.meeting(prepared.parts.anchor)[name],
                schema,
                self.policy,
                draw,
                seed=prepared.seed,
                constrained=constrained(self.options),
                watermark=mark,
            )
        if shape is None or mark is None:
            return shape
        facts = {"method": "safegen-mss1", "key_id": key_id, "views": len(mark.views)}
        facts |= shape.marked(made, seed)
        return replace(shape, facts={**shape.facts, "watermark": facts})

    def made(
        self,
        recipe: Recipe,
        rows: int,
        folder: Path,
        *,
        workers: int | None = None,
        advance: Callable[[int], object] = lambda units: None,
    ) -> Iterator[Written]:
        """What was written of each part of so many units, in order, below `folder`.

        Raises: BackendError.
        """
        plan = part_plan(rows, recipe.full(self.backend.block_rows))
        return self.engine(
            recipe, self.model, self.backend, plan, folder, workers=workers, advance=advance
        )


def check_strata(policy: Policy, prepared: Prepared) -> None:
    """Find out before a fit. Raises: UsageError for a stratum that the policy names and the real
    rows cannot have."""
    tails = policy.rule("tails")
    assert isinstance(tails, TailsParams)
    if tails.severity == "off" or prepared.kind != "table" or prepared.parts is None:
        return
    ((_, real),) = prepared.parts.anchor.items()
    for where in tails.strata:
        check_named(where, real)


def candidates(
    model: Model,
    backend: Backend,
    rows: int,
    seed: int,
    conditions: Mapping[str, Scalar] | None = None,
) -> pa.Table:
    """Rows of one table, as the model samples them, to find constants with.

    Raises: BackendError where too few meet the conditions, and for a model of other tables.
    """
    import pyarrow as pa

    found: list[pa.Table] = []
    why = f"the policy (selection, tails) needs {rows:,} rows that meet the conditions to find its "
    why += "constants, however few are asked for"
    for block, wanted in block_plan(rows, backend.block_rows):
        made = sample_block(
            model, backend, wanted, seed=seed, block=block, conditions=conditions, why=why
        )
        if len(made) != 1:
            raise BackendError(f"{backend.name} gave other tables than the source's")
        found += made.values()
    return pa.concat_tables(found)


def constrained(options: BackendOptions) -> frozenset[str]:
    """The columns that constraints among a backend's options bind to each other."""
    return frozenset(n for c in getattr(options, "constraints", None) or () for n in c.columns)


def seed_of(prepared: Prepared, name: int) -> int:
    """The seed of a stream of rows that are never released, by the number that names it."""
    return int(stream(prepared.seed, name).generate_state(1)[0])
