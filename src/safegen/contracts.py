"""What a backend, a model and a safeguard must offer. Duck typing: nothing is inherited.

A backend is found through the entry-point group `safegen.backends`, a safeguard through
`safegen.safeguards`. `safegen.testing.check_backend` and `check_safeguard` are the batteries
that say whether yours conforms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.decision import Finding
    from safegen.lineage.facts import SourceFacts
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
    step, at most 1,000: they go into the manifest's measurements) `reproducible` (False where this
    very model cannot repeat its rows, on a GPU for instance, though its backend can), `alone` (True
    where further processes would each load a copy and gain nothing, on a GPU for instance: then one
    process samples, unless the user asks for more), and `doubts` (texts: why nobody knows what it
    was trained on; its releases then have unverified ancestry).
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
    table without a column of images then gets an empty one, `image`, before `fit`).
    """

    name: ClassVar[str]
    kinds: ClassVar[frozenset[Kind]]
    license: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]  # distributions whose versions go into the manifest
    weights: ClassVar[bool]  # whether rows can carry weights
    conditions: ClassVar[bool]  # whether `sample` takes them; else safegen draws and rejects
    reproducible: ClassVar[bool]
    pickles: ClassVar[bool]  # whether reading a saved model can run code (unpickling does)
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


class ReleaseContext(Protocol):
    """What a safeguard may look at before publishing."""

    rows: int
    conditions: Mapping[str, Scalar]
    schemas: Mapping[str, TableSchema]
    real: Mapping[str, TableProfile] | None
    staged: Mapping[str, TableTally]
    in_band: Mapping[str, Mapping[str, int]]
    signed: bool
    real_values: bool


@runtime_checkable
class Safeguard(Protocol):
    """One rule's code. It reports findings; the policy decides; the generator enforces."""

    rule: ClassVar[str]

    def admission(self, context: AdmissionContext, params: RuleParams) -> Sequence[Finding]: ...

    def release(self, context: ReleaseContext, params: RuleParams) -> Sequence[Finding]: ...
