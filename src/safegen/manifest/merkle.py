"""Merkle tree over the byte ranges of a file (`safegen-merkle-v1`).

The tree of RFC 6962 section 2.1: leaves are hashed with prefix 0x00, inner nodes with 0x01, so a
leaf can never be passed off as a node. A file's leaves are its row groups in order and, last, the
bytes after the last row group (the footer). One row group is then verified with log2(n) hashes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

__all__ = ["Proof", "leaf_hash", "prove", "root", "verify_proof"]

Proof = list[tuple[str, bytes]]
"""From leaf to root: ("left" | "right", sibling hash)."""


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(n: int) -> int:
    """The largest power of two smaller than n."""
    return 1 << ((n - 1).bit_length() - 1)


def root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaf hashes; of no leaves, the hash of nothing (RFC 6962)."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = _split(len(leaves))
    return _node(root(leaves[:k]), root(leaves[k:]))


def prove(leaves: Sequence[bytes], index: int) -> Proof:
    """The sibling hashes that lead from leaf `index` to the root."""
    if not 0 <= index < len(leaves):
        raise IndexError(index)
    if len(leaves) == 1:
        return []
    k = _split(len(leaves))
    if index < k:
        return [*prove(leaves[:k], index), ("right", root(leaves[k:]))]
    return [*prove(leaves[k:], index - k), ("left", root(leaves[:k]))]


def verify_proof(leaf: bytes, proof: Proof, expected_root: bytes) -> bool:
    """Whether `leaf` stands under `expected_root`."""
    current = leaf
    for side, sibling in proof:
        current = _node(sibling, current) if side == "left" else _node(current, sibling)
    return current == expected_root
