"""Step 10: what the ledger is to know a release's rows by, once their metadata are gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from safegen.lineage.fingerprints import SEEN
from safegen.lineage.printing import Printing
from safegen.lineage.registering import form_like, printed, recognised

if TYPE_CHECKING:
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


def printings(prepared: Prepared, keys: Sequence[tuple[str, bytes]]) -> dict[str, Printing]:
    """What takes the fingerprints of each table whose rows can be known; none without a key."""
    found = {}
    for name, schema in prepared.schemas.items():
        names = recognised(schema)
        if keys and prepared.kind in UNITS and len(names) > (prepared.kind != "table"):
            seen = UNITS[prepared.kind]
            found[name] = Printing(names, keys[0][1], unit=_unit(schema), seen=seen)
    return found


def fingerprinted(
    stage: Staging,
    request: Request,
    sampling: Sampling,
    prepared: Prepared,
    books: Books,
) -> Sequence[Attachment]:
    """The fingerprints of a staged release, under the ledger's newest key, if there is one."""
    if books.ledger is None or not stage.printings:
        return ()
    key_id, key = stage.keys[0]
    shape = sampling.shape(request)
    asked = request.decoys(_wanted(prepared.kind, request.rows), key)
    for block in sampling.blocks(asked, shape, workers=1):
        for name, printing in stage.printings.items():
            printing.update_decoys(block.tables[name])
    mark = None if shape is None else shape.watermark
    attachments: list[Attachment] = []
    for name, printing in stage.printings.items():
        if not printing.rows:
            continue
        kept = books.ledger, key_id, key
        form = form_like(printing.first(), printing.hasher, *kept) if mark is None else mark.form
        real = None if prepared.parts is None else prepared.parts.real(name)
        attachments += printed(name, printing, form, real, *kept)
    return attachments


def _wanted(kind: str, rows: int) -> int:
    """How many decoys a release of so many rows is to have."""
    many = min(rows // BESIDE, MOST) if kind == "table" else 0
    return min(rows, max(UNITS[kind], many))


def _unit(schema: TableSchema) -> str | None:
    """The column that rows which hang together have in common: their sequence, their parent."""
    parents = (c.name for c in schema.columns if c.references is not None)
    return schema.sequence_key or next(parents, None)
