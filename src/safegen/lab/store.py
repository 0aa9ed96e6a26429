"""A laboratory run on disk: its settings, the records of its pieces, and what was made of them.

A run is a folder. Each piece of work (a chain, an arm) is one Parquet file, written whole or not at
all, so a run that was stopped goes on where it was; `result.json` and `index.html` come last.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.errors import TargetError
from safegen.manifest import digest_of
from safegen.manifest.identity import new_ulid
from safegen.manifest.model import write_whole
from safegen.plugins import versions

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Check", "Result", "Run"]

SETTINGS, RESULT, PAGE, RECORDS = "settings.json", "result.json", "index.html", "records"
_SETTINGS_KEY = b"settings"
DRAFT = ".safegen-"  # how files begin that are not yet written whole, here and in `write_whole`
PACKAGES = ("safegen", "numpy", "scikit-learn", "pyarrow", "sdv", "ctgan", "diffusers", "torch")


@dataclass(frozen=True)
class Check:
    """One statement that a run can bear out or not: what was seen, and what was to be seen."""

    name: str
    seen: float
    expected: str
    held: bool


@dataclass(frozen=True)
class Result:
    """A finished run. `held` is whether every check held."""

    path: Path
    checks: tuple[Check, ...]

    @property
    def held(self) -> bool:
        return all(check.held for check in self.checks)

    @property
    def page(self) -> Path:
        """The page with curves and verdicts."""
        return self.path / PAGE


class Run:
    """A run under way, in a folder of its own.

    Two processes may work on one run at once: a piece is the same whoever writes it.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], extent: Collection[str] = ()):
        """Begin the run, or go on with it. `extent` names the settings that say which pieces there
        are and not what is in them: a run may go on with others.

        Raises: TargetError when the folder holds something else: another run's settings, or no run
        at all. It is then left as it is.
        """
        self.path = Path(os.path.abspath(path))
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))
        fixed = {k: v for k, v in self.settings.items() if k not in extent}
        self._digest = digest_of(fixed)
        place = self.path / SETTINGS
        try:
            if not place.exists():
                self._begin(place)
            found = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise TargetError(f"{self.path}: cannot be used ({type(error).__name__})") from None
        known = found if isinstance(found, dict) else {}
        if fixed != {k: v for k, v in known.items() if k not in extent}:
            changed = [k for k in fixed if known.get(k) != fixed[k]]
            raise TargetError(
                f"{self.path} holds a run with other settings ({', '.join(changed)}): choose "
                "another place"
            )
        if known != self.settings:
            self._write(place, self._settings())

    def _settings(self) -> bytes:
        return json.dumps(self.settings, indent=1).encode()

    def _write(self, place: Path, data: bytes) -> None:
        """Write a file whole. Raises: TargetError."""
        try:
            place.parent.mkdir(exist_ok=True)
            write_whole(place, data)
        except OSError as error:
            raise TargetError(
                f"{place}: cannot be written ({error.strerror or type(error).__name__}); run again "
                "to go on"
            ) from None

    def _begin(self, place: Path) -> None:
        """Write the settings, unless another process does at this moment."""
        there = [p.name for p in self.path.iterdir()] if self.path.exists() else []
        if place.exists():
            return
        if not all(name.startswith(DRAFT) for name in there):
            raise TargetError(f"{self.path} is not empty, and no run of the laboratory")
        self.path.mkdir(parents=True, exist_ok=True)
        draft = self.path / f"{DRAFT}{new_ulid()}"
        try:
            write_whole(draft, self._settings())
            with suppress(FileExistsError):
                os.link(draft, place)  # never over another's
        finally:
            draft.unlink(missing_ok=True)

    def done(self, piece: str) -> bool:
        """Whether that piece's records are there, readable, and of these settings."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            metadata = pq.read_schema(self._place(piece)).metadata or {}
        except (OSError, pa.ArrowException):
            return False
        return bool(metadata.get(_SETTINGS_KEY) == self._digest.encode())

    def keep(self, piece: str, records: pa.Table) -> None:
        """Write a piece's records, whole or not at all, with the settings' digest and versions.

        Raises: TargetError.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        made_by = {_SETTINGS_KEY: self._digest, b"versions": json.dumps(versions(PACKAGES))}
        sink = pa.BufferOutputStream()
        pq.write_table(records.replace_schema_metadata(made_by), sink)
        self._write(self._place(piece), sink.getvalue().to_pybytes())

    def records(self, piece: str) -> pa.Table:
        """A piece's records. Raises: TargetError for a file that is not what `keep` wrote."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        place = self._place(piece)
        try:
            if self.done(piece):
                return pq.read_table(place).replace_schema_metadata(None)
        except (OSError, pa.ArrowException):
            pass
        raise TargetError(f"{place}: damaged, or changed meanwhile: run again")

    def finish(self, checks: Sequence[Check], page: str) -> Result:
        """Write the result and the page. Raises: TargetError."""
        document = {
            "settings": self.settings,
            "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "versions": versions(PACKAGES),
            "checks": [asdict(check) for check in checks],
        }
        text = json.dumps(document, indent=1, allow_nan=False)
        self._write(self.path / RESULT, text.encode())
        self._write(self.path / PAGE, page.encode())
        return Result(self.path, tuple(checks))

    def _place(self, piece: str) -> Path:
        return self.path / RECORDS / f"{piece}.parquet"
