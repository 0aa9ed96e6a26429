"""A part's rows, tagged and written; and what is known of rows that were written, in few bytes.

Whoever makes a part, in whatever process, gives back what the gates and the manifest need of it,
and no rows but the few that were drawn. That of several parts is merged in their order.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from safegen.errors import BackendError
from safegen.lineage.image_prints import ImagePrinting
from safegen.lineage.printing import Printing
from safegen.manifest.identity import new_ulid
from safegen.manifest.model import FileEntry
from safegen.measure.drawn import Drawn, Reservoir
from safegen.measure.profile import TableTally
from safegen.shaping.strata import StrataTally
from safegen.tables.batches import (
    DEPTH_COLUMN,
    ORIGIN_COLUMN,
    PROVENANCE_COLUMNS,
    WEIGHT_COLUMN,
    sound_weights,
)
from safegen.tables.cells import coded
from safegen.tables.credentials import SIDECAR
from safegen.tables.digests import LookupDigest, RowsDigest, combine
from safegen.tables.entries import data_entry
from safegen.tables.image_folders import METADATA, written_as_files
from safegen.tables.images import stamped_images
from safegen.tables.sources import TABLE
from safegen.tables.stamps import stamped
from safegen.tables.units import roots, units

if TYPE_CHECKING:
    from safegen.engines.blocks import Block
    from safegen.engines.parts import Part, Recipe

__all__ = ["PARTS", "PartWriter", "Written", "finished", "join_images"]

PARTS = ".parts"
"""Of a folder that a release is prepared in: what is being written, and what of it is finished."""


@dataclass
class Written:
    """What is known of the rows of a part, or of several. `merge` adds those of the next one.

    `in_band`: by table the rows whose provenance columns are there, by origin. `credentials`: of
    images and of files of rows, how many have one, and how many there are. `files`: the files of
    rows, with their hashes.
    """

    tallies: dict[str, TableTally] = field(default_factory=dict)
    reservoirs: dict[str, Reservoir] = field(default_factory=dict)
    printings: dict[str, Printing] = field(default_factory=dict)
    image_printings: dict[str, ImagePrinting] = field(default_factory=dict)
    strata: StrataTally | None = None
    keys: list[tuple[str, bytes]] = field(default_factory=list)
    rows: int = 0
    weighted: bool = False  # whether any row's weight is another than 1
    table_rows: dict[str, int] = field(default_factory=dict)
    in_band: dict[str, dict[str, int]] = field(default_factory=dict)
    credentials: dict[str, tuple[int, int]] = field(default_factory=dict)
    files: list[FileEntry] = field(default_factory=list)
    _digests: dict[str, RowsDigest] = field(default_factory=dict)
    _lookups: dict[str, dict[str, LookupDigest]] = field(default_factory=dict)

    def see(self, name: str, table: pa.Table, weights: np.ndarray | None) -> None:
        """Count a block's rows of one table. weights: theirs; None: all are 1."""
        known = np.ones(table.num_rows) if weights is None else weights
        if name in self.tallies:
            self.tallies[name].update(table, weights)
        if name in self.reservoirs:
            self.reservoirs[name].update(table, known)
        if self.strata is not None and weights is not None:
            self.strata.update(table, weights)
        self.weighted |= bool((known != 1).any())
        self.table_rows[name] = self.table_rows.get(name, 0) + table.num_rows
        self.rows += table.num_rows
        digest = self._digests.setdefault(name, RowsDigest(table.schema))
        lookups = self._lookups.setdefault(
            name, {key_id: LookupDigest(table.schema, key) for key_id, key in self.keys}
        )
        if name in self.printings:
            self.printings[name].update(table)
        if name in self.image_printings:
            self.image_printings[name].update(table)
        for batch in table.combine_chunks().to_batches():
            batch = coded(batch)
            digest.update(batch)
            LookupDigest.update_all(lookups.values(), batch)

    def see_decoys(self, tables: Mapping[str, pa.Table]) -> None:
        """Take what rows that are never released are known by."""
        for name, table in tables.items():
            if name in self.printings:
                self.printings[name].update_decoys(table)
            if name in self.image_printings:
                self.image_printings[name].update(table)

    def tagged(self, name: str, table: pa.Table) -> None:
        """Count rows that say what they are: on what was written, not on what was to be."""
        found = _provenance(table.schema)
        if len(found) == len(PROVENANCE_COLUMNS) and not any(
            table.column(n).null_count for n in found
        ):
            counts = self.in_band.setdefault(name, {})
            counts["synthetic"] = counts.get("synthetic", 0) + table.num_rows

    def credited(self, what: str, there: bool) -> None:
        """Count an image or a file that has a content credential, or was to have one."""
        have, wanted = self.credentials.get(what, (0, 0))
        self.credentials[what] = (have + there, wanted + 1)

    def merge(self, later: Written) -> None:
        """Add what is known of the rows that come after these."""
        _merge(self.tallies, later.tallies)
        _merge(self.reservoirs, later.reservoirs)
        _merge(self.printings, later.printings)
        _merge(self.image_printings, later.image_printings)
        _merge(self._digests, later._digests)
        for name, theirs in later._lookups.items():
            mine = self._lookups.setdefault(name, {})
            for key_id, key in self.keys:
                if key_id in mine:
                    mine[key_id].merge(theirs[key_id])
                else:
                    mine[key_id] = theirs[key_id].keyed(key)
        if self.strata is not None and later.strata is not None:
            self.strata.merge(later.strata)
        self.rows += later.rows
        self.weighted |= later.weighted
        for name, rows in later.table_rows.items():
            self.table_rows[name] = self.table_rows.get(name, 0) + rows
        for name, counts in later.in_band.items():
            known = self.in_band.setdefault(name, {})
            for origin, rows in counts.items():
                known[origin] = known.get(origin, 0) + rows
        for what, (there, wanted) in later.credentials.items():
            have, of = self.credentials.get(what, (0, 0))
            self.credentials[what] = (have + there, of + wanted)
        self.files += later.files

    def drawn(self) -> dict[str, Drawn]:
        """The rows that were drawn at random while all of them were written, by table."""
        return {n: d for n, r in self.reservoirs.items() if (d := r.value()) is not None}

    def digests(self) -> tuple[str, dict[str, list[str]]]:
        """The logical digest, and the lookup digests per key epoch."""
        digests = {name: d.value() for name, d in self._digests.items()}
        lookups: dict[str, list[str]] = {}
        for key_id, _ in self.keys:
            values = {name: by_key[key_id].value() for name, by_key in self._lookups.items()}
            lookups[key_id] = sorted({combine(values), *values.values()})
        return combine(digests), lookups


class _Merging(Protocol):
    def merge(self, other: Any, /) -> None: ...


_M = TypeVar("_M", bound=_Merging)


def _merge(mine: dict[str, _M], later: Mapping[str, _M]) -> None:
    for name, one in later.items():
        if name in mine:
            mine[name].merge(one)
        else:
            mine[name] = one


@dataclass
class _File:
    """One Parquet file being written, under a name of its own until it is whole."""

    path: Path
    writer: pq.ParquetWriter
    rows: int = 0


class PartWriter:
    """Writes a part of a release below `folder`, and counts it. A context: what is not finished
    when it ends is gone.

    Raises: BackendError for weights or images that are none.
    """

    def __init__(self, recipe: Recipe, part: Part, folder: Path):
        self._recipe, self._part, self._folder = recipe, part, folder
        self._written = recipe.blank(part)
        self._files: dict[str, _File] = {}
        self._own = new_ulid()  # a process that was taken for lost may still write

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        for file in self._files.values():
            with suppress(OSError, pa.ArrowException):
                file.writer.close()
            file.path.unlink(missing_ok=True)

    def write(self, made: Block) -> None:
        """Tag one block's rows, count them, and append them as a row group."""
        weights = made.weights
        if weights is not None:
            if not sound_weights(weights):
                raise BackendError("rows have weights that are not finite, not above 0, or absurd")
            weights = weights.astype(np.float32).astype(np.float64)  # as they are written
        for name, table in made.tables.items():
            table = self._stamped(name, table)
            tagged = self._tagged(table, np.ones(table.num_rows) if weights is None else weights)
            if self._recipe.images == "png":
                first = self._part.first + self._written.table_rows.get(name, 0)
                tagged = written_as_files(tagged, self._folder / "data", first)
            file = self._file(name, tagged.schema)
            if tagged.num_rows:  # a table of several may have none in this block
                file.writer.write_table(tagged, row_group_size=tagged.num_rows)
            file.rows += tagged.num_rows
            self._written.tagged(name, tagged)
            self._written.see(name, table, weights)

    def finish(self) -> Written:
        """Give the files their names, once they are whole, and say what was written."""
        written = self._written
        for name, file in list(self._files.items()):
            file.writer.close()
            place = self._place(name)
            if file.rows or not self._part.number:  # the first one has a table's columns
                self._sign(file.path, place)
                os.replace(file.path, place)
                if self._recipe.images == "parquet":
                    at = place.relative_to(self._folder).as_posix()
                    written.files.append(data_entry(place, at, name))
            else:
                file.path.unlink()
            del self._files[name]
        if self._recipe.images == "parquet":
            _note(self._folder, self._part, written)
        return written

    def _stamped(self, name: str, table: pa.Table) -> pa.Table:
        first = self._part.first + self._written.table_rows.get(name, 0)
        try:
            return stamped_images(table, self._recipe.stamp, first, self._signed)
        except ValueError as error:
            raise BackendError(f"the model made something that is no image ({error})") from None

    def _signed(self, data: bytes) -> bytes:
        """An image with its content credential where they are asked for; without, where it cannot
        be signed, which the release gate is told."""
        if self._recipe.signer is None:
            return data
        try:
            signed = self._recipe.signer.embedded(data, self._recipe.stamp)
        except ValueError:
            signed = None
        self._written.credited("images", signed is not None)
        return data if signed is None else signed

    def _sign(self, path: Path, place: Path) -> None:
        """Put a file's content credential beside where it will be."""
        if self._recipe.images == "parquet":
            signed_beside(path, place, self._recipe, self._written)

    def _tagged(self, table: pa.Table, weights: np.ndarray) -> pa.Table:
        n = table.num_rows
        codes = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(n, dtype=np.int8)), pa.array(["synthetic"])
        )
        for column, values in (
            (ORIGIN_COLUMN, codes),
            (DEPTH_COLUMN, pa.array(np.full(n, self._recipe.depth, dtype=np.float32))),
            (WEIGHT_COLUMN, pa.array(weights.astype(np.float32))),
        ):
            table = table.append_column(column, values)
        return table.replace_schema_metadata(stamped(table.schema, self._recipe.stamp).metadata)

    def _file(self, name: str, schema: pa.Schema) -> _File:
        if name not in self._files:
            path = self._folder / PARTS / f"{self._own}-{len(self._files)}.parquet"
            path.parent.mkdir(exist_ok=True)  # not the folder: it may have been swept
            writer = pq.ParquetWriter(path, schema, compression="zstd")
            self._files[name] = _File(path, writer)
        return self._files[name]

    def _place(self, name: str) -> Path:
        if self._recipe.images == "png":
            return self._folder / PARTS / _rest(self._part.number)
        place = self._folder / part_name(name, self._part)
        for folder in (self._folder / "data", place.parent):
            folder.mkdir(exist_ok=True)
        return place


def part_name(table: str, part: Part) -> str:
    """The file of a part's rows of a table, below a release's folder."""
    return f"data/{'' if table == TABLE else f'{table}/'}part-{part.number:05d}.parquet"


def signed_beside(path: Path, place: Path, recipe: Recipe, written: Written) -> None:
    """Put the content credential of a file of rows beside its `place`, where one is asked for."""
    if recipe.signer is None:
        return
    try:
        signed = recipe.signer.beside(path, recipe.stamp)
        place.with_name(place.name + SIDECAR).write_bytes(signed)
    except ValueError:
        written.credited("files of rows", False)
    else:
        written.credited("files of rows", True)


def _provenance(schema: pa.Schema) -> list[str]:
    return [n for n in PROVENANCE_COLUMNS if n in schema.names]


def _rest(number: int) -> str:
    """Where a part's table beside its PNG files is, until all of them are joined."""
    return f"{number:05d}-{METADATA}"


def join_images(recipe: Recipe, folder: Path, written: Written) -> None:
    """Make the one table beside the PNG files of all parts, where images go out so."""
    rests = sorted((folder / PARTS).glob(f"*-{METADATA}"))
    if not rests:
        return
    place = folder / "data" / METADATA
    place.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(place, pq.read_schema(rests[0]), compression="zstd") as writer:
        for rest in rests:
            with pq.ParquetFile(rest) as file:
                for group in range(file.num_row_groups):
                    rows = file.read_row_group(group)
                    writer.write_table(rows, row_group_size=rows.num_rows)
            rest.unlink()
    signed_beside(place, place, recipe, written)
    written.files.append(data_entry(place, place.relative_to(folder).as_posix(), TABLE))


# ---- parts that an interrupted run has finished --------------------------------------------------


def _journal(folder: Path, part: Part) -> Path:
    return folder / PARTS / f"{part.number:05d}.json"


def _note(folder: Path, part: Part, written: Written) -> None:
    """Note that a part is finished, so that a run that goes on need not make it again."""
    said = {
        "files": [f.model_dump(mode="json") for f in written.files],
        "credentials": written.credentials,
    }
    path = _journal(folder, part)
    draft = path.with_suffix(f".{new_ulid()}")
    draft.write_text(json.dumps(said))
    os.replace(draft, path)


def finished(recipe: Recipe, part: Part, folder: Path) -> Written | None:
    """What an interrupted run has written of a part, counted again from its files; None where it
    did not finish it, or where the files are not what it finished."""
    try:
        if not _plain(journal := _journal(folder, part)):
            return None
        said = json.loads(journal.read_bytes())
        entries = [FileEntry.model_validate(e) for e in said["files"]]
        credentials = {str(k): (int(a), int(b)) for k, (a, b) in said["credentials"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    written = recipe.blank(part)
    found = 0
    try:
        for entry in entries:
            name = entry.table or ""
            if entry.path != part_name(name, part) or name not in recipe.schemas:
                return None
            if not _plain(folder / entry.path):  # a pipe would be waited for
                return None
            if data_entry(folder / entry.path, entry.path, name) != entry:
                return None
            found += _see_again(written, name, folder / entry.path, recipe)
    except (OSError, pa.ArrowException, KeyError):
        return None
    written.credentials, written.files = credentials, entries
    return written if found == part.units else None


def _plain(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _see_again(written: Written, name: str, path: Path, recipe: Recipe) -> int:
    """Count a file's rows, block by block, as when they were written. How many units they are."""
    counted, several = 0, len(recipe.schemas) > 1
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups) or (None,):
            tagged = (
                file.schema_arrow.empty_table() if group is None else file.read_row_group(group)
            )
            weights = np.asarray(tagged.column(WEIGHT_COLUMN).cast(pa.float64()))
            rows = tagged.drop_columns(_provenance(tagged.schema)).replace_schema_metadata(None)
            written.tagged(name, tagged)
            weighted = written.strata is not None or bool((weights != 1).any())
            written.see(name, rows, weights if weighted else None)
            if not several:
                counted += units({name: rows}, recipe.schemas)
            elif name in roots(recipe.schemas):
                counted += rows.num_rows
    return counted
