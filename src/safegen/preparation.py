"""Steps 1 to 4 of the journey: sources are resolved, admitted, pooled and typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from safegen import gates
from safegen.contracts import Backend, Kind, adds_images, doubts_of
from safegen.decision import Decision
from safegen.errors import SourceError, UsageError
from safegen.gates import Books
from safegen.lineage.depth import child_depth
from safegen.lineage.facts import SourceFacts
from safegen.manifest.model import Ancestry
from safegen.places import absolute
from safegen.policy import Policy
from safegen.reading import Reading, Whole, is_real
from safegen.shaping.drawing import thinned
from safegen.tables.batches import WEIGHT_COLUMN, Batches, sound_weights
from safegen.tables.numbers import taken
from safegen.tables.relations import related
from safegen.tables.schema import (
    Declared,
    TableSchema,
    check_table,
    declared_for,
    infer_schema,
    placed,
    read_declared,
)
from safegen.tables.sources import TABLE, Source, SourceLike
from safegen.tables.splits import split

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from safegen.measure.gains import Probe

__all__ = [
    "FEWEST",
    "Parts",
    "Prepared",
    "aligned",
    "by_weight",
    "illustrated",
    "parted",
    "pooled",
    "prepare",
]


_SEQUENCE = "sequence_key"
FEWEST = 20  # rows on either side of a split, below which nothing can be fitted or judged


@dataclass(frozen=True)
class Parts:
    """The rows of all sources, by table: what is fitted on, and what releases are compared with.

    training: real and synthetic rows, without those held out. anchor: the real ones among them; all
    of `training` where no source is real, which only policies for laboratories admit. held: real
    rows that no fit sees, for the rules that ask for them; without rows where none does. made: the
    training rows that are not real, of sources with synthetic rows. whole: all real rows, where
    these are some that were drawn of them; None where they are all.
    """

    training: Mapping[str, pa.Table]
    anchor: Mapping[str, pa.Table]
    held: Mapping[str, pa.Table]
    made: Mapping[str, pa.Table]
    whole: Whole | None = None

    def real(self, name: str) -> pa.Table:
        """A table's real rows, those held out too."""
        import pyarrow as pa

        return pa.concat_tables([self.anchor[name], self.held[name]])


@dataclass(frozen=True)
class Prepared:
    """Admitted sources with roles. `parts` is None when a model was loaded and its rows are not
    where they were; `held_out` is the share of real rows kept from training; `doubts` say why
    ancestry is unproven; `places` where the sources are, as `read_source` takes them; `probe` what
    a refit on the synthetic rows does, None where nobody asks."""

    facts: tuple[SourceFacts, ...]
    decision: Decision
    schemas: Mapping[str, TableSchema]
    parts: Parts | None
    seed: int
    held_out: float = 0.0
    doubts: tuple[str, ...] = ()
    places: tuple[Any, ...] = ()
    probe: Probe | None = None

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
    held_out: float,
) -> tuple[Prepared, Books]:
    """Resolve, admit, pool, type and part the sources. The books come back as they turned out.
    `backend` says whether rows without images get them, and what nobody knows of its models.
    `held_out` is the share of the real rows to keep from training; of related tables and of
    sequences none are.

    Raises: AdmissionRefused, SourceError; UsageError for a schema that does not fit.
    """
    declared = read_declared(schema)
    reading = Reading.of(sources, **_said(declared))
    _, facts, books = gates.resolve_all(reading.sources, books, keys=gates.trusted(policy))
    _check_different(facts)
    doubts = doubts_of(backend)
    decision = gates.admit(policy, facts, books, doubts)
    decision.enforce()
    opened, facts = reading.drawn(facts, seed)
    each = aligned([by_weight(s, f, seed) for s, f in zip(opened, facts, strict=True)])
    if adds_images(backend):
        each = [illustrated(t) for t in each]
    tables = pooled(each)
    _check_tables(tables)
    declared = placed(declared, tables, TABLE)
    schemas = {n: infer_schema(t, declared_for(declared, n)) for n, t in tables.items()}
    schemas = related(tables, schemas, declared)
    places = tuple(_place(s) for s in opened)
    if not _may_part(schemas):
        held_out = 0.0
    parts = parted(each, facts, schemas, held_out)
    parts = replace(parts, whole=reading.whole(facts, next(iter(each[0].values())).schema))
    return Prepared(tuple(facts), decision, schemas, parts, seed, held_out, doubts, places), books


def _said(declared: Declared) -> dict[str, Any]:
    """What reading in passes has to know of the columns of the one table that it takes."""
    columns = next(iter(declared.values())) if len(declared) == 1 else {}
    return {
        "sequence_key": next((n for n, c in columns.items() if c.get("role") == _SEQUENCE), None),
        "categorical": [n for n, c in columns.items() if c.get("kind") == "categorical"],
    }


def _may_part(schemas: Mapping[str, TableSchema]) -> bool:
    """Whether rows can be taken away one by one: not from sequences and related tables."""
    return len(schemas) == 1 and all(s.sequence_key is None for s in schemas.values())


def parted(
    tables: Sequence[Mapping[str, pa.Table]],
    facts: Sequence[SourceFacts],
    schemas: Mapping[str, TableSchema],
    held_out: float,
) -> Parts:
    """The rows of sources, with what is known of each, parted.

    Raises: SourceError where holding rows out leaves too few, or takes far more than asked for.
    """
    real = [t for t, f in zip(tables, facts, strict=True) if is_real(f)]
    made = [t for t in tables if not any(t is r for r in real)]
    anchor = pooled(real or tables)
    held = {name: table.slice(0, 0) for name, table in anchor.items()}
    if real and held_out:
        ((name, table),) = anchor.items()
        levels = [c.name for c in schemas[name].columns if c.kind in ("categorical", "boolean")]
        found = split(table, held_out, entity=schemas[name].entity, levels=levels)
        least = min(found.anchor.num_rows, found.held.num_rows)
        if least < FEWEST and min(held_out, 1 - held_out) * table.num_rows < 2 * FEWEST:
            raise SourceError(
                f"{table.num_rows:,} real rows are too few to hold {held_out:.0%} of them out of "
                "training, as the policy asks (held_out): give more rows, or use another policy"
            )
        most = min(2 * held_out, (1 + held_out) / 2) * table.num_rows
        if least < FEWEST or found.held.num_rows > most:
            raise SourceError(
                f"{held_out:.0%} of the real rows cannot be held out of training, as the policy "
                f"asks (held_out): equal rows (or those of one entity) stay together, and so "
                f"{found.held.num_rows:,} of {table.num_rows:,} would be; give columns that tell "
                "rows apart, or use another policy"
            )
        anchor, held = {name: found.anchor}, {name: found.held}
        # As many synthetic rows are left out, or the real ones would weigh less than their sources.
        made = [{name: split(t[name], held_out, entity=None).anchor} for t in made]
    training = pooled([anchor, *made]) if real else anchor
    synthetic = pooled(made) if made else {name: t.slice(0, 0) for name, t in anchor.items()}
    return Parts(training, anchor, held, synthetic)


def _check_different(facts: Sequence[SourceFacts]) -> None:
    """Raises: UsageError for one content given twice, in whatever kind of file: real rows would
    count twice beside synthetic ones, and no row of them would be one person's any more."""
    seen: dict[tuple[str, str], str] = {}
    for fact in facts:
        marks = [("digest", fact.logical_digest), *fact.lookups.items()]
        if twin := next((seen[mark] for mark in marks if mark in seen), None):
            raise UsageError(f"{fact.uri} holds the same rows as {twin}: name one of them")
        seen.update(dict.fromkeys(marks, fact.uri))


def _place(source: Source) -> str | dict[str, Any]:
    """A source's place with an absolute path, or its tables' places; in memory there is none."""
    if source.parts:
        return {name: _place(part) for name, part in source.parts.items()}
    place = source.place
    return source.uri if place is None else str(absolute(place))


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


def by_weight(source: Source, fact: SourceFacts, seed: int, *, weighted: bool = False) -> Source:
    """The source; of one synthetic table whose rows have different weights those that stand for
    all, for no backend takes weights, and without them a loop would boost again what was boosted.
    Real rows are kept whatever a column says of them.

    Rows are known by their digest whatever their weights: so these count only where the release's
    own files hold them. weighted: whether more than `fact` says that the rows have some.

    Raises: SourceError for weights anywhere else, or taken off the rows.
    """
    weighted |= fact.weighted
    if not (weighted or (fact.synthetic_share and any(map(_differ, source.tables.values())))):
        return source
    if not fact.as_released or len(source.tables) != 1:
        raise SourceError(
            f"{source.uri}: its rows were released with weights, or have a column of some, and "
            "nothing proves that these are the released ones, for a digest is of the rows alone: "
            "name the release's own folder, as it was published; or keep, of a dataset that was "
            "opened, the rows that count alike: resampled()"
        )
    ((name, batches),) = source.tables.items()
    table = batches.table()
    weights = _weights(table)
    if weights is None:
        raise SourceError(f"{source.uri}: its weights are missing, not above 0, or absurd")
    return replace(source, tables={name: Batches.of(taken(table, thinned(weights, seed)))})


def _differ(batches: Batches) -> bool:
    """Whether a column of weights, as whoever saved it spells it, holds different ones."""
    import numpy as np
    import pyarrow as pa

    table = batches.select([n for n in batches.schema.names if WEIGHT_COLUMN in n.casefold()])
    for column in table.table().columns:
        try:
            weights = np.asarray(column.drop_null().cast(pa.float64()))
        except pa.ArrowException:
            return True
        known = weights[~np.isnan(weights)]
        if len(known) and known.min() != known.max():
            return True
    return False


def _weights(table: pa.Table) -> np.ndarray | None:
    """The weights of a release's rows, (rows,) float64; None where some are none."""
    import numpy as np
    import pyarrow as pa

    if WEIGHT_COLUMN not in table.schema.names or table.column(WEIGHT_COLUMN).null_count:
        return None
    weights = np.asarray(table.column(WEIGHT_COLUMN).cast(pa.float64()))
    return weights if sound_weights(weights) else None


def aligned(sources: Sequence[Source]) -> list[dict[str, pa.Table]]:
    """Each source's rows, by table, in the first one's column order and types, without
    provenance columns."""
    import pyarrow as pa

    names = set(sources[0].tables)
    if any(set(s.tables) != names for s in sources):
        raise SourceError("the sources hold tables of different names")
    found: list[dict[str, pa.Table]] = [{} for _ in sources]
    for name in sources[0].tables:
        parts = [s.tables[name].without_provenance().table() for s in sources]
        first = parts[0]
        if not first.schema.names:
            raise SourceError(f"table {name!r}: it has no columns besides the provenance columns")
        for source, part, kept in zip(sources, parts, found, strict=True):
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
            kept[name] = cast.replace_schema_metadata(None)
    return found


def pooled(tables: Sequence[Mapping[str, pa.Table]]) -> dict[str, pa.Table]:
    """The rows of all sources, one table per name."""
    import pyarrow as pa

    return {name: pa.concat_tables([t[name] for t in tables]) for name in tables[0]}
