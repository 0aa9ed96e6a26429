"""Staging and publishing: rows become visible together with their manifest, or not at all.

A release is written into a folder beside its target, on the same file system, and published by
one rename. The staging folder is locked while it is worked in, so a folder that was left by a
killed run is known by its missing lock and swept by the next run.
"""

from __future__ import annotations

import errno
import glob
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from safegen.engines.parts import Recipe
from safegen.engines.writing import PARTS, Written, join_images
from safegen.errors import SafegenError, TargetError, WorkersLost
from safegen.exports import exported
from safegen.folders import cache_folder
from safegen.lineage.descent import Node
from safegen.manifest import MANIFEST_NAME, SIGNATURE_NAME, Manifest, SigningKey
from safegen.manifest.canonical import canonical_bytes
from safegen.manifest.identity import ULID_LENGTH
from safegen.manifest.model import FileEntry
from safegen.manifest.sign import envelope_for
from safegen.measure.figures import Figures
from safegen.pages import report
from safegen.places import Place
from safegen.tables.entries import file_entry

__all__ = ["IfExists", "Staging", "interrupted", "staging"]

IfExists = Literal["error", "same", "version"]

MARK = ".safegen-staging-"
LOCK = ".lock"

_LOG = logging.getLogger("safegen")
_RUN = "run.json"
_KEPT_SECONDS = 7 * 24 * 3600


@dataclass
class Staging:
    """A folder in which a release is prepared, part by part. Use `staging(...)`."""

    folder: Path
    target: Path
    dataset_id: str
    recipe: Recipe
    written: Written = field(init=False)

    def __post_init__(self) -> None:
        self.written = self.recipe.blank()

    @property
    def place(self) -> Place:
        """Where the dataset will be."""
        return self.target

    def take(self, part: Written) -> None:
        """Add a part that was made in the folder, after those that were taken before."""
        self.written.merge(part)

    def close(self) -> None:
        """Nothing more will be taken."""
        join_images(self.recipe, self.folder, self.written)

    def abandon(self) -> None:
        """Leave what is there; the folder is removed by whoever opened it."""

    def data_files(self) -> list[FileEntry]:
        """An entry per file of rows, with its row groups and tree."""
        return sorted(self.written.files, key=lambda e: e.path)

    def files(self) -> list[FileEntry]:
        """An entry per staged file."""
        data = {e.path: e for e in self.data_files()}
        entries = []
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            ours = name in (MANIFEST_NAME, SIGNATURE_NAME, LOCK) or name.startswith(f"{PARTS}/")
            if ours or not path.is_file():
                continue
            entries.append(data.get(name) or file_entry(path, name))
        return entries

    def describe(self, manifest: Manifest, figures: Figures, tree: Node) -> None:
        """Write what is derived: README.md (a dataset card), report.html, croissant.json."""
        manifest = manifest.model_copy(update={"files": self.data_files()})
        pages = {
            "README.md": exported(manifest, "card"),
            "croissant.json": exported(manifest, "croissant"),
            "report.html": report(manifest, figures, tree),
        }
        for name, text in pages.items():
            (self.folder / name).write_text(text, encoding="utf-8")

    def seal(self, manifest: Manifest, key: SigningKey | None) -> Manifest:
        """Write the manifest, and its signature when there is a key."""
        manifest = manifest.sealed()
        (self.folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
        if key is not None:
            (self.folder / SIGNATURE_NAME).write_bytes(envelope_for(manifest, key))
        return manifest

    def publish(self) -> Place:
        """Make the folder visible under its name, in one rename, after all bytes are on disk."""
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)
        (self.folder / LOCK).unlink(missing_ok=True)
        for path in self.folder.rglob("*"):
            _sync(path)
        _sync(self.folder)
        try:
            if self.target.is_dir() and not any(self.target.iterdir()):
                self.target.rmdir()
            os.rename(self.folder, self.target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise TargetError(
                    f"{self.target}: something appeared there while this run was working; nothing "
                    "was overwritten"
                ) from None
            raise
        _sync(self.target.parent)
        return self.target


@contextmanager
def staging(
    target: Path,
    *,
    dataset_id: str,
    recipe: Recipe,
    run: Mapping[str, Any] | None = None,
    kind: Callable[..., Staging] = Staging,
) -> Iterator[Staging]:
    """A staging folder beside `target`; gone when the block ends, unless it was published, or kept
    for a run that goes on.

    `recipe`: what its parts are made by. `run`: what tells this run from others that would make
    other rows; None where nobody can go on with it. The parts that are finished are kept when it is
    interrupted, or when it is killed.

    Raises: TargetError when the place cannot be written or the disk is full.
    """
    target = Path(os.path.abspath(target))
    folder = _folder(target, dataset_id)
    made: list[Path] = []
    held: int | None = None
    stage: Staging | None = None
    kept = False
    try:
        made = _make_parents(target.parent)
        sweep(target.parent, target.name, dataset_id)
        folder.mkdir(mode=0o777, exist_ok=run is not None)
        held = _only(lock(folder / LOCK), target)
        (folder / PARTS).mkdir(exist_ok=True)
        (folder / PARTS / _RUN).write_bytes(canonical_bytes({} if run is None else dict(run)))
        stage = kind(folder, target, dataset_id, recipe)
        yield stage
    except (KeyboardInterrupt, WorkersLost):
        if kept := run is not None and (finished := _finished(folder)) > 0:
            _LOG.warning(
                "%s: %s finished parts are kept beside it: the same call with resume=True "
                "(--resume) goes on with them",
                target,
                f"{finished:,}",
            )
        raise
    except SafegenError:
        raise
    except OSError as error:
        raise _target_error(target, error) from None
    except pa.ArrowException as error:
        if "No space left" in str(error):
            raise TargetError(_full(target)) from None
        raise SafegenError(f"writing the rows failed ({type(error).__name__})") from None
    finally:
        if stage is not None:
            stage.abandon()
        if held is not None:
            os.close(held)
        if held is not None and not kept:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in reversed(made):
            try:
                parent.rmdir()  # only what this run made, and only when it is empty
            except OSError:
                break


def _folder(target: Path, dataset_id: str) -> Path:
    return target.parent / f"{MARK}{target.name}-{dataset_id}"


def _finished(folder: Path) -> int:
    """How many parts are finished in a staging folder."""
    return sum(1 for p in (folder / PARTS).glob("*.json") if p.name != _RUN)


def _ours(folder: Path) -> bool:
    """Whether a folder is this user's own: what lies in another's may change under our hands."""
    found = folder.lstat()
    geteuid = getattr(os, "geteuid", None)
    return stat.S_ISDIR(found.st_mode) and (geteuid is None or found.st_uid == geteuid())


def interrupted(target: Path, run: Mapping[str, Any]) -> str | None:
    """The id of the dataset that an interrupted run like this one was to make at `target`, and of
    which it has finished parts; None where there is none."""
    wanted = canonical_bytes(dict(run))
    for folder in sorted(target.parent.glob(f"{MARK}{glob.escape(target.name)}-*")):
        dataset_id = folder.name[-ULID_LENGTH:]
        if folder != _folder(target, dataset_id) or not _ours(folder) or not _finished(folder):
            continue
        with suppress(OSError), (folder / PARTS / _RUN).open("rb") as said:
            if said.read(len(wanted) + 1) == wanted:
                return dataset_id
    return None


def _target_error(target: Path, error: OSError) -> SafegenError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TargetError(_full(target))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return TargetError(f"{target}: no permission to write there; choose another --out")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return TargetError(f"{target}: a file is in the way; choose another --out")
    return TargetError(f"{target}: cannot be written ({error.strerror or type(error).__name__})")


def _full(target: Path) -> str:
    return f"{target}: the disk is full; nothing was published, and what was staged is removed"


def _make_parents(folder: Path) -> list[Path]:
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir()
    return missing[::-1]


def lock(path: Path) -> int | None:
    """Open and lock a file; the lock ends with the process, however it ends. None where another
    process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    if _try_lock(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def _only(held: int | None, target: Path) -> int:
    if held is None:
        raise TargetError(f"{target}: another run is at work on it; wait for its end")
    return held


def _try_lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: a file in use cannot be removed there, which serves as well
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sweep(parent: Path, name: str = "", dataset_id: str = "") -> None:
    """Remove staging folders that no running process holds.

    What an interrupted run has finished is kept for a week; not when it is for the target `name`
    and not the dataset `dataset_id`, which is being made there now.
    """
    for folder in parent.glob(f"{MARK}*"):
        if folder.is_symlink() or not folder.is_dir():
            continue
        whose, its_id = folder.name[len(MARK) : -ULID_LENGTH - 1], folder.name[-ULID_LENGTH:]
        if _finished(folder) and (
            its_id == dataset_id if whose == name else _age(folder / PARTS) < _KEPT_SECONDS
        ):
            continue
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR)
        except FileNotFoundError:
            # Between mkdir and lock, or between unlock and rename: leave it if it is young.
            if _age(folder) > 3600:
                shutil.rmtree(folder, ignore_errors=True)
            continue
        except OSError:
            continue
        try:
            if _try_lock(descriptor):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _age(path: Path) -> float:
    import time

    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _sync(path: Path) -> None:
    """Bring a file's or folder's bytes to the disk before its name becomes visible."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def scratch_folder() -> Path:
    """Where `sample` puts its datasets; those older than a week are removed from it."""
    scratch = cache_folder() / "scratch"
    for folder in scratch.iterdir() if scratch.is_dir() else ():
        if _age(folder) > _KEPT_SECONDS:
            shutil.rmtree(folder, ignore_errors=True)
    return scratch
