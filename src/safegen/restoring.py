"""A saved model, prepared again: what of its word counts, and where its real rows are now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from safegen import gates
from safegen.contracts import Backend, adds_images, doubts_of
from safegen.errors import SourceError, UsageError, VerificationError
from safegen.gates import Books
from safegen.lineage.evidence import as_of_now, resolve
from safegen.lineage.facts import SourceFacts
from safegen.measure.gains import Probe
from safegen.models import ModelFolder
from safegen.policy import Policy
from safegen.preparation import Prepared, aligned, by_weight, illustrated, parted, pooled
from safegen.reading import Reading, Whole
from safegen.tables.digests import scheme_of
from safegen.tables.relations import related
from safegen.tables.schema import Column, TableSchema, infer_schema
from safegen.tables.sources import SourceLike

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.ledger import Ledger

__all__ = ["fitted_under", "restored"]


@dataclass(frozen=True)
class _Found:
    """Real rows, by source and table, what is known of each source, and `Parts.whole`."""

    tables: list[dict[str, pa.Table]]
    facts: list[SourceFacts]
    whole: Whole | None


UNJUDGED = ("id", "personal", "image")
"""Kinds whose values are surrogates or invented, or have no distribution to compare."""

_UNKNOWN = "the ledger does not know this model: nobody knows what it was trained on"


def restored(
    saved: ModelFolder, source: SourceLike, policy: Policy, books: Books, backend: Backend
) -> Prepared:
    """What `prepare` gave when the model was fitted, admitted anew.

    Only of a model that the ledger knows is anything believed: its facts, doubts, leave to show
    levels, and places. `source` names another place of the real rows.

    Raises: VerificationError, AdmissionRefused, SourceError, as `Generator.load`.
    """
    document = saved.document
    ledger = books.ledger
    known = ledger is not None and ledger.knows_model(saved.digest) is not None
    if backend.pickles and not known:
        raise VerificationError(
            [
                f"{saved.folder}: reading a model of {backend.name} runs code or opens other "
                "files, and the ledger does not know its digest; load it where it was saved"
            ]
        )
    facts = [SourceFacts.from_json(f) for f in document["facts"]]
    facts = [as_of_now(f, list(document["schemas"]), ledger) for f in facts]
    if not known:  # last, or a digest that a stranger's model names would be proof of its own
        why = "the ledger does not know this model, so what it says of its sources is unproven"
        facts = [replace(f.untrusted(why), sampled=None) for f in facts]
    doubts = doubts_of(backend)
    doubts += tuple(map(str, document["doubts"])) if known else (_UNKNOWN,)
    doubts = tuple(dict.fromkeys((*doubts, *_leniency(document.get("fitted_under"), policy))))
    probe = _probe(saved, known)
    decision = gates.admit(policy, facts, books, doubts, probe)
    decision.enforce()
    # A stranger's document is not to be followed to any place: then only the caller names one.
    places = document["places"] if known and source is None else source
    seed = int(document["seed"])
    schemas = _schemas(saved.folder, document["schemas"])
    found = _rows(facts, schemas, places, seed, ledger, known=known, named=source is not None)
    tables = None if found is None else found.tables
    if tables is not None and adds_images(backend):
        tables = [illustrated(t) for t in tables]
    if not known:
        schemas = {n: _without_public(s) for n, s in schemas.items()}
    held_out = _share(saved.folder, document.get("held_out", 0.0))
    if not known:  # rows that it may have seen must not judge it as if it had not
        held_out = 0.0
    parts = None
    if found is not None and tables is not None:
        if wrong := _differences(schemas, pooled(tables), judged=not known):
            raise VerificationError([f"{saved.folder}: {problem}" for problem in wrong])
        facts = found.facts
        parts = replace(parted(tables, facts, schemas, held_out), whole=found.whole)
    return Prepared(
        tuple(facts),
        decision,
        schemas,
        parts,
        seed,
        held_out,
        doubts,
        tuple(document["places"]) if known else (),
        probe,
    )


def fitted_under(policy: Policy) -> dict[str, Any]:
    """What a saved model keeps of the policy that it was fitted under."""
    told = {"id": policy.id, "version": policy.version, "digest": policy.digest}
    return {**told, "refuses": policy.rule("lineage").severity == "enforce"}


def _leniency(under: Any, policy: Policy) -> tuple[str, ...]:
    """Why a model of a policy that refuses no training data is doubted by one that does: a model
    from the laboratory stays there."""
    if not isinstance(under, dict) or under.get("refuses") is not False:
        return ()
    if policy.rule("lineage").severity != "enforce":
        return ()
    named = f"{under.get('id')} {under.get('version')}"
    return (f"it was fitted under policy {named}, which refuses no training data",)


def _probe(saved: ModelFolder, known: bool) -> Probe:
    """What a refit had shown when the model was fitted."""
    document = saved.document.get("probe")
    if not known:
        return Probe(problem=_UNKNOWN)
    if document is None:
        return Probe(problem="the model was fitted without a probe")
    try:
        return Probe.from_json(document)
    except (TypeError, KeyError, ValueError):
        problem = f"{saved.folder}: its probe is not as this version writes them"
        raise VerificationError([problem]) from None


def _schemas(folder: Path, document: Any) -> dict[str, TableSchema]:
    try:
        return {n: TableSchema.model_validate(s) for n, s in dict(document).items()}
    except (ValidationError, TypeError, ValueError):  # their text quotes the input
        problem = f"{folder}: its schemas are not as this version writes them"
        raise VerificationError([problem]) from None


def _share(folder: Path, value: Any) -> float:
    """The share of real rows that the model was not shown."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise VerificationError([f"{folder}: its held_out is no share"])
    return float(value)


def _rows(
    facts: Sequence[SourceFacts],
    schemas: Mapping[str, TableSchema],
    source: SourceLike,
    seed: int,
    ledger: Ledger | None,
    *,
    known: bool,
    named: bool,
) -> _Found | None:
    """Each source's rows, in the order of `facts`, found by digest; None when they are not where
    the model remembers them. Where some of them were drawn, those are, as a `known` model says.

    Raises: SourceError when the caller `named` a source, and it is not them.
    """
    wanted = [f.logical_digest for f in facts]
    again = known and any(f.sampled for f in facts)
    schemes = [s for s in map(scheme_of, wanted) if s is not None]
    try:
        reading = Reading.of(
            source if isinstance(source, list | tuple) else [source],
            categorical=[c.name for s in schemas.values() for c in s.columns if _declared(c)],
            sequence_key=next((s.sequence_key for s in schemas.values() if s.sequence_key), None),
            passes=again if known else None,
        )
        # Weights are no content: they are to be proven again.
        now = [resolve(s, ledger, also=schemes) for s in reading.sources]
        digests = [next((d for d in f.digests if d in wanted), f.logical_digest) for f in now]
        if sorted(digests) != sorted(wanted):
            raise SourceError("the source given is not what the model was fitted on (digest)")
        # In the order of the fit, however they were named; equal digests are equal rows.
        order = [*map(digests.index, wanted)]
        reading, now = reading.ordered(order), [now[i] for i in order]
        opened, now = reading.drawn(now, seed, facts if again else None)
        ordered = [*zip(opened, now, facts, strict=True)]
        tables = aligned([by_weight(s, n, seed, weighted=f.weighted) for s, n, f in ordered])
        told = [replace(f, sampled=n.sampled) for _, n, f in ordered]
        schema = next(iter(tables[0].values())).schema
        return _Found(tables, told, reading.whole(now, schema))
    except SourceError:
        if named:
            raise
        return None


def _declared(column: Column) -> bool:
    return column.kind == "categorical" and not column.inferred


def _differences(
    schemas: Mapping[str, TableSchema], real: Mapping[str, pa.Table], *, judged: bool
) -> list[str]:
    """What is wrong with a model's schemas, held against the real rows: tables and columns.

    `judged`: nobody vouches for the schemas. Then types must be the same too, and no column may be
    left out of the gates' comparisons (kinds id, personal, image) that inference would judge.
    """
    if set(schemas) != set(real):
        return ["its tables are not those of the real rows"]
    problems = []
    for name, table in real.items():
        types = {c.name: c.type for c in schemas[name].columns}
        found = {f.name: str(f.type) for f in table.schema}
        if sorted(schemas[name].names) != sorted(table.column_names):
            problems.append(f"table {name!r}: its columns are not those of the real rows")
        elif judged and types != found:
            other = [n for n in found if types[n] != found[n]]
            problems.append(f"table {name!r}: other types than the real rows' ({', '.join(other)})")
    if problems or not judged:
        return problems
    inferred = {n: infer_schema(t) for n, t in real.items()}
    # What is declared wrongly in no schema cannot be mended by one: such tables stay unrelated.
    with suppress(SourceError, UsageError):
        inferred = related(real, inferred, {})
    for name, schema in inferred.items():
        kinds = schemas[name].kinds
        hidden = [
            c.name for c in schema.columns if c.kind not in UNJUDGED and kinds[c.name] in UNJUDGED
        ]
        if hidden:
            problems.append(
                f"table {name!r}: the ledger does not know the model, which says that columns are "
                f"not to be judged ({', '.join(hidden)}): load it with the ledger where it was "
                "fitted"
            )
    return problems


def _without_public(schema: TableSchema) -> TableSchema:
    """The schema without leave to show any column's levels."""
    columns = tuple(c.model_copy(update={"public": False}) for c in schema.columns)
    return schema.model_copy(update={"columns": columns})
