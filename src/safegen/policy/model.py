"""The policy itself: what a file says once every default is in place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import rfc8785
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from safegen.errors import UsageError
from safegen.policy.frozen import Frozen
from safegen.policy.params import GATES, Gate, RuleParams, Section
from safegen.policy.rules import ALWAYS_ON, RULES
from safegen.policy.sections import SECTIONS, Approvals, Digest, Report, Text
from safegen.policy.waiver import Waiver
from safegen.policy.wording import did_you_mean, said

__all__ = [
    "SCHEMA",
    "Ancestor",
    "Header",
    "Origin",
    "Place",
    "Policy",
    "conflicts",
    "idle",
    "is_locked",
]

SCHEMA = "safegen.policy/v1"

Origin = tuple[str, int]  # file and line
Place = tuple[str | int, ...]  # keys and list positions, from the top of the document


Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$")]


class Ancestor(BaseModel):
    """A policy that another one extends, or that an organisation puts under it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Id
    version: Version
    digest: Digest


class Header(BaseModel):
    """The part of a policy that is not rules: who it is, whom to ask, what holds for all of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Id = Field(description="The policy's name in manifests and decisions.")
    version: Version = Field(
        description="The policy's version, as text; raise it with every change."
    )
    description: Text = Field(description="What the policy is for, in a sentence.")
    contact: Text = Field(description="Whom to ask; every refusal quotes it.")
    owner: Text | None = Field(default=None, description="Who answers for the policy.")
    report: Report = Field(default=Report(), description="What reports may show.")
    approvals: Approvals = Field(default=Approvals(), description="Which waivers count.")


def _complete(rules: Mapping[str, RuleParams]) -> Mapping[str, RuleParams]:
    """Every built-in rule, those left out as `off`, in report order; then the plugged-in ones."""
    built_in = {name: rules.get(name) or rule(severity="off") for name, rule in RULES.items()}
    return Frozen({**built_in, **{name: rules[name] for name in sorted(set(rules) - set(RULES))}})


class Policy(Header):
    """Rules with every parameter materialised, and whom to ask. Frozen; equal iff digests are.

    `rules` always holds every built-in rule (off where the file leaves it out). `extends` lists the
    policies that it builds on, the nearest first, and the floors that an organisation puts under
    it. `locked` are the paths (a rule, a section, or one parameter: "lineage.max_depth") that a
    policy which extends this one may only tighten. `origins` maps (rule or section, parameter) to
    (file, line) for each value that a file sets; it tells people where to look, and is part of
    neither equality nor digest.

    Raises: pydantic.ValidationError when built from parts that contradict each other; a policy
    from a file comes through `Policy.load`, which raises PolicyError with file and line.
    """

    rules: Annotated[Mapping[str, SerializeAsAny[RuleParams]], AfterValidator(_complete)]
    waivers: tuple[Waiver, ...] = ()
    extends: tuple[Ancestor, ...] = ()
    locked: tuple[Text, ...] = ()
    origins: Annotated[Mapping[tuple[str, str], Origin], AfterValidator(Frozen)] = Field(
        default=Frozen(), exclude=True, repr=False
    )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Policy:
        if found := [message for _, message in conflicts(self.parts, self.waivers, self.locked)]:
            raise ValueError("; ".join(found))
        return self

    @staticmethod
    def load(path_or_name: str | Path) -> Policy:
        """A policy from a file, or a shipped one by its bare name ("baseline").

        A Path, and any text that ends with .yaml or .yml or has a path separator, is a file.
        Raises: PolicyError with every problem at once, each with file and line; for an unknown
        name, with the shipped names and the nearest of them.
        """
        from safegen.policy.load import load

        return load(path_or_name)

    @staticmethod
    def shipped() -> tuple[str, ...]:
        """The names of the policies that come with safegen, sorted."""
        from safegen.policy.load import shipped

        return tuple(shipped())

    @property
    def digest(self) -> str:
        """ "sha256:" and the hex digest of the RFC 8785 bytes of `effective()`."""
        # Computed each time: a cached value would survive model_copy(update=…) and then lie.
        return f"sha256:{hashlib.sha256(rfc8785.dumps(self.effective())).hexdigest()}"

    def effective(self) -> dict[str, Any]:
        """The policy as JSON values, all defaults in place: exactly what the digest covers.

        A rule that is off and otherwise at its defaults is not in it, and neither are `approvals`,
        `extends` and `locked` that say nothing. Leaving a rule out of the file and writing
        `severity: off` is therefore the same policy, and a later version of safegen with more rules
        gives the same digest.
        """
        body = self.model_dump(mode="json")
        for name in ("approvals", "extends", "locked"):
            if getattr(self, name) == type(self).model_fields[name].default:
                del body[name]
        unused = [name for name, rule in self.rules.items() if rule == type(rule)(severity="off")]
        rules = {name: body["rules"][name] for name in self.rules if name not in unused}
        return {"schema": SCHEMA, **body, "rules": rules}

    @property
    def parts(self) -> dict[str, Section]:
        """Every rule, and the sections beside them, by the name that paths have for it."""
        return {**self.rules, **{name: getattr(self, name) for name in SECTIONS}}

    def rule(self, name: str) -> RuleParams:
        """A rule's parameters; severity off where the file leaves it out.

        Raises: UsageError for a name that is neither built in nor in this policy.
        """
        if name not in self.rules:
            raise UsageError(
                f"no rule {name!r} in policy {self.id}, {did_you_mean(name, self.rules)}"
            )
        return self.rules[name]

    def at(self, gate: Gate) -> dict[str, RuleParams]:
        """The rules that decide at a gate and are not off, in report order.

        Raises: UsageError for a gate that does not exist (an empty answer would admit everything).
        """
        if gate not in GATES:
            raise UsageError(f"no gate {gate!r}, {did_you_mean(str(gate), GATES)}")
        return {
            name: rule
            for name, rule in self.rules.items()
            if gate in rule.gates and rule.severity != "off"
        }

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Policy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Policy({self.id} {self.version}, {self.digest[:19]}…)"

    __str__ = __repr__


def is_locked(locked: Iterable[str], part: str, parameter: str) -> bool:
    """Whether paths lock a parameter. Where anything is locked, so is who may approve exceptions:
    a lock that anybody can waive is none."""
    paths = set(locked)
    return part in paths or f"{part}.{parameter}" in paths or (part == "approvals" and bool(paths))


def conflicts(
    parts: Mapping[str, Section], waivers: Iterable[Waiver], locked: Iterable[str]
) -> Iterator[tuple[Place, str]]:
    """Each way in which well-formed parts cannot make one policy: where, and what to do."""
    rules = {n: part for n, part in parts.items() if isinstance(part, RuleParams)}
    paths = tuple(locked)
    for number, path in enumerate(paths):
        name, dot, key = (path, "", "") if path in parts else path.rpartition(".")
        if name not in parts:
            near = did_you_mean(name or key, parts)
            yield ("locked", number), f"locked: no rule or section {name or key!r}, {near}"
        elif dot and key not in (known := type(parts[name]).parameters()):
            yield ("locked", number), f"locked: no {path!r}, {did_you_mean(key, known)}"
    for name, rule in rules.items():
        where = ("rules", name, "severity")
        if name in RULES and type(rule) is not RULES[name]:
            yield where, f"rule {name!r} needs {RULES[name].__name__}, not {type(rule).__name__}"
        elif name in ALWAYS_ON and rule.severity == "off":
            yield (
                where,
                f"rule {name!r} may never be off or left out: "
                "use severity: audit to watch without blocking",
            )
    seen: set[str] = set()
    for number, waiver in enumerate(waivers):
        at: Place = ("waivers", number)
        if waiver.id in seen:
            yield (*at, "id"), f"waiver id {waiver.id!r} is used twice"
        seen.add(waiver.id)
        if waiver.rule not in rules:
            near = did_you_mean(waiver.rule, rules)
            yield (*at, "rule"), f"waiver {waiver.id!r}: unknown rule {waiver.rule!r}, {near}"
        else:
            for key, message in _misfits(waiver, rules[waiver.rule]):
                yield (*at, "params", key), f"waiver {waiver.id!r}: {message}"


def _misfits(waiver: Waiver, rule: RuleParams) -> Iterator[tuple[str, str]]:
    """The parameters of a waiver that its rule does not have, or cannot take."""
    cls = type(rule)
    if not cls.gates:
        yield "", f"{waiver.rule} refuses nothing, so there is nothing to waive"
        return
    if "severity" in waiver.params:
        yield "severity", "a waiver lowers a parameter to a stated value, it never sets severity"
    lowered = {key: value for key, value in waiver.params.items() if key != "severity"}
    try:
        cls.model_validate({**rule.model_dump(), **lowered})
    except ValidationError as error:
        for details in error.errors(include_url=False):
            key = str(details["loc"][0]) if details["loc"] else ""
            yield key, f"{waiver.rule}.{key}: {said(details, cls)}"


def idle(waiver: Waiver, rule: RuleParams) -> Iterator[tuple[str, str]]:
    """The parameters that a waiver does not lower, though its rule is on: somebody mistook them."""
    if rule.severity == "off":
        return
    for key, value in waiver.params.items():
        own = getattr(rule, key)
        if type(rule).parameters()[key].compare(own, value) in ("SAME", "TIGHTEN"):
            told = f"the policy has {own}, and a waiver lowers to less"
            yield key, f"waiver {waiver.id!r}: {waiver.rule}.{key}: {told}"
