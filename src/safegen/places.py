"""Where data lies: a path on this machine, or an object store's URI.

`place_of` decides it, once. A local place is a `pathlib.Path`, and all goes on as it does for paths
(links, locks, one rename). `s3://bucket/key` and `gs://bucket/key` are a `StorePath`, which offers
what safegen needs of a path and asks the store through pyarrow. Credentials, endpoint and region
are the environment's: a URI that carries any is refused, and shown to nobody.
"""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias, cast
from urllib.parse import unquote, urlsplit

from safegen.errors import UsageError, hidden
from safegen.stores import NO_BUCKET, NoObject, StoreError, connected, told

__all__ = [
    "NoObject",
    "Place",
    "StoreError",
    "StorePath",
    "absolute",
    "absent",
    "local",
    "place_of",
    "read_range",
    "redacted",
    "walk",
]

STORES = ("s3", "gs", "gcs")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://", re.ASCII)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_SECRET = re.compile(r"token|sig|secret|pass|pwd|key|cred|auth|session", re.IGNORECASE)

_AHEAD = 4 << 20
"""Bytes that a request asks for where a file is read from its beginning on."""


def place_of(path: str | os.PathLike[str] | StorePath) -> Place:
    """The place that a path or URI names.

    Raises: UsageError for a URI of another scheme, and for one with credentials or options.
    """
    if isinstance(path, StorePath):
        return path
    if isinstance(path, Path):
        if path.parts[:1] in [(f"{scheme}:",) for scheme in STORES]:
            raise UsageError(f"{path}: give a URI as text, for a Path takes a slash out of it")
        return path
    text = os.fspath(path)
    scheme, colon, rest = text.partition(":")
    if colon and scheme.lower() == "file" and rest.startswith("/"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise UsageError("a file:// URI names a path of this machine: file:///folder/file")
        return Path(unquote(parts.path))
    if (found := _SCHEME.match(text)) is None:
        return Path(text)
    scheme = found[1].lower()
    if scheme not in STORES:
        raise UsageError(
            f"{scheme}:// is not read by this version; it reads s3://, gs:// and file://, so copy "
            "the data there, or here"
        )
    return _in_store(scheme, text[found.end() :])


def _in_store(scheme: str, rest: str) -> StorePath:
    bucket, _, key = rest.partition("/")
    if re.search(r"[@:]", bucket) or "?" in rest:  # a secret key may hold a slash: show nothing
        raise UsageError(
            f"{scheme}://…: credentials and options are not taken from a URI, where others see "
            "them; set them in the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_REGION, "
            "AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS)"
        )
    key = key.rstrip("/")
    if not _BUCKET.fullmatch(bucket) or any(p in ("", ".", "..") for p in key.split("/") if key):
        raise UsageError(
            f"{scheme}://…: not a bucket and a key, such as {scheme}://bucket/folder/file"
        )
    return StorePath("gs" if scheme == "gcs" else scheme, bucket, key)


def redacted(text: str) -> str:
    """A URI without the user and password in it, and without what of its query may be a secret."""
    text = re.sub(r"://(?:[^/?#@]*:[^?#]*|[^/?#]*)@", "://…@", text)
    return re.sub(
        r"([?&;#])([^=&;#]*)=([^&;#]*)",
        lambda m: f"{m[1]}{m[2]}={'…' if _SECRET.search(m[2]) else m[3]}",
        text,
    )


def local(path: str | os.PathLike[str] | StorePath, what: str) -> Path:
    """A path of this machine. Raises: UsageError for a URI of a store."""
    place = place_of(path)
    if isinstance(place, Path):
        return place
    raise UsageError(f"{place}: {what} lies in a folder of this machine")


def absolute(place: Place) -> Place:
    """The place, whatever the working folder becomes."""
    return Path(os.path.abspath(place)) if isinstance(place, Path) else place


def absent(place: Place) -> str:
    """Why nothing is there, when nothing is."""
    if isinstance(place, StorePath) and not place.bucket_exists():
        return NO_BUCKET
    return "no such file or folder"


def read_range(place: Place, start: int, length: int) -> bytes:
    """Some bytes of a file, of a store in one request. Raises: OSError."""
    if isinstance(place, StorePath):
        return place.read_range(start, length)
    with place.open("rb") as stream:
        stream.seek(start)
        return stream.read(length)


def walk(top: Place) -> Iterator[tuple[Place, list[str], list[str]]]:
    """As `os.walk`, from the top: folders that are taken from the list are not looked into."""
    if isinstance(top, Path):
        yield from ((Path(at), folders, files) for at, folders, files in os.walk(top))
        return
    inside = list(top.iterdir())
    folders = [p.name for p in inside if p.is_dir()]
    yield top, folders, [p.name for p in inside if p.is_file()]
    for name in folders:
        yield from walk(top / name)


@dataclass(frozen=True, order=True)
class StorePath:
    """A key of a bucket, or what begins with it, as if it were a path.

    What a listing said of it (`info`) is not asked for again.
    """

    scheme: str
    bucket: str
    key: str
    info: Any = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self._path}"

    @property
    def _path(self) -> str:
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    @property
    def _store(self) -> Any:
        return connected(self.scheme, self.bucket)

    # ---- names -----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._path.rpartition("/")[2]

    @property
    def parent(self) -> StorePath:
        return StorePath(self.scheme, self.bucket, self.key.rpartition("/")[0])

    def __truediv__(self, name: str) -> StorePath:
        return StorePath(self.scheme, self.bucket, f"{self.key}/{name}" if self.key else name)

    def with_name(self, name: str) -> StorePath:
        return self.parent / name

    def with_suffix(self, suffix: str) -> StorePath:
        return self.with_name(PurePosixPath(self.name).with_suffix(suffix).name)

    def is_relative_to(self, other: StorePath) -> bool:
        return f"{self}/".startswith(f"{other}/")

    def relative_to(self, other: StorePath) -> PurePosixPath:
        return PurePosixPath(self._path).relative_to(other._path)

    def resolve(self) -> StorePath:
        return self  # there are no links

    # ---- what is there ---------------------------------------------------------------------------

    def _known(self) -> Any:
        if self.info is not None:
            return self.info
        with told(self):
            return self._store.get_file_info(self._path)

    def _is(self, *kinds: str) -> bool:
        return self._known().type.name in kinds

    def exists(self) -> bool:
        return self._is("File", "Directory")

    def is_file(self) -> bool:
        return self._is("File")

    def is_dir(self) -> bool:
        return self._is("Directory")

    def is_symlink(self) -> bool:
        return False

    def bucket_exists(self) -> bool:
        return StorePath(self.scheme, self.bucket, "").exists()

    def stat(self) -> os.stat_result:
        """Its size, and when it was written. Raises: NoObject."""
        known = self._known()
        if known.type.name != "File":
            raise NoObject(self, "no such key in the bucket", errno.ENOENT)
        time = int(known.mtime.timestamp()) if known.mtime else 0
        return os.stat_result((0o100444, 0, 0, 1, 0, 0, known.size, time, time, time))

    def iterdir(self) -> Iterator[StorePath]:
        """What lies right below it."""
        if self.scheme != "gs":
            yield from self._listed(recursive=False)
            return
        from pyarrow.fs import FileInfo, FileType

        # Of Google's store pyarrow lists folders only for which there is an object.
        found: dict[str, StorePath] = {}
        for path in self._listed(recursive=True):
            name, *rest = path.relative_to(self).parts
            if rest:
                folder = self / name
                info = FileInfo(folder._path, type=FileType.Directory)
                path = StorePath(self.scheme, self.bucket, folder.key, info)
            found[name] = path
        yield from found.values()

    def rglob(self, pattern: str) -> Iterator[StorePath]:
        """Everything below it."""
        assert pattern == "*"
        return self._listed(recursive=True)

    def _listed(self, *, recursive: bool) -> Iterator[StorePath]:
        from pyarrow.fs import FileSelector

        with told(self):
            listing = self._store.get_file_info(
                FileSelector(self._path, allow_not_found=True, recursive=recursive)
            )
        for info in listing:
            key = info.path.removeprefix(f"{self.bucket}/").rstrip("/")
            yield StorePath(self.scheme, self.bucket, key, info)

    # ---- bytes -----------------------------------------------------------------------------------

    def _opened(self) -> Any:
        return self._store.open_input_file(self._path)

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """A stream that asks for some megabytes at a time. Raises: StoreError, also when read."""
        assert mode == "rb"
        with told(self):
            raw = _Stream(self, self._opened())
        return io.BufferedReader(raw, _AHEAD)

    def read_bytes(self, most: int | None = None) -> bytes:
        """Its first `most` bytes; None for all."""
        with told(self), self._opened() as native:
            return cast(bytes, native.read(most))

    def read_range(self, start: int, length: int) -> bytes:
        with told(self), self._opened() as native:
            native.seek(start)
            return cast(bytes, native.read(length))

    @contextmanager
    def _written(self) -> Iterator[Any]:
        with told(self):
            try:
                with self._store.open_output_stream(self._path) as sink:
                    yield sink
            except FileNotFoundError as error:
                raise StoreError(self, NO_BUCKET, errno.ENOENT) from hidden(error)

    def write_bytes(self, data: bytes) -> None:
        """Put an object: readers see it whole or not at all."""
        with self._written() as sink:
            sink.write(data)

    def upload(self, file: Path) -> None:
        """Put a file's content. Memory does not hang on its size."""
        with file.open("rb") as source, self._written() as sink:
            while chunk := source.read(_AHEAD):
                sink.write(chunk)

    def unlink(self) -> None:
        with told(self):
            self._store.delete_file(self._path)

    def rmtree(self) -> None:
        """Delete everything below it."""
        with told(self):
            self._store.delete_dir(self._path)


Place: TypeAlias = Path | StorePath
"""Where data lies."""


class _Stream(io.RawIOBase):
    """An object's bytes; what fails is told as of a `StorePath`."""

    def __init__(self, place: StorePath, native: Any):
        self._place, self._native = place, native

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._native.tell())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with told(self._place):
            return int(self._native.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        with told(self._place):
            data = self._native.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._native.close()
        super().close()
