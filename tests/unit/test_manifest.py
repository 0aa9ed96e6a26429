"""Documents: canonical bytes, self-digest, unknown fields, Merkle trees, signatures."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.errors import ManifestError, UsageError
from safegen.manifest import Manifest, PublicKey, SigningKey, canonical_bytes, merkle, new_key
from safegen.manifest.canonical import digest_of, parse_canonical
from safegen.manifest.identity import new_ulid
from safegen.manifest.sign import envelope_for, key_ids, signed_by


def example(**more: Any) -> Manifest:
    fields: dict[str, Any] = {
        "dataset_id": new_ulid(),
        "created": "2026-01-01T00:00:00Z",
        "kind": "table",
        "origin": "synthetic",
        "ancestry": "attested",
        "depth": 1,
        "effective_depth": 1.0,
        "depth_is_lower_bound": False,
        "rows": 10,
        "composition": {"synthetic": 10},
        "logical_digest": "safegen-rows-v1:00",
    }
    return Manifest(**{**fields, **more}).sealed()


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(plain)
def test_canonical_bytes_read_back_equal_and_are_the_only_ones(document: Any) -> None:
    data = canonical_bytes(document)
    assert parse_canonical(data, "it") == document
    padded = json.dumps(document, indent=1).encode()
    if padded != data:
        with pytest.raises(ManifestError, match="not canonical"):
            parse_canonical(padded, "it")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53 + 1])
def test_numbers_that_readers_would_change_are_refused(value: float) -> None:
    with pytest.raises(ManifestError):
        canonical_bytes({"x": value})
    assert canonical_bytes({"x": 2**53 - 1})


def test_duplicate_keys_cannot_hide_a_field() -> None:
    with pytest.raises(ManifestError):
        parse_canonical(b'{"a":1,"a":2}', "it")


def test_a_document_nested_without_end_is_refused() -> None:
    with pytest.raises(ManifestError):
        parse_canonical(b"[" * 100_000 + b"]" * 100_000, "it")


def test_a_manifest_reads_back_equal() -> None:
    manifest = example()
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


def test_unknown_fields_of_a_newer_minor_version_are_kept() -> None:
    document = {**example().document(), "novelty": {"a": [1]}}
    document.pop("digest")
    data = canonical_bytes({**document, "digest": digest_of(document)})
    read = Manifest.from_bytes(data)
    assert read.to_bytes() == data


def test_an_unknown_major_version_is_refused() -> None:
    document = {**example().document(), "schema": "safegen.manifest/v2"}
    document.pop("digest")
    data = canonical_bytes({**document, "digest": digest_of(document)})
    with pytest.raises(ManifestError, match="cannot read"):
        Manifest.from_bytes(data)


@pytest.mark.parametrize("field", sorted(set(example().document()) - {"digest"}))
def test_every_field_is_under_the_self_digest(field: str) -> None:
    document = example().document()
    document[field] = "edited" if document[field] != "edited" else "again"
    with pytest.raises(ManifestError):
        Manifest.from_bytes(canonical_bytes(document))


def test_a_wrong_type_is_named_without_its_value() -> None:
    document = {**example().document(), "rows": "CANARY-1"}
    document.pop("digest")
    data = canonical_bytes({**document, "digest": digest_of(document)})
    with pytest.raises(ManifestError, match="rows") as caught:
        Manifest.from_bytes(data)
    assert "CANARY" not in str(caught.value)


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40), st.data())
def test_every_leaf_has_a_proof_and_no_other_leaf_passes(
    blobs: list[bytes], data: st.DataObject
) -> None:
    leaves = [merkle.leaf_hash(b) for b in blobs]
    root = merkle.root(leaves)
    i = data.draw(st.integers(0, len(leaves) - 1))
    proof = merkle.prove(leaves, i)
    assert merkle.verify_proof(leaves[i], proof, root)
    assert not merkle.verify_proof(merkle.leaf_hash(b"other" * 9), proof, root)


def test_the_tree_is_that_of_rfc_6962() -> None:
    """Known answers of section 2.1: the empty tree, one leaf, and three leaves."""
    h = lambda b: hashlib.sha256(b).digest()  # noqa: E731
    assert merkle.root([]) == h(b"")
    a, b, c = (merkle.leaf_hash(x) for x in (b"", b"\x00", b"\x10"))
    assert a.hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert merkle.root([a, b, c]) == h(b"\x01" + h(b"\x01" + a + b) + c)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    new_key(tmp_path / "key")
    return SigningKey(tmp_path / "key")


def test_a_signature_is_of_this_manifest_and_key(key: SigningKey, tmp_path: Path) -> None:
    manifest, other = example(), example()
    envelope = envelope_for(manifest, key)
    assert [k.id for k in signed_by(manifest, envelope, [key.public])] == [key.public.id]
    with pytest.raises(ManifestError, match="not of this"):
        signed_by(other, envelope, [key.public])
    stranger = new_key(tmp_path / "stranger")
    assert signed_by(manifest, envelope, [stranger]) == []


def test_a_key_id_is_the_digest_of_the_key_and_not_a_label(key: SigningKey, tmp_path: Path) -> None:
    """An envelope that signs with one key under another key's id does not verify."""
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_pem_public_key,
    )

    der = load_pem_public_key(key.public.pem.encode()).public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    assert key.public.id == hashlib.sha256(der).hexdigest()
    trusted = new_key(tmp_path / "trusted")
    manifest = example()
    document = json.loads(envelope_for(manifest, key))
    document["signatures"][0]["keyid"] = trusted.id
    with pytest.raises(ManifestError, match="does not verify"):
        signed_by(manifest, canonical_bytes(document), [trusted])


def test_a_second_signature_joins_the_first(key: SigningKey, tmp_path: Path) -> None:
    second = new_key(tmp_path / "second")
    manifest = example()
    both = envelope_for(manifest, SigningKey(tmp_path / "second"), envelope_for(manifest, key))
    assert set(key_ids(both)) == {key.public.id, second.id}
    assert len(signed_by(manifest, both, [key.public, second])) == 2


@pytest.mark.parametrize(
    "data", [b"{}", b"[]", b"not json", b'{"payload":"!","payloadType":1,"signatures":[]}']
)
def test_a_damaged_envelope_is_an_error(data: bytes, key: SigningKey) -> None:
    with pytest.raises(ManifestError):
        signed_by(example(), data, [key.public])


def test_a_private_key_is_private_and_never_overwritten(tmp_path: Path) -> None:
    new_key(tmp_path / "k")
    assert stat.S_IMODE(os.stat(tmp_path / "k").st_mode) == 0o600
    with pytest.raises(UsageError, match="never overwritten"):
        new_key(tmp_path / "k")
    os.chmod(tmp_path / "k", 0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        SigningKey(tmp_path / "k")
    with pytest.raises(UsageError, match="not a PEM"):
        PublicKey(b"nonsense")
