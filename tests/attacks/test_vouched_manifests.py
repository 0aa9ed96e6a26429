"""Way round: a manifest that is believed without a look at the rows, because somebody vouches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from forging import World, check, document, reseal, rewrite, unmet

import safegen
from safegen.dataset import sign
from safegen.errors import AdmissionRefused, VerificationError
from safegen.lineage import evidence
from safegen.manifest import new_key


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tables whose rows are read."""
    seen: list[str] = []
    look = evidence.looked

    def noted(batches: Any, *more: Any) -> Any:
        seen.append("rows")
        return look(batches, *more)

    monkeypatch.setattr(evidence, "looked", noted)
    return seen


def test_rows_are_read_unless_somebody_vouches(
    world: World, key: Path, tmp_path: Path, looked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert safegen.open(world.dataset.path).manifest.rows
    assert check(world.dataset.path, "training").allowed
    assert not looked
    copy = world.copy(tmp_path / "copy")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    assert check(copy, "training").allowed  # nobody there knows it
    assert looked
    looked.clear()
    sign(copy, key)
    assert safegen.open(copy, trusted_keys=[f"{key}.pub"]).manifest.rows
    assert not looked
    # By a key that nobody there knows: no dataset that is vouched for.
    assert check(copy, "training").allowed
    assert looked


def test_a_manifest_of_ones_own_does_not_hide_what_the_rows_are(
    world: World, tmp_path: Path, looked: list[str]
) -> None:
    """The rows of a release of a release, in a folder whose manifest says that they are of real
    ones."""
    generator = safegen.Generator("sdv.gaussian_copula", policy="lab").fit(world.dataset)
    deep = generator.generate(600, tmp_path / "deep")
    assert "lineage/depth" in unmet(check(deep, "training"))
    shallow = document(world.dataset.path)
    forged = document(deep.path) | {
        name: shallow[name] for name in ("dataset_id", "depth", "effective_depth", "sources")
    }
    known = deep.path
    reseal(known, forged)
    with pytest.raises(VerificationError, match="not the one that the ledger recorded"):
        safegen.open(known)
    assert "lineage/intact" in unmet(check(known, "training"))
    # Under an id that no ledger has heard of, and signed by somebody.
    reseal(known, forged | {"dataset_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "decisions": []})
    looked.clear()
    assert "lineage/depth" in unmet(check(known, "training"))
    assert looked
    new_key(tmp_path / "mine")
    sign(known, tmp_path / "mine")
    assert "lineage/depth" in unmet(check(known, "training"))


def test_tampered_rows_are_seen_whoever_vouches(world: World, key: Path, tmp_path: Path) -> None:
    copy = world.copy(tmp_path / "copy")
    sign(copy, key)
    rewrite(copy, lambda t: t.slice(10))
    for trusted in (None, [f"{key}.pub"]):
        with pytest.raises((VerificationError, AdmissionRefused)):
            safegen.open(copy, trusted_keys=trusted)
    assert "lineage/intact" in unmet(check(copy, "training"))
