"""The cases in a policy file: what its authors expect it to say, written beside what it asks.

    tests:
      - name: a generator's own output is refused
        given: {sources: [{origin: synthetic}]}
        expect: {outcome: refuse, rules: [lineage]}

A case describes sources (the admission gate) or a release, and says what is expected. Cases ask
nothing: they are in neither the effective policy nor its digest. `safegen.trials` runs them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from safegen.errors import PolicyError, Problem
from safegen.policy.document import Node
from safegen.policy.frozen import Frozen
from safegen.policy.params import Gate
from safegen.policy.parsing import parsed
from safegen.policy.rules import RULES
from safegen.policy.sections import Digest, Text
from safegen.policy.wording import did_you_mean, dotted

__all__ = ["Case", "Expected", "Given", "GivenSource", "Outcome", "Placed", "cases", "problems_of"]

Outcome = Literal["refuse", "warn", "admit"]
Statement = Literal["ledger", "file"]
Findings = Annotated[
    Mapping[str, Literal["met", "unmet", "inconclusive", "broken"]], AfterValidator(Frozen)
]

MAX_CASES = 200
_DESCRIBED = {"lineage": "its sources", "manifest": "signed_by, in_band and credentials"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class GivenSource(_Strict):
    """One source of training data, as its evidence would describe it."""

    name: Text | None = Field(default=None, description="What messages call it.")
    origin: Literal["real", "synthetic", "mixed", "unknown"] = Field(
        default="real", description="What its rows are."
    )
    rows: int = Field(default=1000, ge=1, le=10**12, description="Number of rows.")
    stated_in: tuple[Statement, ...] | None = Field(
        default=None,
        description="Where the statement about it is found: in the ledger, in a file beside it (an "
        "attestation, a manifest), or in both, which is the default; [] for nowhere.",
    )
    stated_days_ago: int = Field(
        default=0, ge=0, le=100_000, description="Days since somebody stated that it is real."
    )
    synthetic_share: float | None = Field(
        default=None, gt=0, le=1, description="Share of synthetic rows. Default: 1, of mixed .5."
    )
    depth: int | None = Field(
        default=None, ge=0, le=1000, description="Models behind its deepest row. Default: 1, or 0."
    )
    effective_depth: float | None = Field(
        default=None, ge=0, le=1000, description="Mean depth of its rows. Default: depth × share."
    )
    ancestry: Literal["attested", "unverified"] = Field(
        default="attested", description="Whether it is proven what synthetic rows were made from."
    )
    made_from: tuple[Text, ...] | None = Field(
        default=None,
        description="Names of the real sources behind synthetic rows; a name that no source of the "
        "case has is of one that is not here; [] where nobody knows. Default: those of the case.",
    )
    signed_by: tuple[Text, ...] = Field(
        default=(), description="Keys that signed it: from trusted_keys, or any other name."
    )
    made_under: tuple[Digest, ...] = Field(
        default=(), description="Digests of its policy, and of those that this one extends."
    )
    verifies: bool = Field(default=True, description="Whether its files fit its manifest.")
    withdrawn: bool = Field(default=False, description="Whether it was withdrawn.")
    marks: bool = Field(default=False, description="Whether it has marks of other tools.")

    @model_validator(mode="after")
    def _can_be(self) -> GivenSource:
        synthetic = self.origin in ("synthetic", "mixed")
        if self.origin == "unknown" and self.stated_in:
            raise ValueError("of a source of unknown origin nothing is stated: leave stated_in out")
        if not synthetic and (self.synthetic_share or self.depth or self.effective_depth):
            raise ValueError(f"rows of origin {self.origin} have no depth and no synthetic_share")
        if not synthetic and (self.made_from or self.made_under):
            raise ValueError("made_from and made_under are for synthetic and mixed sources")
        if self.signed_by and not self.manifested:
            raise ValueError("signed_by is for datasets whose manifest is here (stated_in: [file])")
        if synthetic and (self.depth == 0 or self.effective_depth == 0):
            raise ValueError("synthetic rows have a depth above 0")
        if (self.effective_depth or 0) > self.deepest:
            raise ValueError("effective_depth may not be above depth")
        if self.origin == "synthetic" and self.share < 1:
            raise ValueError("where only a share is synthetic, write origin: mixed")
        return self

    @property
    def share(self) -> float:
        usual = {"synthetic": 1.0, "mixed": 0.5}.get(self.origin, 0.0)
        return usual if self.synthetic_share is None else self.synthetic_share

    @property
    def deepest(self) -> int:
        return int(self.share > 0) if self.depth is None else self.depth

    @property
    def mean_depth(self) -> float:
        return self.deepest * self.share if self.effective_depth is None else self.effective_depth

    @property
    def statements(self) -> tuple[Statement, ...]:
        if self.stated_in is not None:
            return self.stated_in
        return () if self.origin == "unknown" else ("ledger", "file")

    @property
    def manifested(self) -> bool:
        """Whether it is a dataset with its manifest."""
        return self.share > 0 and "file" in self.statements


class Given(_Strict):
    """What a gate would be shown: sources before a fit, or else findings about a release."""

    sources: Annotated[tuple[GivenSource, ...], Field(min_length=1, max_length=100)] | None = Field(
        default=None, description="What is trained on: the case is one of the admission gate."
    )
    ledger: Literal["searched", "empty", "unreachable", "without its key"] = Field(
        default="searched", description="The state of the ledger."
    )
    withdrawals: Literal["current", "unreadable"] = Field(
        default="current", description="The list that lineage.withdrawals names, if it names one."
    )
    model: Literal["fitted here", "unknown"] = Field(
        default="fitted here", description="Whether it is known what else the model has seen."
    )
    findings: Findings = Field(
        default_factory=dict,
        validate_default=True,
        description="What rules found that look at rows, by rule/check; what is left out is met.",
    )
    lowered: Findings = Field(
        default_factory=dict,
        validate_default=True,
        description="What the same rules find with the values that waivers lower them to, where "
        "that is not as in findings.",
    )
    trained_on: tuple[Text, ...] = Field(
        default=(),
        max_length=100,
        description="Names, or dataset ids, of what a release was trained on, for waivers' scope.",
    )
    signed_by: tuple[Text, ...] = Field(
        default=(), max_length=1, description="The key that signs the release."
    )
    in_band: bool = Field(default=True, description="Whether each released row says what it is.")
    credentials: bool = Field(
        default=True, description="Whether each file and image released has a content credential."
    )

    @property
    def gate(self) -> Gate:
        return "release" if self.sources is None else "admission"

    @model_validator(mode="after")
    def _of_one_gate(self) -> Given:
        admission = {"ledger", "withdrawals", "model"}
        release = {"trained_on", "signed_by", "in_band", "credentials"}
        wrong = admission if self.sources is None else release
        if found := sorted(wrong & self.model_fields_set):
            other = "needs sources" if self.sources is None else "is of a release, without sources"
            raise ValueError(f"{found[0]} {other}")
        if odd := sorted(set(self.lowered) - set(self.findings)):
            raise ValueError(f"lowered has {odd[0]}, which findings has not")
        names = [s.name for s in self.sources or () if s.name]
        if len(set(names)) < len(names):
            raise ValueError("two sources have one name")
        return self


class Expected(_Strict):
    """The outcome, and the rules (or rule/check) that refuse or warn: these and no others."""

    outcome: Outcome = Field(description="refuse, warn (admitted, with a warning) or admit.")
    rules: tuple[Text, ...] | None = Field(
        default=None, description="Which rules refuse, or warn: exactly these."
    )

    @model_validator(mode="after")
    def _says_something(self) -> Expected:
        if self.outcome == "admit" and self.rules:
            raise ValueError("where nothing refuses or warns no rule does: leave rules out")
        if self.outcome != "admit" and self.rules == ():
            raise ValueError("name the rules, or leave rules out")
        return self


class Case(_Strict):
    """One case: what is given, and what the policy is expected to say."""

    name: Text = Field(description="What the case shows, in a phrase.")
    today: date | None = Field(
        default=None, description="The day of the decision, for waivers. Default: the day it runs."
    )
    given: Given = Field(description="What the gate is shown.")
    expect: Expected = Field(description="What the policy is expected to say.")


class Placed(BaseModel):
    """A case, the file it stands in, and the lines of it and of what it expects."""

    model_config = ConfigDict(frozen=True)

    case: Case
    file: str
    line: int
    expects: int


def cases(path_or_name: str | Path, known: Collection[str] = RULES) -> list[Placed]:
    """The cases of a policy file or shipped policy. `known`: the rules that may be named.

    Raises: PolicyError with every problem of the cases, each with file and line.
    """
    from safegen.policy.document import read
    from safegen.policy.load import _locate

    path, label = _locate(path_or_name)
    root, _ = read(path, label)
    found, problems = _read(root, label, known)
    if problems:
        raise PolicyError(problems)
    return found


def problems_of(root: Node, label: str, known: Collection[str]) -> list[Problem]:
    """What is wrong with the cases in a document. `known`: the rules that they may name."""
    return _read(root, label, known)[1]


def _read(root: Node, label: str, known: Collection[str]) -> tuple[list[Placed], list[Problem]]:
    found: list[Placed] = []
    problems: list[Problem] = []

    def say(message: str, place: tuple[str | int, ...]) -> None:
        node = root.at(place)
        if node.usable:
            problems.append(Problem(message, label, node.line))

    top = root.content.get("tests") if isinstance(root.content, dict) else None
    if top is None:
        return [], []
    if not isinstance(top.content, list):
        say("tests has to be a list of cases", ("tests",))
        return [], problems
    if len(top.content) > MAX_CASES:
        say(f"tests has more than {MAX_CASES} cases", ("tests",))
        return [], problems
    names: dict[str, int] = {}
    for number, node in enumerate(top.content):
        place = ("tests", number)
        if not isinstance(node.content, dict):
            say(f"{dotted(place)} has to be a mapping of name, given and expect", place)
            continue
        case, wrong = parsed(Case, node.content, place)
        if case is not None:
            unknown = [((*place, *path), message) for path, message in _unknown(case, known)]
            wrong = [(f"{dotted(path)}: {message}", path) for path, message in unknown]
        for message, path in wrong:
            say(message, path)
        if case is None or wrong:
            continue
        if (first := names.setdefault(case.name, number)) != number:
            line = top.content[first].line
            say(f"{dotted(place)}: the case on line {line} has the same name", (*place, "name"))
            continue
        expects = root.at((*place, "expect")).line
        found.append(Placed(case=case, file=label, line=node.line, expects=expects))
    return found, problems


def _unknown(case: Case, known: Collection[str]) -> Iterable[tuple[tuple[str | int, ...], str]]:
    """Names in a case that are those of no rule, or of one that decides at the other gate."""
    gate = case.given.gate
    for name in case.given.findings:
        rule, _, check = name.partition("/")
        where = ("given", "findings", name)
        if rule not in known:
            yield where, f"unknown rule {rule!r}, {did_you_mean(rule, known)}"
        elif rule in _DESCRIBED or (rule == "anchor" and check != "gain"):
            by = _DESCRIBED.get(rule, "its sources")
            yield where, f"{rule} is judged by {by}: describe them instead"
        elif rule in RULES and not RULES[rule].gates:
            yield where, f"{rule} shapes rows, and finds nothing"
        elif rule in RULES and gate not in RULES[rule].gates:
            need = "needs sources" if gate == "release" else "is of a release, without sources"
            yield where, f"a finding of {rule} {need}"
    for number, name in enumerate(case.expect.rules or ()):
        rule = name.partition("/")[0]
        if rule not in known:
            yield ("expect", "rules", number), f"unknown rule {rule!r}, {did_you_mean(rule, known)}"
