"""Content credentials in releases: of images in both forms, of tables, and what refuses them."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import c2pa
import numpy as np
import pyarrow as pa
import pytest

import safegen
from safegen import plugins
from safegen.cli import main
from safegen.dataset import inspect_folder
from safegen.manifest import new_key
from safegen.manifest.certificate import new_certificate
from safegen.tables.credentials import ContentSigner
from safegen.tables.images import image_bytes, stamp_of
from safegen.testing import Rows

POLICY = """
schema: safegen.policy/v1
id: test/credentials
version: "1.0.0"
description: For tests.
contact: a tester
rules:
  lineage: {severity: enforce}
  manifest: {severity: enforce, c2pa: required}
"""


@pytest.fixture(autouse=True)
def _drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    load = plugins.load
    ours = ("diffusion.image", "sdv.gaussian_copula")
    monkeypatch.setattr(plugins, "load", lambda g, n: Rows if n in ours else load(g, n))


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    return tmp_path / "policy.yaml"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    new_key(tmp_path / "ours")
    new_certificate(tmp_path / "ours", "Acme Data")
    return tmp_path / "ours"


def images(n: int = 40) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {
        "image": rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8),
        "label": np.array(["a", "b"] * (n // 2)),
    }


def rows(n: int = 500) -> pa.Table:
    rng = np.random.default_rng(4)
    return pa.table({"x": rng.normal(size=n), "y": rng.choice(["u", "v"], n)})


def released(place: Path, policy: Path, key: Path | None, source: Any, **more: Any) -> Any:
    backend = "diffusion.image" if isinstance(source, dict) else "sdv.gaussian_copula"
    return safegen.Generator(backend, policy, key=key).fit(source).generate(60, place, **more)


def trusted(key: Path, mime: str, data: bytes, manifest: bytes | None = None) -> str:
    """What C2PA's own reader says to whoever trusts the authority."""
    anchors = {"trust": {"trust_anchors": Path(f"{key}.ca.crt").read_text()}}
    more = {} if manifest is None else {"manifest_data": manifest}
    with (
        c2pa.Context(settings=c2pa.Settings.from_dict(anchors)) as context,
        c2pa.Reader(mime, io.BytesIO(data), context=context, **more) as reader,
    ):
        return str(reader.get_validation_state())


def test_every_image_and_every_file_of_rows_carries_one(
    policy: Path, key: Path, tmp_path: Path
) -> None:
    one = released(tmp_path / "parquet", policy, key, images())
    two = released(tmp_path / "png", policy, key, images(), images="png")
    for dataset in (one, two):
        files = [f for f in image_bytes(dataset.to_arrow().column("image")) if f is not None]
        assert len(files) == 60
        for data in files:
            assert trusted(key, "image/png", data) == "Trusted"
            stamp = stamp_of(data)
            assert stamp is not None  # the older stamp is there as before
            assert stamp["dataset_id"] == dataset.manifest.dataset_id
        [sidecar] = dataset.path.rglob("*.c2pa")
        beside = sidecar.with_suffix("")
        octets = "application/octet-stream"
        assert trusted(key, octets, beside.read_bytes(), sidecar.read_bytes()) == "Trusted"
        name = sidecar.relative_to(dataset.path).as_posix()
        assert name in {f.path for f in dataset.manifest.files}
        assert dataset.manifest.safeguards["manifest"]["c2pa"] == "required"
        verified = inspect_folder(dataset.path, [f"{key}.pub"], deep=True)
        assert verified.credentials == (
            "content credentials hold: 60 of 60 images and 1 of 1 files of rows have one"
        )
    assert sorted(p.name for p in two.path.rglob("*.png"))[:1] == ["0000000.png"]
    tampered = bytearray(next(two.path.rglob("*.png")).read_bytes())
    tampered[-20] ^= 1
    assert trusted(key, "image/png", bytes(tampered)) == "Invalid"


def test_the_same_seed_gives_the_same_content_with_credentials_or_without(
    policy: Path, key: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain.yaml"
    plain.write_text(POLICY.replace(", c2pa: required", ""))
    for source in (images(), rows()):
        made = [
            released(tmp_path / f"{name}-{type(source).__name__}", chosen, key, source)
            for name, chosen in (("one", policy), ("two", policy), ("three", plain))
        ]
        assert len({d.manifest.logical_digest for d in made}) == 1
        if not isinstance(source, dict):
            assert made[0].to_arrow().equals(made[2].to_arrow())
        assert not list(made[2].path.rglob("*.c2pa"))  # opt-in


def test_a_table_has_one_beside_each_file_and_stays_a_table(
    policy: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Rows, "block_rows", 1_000)
        several = (
            safegen.Generator(policy=policy, key=key)
            .fit(rows())
            .generate(2_500, tmp_path / "several")
        )
    assert inspect_folder(several.path, [f"{key}.pub"], deep=True).credentials == (
        "content credentials hold: 3 of 3 files of rows have one"
    )
    dataset = released(tmp_path / "out", policy, key, rows())
    assert [p.name for p in dataset.path.rglob("*.c2pa")] == ["part-00000.parquet.c2pa"]
    assert dataset.to_pandas().shape == (60, 2)
    batches = dataset.to_torch(batch_size=16)
    assert sum(len(weights) for _, weights in batches) == 60
    verified = inspect_folder(dataset.path, [f"{key}.pub"], deep=True)
    assert verified.credentials == "content credentials hold: 1 of 1 files of rows have one"
    assert inspect_folder(dataset.path, [f"{key}.pub"]).credentials is None  # not looked at
    assert not safegen.check(dataset, policy="baseline").allowed


def test_verify_says_so_on_the_command_line(
    policy: Path, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    released(tmp_path / "out", policy, key, rows())
    more = ["verify", str(tmp_path / "out"), "--trusted-key", f"{key}.pub", "--deep"]
    for arguments in (more, [*more, "--json"]):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code in (0, None)
        assert "content credentials hold: 1 of 1 files of rows" in capsys.readouterr().out


@pytest.mark.parametrize("forged", ["another's", "junk", "giant", "an image's"])
def test_a_release_whose_credentials_do_not_hold_is_not_verified(
    policy: Path, key: Path, tmp_path: Path, forged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a signer that lies: the manifest lists such files as it lists any."""

    def beside(self: ContentSigner, path: Path, stamp: Any) -> bytes:
        if forged in ("junk", "giant"):
            return b"junk" if forged == "junk" else honest(self, path, stamp) + bytes(1 << 20)
        (tmp_path / "other").write_bytes(b"others")
        return honest(self, tmp_path / "other", stamp)

    def embedded(self: ContentSigner, data: bytes, stamp: Any) -> bytes:
        return honest_image(self, data, stamp)[:-8] + b"\x00" * 8

    honest, honest_image = ContentSigner.beside, ContentSigner.embedded
    if forged == "an image's":
        monkeypatch.setattr(ContentSigner, "embedded", embedded)
    else:
        monkeypatch.setattr(ContentSigner, "beside", beside)
    source = images() if forged == "an image's" else rows()
    dataset = released(tmp_path / "out", policy, key, source)
    safegen.verify(dataset.path, [f"{key}.pub"])  # byte for byte what was signed for
    with pytest.raises(safegen.VerificationError, match="content credential that does not hold"):
        safegen.verify(dataset.path, [f"{key}.pub"], deep=True)


@pytest.mark.parametrize("what", ["embedded", "beside"])
def test_what_could_not_be_signed_is_not_released(
    policy: Path, key: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest: Callable[..., bytes] = getattr(ContentSigner, what)
    calls: list[int] = []

    def failing(self: ContentSigner, *given: Any) -> bytes:
        calls.append(1)
        if len(calls) == (60 if what == "embedded" else 1):
            raise ValueError("the key's hardware is gone")
        return honest(self, *given)

    gen = safegen.Generator("diffusion.image", policy, key=key).fit(images())
    with monkeypatch.context() as patch:
        patch.setattr(ContentSigner, what, failing)
        with pytest.raises(safegen.ReleaseRefused) as refused:
            gen.generate(60, tmp_path / "out", keep_report=False)
    finding = refused.value.decision.findings["manifest/c2pa"]
    assert finding.status == "unmet"
    assert finding.observed == (
        "59 of 60 images and 1 of 1 files of rows carry a content credential"
        if what == "embedded"
        else "60 of 60 images and 0 of 1 files of rows carry a content credential"
    )
    assert not (tmp_path / "out").exists()
    gen.generate(60, tmp_path / "out")


def test_without_a_key_nothing_is_released_and_without_a_certificate_nothing_begins(
    policy: Path, key: Path, tmp_path: Path
) -> None:
    with pytest.raises(safegen.ReleaseRefused, match="no key to sign with"):
        released(tmp_path / "out", policy, None, rows())
    assert not (tmp_path / "out").exists()
    shutil.move(f"{key}.crt", f"{key}.gone")
    with pytest.raises(safegen.UsageError, match="safegen key certificate"):
        safegen.Generator(policy=policy, key=key)
    safegen.Generator(policy="baseline", key=key)  # which asks for none


def test_a_certificate_is_made_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        ["key", "new", str(tmp_path / "k")],
        ["key", "certificate", str(tmp_path / "k"), "--name", "Acme", "--years", "2"],
    ):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code in (0, None)
    assert f"{tmp_path / 'k'}.ca.crt (give it" in capsys.readouterr().out
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "k",
        "k.ca.crt",
        "k.crt",
        "k.pub",
    ]
    ContentSigner.of(tmp_path / "k")
