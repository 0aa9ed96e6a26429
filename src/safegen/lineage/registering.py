"""What a ledger keeps of a release besides its record: forms and fingerprints, as attachments."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from safegen.errors import LedgerError
from safegen.ledger import Attached, Attachment, Ledger
from safegen.lineage.fingerprints import Hasher, Printing, opened, sealed
from safegen.lineage.forms import Form, Profile, form_of
from safegen.tables.words import Column

__all__ = ["FORMS", "PRINTS", "Known", "form_like", "known_forms", "printed"]

FORMS, PRINTS = "form", "fingerprints"


@dataclass(frozen=True)
class Known:
    """A form in the ledger: its id, whose key it is under, the names of its columns."""

    form_id: str
    key_id: str
    key: bytes
    form: Form


def known_forms(ledger: Ledger, keys: Mapping[str, bytes]) -> Iterator[Known]:
    """The forms under the keys that are held. Raises: LedgerError when one was changed."""
    for where in ledger.attached(FORMS):
        if where.key_id in keys:
            yield _read(ledger, where, keys[where.key_id])


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
    decoys: pa.Table | None,
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
    prints = printing.finish(form, decoys, real)
    return [*added, Attachment(PRINTS, f"{form_id}/{table}", key_id, prints.to_bytes())]


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
