"""Where a release goes: a folder of this machine, or a prefix of an object store.

A store knows no rename. A run puts its files below `<target>/<dataset_id>/`, which no other run
touches, and at last the manifest, which names them: only then there is a dataset. Two runs never
mix, and of two that publish at once one wins (docs/decisions/0020).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safegen import release
from safegen.engines.parts import ImageForm
from safegen.engines.writing import Written
from safegen.errors import TargetError, UsageError
from safegen.folders import cache_folder
from safegen.manifest import MANIFEST_NAME, SIGNATURE_NAME
from safegen.manifest.check import CLAIM, left_behind
from safegen.manifest.identity import new_ulid
from safegen.manifest.model import FileEntry
from safegen.places import Place, StorePath, absolute, place_of
from safegen.release import IfExists, Staging

__all__ = ["destination", "interrupted", "is_free", "staging"]

_LATEST_S = 30.0
"""How long after it has claimed a place a run may still put its manifest there."""

_DEAD_S = 180.0
"""After how long a claim is that of a killed run: a manifest that was put in time is there then."""

_FORGOTTEN_S = 24 * 3600.0
"""After how long rows that nobody published are deleted."""


def staging(
    target: Place, *, run: Mapping[str, Any] | None, **more: Any
) -> AbstractContextManager[Staging]:
    """Where a release is prepared for its target; gone when the block ends, unless published.

    Takes the arguments of `release.staging`. Raises: TargetError.
    """
    if isinstance(target, StorePath):
        return _in_store(target, **more)
    return release.staging(target, run=run, **more)


def interrupted(target: Place, run: Mapping[str, Any]) -> str | None:
    """The id of the dataset that an interrupted run like this one has begun at `target`.

    Raises: UsageError for a store, where none can be gone on with.
    """
    if isinstance(target, StorePath):
        raise UsageError(
            f"{target}: a run into a store cannot be gone on with; leave resume out, or release "
            "into a folder of this machine"
        )
    return release.interrupted(target, run)


@contextmanager
def _in_store(store: StorePath, **more: Any) -> Iterator[Staging]:
    scratch = cache_folder() / "uploads" / str(more["dataset_id"])

    def kind(*given: Any) -> Staging:
        return _StoreStaging(*given, store=store)

    with _writing(store):
        _sweep(store)
    with release.staging(scratch, kind=kind, **more) as stage:
        yield stage


@dataclass
class _StoreStaging(Staging):
    """Staging for a store: on this machine lie the files that are being written, and no others."""

    store: StorePath = field(kw_only=True)
    published: bool = False
    _sizes: dict[str, int] = field(default_factory=dict)

    @property
    def place(self) -> Place:
        return self.store

    @property
    def _own(self) -> StorePath:
        return self.store / self.dataset_id

    def take(self, part: Written) -> None:
        super().take(part)
        for entry in part.files:
            self._put(self.folder / entry.path)

    def _put(self, path: Path) -> None:
        name = path.relative_to(self.folder).as_posix()
        with _writing(self.store):
            (self._own / name).upload(path)
        self._sizes[name] = path.stat().st_size
        path.unlink()

    def files(self) -> list[FileEntry]:
        """An entry per file, all of which are in the store then."""
        derived = super().files()
        for entry in derived:
            self._put(self.folder / entry.path)
        return [
            entry.model_copy(update={"path": f"{self.dataset_id}/{entry.path}"})
            for entry in sorted([*self.data_files(), *derived], key=lambda e: e.path)
        ]

    def publish(self) -> Place:
        """Put the manifest, once no other run may and all that it names is there."""
        claim = self.store / f"{CLAIM}{self.dataset_id}"
        signature = self.folder / SIGNATURE_NAME
        with _writing(self.store):
            self._complete()
            try:
                latest = self._claimed(claim) + _LATEST_S
                if signature.exists():
                    (self.store / SIGNATURE_NAME).write_bytes(signature.read_bytes())
                else:  # one may be of a run that was killed here
                    _gone(self.store / SIGNATURE_NAME)
                if time.monotonic() > latest:
                    raise TargetError(f"{self.store}: the store was too slow; try again")
                self._visible((self.folder / MANIFEST_NAME).read_bytes())
            finally:
                with suppress(OSError):
                    _gone(claim)
        return self.store

    def _visible(self, manifest: bytes) -> None:
        place = self.store / MANIFEST_NAME
        self.published = True
        try:
            place.write_bytes(manifest)
        except BaseException:
            # It may have arrived all the same: its rows go only when it surely is not there.
            _gone(place)
            self.published = False
            raise

    def _complete(self) -> None:
        """Raises: TargetError when something of this run is gone, as what is swept is."""
        there = {
            p.relative_to(self._own).as_posix(): p.stat().st_size
            for p in self._own.rglob("*")
            if p.is_file()
        }
        if there != self._sizes:
            raise TargetError(f"{self.store}: files of this run were removed; run it again")

    def _claimed(self, claim: StorePath) -> float:
        """When this run had the place for itself. Raises: TargetError when another has published.

        Each run puts its claim and then looks, so of two at least one sees the other. The later
        one makes way; the earlier one goes on once it is alone.
        """
        end = time.monotonic() + 2 * _DEAD_S
        while time.monotonic() < end:
            at = time.monotonic()
            claim.write_bytes(b"")
            found = list(self.store.iterdir())
            if not _free(found):
                raise TargetError(
                    f"{self.store}: something appeared there while this run was working; nothing "
                    "was overwritten"
                )
            put = {p.name: p.stat().st_mtime for p in found if p.name.startswith(CLAIM)}
            now = put.pop(claim.name)  # by the store's clock
            others = [name for name, when in put.items() if now - when < _DEAD_S]
            if not others:
                return at
            first = claim.name < min(others)
            if not first:
                _gone(claim)
            time.sleep(0.1 if first else 1.0)
        raise TargetError(f"{self.store}: other runs keep publishing there; try again later")

    def abandon(self) -> None:
        """Close what is open, and delete what was uploaded, unless it is published."""
        super().abandon()
        if not self.published:
            with suppress(OSError):
                self._own.rmtree()


def _gone(place: StorePath) -> None:
    """Delete an object, if it is there."""
    with suppress(FileNotFoundError):
        place.unlink()


@contextmanager
def _writing(store: StorePath) -> Iterator[None]:
    """Tell what a store raises as a target does."""
    try:
        yield
    except OSError as error:
        raise TargetError(f"{store}: {error.strerror}; nothing was published") from None


def _sweep(store: StorePath) -> None:
    """Delete what runs that were killed long ago have left: rows that no manifest names."""
    runs: dict[str, list[StorePath]] = {}
    for path in store.rglob("*"):
        name = path.relative_to(store).as_posix()
        if name == MANIFEST_NAME:
            return
        if path.is_file() and left_behind(name, ""):
            runs.setdefault(name.partition("/")[0], []).append(path)
    for name, paths in runs.items():
        if time.time() - max(p.stat().st_mtime for p in paths) > _FORGOTTEN_S:
            (store / name).unlink() if name.startswith(CLAIM) else (store / name).rmtree()


def destination(
    out: str | os.PathLike[str] | Place, if_exists: IfExists, images: ImageForm = "parquet"
) -> Place:
    """Where a release goes. Raises: TargetError when something is there, UsageError.

    `same` is decided by the caller, who knows what would be made.
    """
    if if_exists not in ("error", "same", "version"):
        raise UsageError(f"if_exists is error, same or version, not {if_exists!r}")
    if out == "":
        raise UsageError("out= must be a folder, or a prefix of a store: s3://bucket/folder")
    target = absolute(place_of(out))
    if isinstance(target, StorePath):
        with _writing(target):
            return _prefix(target, if_exists, images)
    if if_exists == "version":
        return _version(target)
    base = next(p for p in (target, *target.parents) if p.exists())
    if not base.is_dir():
        raise TargetError(f"{base}: a file is in the way; choose another place")
    kept = if_exists == "same" and base == target  # nothing will be written there
    if not kept and not os.access(target.parent if base == target else base, os.W_OK):
        raise TargetError(f"{target}: no permission to write there; choose another place")
    if if_exists == "error" and not is_free(target):
        raise _taken(target)
    return target


def _prefix(target: StorePath, if_exists: IfExists, images: ImageForm) -> Place:
    if not target.key:
        raise UsageError(f"{target}: name a folder in the bucket, such as {target}/adult")
    if images != "parquet":
        raise UsageError("images that are files go to a folder of this machine: say images=parquet")
    if if_exists == "version":
        return _version(target)
    free = is_free(target)
    if not free and if_exists == "error":
        raise _taken(target)
    if free:  # whether it can be written shows before hours of work
        probe = target / f"{CLAIM}{new_ulid()}"
        probe.write_bytes(b"")
        probe.unlink()
    return target


def _version(target: Place) -> Place:
    number, versioned = 2, target
    while versioned.exists() if isinstance(versioned, Path) else not is_free(versioned):
        versioned = target.with_name(f"{target.name}-{number}")
        number += 1
    return versioned


def _taken(target: Place) -> TargetError:
    return TargetError(
        f"{target} exists; remove it, choose another place, or say if_exists=same (keep it if "
        "it is what this call would make) or version (write beside it)"
    )


def is_free(target: Place) -> bool:
    """Whether nothing is in the way: no such path, or an empty folder; in a store, nothing but
    what runs left that never published."""
    if isinstance(target, Path):
        return not target.exists() or (target.is_dir() and not any(target.iterdir()))
    return not target.is_file() and _free(list(target.iterdir()))


def _free(found: list[StorePath]) -> bool:
    names = (f"{p.name}/" if p.is_dir() else p.name for p in found)
    return all(name == SIGNATURE_NAME or left_behind(name, "") for name in names)
