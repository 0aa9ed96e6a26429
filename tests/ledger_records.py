"""Records for tests of ledgers, wherever these are."""

from __future__ import annotations

from dataclasses import replace

from safegen.ledger import Record


def a_record(number: int = 1, **changes: object) -> Record:
    record = Record(
        dataset_id=f"01JD{number:022d}",
        statement="release",
        origin="synthetic",
        ancestry="attested",
        depth=1,
        effective_depth=1.0,
        depth_is_lower_bound=False,
        rows=1000,
        logical_digest=f"{number:064x}",
        manifest_digest=f"{number + 1:064x}",
        created="2026-01-01T00:00:00Z",
        expires=None,
        manifest={"rows": 1000, "share": 0.25, "huge": 1e20, "name": "größe", "none": None},
        public_key=None,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def digest(number: int) -> str:
    return f"{number:032x}"
