"""Whether the content credentials in a dataset's folder hold."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from safegen.errors import MissingExtra
from safegen.places import Place
from safegen.tables.batches import Batches
from safegen.tables.credentials import FILE, PNG_FILE, SIDECAR, parseable, read_credential
from safegen.tables.embedded import embedded, holds_binary
from safegen.tables.image_metadata import MAX_BYTES, metadata_of
from safegen.tables.images import PNG

__all__ = ["credentials_of"]


def credentials_of(
    folder: Place, paths: Sequence[str], tables: Mapping[str, Batches]
) -> tuple[str | None, list[str]]:
    """One line on the content credentials of a dataset, None where it has none, and those that do
    not hold: signed wrongly, or of another file, or not saying that a model made it.

    paths: of the manifest. Who signed is not judged; the manifest's own signature says that.
    """
    beside = [p for p in paths if p.endswith(SIDECAR)]
    if not beside:  # whoever signs images signs the table that they stand in, too
        return None, []
    try:
        wrong = [p for p in beside if not _file_holds(folder, p)]
        images, credited, bad = _images(tables)
    except MissingExtra as error:
        return f"content credentials were not checked: {error}", []
    rows = sum(p.endswith(".parquet") for p in paths)
    problems = [f"{p}: a content credential that does not hold" for p in wrong]
    if bad:
        problems.append(f"{bad:,} images have a content credential that does not hold")
    parts = [f"{credited:,} of {images:,} images"] if images else []
    parts.append(f"{len(beside):,} of {rows:,} files of rows")
    return f"content credentials hold: {' and '.join(parts)} have one", problems


def _file_holds(folder: Place, sidecar: str) -> bool:
    path = folder / sidecar
    data = path.with_name(path.name.removesuffix(SIDECAR))
    with path.open("rb") as stream:
        manifest = stream.read(MAX_BYTES)
    if not parseable(manifest) or not data.is_file():
        return False
    with data.open("rb") as source:
        found = read_credential(source, FILE, manifest)
    return found is not None and found.holds and found.trained


def _images(tables: Mapping[str, Batches]) -> tuple[int, int, int]:
    """PNG files in a dataset's tables: all, those with a credential, those where it is wrong."""
    images = credited = wrong = 0
    for batches in tables.values():
        names = [f.name for f in batches.schema if holds_binary(f.type)]
        if not names:
            continue
        for batch in batches:
            for name in names:
                for _, data in embedded(batch.column(name), (PNG,)):
                    images += 1
                    parts = [p.data for p in metadata_of(data) if p.kind == "c2pa"]
                    credited += bool(parts)
                    wrong += bool(parts) and not _image_holds(data, parts)
    return images, credited, wrong


def _image_holds(data: bytes, parts: Sequence[bytes]) -> bool:
    if not all(map(parseable, parts)):
        return False
    found = read_credential(io.BytesIO(data), PNG_FILE)
    return found is not None and found.holds and found.trained
