"""Steps 1 to 4 of the journey: sources are resolved, admitted, pooled and typed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from safegen import gates
from safegen.contracts import Backend, Kind, adds_images, doubts_of
from safegen.decision import Decision
from safegen.errors import SourceError
from safegen.gates import Books
from safegen.lineage.depth import child_depth
from safegen.lineage.facts import SourceFacts
from safegen.manifest.model import Ancestry
from safegen.policy import Policy
from safegen.tables.batches import Batches
from safegen.tables.relations import related
from safegen.tables.schema import (
    TableSchema,
    check_table,
    declared_for,
    infer_schema,
    placed,
    read_declared,
)
from safegen.tables.sources import TABLE, Source, SourceLike, read_source

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Prepared",
    "illustrated",
    "in_memory",
    "pooled",
    "prepare",
]


@dataclass(frozen=True)
class Prepared:
    """Admitted sources, pooled into one table per name, with roles. `real` is None when a model
    was loaded and its real rows are not where they were; `doubts` say why ancestry is unproven;
    `places` where the sources are, as `read_source` takes them."""

    facts: tuple[SourceFacts, ...]
    decision: Decision
    schemas: Mapping[str, TableSchema]
    real: Mapping[str, pa.Table] | None
    seed: int
    doubts: tuple[str, ...] = ()
    places: tuple[Any, ...] = ()

    @property
    def kind(self) -> Kind:
        if len(self.schemas) > 1:
            return "tables"
        (schema,) = self.schemas.values()
        if schema.sequence_key is not None:
            return "sequences"
        return "images" if any(c.kind == "image" for c in schema.columns) else "table"

    @property
    def effective_depth(self) -> float:
        """Of what a model trained on these sources puts out."""
        return child_depth((s.rows, s.effective_depth) for s in self.facts)

    @property
    def depth(self) -> int:
        return 1 + max(s.depth for s in self.facts)

    @property
    def ancestry(self) -> Ancestry:
        attested = all(s.attested for s in self.facts) and not self.doubts
        return "attested" if attested else "unverified"

    @property
    def lower_bound(self) -> bool:
        return bool(self.doubts) or any(s.depth_is_lower_bound for s in self.facts)


def prepare(
    sources: Sequence[SourceLike],
    policy: Policy,
    books: Books,
    *,
    schema: Any,
    seed: int,
    backend: Backend,
) -> tuple[Prepared, Books]:
    """Resolve, admit, pool and type the sources. The books come back as they turned out.
    `backend` says whether rows without images get them, and what nobody knows of its models.

    Raises: AdmissionRefused, SourceError; UsageError for a schema that does not fit.
    """
    declared = read_declared(schema)
    opened = [in_memory(read_source(s)) for s in sources]
    opened, facts, books = gates.resolve_all(opened, books)
    doubts = doubts_of(backend)
    decision = gates.admit(policy, facts, books, doubts)
    decision.enforce()
    tables = illustrated(pooled(opened)) if adds_images(backend) else pooled(opened)
    _check_tables(tables)
    declared = placed(declared, tables, TABLE)
    schemas = {n: infer_schema(t, declared_for(declared, n)) for n, t in tables.items()}
    schemas = related(tables, schemas, declared)
    places = tuple(_place(s) for s in opened)
    return Prepared(tuple(facts), decision, schemas, tables, seed, doubts, places), books


def _place(source: Source) -> str | dict[str, Any]:
    """A source's place with an absolute path, or its tables' places; in memory there is none."""
    if source.parts:
        return {name: _place(part) for name, part in source.parts.items()}
    uri = source.uri
    return uri if uri == "memory:" or not os.path.exists(uri) else os.path.abspath(uri)


def _check_tables(tables: Mapping[str, pa.Table]) -> None:
    """Raises: SourceError with what is in the way, of every table."""
    problems = []
    for name, table in tables.items():
        try:
            check_table(table, name)
        except SourceError as error:
            problems.append(str(error))
    if problems and len(tables) > 1:
        problems.append(
            "a table can be left out: name the others, NAME=PATH each. What referred to it is "
            "then a plain column"
        )
    if problems:
        raise SourceError("\n".join(problems))


def illustrated(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """The tables; where there is one, without a column of images, with an empty one, `image`.

    So a backend that makes images for a table of prompts has the schema of its output to go by,
    and the gates compare with it. Raises: SourceError when the name is taken.
    """
    import pyarrow as pa

    from safegen.tables.images import IMAGE, is_image

    if len(tables) != 1:
        return dict(tables)
    ((name, table),) = tables.items()
    if any(is_image(type_) for type_ in table.schema.types):
        return {name: table}
    if "image" in table.schema.names:
        raise SourceError("column 'image' holds no images, and images are to be put there: rename")
    return {name: table.append_column("image", pa.nulls(table.num_rows, IMAGE))}


def in_memory(source: Source) -> Source:
    """The source with its rows read once: what is digested is then what is trained on."""
    tables = {n: Batches.of(b.table()) for n, b in source.tables.items()}
    return replace(source, tables=tables)


def pooled(sources: Sequence[Source]) -> dict[str, pa.Table]:
    """The rows of all sources, one table per name, without provenance columns."""
    import pyarrow as pa

    names = set(sources[0].tables)
    if any(set(s.tables) != names for s in sources):
        raise SourceError("the sources hold tables of different names")
    found = {}
    for name in sources[0].tables:
        parts = [s.tables[name].without_provenance().table() for s in sources]
        first = parts[0]
        if not first.schema.names:
            raise SourceError(f"table {name!r}: it has no columns besides the provenance columns")
        aligned = [first.replace_schema_metadata(None)]
        for source, part in zip(sources[1:], parts[1:], strict=True):
            if set(part.schema.names) != set(first.schema.names):
                raise SourceError(
                    f"{source.uri}: its columns differ from those of the first source"
                )
            try:
                cast = part.select(first.schema.names).cast(first.schema)
            except pa.ArrowException:
                raise SourceError(
                    f"{source.uri}: other column types than the first source"
                ) from None
            aligned.append(cast.replace_schema_metadata(None))
        found[name] = pa.concat_tables(aligned)
    return found
