"""Step 10: what the ledger is to know a release's rows by, once their metadata are gone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from safegen.image_printing import images_printed
from safegen.lineage.fingerprints import SEEN
from safegen.lineage.image_prints import decoys_for
from safegen.lineage.printing import Printing
from safegen.lineage.registering import form_like, printed, recognised
from safegen.progress import progress

if TYPE_CHECKING:
    from safegen.engines.writing import Written
    from safegen.gates import Books
    from safegen.ledger import Attachment
    from safegen.preparation import Prepared
    from safegen.release import Staging
    from safegen.requests import Request
    from safegen.sampling import Sampling
    from safegen.tables.schema import TableSchema

__all__ = ["fingerprinted", "printings"]

UNITS = {"table": SEEN, "tables": 4_096, "sequences": 512}
"""Rows, root rows or sequences whose fingerprints are looked at in parts, by kind of data, and as
many decoys, which have to be drawn: sequences take tens of milliseconds each."""

BESIDE, MOST = 20, 2**18
"""Of a long table one decoy for so many rows, and so many decoys at most, for whole rows: were they
fewer beside a million released rows, a thousandth of these in another table would be too little to
tell from chance."""


@dataclass(frozen=True)
class _Printer:
    """Makes what takes the fingerprints of a table's rows in a part of a release."""

    names: tuple[str, ...]
    key: bytes
    unit: str | None
    seen: int

    def __call__(self, part: int, first: int) -> Printing:
        """first: units of the release before the part. Where rows are units, those that will be
        looked at in parts are in the first ones."""
        seen = self.seen if self.unit is not None else max(self.seen - first, 0)
        return Printing(self.names, self.key, unit=self.unit, seen=seen, part=part)


def printings(
    prepared: Prepared, keys: Sequence[tuple[str, bytes]]
) -> dict[str, Callable[[int, int], Printing]]:
    """What takes the fingerprints of each table whose rows can be known, by a part's number and the
    units before it; none without a key."""
    found: dict[str, Callable[[int, int], Printing]] = {}
    for name, schema in prepared.schemas.items():
        names = recognised(schema)
        if keys and prepared.kind in UNITS and len(names) > (prepared.kind != "table"):
            seen = UNITS[prepared.kind]
            found[name] = _Printer(tuple(names), keys[0][1], _unit(schema), seen)
    return found


def fingerprinted(
    stage: Staging,
    request: Request,
    sampling: Sampling,
    prepared: Prepared,
    books: Books,
    workers: int | None,
) -> Sequence[Attachment]:
    """The fingerprints of a staged release and the hashes of its images, under the ledger's newest
    key, if there is one. workers: processes that sample the decoys."""
    if books.ledger is None or not stage.recipe.keys:
        return ()
    decoys = _decoys(stage, request, sampling, prepared, workers)
    key_id, key = stage.recipe.keys[0]
    attachments = images_printed(stage.written, decoys, prepared, key_id, key)
    shape = stage.recipe.shape
    mark = None if shape is None else shape.watermark
    for name, printing in stage.written.printings.items():
        if not printing.rows:
            continue
        printing.merge(decoys.printings[name])
        kept = books.ledger, key_id, key
        form = form_like(printing.first(), printing.hasher, *kept) if mark is None else mark.form
        real = None if prepared.parts is None else prepared.parts.real(name)
        attachments += printed(name, printing, form, real, *kept)
    return attachments


def _decoys(
    stage: Staging,
    request: Request,
    sampling: Sampling,
    prepared: Prepared,
    workers: int | None,
) -> Written:
    """Rows like those of the release, which nobody will see: what they are known by."""
    key = stage.recipe.keys[0][1]
    asked = request.decoys(_wanted(prepared.kind, request.rows), key)
    recipe = replace(stage.recipe, seed=asked.seed, decoys=True, profiles={}, reservoirs={})
    found = recipe.blank()
    if found.printings or found.image_printings:
        with progress("sampling decoys", asked.rows, "rows") as advance:
            for part in sampling.made(
                recipe, asked.rows, stage.folder, workers=workers, advance=advance
            ):
                found.merge(part)
    return found


def _wanted(kind: str, rows: int) -> int:
    """How many decoys a release of so many rows is to have."""
    if kind == "images":
        return decoys_for(rows)
    many = min(rows // BESIDE, MOST) if kind == "table" else 0
    return min(rows, max(UNITS[kind], many))


def _unit(schema: TableSchema) -> str | None:
    """The column that rows which hang together have in common: their sequence, their parent."""
    parents = (c.name for c in schema.columns if c.references is not None)
    return schema.sequence_key or next(parents, None)
