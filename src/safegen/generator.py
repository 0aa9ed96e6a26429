"""The Generator: one dataset's journey, and the only place that composes it.

 1 policy        2 resolve the sources (origin, depth, evidence)      3 admission gate
 4 split where a rule needs it, prepare    5 fit    6 sample a block, tagged at once
 7 shape         8 stage as Parquet, hashing while writing            9 release gate
10 manifest     11 ledger entry, publish                             12 verify, anywhere
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from safegen import gates, plugins
from safegen.contracts import (
    Backend,
    BackendOptions,
    Model,
    Scalar,
    curves_of,
    doubts_of,
    identity_of,
    repeats,
)
from safegen.dataset import Dataset, inspect_folder
from safegen.decision import Decision
from safegen.drafting import draft
from safegen.engines.named import EngineName, check_engine, fitting, making
from safegen.engines.parts import ImageForm
from safegen.errors import (
    LedgerError,
    TargetError,
    UsageError,
)
from safegen.fingerprinting import fingerprinted
from safegen.gates import Books, LedgerLike, load_policy
from safegen.lineage.descent import Descent, Node
from safegen.manifest import Manifest, SigningKey
from safegen.manifest.identity import new_ulid
from safegen.manifest.model import GeneratorEntry, html_table
from safegen.measure.gains import Probe
from safegen.measure.profile import TableProfile
from safegen.models import read_model, write_model
from safegen.pages import refusal_report
from safegen.places import Place, absolute, local, place_of
from safegen.policy import Policy
from safegen.policy.organisation import pins
from safegen.preparation import Prepared, prepare
from safegen.probing import due, probed
from safegen.progress import progress
from safegen.recipes import begun, recipe_for, run_of
from safegen.release import IfExists, Staging, scratch_folder
from safegen.reporting import drawn_up
from safegen.requests import Request, checked_count, checked_seed, image_form
from safegen.restoring import fitted_under, restored
from safegen.sampling import Sampling, check_strata
from safegen.statements import register
from safegen.tables.credentials import ContentSigner
from safegen.tables.schema import TableSchema
from safegen.tables.sources import SourceLike
from safegen.targets import destination, is_free, staging

if TYPE_CHECKING:
    from safegen.shaping.shape import Shape
    from safegen.tables.constraints import Constraint

__all__ = ["Generator"]

_KINDS = {
    "table": "one table of rows that do not hang together",
    "tables": "several tables ({}), as files of different columns in a folder are; sdv.hma takes "
    "related ones",
    "sequences": "a column is declared sequence_key; sdv.par takes sequences, and without that "
    "role the rows are taken one by one",
    "images": "a column holds images; diffusion.image takes them",
}


class Generator:
    """One front door to every backend: `fit` on real data, `generate` verified synthetic data.

    `backend` is a name from `safegen.backends()`; `policy` a shipped policy's name, a path or a
    `Policy`; `options` the backend's options (unknown names are errors); `ledger` a path or URL
    (default: `$SAFEGEN_LEDGER`, else the user's own); `key` the path of an Ed25519 private key
    with which every release is signed; where the policy asks for content credentials
    (`manifest: c2pa: required`), its certificate lies beside it as `KEY.crt`.

    Raises: UnknownBackend, PolicyError, UsageError for options that cannot be meant, and for a
    certificate that is needed and not there; MissingExtra.
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
        self._policy = load_policy(policy)
        self.backend_name = backend
        self._backend: Backend = plugins.load(plugins.BACKENDS, backend)()
        self.options = _options(self._backend, options or {})
        self._ledger = ledger
        self._key = SigningKey(key) if key is not None else None
        if self._key is not None:
            pins().check_keys([self._key.public.text])
        self._signer = None
        if key is not None and self.policy.rule("manifest").c2pa == "required":  # type: ignore[attr-defined]
            self._signer = ContentSigner.of(key)
        self._prepared: Prepared | None = None
        self._model: Model | None = None
        self._decision: Decision | None = None
        self._shapes: dict[str, Shape] = {}
        self._saved: str | None = None  # the digest of the model, where it was read from a folder

    @property
    def policy(self) -> Policy:
        """The policy as it is in force here: tightened to what the organisation pins."""
        return self._policy

    @policy.setter
    def policy(self, policy: str | Path | Policy) -> None:
        self._policy = load_policy(policy)

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
        engine: EngineName = "local",
    ) -> Generator:
        """Admit the sources under the policy, then fit the backend on them. Gives itself back.

        `schema` gives column roles (a mapping, a YAML path, a `TableSchema`); what is left out is
        inferred and recorded. `metadata` takes an SDV `Metadata` instead (the object or its
        JSON file, also of SDV 1). The same `seed` gives the same model. Neither the sources nor any
        global random state is changed. `engine="ray"` has a backend that trains on a GPU fitted on
        one of a Ray cluster that is there already; every other fit is made here.

        Raises: AdmissionRefused (carries the Decision), SourceError, BackendError, MissingExtra.
        """
        check_engine(engine)
        self.prepare(source, *more_sources, schema=schema, metadata=metadata, seed=seed)
        return self.train(engine=engine)

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
        return self._prepare(
            (source, *more_sources),
            schema if schema is not None else metadata,
            checked_seed(seed),
            gates.held_out(self.policy),
        )

    def _prepare(
        self, sources: Sequence[SourceLike], schema: Any, seed: int, held_out: float
    ) -> Decision:
        prepared, self._books = prepare(
            sources,
            self.policy,
            self._books,
            schema=schema,
            seed=seed,
            backend=self._backend,
            held_out=held_out,
        )
        self._decision = prepared.decision
        if prepared.kind not in self._backend.kinds:
            raise UsageError(
                f"{self.backend_name} takes {', '.join(sorted(self._backend.kinds))}, and this is "
                f"{prepared.kind}: {_KINDS[prepared.kind].format(', '.join(prepared.schemas))}"
            )
        self._model, self._prepared = None, prepared
        return prepared.decision

    def train(self, *, engine: EngineName = "local") -> Generator:
        """Step 5: fit the backend on what `prepare` admitted.

        Where the policy asks what a refit does to synthetic rows, that is found out first, by a fit
        on these alone. Raises: AdmissionRefused for a loop that would not be stable; UsageError for
        strata that the policy names and the rows cannot have.
        """
        prepared = self._ready()
        if (parts := prepared.parts) is None:
            raise UsageError("a loaded model is fitted already")
        check_engine(engine)
        fit = fitting(engine, self._backend)
        check_strata(self.policy, prepared)
        if prepared.probe is None and due(self.policy, prepared):
            probe = probed(prepared, self._backend, self.options, self.policy, fit)
            prepared = self._prepared = self._admitted(replace(prepared, probe=probe))
        model = fit(parts.training, prepared.schemas, self.options, seed=prepared.seed)
        self._take(model, prepared)
        return self

    def _admitted(self, prepared: Prepared) -> Prepared:
        """What was prepared, judged anew on what is known by now. Raises: AdmissionRefused."""
        self._decision = gates.admit(
            self.policy, prepared.facts, self._books, prepared.doubts, prepared.probe
        )
        return replace(prepared, decision=self._decision.enforce())

    def _take(self, model: Model, prepared: Prepared) -> None:
        """Have this model sampled, once admission was decided on what it alone can say.

        Raises: AdmissionRefused for its doubts; BackendError for curves that are none.
        """
        curves_of(model)
        doubts = tuple(dict.fromkeys((*prepared.doubts, *doubts_of(model))))
        if doubts != prepared.doubts:
            prepared = self._admitted(replace(prepared, doubts=doubts))
        self._model, self._prepared, self._shapes, self._saved = model, prepared, {}, None

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
        """A Generator around a synthesizer of SDV or ctgan that you fitted yourself.

        `trained_on` is the data that you say it was fitted on: it is admitted as for `fit`, and
        releases are compared with it. That the model really saw this data, and nothing else,
        cannot be proven, so its releases have `ancestry: unverified` and say why; a policy that
        refuses unattested data refuses it.

        Raises: as `fit`; UsageError when the synthesizer is not fitted or not a single-table one.
        """
        from safegen.backends.sdv.adopted import AdoptedModel, check_adoptable

        check_adoptable(synthesizer)
        gen = cls("sdv.adopted", policy, ledger=ledger, key=key)
        # It was fitted already, on all of these rows for all we know: none can be held out.
        gen._prepare((trained_on,), schema, 7, held_out=0.0)
        prepared = gen._ready()
        assert prepared.parts is not None
        [(name, table)] = prepared.parts.training.items()
        model = AdoptedModel.adopt(
            synthesizer, name, table, prepared.schemas[name], seed=prepared.seed
        )
        if due(gen.policy, prepared):
            probe = Probe(problem="it was fitted elsewhere, and cannot be fitted again")
            prepared = gen._admitted(replace(prepared, probe=probe))
        gen._take(model, prepared)
        return gen

    # ---- steps 6 to 12 ---------------------------------------------------------------------------

    def generate(
        self,
        rows: int,
        out: str | os.PathLike[str] | Place,
        *,
        seed: int = 11,
        conditions: Mapping[str, Scalar] | None = None,
        if_exists: IfExists = "error",
        workers: int | None = None,
        engine: EngineName = "local",
        resume: bool = False,
        keep_report: bool = True,
        images: ImageForm = "parquet",
    ) -> Dataset:
        """Sample, judge and publish `rows` rows as a dataset folder at `out`: a path, or the URI
        of a folder in an object store (`s3://bucket/folder`, `gs://…`).

        The same seed gives the same rows; a shorter request is a prefix of a longer one, and the
        number of `workers` (processes; None: as many as there are cores, where that is worth their
        start) changes nothing. Nor does `engine="ray"`, which makes them on a Ray cluster: the one
        that this process has joined, that of `$RAY_ADDRESS`, or else one on this machine for as
        long as it takes. `conditions` fixes columns to values.
        `if_exists`: `error`; `same` keeps what is there when it is what this call would make;
        `version` writes beside it. `resume` goes on with what an interrupted or killed run of the
        same call has finished beside `out`, and begins anew where there is nothing. A refused
        release leaves no rows, and with `keep_report` a page `<out>.refused.html` with the
        findings. `images="png"` writes images as PNG files, with the other columns in
        `data/metadata.parquet` (Hugging Face's image folder); the rows are the same.

        Raises: ReleaseRefused (carries the Decision), TargetError, BackendError, UsageError.
        """
        prepared = self._ready()
        request = self._request(rows, seed, conditions, images)
        workers = None if workers is None else checked_count(workers, "workers")
        check_engine(engine)
        target = destination(out, if_exists, images)
        if if_exists == "same" and not is_free(target):
            return self._same(target, request)
        if self._model is None:
            raise UsageError("fit the generator first: gen.fit(source)")
        profiles = request.profiles(prepared, self._tail)
        self._books = self._books.now()
        if missing := self._books.state.get("key_epochs_missing"):
            raise LedgerError(
                f"{len(missing)} key epochs of the ledger have no key here, so that copies of this "
                "release could not be found later: copy its key file from where it was made"
            )
        keys = self._books.ledger.key_epochs() if self._books.ledger is not None else []
        sampling = Sampling(
            self._model,
            self._backend,
            self.policy,
            prepared,
            self.options,
            self._shapes,
            self._books.ledger,
        )
        run = run_of(request, sampling, keys, self._saved)
        dataset_id = (begun(target, run, self._books.ledger) if resume else None) or new_ulid()
        recipe = recipe_for(dataset_id, request, sampling, profiles, keys, images, self._signer)
        with (
            staging(target, dataset_id=dataset_id, recipe=recipe, run=run) as stage,
            making(engine) as sampling.engine,
        ):
            with progress("sampling", request.rows, "rows") as advance:  # 6, 7, 8
                for part in sampling.made(
                    recipe, request.rows, stage.folder, workers=workers, advance=advance
                ):
                    stage.take(part)
            stage.close()
            decision = self._judge(stage, profiles, request)  # 9
            figures = drawn_up(prepared, stage, request, decision, self.policy)
            if not decision.allowed:
                if keep_report:
                    refusal_report(target, [prepared.decision, decision], figures)
                decision.enforce()
            digest, lookups = stage.written.digests()
            manifest = self._draft(stage, request, digest, decision)  # 10
            stage.describe(manifest, figures, self._ancestors(manifest))
            manifest = stage.seal(manifest.model_copy(update={"files": stage.files()}), self._key)
            prints = fingerprinted(stage, request, sampling, prepared, self._books, workers)
            # 11: known to the ledger before it is visible, so that nobody can hold rows that the
            # ledger has never seen.
            register(self._books, manifest, lookups, self._key, prints)
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
        return self.generate(rows, scratch_folder() / new_ulid(), seed=seed, **more)

    def _judge(
        self, stage: Staging, profiles: Mapping[str, TableProfile] | None, request: Request
    ) -> Decision:
        prepared = self._ready()
        parts, written = prepared.parts, stage.written
        context = gates.Release(
            rows=written.rows,
            units=request.rows,
            conditions=request.conditions,
            schemas=prepared.schemas,
            real=profiles,
            anchor=None if parts is None else request.meeting(parts.anchor),
            held=None if parts is None else request.meeting(parts.held),
            made=written.drawn(),
            depth=prepared.depth,
            staged=written.tallies,
            in_band=written.in_band,
            signer=None if self._key is None else self._key.public.id,
            credentials=written.credentials,
            real_values=self.policy.report.real_values,
        )
        subject = [f"{written.rows:,} rows by {self.backend_name} for {stage.place}"]
        decision = gates.release(self.policy, context, self._books, subject, prepared.facts)
        self._decision = decision
        return decision

    def _ancestors(self, manifest: Manifest) -> Node:
        """The tree behind a release that the ledger does not know yet."""
        return Descent(self._books.ledger, [manifest]).ancestors(
            {"dataset_id": manifest.dataset_id}
        )

    def _draft(
        self,
        stage: Staging,
        request: Request,
        digest: str,
        decision: Decision,
    ) -> Manifest:
        assert self._model is not None
        shape, strata = stage.recipe.shape, stage.written.strata
        shaped = {} if shape is None else dict(shape.facts)  # what the rules that shape have done
        if strata is not None:
            shaped["tails"] = strata.facts()
        maker = GeneratorEntry(
            backend=self.backend_name,
            license=self._backend.license,
            versions=self._versions,
            options=self.options.model_dump(mode="json"),
            seed=str(request.seed),
            fit_seed=str(self._ready().seed),
            reproducible=repeats(self._backend, self._model),
        )
        return draft(
            self._ready(), stage, maker, self.policy, decision, digest, request, self._model, shaped
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
            "seed": str(prepared.seed),
            "schemas": {n: s.model_dump(mode="json") for n, s in prepared.schemas.items()},
            "facts": [f.to_json() for f in prepared.facts],
            # Where the real rows are, however the working folder changes. Not in any manifest.
            "places": list(prepared.places),
            "doubts": list(prepared.doubts),
            "fitted_under": fitted_under(self.policy),
            "held_out": prepared.held_out,
            "probe": None if prepared.probe is None else prepared.probe.to_json(),
            "versions": self._versions,
        }
        path, digest = write_model(local(folder, "a model"), self._model, document)
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

        What the model says about itself and its sources counts only when the ledger knows the
        model's digest; else its training and its sources are unknown, and which columns are judged
        is inferred from the real rows. The real rows that releases are compared
        with are read from where they were, checked by digest; `source` names another place.

        Raises: VerificationError (tampered, other columns than the real rows, or `pickles` and no
        ledger vouches for it), AdmissionRefused, SourceError (`source` has other content).
        """
        saved = read_model(local(folder, "a model"))
        document = saved.document
        gen = cls(
            str(document["backend"]),
            policy,
            options=document["options"],
            ledger=ledger,
            key=key,
        )
        prepared = restored(saved, source, gen.policy, gen._books, gen._backend)
        gen._decision = prepared.decision
        gen._take(saved.load(gen._backend), prepared)
        gen._saved = saved.digest
        return gen

    # ---- small things ----------------------------------------------------------------------------

    @cached_property
    def _versions(self) -> dict[str, str]:
        return plugins.versions(("safegen", *self._backend.packages))

    @cached_property
    def _identity(self) -> dict[str, str]:
        return identity_of(self._backend, self.options)

    @property
    def schemas(self) -> Mapping[str, TableSchema]:
        """The roles of all columns, declared and inferred, by table."""
        return self._ready().schemas

    def offered(self) -> list[Constraint]:
        """Constraints that every row of one table obeys, to be given as the option `constraints`.

        Empty where some are given, where the backend takes none, and for related tables and
        sequences.
        """
        from safegen.tables.offered import offered

        prepared = self._ready()
        if prepared.parts is None or getattr(self.options, "constraints", None) != []:
            return []
        if prepared.kind != "table":
            return []
        ((name, table),) = prepared.parts.training.items()
        return offered(table, prepared.schemas[name])

    @property
    def decision(self) -> Decision | None:
        """The last decision that was taken."""
        return self._decision

    @property
    def _tail(self) -> float:
        return float(self.policy.rule("support").tail)  # type: ignore[attr-defined]

    def _ready(self) -> Prepared:
        if self._prepared is None:
            raise UsageError("fit the generator first: gen.fit(source)")
        return self._prepared

    def _request(
        self,
        rows: int,
        seed: int,
        conditions: Mapping[str, Scalar] | None,
        images: ImageForm = "parquet",
    ) -> Request:
        prepared = self._ready()
        form = image_form(images, rows, prepared.schemas)
        if conditions and not self._backend.conditions and prepared.kind not in ("table", "images"):
            raise UsageError(f"{self.backend_name} cannot take conditions")
        made_by = {
            "backend": self.backend_name,
            "options": self.options.model_dump(mode="json"),
            "versions": self._versions,
            "policy": self.policy.digest,
            **({"identity": self._identity} if self._identity else {}),
            **self._watermarked(prepared),
            **form,
        }
        return Request.of(prepared, rows, seed, conditions or {}, made_by)

    def _watermarked(self, prepared: Prepared) -> dict[str, str]:
        """The ledger's key on which rows hang, if they do."""
        marked = prepared.kind == "table" and self.policy.rule("watermark").severity != "off"
        keys = self._books.ledger.key_epochs() if marked and self._books.ledger is not None else []
        return {"watermark": keys[0][0]} if keys else {}

    def check_request(
        self,
        rows: int,
        *,
        seed: int = 11,
        conditions: Mapping[str, Scalar] | None = None,
        images: ImageForm = "parquet",
    ) -> None:
        """Find out before `train` whether `generate` could take these arguments.

        Raises: UsageError, as `generate` would after hours of fitting.
        """
        self._request(rows, seed, conditions, images).profiles(self._ready(), self._tail)

    def existing(
        self, rows: int, out: str | os.PathLike[str] | Place, *, seed: int = 11, **more: Any
    ) -> Dataset | None:
        """What `generate(..., if_exists="same")` would keep, known before training; else None.

        Raises: what that would: TargetError when something else is there, or when nobody knows what
        the backend's models were trained on.
        """
        target = absolute(place_of(out))
        if is_free(target):
            return None
        return self._same(
            target, self._request(rows, seed, more.get("conditions"), more.get("images", "parquet"))
        )

    def _same(self, target: Place, request: Request) -> Dataset:
        if self._ready().doubts:
            raise TargetError(
                f"{target} exists, and what a model of unknown training has made cannot be told by "
                "name; choose another place"
            )
        verified = inspect_folder(
            target, None if self._key is None else [self._key.public], ledger=self._books.ledger
        )
        if verified.manifest.extra.get("request") != request.digest:
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
