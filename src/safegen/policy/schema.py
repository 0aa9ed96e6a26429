"""The JSON Schema of policy files, for editors and for checks without Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safegen.policy.cases import MAX_CASES, Case
from safegen.policy.model import SCHEMA, Header
from safegen.policy.params import RuleParams
from safegen.policy.rules import ALWAYS_ON, RULES
from safegen.policy.waiver import Waiver

__all__ = ["json_schema"]


def json_schema(rules: Mapping[str, type[RuleParams]] = RULES) -> dict[str, Any]:
    """The JSON Schema 2020-12 of a policy file, JSON-ready.

    It knows the built-in rules; give `rules` to add those of your own safeguards. It says what
    JSON Schema can say: relations between values (who approved a waiver) are for `lint`.
    """
    top = Header.model_json_schema()
    definitions = top.pop("$defs", {})
    waiver = Waiver.model_json_schema()
    definitions.update(waiver.pop("$defs", {}))
    case = Case.model_json_schema()
    definitions.update(case.pop("$defs", {}))
    definitions["Case"] = case
    for name, cls in rules.items():
        rule = _rule(name, cls)
        definitions.update(rule.pop("$defs", {}))
        definitions[f"rule-{name}"] = rule
    properties: dict[str, Any] = {
        "schema": {"const": SCHEMA, "description": "The version of this format."},
        **_untitled(top)["properties"],
        "rules": {
            "type": "object",
            "description": "One entry for each rule; a rule left out is off.",
            "properties": {name: {"$ref": f"#/$defs/rule-{name}"} for name in rules},
            "required": [name for name in ALWAYS_ON if name in rules],
            "additionalProperties": False,
        },
        "waivers": {
            "type": "array",
            "description": "Dated, signed-off exceptions; this version records and never applies.",
            "items": {"$ref": "#/$defs/Waiver"},
        },
        "tests": {
            "type": "array",
            "description": "Cases: what the policy is expected to say (`safegen policy test`).",
            "items": {"$ref": "#/$defs/Case"},
            "maxItems": MAX_CASES,
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "safegen policy",
        "type": "object",
        "properties": properties,
        "required": ["schema", *top["required"], "rules"],
        "additionalProperties": False,
        "$defs": {"Waiver": _untitled(waiver), **{k: _untitled(v) for k, v in definitions.items()}},
    }


def _rule(name: str, cls: type[RuleParams]) -> dict[str, Any]:
    schema: dict[str, Any] = cls.model_json_schema()
    schema["description"] = cls.asks
    for key, parameter in cls.parameters().items():
        entry = schema["properties"][key]
        default = "" if key == "severity" else f" Default: {entry.get('default')}."
        order = f" Tightness: {parameter.tighter}."
        entry["description"] = f"{parameter.doc} Unit: {parameter.unit}.{default}{order}"
    severity = schema["properties"]["severity"]
    if name in ALWAYS_ON:
        severity["enum"] = [word for word in severity["enum"] if word != "off"]
    return schema


def _untitled(schema: Any) -> Any:
    """Without pydantic's titles, which repeat the key with capitals."""
    if isinstance(schema, dict):
        kept = {k: v for k, v in schema.items() if not (k == "title" and isinstance(v, str))}
        return {k: _untitled(v) for k, v in kept.items()}
    return [_untitled(v) for v in schema] if isinstance(schema, list) else schema
