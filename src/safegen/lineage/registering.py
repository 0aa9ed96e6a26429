"""What a ledger keeps of a release besides its record: forms and fingerprints, as attachments."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from safegen.errors import LedgerError, UsageError
from safegen.ledger import Attached, Attachment, Ledger
from safegen.lineage.fingerprints import SEEN, Hasher, Prints
from safegen.lineage.forms import Form, Profile, form_of
from safegen.lineage.printing import Printing
from safegen.lineage.sealing import opened, sealed
from safegen.tables.numbers import taken
from safegen.tables.schema import TableSchema, infer_schema
from safegen.tables.words import Column

__all__ = [
    "FORMS",
    "PRINTS",
    "Known",
    "form_like",
    "known_forms",
    "printed",
    "printed_beside",
    "recognised",
]

FORMS, PRINTS = "form", "fingerprints"


@dataclass(frozen=True)
class Known:
    """A form in the ledger: its id, whose key it is under, the names of its columns."""

    form_id: str
    key_id: str
    key: bytes
    form: Form


def known_forms(
    ledger: Ledger, keys: Mapping[str, bytes], there: Iterable[Attached] | None = None
) -> Iterator[Known]:
    """The forms under the keys that are held, of all attachments or of those that are `there`.
    Raises: LedgerError when one was changed."""
    for where in ledger.attached(FORMS) if there is None else there:
        if where.kind == FORMS and where.key_id in keys:
            yield _read(ledger, where, keys[where.key_id])


def recognised(schema: TableSchema) -> list[str]:
    """The columns that rows are known by: real keys go on where released ones ended."""
    return [
        c.name
        for c in schema.columns
        if c.kind != "id" and c.references is None and c.role != "sequence_key"
    ]


def form_like(
    columns: Mapping[str, Column], hasher: Hasher, ledger: Ledger, key_id: str, key: bytes
) -> Form:
    """The form of a model's rows: the ledger's, where it has one of tables like these, so that a
    check cuts its cells once; a new one otherwise."""
    profiles = {n: Profile(c) for n, c in columns.items()}
    for known in _of_kind(hasher, ledger, key_id, key):
        if known.form.fits(profiles):
            return known.form
    return form_of(columns, int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "little"))


def printed(
    table: str,
    printing: Printing,
    form: Form,
    real: pa.Table | None,
    ledger: Ledger,
    key_id: str,
    key: bytes,
) -> list[Attachment]:
    """The fingerprints of a table of a release, and its form where the ledger has not got it."""
    added: list[Attachment] = []
    of_kind = _of_kind(printing.hasher, ledger, key_id, key)
    form_id = next((known.form_id for known in of_kind if known.form == form), None)
    if form_id is None:
        document = sealed(key, form.to_json(), FORMS)
        form_id = f"{printing.hasher.signature}/{hashlib.sha256(document).hexdigest()[:16]}"
        added.append(Attachment(FORMS, form_id, key_id, document))
    prints = printing.finish(form, real)
    return [*added, Attachment(PRINTS, f"{form_id}/{table}", key_id, prints.to_bytes())]


def printed_beside(
    name: str, made: pa.Table, decoys: pa.Table, ledger: Ledger, key_id: str, key: bytes
) -> list[Attachment]:
    """The fingerprints of another tool's output, beside rows of the same model that nobody was
    given: a random part of either, as many of one as of the other.

    Raises: UsageError when these cannot be such rows.
    """
    names = recognised(infer_schema(made))
    missing = [n for n in names if n not in decoys.column_names]
    if missing or len(names) < 2:
        raise UsageError(
            "decoys are rows like those of the output: they need its columns"
            if missing
            else "too few columns that are no keys to know rows by: attest without decoys"
        )
    count = min(made.num_rows, decoys.num_rows, SEEN)
    drawn = hashlib.blake2b(key=key, digest_size=7, person=b"safegen-decoys").digest()
    rng = np.random.default_rng(int.from_bytes(drawn, "little"))
    printing = Printing(names, key, seen=count)
    printing.update(taken(made, rng.permutation(made.num_rows)))
    printing.update_decoys(taken(decoys.select(names), rng.permutation(decoys.num_rows)[:count]))
    form = form_like(printing.first(), printing.hasher, ledger, key_id, key)
    attached = printed(name, printing, form, None, ledger, key_id, key)
    given = Prints.from_bytes(attached[-1].body)
    if len(given.own) < given.distinct / 2:
        raise UsageError(
            "more than half of the rows are among the decoys: these have to be other rows of the "
            "same model, which nobody was given"
        )
    return attached


def _of_kind(hasher: Hasher, ledger: Ledger, key_id: str, key: bytes) -> Iterator[Known]:
    """The ledger's forms of tables with columns of these names."""
    for where in ledger.attached(FORMS):
        if where.key_id == key_id and where.name.startswith(f"{hasher.signature}/"):
            yield _read(ledger, where, key)


def _read(ledger: Ledger, where: Attached, key: bytes) -> Known:
    try:
        form = Form.from_json(opened(key, ledger.attachment(where), FORMS))
    except (ValueError, KeyError, TypeError):
        raise LedgerError(
            f"the form of dataset {where.dataset_id} cannot be read: run `safegen ledger verify`"
        ) from None
    return Known(where.name, where.key_id, key, form)
