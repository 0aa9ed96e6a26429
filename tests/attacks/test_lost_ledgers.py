"""Way round: delete the ledger, empty it, put it out of reach, or let a statement run out."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from forging import World, check, cli, is_refused_as_synthetic, unmet

import safegen


def _bare(world: World, to: Path) -> Path:
    """Output without any mark: only a ledger knows it."""
    path = to / "bare.csv"
    world.dataset.to_pandas().to_csv(path, index=False)
    return path


@pytest.mark.parametrize("state", ["deleted", "new", "zero-bytes"])
def test_an_empty_ledger_is_underpowered_and_says_so(
    world: World, tmp_path: Path, state: str
) -> None:
    bare = _bare(world, tmp_path)
    assert is_refused_as_synthetic(check(bare))
    ledger = tmp_path / "empty.db"
    if state == "new":
        cli("check", world.real, "--ledger", ledger)
    if state == "zero-bytes":
        ledger.touch()
    decision = check(bare, ledger=ledger)
    text = " ".join(str(decision).split())
    assert "underpowered" in text
    assert "clean" not in text
    assert str(ledger) in text
    assert "0 datasets" in text
    assert decision.allowed  # baseline: admitted, with the doubt in front of everybody
    assert [r.finding.name for r in decision.warnings] == ["lineage/unattested"]
    for policy in ("strict", "training"):
        assert unmet(check(bare, policy, ledger=ledger)) == {"lineage/unattested"}


def test_marks_do_not_need_a_ledger(world: World, no_ledger: Path) -> None:
    for source in (world.dataset, world.file, world.dataset.to_pandas()):
        assert is_refused_as_synthetic(check(source))


def test_what_was_trained_without_evidence_is_unverified(
    world: World, tmp_path: Path, no_ledger: Path
) -> None:
    """The ledger is lost, laundered rows get in under baseline: their doubt is inherited."""
    bare = _bare(world, tmp_path)
    made = safegen.Generator().fit(bare).generate(300, tmp_path / "out")
    assert (made.manifest.ancestry, made.manifest.depth_is_lower_bound) == ("unverified", True)
    assert made.manifest.claims == []
    assert "lineage/unverified" in unmet(check(made, "training"))


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [_folder, lambda p: p.write_text("not a database"), lambda p: p.write_bytes(os.urandom(8192))],
    ids=["folder", "text", "noise"],
)
def test_an_unreachable_ledger_refuses(world: World, tmp_path: Path, spoil: object) -> None:
    ledger = tmp_path / "ledger.db"
    spoil(ledger)  # type: ignore[operator]
    for policy in ("baseline", "strict", "training"):
        decision = check(world.real, policy, ledger=ledger)
        assert "lineage/ledger" in unmet(decision)
        assert str(ledger) in str(decision)
    with pytest.raises(safegen.AdmissionRefused):
        safegen.Generator(ledger=ledger).fit(world.real)
    arguments = (world.real, "--rows", 100, "--out", tmp_path / "out", "--ledger", ledger)
    assert cli("generate", *arguments).code == 3
    assert not (tmp_path / "out").exists()
    assert check(world.real, "strict").allowed


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secret-7f3a@host/db",
        "sqlite://host/x",
        "http://h",
    ],
)
def test_a_ledger_elsewhere_is_unreachable_and_its_password_unsaid(
    world: World, tmp_path: Path, url: str
) -> None:
    ran = cli("check", world.real, "--policy", "baseline", "--ledger", url)
    assert ran.code == 3
    assert "secret-7f3a" not in ran.out + ran.err


def test_a_ledger_lost_after_fitting_stops_the_release(world: World, tmp_path: Path) -> None:
    """Rows that no ledger has seen could not be found again."""
    ledger = tmp_path / "ledger.db"
    rows = world.rows(900, 41)
    gen = safegen.Generator(ledger=ledger).fit(rows)
    kept = tmp_path / "kept.db"
    ledger.rename(kept)
    with pytest.raises(safegen.SafegenError):
        gen.generate(200, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    kept.rename(ledger)
    assert gen.generate(200, tmp_path / "out")


def test_a_ledger_without_its_keys_refuses(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copied database without the key file cannot find re-saved copies."""
    assert check(world.real, "strict").allowed
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-keys"))
    for policy in ("baseline", "strict", "training"):
        assert "lineage/ledger" in unmet(check(world.real, policy))


@pytest.mark.parametrize("expires", ["2020-01-01", "2026-01-01"])
def test_an_expired_attestation_counts_as_none(world: World, tmp_path: Path, expires: str) -> None:
    path = tmp_path / "rows.csv"
    world.rows(600, 42 + len(expires) + int(expires[2:4])).to_csv(path, index=False)
    safegen.attest(path, by="an attack test", expires=expires)
    decision = check(path, "strict")
    assert unmet(decision) == {"lineage/unattested"}
    assert "expired" in str(decision)
    safegen.attest(path, by="an attack test", expires="2999-12-31")
    assert check(path, "strict").allowed


@pytest.mark.parametrize("expires", ["never", "31.12.2019", "9999", ""])
def test_a_day_that_cannot_be_read_is_over(
    world: World, tmp_path: Path, expires: str, no_ledger: Path
) -> None:
    from safegen.manifest import Manifest

    path = tmp_path / "rows.csv"
    world.rows(600, 43).to_csv(path, index=False)
    sidecar = tmp_path / "rows.csv.safegen.json"
    honest = safegen.attest(path, by="an attack test", expires="2999-12-31")
    shutil.rmtree(no_ledger)
    assert check(path, "training").allowed
    forged = Manifest.model_validate(honest.document() | {"expires": expires})
    sidecar.write_bytes(forged.to_bytes())
    assert unmet(check(path, "training")) == {"lineage/unattested"}


def test_an_attestation_of_other_content_counts_as_none(world: World, tmp_path: Path) -> None:
    """The file was exchanged after it was attested; its sidecar still lies there."""
    path = tmp_path / "rows.csv"
    world.rows(600, 44).to_csv(path, index=False)
    safegen.attest(path, by="an attack test")
    assert check(path, "strict").allowed
    world.rows(601, 45).to_csv(path, index=False)
    decision = check(path, "strict")
    assert unmet(decision) == {"lineage/unattested"}
    assert "of other content" in str(decision)


def test_a_replayed_sidecar_counts_as_none(world: World, tmp_path: Path, no_ledger: Path) -> None:
    """An attestation from beside another file, where no ledger can tell."""
    bare = _bare(world, tmp_path)
    safegen.attest(world.rows(600, 46), by="an attack test")
    path = tmp_path / "honest.csv"
    world.rows(600, 46).to_csv(path, index=False)
    safegen.attest(path, by="an attack test")
    shutil.rmtree(no_ledger)
    assert check(path, "training").allowed  # the sidecar speaks
    shutil.copy(f"{path}.safegen.json", f"{bare}.safegen.json")
    assert unmet(check(bare, "training")) == {"lineage/unattested"}
    # And with its digest edited to fit, it no longer is what was sealed.
    facts = json.loads(cli("inspect", bare, "--json").out)
    text = Path(f"{path}.safegen.json").read_text()
    old = json.loads(text)["logical_digest"]
    Path(f"{bare}.safegen.json").write_text(text.replace(old, facts["logical_digest"]))
    assert unmet(check(bare, "training")) == {"lineage/unattested"}


def test_strict_believes_no_sidecar(world: World, tmp_path: Path, no_ledger: Path) -> None:
    """A file beside the data is anybody's word; strict wants the ledger's."""
    path = tmp_path / "rows.csv"
    world.rows(600, 47).to_csv(path, index=False)
    safegen.attest(path, by="an attack test")
    assert check(path, "strict").allowed
    shutil.rmtree(no_ledger)
    assert unmet(check(path, "strict")) == {"lineage/unattested"}
