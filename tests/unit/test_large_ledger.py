"""The ledger that tests and measurements are made with is one like any other."""

from __future__ import annotations

from pathlib import Path

from large_ledger import large_ledger
from safegen.manifest import Manifest, canonical_bytes


def test_a_large_ledger_is_as_if_written_entry_by_entry(tmp_path: Path) -> None:
    ledger = large_ledger(tmp_path / "ledger.db", 60, 90)
    assert ledger.verify() == []
    records = list(ledger.records())
    assert len(records) == 60
    for record in records:
        manifest = Manifest.from_bytes(canonical_bytes(record.manifest))
        assert manifest.digest == record.manifest_digest
        assert record == type(record).of(manifest, None)
    again = large_ledger(tmp_path / "again.db", 60, 90)
    assert [r.dataset_id for r in again.records()] == [r.dataset_id for r in records]
