"""An evidence folder while it is written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from safegen.evidence.index import FileEntry

__all__ = ["Draft"]


@dataclass
class Draft:
    """Its files so far, what is missing, and where real values may be."""

    folder: Path
    files: list[FileEntry] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    real_values: dict[str, None] = field(default_factory=dict)

    def put(self, path: str, data: bytes) -> None:
        """A file, which the index will name."""
        place = self.folder / path
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        self.files.append(FileEntry(path=path, bytes=len(data), sha256=f"sha256:{digest}"))

    def once(self, path: str, data: bytes) -> None:
        """A file that several datasets share."""
        if not (self.folder / path).exists():
            self.put(path, data)
