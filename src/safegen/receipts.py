"""Receipts: what an earlier run established about a dataset, so that a job establishes it once.

A receipt remembers evidence, never a verdict: which bytes had which SHA-256, and what was found out
about the rows. Every later run decides anew, from the policy, the calendar and the ledger of that
moment. So a receipt can save time, and can admit nothing.

1. It speaks of a file only while that file's size, times and inode are what they were when it was
   hashed. The time of change (ctime) is set by the system alone: setting the time of modification
   back does not hide an edit.
2. It is kept in the user's cache, under a MAC with a key of the user's: nobody else's counts, nor
   one of another folder.
3. One that is missing, forged, of another version or not readable is none: all is verified anew.
4. Processes that start together wait for the one that came first, and then read what it wrote. The
   lock ends with its process, however that ends; nobody waits longer than `WAIT` seconds.

What a receipt says of the files is no promise about rows: loaders hash each row group that they
parse, receipt or not.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safegen.errors import LedgerError
from safegen.folders import cache_folder, config_folder, make_private
from safegen.ledger import Ledger
from safegen.lineage.evidence import as_of_now
from safegen.lineage.facts import SourceFacts
from safegen.manifest import MANIFEST_NAME, SIGNATURE_NAME, Manifest
from safegen.places import Place

__all__ = ["Receipt", "turn"]

WAIT = 900.0  # seconds for another process to verify
SETTLED = 1.0  # seconds that a file must be old: within one tick of its clock it may change unseen
_KEEP = 90 * 86_400.0  # seconds after which a receipt that nobody renewed is swept
_MAX_BYTES = 1 << 28
_FORM = "safegen-receipt-v1"

Identity = list[int]
"""Size, times of modification and of change in nanoseconds, inode."""


@dataclass
class Receipt:
    """What is remembered of a folder; empty, when nothing is. `keep` and `keep_decision` add."""

    folder: Path
    files: dict[str, tuple[str, Identity]] = field(default_factory=dict)
    manifest: str | None = None
    found: dict[str, Any] | None = None
    state: Mapping[str, Any] = field(default_factory=dict)
    decisions: dict[str, Any] = field(default_factory=dict)
    _before: dict[str, Identity] = field(default_factory=dict, repr=False)
    _changed: bool = field(default=False, repr=False)

    @property
    def known(self) -> dict[str, str]:
        """The SHA-256 of each file that is as it was when it was hashed, by its path."""
        now = self._before
        return {p: digest for p, (digest, was) in self.files.items() if now.get(p) == was}

    @property
    def whole(self) -> bool:
        """Whether it still speaks of every file, manifest and signature included."""
        return bool(self.files) and len(self.known) == len(self.files)

    def facts(
        self, manifest: Manifest, state: Mapping[str, Any], ledger: Ledger | None
    ) -> SourceFacts | None:
        """What was found out about the rows, held against what the ledger and the calendar say
        now. None where that must be found out anew."""
        if ledger is None or self.found is None or self.manifest != manifest.digest:
            return None
        if not self.whole or not {f.path for f in manifest.files} <= set(self.files):
            return None
        try:
            facts = SourceFacts.from_json(self.found)
        except (TypeError, KeyError):  # of a development version with the same number
            return None
        # Rows that were looked up among all releases may be those of one that came since.
        bound = set(_SEARCHED) - ({"datasets"} if facts.search is None else set())
        if any(state.get(k) != self.state.get(k) for k in bound):
            return None
        tables = list(dict.fromkeys(c.table for c in manifest.columns))
        return as_of_now(facts, tables, ledger)

    def keep(self, manifest: Manifest, facts: SourceFacts | None, state: Mapping[str, Any]) -> None:
        """Remember a folder that was verified in this turn, and what was found of its rows where
        these were read. What changed since the turn began, or is too young to tell, is not
        remembered."""
        if not self._before:
            return
        digests = {f.path: f.sha256 for f in manifest.files}
        for name in (MANIFEST_NAME, SIGNATURE_NAME):  # these are read each time
            if name in self._before:
                digests[name] = ""
        young, now = (time.time() - SETTLED) * 1e9, _identities(self.folder)
        files = {p: (d, now.get(p, [])) for p, d in digests.items()}
        for path, (_, found) in files.items():
            if found != self._before.get(path) or max(found[1:3]) > young:
                return
        # Rows that are hashed when they are read; images that are files are not.
        if manifest.illustrated:
            return
        self.files, self.manifest = files, manifest.digest
        self.found = None if facts is None else facts.to_json()
        self.state = {k: state.get(k) for k in _SEARCHED}
        self.decisions, self._changed = {}, True

    def decision(self, policy: str, state: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """How this policy's decision was written down in this ledger, if it was."""
        return self.decisions.get(f"{policy} {state.get('ledger_id')}")

    def keep_decision(self, policy: str, state: Mapping[str, Any], said: Mapping[str, Any]) -> None:
        key = f"{policy} {state.get('ledger_id')}"
        if self.decisions.get(key) != said:
            self.decisions[key], self._changed = dict(said), True


_SEARCHED = ("ledger_id", "datasets", "key_epochs", "key_epochs_missing", "imported_keys_missing")


def _identities(folder: Path) -> dict[str, Identity]:
    """Of each file under a folder what changes when its bytes do."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            with contextlib.suppress(OSError):
                one = os.lstat(path)
                if stat.S_ISREG(one.st_mode):
                    place = os.path.relpath(path, folder).replace(os.sep, "/")
                    found[place] = [one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino]
    return found


@contextlib.contextmanager
def turn(place: Place) -> Iterator[Receipt]:
    """The receipt of a folder; without a whole one, after waiting for whoever is making it.

    What was kept in it is written at the end. Nothing that goes wrong with receipts is an error:
    all is verified anew then. Of what lies in a store nothing is remembered.
    """
    if not isinstance(place, Path):
        yield Receipt(Path())
        return
    folder = Path(os.path.realpath(place))
    receipt = _read(folder)
    with contextlib.nullcontext() if receipt.whole else _waited(folder):
        if not receipt.whole:
            receipt = _read(folder)
        try:
            yield receipt
        finally:
            _write(receipt)


def _place(folder: Path) -> Path:
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
    return cache_folder() / "receipts" / name


def _key() -> bytes:
    """This user's key. Raises: OSError, LedgerError, ValueError where there is none to use."""
    path = config_folder() / "receipts.key"
    try:
        with open(path, "rb") as file:
            key = file.read(33)
            mode = os.fstat(file.fileno()).st_mode
    except FileNotFoundError:
        make_private(path.parent)
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".receipts-")  # mode 0600
        try:
            with open(descriptor, "wb") as file:
                file.write(secrets.token_bytes(32))
            with contextlib.suppress(FileExistsError):  # another process was first
                os.link(draft, path)
        finally:
            os.unlink(draft)
        return path.read_bytes()
    if len(key) != 32 or (mode & 0o077 and os.name != "nt"):
        raise ValueError
    return key


def _mac(key: bytes, folder: Path, body: bytes) -> bytes:
    bound = b"\0".join([_FORM.encode(), os.fsencode(folder), body])
    return hmac.new(key, bound, hashlib.sha256).hexdigest().encode()


def _version() -> str:
    import safegen

    return safegen.__version__


def _read(folder: Path) -> Receipt:
    empty = Receipt(folder, _before=_identities(folder))
    try:
        with open(_place(folder), "rb") as file:
            said, _, body = file.read(_MAX_BYTES).partition(b"\n")
        if not hmac.compare_digest(said, _mac(_key(), folder, body)):
            return empty
        document = json.loads(body)
        if document.pop("version") != _version():
            return empty
        files = {p: (str(d), list(i)) for p, (d, i) in document.pop("files").items()}
        return Receipt(folder, files, **document, _before=empty._before)
    except (OSError, LedgerError, ValueError, TypeError, KeyError, AttributeError):
        return empty


def _write(receipt: Receipt) -> None:
    if not receipt._changed:
        return
    document = {
        "version": _version(),
        "files": receipt.files,
        "manifest": receipt.manifest,
        "found": receipt.found,
        "state": receipt.state,
        "decisions": receipt.decisions,
    }
    with contextlib.suppress(OSError, LedgerError, ValueError, TypeError):
        place, body = _place(receipt.folder), json.dumps(document).encode()
        make_private(place.parent)
        descriptor, draft = tempfile.mkstemp(dir=place.parent, prefix=".receipt-")  # mode 0600
        try:
            with open(descriptor, "wb") as file:
                file.write(_mac(_key(), receipt.folder, body) + b"\n" + body)
            os.replace(draft, place)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
        _sweep(place.parent)


def _sweep(folder: Path) -> None:
    old = time.time() - _KEEP
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            if path.lstat().st_mtime < old:
                path.unlink()


@contextlib.contextmanager
def _waited(folder: Path) -> Iterator[None]:
    """Alone among the user's processes on this folder, where that can be had within `WAIT`."""
    descriptor = -1
    with contextlib.suppress(OSError, LedgerError, ImportError):
        import fcntl

        place = _place(folder).with_suffix(".lock")
        make_private(place.parent)
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o600)
        until, pause = time.monotonic() + WAIT, 0.02
        while time.monotonic() < until:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(pause)
                pause = min(2 * pause, 0.5)
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)
