"""What any version wrote stays readable: datasets, signatures and ledgers of every release."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import safegen
from safegen.ledger import open_ledger

RELEASES = sorted((Path(__file__).parents[1] / "releases").iterdir())


@pytest.mark.parametrize("release", RELEASES, ids=lambda p: p.name)
def test_a_dataset_of_an_earlier_release_verifies(release: Path) -> None:
    manifest = safegen.verify(release / "dataset", [release / "key.pub"], deep=True)
    assert manifest.origin == "synthetic"
    assert manifest.to_bytes() == (release / "dataset" / "safegen.manifest.json").read_bytes()


@pytest.mark.parametrize("release", RELEASES, ids=lambda p: p.name)
def test_a_ledger_of_an_earlier_release_is_sound(release: Path, tmp_path: Path) -> None:
    shutil.copy(release / "ledger.db", tmp_path / "ledger.db")
    books = open_ledger(tmp_path / "ledger.db", create=False)
    assert books.verify() == []
    records = {r.dataset_id: r for r in books.records()}
    manifest = safegen.Manifest.read(release / "dataset")
    assert records[manifest.dataset_id].manifest_digest == manifest.digest
