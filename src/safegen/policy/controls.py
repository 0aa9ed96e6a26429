"""Which clauses of laws and standards a rule's evidence speaks to (`controls.yaml`).

Engineering guidance, and no legal advice: whether a clause applies, and what meets it, is for
people to say. Beside rules the table knows two wholes: `waivers`, and `decisions`, the log of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from safegen.errors import UsageError
from safegen.policy.document import read
from safegen.policy.wording import did_you_mean

__all__ = ["NOTICE", "WHOLES", "Control", "Table", "controls_of", "controls_table"]

WHOLES = ("waivers", "decisions")
"""What serves clauses and is no rule."""

NOTICE = (
    "Engineering guidance, no legal advice: whether a clause applies to you, and whether this "
    "meets it, is for people who answer for that. What a clause asks is said in words of our own. "
    "“unverified”: number or wording were not held against the published text."
)

Sure = Literal["direct", "supports"]


@dataclass(frozen=True, slots=True)
class Control:
    """What a rule's evidence contributes (`gives`) to a clause, and what this asks.

    sure: `direct`, where it answers what the clause asks as far as data are concerned; `supports`,
    where it answers a part. check: the clause was not held against the published text.
    """

    framework: str
    clause: str
    asks: str
    rule: str
    gives: str
    sure: Sure
    check: bool

    @property
    def name(self) -> str:
        """Framework and clause."""
        return f"{self.framework} {self.clause}"

    @property
    def label(self) -> str:
        """The name, and whether it was held against the published text."""
        return f"{self.name} (unverified)" if self.check else self.name


class _Clause(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    framework: str
    clause: str
    asks: str
    check: bool = False
    rules: Annotated[Mapping[str, tuple[Sure, str]], Field(min_length=1)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: str
    date: str
    frameworks: Mapping[str, str]
    controls: tuple[_Clause, ...]


@dataclass(frozen=True)
class Table:
    """The whole table: its version and date, the frameworks' full names, and every entry."""

    version: str
    date: str
    frameworks: Mapping[str, str]
    controls: tuple[Control, ...]

    def of(self, framework: str | None) -> tuple[Control, ...]:
        """The entries of one framework, or all. Raises: UsageError for one that is not in it."""
        if framework is None:
            return self.controls
        if framework not in self.frameworks:
            near = did_you_mean(framework, self.frameworks)
            raise UsageError(f"no framework {framework!r}, {near}")
        return tuple(c for c in self.controls if c.framework == framework)

    def to_json(self, framework: str | None = None) -> dict[str, Any]:
        """The table as a JSON document."""
        entries = [{k: getattr(c, k) for k in Control.__slots__} for c in self.of(framework)]
        about = {"version": self.version, "date": self.date, "notice": NOTICE}
        return {**about, "frameworks": dict(self.frameworks), "controls": entries}


@cache
def controls_table() -> Table:
    """The table that comes with this version."""
    root, problems = read(Path(__file__).with_name("controls.yaml"), "controls.yaml")
    assert not problems, problems
    file = _File.model_validate_json(json.dumps(root.plain()))
    entries = [
        Control(one.framework, one.clause, one.asks, rule, gives, sure, one.check)
        for one in file.controls
        for rule, (sure, gives) in one.rules.items()
    ]
    return Table(file.version, file.date, file.frameworks, tuple(entries))


def controls_of(rule: str) -> list[Control]:
    """What a rule (or `waivers`, `decisions`) serves; [] where the table does not know it."""
    return [c for c in controls_table().controls if c.rule == rule]
