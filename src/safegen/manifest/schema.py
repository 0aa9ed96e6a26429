"""The JSON Schema of manifests, from the model that reads them (docs/manifest.schema.json)."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from safegen.manifest.model import SCHEMA, Manifest

__all__ = ["json_schema"]


class _Untitled(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        """No titles of fields, which repeat the name with capitals."""
        return False


def json_schema() -> dict[str, Any]:
    """The JSON Schema 2020-12 of a manifest, JSON-ready.

    It says what JSON Schema can say; canonical bytes, digests and files are clauses of
    docs/manifest.md. Fields that it does not name are allowed.
    """
    document = Manifest.model_json_schema(schema_generator=_Untitled)
    document["properties"]["schema"] = {"const": SCHEMA}
    document["properties"]["digest"] = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
    document["required"] = ["schema", *document["required"], "digest"]
    document["description"] = "A safegen manifest; docs/manifest.md says what its fields mean."
    return {"$schema": GenerateJsonSchema.schema_dialect, **document}
