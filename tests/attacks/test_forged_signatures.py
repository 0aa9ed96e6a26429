"""Way round: take a signature off, bring one from elsewhere, or make one up."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from forging import World, cli, document, flip, reseal, rewrite, unsigned

import safegen
from safegen.dataset import sign
from safegen.manifest import MANIFEST_NAME, SIGNATURE_NAME, canonical_bytes


@pytest.fixture(scope="session")
def two_released(world: World, key: Path, home: Path, tmp_path_factory: Any) -> tuple[Path, Path]:
    """Two datasets that were signed when they were released."""
    place = tmp_path_factory.mktemp("signed")
    with pytest.MonkeyPatch.context() as patch:
        for folder in ("DATA", "CONFIG", "CACHE"):
            patch.setenv(f"XDG_{folder}_HOME", str(home / folder.lower()))
        gen = safegen.Generator.load(world.model, key=key)
        return gen.generate(600, place / "a").path, gen.generate(600, place / "b", seed=5).path


@pytest.fixture
def signed(two_released: tuple[Path, Path], tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(two_released[0], tmp_path / "signed"))


def _public(key: Path) -> str:
    return f"{key}.pub"


def _envelope(folder: Path) -> dict[str, Any]:
    return document(folder, SIGNATURE_NAME)


def _write(folder: Path, envelope: dict[str, Any]) -> None:
    (folder / SIGNATURE_NAME).write_bytes(canonical_bytes(envelope))


def _fails(folder: Path, *arguments: object, word: str) -> None:
    ran = cli("verify", folder, *arguments)
    assert (ran.code, word in ran.err) == (4, True), ran.out + ran.err


def test_the_honest_signature_verifies(signed: Path, key: Path, other_key: Path) -> None:
    ran = cli("verify", signed)  # the ledger remembers who signed
    assert (ran.code, "SIGNED by" in ran.out, "UNSIGNED" in ran.out) == (0, True, False)
    assert cli("verify", signed, "--trusted-key", _public(key), "--deep").code == 0
    both = ("--trusted-key", _public(other_key), "--trusted-key", _public(key))
    assert cli("verify", signed, *both).code == 0
    _fails(signed, "--trusted-key", _public(other_key), word="a key that is not known")


def test_where_no_ledger_is_an_unknown_signature_is_no_proof(
    signed: Path, key: Path, no_ledger: Path
) -> None:
    _fails(signed, word="--trusted-key")
    assert cli("verify", signed, "--trusted-key", _public(key)).code == 0


def test_a_consistent_rewrite_breaks_the_signature(
    signed: Path, key: Path, no_ledger: Path
) -> None:
    rewrite(signed, lambda t: t.slice(10))
    _fails(signed, word="the signature is not of this")
    _fails(signed, "--trusted-key", _public(key), word="the signature is not of this")


def test_an_edited_and_resealed_field_breaks_the_signature(
    signed: Path, key: Path, no_ledger: Path
) -> None:
    reseal(signed, document(signed) | {"license": "CC0-1.0"})
    _fails(signed, "--trusted-key", _public(key), word="the signature is not of this")


def test_a_signature_taken_off(
    signed: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsigned(signed)
    _fails(signed, word="the signature is gone")
    _fails(signed, "--trusted-key", _public(key), word="not signed")
    with pytest.raises(safegen.VerificationError, match="the signature is gone"):
        safegen.open(signed)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    _fails(signed, "--trusted-key", _public(key), word="not signed")
    assert "UNSIGNED" in cli("verify", signed).out


def test_no_trusted_key_at_all_trusts_nobody(signed: Path, key: Path) -> None:
    """An empty list of keys, such as a glob that found none, is not the same as not asking."""
    assert safegen.verify(signed, trusted_keys=[_public(key)])
    with pytest.raises(safegen.VerificationError, match="not known here"):
        safegen.verify(signed, trusted_keys=[])
    unsigned(signed)
    with pytest.raises(safegen.VerificationError, match="not signed"):
        safegen.verify(signed, trusted_keys=[])


def test_a_signature_of_another_dataset(
    signed: Path, two_released: tuple[Path, Path], key: Path
) -> None:
    _write(signed, _envelope(two_released[1]))
    _fails(signed, word="the signature is not of this")
    _fails(signed, "--trusted-key", _public(key), word="the signature is not of this")
    (signed / MANIFEST_NAME).write_bytes((two_released[1] / MANIFEST_NAME).read_bytes())
    _fails(signed, "--trusted-key", _public(key), word="the manifest says")


def test_a_stranger_signs_a_rewrite(
    signed: Path, key: Path, other_key: Path, no_ledger: Path
) -> None:
    rewrite(signed, lambda t: t.slice(10))
    unsigned(signed)
    sign(signed, other_key)
    assert cli("verify", signed, "--trusted-key", _public(other_key)).code == 0
    _fails(signed, "--trusted-key", _public(key), word="a key that is not known")
    # … and calls himself by our key's name.
    ours = safegen.manifest.PublicKey.read(_public(key)).id
    envelope = _envelope(signed)
    envelope["signatures"][0]["keyid"] = ours
    _write(signed, envelope)
    _fails(signed, "--trusted-key", _public(key), word="does not verify")
    _fails(signed, "--trusted-key", _public(other_key), word="a key that is not known")


def test_unknown_further_signatures_do_no_harm(
    signed: Path, key: Path, other_key: Path, no_ledger: Path
) -> None:
    envelope = _envelope(signed)
    more = {"keyid": "f" * 64, "sig": base64.b64encode(b"x" * 64).decode()}
    envelope["signatures"].insert(0, more)
    _write(signed, envelope)
    assert cli("verify", signed, "--trusted-key", _public(key)).code == 0
    _fails(signed, "--trusted-key", _public(other_key), word="a key that is not known")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda e: e | {"signatures": []},
        lambda e: e | {"signatures": e["signatures"] * 2},
        lambda e: e | {"signatures": [{"keyid": f"{i:064x}", "sig": "AA=="} for i in range(99)]},
        lambda e: e | {"signatures": [{"keyid": e["signatures"][0]["keyid"], "sig": "AA=="}]},
        lambda e: e | {"signatures": [{"keyid": e["signatures"][0]["keyid"], "sig": "é"}]},
        lambda e: e | {"signatures": {}},
        lambda e: e | {"signatures": [None]},
        lambda e: e | {"signatures": [{"keyid": 1, "sig": 2}]},
        lambda e: e | {"payloadType": "application/json"},
        lambda e: e | {"payload": base64.b64encode(b"{}").decode()},
        lambda e: e | {"payload": "***"},
        lambda e: e | {"payload": 7},
        lambda e: {},
        lambda e: [],
        lambda e: {"payload": None, "payloadType": None, "signatures": None},
    ],
    ids=lambda f: None,
)
def test_a_damaged_envelope(signed: Path, key: Path, spoil: Any) -> None:
    good = (signed / SIGNATURE_NAME).read_bytes()
    _write(signed, spoil(_envelope(signed)))
    for arguments in ((), ("--trusted-key", _public(key))):
        assert cli("verify", signed, *arguments).code == 4
    (signed / SIGNATURE_NAME).write_bytes(good)
    assert cli("verify", signed, "--trusted-key", _public(key)).code == 0


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 10**5, b"null"])
def test_a_signature_file_that_is_none(signed: Path, key: Path, data: bytes) -> None:
    (signed / SIGNATURE_NAME).write_bytes(data)
    _fails(signed, "--trusted-key", _public(key), word="signature file")


def test_what_does_not_verify_is_not_signed(
    signed: Path, key: Path, other_key: Path, no_ledger: Path
) -> None:
    """A further signature must not lend its weight to a folder that was tampered with."""
    before = (signed / SIGNATURE_NAME).read_bytes()
    flip(signed / "README.md", 0)
    with pytest.raises(safegen.VerificationError, match=r"README\.md"):
        sign(signed, other_key)
    assert (signed / SIGNATURE_NAME).read_bytes() == before
    flip(signed / "README.md", 0)
    sign(signed, other_key)
    assert len(_envelope(signed)["signatures"]) == 2
    for public in (_public(key), _public(other_key)):
        assert cli("verify", signed, "--trusted-key", public).code == 0


def test_a_damaged_default_ledger_is_not_taken_for_none(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spoiling the ledger must not turn what it would say into silence."""
    folder = world.copy(tmp_path / "copy")
    rewrite(folder, lambda t: t.slice(10))
    assert cli("verify", folder).code == 4
    broken = tmp_path / "elsewhere" / "safegen"
    broken.mkdir(parents=True)
    (broken / "ledger.db").write_text("not a database")
    monkeypatch.setenv("XDG_DATA_HOME", str(broken.parent))
    ran = cli("verify", folder)
    assert ran.code == 1
    assert "ledger" in ran.err
    assert (
        json.loads(cli("verify", world.dataset.path, "--json", "--ledger", broken).out or "{}")
        == {}
    )
