"""A dataset on disk: verify it, open it, hand out its rows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.errors import (
    LedgerError,
    SourceError,
    TargetError,
    UsageError,
    VerificationError,
)
from safegen.ledger import Ledger
from safegen.lineage.documents import ledger_problems, recorded_keys
from safegen.loading import frames
from safegen.loading.groups import files_of
from safegen.loading.rows import Rows, chosen
from safegen.loading.unweighted import warn_of_weights, weights_asked
from safegen.manifest import SIGNATURE_NAME, Manifest, PublicKey, SigningKey, check_folder
from safegen.manifest.check import FolderCheck, check_signature
from safegen.manifest.model import html_table, write_whole
from safegen.manifest.sign import envelope_for, read_envelope, read_keys
from safegen.places import Place, place_of
from safegen.policy.organisation import pins
from safegen.tables.batches import DEPTH_COLUMN, WEIGHT_COLUMN
from safegen.tables.credited import credentials_of
from safegen.tables.digesting import table_digests
from safegen.tables.digests import combine, scheme_of
from safegen.tables.sources import TABLE, Source, read_source

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from safegen.loading.torch import TorchRows

__all__ = ["Dataset", "Verified", "inspect_folder", "sign", "verify"]


@dataclass(frozen=True)
class Verified:
    """A verified dataset: its manifest, who signed it, and what the ledger knows."""

    manifest: Manifest
    signed_by: tuple[PublicKey, ...]
    in_ledger: str | None
    deep: bool
    credentials: str | None = None  # one line on its content credentials, where they were looked at
    check: FolderCheck | None = field(default=None, repr=False, compare=False)

    @property
    def standing(self) -> str:
        """One line on what the verification is worth."""
        if self.signed_by:
            keys = ", ".join(k.id[:16] for k in self.signed_by)
            return f"SIGNED by {keys}"
        if self.in_ledger:
            return f"UNSIGNED; the ledger {self.in_ledger} recorded exactly this manifest"
        return (
            "UNSIGNED, and no ledger at hand knows it: files and manifest agree, but a rewrite of "
            "all of them together could not be noticed"
        )


def inspect_folder(
    path: str | os.PathLike[str] | Place,
    trusted_keys: Sequence[str | Path | PublicKey] | None = None,
    *,
    deep: bool = False,
    ledger: Ledger | None = None,
    known: Sequence[PublicKey] = (),
    hashed: Mapping[str, str] | None = None,
    lazily: bool = False,
) -> Verified:
    """Verify a dataset folder and say what the verification is worth. known: keys whose signature
    counts where no `trusted_keys` are named, as those do that the ledger recorded; without any, all
    that the organisation pins. hashed: the SHA-256 of files that a receipt has. lazily: row groups
    are left to whoever reads them.

    Raises: VerificationError with every problem; UsageError for a key that cannot be read.
    """
    folder = place_of(path)
    keys = read_keys(trusted_keys or [])
    pinned = pins()
    pinned.check_keys([k.text for k in keys])
    record = None
    problems: list[str] = []
    ledger_url = None
    first = check_folder(folder, keys, deep=deep, hashed=hashed, lazily=lazily)
    if ledger is not None and first.manifest is not None:
        try:
            record = ledger.get(first.manifest.dataset_id)
            problems += ledger_problems(first.manifest, ledger, signed=first.signed)
            ledger_url = ledger.url
        except LedgerError as error:
            problems.append(f"the ledger cannot be searched: {error}")
    if first.manifest is not None and trusted_keys is None and first.signed:
        # The ledger remembers who signed; a caller who names keys trusts those only.
        recorded = recorded_keys(ledger if record else None, first.manifest.dataset_id)
        ours = known or [PublicKey.of(text) for text in pinned.trusted]
        check_signature(folder, first, pinned.known([*ours, *recorded]))
    problems = list(dict.fromkeys([*first.problems, *problems]))
    if first.signed and not first.signers and not problems:
        ids = ", ".join(k[:16] + "…" for k in first.unknown_keys) or "nobody"
        problems.append(
            f"signed by a key that is not known here ({ids}); name it with --trusted-key KEY.pub"
        )
    if trusted_keys is not None and not first.signed:
        problems.append("not signed, and a signature by a trusted key was asked for")
    credentials = None
    if deep and first.manifest is not None and not problems:
        try:
            source = read_source(folder)
            problems += _content_problems(source, first.manifest)
            paths = [f.path for f in first.manifest.files]
            credentials, wrong = credentials_of(folder, paths, source.tables)
            problems += wrong
        except SourceError as error:
            problems.append(f"its rows cannot be read: {error}")
    if problems or first.manifest is None:
        raise VerificationError([f"{folder}: {p}" if str(folder) not in p else p for p in problems])
    return Verified(
        first.manifest,
        tuple(first.signers),
        ledger_url if record is not None and not record.claimed else None,
        deep,
        credentials,
        first,
    )


def sign(path: str | os.PathLike[str] | Place, key: str | Path, *, ledger: Any = None) -> Verified:
    """Sign a dataset that verifies; a further signature joins those that are there.

    The ledger, when it knows the dataset, remembers the key. Raises: VerificationError,
    UsageError for a key that cannot be used, TargetError when the folder cannot be written.
    """
    folder, signer = place_of(path), SigningKey(key)
    pins().check_keys([signer.public.text])
    books = existing_ledger(ledger)
    check = check_folder(folder)
    manifest = check.manifest
    if manifest is None or check.problems:
        raise VerificationError([f"{folder}: {p}" for p in check.problems])
    if books is not None:
        inspect_folder(folder, ledger=books)
    data = envelope_for(manifest, signer, read_envelope(folder / SIGNATURE_NAME))
    try:
        write_whole(folder / SIGNATURE_NAME, data)
    except OSError as error:
        raise TargetError(f"{folder}: cannot be written ({error.strerror})") from None
    if books is not None and books.get(manifest.dataset_id) is not None:
        books.record(
            "signature", {"dataset_id": manifest.dataset_id, "public_key": signer.public.pem}
        )
    return inspect_folder(folder, [signer.public], ledger=books)


def verify(
    path: str | os.PathLike[str] | Place,
    trusted_keys: Sequence[str | Path | PublicKey] | None = None,
    deep: bool = False,
    *,
    ledger: Any = None,
) -> Manifest:
    """The manifest of a dataset, after every file was checked against it.

    Checks each file's SHA-256, that nothing is extra or missing, the manifest's schema and
    self-digest, the signature when there is one, and the ledger's record of the dataset when there
    is a ledger. `deep` adds Merkle proofs, the logical digest, row counts, and content credentials
    where there are any and c2pa-python is installed. With `trusted_keys` (paths of public keys) an
    unsigned dataset does not verify.

    Raises: VerificationError listing all problems at once; UsageError for an unreadable key.
    """
    books = existing_ledger(ledger)
    try:
        return inspect_folder(path, trusted_keys, deep=deep, ledger=books).manifest
    finally:
        if books is not None and books is not ledger:
            books.close()


def existing_ledger(ledger: Any = None) -> Ledger | None:
    """The ledger, if it is there. A default one that nobody has made yet is None, not made.

    Raises: LedgerError when a ledger was named, or is there, and cannot be opened.
    """
    from safegen.ledger import open_ledger
    from safegen.ledger.places import ledger_place

    named = ledger is not None or bool(os.environ.get("SAFEGEN_LEDGER"))
    usual = ledger_place(None)
    if not named and isinstance(usual, Path) and not os.path.lexists(usual):
        return None
    return open_ledger(ledger, create=False)


def _content_problems(source: Source, manifest: Manifest) -> list[str]:
    """Parse the rows: logical digest and row counts against the manifest."""
    scheme = scheme_of(manifest.logical_digest)
    if scheme is None:
        return ["its logical digest is of a scheme that this version of safegen does not know"]
    problems = []
    digests = {}
    total = 0
    for name, batches in source.tables.items():
        digest, _ = table_digests(batches, also=[scheme])
        digests[name] = digest.value(scheme)
        total += digest.rows
        listed = sum(f.rows or 0 for f in manifest.files if f.table == name)
        if digest.rows != listed:
            problems.append(f"table {name!r} has {digest.rows:,} rows, its files say {listed:,}")
    if total != manifest.rows:
        problems.append(f"{total:,} rows, the manifest says {manifest.rows:,}")
    if combine(digests) != manifest.logical_digest:
        problems.append("the rows differ from the manifest (logical digest)")
    return problems


@dataclass(frozen=True)
class Dataset:
    """A released dataset. `.path`, `.manifest`, and loaders that leave provenance columns out.

    Loaders return the rows of one table. Of related tables choose it: `ds.of("account")`; or take
    all, `{name: ds.of(name).to_pandas() for name in ds.tables}`. `real()` and
    `synthetic()` select rows by origin; `weights()` is the weight column (float32, mean near 1):
    where they differ, use them, or take `resampled()`, whose rows count alike.
    """

    path: Place
    manifest: Manifest
    table: str = TABLE
    _origin: str | None = field(default=None, repr=False)
    _thinned: int | None = field(default=None, repr=False)

    def _rows(self) -> Rows:
        """Its rows, to be read a verified row group at a time."""
        if self.manifest.illustrated:
            raise UsageError("images that are files make no stream: release them as Parquet")
        files = files_of(self.path, self.manifest, self._name(self.tables))
        return Rows(self.manifest, files, self._origin, self._thinned)

    def _warn(self, provenance: bool) -> None:
        """Before rows are handed out whose different weights are lost by that."""
        if self.weighted and not provenance:
            warn_of_weights(self.manifest.dataset_id, str(self.path))

    def _bare(self, provenance: bool) -> Rows:
        self._warn(provenance)
        return self._rows()

    def _columns(self, provenance: bool, columns: Sequence[str] | None = None) -> pa.Table:
        if self.manifest.illustrated:
            whole = read_source(self.path).tables[TABLE].table()
            return chosen(whole, self._origin, self._thinned, provenance)
        return self._rows().table(provenance, columns)

    def _name(self, there: Sequence[str]) -> str:
        """The table that is looked at. Raises: UsageError where one has to be chosen."""
        if self.table == TABLE and len(there) == 1:
            return there[0]
        if self.table not in there:
            raise UsageError(
                f"the dataset has the tables {', '.join(there)}; choose one: ds.of(NAME)"
            )
        return self.table

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of its tables: one, `table`, where it is of no related ones."""
        return tuple(dict.fromkeys(c.table for c in self.manifest.columns))

    def of(self, table: str) -> Dataset:
        """The same dataset, looking at another of its tables."""
        return replace(self, table=table)

    def to_arrow(self, *, provenance: bool = False) -> pa.Table:
        """The rows as an Arrow table; its schema metadata carries the stamp."""
        self._warn(provenance)
        return self._columns(provenance)

    def to_pandas(self, *, provenance: bool = False) -> pd.DataFrame:
        """The rows as a pandas frame; `attrs["safegen"]` carries the stamp through re-saves."""
        return frames.to_pandas(self.to_arrow(provenance=provenance), self.manifest)

    def to_polars(self, *, provenance: bool = False) -> pl.DataFrame:
        """The rows as a polars frame. polars keeps no metadata: hold on to the manifest, and write
        with `safegen.sink`."""
        return frames.to_polars(self.to_arrow(provenance=provenance))

    def to_duckdb(self, connection: Any = None, *, provenance: bool = False) -> Any:
        """The rows as a DuckDB relation, of `connection` or of a new one in memory.

        Raises: MissingExtra without duckdb.
        """
        return frames.to_duckdb(self.to_arrow(provenance=provenance), connection)

    def to_hf(self, *, streaming: bool = False, provenance: bool = False) -> Any:
        """The rows as a Hugging Face `datasets.Dataset`; streaming, as an `IterableDataset` with a
        shard for each row group, which is hashed when it is read. `info.description` carries the
        stamp. Raises: MissingExtra without datasets.
        """
        return frames.to_hf(self._bare(provenance), provenance, streaming)

    def to_ray(self, *, provenance: bool = False) -> Any:
        """The rows as a `ray.data.Dataset`, read in its tasks, each row group hashed there. Ray
        keeps no metadata: hold on to the manifest. Raises: MissingExtra without Ray Data.
        """
        return frames.to_ray(self._bare(provenance), provenance)

    def to_spark(self, session: Any, *, provenance: bool = False) -> Any:
        """The rows as a DataFrame of a Spark session, read in its executors, each row group hashed
        there. The metadata of each column carries the stamp through re-saves.

        Raises: MissingExtra without pyspark; UsageError for a column that Spark has no type for.
        """
        return frames.to_spark(self._bare(provenance), session, provenance)

    def to_torch(
        self,
        batch_size: int = 1024,
        *,
        columns: Sequence[str] | None = None,
        seed: int | None = 7,
        rank: int | None = None,
        world: int | None = None,
    ) -> TorchRows:
        """The rows as batches of tensors, `(features, weights)`, streamed: memory is that of some
        row groups, and each is hashed before it is parsed.

        Shuffled anew each epoch by `seed`; None keeps the order. Of `world` processes each sees a
        share (default: as torch.distributed has it). `safegen.loading.torch.TorchRows` says which
        types columns become, and how to go on after a restart: `state_dict()`.

        Raises: VerificationError, UsageError for images that lie beside the table as files.
        """
        from safegen.loading.torch import TorchRows

        rows = self._rows()
        return TorchRows(
            self.manifest,
            rows.groups,
            rows.kept(),
            weighted=self._thinned is None,
            batch_size=batch_size,
            columns=columns,
            seed=seed,
            rank=rank,
            world=world,
        )

    def real(self) -> Dataset:
        """The rows whose origin is real."""
        return replace(self, _origin="real")

    def synthetic(self) -> Dataset:
        """The rows whose origin is synthetic."""
        return replace(self, _origin="synthetic")

    def resampled(self, seed: int = 7) -> Dataset:
        """A part of the rows, drawn without replacement by their weights, so that all weights are
        1: for training that takes none. All rows, where weights do not differ."""
        return replace(self, _thinned=seed)

    @property
    def weighted(self) -> bool:
        """Whether the rows count differently, so that `weights()` are needed."""
        return self.manifest.weighted and self._thinned is None

    def weights(self) -> np.ndarray[Any, Any]:
        """The rows' weights, float32, in row order. Ask for them before the rows: loaders that
        leave different weights out warn, once, where nobody has."""
        import numpy as np

        weights_asked(self.manifest.dataset_id)
        weights = self._columns(True, [WEIGHT_COLUMN]).column(WEIGHT_COLUMN)
        return np.asarray(weights, dtype=np.float32)

    def depths(self) -> np.ndarray[Any, Any]:
        """The rows' effective depths, float32, in row order."""
        import numpy as np

        depths = self._columns(True, [DEPTH_COLUMN]).column(DEPTH_COLUMN)
        return np.asarray(depths, dtype=np.float32)

    def __str__(self) -> str:
        return f"{self.path}\n{self.manifest}"

    def _repr_html_(self) -> str:
        rows = [("path", str(self.path)), *self.manifest.facts()]
        return html_table("safegen dataset", rows)
