"""A laboratory run on disk: its settings, the records of its pieces, and what was made of them.

A run is a folder. Each piece of work (a chain, an arm) is one Parquet file, written whole or not at
all, so a run that was stopped goes on where it was; `result.json` and `index.html` come last.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.errors import TargetError
from safegen.manifest.model import write_whole
from safegen.plugins import versions

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Check", "Result", "Run"]

SETTINGS, RESULT, PAGE = "settings.json", "result.json", "index.html"
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
    """A run under way, in a folder of its own."""

    def __init__(self, path: Path, settings: Mapping[str, Any]):
        """Begin the run, or go on with it. Raises: TargetError when the folder holds something
        else: another run's settings, or no run at all."""
        self.path = Path(os.path.abspath(path))
        self.settings = json.loads(json.dumps(settings))
        place = self.path / SETTINGS
        try:
            (self.path / "records").mkdir(parents=True, exist_ok=True)
            others = [p.name for p in self.path.iterdir() if p.name != "records"]
            if place.exists():
                found = json.loads(place.read_text(encoding="utf-8"))
                if found != self.settings:
                    changed = sorted(
                        k for k in {*found, *self.settings} if found.get(k) != self.settings.get(k)
                    )
                    raise TargetError(
                        f"{self.path} holds a run with other settings ({', '.join(changed)}): "
                        "choose another place"
                    )
            elif others:
                raise TargetError(f"{self.path} is not empty, and no run of the laboratory")
            else:
                write_whole(place, json.dumps(self.settings, indent=1).encode())
        except (OSError, ValueError, AttributeError) as error:
            raise TargetError(f"{self.path}: cannot be used ({type(error).__name__})") from None

    def done(self, piece: str) -> bool:
        """Whether that piece's records are there."""
        return self._place(piece).exists()

    def keep(self, piece: str, records: pa.Table) -> None:
        """Write a piece's records, whole or not at all."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = pa.BufferOutputStream()
        pq.write_table(records, sink)
        write_whole(self._place(piece), sink.getvalue().to_pybytes())

    def records(self) -> pa.Table:
        """All records so far, one table. Raises: TargetError for a damaged file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        files = sorted((self.path / "records").glob("*.parquet"))
        try:
            return pa.concat_tables([pq.read_table(f) for f in files], promote_options="default")
        except (OSError, pa.ArrowException) as error:
            raise TargetError(
                f"{self.path}: its records cannot be read ({type(error).__name__}): remove them"
            ) from None

    def finish(
        self, checks: Sequence[Check], page: str, more: Mapping[str, Any] | None = None
    ) -> Result:
        """Write the result and the page."""
        document = {
            "settings": self.settings,
            "finished": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "python": platform.python_version(),
            "versions": versions(PACKAGES),
            "checks": [asdict(check) for check in checks],
            **(more or {}),
        }
        text = json.dumps(document, indent=1, allow_nan=False)
        write_whole(self.path / RESULT, text.encode())
        write_whole(self.path / PAGE, page.encode())
        return Result(self.path, tuple(checks))

    def _place(self, piece: str) -> Path:
        return self.path / "records" / f"{piece}.parquet"
