"""What a ledger keeps of a release besides its record: forms and fingerprints, as attachments."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from safegen.errors import LedgerError
from safegen.ledger import Attached, Attachment, Ledger
from safegen.lineage.fingerprints import Printing, opened, sealed
from safegen.lineage.forms import Form, Profile, form_of

__all__ = ["FORMS", "PRINTS", "Known", "known_forms", "printed"]

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


def printed(
    table: str,
    printing: Printing,
    decoys: pa.Table | None,
    real: pa.Table | None,
    ledger: Ledger,
    key_id: str,
    key: bytes,
) -> list[Attachment]:
    """The fingerprints of a table of a release, and its form where the ledger has none like it.

    Tables of one form are compared under one description, so that a check cuts its cells once.
    """
    signature = printing.hasher.signature
    first = printing.first()
    profiles = {n: Profile(c) for n, c in first.items()}
    added: list[Attachment] = []
    found: Known | None = None
    for where in ledger.attached(FORMS):
        if where.key_id == key_id and where.name.startswith(f"{signature}/"):
            one = _read(ledger, where, key)
            match = one.form.matched(profiles)
            whole = len(match.columns) == len(one.form.columns)
            if whole and all(c.scale == "same" for c in match.columns):
                found = one
                break
    if found is None:
        seed = int.from_bytes(hashlib.blake2b(key, digest_size=7).digest(), "little")
        form = form_of(first, seed)
        document = sealed(key, form.to_json(), FORMS)
        name = f"{signature}/{hashlib.sha256(document).hexdigest()[:16]}"
        found = Known(name, key_id, key, form)
        added.append(Attachment(FORMS, name, key_id, document))
    prints = printing.finish(found.form, decoys, real)
    return [*added, Attachment(PRINTS, f"{found.form_id}/{table}", key_id, prints.to_bytes())]


def _read(ledger: Ledger, where: Attached, key: bytes) -> Known:
    try:
        form = Form.from_json(opened(key, ledger.attachment(where), FORMS))
    except (ValueError, KeyError, TypeError):
        raise LedgerError(
            f"the form of dataset {where.dataset_id} cannot be read: run `safegen ledger verify`"
        ) from None
    return Known(where.name, where.key_id, key, form)
