"""Certificates of signing keys: made, read, and those that C2PA does not take."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from safegen.errors import UsageError
from safegen.manifest import SigningKey, new_key
from safegen.manifest.certificate import certificate_of, new_certificate
from safegen.tables.credentials import PNG_FILE, ContentSigner, read_credential
from safegen.tables.images import encoded_images


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "ours"
    new_key(path)
    new_certificate(path, "Acme Data")
    return path


def state(data: bytes, anchors: str | None = None) -> str:
    found = read_credential(io.BytesIO(data), PNG_FILE, anchors=anchors)
    assert found is not None
    return found.state


def test_a_certificate_is_never_overwritten_and_its_authority_signs_nothing_else(key: Path) -> None:
    before = Path(f"{key}.crt").read_bytes()
    with pytest.raises(UsageError, match="ever overwritten"):
        new_certificate(key, "Other")
    assert Path(f"{key}.crt").read_bytes() == before
    own = x509.load_pem_x509_certificate(before)
    authority = x509.load_pem_x509_certificate(Path(f"{key}.ca.crt").read_bytes())
    own.verify_directly_issued_by(authority)
    limits = authority.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (limits.ca, limits.path_length) == (True, 0)
    assert {p.name for p in key.parent.iterdir()} == {"ours", "ours.pub", "ours.crt", "ours.ca.crt"}


@pytest.mark.parametrize(
    ("name", "years", "said"),
    [("", 1, "1 to 64"), ("a" * 65, 1, "1 to 64"), ("a\nb", 1, "1 to 64"), ("a", 0, "1 to 30")],
)
def test_a_certificate_that_cannot_be_meant(
    key: Path, tmp_path: Path, name: str, years: int, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        new_certificate(tmp_path / "key", name, years)


def _own_signed(key: SigningKey, days: int) -> bytes:
    """A certificate by the key itself, as `openssl req -x509` makes one."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self")])
    start = datetime.now(UTC) - timedelta(days=10)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key._key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
    )
    return built.sign(key._key, None).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no certificate of the signing key; `safegen key certificate"),
        (lambda key, other: b"-----BEGIN junk", "no PEM certificate"),
        (lambda key, other: Path(f"{other}.crt").read_bytes(), "of another key"),
        (lambda key, other: _own_signed(key, 5), "the certificate counts from"),
        (lambda key, other: _own_signed(key, 50), "C2PA does not take this certificate"),
    ],
    ids=["none", "junk", "another's", "expired", "by itself"],
)
def test_a_certificate_that_will_not_do_is_told_before_any_work(
    key: Path, tmp_path: Path, content: Callable[[SigningKey, Path], bytes] | None, said: str
) -> None:
    new_key(tmp_path / "mine")
    if content is not None:
        made = content(SigningKey(tmp_path / "mine"), key)
        (tmp_path / "mine.crt").write_bytes(made)
    with pytest.raises(UsageError, match=said):
        ContentSigner.of(tmp_path / "mine")


def test_an_authority_of_ones_own_does_as_well(tmp_path: Path) -> None:
    """With C2PA's own extended key usage, and a certificate between."""
    new_key(tmp_path / "mine")
    root, between = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    names = [
        x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Acme"),
                x509.NameAttribute(NameOID.COMMON_NAME, n),
            ]
        )
        for n in ("root", "between", "mine")
    ]
    leaf = SigningKey(tmp_path / "mine")._key.public_key()

    def made(who: int, half: Any, by: Ed25519PrivateKey, *, ca: bool) -> str:
        start = datetime.now(UTC) - timedelta(days=1)
        built = (
            x509.CertificateBuilder()
            .subject_name(names[who])
            .issuer_name(names[max(who - 1, 0)])
            .public_key(half)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(half), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False
            )
            .add_extension(
                x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False),
                critical=True,
            )
        )
        if not ca:
            purpose = x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.3.6.1.4.1.62558.2.1")])
            built = built.add_extension(purpose, critical=False)
        return built.sign(by, None).public_bytes(Encoding.PEM).decode()

    chain = made(2, leaf, between, ca=False) + made(1, between.public_key(), root, ca=True)
    (tmp_path / "mine.crt").write_text(chain)
    assert certificate_of(tmp_path / "mine") == chain
    (plain,) = encoded_images(np.zeros((1, 8, 8, 3), dtype=np.uint8))
    data = ContentSigner.of(tmp_path / "mine").embedded(plain, {})
    assert state(data, made(0, root.public_key(), root, ca=True)) == "Trusted"
    assert state(data) == "Valid"
