"""What a Ray worker does, once it is known to have this very safegen."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from safegen import errors, plugins
from safegen.contracts import Backend, Model
from safegen.engines.parts import Part, Recipe, make_part
from safegen.engines.ray.luggage import Packed, packed, unpacked
from safegen.engines.worker import system_number
from safegen.errors import BackendError, SafegenError, upstream

__all__ = ["Answer", "Bench", "Failure", "failure", "train"]

_MARK = "safegen-worker-"
_LOCK = "lock"


@dataclass(frozen=True)
class Failure:
    """What went wrong in a worker, in words that hold no value: Ray would show the error whole."""

    text: str
    kind: str = "BackendError"
    number: int | None = None  # what the system said: the disk is full, for instance

    def error(self) -> Exception:
        """The error, as if it had happened here."""
        if self.number is not None:
            return OSError(self.number, os.strerror(self.number))
        kind: type[SafegenError] = getattr(errors, self.kind)
        return kind(self.text)


def failure(error: Exception) -> Failure:
    """What is said of an error."""
    if (number := system_number(error)) is not None:
        return Failure("", number=number)
    if type(error) in _SAID_AS_THEY_ARE:
        return Failure(str(error), type(error).__name__)
    return Failure(str(error) if isinstance(error, SafegenError) else upstream(error))


_SAID_AS_THEY_ARE = (errors.SourceError, errors.UsageError, errors.MissingExtra)


@dataclass
class Answer:
    """A part that was made, with its files where the driver does not see them; or why not.

    `written`: a pickle, because arrays that Ray passes on cannot be written to.
    """

    written: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)
    failed: Failure | None = None


class Bench:
    """A worker's model, and the folder that its files go to.

    `folder`: the release's, where this machine sees it; None: the files go back as bytes.
    """

    def __init__(self, folder: str | None, backend: str, model: Sequence[Packed]):
        import pyarrow as pa
        import ray

        pa.set_cpu_count(1)  # a worker is for one core
        self._own, self._lock = _own_folder()
        self._folder = None if folder is None else Path(folder)
        self._recipe: tuple[int, Recipe] | None = None
        unpacked(model, self._own / "model", ray.get)
        self._backend: Backend = plugins.load(plugins.BACKENDS, backend)()
        try:
            self._model: Model = self._backend.load(self._own / "model")
        except OSError as error:
            raise BackendError(upstream(error)) from None

    def make(self, number: int, recipe: bytes, part: Part) -> Answer:
        """Make a part, by the recipe of this number."""
        try:
            if self._recipe is None or self._recipe[0] != number:
                self._recipe = number, pickle.loads(recipe)
            if self._folder is not None:
                return Answer(self._written(part, self._folder))
            with tempfile.TemporaryDirectory(dir=self._own) as name:
                written = self._written(part, Path(name))
                return Answer(written, _files(Path(name)))
        except Exception as error:
            return Answer(failed=failure(error))

    def _written(self, part: Part, folder: Path) -> bytes:
        assert self._recipe is not None
        return pickle.dumps(make_part(self._recipe[1], self._model, self._backend, part, folder))

    def close(self) -> None:
        """Leave nothing on this machine's disk."""
        shutil.rmtree(self._own, ignore_errors=True)


def train(backend: str, seed: int, task: bytes, tables: object) -> list[Packed] | Failure:
    """A fitted model's saved files; or why there are none."""
    import ray

    try:
        schemas, options = pickle.loads(task)
        family: Backend = plugins.load(plugins.BACKENDS, backend)()
        model = family.fit(tables, schemas, options, seed=seed)  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory(prefix=_MARK) as name:
            model.save(Path(name))
            return packed(Path(name), ray.put)
    except Exception as error:
        return failure(error)


def _files(folder: Path) -> dict[str, bytes]:
    """The files below a folder by their path, in the order in which they were written."""
    found = sorted(
        (p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_mtime_ns
    )
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def _own_folder() -> tuple[Path, int]:
    """A folder for as long as this worker is there, and the lock that says so. Those of workers
    that were killed are removed."""
    for other in Path(tempfile.gettempdir()).glob(f"{_MARK}*"):
        with suppress(OSError):  # another user's, or just being made
            held = os.open(other / _LOCK, os.O_RDWR)
            try:
                if _locked(held):
                    shutil.rmtree(other, ignore_errors=True)
            finally:
                os.close(held)
    own = Path(tempfile.mkdtemp(prefix=_MARK))
    lock = os.open(own / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    _locked(lock)
    return own, lock


def _locked(descriptor: int) -> bool:
    """Lock a file until this process ends, if no other has it locked."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
