"""What is at hand of datasets on this machine: their signatures and reports, as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from safegen.errors import ManifestError, MissingExtra, UsageError
from safegen.ledger import Record
from safegen.lineage.documents import sidecar_of
from safegen.manifest import MANIFEST_NAME, SIGNATURE_NAME, Manifest, PublicKey
from safegen.manifest.canonical import sha256
from safegen.manifest.model import read_plain
from safegen.manifest.sign import read_envelope, signed_by
from safegen.places import Place, place_of, walk

__all__ = ["AtHand", "Beside"]

REPORT = "report.html"
_MOST_REPORT = 1 << 25  # bytes
_MOST_LOOKED_AT = 200_000  # files below the folders that are looked into
_SIDECAR = ".safegen.json"
_MOST_PLACES = 8  # of one dataset


@dataclass(frozen=True)
class Beside:
    """What lies beside a dataset's rows. problems: why something there is not used."""

    envelope: bytes | None = None
    report: bytes | None = None
    problems: tuple[str, ...] = ()


@dataclass
class AtHand:
    """Where datasets lie: where people said so, and where what was made of them says that they
    were read. A place counts only while the statement there is the one that the ledger has."""

    _places: dict[str, dict[Place, bool]] = field(default_factory=dict)
    _digests: dict[Place, str] = field(default_factory=dict)

    def add(self, dataset_id: str, statement: Place, *, told: bool = True) -> None:
        """A place of a manifest, or of a statement beside a file. told: somebody said that it is
        of this dataset, so that it is a problem where it is not."""
        known = self._places.setdefault(dataset_id, {})
        if len(known) < _MOST_PLACES:
            known[statement] = told or known.get(statement, False)

    def sources_of(self, manifest: Mapping[str, Any]) -> None:
        """Where a manifest says that its sources were, on this machine."""
        for source in manifest.get("sources") or ():
            dataset_id, uri = source.get("dataset_id"), source.get("uri")
            if isinstance(dataset_id, str) and isinstance(uri, str) and ":" not in uri:
                with contextlib.suppress(OSError, ValueError, UsageError):
                    place = place_of(uri)
                    self.add(dataset_id, place / MANIFEST_NAME, told=False)
                    self.add(dataset_id, sidecar_of(place), told=False)

    def look_in(self, folders: Iterable[str]) -> None:
        """Every dataset and statement below folders. Raises: UsageError for what is no folder."""
        for name in folders:
            top = place_of(name)
            if not top.is_dir():
                raise UsageError(f"{top} is no folder to look into")
            for place in _statements(top):
                with contextlib.suppress(ManifestError, OSError):
                    self.add(Manifest.read(place).dataset_id, place)

    def _digest(self, place: Place) -> str:
        """The digest of the statement at a place, which many datasets may say that they are of."""
        if place not in self._digests:
            self._digests[place] = Manifest.read(place).digest
        return self._digests[place]

    def beside(self, record: Record, manifest: Manifest, keys: Sequence[PublicKey]) -> Beside:
        """What lies beside a dataset's rows, where it is at hand; held against the ledger."""
        problems: list[str] = []
        for place, told in self._places.get(record.dataset_id, {}).items():
            with contextlib.suppress(ManifestError, MissingExtra, OSError, ValueError):
                if self._digest(place) == record.manifest_digest:
                    return _read(place, manifest, keys, problems)
                if told:
                    problems.append(
                        f"{place}: not the statement that the ledger has of {record.dataset_id}"
                    )
        return Beside(problems=tuple(problems))


def _statements(top: Place) -> Iterator[Place]:
    seen = 0
    for at, folders, files in walk(top):
        folders.sort()
        for name in sorted(files):
            seen += 1
            if seen > _MOST_LOOKED_AT:
                raise UsageError(f"{top}: more than {_MOST_LOOKED_AT:,} files; name a part of it")
            if name == MANIFEST_NAME or name.endswith(_SIDECAR):
                yield at / name


def _read(
    place: Place, manifest: Manifest, keys: Sequence[PublicKey], problems: list[str]
) -> Beside:
    own = place.name == MANIFEST_NAME
    beside = place.parent / SIGNATURE_NAME if own else place.with_suffix(".dsse.json")
    envelope = report = None
    try:
        envelope = read_envelope(beside)
        if envelope is not None and not signed_by(manifest, envelope, keys):
            problems.append(f"{beside}: signed by no key that the ledger saw; it is not in here")
            envelope = None
    except ManifestError as error:
        problems += [f"{beside}: {p}; it is not in here" for p in error.problems]
        envelope = None
    listed = [f for f in manifest.files if f.path in (REPORT, f"{manifest.dataset_id}/{REPORT}")]
    if own and listed and listed[0].bytes <= _MOST_REPORT:
        where = place.parent / listed[0].path
        with contextlib.suppress(OSError):
            data = read_plain(where, _MOST_REPORT)
            if sha256(data) == listed[0].sha256:
                report = data
            else:
                problems.append(f"{where}: changed since the release; it is not in here")
    return Beside(envelope, report, tuple(problems))
