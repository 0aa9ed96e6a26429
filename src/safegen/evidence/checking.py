"""Whether an evidence folder still is what was written: every byte, the signature, and the chain.

1. `evidence.json` is canonical JSON of a known form; the folder holds the files that it names, with
   their sizes and digests, and nothing else.
2. Its signature is by a key that is known, and of this `evidence.json`.
3. Each entry of the log has its hash and follows from the one before it; between the first and the
   last entry of the time that was asked for none is missing; the last is the head.
4. Each manifest is the one that the log registered, each envelope is of its manifest and by one of
   the keys that are named, and each policy has the digest that decisions name.
5. Where the ledger is at hand, it has these very entries.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safegen.errors import ManifestError, UsageError
from safegen.evidence.index import HEAD, INDEX, LOG, SIGNATURE, Index, statement_of
from safegen.ledger import Ledger, LogEntry
from safegen.ledger.base import MAX_BYTES, parsed
from safegen.lineage.heads import read_head
from safegen.manifest import Manifest, PublicKey
from safegen.manifest.canonical import MAX_DOCUMENT_BYTES, sha256
from safegen.manifest.check import inside, printable
from safegen.manifest.model import read_plain
from safegen.manifest.sign import key_ids, read_envelope, signed_by, signers_of

__all__ = ["Checked", "check_evidence"]

_MOST_FILES = 1_000_000
_MOST_PROBLEMS = 200
_LINE = 2 * MAX_BYTES


@dataclass
class Checked:
    """The outcome: what the folder says it is, all problems, who signed, and whether the ledger was
    asked."""

    index: Index | None = None
    problems: list[str] = field(default_factory=list)
    signers: list[PublicKey] = field(default_factory=list)
    compared: bool = False

    @property
    def standing(self) -> str:
        """One line on what it is worth."""
        told = "; the ledger has the same entries" if self.compared else ""
        if self.signers:
            return f"SIGNED by {', '.join(k.id[:16] for k in self.signers)}{told}"
        if self.compared:
            return "UNSIGNED; the ledger at hand has the same entries"
        return (
            "UNSIGNED, and no ledger at hand knows it: the files agree with each other, but a "
            "rewrite of all of them together could not be noticed"
        )


def check_evidence(
    folder: str | Path,
    keys: Sequence[PublicKey] | None = None,
    ledger: Ledger | None = None,
    *,
    known: Sequence[PublicKey] = (),
) -> Checked:
    """Check a folder; every problem is listed, none is raised. keys: of which one must have signed
    it. ledger: compared where it is the one that the folder is from. known: keys whose signatures
    count where no `keys` are named.

    Raises: UsageError where there is no such folder.
    """
    place = Path(folder)
    if not place.is_dir():
        raise UsageError(f"{place} is no folder; name the one that `safegen evidence` wrote")
    result = Checked()
    result.problems += [printable(p) for p in _problems(place, keys, known, ledger, result)]
    if len(result.problems) > _MOST_PROBLEMS:
        more = len(result.problems) - _MOST_PROBLEMS
        result.problems[_MOST_PROBLEMS:] = [f"and {more:,} more problems"]
    return result


def _problems(
    place: Path,
    keys: Sequence[PublicKey] | None,
    known: Sequence[PublicKey],
    ledger: Ledger | None,
    result: Checked,
) -> Iterator[str]:
    try:
        data = read_plain(place / INDEX, MAX_DOCUMENT_BYTES + 1)
        index = Index.from_bytes(data)
    except ManifestError as error:
        yield from map(str, error.problems)
        return
    except OSError as error:
        yield f"{INDEX}: cannot be read ({error.strerror})"
        return
    result.index = index
    bad = list(_files(place, index))
    yield from bad
    if keys is not None and not (place / SIGNATURE).exists():
        yield "not signed, and a signature by a trusted key was asked for"
    yield from _signature(place, data, index, known if keys is None else keys, result)
    if bad:
        return  # what follows would speak of other files than those that were written
    yield from _contents(place, index, ledger, result)


def _files(place: Path, index: Index) -> Iterator[str]:
    named = {f.path: f for f in index.files}
    if len(named) < len(index.files):
        yield f"{INDEX}: a file is named twice"
    there, odd = _walk(place)
    yield from odd
    for path in sorted({*named, *there}):
        if path in (INDEX, SIGNATURE):
            if path in named:
                yield f"{path}: not a path that it may name"
            continue
        if path not in named:
            yield f"{path}: not in {INDEX}"
        elif not inside(path):
            yield f"{path}: not a path that it may name"
        elif path not in there:
            yield f"{path}: missing"
        else:
            yield from _same(place / path, named[path].bytes, named[path].sha256, path)


def _same(file: Path, size: int, digest: str, path: str) -> Iterator[str]:
    try:
        found = hashlib.sha256()
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size != size:
                yield f"{path}: its size is not the one in {INDEX}"
                return
            while piece := stream.read(1 << 20):
                found.update(piece)
    except OSError as error:
        yield f"{path}: cannot be read ({error.strerror})"
        return
    if f"sha256:{found.hexdigest()}" != digest:
        yield f"{path}: changed since it was written"


def _walk(place: Path) -> tuple[set[str], list[str]]:
    """The plain files of a folder, and what is there besides. No link is followed."""
    found: set[str] = set()
    odd: list[str] = []
    for at, folders, names in os.walk(place):
        for name in [*folders, *names]:
            whole = Path(at, name)
            path = whole.relative_to(place).as_posix()
            mode = whole.lstat().st_mode
            if stat.S_ISREG(mode):
                found.add(path)
            elif not stat.S_ISDIR(mode):
                odd.append(f"{path}: neither a file nor a folder")
            if len(found) > _MOST_FILES:
                return found, [*odd, f"more than {_MOST_FILES:,} files"]
        if not folders and not names and Path(at) != place:
            odd.append(f"{Path(at).relative_to(place).as_posix()}: an empty folder")
    return found, odd


def _signature(
    place: Path, data: bytes, index: Index, keys: Sequence[PublicKey], result: Checked
) -> Iterator[str]:
    try:
        envelope = read_envelope(place / SIGNATURE)
        if envelope is None:
            if index.signed_by is not None:
                yield f"{SIGNATURE}: missing; {INDEX} says that it was signed"
            return
        result.signers = signers_of(statement_of(data), envelope, keys, INDEX)
        if not result.signers:
            named = ", ".join(k[:16] + "…" for k in key_ids(envelope)) or "nobody"
            yield (
                f"signed by a key that is not known here ({named}); name it with "
                "--trusted-key KEY.pub"
            )
        elif index.signed_by not in [k.id for k in result.signers]:
            yield f"{INDEX}: it names another key than the one that signed it"
        elif not (place / HEAD).exists():
            yield f"{HEAD}: missing"
        else:
            head = read_head(place / HEAD, result.signers)
            told = index.ledger
            if (head.ledger_id, head.log_entries, head.head) != (
                told.ledger_id,
                told.log_entries,
                told.head,
            ):
                yield f"{HEAD}: not the head that {INDEX} names"
    except ManifestError as error:
        yield from (f"{SIGNATURE}: {p}" for p in error.problems)
    except (OSError, ValueError) as error:
        yield f"{SIGNATURE}: cannot be read ({type(error).__name__})"


# ---- what the files say --------------------------------------------------------------------------


@dataclass
class _Log:
    """What the entries of the log say of other files."""

    entries: int = 0
    decisions: int = 0
    refused: int = 0
    registered: dict[str, tuple[int, str]] = field(default_factory=dict)
    policies: dict[str, int] = field(default_factory=dict)
    keys: dict[str, set[str]] = field(default_factory=dict)


def _contents(place: Path, index: Index, ledger: Ledger | None, result: Checked) -> Iterator[str]:
    log = _Log()
    yield from _chain(place / LOG, index, log)
    yield from _manifests(place, index, log)
    yield from _policies(place, index, log)
    if ledger is not None and ledger.ledger_id == index.ledger.ledger_id:
        result.compared = True
        yield from _compared(place / LOG, index, ledger)


def _lines(path: Path) -> Iterator[LogEntry | None]:
    """The entries of a log file; None for a line that is none, or was changed."""
    with path.open("rb") as stream:
        while line := stream.readline(_LINE):
            yield _entry(line)


def _entry(line: bytes) -> LogEntry | None:
    try:
        said = parsed(line)
        entry = LogEntry(**said)
    except (ValueError, TypeError):
        return None
    kinds = {"seq": int, "payload": dict}
    known = all(isinstance(v, kinds.get(k, str)) for k, v in said.items())
    return entry if known and entry.sound() else None


def _chain(path: Path, index: Index, log: _Log) -> Iterator[str]:
    told = index.ledger
    before: LogEntry | None = None
    inside = 0
    for number, entry in enumerate(_lines(path), 1):
        if entry is None:
            yield f"{LOG}: line {number} is no entry of a log, or was changed"
            continue
        if before is not None and entry.seq <= before.seq:
            yield f"{LOG}: entry {entry.seq} comes after entry {before.seq}"
        elif before is not None and entry.seq == before.seq + 1 and entry.prev != before.hash:
            yield f"{LOG}: entry {entry.seq} does not follow from the one before it"
        if entry.seq > told.log_entries:
            yield f"{LOG}: entry {entry.seq} is newer than the head"
        elif entry.seq == told.log_entries and entry.hash != told.head:
            yield f"{LOG}: entry {entry.seq} is not the head that {INDEX} names"
        if told.stretch is not None:
            inside += told.stretch[0] <= entry.seq <= told.stretch[1]
        before = entry
        _take(entry, log)
    if told.stretch is not None and inside != told.stretch[1] - told.stretch[0] + 1:
        yield f"{LOG}: entries between {told.stretch[0]} and {told.stretch[1]} are missing"
    if (log.entries, log.decisions, log.refused) != (told.entries, told.decisions, told.refused):
        yield f"{LOG}: it has not as many entries, decisions and refusals as {INDEX} says"


def _take(entry: LogEntry, log: _Log) -> None:
    said = entry.payload
    log.entries += 1
    if entry.kind == "register":
        digest = str(said.get("manifest_digest"))
        log.registered[str(said.get("dataset_id"))] = entry.seq, digest
    elif entry.kind == "decision":
        log.decisions += 1
        log.refused += said.get("allowed") is not True
        policy = said.get("policy")
        digest = str(policy.get("digest")) if isinstance(policy, dict) else "None"
        log.policies[digest] = log.policies.get(digest, 0) + 1


def _manifests(place: Path, index: Index, log: _Log) -> Iterator[str]:
    files = {f.path for f in index.files}
    spoken = {d.dataset_id for d in index.datasets}
    stretch = index.ledger.stretch
    for dataset_id, (seq, _) in log.registered.items():
        if dataset_id not in spoken and not (stretch and stretch[0] <= seq <= stretch[1]):
            yield f"{INDEX}: it does not speak of dataset {dataset_id}, whose entry is here"
        elif dataset_id not in spoken:
            yield f"{INDEX}: dataset {dataset_id} was registered in that time and is left out"
    for one in index.datasets:
        path, envelope = f"manifests/{one.dataset_id}.json", f"envelopes/{one.dataset_id}.json"
        if log.registered.get(one.dataset_id) != (one.entry, one.manifest_digest):
            yield f"{LOG}: it does not register dataset {one.dataset_id} as {INDEX} says"
        if path not in files:
            yield f"{path}: not in {INDEX}"
            continue
        if (envelope in files) != one.envelope or (f"reports/{one.dataset_id}.html" in files) != (
            one.report is not None
        ):
            yield f"{INDEX}: dataset {one.dataset_id} has other documents than it says"
        try:
            manifest = Manifest.from_bytes(read_plain(place / path, MAX_DOCUMENT_BYTES + 1), path)
        except (ManifestError, OSError) as error:
            yield f"{path}: {error}"
            continue
        if (manifest.dataset_id, manifest.digest) != (one.dataset_id, one.manifest_digest):
            yield f"{path}: not the manifest that was registered"
        elif one.envelope:
            yield from _envelope(place, envelope, manifest, one.keys)


def _envelope(place: Path, path: str, manifest: Manifest, ids: Sequence[str]) -> Iterator[str]:
    try:
        keys = [PublicKey.read(place / f"keys/{one}.pub") for one in ids]
        data = read_plain(place / path, 2 * MAX_DOCUMENT_BYTES)
        signers = signed_by(manifest, data, keys)
    except (ManifestError, UsageError, OSError) as error:
        yield f"{path}: {error}"
        return
    if [k.id for k in keys] != list(ids):
        yield f"keys: a key of dataset {manifest.dataset_id} is another than its name"
    if not signers:
        yield f"{path}: not signed by one of the keys that the ledger saw"


def _policies(place: Path, index: Index, log: _Log) -> Iterator[str]:
    if {p.digest: p.decisions for p in index.policies} != log.policies:
        yield f"{INDEX}: its policies are not those that the decisions name"
    for one in index.policies:
        path = f"policies/{one.digest.removeprefix('sha256:')}.json"
        if one.found is None:
            continue
        try:
            if sha256(read_plain(place / path, MAX_DOCUMENT_BYTES)) != one.digest:
                yield f"{path}: not the policy with this digest"
        except OSError as error:
            yield f"{path}: cannot be read ({error.strerror})"


def _compared(path: Path, index: Index, ledger: Ledger) -> Iterator[str]:
    """Whether a ledger has these very entries."""
    ours = iter(ledger.log())
    mine: LogEntry | None = None
    for entry in _lines(path):
        if entry is None:
            continue
        while mine is None or mine.seq < entry.seq:
            mine = next(ours, None)
            if mine is None:
                break
        if mine is None or mine.hash != entry.hash:
            yield f"{LOG}: the ledger {ledger.url} has no such entry {entry.seq}"
            return
    head = index.ledger
    if head.log_entries:
        there = next(iter(ledger.log(after=head.log_entries - 1)), None)
        if there is None or there.hash != head.head:
            yield f"{INDEX}: the ledger {ledger.url} has another entry {head.log_entries}"
