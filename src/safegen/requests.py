"""What a caller asks of a fitted generator: rows, seed, conditions, checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from safegen.errors import UsageError
from safegen.manifest import digest_of
from safegen.measure.profile import TableProfile, profiles
from safegen.measure.whole import WholeTally
from safegen.preparation import Prepared
from safegen.tables.image_folders import FILE_NAME
from safegen.tables.matching import matching
from safegen.tables.schema import TableSchema
from safegen.tables.sources import MAX_FILES, TABLE

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.contracts import Scalar

__all__ = ["Request", "checked_count", "checked_seed", "image_form"]

MAX_ROWS = 10**12


@dataclass(frozen=True)
class Request:
    """A checked request. `digest` covers all that decides which rows come out, so that an equal
    digest means an equal dataset: the key of `if_exists="same"`."""

    rows: int
    seed: int
    conditions: dict[str, Scalar]
    digest: str

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        rows: Any,
        seed: Any,
        conditions: Mapping[str, Scalar],
        made_by: Mapping[str, Any],
    ) -> Request:
        """Raises: UsageError for rows, a seed or conditions that cannot be meant."""
        rows = checked_count(rows, "rows")
        # numpy's scalars too: workers and digests take plain ones.
        conditions = {k: getattr(v, "item", lambda v=v: v)() for k, v in conditions.items()}
        seed = checked_seed(seed)
        names = {c.name for s in prepared.schemas.values() for c in s.columns}
        unknown = sorted(set(conditions) - names)
        if unknown:
            raise UsageError(f"conditions name columns that are not there: {', '.join(unknown)}")
        digest = digest_of(
            {
                **made_by,
                "schemas": {n: s.model_dump(mode="json") for n, s in prepared.schemas.items()},
                "sources": [f.logical_digest for f in prepared.facts],
                **({"sampled": parts} if (parts := _sampled(prepared)) else {}),
                "fit_seed": str(prepared.seed),
                "held_out": prepared.held_out,
                "seed": str(seed),
                "rows": rows,
                "conditions": {k: repr(v) for k, v in conditions.items()},
            }
        )
        return cls(rows, seed, dict(conditions), digest)

    def decoys(self, rows: int, key: bytes) -> Request:
        """A request for other rows like these, which nobody without the key can draw: they are
        never released, and say how often chance meets rows of the model."""
        named = hashlib.blake2b(self.digest.encode(), key=key, digest_size=8, person=b"decoys")
        return replace(self, rows=rows, seed=int.from_bytes(named.digest(), "little") >> 1)

    def meeting(self, tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
        """The rows that meet the conditions, each table's those on columns that it has."""
        return {
            name: matching(t, {k: v for k, v in self.conditions.items() if k in t.schema.names})
            for name, t in tables.items()
        }

    def profiles(self, prepared: Prepared, tail: float) -> dict[str, TableProfile] | None:
        """The real rows within the conditions, by table; None when the real rows are not here.

        Raises: UsageError when no real row meets the conditions.
        """
        if prepared.parts is None:
            return None
        # Held-out rows are real too: what a split took from training altogether is missed here.
        anchor = {name: prepared.parts.real(name) for name in prepared.parts.anchor}
        found = profiles(anchor, prepared.schemas, self.conditions, tail)
        if (whole := prepared.parts.whole) is not None:
            asked = repr(sorted(self.conditions.items())), tail
            if asked not in whole.found:
                ((name, schema),) = prepared.schemas.items()
                tally = WholeTally(found[name], schema, self.conditions)
                whole.show(tally)
                whole.found[asked] = {name: tally.profile()}
            found = whole.found[asked]
        for name, table in anchor.items():
            here = [k for k in self.conditions if k in table.schema.names]
            if here and not found[name].rows:
                raise UsageError(
                    f"no real row meets the conditions on {', '.join(here)}; a model can only "
                    "make up such rows, and nothing could be compared with them"
                )
            if here and not matching(table, {k: self.conditions[k] for k in here}).num_rows:
                raise UsageError(
                    f"none of the {table.num_rows:,} real rows that were drawn for the fit meets "
                    f"the conditions on {', '.join(here)}: fit on those rows alone"
                )
        return found


def _sampled(prepared: Prepared) -> list[str]:
    """The digests of the rows that were fitted on, where they are some of the sources'."""
    return [str(f.sampled["logical_digest"]) for f in prepared.facts if f.sampled is not None]


def image_form(images: Any, rows: Any, schemas: Mapping[str, TableSchema]) -> dict[str, str]:
    """What a request says of the form of its images: nothing where it is the usual one.

    Raises: UsageError for another form, and for `png` where no folder of images can be made.
    """
    if images == "parquet":
        return {}
    if images != "png":
        raise UsageError(f"images= is parquet or png, not {images!r}")
    kinds = [kind for schema in schemas.values() for kind in schema.kinds.values()]
    if list(schemas) != [TABLE] or kinds.count("image") != 1:
        raise UsageError(
            "images=png is for one table, without a name of its own, with one column of images"
        )
    if FILE_NAME in schemas[TABLE].names:
        raise UsageError(
            f"images=png writes a column {FILE_NAME!r} of its own: rename yours, or say "
            "images=parquet"
        )
    if checked_count(rows, "rows") >= MAX_FILES:  # the table of the rest is a file too
        raise UsageError(f"images=png writes fewer than {MAX_FILES:,} images: say images=parquet")
    return {"images": images}


def checked_count(value: Any, name: str) -> int:
    """A number of rows or of processes. Raises: UsageError for what is not one."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_ROWS:
        raise UsageError(f"{name}= is a whole number from 1 to {MAX_ROWS:,}")
    return value


def checked_seed(value: Any) -> int:
    """A seed. Raises: UsageError for anything but a whole number below 2^63."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise UsageError("seed= is a whole number from 0 to 2^63 - 1")
    return value
