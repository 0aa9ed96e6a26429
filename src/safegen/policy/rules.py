"""The rules a policy can set: every parameter once, with type, default, unit and order."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from safegen.policy.params import Gate, Param, RuleParams
from safegen.policy.sections import Digest, Key

__all__ = [
    "ALWAYS_ON",
    "AnchorParams",
    "FidelityParams",
    "LineageParams",
    "ManifestParams",
    "NamedStratum",
    "PrivacyParams",
    "RULES",
    "SchemaParams",
    "SelectionParams",
    "SupportParams",
    "TailsParams",
    "WatermarkParams",
]

Attitude = Literal["allow", "warn", "refuse"]
Need = Literal["optional", "required"]
Inconclusive = Annotated[
    Literal["pass", "warn", "fail"],
    Param(
        "What to make of a test that cannot reach a verdict at this number of rows.",
        unit="choice",
        order="listed",
    ),
]
Share = Annotated[float, Field(ge=0, le=1)]
_ADMISSION: frozenset[Gate] = frozenset({"admission"})
_RELEASE: frozenset[Gate] = frozenset({"release"})


class LineageParams(RuleParams):
    """What training data may be made of.

    The defaults admit what is not known to be synthetic, and warn about the rest: most first
    users hold plain files that nobody has attested yet. `max_synthetic_share` is 1 because
    `max_depth` 0 already refuses any share.
    """

    gates = _ADMISSION
    asks = "Is the training data real, or at most as deep as allowed, and who says so?"

    max_depth: Annotated[
        float,
        Param("Pooled effective depth that training data may have.", unit="models", order="down"),
        Field(ge=0),
    ] = 0.0
    max_synthetic_share: Annotated[
        Share,
        Param(
            "Share of training rows that evidence shows to be synthetic; 1 leaves it to max_depth.",
            unit="share of rows",
            order="down",
        ),
    ] = 1.0
    unattested: Annotated[
        Attitude,
        Param(
            "What to do with data whose origin nobody has attested, and with models of which "
            "nobody knows what they were trained on.",
            unit="choice",
            order="listed",
        ),
    ] = "warn"
    unverified: Annotated[
        Attitude,
        Param(
            "What to do with a dataset whose own ancestry is not proven.",
            unit="choice",
            order="listed",
        ),
    ] = "warn"
    ledger: Annotated[
        Need,
        Param("Whether a searched ledger has to back the finding.", unit="choice", order="listed"),
    ] = "optional"
    search_share: Annotated[
        Share,
        Param(
            "Share of rows of a registered release that a search has to find with a chance of 95 % "
            "before it may say that data is clean.",
            unit="share of rows",
            order="down",
        ),
    ] = 0.05
    withdrawals: Annotated[
        str,
        Param(
            "Where a ledger's signed head lies (`safegen ledger head`), for machines without the "
            "ledger: datasets that it lists as withdrawn are refused. Empty: nowhere.",
            unit="path or URI",
            order="given",
        ),
        Field(max_length=4096),
    ] = ""
    withdrawals_max_age: Annotated[
        float,
        Param("How old that head may be.", unit="hours", order="down"),
        Field(gt=0),
    ] = 24.0
    withdrawals_on_unreachable: Annotated[
        Attitude,
        Param(
            "What to do where it cannot be read, is too old, or is not signed by one of the rule "
            "manifest's trusted_keys.",
            unit="choice",
            order="listed",
        ),
    ] = "warn"


class ManifestParams(RuleParams):
    """What has to travel with the rows, and who has to vouch for it.

    A signature is optional by default, because a key has to exist first; the in-band columns are
    required, because they are what survives when the files beside the rows get lost. Keys are named
    here by themselves and not by a file, so that the policy's digest covers whom it trusts. Content
    credentials (C2PA) are for whoever shows images to others: they take a certificate, and 3 kB an
    image.
    """

    gates = _ADMISSION | _RELEASE
    asks = "Do datasets carry their documents, in-band columns, and signatures that are trusted?"

    signature: Annotated[
        Need,
        Param(
            "Whether manifests have to be signed: of what is released, and of datasets that are "
            "trained on.",
            unit="choice",
            order="listed",
        ),
    ] = "optional"
    trusted_keys: Annotated[
        tuple[Key, ...],
        Param(
            "Public keys whose signatures count, as `safegen key show` prints them; without any, "
            "the keys with which the ledger saw a dataset signed.",
            unit="keys",
            order="fewer",
        ),
        Field(max_length=32),
    ] = ()
    signers: Annotated[
        int,
        Param(
            "How many different keys have to have signed a dataset that is trained on.",
            unit="keys",
            order="up",
        ),
        Field(ge=1, le=32),
    ] = 1
    in_band: Annotated[
        Need,
        Param(
            "Whether every row has to carry its origin, depth and weight.",
            unit="choice",
            order="listed",
        ),
    ] = "required"
    made_under: Annotated[
        tuple[Digest, ...],
        Param(
            "Digests of policies: each dataset that is trained on has to have been made under one "
            "of them, or under one that extends it; without any, under whichever it was.",
            unit="policies",
            order="fewer",
        ),
        Field(max_length=32),
    ] = ()
    c2pa: Annotated[
        Literal["off", "required"],
        Param(
            "Whether every image, and every file of rows, has to carry a content credential.",
            unit="choice",
            order="listed",
        ),
    ] = "off"

    @model_validator(mode="after")
    def _can_be_met(self) -> ManifestParams:
        if len(set(self.trusted_keys)) < len(self.trusted_keys):
            raise ValueError("trusted_keys names a key twice")
        if self.trusted_keys and self.signers > len(self.trusted_keys):
            raise ValueError(
                f"signers is {self.signers}, and trusted_keys names {len(self.trusted_keys)} keys"
            )
        return self


class SchemaParams(RuleParams):
    """How exactly the rows keep the form of their source.

    The default margin of 0.02 lets sampling noise in the null share pass; nothing may lie outside
    the source's range by default, because a generator has no way to know that such a value exists.
    """

    gates = _RELEASE
    asks = "Are columns, types, ranges and missingness those of the source?"

    missing_margin: Annotated[
        Share,
        Param(
            "How far a column's null share may be from the source's (absolute).",
            unit="share of rows",
            order="down",
        ),
    ] = 0.02
    out_of_range: Annotated[
        Share,
        Param(
            "Share of a column's values that may lie outside the source's range or levels.",
            unit="share of values",
            order="down",
        ),
    ] = 0.0
    inconclusive: Inconclusive = "warn"


class SupportParams(RuleParams):
    """Whether parts of the data have vanished.

    A level counts from 30 real rows, below which its share is too uncertain to miss it; a level
    or tail counts as missing only when at least 10 rows of it were expected, where none at all
    has a probability of exp(-10), about 5e-5. The tail of 1 % is the one that early collapse eats.
    Of sequences and related tables, sequences and rows of the root tables are counted, not rows.
    """

    gates = _RELEASE
    asks = "Is every level and tail still there that should show at this number of rows?"

    min_real_rows: Annotated[
        int,
        Param("Real rows from which on a level has to be represented.", unit="rows", order="down"),
        Field(ge=1),
    ] = 30
    min_expected: Annotated[
        float,
        Param(
            "Expected number of rows from which on the absence of a level or tail counts.",
            unit="rows",
            order="down",
        ),
        Field(gt=0),
    ] = 10.0
    # No order: a thinner tail is easier to lose, but needs more rows before its loss can count.
    tail: Annotated[
        float,
        Param(
            "Share of the real rows at each end of a numeric column that is its tail.",
            unit="share of rows",
            order="none",
        ),
        Field(gt=0, le=0.5),
    ] = 0.01
    inconclusive: Inconclusive = "warn"


class FidelityParams(RuleParams):
    """How close the rows are to the source: each margin is what is tolerated of a generator, beyond
    what two samples of one reality differ by chance.

    The margins let good generators pass and stop bad ones. On Adult the copula of this package is
    within 1 % of every column, its mean pair off by 3 to 5 %, its worst by 20 %, and a classifier
    loses .05 of its AUC; SDV's copula as it comes loses .15, its mean pair is off by 30 %. Nothing
    is held out by default: a utility test costs a part of the training rows.
    """

    gates = _RELEASE
    asks = "Are marginals, pairs, tails, rare mass and utility those of the source?"

    column_margin: Annotated[
        Share,
        Param(
            "How far any column may be from the source's: Kolmogorov-Smirnov or total variation.",
            unit="share",
            order="down",
        ),
    ] = 0.05
    pair_margin: Annotated[
        Share,
        Param(
            "How far pairs of columns may be from the source's in the mean: total variation.",
            unit="share",
            order="down",
        ),
    ] = 0.12
    worst_pair: Annotated[
        Share,
        Param(
            "How far any pair of columns may be from the source's: total variation.",
            unit="share",
            order="down",
        ),
    ] = 0.4
    tail_ratio: Annotated[
        float,
        Param(
            "Least mass of a 1 % or 5 % tail, and of all in the mean, over the source's.",
            unit="ratio",
            order="up",
        ),
        Field(gt=0, lt=1),
    ] = 0.8
    tail_upper: Annotated[
        float,
        Param(
            "Largest mass of a 1 % or 5 % tail, and of all in the mean, over the source's.",
            unit="ratio",
            order="down",
        ),
        Field(gt=1),
    ] = 1.25
    rare_mass: Annotated[
        float,
        Param(
            "Least mass of rare levels (at most 1 % of the rows) over the source's, in the mean.",
            unit="ratio",
            order="up",
        ),
        Field(gt=0, lt=1),
    ] = 0.75
    rare_upper: Annotated[
        float,
        Param(
            "Largest mass of rare levels over the source's, in the mean.",
            unit="ratio",
            order="down",
        ),
        Field(gt=1),
    ] = 1.5
    rare_level: Annotated[
        float,
        Param(
            "Least mass of any one rare level over the source's; its inverse is the largest.",
            unit="ratio",
            order="up",
        ),
        Field(gt=0, lt=1),
    ] = 0.5
    utility_drop: Annotated[
        Share,
        Param(
            "How much less AUC a classifier may reach that is trained on made rows, not real ones.",
            unit="AUC",
            order="down",
        ),
    ] = 0.1
    held_out: Annotated[
        float,
        Param(
            "Share of the real rows kept from training, to test utility on; 0: it is not tested.",
            unit="share of rows",
            order="up",
        ),
        Field(ge=0, le=0.5),
    ] = 0.0
    # No order: a smaller one refuses less by chance, but lets less pass as met as well.
    alpha: Annotated[
        float,
        Param(
            "Chance of calling a margin kept that is not; and, over all depths of a loop together, "
            "of calling one broken that is kept.",
            unit="probability",
            order="none",
        ),
        Field(gt=0, lt=0.5),
    ] = 0.05
    inconclusive: Inconclusive = "warn"


class AnchorParams(RuleParams):
    """Whether real rows hold the synthetic ones that training data has beside them.

    One synthetic row per real one at most: bias of a loop then at most doubles. A refit that moves
    the odds of a level or tail away from the real rows by a factor g is stable in a loop only while
    g times the synthetic share is below 1; at 0.9 it would take the loop ten fits to settle. An
    anchor freezes its day: after ten years somebody should look whether it is still reality.
    """

    gates = _ADMISSION
    asks = "Are all real rows kept, and are they enough to hold the synthetic ones?"

    max_synthetic_per_real: Annotated[
        float,
        Param("Synthetic rows per real row in training data.", unit="ratio", order="down"),
        Field(ge=0),
    ] = 1.0
    max_gain: Annotated[
        float,
        Param(
            "Factor by which a refit on the synthetic rows may move odds away from the real ones, "
            "times the share of synthetic rows.",
            unit="ratio",
            order="down",
        ),
        Field(gt=0),
    ] = 0.9
    max_age_days: Annotated[
        int,
        Param(
            "Days since somebody last stated that the real rows are real.",
            unit="days",
            order="down",
        ),
        Field(ge=0),
    ] = 3650
    inconclusive: Inconclusive = "warn"


class SelectionParams(RuleParams):
    """Shapes rows: keeps of each pool of candidates those that give columns and pairs of columns
    the shares of the real rows, by raking. Of sequences, related tables and images every row that
    is drawn is kept.

    Four candidates a row let a cell grow fourfold; more cost as many times the sampling and gain
    little."""

    asks = "Which of several candidate rows is kept?"

    pool: Annotated[
        int,
        Param("Candidates drawn for each row kept.", unit="rows", order="none"),
        Field(ge=2, le=10),
    ] = 4
    calibrate: Annotated[
        bool,
        Param(
            "Whether numeric columns are mapped, rising, to the real marginals (smoothed).",
            unit="choice",
            order="none",
        ),
    ] = False


class NamedStratum(BaseModel):
    """Rows that a policy names: those where a column equals a value, or a number lies strictly
    above one bound, below another, or both."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    column: str = Field(description="The column.")
    equals: str | int | float | bool | None = Field(default=None, description="Its value.")
    above: float | None = Field(default=None, description="What it is above; numbers only.")
    below: float | None = Field(default=None, description="What it is below; numbers only.")

    @model_validator(mode="after")
    def _one_condition(self) -> NamedStratum:
        if (self.equals is None) == (self.above is None and self.below is None):
            raise ValueError("say equals, or above, below or both")
        return self


class TailsParams(RuleParams):
    """Shapes rows: rare regions get more rows than their share, and weights undo it.

    Regions (strata) are fixed on the real rows, in this order: those named here, rare levels of the
    target, rare levels of other columns and of the target with them, and numeric tails. Each gets
    up to `boost` times its share, as long as at most `max_boosted` of all rows are there for a
    boost: at 5 and 0.2 weights have an effective sample size of .84 or more. With the weights of
    `_safegen_weight` every estimate is that of the rows without boosts.
    """

    asks = "Which rare regions get more rows, and which weights undo it?"

    boost: Annotated[
        float,
        Param("How many times its share of rows a rare region may get.", unit="×", order="none"),
        Field(gt=1, le=100),
    ] = 5.0
    max_boosted: Annotated[
        float,
        Param("Share of rows that may be there for a boost.", unit="share of rows", order="none"),
        Field(gt=0, le=0.5),
    ] = 0.2
    min_count: Annotated[
        int,
        Param(
            "Real rows from which on a region is boosted, and rows below which a release names it "
            "as short.",
            unit="rows",
            order="up",
        ),
        Field(ge=1),
    ] = 30
    min_people: Annotated[
        int,
        Param(
            "People (rows, where no column is declared entity) from which on a region is boosted, "
            "unless its columns are declared public.",
            unit="people",
            order="up",
        ),
        Field(ge=1),
    ] = 10
    rare: Annotated[
        Share,
        Param(
            "Largest share of the real rows of a level or tail that counts as rare. Tails go by "
            "whole hundredths: below about 0.009 a number has none.",
            unit="share of rows",
            order="none",
        ),
    ] = 0.01
    strata: Annotated[
        tuple[NamedStratum, ...],
        Param("Regions of your own: a column, and equals, above or below.", unit="—", order="none"),
        Field(max_length=100),
    ] = ()


class WatermarkParams(RuleParams):
    """Shapes rows: of two candidates with the same rarest cell the one is released that the
    ledger's key prefers, so that whoever holds the key knows the rows again (single tables)."""

    asks = "Can rows be recognised after all metadata is lost?"


class PrivacyParams(RuleParams):
    """Whether the rows give real people away.

    A real identifier in the output has no excuse, so it gets the rule's severity; the rest is
    statistics, for which `leaks` can ask less. Copies are measured against those that chance makes:
    certain ones are refused at any share, and 1 % beyond chance can be ruled out in small releases
    of coarse tables too. An area of .55 is what a coin
    tossed by somebody who knows one answer in ten would reach. Ten is the smallest group that
    statistical offices usually show. No real rows are held out by default: they would be missing
    from training.
    """

    gates = _RELEASE
    asks = "Are there copies of real rows or identifiers, membership leaks, or small groups?"

    leaks: Annotated[
        Attitude,
        Param(
            "What to do about copies, near copies, membership leaks and small groups; copied "
            "identifiers are judged by the severity alone.",
            unit="choice",
            order="listed",
        ),
    ] = "refuse"
    copies: Annotated[
        Share,
        Param(
            "Share of copied rows beyond those of chance that has to be ruled out; copies that "
            "are certainly more than chance makes are unmet at any share.",
            unit="share of rows",
            order="down",
        ),
    ] = 0.01
    near_copies: Annotated[
        Share,
        Param(
            "The same for rows closer to a real row than nearly all real rows are to another.",
            unit="share of rows",
            order="down",
        ),
    ] = 0.01
    membership: Annotated[
        float,
        Param(
            "Area under the ROC curve up to which rows trained on may be told from rows held out; "
            "its upper 95 % bound counts, and .5 is chance.",
            unit="area",
            order="down",
        ),
        Field(ge=0.5, le=1),
    ] = 0.55
    held_out: Annotated[
        float,
        Param(
            "Share of the real rows to keep from training, which the membership test needs; 0 "
            "leaves the test out. Of sequences and related tables none are kept.",
            unit="share of rows",
            order="up",
        ),
        Field(ge=0, le=0.5),
    ] = 0.0
    small_group: Annotated[
        int,
        Param("People from which on a level is no small group.", unit="people", order="up"),
        Field(ge=1),
    ] = 10
    small_group_rows: Annotated[
        Share,
        Param(
            "Share of a column's rows that may show levels of small groups; columns declared "
            "public are not asked.",
            unit="share of rows",
            order="down",
        ),
    ] = 0.2
    inconclusive: Inconclusive = "warn"


#: Every built-in rule by name, in the order in which reports show them.
RULES: Mapping[str, type[RuleParams]] = MappingProxyType(
    {
        "lineage": LineageParams,
        "manifest": ManifestParams,
        "schema": SchemaParams,
        "support": SupportParams,
        "fidelity": FidelityParams,
        "anchor": AnchorParams,
        "selection": SelectionParams,
        "tails": TailsParams,
        "watermark": WatermarkParams,
        "privacy": PrivacyParams,
    }
)

#: Rules that no policy may switch off: without them nothing is known about rows that leave.
ALWAYS_ON: tuple[str, ...] = ("lineage", "manifest")
