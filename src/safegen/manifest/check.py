"""Whether a folder holds what its manifest says: every byte of it, and nothing else.

1. The manifest is canonical JSON of a known schema and its self-digest matches.
2. Every path in it stays inside the folder; no link is followed.
3. Every listed file is there with its size and SHA-256; nothing else is there, but in a store what
   another run may have left that never published.
4. With trees (deep): every row group lies where the manifest says and hashes to the root.
5. The signature, when there is one, is of this manifest and by a key that we know.

Nothing of the data is parsed here, only hashed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from safegen.errors import ManifestError
from safegen.manifest import merkle
from safegen.manifest.model import MANIFEST_NAME, SIGNATURE_NAME, FileEntry, Manifest
from safegen.manifest.sign import PublicKey, key_ids, read_envelope, signed_by
from safegen.places import Place, StorePath, absent
from safegen.processes import cores

__all__ = ["CLAIM", "FolderCheck", "check_folder", "inside", "left_behind", "printable"]

CLAIM = ".safegen-claim-"
"""In a store, what a run that is about to publish calls its claim, before its dataset's id."""

_ID = "[0-9A-HJKMNP-TV-Z]{26}"
_CHUNK = 1 << 20
_MAX_FILES = 1_000_000


@dataclass
class FolderCheck:
    """The outcome: the manifest when it could be read, all problems, and who signed."""

    manifest: Manifest | None = None
    problems: list[str] = field(default_factory=list)
    signers: list[PublicKey] = field(default_factory=list)
    signed: bool = False
    unknown_keys: list[str] = field(default_factory=list)


def check_folder(
    folder: Place,
    keys: Sequence[PublicKey] = (),
    *,
    deep: bool = False,
    hashed: Mapping[str, str] | None = None,
    lazily: bool = False,
) -> FolderCheck:
    """Check a dataset folder; every problem is listed, none is raised.

    hashed: the SHA-256 of files that need no hashing, because a receipt has it. lazily: of files
    with a tree the sizes alone are looked at, for whoever reads a row group will hash it.
    """
    result = FolderCheck()
    if not folder.is_dir():
        result.problems.append(f"{folder}: {absent(folder)}")
        return result
    # 1
    try:
        manifest = Manifest.read(folder)
    except ManifestError as error:
        result.problems += [str(p) for p in error.problems]
        return result
    result.manifest = manifest
    # 2, 3, 4
    result.problems += _files(folder, manifest, deep, hashed or {}, lazily)
    check_signature(folder, result, keys)
    return result


def check_signature(folder: Place, result: FolderCheck, keys: Sequence[PublicKey]) -> None:
    """Step 5 alone, into `result`: again with other keys, without hashing the files again."""
    assert result.manifest is not None
    try:
        envelope = read_envelope(folder / SIGNATURE_NAME)
        if envelope is not None:
            result.signed = True
            result.signers = signed_by(result.manifest, envelope, keys)
            known = {k.id for k in result.signers}
            result.unknown_keys = [k for k in key_ids(envelope) if k not in known]
    except ManifestError as error:
        result.problems += [str(p) for p in error.problems]
    except OSError as error:
        result.problems.append(f"{SIGNATURE_NAME}: cannot be read ({error.strerror})")


def inside(path: str) -> bool:
    """Whether a path of the manifest is plain: relative, forward, without tricks."""
    pure = PurePosixPath(path)
    return (
        not pure.is_absolute()
        and str(pure) == path
        and "\\" not in path
        and "\x00" not in path
        and path != "."
        and ".." not in pure.parts
    )


def _files(
    folder: Place, manifest: Manifest, deep: bool, hashed: Mapping[str, str], lazily: bool
) -> list[str]:
    problems: list[str] = []
    listed: dict[str, FileEntry] = {}
    for entry in manifest.files:
        if not inside(entry.path) or entry.path in (MANIFEST_NAME, SIGNATURE_NAME):
            problems.append(f"{entry.path}: not a path that a manifest may name")
        elif entry.path in listed:
            problems.append(f"{entry.path}: named twice in the manifest")
        else:
            listed[entry.path] = entry

    found, odd = _walk(folder)
    problems += odd
    missing = [p for p in listed if p not in found]
    extra = sorted(found - set(listed))
    if isinstance(folder, StorePath):
        extra = [p for p in extra if not left_behind(p, manifest.dataset_id)]
    by_digest: dict[str, str] = {}
    if missing and extra:
        by_digest = {_sha256(folder / p): p for p in extra[:1000]}
    for path in missing:
        moved = by_digest.get(listed[path].sha256)
        problems.append(
            f"{path}: missing; {moved} has its content (renamed)" if moved else f"{path}: missing"
        )
    problems += [f"{path}: not in the manifest" for path in extra]

    def content(entry: FileEntry) -> list[str]:
        try:
            return _content(folder / entry.path, entry, deep, lazily)
        except OSError as error:
            return [f"{entry.path}: cannot be read ({error.strerror})"]

    # Hashing gives the interpreter's lock up: as many files at once as there are cores.
    with ThreadPoolExecutor(cores()) as pool:
        unread = [e for p, e in listed.items() if p in found and hashed.get(p) != e.sha256]
        for found_ in pool.map(content, unread):
            problems += found_
    return [printable(p) for p in problems]


def printable(text: str) -> str:
    """Text in which no file name can move a cursor or fail to be encoded."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def left_behind(path: str, dataset_id: str) -> bool:
    """Whether an object of a store may be of another run, which works there or was killed, or is
    a run's claim to the place: nobody reads those as this dataset's."""
    if re.fullmatch(re.escape(CLAIM) + _ID, path):
        return True
    run = re.match(f"({_ID})/", path)
    return run is not None and run[1] != dataset_id


def _walk(folder: Place) -> tuple[set[str], list[str]]:
    """The regular files under a folder, and whatever is neither file nor folder."""
    if isinstance(folder, StorePath):
        names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        return names - {MANIFEST_NAME, SIGNATURE_NAME}, []
    found: set[str] = set()
    odd: list[str] = []

    def unread(error: OSError) -> None:
        path = Path(error.filename).relative_to(folder).as_posix()
        odd.append(f"{path}: cannot be looked into ({error.strerror})")

    for root, folders, files in os.walk(folder, onerror=unread, followlinks=False):
        base = Path(root)
        for name in [*folders, *files]:
            path = (base / name).relative_to(folder).as_posix()
            mode = (base / name).lstat().st_mode
            if stat.S_ISLNK(mode):
                odd.append(f"{path}: a link; a dataset holds plain files only")
            elif stat.S_ISREG(mode):
                if path not in (MANIFEST_NAME, SIGNATURE_NAME):
                    found.add(path)
            elif not stat.S_ISDIR(mode):
                odd.append(f"{path}: neither a file nor a folder")
        if len(found) > _MAX_FILES:
            odd.append(f"more than {_MAX_FILES:,} files; not one of ours")
            break
    return found, odd


def _sha256(path: Place) -> str:
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def _content(path: Place, entry: FileEntry, deep: bool, lazily: bool) -> list[str]:
    size = path.stat().st_size
    if size != entry.bytes:
        return [f"{entry.path}: has {size:,} bytes, the manifest says {entry.bytes:,}"]
    if lazily and entry.merkle_root is not None:
        return []
    if _sha256(path) != entry.sha256:
        return [f"{entry.path}: content differs from the manifest (SHA-256)"]
    if deep and entry.merkle_root is not None:
        return _tree(path, entry)
    return []


def _tree(path: Place, entry: FileEntry) -> list[str]:
    """Check each row group's Merkle proof against the file's root."""
    problems = []
    spans = [(g.offset, g.bytes) for g in entry.row_groups]
    leaves = file_leaves(path, spans)
    root = merkle.root(leaves)
    if root.hex() != entry.merkle_root:
        problems.append(f"{entry.path}: the Merkle root differs from the manifest")
    for i, group in enumerate(entry.row_groups):
        if leaves[i].hex() != group.leaf:
            problems.append(f"{entry.path}: row group {i} differs from the manifest")
    return problems


def file_leaves(path: Place, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """Leaf hashes of a file: its row groups' byte ranges in order, then all that is left."""
    leaves = []
    end = 0
    with path.open("rb") as stream:
        for offset, length in spans:
            # Bytes between row groups belong to the group that they precede.
            stream.seek(end)
            leaves.append(_span_hash(stream, offset + length - end))
            end = offset + length
        stream.seek(end)
        leaves.append(_span_hash(stream, None))
    return leaves


def _span_hash(stream: object, length: int | None) -> bytes:
    digest = hashlib.sha256(b"\x00")
    left = length
    while left is None or left > 0:
        chunk: bytes = stream.read(_CHUNK if left is None else min(_CHUNK, left))  # type: ignore[attr-defined]
        if not chunk:
            break
        digest.update(chunk)
        if left is not None:
            left -= len(chunk)
    return digest.digest()
