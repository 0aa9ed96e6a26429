"""X.509 certificates for a signing key, as content credentials (C2PA) take them.

The certificate of the key in `KEY` lies beside it as `KEY.crt`: PEM, the key's own first, then
those between it and its authority, if any. An organisation with an authority of its own puts it
there; `new_certificate` makes one that needs none.

The profile is that of the "C2PA Technical Specification 2.1", 14.5: X.509 v3, Ed25519, key usage
digitalSignature, and an extended key usage that readers take without being told.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.errors import UsageError
from safegen.manifest.model import write_whole
from safegen.manifest.sign import SigningKey

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["certificate_of", "new_certificate"]

YEARS = 10
_MAX_BYTES = 1 << 16


def certificate_of(key: str | Path) -> str:
    """The PEM chain beside a private key, checked to be of this key and of today.

    Raises: UsageError.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    path = Path(f"{key}.crt")
    make = f"`safegen key certificate {key} --name NAME` makes one"
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES)
    except FileNotFoundError:
        raise UsageError(f"{path}: no certificate of the signing key; {make}") from None
    except OSError as error:
        raise UsageError(f"{path}: the certificate cannot be read ({error.strerror})") from None
    try:
        chain = x509.load_pem_x509_certificates(data)
        public = chain[0].public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    except Exception:  # whatever a parser raises at what it does not understand
        raise UsageError(f"{path}: no PEM certificate; {make}") from None
    if pem.decode() != SigningKey(key).public.pem:
        raise UsageError(f"{path}: the certificate is of another key than {key}")
    if not chain[0].not_valid_before_utc <= datetime.now(UTC) <= chain[0].not_valid_after_utc:
        raise UsageError(
            f"{path}: the certificate counts from {chain[0].not_valid_before_utc:%Y-%m-%d} to "
            f"{chain[0].not_valid_after_utc:%Y-%m-%d}; move it away, and {make}"
        )
    return "".join(c.public_bytes(Encoding.PEM).decode() for c in chain)


def new_certificate(key: str | Path, name: str, years: int = YEARS) -> Path:
    """Write a certificate of a signing key, `KEY.crt`, and of its authority, `KEY.ca.crt`.

    The authority is made for this one certificate, and its private key is kept nowhere: who trusts
    `KEY.ca.crt` trusts this key, and nothing else that anybody signs. `name` is who signs; it
    stands in every credential.

    Raises: UsageError when a file is there already, or cannot be written.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID

    name = name.strip()
    if not 0 < len(name) <= 64 or not name.isprintable():  # X.520: 64 characters
        raise UsageError("the name of who signs has 1 to 64 characters")
    if not 1 <= years <= 30:
        raise UsageError("a certificate counts for 1 to 30 years")
    own, of_authority = Path(f"{key}.crt"), Path(f"{key}.ca.crt")
    if own.exists() or of_authority.exists():
        raise UsageError(f"{own} or {of_authority} exists already; none is ever overwritten")
    authority = Ed25519PrivateKey.generate()
    issuer = _named(f"{name}: authority of one key")
    usage, purpose = x509.KeyUsage, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])

    def used(*, signs: bool) -> x509.KeyUsage:
        return usage(signs, False, False, False, False, not signs, not signs, False, False)

    def certified(who: x509.Name, half: Ed25519PublicKey) -> x509.CertificateBuilder:
        start = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)  # clocks differ
        by = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(who)
            .issuer_name(issuer)
            .public_key(half)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=365 * years))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(half), critical=False)
            .add_extension(by, critical=False)
        )

    top = (
        certified(issuer, authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(used(signs=False), critical=True)
    )
    leaf = (
        certified(_named(name), SigningKey(key).public._key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(used(signs=True), critical=True)
        .add_extension(purpose, critical=False)
    )
    try:
        for path, made in ((of_authority, top), (own, leaf)):
            write_whole(path, made.sign(authority, None).public_bytes(Encoding.PEM))
    except OSError as error:
        raise UsageError(f"{own}: cannot be written ({error.strerror})") from None
    return own


def _named(name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, name[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, name[:64]),
        ]
    )
