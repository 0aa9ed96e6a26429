"""What a backend, a model and a safeguard must offer. Duck typing: nothing is inherited.

A backend is found through the entry-point group `safegen.backends`, a safeguard through
`safegen.safeguards`. `safegen.testing.check_backend` and `check_safeguard` are the batteries
that say whether yours conforms.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from safegen.errors import BackendError

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.decision import Finding
    from safegen.lineage.facts import SourceFacts
    from safegen.lineage.heads import Listed
    from safegen.measure.drawn import Drawn
    from safegen.measure.gains import Probe
    from safegen.measure.profile import TableProfile, TableTally
    from safegen.policy import RuleParams
    from safegen.tables.schema import TableSchema

__all__ = [
    "Backend",
    "BackendOptions",
    "Kind",
    "Model",
    "Safeguard",
    "Scalar",
    "AdmissionContext",
    "ReleaseContext",
    "adds_images",
    "again",
    "curves_of",
    "doubts_of",
    "identity_of",
    "on_demand",
    "repeats",
    "rests_on",
    "stays_alone",
    "trains_on_gpus",
]

Kind = Literal["table", "tables", "sequences", "images"]
Scalar = str | int | float | bool | None


class BackendOptions(BaseModel):
    """Base of a backend's options: strict, frozen, unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@runtime_checkable
class Model(Protocol):
    """A fitted backend. Sampling never changes it: block i is a pure function of (seed, i).

    A model may also have `curves` (a mapping of names such as `loss` to one number per epoch or
    step, at most 1,000: they go into the manifest's measurements), `reproducible` (False where this
    very model cannot repeat its rows, on a GPU for instance, though its backend can), `alone` (True
    where further processes would each load a copy and gain nothing, on a GPU for instance: then one
    process samples, unless the user asks for more), and `doubts` (texts: why nobody knows what it
    was trained on; the admission gate judges them, and its releases have unverified ancestry). They
    are read through `curves_of`, `repeats`, `doubts_of` and `stays_alone`.
    """

    def sample(
        self,
        rows: int,
        *,
        seed: int,
        block: int,
        conditions: Mapping[str, Scalar] | None = None,
    ) -> dict[str, pa.Table]:
        """Rows of block number `block`, one Arrow table per table name, in the source's schema.

        `rows` counts rows of a table; sequences of a table with a sequence key; and of related
        tables the rows of those that refer to no other. It is at most the backend's `block_rows`;
        fewer rows are a prefix of more. Where conditions are given every row meets them.
        Raises: BackendError when the rows cannot be made (never fewer rows without a word).
        """
        ...

    def save(self, folder: Path) -> None:
        """Write the model into an empty folder. No real rows; no code where that can be avoided."""
        ...


@runtime_checkable
class Backend(Protocol):
    """A generator family. Holds no state; `fit` gives a separate Model.

    A backend may also have `adds_images` (True where it makes images for rows that have none: a
    table without a column of images then gets an empty one, `image`, before `fit`), `doubts` (as a
    model's, where they hold for all its models: they are judged before any training), and
    `identity(options)` (a mapping: what the options mean beyond their text, such as the digest of
    a folder that they name; requests with another one are not the same). One that trains on a GPU
    if there is one has an option `device`, which is `cpu` where it is not to.
    """

    name: ClassVar[str]
    kinds: ClassVar[frozenset[Kind]]
    license: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]  # distributions whose versions go into the manifest
    weights: ClassVar[bool]  # whether rows can carry weights
    conditions: ClassVar[bool]  # whether `sample` takes them; else safegen draws and rejects
    reproducible: ClassVar[bool]
    pickles: ClassVar[bool]  # whether reading a saved model can run code, or opens other files
    block_rows: ClassVar[int]
    Options: ClassVar[type[BackendOptions]]

    def fit(
        self,
        tables: Mapping[str, pa.Table],
        schemas: Mapping[str, TableSchema],
        options: BackendOptions,
        *,
        seed: int,
    ) -> Model:
        """Fit on real rows. Changes neither `tables` nor any global random state.

        Raises: SourceError (data that this family cannot take), BackendError (upstream failed),
        MissingExtra (the library is not installed).
        """
        ...

    def load(self, folder: Path) -> Model:
        """Read what `Model.save` wrote. Called only after every file's digest was checked."""
        ...


class AdmissionContext(Protocol):
    """What a safeguard may look at before training."""

    sources: Sequence[SourceFacts]
    ledger: Mapping[str, object]
    doubts: Sequence[str]  # why nobody knows what the model was trained on
    probe: Probe | None  # of a refit on synthetic rows; None before a fit is under way
    listed: Listed | None  # withdrawals, where the policy names a list of them
    now: datetime  # when the decision is taken, with its time zone


class ReleaseContext(Protocol):
    """What a safeguard may look at before publishing.

    `rows` are all staged rows, over all tables; `units` is what the request counted: rows of a
    table, sequences, or rows of the tables that refer to no other. `real` profiles the real rows
    trained on, and `anchor` is those rows; `held` are real rows that no fit has seen, none where no
    rule asks for them; all three within the conditions, and None when the rows are not at hand.
    `made` is a part of the staged rows, drawn at random, with their weights. `depth` is the
    release's; `signer` the id of the key that will sign it. `credentials`: of its
    images and its files of rows, how many carry a content credential, and how many there are; empty
    where none were made.
    """

    rows: int
    units: int
    conditions: Mapping[str, Scalar]
    schemas: Mapping[str, TableSchema]
    real: Mapping[str, TableProfile] | None
    anchor: Mapping[str, pa.Table] | None
    held: Mapping[str, pa.Table] | None
    made: Mapping[str, Drawn]
    depth: int
    staged: Mapping[str, TableTally]
    in_band: Mapping[str, Mapping[str, int]]
    signer: str | None
    credentials: Mapping[str, tuple[int, int]]
    real_values: bool


@runtime_checkable
class Safeguard(Protocol):
    """One rule's code. It reports findings; the policy decides; the generator enforces.

    For `safegen policy replay`, which takes recorded decisions again under another policy, a
    safeguard may also have `rests_on` (a mapping: the parameters on which each of its checks rests,
    apart from `severity` and `inconclusive`; without it each rests on all), `on_demand` (a mapping:
    checks that are asked only where a parameter says so, and that parameter), and
    `again(finding, before, after)`: all that a recorded finding of the parameters `before` may be
    under `after`, where that follows from what the finding itself says; nothing where it does not.
    Of a finding's parts then those are there whose bounds lie furthest out on either side, of each
    margin and of judged ones and others. They are read through `rests_on`, `on_demand` and `again`;
    `safegen.testing.check_safeguard` holds `again` against findings under both.
    """

    rule: ClassVar[str]

    def admission(self, context: AdmissionContext, params: RuleParams) -> Sequence[Finding]: ...

    def release(self, context: ReleaseContext, params: RuleParams) -> Sequence[Finding]: ...


# ---- what backends, models and safeguards may have -----------------------------------------------


def adds_images(backend: Backend) -> bool:
    """Whether it makes images for rows that have none."""
    return bool(getattr(backend, "adds_images", False))


def identity_of(backend: Backend, options: BackendOptions) -> dict[str, str]:
    """What these options mean beyond their text."""
    identity = getattr(backend, "identity", None)
    return {} if identity is None else {str(k): str(v) for k, v in identity(options).items()}


def doubts_of(source: Backend | Model) -> tuple[str, ...]:
    """Why nobody knows what a model, or every model of a backend, was trained on."""
    return tuple(map(str, getattr(source, "doubts", ())))


def repeats(backend: Backend, model: Model) -> bool:
    """Whether the model gives the same rows again."""
    return backend.reproducible and bool(getattr(model, "reproducible", True))


def stays_alone(model: Model) -> bool:
    """Whether further processes would only load copies of the model."""
    return bool(getattr(model, "alone", False))


def trains_on_gpus(options: BackendOptions) -> bool:
    """Whether a fit with these options takes a GPU if there is one."""
    return getattr(options, "device", "cpu") != "cpu"


def rests_on(safeguard: Safeguard) -> Mapping[str, Sequence[str]] | None:
    """The parameters on which each check rests; None where the safeguard does not say."""
    found: Mapping[str, Sequence[str]] | None = getattr(safeguard, "rests_on", None)
    return found


def on_demand(safeguard: Safeguard) -> Mapping[str, str]:
    """The checks that are not always asked, and the parameter that says whether."""
    found: Mapping[str, str] = getattr(safeguard, "on_demand", {})
    return found


def again(
    safeguard: Safeguard, finding: Finding, before: RuleParams, after: RuleParams
) -> tuple[Finding, ...]:
    """All that a finding of `before` may be under `after`; empty where nobody can tell."""
    judged = getattr(safeguard, "again", None)
    return () if judged is None else tuple(judged(finding, before, after))


def curves_of(model: Model) -> dict[str, list[float]]:
    """The model's training curves, fit for a manifest.

    Raises: BackendError for names other than 1 to 40 of a-z, `_` and `.`, and for anything but at
    most 1,000 finite numbers each.
    """
    try:
        curves = {n: [float(x) for x in v] for n, v in dict(getattr(model, "curves", {})).items()}
        sound = all(
            re.fullmatch(r"[a-z_.]{1,40}", name) and len(v) <= 1_000 and all(map(math.isfinite, v))
            for name, v in curves.items()
        )
    except (TypeError, ValueError, OverflowError):
        sound = False
    if not sound:
        raise BackendError(
            "the model's training curves are not named with 1 to 40 of a-z, _ and ., or are not at "
            "most 1,000 finite numbers each"
        )
    return curves
