"""What a policy asks beside its rules: what reports show, and who may approve exceptions."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from safegen.policy.params import Param, Section

__all__ = ["SECTIONS", "Approvals", "Approver", "Digest", "Key", "Report", "Text", "person"]

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Text = Annotated[str, Field(pattern=r"\S", max_length=4000)]
Key = Annotated[
    str,
    # An Ed25519 SubjectPublicKeyInfo (RFC 8410): twelve fixed bytes, then the key. The last digit
    # has two bits to spare, which are zero, so that one key is one text.
    Field(pattern=r"^MCowBQYDK2VwAyEA[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"),
]


def person(name: str) -> str:
    """A person's name, so that two ways to write it are one person: in other letters of the same
    kind, with accents that stand alone, or with signs that nobody sees."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join("".join(c for c in plain if unicodedata.category(c) != "Cf").split())


class Report(Section):
    """What reports may show. Real values are out by default: a report travels further than data."""

    real_values: Annotated[
        bool,
        Param("Whether reports may quote values of the real data.", unit="choice", order="down"),
    ] = False


class Approver(BaseModel):
    """Somebody who may approve waivers, and the key that shows that it was they who did."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Text = Field(description="The name, as waivers have it in approved_by.")
    key: Key = Field(description="The public key, as `safegen key show` prints it.")


class Approvals(Section):
    """When a waiver counts. Without approvers all that a waiver can be is self-asserted: names that
    somebody wrote into a file."""

    signature: Annotated[
        Literal["optional", "required"],
        Param("Whether approvals have to be signed.", unit="choice", order="listed"),
    ] = "optional"
    approvers: Annotated[
        tuple[Approver, ...],
        Param("Who may sign an approval: name and public key.", unit="people", order="subset"),
        Field(max_length=100),
    ] = ()

    @model_validator(mode="after")
    def _are_different_people(self) -> Approvals:
        names, keys = ({person(a.name) for a in self.approvers}, {a.key for a in self.approvers})
        if min(len(names), len(keys)) < len(self.approvers):
            raise ValueError("approvers names a person or a key twice: each has one of their own")
        return self


#: Every section by its name in a policy file.
SECTIONS: Mapping[str, type[Section]] = MappingProxyType({"report": Report, "approvals": Approvals})
