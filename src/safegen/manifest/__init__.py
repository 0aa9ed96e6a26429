"""The statement beside the data: read, write, sign, check. No data library is imported here."""

from safegen.manifest.canonical import canonical_bytes, digest_of
from safegen.manifest.check import FolderCheck, check_folder
from safegen.manifest.model import MANIFEST_NAME, SIGNATURE_NAME, Manifest
from safegen.manifest.sign import PublicKey, SigningKey, new_key

__all__ = [
    "MANIFEST_NAME",
    "SIGNATURE_NAME",
    "FolderCheck",
    "Manifest",
    "PublicKey",
    "SigningKey",
    "canonical_bytes",
    "check_folder",
    "digest_of",
    "new_key",
]
