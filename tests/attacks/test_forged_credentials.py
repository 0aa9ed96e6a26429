"""Way round: take content credentials away, move them, forge them, or sign others for real ones."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pytest
from forging import check, cli, is_refused_as_synthetic

import safegen
from safegen import plugins
from safegen.dataset import Dataset
from safegen.manifest import new_key
from safegen.manifest.certificate import new_certificate
from safegen.tables.credentials import ContentSigner, read_credential
from safegen.tables.images import (
    encoded_images,
    image_bytes,
    png_chunks,
    stamp_of,
    with_stamp,
    without_stamp,
)
from safegen.testing import Rows

POLICY = """
schema: safegen.policy/v1
id: test/credentials
version: "1.0.0"
description: For attacks.
contact: an attack test
rules:
  lineage: {severity: enforce}
  manifest: {severity: enforce, c2pa: required}
"""


@pytest.fixture(scope="module")
def place(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the images lie; the ledger and its key are those of all attacks."""
    with pytest.MonkeyPatch.context() as patch:
        for folder in ("DATA", "CONFIG", "CACHE"):
            patch.setenv(f"XDG_{folder}_HOME", str(home / folder.lower()))
        yield tmp_path_factory.mktemp("credentials")


@pytest.fixture(scope="module")
def real(place: Path) -> list[bytes]:
    array = np.random.default_rng(77).integers(0, 256, (80, 8, 8, 3), dtype=np.uint8)
    files = encoded_images(array)
    safegen.attest(folder(place / "real", files), by="an attack test")
    return files


@pytest.fixture(scope="module")
def signing(place: Path) -> Path:
    new_key(place / "ours")
    new_certificate(place / "ours", "Acme Data")
    return place / "ours"


@pytest.fixture(scope="module")
def released(place: Path, real: list[bytes], signing: Path) -> Dataset:
    load = plugins.load
    (place / "policy.yaml").write_text(POLICY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "load", lambda g, n: Rows if n == "diffusion.image" else load(g, n))
        gen = safegen.Generator("diffusion.image", place / "policy.yaml", key=signing)
        return gen.fit(place / "real").generate(120, place / "released")


@pytest.fixture(scope="module")
def launderer(tmp_path_factory: pytest.TempPathFactory) -> ContentSigner:
    """Somebody else, with a key and a certificate of their own."""
    path = tmp_path_factory.mktemp("keys") / "theirs"
    new_key(path)
    new_certificate(path, "An honest camera")
    return ContentSigner.of(path)


def files_of(dataset: Dataset) -> list[bytes]:
    return [f for f in image_bytes(dataset.to_arrow().column("image")) if f is not None]


def labels_of(dataset: Dataset) -> str:
    return "".join(dataset.to_arrow().column("label").to_pylist())


def folder(to: Path, files: list[bytes], labels: str = "ab") -> Path:
    """The images as a plain folder, a sub-folder to a class."""
    for i, data in enumerate(files):
        place = to / labels[i % len(labels)]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i}.png").write_bytes(data)
    return to


def without(data: bytes, kind: bytes) -> bytes:
    for start, end, one in reversed(list(png_chunks(data))):
        if one == kind:
            data = data[:start] + data[end:]
    return data


def manifest_of(data: bytes) -> bytes:
    [(start, end)] = [(a, b) for a, b, kind in png_chunks(data) if kind == b"caBX"]
    return data[start + 8 : end - 4]


def carrying(data: bytes, manifest: bytes) -> bytes:
    body = b"caBX" + manifest
    chunk = struct.pack(">I", len(manifest)) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]


def as_captured(signer: ContentSigner, data: bytes) -> bytes:
    """Signed, soundly, as what a camera took."""
    action = {
        "action": "c2pa.created",
        "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture",
    }
    claim = {
        "claim_generator_info": [{"name": "a camera"}],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}],
    }
    sink = io.BytesIO()
    with c2pa.Builder(claim, context=signer._context) as builder:
        builder.sign(signer._signer, "image/png", io.BytesIO(data), sink)
    return sink.getvalue()


# ---- taken away ----------------------------------------------------------------------------------


def test_without_their_credentials_the_stamps_know_them(
    released: Dataset, tmp_path: Path, no_ledger: Path
) -> None:
    """On another machine, where no ledger knows them."""
    stripped = folder(tmp_path / "images", [without(f, b"caBX") for f in files_of(released)])
    assert is_refused_as_synthetic(check(stripped, "images"))


def test_without_their_stamps_the_credentials_are_a_doubt_and_the_ledger_knows_them(
    released: Dataset, tmp_path: Path
) -> None:
    """Whoever takes the stamp away breaks the credential, which is of the file with it."""
    files = [without(f, b"tEXt") for f in files_of(released)]
    stripped = folder(tmp_path / "images", files, labels_of(released))
    assert is_refused_as_synthetic(check(stripped, "images"))
    decision = check(stripped, "images", ledger=tmp_path / "new.db")
    assert decision.allowed
    assert "damaged or of another file" in str(decision.findings["lineage/marks"].evidence)


def test_without_either_the_ledger_knows_them_and_nobody_can_attest_them(
    released: Dataset, tmp_path: Path
) -> None:
    files = [without_stamp(f) for f in files_of(released)]
    bare = folder(tmp_path / "images", files, labels_of(released))
    assert is_refused_as_synthetic(check(bare, "images"))
    with pytest.raises(safegen.AdmissionRefused):
        safegen.attest(bare, by="a launderer")
    facts = safegen.check(bare, policy="images", ledger=tmp_path / "new.db").findings
    assert facts["lineage/unattested"].status == "unmet"  # unknown where nobody knows: never real


# ---- moved and forged ----------------------------------------------------------------------------


@pytest.fixture(params=["moved", "cut", "junk", "giant", "nested"])
def forged(request: pytest.FixtureRequest, released: Dataset) -> bytes:
    sound = manifest_of(files_of(released)[0])
    head = struct.pack(">I", 33) + b"jumdc2pa" + bytes(12) + b"\x03c2pa\x00" + bytes(4)
    return {
        "moved": sound,
        "cut": sound[: len(sound) // 2],
        "junk": b"trainedAlgorithmicMedia" + b"\xff" * 1_000,
        "giant": sound + bytes(2 << 20),
        "nested": b"".join(
            struct.pack(">I", (41 * (9_000 - i))) + b"jumb" + head for i in range(9_000)
        )
        + b"trainedAlgorithmicMedia",
    }[str(request.param)]


def test_real_images_are_not_accused_by_a_credential_that_is_not_theirs(
    real: list[bytes], forged: bytes, tmp_path: Path
) -> None:
    """And it is no proof that they are real: a doubt is what is left."""
    array = np.random.default_rng(5).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    others = folder(tmp_path / "others", [carrying(f, forged) for f in encoded_images(array)])
    decision = check(others, "images")
    assert decision.allowed
    assert {r.finding.name for r in decision.warnings} == {"lineage/unattested", "lineage/marks"}
    ran = cli("check", others, "--policy", "strict")
    assert ran.code == 3, ran.err  # what nobody attested
    assert "Traceback" not in ran.err + ran.out
    honest = folder(tmp_path / "honest", encoded_images(array))
    assert "lineage/marks" not in {r.finding.name for r in check(honest, "images").warnings}


def test_a_forged_credential_hides_no_stamp(
    released: Dataset, forged: bytes, tmp_path: Path, no_ledger: Path
) -> None:
    files = [carrying(without(f, b"caBX"), forged) for f in files_of(released)[:10]]
    assert stamp_of(files[0]) is not None
    assert is_refused_as_synthetic(check(folder(tmp_path / "images", files), "images"))


@pytest.mark.parametrize("kept", [True, False], ids=["with its stamp", "without"])
def test_signing_released_images_as_photographs_makes_nothing_real(
    released: Dataset, launderer: ContentSigner, tmp_path: Path, kept: bool
) -> None:
    strip: Callable[[bytes], Any] = (lambda f: without(f, b"caBX")) if kept else without_stamp
    files = [as_captured(launderer, strip(f)) for f in files_of(released)]
    found = read_credential(io.BytesIO(files[0]), "image/png")
    assert found is not None
    assert (found.holds, found.trained) == (True, False)
    washed = folder(tmp_path / "images", files, labels_of(released))
    assert is_refused_as_synthetic(check(washed, "images"))
    with pytest.raises(safegen.AdmissionRefused):
        safegen.attest(washed, by="a launderer")


def test_photographs_that_a_camera_signed_are_admitted(
    launderer: ContentSigner, tmp_path: Path
) -> None:
    """The honest twin. No authority is asked, and no one is believed: attested is what counts."""
    array = np.random.default_rng(6).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    files = [as_captured(launderer, f) for f in encoded_images(array)]
    taken = folder(tmp_path / "taken", files)
    assert {r.finding.name for r in check(taken, "images").warnings} == {"lineage/unattested"}
    safegen.attest(taken, by="its photographer")
    assert not check(taken, "images").warnings


def test_images_that_another_tool_signed_as_made_by_a_model_are_refused(
    launderer: ContentSigner, tmp_path: Path, no_ledger: Path
) -> None:
    """Whoever signed: nobody says so falsely of an image to have it admitted."""
    array = np.random.default_rng(7).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    files = encoded_images(array)
    files[7] = launderer.embedded(files[7], {})
    mixed = folder(tmp_path / "mixed", files)
    decision = check(mixed, "images")
    assert is_refused_as_synthetic(decision)
    assert "1 C2PA manifests that hold" in str(decision.findings["lineage/depth"].evidence)
    with pytest.raises(safegen.AdmissionRefused):
        safegen.attest(mixed, by="a launderer")
    files[7] = without(files[7], b"caBX")
    assert check(folder(tmp_path / "honest", files), "images").allowed


def test_a_stamp_put_on_after_signing_is_still_read(launderer: ContentSigner) -> None:
    """Two rings at once: either alone is enough."""
    (plain,) = encoded_images(np.zeros((1, 8, 8, 3), dtype=np.uint8))
    both = with_stamp(plain, {"origin": "synthetic", "depth": 1.0})
    assert stamp_of(launderer.embedded(both, {})) is not None
