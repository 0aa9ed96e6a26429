"""The Generator: one dataset's journey, and the only place that composes it.

 1 policy        2 resolve the sources (origin, depth, evidence)      3 admission gate
 4 split where a rule needs it, prepare    5 fit    6 sample a block, tagged at once
 7 shape         8 stage as Parquet, hashing while writing            9 release gate
10 manifest     11 ledger entry, publish                             12 verify, anywhere

No shipped rule shapes (7) or splits (4) in this version; the splitter is `tables.splits`.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from safegen import gates, plugins
from safegen.contracts import Backend, BackendOptions, Kind, Model, Scalar
from safegen.dataset import Dataset, inspect_folder
from safegen.decision import Decision
from safegen.engines.local import sample_blocks
from safegen.errors import (
    SourceError,
    TargetError,
    UsageError,
    VerificationError,
)
from safegen.gates import Books, LedgerLike, load_policy
from safegen.lineage.depth import child_depth
from safegen.lineage.evidence import SourceFacts, resolve
from safegen.manifest import Manifest, SigningKey, digest_of
from safegen.manifest.identity import new_ulid, now
from safegen.manifest.model import Ancestry, ColumnEntry, GeneratorEntry, html_table
from safegen.measure.profile import TableProfile, TableTally, matching
from safegen.models import read_model, write_model
from safegen.policy import Policy
from safegen.progress import progress
from safegen.release import IfExists, Staging, destination, page, staging
from safegen.statements import register
from safegen.tables.batches import Batches
from safegen.tables.schema import TableSchema, check_table, declared_for, infer_schema, read_declared
from safegen.tables.sources import Source, SourceLike, read_source

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Generator"]

MAX_ROWS = 10**12
_SCRATCH_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class _Prepared:
    """Admitted sources, pooled into one table per name, with roles."""

    facts: tuple[SourceFacts, ...]
    decision: Decision
    schemas: Mapping[str, TableSchema]
    real: Mapping[str, pa.Table] | None
    kind: Kind
    seed: int
    doubts: tuple[str, ...] = ()

    @property
    def effective_depth(self) -> float:
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


class Generator:
    """One front door to every backend: `fit` on real data, `generate` verified synthetic data.

    `backend` is a name from `safegen.backends()`; `policy` a shipped policy's name, a path or a
    `Policy`; `options` the backend's options (unknown names are errors); `ledger` a path or URL
    (default: `$SAFEGEN_LEDGER`, else the user's own); `key` the path of an Ed25519 private key
    with which every release is signed.

    Raises: UnknownBackend, PolicyError, UsageError for options that cannot be meant.
    """

    def __init__(
        self,
        backend: str = "sdv.gaussian_copula",
        policy: str | Path | Policy = "baseline",
        *,
        options: Mapping[str, Any] | None = None,
        ledger: LedgerLike = None,
        key: str | Path | None = None,
    ):
        self.policy = load_policy(policy)
        self.backend_name = backend
        self._backend: Backend = plugins.load(plugins.BACKENDS, backend)()
        self.options = _options(self._backend, options or {})
        self._ledger = ledger
        self._key = SigningKey(key) if key is not None else None
        self._prepared: _Prepared | None = None
        self._model: Model | None = None
        self._decision: Decision | None = None

    @cached_property
    def _books(self) -> Books:
        return Books.open(self._ledger)

    # ---- steps 1 to 5 ----------------------------------------------------------------------------

    def fit(
        self,
        source: SourceLike,
        *more_sources: SourceLike,
        schema: Any = None,
        metadata: Any = None,
        seed: int = 7,
    ) -> Generator:
        """Admit the sources under the policy, then fit the backend on them. Gives itself back.

        `schema` gives column roles (a mapping, a YAML path, a `TableSchema`); what is left out is
        inferred and recorded. `metadata` takes an SDV `Metadata` object instead. The same `seed`
        gives the same model. Neither the sources nor any global random state is changed.

        Raises: AdmissionRefused (carries the Decision), SourceError, BackendError, MissingExtra.
        """
        self.prepare(source, *more_sources, schema=schema, metadata=metadata, seed=seed)
        return self.train()

    def prepare(
        self,
        source: SourceLike,
        *more_sources: SourceLike,
        schema: Any = None,
        metadata: Any = None,
        seed: int = 7,
    ) -> Decision:
        """Steps 1 to 4: the admission decision, enforced, and the roles of all columns.

        `fit` is `prepare` and then `train`; take them apart to look before you train.
        """
        if schema is not None and metadata is not None:
            raise UsageError("give schema= or metadata=, not both")
        seed = _seed(seed, "seed")
        declared = read_declared(schema if schema is not None else metadata)
        # 2
        opened = [_in_memory(read_source(s)) for s in (source, *more_sources)]
        opened, facts, books = gates.resolve_all(opened, self._books)
        self._books = books
        # 3
        self._decision = gates.admit(self.policy, facts, books)
        self._decision.enforce()
        # 4
        tables = _pooled(opened)
        schemas = {}
        for name, table in tables.items():
            check_table(table, name)
            schemas[name] = infer_schema(table, declared_for(declared, name))
        kind: Kind = "table" if len(tables) == 1 else "tables"
        if kind not in self._backend.kinds:
            raise UsageError(
                f"{self.backend_name} makes {', '.join(sorted(self._backend.kinds))}; the sources "
                f"hold {len(tables)} tables"
            )
        self._model = None
        self._prepared = _Prepared(tuple(facts), self._decision, schemas, tables, kind, seed)
        return self._decision

    def train(self) -> Generator:
        """Step 5: fit the backend on what `prepare` admitted."""
        prepared = self._ready()
        if prepared.real is None:
            raise UsageError("a loaded model is fitted already")
        self._model = self._backend.fit(
            prepared.real, prepared.schemas, self.options, seed=prepared.seed
        )
        return self

    @classmethod
    def wrap(
        cls,
        synthesizer: Any,
        *,
        trained_on: SourceLike,
        policy: str | Path | Policy = "baseline",
        schema: Any = None,
        ledger: LedgerLike = None,
        key: str | Path | None = None,
    ) -> Generator:
        """A Generator around an SDV synthesizer that you fitted yourself.

        `trained_on` is the data that you say it was fitted on: it is admitted as for `fit`, and
        releases are compared with it. That the model really saw this data, and nothing else,
        cannot be proven, so its releases have `ancestry: unverified` and say why.

        Raises: as `fit`; UsageError when the synthesizer is not fitted or not a single-table one.
        """
        from safegen.backends.sdv.adopted import AdoptedModel

        gen = cls("sdv.adopted", policy, ledger=ledger, key=key)
        gen.prepare(trained_on, schema=schema)
        prepared = gen._ready()
        assert prepared.real is not None
        [(name, table)] = prepared.real.items()
        gen._model = AdoptedModel.adopt(
            synthesizer, name, table, prepared.schemas[name], seed=prepared.seed
        )
        gen._prepared = replace(
            prepared,
            doubts=(
                "the model was adopted: that it was fitted on this source, and on nothing else, "
                "is its owner's word",
            ),
        )
        return gen

    # ---- steps 6 to 12 ---------------------------------------------------------------------------

    def generate(
        self,
        rows: int,
        out: str | os.PathLike[str],
        *,
        seed: int = 11,
        conditions: Mapping[str, Scalar] | None = None,
        if_exists: IfExists = "error",
        workers: int = 1,
        keep_report: bool = True,
    ) -> Dataset:
        """Sample, judge and publish `rows` rows as a dataset folder at `out`.

        The same seed gives the same rows; a shorter request is a prefix of a longer one, and the
        number of `workers` (processes) changes nothing. `conditions` fixes columns to values.
        `if_exists`: `error`; `same` keeps what is there when it is what this call would make;
        `version` writes beside it. A refused release leaves no rows, and with `keep_report` a page
        `<out>.refused.html` with the findings.

        Raises: ReleaseRefused (carries the Decision), TargetError, BackendError, UsageError.
        """
        prepared = self._ready()
        rows, seed = _rows(rows), _seed(seed, "seed")
        conditions = dict(conditions or {})
        self._check_conditions(conditions)
        if not isinstance(workers, int) or workers < 1:
            raise UsageError("workers= is a whole number from 1 on")
        target = destination(out, if_exists)
        request = self._request(rows, seed, conditions)
        if if_exists == "same" and target.exists():
            return self._same(target, request)
        if self._model is None:
            raise UsageError("fit the generator first: gen.fit(source)")
        dataset_id = new_ulid()
        depth = prepared.effective_depth
        stamp = {"dataset_id": dataset_id, "origin": "synthetic", "depth": depth}
        profiles = self._profiles(conditions)
        keys = self._books.ledger.key_epochs() if self._books.ledger is not None else []
        with staging(target, dataset_id=dataset_id, stamp=stamp, depth=depth, keys=keys) as stage:
            stage.tallies = {n: TableTally(p) for n, p in (profiles or {}).items()}
            self._stage(stage, rows, seed, conditions, workers)  # 6, 7, 8
            decision = self._judge(stage, profiles, conditions)  # 9
            if not decision.allowed:
                if keep_report:
                    _report(target, decision)
                decision.enforce()
            digest, lookups = stage.finish()
            manifest = self._manifest(stage, seed, digest, decision, request)  # 10
            stage.describe(manifest, [prepared.decision, decision])
            manifest = stage.seal(
                manifest.model_copy(update={"files": stage.files()}), self._key
            )
            # 11: known to the ledger before it is visible, so that nobody can hold rows that the
            # ledger has never seen.
            register(self._books, manifest, lookups, self._key)
            try:
                path = stage.publish()
            except BaseException:
                self._books.write("unpublished", {"dataset_id": dataset_id})
                raise
        return Dataset(path, manifest)

    def sample(self, rows: int, *, seed: int = 11, **more: Any) -> Dataset:
        """The same release into a scratch folder: for notebooks. Pruned after a week.

        Takes the other arguments of `generate`, and raises what it raises.
        """
        from safegen.ledger.places import cache_folder

        scratch = cache_folder() / "scratch"
        _prune(scratch)
        return self.generate(rows, scratch / new_ulid(), seed=seed, **more)

    def _stage(
        self, stage: Staging, rows: int, seed: int, conditions: dict[str, Scalar], workers: int
    ) -> None:
        assert self._model is not None
        blocks = sample_blocks(
            self._model,
            self.backend_name,
            rows=rows,
            block_rows=self._backend.block_rows,
            seed=seed,
            conditions=conditions or None,
            workers=workers,
        )
        with progress("sampling rows", rows) as advance:
            for tables in blocks:
                stage.write(tables)
                advance(max(t.num_rows for t in tables.values()))

    def _judge(
        self,
        stage: Staging,
        profiles: Mapping[str, TableProfile] | None,
        conditions: Mapping[str, Scalar],
    ) -> Decision:
        prepared = self._ready()
        context = gates.Release(
            rows=stage.rows,
            conditions=conditions,
            schemas=prepared.schemas,
            real=profiles,
            staged=stage.tallies,
            in_band=stage.in_band,
            signed=self._key is not None,
        )
        subject = [f"{stage.rows:,} rows by {self.backend_name} for {stage.target}"]
        decision = gates.release(self.policy, context, self._books, subject, prepared.facts)
        self._decision = decision
        return decision

    def _manifest(
        self, stage: Staging, seed: int, digest: str, decision: Decision, request: str
    ) -> Manifest:
        prepared = self._ready()
        decisions = [prepared.decision, decision]
        warnings = [
            f"{r.finding.name}: {r.finding.observed}" for d in decisions for r in d.warnings
        ]
        claims = []
        if prepared.ancestry == "attested":
            claims = [
                {"definition": "support", "test": f.name, "observed": f.observed}
                for f in decision.findings.values()
                if f.rule == "support" and f.status == "met"
            ]
        return Manifest(
            dataset_id=stage.dataset_id,
            created=now(),
            kind=prepared.kind,
            origin="synthetic",
            ancestry=prepared.ancestry,
            depth=prepared.depth,
            effective_depth=prepared.effective_depth,
            depth_is_lower_bound=prepared.lower_bound,
            rows=stage.rows,
            composition={"synthetic": stage.rows, "real": 0},
            generator=GeneratorEntry(
                backend=self.backend_name,
                license=self._backend.license,
                versions=_versions(("safegen", *self._backend.packages)),
                options=self.options.model_dump(mode="json"),
                seed=str(seed),
                fit_seed=str(prepared.seed),
                reproducible=self._backend.reproducible,
            ),
            sources=[s.entry() for s in prepared.facts],
            columns=[
                ColumnEntry(name=c.name, type=c.type, role=c.role, table=table)
                for table, schema in prepared.schemas.items()
                for c in schema.columns
            ],
            policy={
                "id": self.policy.id,
                "version": self.policy.version,
                "digest": self.policy.digest,
            },
            decisions=[d.to_json() for d in decisions],
            safeguards={
                rule: params.model_dump(mode="json")
                for gate in ("admission", "release")
                for rule, params in self.policy.at(gate).items()  # type: ignore[arg-type]
            },
            measurements=[
                {
                    "name": f.name,
                    "observed": f.observed,
                    "interval": list(f.interval),
                    "n": f.n,
                    "method": f.method,
                }
                for f in decision.findings.values()
                if f.interval is not None
            ],
            claims=claims,
            privacy={"dp": None, "real_rows": 0},
            logical_digest=digest,
            warnings=[*prepared.doubts, *warnings],
            extra={"request": request, "table_rows": dict(stage.table_rows)},
        )

    # ---- models on disk --------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the fitted model to a new folder, with digests and the findings of admission.

        No real rows are in it; like any model it holds levels and quantiles of its data. The
        ledger remembers its digest, so that `load` can tell it from a model that was tampered
        with. Raises: UsageError before `fit`; TargetError when the folder exists.
        """
        prepared = self._ready()
        if self._model is None:
            raise UsageError("fit the generator first: gen.fit(source)")
        document = {
            "backend": self.backend_name,
            "options": self.options.model_dump(mode="json"),
            "kind": prepared.kind,
            "seed": str(prepared.seed),
            "schemas": {n: s.model_dump(mode="json") for n, s in prepared.schemas.items()},
            "facts": [f.to_json() for f in prepared.facts],
            "doubts": list(prepared.doubts),
            "versions": _versions(("safegen", *self._backend.packages)),
        }
        path, digest = write_model(Path(folder), self._model, document)
        if self._books.ledger is not None:
            self._books.ledger.record_model(digest, {"backend": self.backend_name})
        return path

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        *,
        policy: str | Path | Policy = "baseline",
        source: SourceLike = None,
        ledger: LedgerLike = None,
        key: str | Path | None = None,
    ) -> Generator:
        """A saved model, after its files' digests were checked and admission was decided anew.

        What the model says about its sources counts only when the ledger knows the model's
        digest; else its sources are of unknown origin. The real rows that releases are compared
        with are read from where they were, checked by digest; `source` names another place.

        Raises: VerificationError (tampered, or code that no ledger vouches for),
        AdmissionRefused, SourceError (`source` has other content).
        """
        saved = read_model(Path(folder))
        document = saved.document
        gen = cls(
            str(document["backend"]),
            policy,
            options=document["options"],
            ledger=ledger,
            key=key,
        )
        known = (
            gen._books.ledger is not None
            and gen._books.ledger.knows_model(saved.digest) is not None
        )
        if getattr(gen._backend, "pickles", False) and not known:
            raise VerificationError(
                [
                    f"{folder}: this model is a pickle, which runs code when it is read, and the "
                    "ledger does not know its digest; load it where it was saved"
                ]
            )
        facts = [SourceFacts.from_json(f) for f in document["facts"]]
        if not known:
            why = "the ledger does not know this model, so what it says of its sources is unproven"
            facts = [f.untrusted(why) for f in facts]
        gen._decision = gates.admit(gen.policy, facts, gen._books)
        gen._decision.enforce()
        real = gen._find_real(facts, source)
        schemas = {n: TableSchema.model_validate(s) for n, s in document["schemas"].items()}
        gen._model = saved.load(gen._backend)
        gen._prepared = _Prepared(
            tuple(facts),
            gen._decision,
            schemas,
            real,
            document["kind"],
            int(document["seed"]),
            tuple(document["doubts"]),
        )
        return gen

    def _find_real(
        self, facts: Sequence[SourceFacts], source: SourceLike
    ) -> Mapping[str, pa.Table] | None:
        """The real rows, by reference and digest; None when they are not where they were."""
        wanted = [f.logical_digest for f in facts]
        given = source if isinstance(source, list | tuple) else [source]
        places = [f.uri for f in facts] if source is None else list(given)
        found = []
        for place in places:
            try:
                opened = _in_memory(read_source(place))
            except SourceError:
                if source is not None:
                    raise
                return None
            found.append((opened, resolve(opened, None).logical_digest))
        if sorted(d for _, d in found) != sorted(wanted):
            if source is not None:
                raise SourceError("the source given is not what the model was fitted on (digest)")
            return None
        return _pooled([opened for opened, _ in found])

    # ---- small things ----------------------------------------------------------------------------

    @property
    def schemas(self) -> Mapping[str, TableSchema]:
        """The roles of all columns, declared and inferred, by table."""
        return self._ready().schemas

    @property
    def decision(self) -> Decision | None:
        """The last decision that was taken."""
        return self._decision

    def _ready(self) -> _Prepared:
        if self._prepared is None:
            raise UsageError("fit the generator first: gen.fit(source)")
        return self._prepared

    def _check_conditions(self, conditions: Mapping[str, Scalar]) -> None:
        if not conditions:
            return
        if not self._backend.conditions:
            raise UsageError(f"{self.backend_name} cannot take conditions")
        names = {c.name for s in self.schemas.values() for c in s.columns}
        unknown = sorted(set(conditions) - names)
        if unknown:
            raise UsageError(f"conditions name columns that are not there: {', '.join(unknown)}")

    def _profiles(self, conditions: Mapping[str, Scalar]) -> dict[str, TableProfile] | None:
        prepared = self._ready()
        if prepared.real is None:
            return None
        profiles = {}
        for name, table in prepared.real.items():
            here = {k: v for k, v in conditions.items() if k in table.schema.names}
            if here and not matching(table, here).num_rows:
                raise UsageError(
                    f"no real row meets the conditions on {', '.join(here)}; a model can only "
                    "make up such rows, and nothing could be compared with them"
                )
            profiles[name] = TableProfile.of(table, prepared.schemas[name], here)
        return profiles

    def _request(self, rows: int, seed: int, conditions: Mapping[str, Scalar]) -> str:
        """A digest of all that decides which rows come out: the key of `if_exists="same"`."""
        prepared = self._ready()
        return digest_of(
            {
                "backend": self.backend_name,
                "options": self.options.model_dump(mode="json"),
                "versions": _versions(("safegen", *self._backend.packages)),
                "schemas": {n: s.model_dump(mode="json") for n, s in prepared.schemas.items()},
                "sources": [f.logical_digest for f in prepared.facts],
                "fit_seed": str(prepared.seed),
                "seed": str(seed),
                "rows": rows,
                "conditions": {k: repr(v) for k, v in conditions.items()},
                "policy": self.policy.digest,
            }
        )

    def existing(self, rows: int, out: str | os.PathLike[str], *, seed: int = 11, **more: Any) -> (
        Dataset | None
    ):
        """What `generate(..., if_exists="same")` would keep, known before training; else None."""
        target = Path(os.path.abspath(os.fspath(out)))
        conditions = dict(more.get("conditions") or {})
        if not target.exists():
            return None
        return self._same(target, self._request(_rows(rows), _seed(seed, "seed"), conditions))

    def _same(self, target: Path, request: str) -> Dataset:
        verified = inspect_folder(
            target, None if self._key is None else [self._key.public], ledger=self._books.ledger
        )
        if verified.manifest.extra.get("request") != request:
            raise TargetError(
                f"{target} is a dataset, but not the one that this call would make (other source, "
                "options, seed, rows, policy or versions); choose another place"
            )
        return Dataset(target, verified.manifest)

    def _facts(self) -> list[tuple[str, str]]:
        rows = [
            ("backend", f"{self.backend_name} ({self._backend.license})"),
            ("policy", f"{self.policy.id} {self.policy.version}"),
            ("state", "fitted" if self._model is not None else "not fitted"),
        ]
        if self._prepared is not None:
            for table, schema in self._prepared.schemas.items():
                for c in schema.columns:
                    note = f": {c.note}" if c.note else ""
                    name = c.name if len(self._prepared.schemas) == 1 else f"{table}.{c.name}"
                    origin = "inferred" if c.inferred else "declared"
                    rows.append((name, f"{c.type}, {c.kind}, {c.role} ({origin}){note}"))
        return rows

    def __repr__(self) -> str:
        width = max(len(k) for k, _ in self._facts())
        return "\n".join(f"{k:<{width}}  {v}" for k, v in self._facts())

    def _repr_html_(self) -> str:
        return html_table("safegen generator", self._facts())


def _options(backend: Backend, given: Mapping[str, Any]) -> BackendOptions:
    try:
        return backend.Options.model_validate(dict(given))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'options'}: {e['msg']}"
            for e in error.errors(include_input=False, include_url=False)
        )
        known = ", ".join(backend.Options.model_fields)
        raise UsageError(f"{backend.name}: {problems}. Its options: {known or 'none'}") from None


def _seed(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise UsageError(f"{name}= is a whole number from 0 to 2^63 - 1")
    return value


def _rows(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_ROWS:
        raise UsageError(f"rows= is a whole number from 1 to {MAX_ROWS:,}")
    return value


def _in_memory(source: Source) -> Source:
    """The source with its rows read once: what is digested is then what is trained on."""
    tables = {n: Batches.of(b.table()) for n, b in source.tables.items()}
    return replace(source, tables=tables)


def _pooled(sources: Sequence[Source]) -> dict[str, pa.Table]:
    """The rows of all sources, one table per name, without provenance columns."""
    import pyarrow as pa

    names = set(sources[0].tables)
    if any(set(s.tables) != names for s in sources):
        raise SourceError("the sources hold tables of different names")
    pooled = {}
    for name in sources[0].tables:
        parts = [s.tables[name].without_provenance().table() for s in sources]
        first = parts[0]
        if not first.schema.names:
            raise SourceError(f"table {name!r}: it has no columns besides the provenance columns")
        aligned = [first.replace_schema_metadata(None)]
        for source, part in zip(sources[1:], parts[1:], strict=True):
            if set(part.schema.names) != set(first.schema.names):
                raise SourceError(f"{source.uri}: its columns differ from those of the first source")
            try:
                cast = part.select(first.schema.names).cast(first.schema)
            except pa.ArrowException:
                raise SourceError(
                    f"{source.uri}: its column types differ from those of the first source"
                ) from None
            aligned.append(cast.replace_schema_metadata(None))
        pooled[name] = pa.concat_tables(aligned)
    return pooled


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _report(target: Path, decision: Decision) -> None:
    """The findings of a refused release, as a page where the dataset would have been."""
    path = target.with_name(f"{target.name}.refused.html")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page("safegen: release refused", decision._repr_html_()), encoding="utf-8")
    except OSError:
        pass  # the refusal itself is what matters, and it is raised and in the ledger


def _prune(scratch: Path) -> None:
    if not scratch.is_dir():
        return
    for folder in scratch.iterdir():
        try:
            if time.time() - folder.stat().st_mtime > _SCRATCH_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
