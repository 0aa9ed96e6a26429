"""What lies in a folder: every data file and dataset below it, and what is known of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from safegen.errors import ManifestError, SourceError, UsageError
from safegen.ledger import Ledger
from safegen.lineage.evidence import resolve
from safegen.lineage.facts import SourceFacts
from safegen.lineage.marks import RING
from safegen.manifest import MANIFEST_NAME, Manifest
from safegen.manifest.check import left_behind
from safegen.places import Place, StorePath, place_of, walk
from safegen.tables.files import is_known
from safegen.tables.sources import MAX_FILES, read_source

__all__ = ["Scanned", "scan"]


@dataclass(frozen=True)
class Scanned:
    """A data file or a dataset's folder; `problem` says why nothing could be read."""

    path: str
    facts: SourceFacts | None
    problem: str | None = None

    @property
    def said(self) -> str:
        """One line on what it is."""
        if self.facts is None:
            return f"cannot be read: {self.problem}"
        facts = self.facts
        parts = [f"{facts.origin}, {facts.ancestry}, {facts.rows:,} rows"]
        if facts.synthetic_share:
            share, depth = facts.synthetic_share, facts.effective_depth
            parts.append(f"{share:.1%} synthetic, depth {depth:.3g}")
        marks = sum(e.ring == RING for e in facts.evidence)
        parts += [f"{marks} marks of other tools"] if marks else []
        parts += [f"{len(facts.problems)} problems"] if facts.problems else []
        return "; ".join(parts)


def scan(folder: str | os.PathLike[str] | Place, ledger: Ledger | None) -> Iterator[Scanned]:
    """Everything below a folder, in order of its names. Links are not followed, and what is hidden
    is left out; a dataset's folder is one thing, and in a store what other runs left in it others.

    Raises: UsageError for what is no folder, and for more than 100,000 files; LedgerError.
    """
    top = place_of(folder)
    if not top.is_dir():
        raise UsageError(f"{top}: no folder to look through")
    seen = 0
    for place, folders, files in walk(top):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        found = [place] if MANIFEST_NAME in files else []
        if found:
            folders[:] = _left_behind(place, folders)
        else:
            found = [
                p
                for name in sorted(files)
                if not name.startswith(".") and is_known(p := place / name)
                if not p.is_symlink()
            ]
        for path in found:
            seen += 1
            if seen > MAX_FILES:
                raise UsageError(f"{top}: more than {MAX_FILES:,} files; look through its parts")
            try:
                yield Scanned(str(path), resolve(read_source(path), ledger))
            except SourceError as error:
                yield Scanned(str(path), None, str(error))


def _left_behind(place: Place, folders: list[str]) -> list[str]:
    """The folders in a dataset's that are none of it, and that nobody counts as extra."""
    if not isinstance(place, StorePath):
        return []
    try:
        own = Manifest.read(place).dataset_id
    except ManifestError:
        return []
    return sorted(f for f in folders if left_behind(f"{f}/", own))
