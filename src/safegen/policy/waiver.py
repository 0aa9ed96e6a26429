"""A waiver: a dated, signed-off exception that lowers parameters of one rule to stated values.

An exception is no other policy: the rule stays, what it finds is reported as found, and the finding
is marked as waived where the lower values would be met. Approvals are signed by the approvers that
the policy names, or they are self-asserted: names in a file, which a policy may do without
(`approvals.signature`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

import rfc8785
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from safegen.errors import UsageError
from safegen.policy.frozen import Frozen
from safegen.policy.sections import Approvals, Text, person

__all__ = ["Approval", "Subject", "Waiver", "WaiverStatus", "approved", "day_of"]

WaiverStatus = Literal[
    "applied", "not enough", "not needed", "expired", "out of scope", "not accepted"
]
Subject = Iterable[str]
"""What one source is known by: its dataset id, its logical digest, where it is."""

_DOMAIN = b"safegen.waiver/v1\n"  # so that no other signed document can be taken for an approval


class Waiver(BaseModel):
    """A request to lower named parameters of one rule to stated values, with names and a date."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    id: Text = Field(description="The waiver's own id, once in a policy.")
    rule: Text = Field(description="The rule it lowers.")
    scope: Text | tuple[Text, ...] | None = Field(
        default=None,
        description="Pattern, or patterns, for what it holds: each source's dataset id, logical "
        "digest or place has to match one (a name can be given to any file, a digest cannot). None "
        "means everything.",
    )
    params: Annotated[
        Mapping[str, bool | int | float | str],
        Field(min_length=1, description="The lower-to value of each parameter; never severity."),
        AfterValidator(Frozen),
    ]
    reason: Text = Field(description="Why the rule cannot be met.")
    ticket: Text = Field(description="Where the request was discussed.")
    requested_by: Text = Field(description="Who asked for it.")
    approved_by: tuple[Text, ...] = Field(
        min_length=1,
        description="Who approved it: never the requester; two people where the rule is locked.",
    )
    expires: date = Field(description="The last day on which it counts (UTC), as YYYY-MM-DD.")
    signatures: Annotated[
        Mapping[Text, Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{86}==$")]],
        AfterValidator(Frozen),
    ] = Field(
        default_factory=Frozen,
        description="Of approvers: the line that `safegen policy approve` prints for each.",
    )

    @model_validator(mode="after")
    def _somebody_else_approved(self) -> Waiver:
        names = [person(name) for name in self.approved_by]
        if person(self.requested_by) in names:
            raise ValueError("the requester may not be among approved_by")
        if len(set(names)) < len(names):
            raise ValueError("approved_by names somebody twice")
        if strangers := [n for n in self.signatures if person(n) not in names]:
            raise ValueError(f"signatures has {strangers[0]!r}, who is not in approved_by")
        if len({person(n) for n in self.signatures}) < len(self.signatures):
            raise ValueError("signatures names somebody twice")
        return self

    @property
    def signed_bytes(self) -> bytes:
        """What an approver signs: all of the waiver but the signatures."""
        return _DOMAIN + rfc8785.dumps(self.model_dump(mode="json", exclude={"signatures"}))

    def expired(self, now: date | datetime) -> bool:
        """Whether its last day has passed. Raises: UsageError as `day_of`."""
        return day_of(now) > self.expires

    def covers(self, subjects: Iterable[Subject]) -> bool:
        """Whether every one of the sources is within its scope; nothing at all is not."""
        if self.scope is None:
            return True
        patterns = (self.scope,) if isinstance(self.scope, str) else self.scope
        every = [tuple(names) for names in subjects]
        return bool(every) and all(
            any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
            for names in every
        )


def day_of(now: date | datetime) -> date:
    """The day in UTC. Raises: UsageError for a time without its zone, whose day nobody can tell."""
    if not isinstance(now, datetime):
        return now
    if now.tzinfo is None:
        raise UsageError("a waiver's status needs a time with its time zone")
    return now.astimezone(UTC).date()


@dataclass(frozen=True, slots=True)
class Approval:
    """How far a waiver is approved. `signed_by`: whose signatures hold; `problem`: why it does not
    count, None where it does."""

    signed_by: tuple[str, ...]
    needed: int
    problem: str | None

    @property
    def said(self) -> str:
        """ "signed" where all that are needed did, else "self-asserted"."""
        return "signed" if len(self.signed_by) >= self.needed else "self-asserted"


def approved(waiver: Waiver, approvals: Approvals, *, locked: bool) -> Approval:
    """Whether a policy accepts a waiver, by who approved it: two people where what it lowers is
    locked, and their signatures where the policy requires them, or names approvers for what it
    locks: a lock that anybody's name opens is none."""
    needed = 2 if locked else 1
    keys = {person(a.name): a.key for a in approvals.approvers}
    signed: list[str] = []
    wrong: list[str] = []
    # Of each person once: whoever signs twice is still one.
    for name, signature in {person(n): (n, s) for n, s in waiver.signatures.items()}.values():
        if (key := keys.get(person(name))) is not None:
            (signed if _holds(key, signature, waiver.signed_bytes) else wrong).append(name)
    required = approvals.signature == "required" or (locked and bool(approvals.approvers))
    problem = None
    if wrong:
        problem = f"the signature of {wrong[0]} is not of this waiver: it was changed since"
    elif len(waiver.approved_by) < needed:
        problem = "what it lowers is locked: that takes two approvers"
    elif required and len(signed) < needed:
        problem = (
            f"self-asserted: {len(signed)} of {needed} approvals signed by approvers of the policy"
        )
    return Approval(tuple(signed), needed, problem)


def _holds(key: str, signature: str, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    public: Any = load_der_public_key(base64.b64decode(key))
    assert isinstance(public, Ed25519PublicKey)
    try:
        public.verify(base64.b64decode(signature), data)
    except InvalidSignature:
        return False
    return True
