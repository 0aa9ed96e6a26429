"""A waiver: a dated, signed-off exception to one rule.

This version records waivers and applies none: a rule that a waiver would lower stays as the
policy has it. So a waiver that nobody checked can loosen nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from safegen.errors import UsageError
from safegen.policy.frozen import Frozen

__all__ = ["Text", "Waiver", "WaiverStatus"]

Text = Annotated[str, Field(pattern=r"\S", max_length=4000)]
WaiverStatus = Literal["expired", "not applied"]


class Waiver(BaseModel):
    """A request to lower named parameters of one rule to stated values, with names and a date."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    id: Text = Field(description="The waiver's own id, once in a policy.")
    rule: Text = Field(description="The rule it lowers.")
    scope: Text | None = Field(
        default=None, description="Pattern of dataset ids it is meant for; none means all of them."
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
        min_length=1, description="Who approved it: at least one person, never the requester."
    )
    expires: date = Field(description="The last day it is meant for (UTC), as YYYY-MM-DD.")
    signed: bool = Field(default=False, description="Whether the approval is said to be signed.")

    @model_validator(mode="after")
    def _somebody_else_approved(self) -> Waiver:
        names = [_person(name) for name in self.approved_by]
        if _person(self.requested_by) in names:
            raise ValueError("the requester may not be among approved_by")
        if len(set(names)) < len(names):
            raise ValueError("approved_by names somebody twice")
        return self

    def status(self, now: date | datetime) -> WaiverStatus:
        """What a decision says about this waiver: "expired" or "not applied" (never "applied").

        `now` is a date in UTC, or a datetime with its time zone. Raises: UsageError for a
        datetime without one, whose day nobody can tell.
        """
        if isinstance(now, datetime):
            if now.tzinfo is None:
                raise UsageError("a waiver's status needs a time with its time zone")
            now = now.astimezone(UTC).date()
        return "expired" if now > self.expires else "not applied"


def _person(name: str) -> str:
    return " ".join(name.casefold().split())
