"""What a rule and its parameters are: each with type, default, unit and order.

A rule is a class. Its fields are the parameters a policy file may write; the default of each, its
unit and the direction that makes it tighter stand beside it in a `Param`. Everything else (the
JSON Schema, `explain`, the comparison of two policies, the error messages) is read from here.

A third-party safeguard derives its own `Params` from `RuleParams` in the same way. What a policy
asks beside its rules (`report`, `approvals`) is a `Section`, declared alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict

from safegen.errors import PluginError

__all__ = [
    "Change",
    "GATES",
    "Gate",
    "Order",
    "Param",
    "Parameter",
    "RuleParams",
    "Section",
    "Severity",
]

Gate = Literal["admission", "release"]
GATES: tuple[Gate, ...] = get_args(Gate)

Severity = Literal["off", "audit", "warn", "enforce"]
Change = Literal["TIGHTEN", "LOOSEN", "SAME", "INCOMPARABLE"]
Order = Literal["up", "down", "listed", "fewer", "subset", "given", "none"]

_TIGHTER: Mapping[str, str] = {
    "up": "bigger is tighter",
    "down": "smaller is tighter",
    "fewer": "some of them are tighter than all, and none is another question",
    "subset": "some of them are tighter than all, and none is the tightest",
    "given": "any is tighter than none, and another is incomparable",
    "none": "no order: any change is incomparable",
}


@dataclass(frozen=True, slots=True)
class Param:
    """What one parameter means: put it into the `Annotated` of a field of a `RuleParams`.

    `doc` is one sentence; `unit` what the number counts ("share", "rows", …; "choice" for words);
    `order` says which way is tighter: "up" (bigger), "down" (smaller), "listed" (a `Literal`
    whose words stand from loose to tight), "fewer" (a list whose parts are tighter than it is; an
    empty one asks something else), "subset" (the same, and an empty one is the tightest), "given"
    (asks nothing where it is empty, and something else with each value), "none" (no value is
    tighter than another).
    """

    doc: str
    unit: str
    order: Order


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of one rule, as declared. `default` is None for `severity`, which has none."""

    name: str
    doc: str
    unit: str
    order: Order
    default: Any
    levels: tuple[str, ...] = ()

    @property
    def tighter(self) -> str:
        """Which way is tighter, in words: "smaller is tighter", or "allow < warn < refuse"."""
        return " < ".join(self.levels) if self.order == "listed" else _TIGHTER[self.order]

    def compare(self, old: object, new: object) -> Change:
        """What going from `old` to `new` does to the policy.

        TIGHTEN or LOOSEN as the declared order says; SAME for equal values; INCOMPARABLE where
        there is no order, or where a value is not one that the order knows (NaN, another word).
        """
        if self.order in ("fewer", "subset"):
            return _compared(old, new, self.order == "subset")
        if self.order == "given" and bool(old) != bool(new):
            return "TIGHTEN" if new else "LOOSEN"
        before, after = self._position(old), self._position(new)
        if before is None or after is None:
            plain = self.order in ("given", "none")
            return "SAME" if plain and old == new else "INCOMPARABLE"
        if before == after:
            return "SAME"
        return "TIGHTEN" if before < after else "LOOSEN"

    def tightest(self, floor: Any, value: Any) -> Any:
        """The tighter of a value and what is the least that is asked; of two lists what both have.

        Where they cannot be compared the floor's, for the other may be looser. Associative, so that
        one floor on another is the same as both, and idempotent.
        Raises: ValueError where two lists have nothing in common and an empty one asks less.
        """
        if self.order in ("fewer", "subset"):
            if self.order == "fewer" and not (floor and value):
                return floor or value
            both = tuple(v for v in value if v in floor)
            if self.order == "fewer" and not both:
                raise ValueError("nothing of it is in both")
            return both
        return value if self.compare(floor, value) in ("SAME", "TIGHTEN") else floor

    def _position(self, value: object) -> float | None:
        """Where a value stands from loose to tight; None when the order does not know it."""
        if self.order == "listed":
            return self.levels.index(value) if value in self.levels else None
        if (
            self.order in ("given", "none")
            or not isinstance(value, int | float)
            or math.isnan(value)
        ):
            return None
        return value if self.order == "up" else -value


def _compared(old: object, new: object, none_is_tightest: bool) -> Change:
    """Lists as sets: a part of one is tighter than it."""
    if not isinstance(old, tuple | list) or not isinstance(new, tuple | list):
        return "INCOMPARABLE"
    before, after = set(old), set(new)
    if before == after:
        return "SAME"
    if not (none_is_tightest or (before and after)):
        return "INCOMPARABLE"
    if after < before:
        return "TIGHTEN"
    return "LOOSEN" if after > before else "INCOMPARABLE"


class Section(BaseModel):
    """A named part of a policy: frozen, strict, every value materialised.

    Every field needs a `Param` and a default.
    Raises: PluginError while a subclass is declared, when a parameter lacks one of these.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        """Refuse a declaration that lint, diff or explain could not read later."""
        for name, parameter in cls.parameters().items():
            if name != "severity" and cls.model_fields[name].is_required():
                raise PluginError(f"{cls.__qualname__}.{name}: a parameter needs a default")
            if parameter.order == "listed" and not parameter.levels:
                raise PluginError(f"{cls.__qualname__}.{name}: order 'listed' needs a Literal")

    @classmethod
    def parameters(cls) -> Mapping[str, Parameter]:
        """Every parameter by name, in the order of declaration."""
        found = {}
        for name, field in cls.model_fields.items():
            param = next((m for m in field.metadata if isinstance(m, Param)), None)
            if param is None:
                raise PluginError(
                    f"{cls.__qualname__}.{name}: annotate it with Param(doc, unit=, order=)"
                )
            words = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            found[name] = Parameter(name, param.doc, param.unit, param.order, default, words)
        return found


class RuleParams(Section):
    """A rule's parameters as one policy sets them.

    Subclasses declare `gates` (where the rule decides; empty for a rule that only shapes rows) and
    `asks` (the question it answers, in a phrase). `severity`, the first, alone has no default,
    because a policy has to say what an unmet rule does.
    """

    gates: ClassVar[frozenset[Gate]] = frozenset()
    asks: ClassVar[str] = ""

    severity: Annotated[
        Severity,
        Param(
            "What an unmet rule does: off (not evaluated), audit (recorded), "
            "warn (recorded and shown), enforce (refused).",
            unit="choice",
            order="listed",
        ),
    ]

    @classmethod
    def __pydantic_init_subclass__(cls, **more: object) -> None:
        if unknown := cls.gates - set(GATES):
            raise PluginError(f"{cls.__qualname__}: unknown gates {sorted(unknown)}; use {GATES}")
        super().__pydantic_init_subclass__(**more)
