"""Names and times: ULIDs for datasets, UTC timestamps for statements."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

__all__ = ["ULID_LENGTH", "new_ulid", "now"]

ULID_LENGTH = 26

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_ulid() -> str:
    """A new ULID: 26 characters, sortable by creation time, 80 random bits (ulid/spec)."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(_CROCKFORD[value >> shift & 31] for shift in range(125, -1, -5))


def now() -> str:
    """The current time in UTC, to the second, as ISO 8601 with a Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
