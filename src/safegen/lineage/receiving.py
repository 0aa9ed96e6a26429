"""Take in what another ledger exported, after a look at what rows are to be known by."""

from __future__ import annotations

import io
import os
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq

from safegen.ledger import Attachment, Ledger
from safegen.ledger.importing import import_
from safegen.ledger.keys import read_keys
from safegen.ledger.parcels import Sender, Taken
from safegen.lineage.fingerprints import Prints
from safegen.lineage.forms import Form
from safegen.lineage.registering import FORMS, PRINTS
from safegen.lineage.sealing import opened
from safegen.manifest import PublicKey

__all__ = ["receive"]

_CELLS_A_BYTE = 16  # of honest fingerprints a cell has a byte or more


def receive(
    ledger: Ledger, path: str | os.PathLike[str], trust: PublicKey | None = None
) -> tuple[Sender, Taken]:
    """`import_`, of a file whose fingerprints can be read: later every check would read them, and
    fail. Forms are sealed, and looked at where their key is held. Raises: as `import_`."""
    keys = cache(read_keys)

    def readable(attachment: Attachment, ledger_id: str) -> bool:
        key = keys(ledger_id).get(attachment.key_id)
        try:
            if attachment.kind == PRINTS:
                _bounded(attachment.body)
                Prints.from_bytes(attachment.body)
            elif attachment.kind == FORMS and key is not None:
                Form.from_json(opened(key, attachment.body, FORMS))
        except (ValueError, KeyError, TypeError, pa.ArrowException, OSError):
            return False
        return True

    return import_(ledger, path, trust, readable)


def _bounded(body: bytes) -> None:
    """Raises: ValueError for Parquet that unpacks to far more than it is."""
    facts = pq.read_metadata(io.BytesIO(body))
    if facts.num_rows * facts.num_columns > _CELLS_A_BYTE * len(body):
        raise ValueError("more cells than bytes")
