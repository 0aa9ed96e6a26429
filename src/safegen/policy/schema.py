"""The JSON Schema of policy files, for editors and for checks without Python."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safegen.policy.cases import MAX_CASES, Case
from safegen.policy.load import Extends
from safegen.policy.model import SCHEMA, Header
from safegen.policy.params import RuleParams, Section
from safegen.policy.rules import ALWAYS_ON, RULES
from safegen.policy.sections import SECTIONS
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
    for name, section in SECTIONS.items():
        _described(definitions[section.__name__], section)
        top["properties"][name] = {"$ref": f"#/$defs/{section.__name__}"}
    extends = _untitled(Extends.model_json_schema())
    properties: dict[str, Any] = {
        "schema": {"const": SCHEMA, "description": "The version of this format."},
        "extends": {
            **extends,
            "description": "The policy that this one builds on: what is left out is as there.",
        },
        "locked": {
            "type": "array",
            "description": "What a policy that extends this one may only tighten: rules, sections "
            "(report, approvals), or single parameters (lineage.max_depth).",
            "items": {"type": "string", "minLength": 1},
        },
        **_untitled(top)["properties"],
        "rules": {
            "type": "object",
            "description": "One entry for each rule; a rule left out is off, or as in the parent.",
            "properties": {name: {"$ref": f"#/$defs/rule-{name}"} for name in rules},
            "additionalProperties": False,
        },
        "waivers": {
            "type": "array",
            "description": "Dated, signed-off exceptions.",
            "items": {"$ref": "#/$defs/Waiver"},
        },
        "tests": {
            "type": "array",
            "description": "Cases: what the policy is expected to say (`safegen policy test`).",
            "items": {"$ref": "#/$defs/Case"},
            "maxItems": MAX_CASES,
        },
    }
    alone = {
        "required": ["description", "contact", "rules"],
        "properties": {
            "rules": {
                "required": [name for name in ALWAYS_ON if name in rules],
                "additionalProperties": {"required": ["severity"]},
            }
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "safegen policy",
        "type": "object",
        "properties": properties,
        "required": ["schema", "id", "version"],
        "if": {"not": {"required": ["extends"]}},
        "then": alone,
        "additionalProperties": False,
        "$defs": {"Waiver": _untitled(waiver), **{k: _untitled(v) for k, v in definitions.items()}},
    }


def _rule(name: str, cls: type[RuleParams]) -> dict[str, Any]:
    schema: dict[str, Any] = cls.model_json_schema()
    schema["description"] = cls.asks
    del schema["required"]  # severity alone, which a policy may leave to its parent
    _described(schema, cls)
    severity = schema["properties"]["severity"]
    if name in ALWAYS_ON:
        severity["enum"] = [word for word in severity["enum"] if word != "off"]
    return schema


def _described(schema: dict[str, Any], cls: type[Section]) -> None:
    for key, parameter in cls.parameters().items():
        entry = schema["properties"][key]
        default = "" if key == "severity" else f" Default: {entry.get('default')}."
        order = f" Tightness: {parameter.tighter}."
        entry["description"] = f"{parameter.doc} Unit: {parameter.unit}.{default}{order}"


def _untitled(schema: Any) -> Any:
    """Without pydantic's titles, which repeat the key with capitals."""
    if isinstance(schema, dict):
        kept = {k: v for k, v in schema.items() if not (k == "title" and isinstance(v, str))}
        return {k: _untitled(v) for k, v in kept.items()}
    return [_untitled(v) for v in schema] if isinstance(schema, list) else schema
