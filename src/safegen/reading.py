"""How the sources of a fit are read: as a whole where they fit into memory, else in passes.

The first pass is the one that says what a source is (`lineage.evidence`), and levels are counted
while it goes. The second draws the rows that are fitted on, of each source the same share. A third,
at the release gate, counts in all real rows what the gates hold a release against
(`measure.whole`). Each digests what it reads: a file that has changed in between is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from safegen.errors import SourceError
from safegen.lineage.facts import SourceFacts
from safegen.tables import memory, sampled
from safegen.tables.batches import Batches
from safegen.tables.digesting import table_digests
from safegen.tables.digests import SCHEME, scheme_of
from safegen.tables.sampled import Levels
from safegen.tables.sources import Source, SourceLike, read_source
from safegen.tables.streams import stream

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Reading", "Whole", "is_real"]

_DRAWN = 7_005  # names the stream of the rows that are fitted on


def is_real(facts: SourceFacts) -> bool:
    """Whether releases are compared with a source's rows: nothing shows that any are synthetic."""
    return not facts.synthetic_share and facts.origin in ("real", "unknown")


@dataclass(frozen=True)
class Reading:
    """Opened sources. `levels`: of each one those that are counted when it is first read; None
    where all rows are in memory."""

    sources: Sequence[Source]
    levels: Sequence[Levels] | None = None

    @classmethod
    def of(
        cls,
        sources: Sequence[SourceLike],
        *,
        sequence_key: str | None = None,
        categorical: Collection[str] = (),
        passes: bool | None = None,
    ) -> Reading:
        """Open sources, whose rows are read later in passes or now. sequence_key, categorical:
        columns that are declared so. passes: None for what does not fit into memory.

        Raises: SourceError; for sequences and related tables that do not fit, too.
        """
        opened = [read_source(s) for s in sources]
        if passes is None:
            passes = not memory.fits(b for s in opened for b in s.tables.values())
        if not passes:
            # What is digested is then what is trained on.
            return cls([_with(s, lambda b: Batches.of(b.table())) for s in opened])
        if sequence_key is not None or any(len(s.tables) > 1 for s in opened):
            raise SourceError(
                f"{', '.join(s.uri for s in opened)}: too large to be fitted on as a whole here "
                f"({memory.budget() >> 20:,} MiB are for rows), and of sequences and related "
                "tables safegen draws no part: name a part that hangs together, or fit where there "
                "is more memory"
            )
        levels = [Levels.of(_table(s).schema, frozenset(categorical)) for s in opened]
        counted = [
            _with(s, lambda b, found=found: sampled.counting(b, found))
            for s, found in zip(opened, levels, strict=True)
        ]
        return cls(counted, levels)

    def share(self, facts: Sequence[SourceFacts]) -> list[int]:
        """How many rows of each source are to be drawn: in all as many as fit, a million at most,
        and of each the same share."""
        every = max(sum(f.rows for f in facts), 1)
        size = sum(memory.bytes_of(_table(s)) for s in self.sources) / every
        most = min(sampled.ROWS, int(memory.budget() / max(size, 1)))
        return [max(min(round(most * f.rows / every), f.rows), 1) for f in facts]

    def drawn(
        self,
        facts: Sequence[SourceFacts],
        seed: int,
        before: Sequence[SourceFacts] | None = None,
    ) -> tuple[list[Source], list[SourceFacts]]:
        """The sources with the rows that are fitted on in memory, and what is known of them.
        before: what was when rows of the same sources were drawn for a fit, which are drawn again.

        Raises: SourceError for a source that has changed since it was first read, and for one of
        which other rows would be drawn than before.
        """
        if self.levels is None:
            return [*self.sources], [*facts]
        was = [f.sampled or {} for f in before or ()]
        asked = [int(p["asked"]) for p in was] or self.share(facts)
        schemes = [scheme_of(p["logical_digest"]) or SCHEME for p in was] or [SCHEME] * len(asked)
        found = []
        for number, (source, levels, fact) in enumerate(
            zip(self.sources, self.levels, facts, strict=True)
        ):
            draw = sampled.Draw(
                _table(source).schema,
                levels,
                rows=asked[number],
                of=max(fact.rows, 1),
                seed=int(stream(seed, _DRAWN, number).generate_state(1, np.uint64)[0]),
            )
            _pass(source, fact, draw)
            table = draw.table()
            content, _ = table_digests(Batches.of(table), also=schemes[number : number + 1])
            part = {
                "rows": table.num_rows,
                "of": fact.rows,
                "asked": asked[number],
                "seed": str(seed),
                "method": sampled.METHOD,
                "strata": levels.strata,
                "logical_digest": content.value(schemes[number]),
            }
            if was and was[number]["logical_digest"] != part["logical_digest"]:
                raise SourceError(
                    f"{source.uri}: its rows are those that the model was fitted on, in another "
                    "order or in other types, so that those that were drawn of them cannot be "
                    "drawn again"
                )
            kept = _with(source, lambda _, table=table: Batches.of(table))
            found.append((kept, replace(fact, sampled=part)))
        return [s for s, _ in found], [f for _, f in found]

    def ordered(self, order: Sequence[int]) -> Reading:
        """The same sources in another order."""
        levels = None if self.levels is None else [self.levels[i] for i in order]
        return Reading([self.sources[i] for i in order], levels)

    def whole(self, facts: Sequence[SourceFacts], schema: pa.Schema) -> Whole | None:
        """All real rows, in the columns and types of a schema; None where they are in memory."""
        if self.levels is None:
            return None
        real = [(s, f) for s, f in zip(self.sources, facts, strict=True) if is_real(f)]
        return Whole(tuple(real), schema) if real else None


@dataclass(frozen=True, eq=False)
class Whole:
    """The real rows of sources that do not fit into memory, as often as they are asked for. `found`
    keeps what they came to, by the question: of the rows that were admitted it stays true."""

    sources: Sequence[tuple[Source, SourceFacts]]
    schema: pa.Schema
    found: dict[Any, Any] = field(default_factory=dict, repr=False)

    def show(self, tally: Callable[[pa.RecordBatch], None]) -> None:
        """Let all rows pass, batch by batch, one source after another.

        Raises: SourceError for what has changed, and for types that do not go together.
        """
        for source, fact in self.sources:
            _pass(source, fact, lambda b, uri=source.uri: tally(_cast(b, self.schema, uri)))  # type: ignore[misc]


def _with(source: Source, of: Any) -> Source:
    """The source with other batches for those of each table."""
    return replace(source, tables={n: of(b) for n, b in source.tables.items()})


def _table(source: Source) -> Batches:
    (batches,) = source.tables.values()
    return batches


def _pass(source: Source, fact: SourceFacts, tally: Callable[[pa.RecordBatch], None]) -> None:
    """Let a source's rows pass. Raises: SourceError where they are not those of its facts."""
    rows, _ = table_digests(_table(source), seen=[tally])
    if rows.value() != fact.logical_digest:
        raise SourceError(
            f"{source.uri}: its rows are not those that were admitted: it has changed since it was "
            "first read; let nobody write to it, and start again"
        )


def _cast(batch: pa.RecordBatch, schema: pa.Schema, uri: str) -> pa.RecordBatch:
    import pyarrow as pa

    wanted = pa.schema([f for f in schema if f.name in batch.schema.names])
    try:
        return batch.select(wanted.names).cast(wanted)
    except pa.ArrowException:
        raise SourceError(f"{uri}: other column types than the first source") from None
