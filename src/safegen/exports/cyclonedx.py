"""CycloneDX 1.6: a bill of materials of a dataset (https://cyclonedx.org, the ML-BOM).

The dataset is a component of type data, whose ancestors are what it was made from; the model that
made it is one of type machine-learning-model, on which it depends.
"""

from __future__ import annotations

from typing import Any

from safegen.exports.openlineage import run_id
from safegen.manifest import Manifest
from safegen.manifest.model import GeneratorEntry, SourceEntry

__all__ = ["cyclonedx"]


def cyclonedx(manifest: Manifest) -> dict[str, Any]:
    """The bill of materials of a dataset, JSON-ready. Its serial number is the dataset's id."""
    from safegen import __version__

    maker = manifest.generator
    dataset = f"urn:safegen:{manifest.dataset_id}"
    model = f"{dataset}#model"
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{run_id(manifest.dataset_id)}",
        "version": 1,
        "metadata": {
            "timestamp": manifest.created,
            "tools": {
                "components": [{"type": "application", "name": "safegen", "version": __version__}]
            },
            "component": {"type": "data", "name": manifest.dataset_id, "bom-ref": f"{dataset}#bom"},
        },
        "components": [_dataset(manifest, dataset), *([_model(maker, model)] if maker else [])],
        "dependencies": [
            {"ref": dataset, **({"dependsOn": [model]} if maker else {})},
            *([{"ref": model}] if maker else []),
        ],
    }


def _dataset(manifest: Manifest, ref: str) -> dict[str, Any]:
    facts = {
        "origin": manifest.origin,
        "ancestry": manifest.ancestry,
        "depth": f"{'at least ' if manifest.depth_is_lower_bound else ''}{manifest.depth}",
        "rows": manifest.rows,
        "logical-digest": manifest.logical_digest,
        "manifest-digest": manifest.digest,
        **({"policy": manifest.policy.get("id")} if manifest.policy else {}),
    }
    return {
        "type": "data",
        "bom-ref": ref,
        "name": manifest.dataset_id,
        "version": manifest.created,
        "description": f"{manifest.rows:,} rows, {manifest.origin}, made by safegen",
        "hashes": [{"alg": "SHA-256", "content": manifest.digest.removeprefix("sha256:")}],
        **({"licenses": [{"license": {"name": manifest.license}}]} if manifest.license else {}),
        "data": [
            {
                "type": "dataset",
                "name": manifest.dataset_id,
                "classification": manifest.origin,
            }
        ],
        "pedigree": {"ancestors": [_ancestor(s) for s in manifest.sources]},
        "properties": _properties(facts),
    }


def _ancestor(source: SourceEntry) -> dict[str, Any]:
    facts = {
        "origin": source.origin,
        "ancestry": source.ancestry,
        "depth": source.depth,
        "rows": source.rows,
        "logical-digest": source.logical_digest or "",
    }
    return {
        "type": "data",
        "name": source.uri,
        **({"version": source.dataset_id} if source.dataset_id else {}),
        "properties": _properties(facts),
    }


def _model(maker: GeneratorEntry, ref: str) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": ref,
        "name": maker.backend,
        "version": f"seed {maker.fit_seed}",
        "licenses": [{"license": {"name": maker.license}}],
        "modelCard": {
            "modelParameters": {"task": "data synthesis", "modelArchitecture": maker.backend}
        },
        "properties": _properties(
            {**{f"version:{k}": v for k, v in maker.versions.items()}, "seed": maker.seed}
        ),
    }


def _properties(facts: dict[str, Any]) -> list[dict[str, str]]:
    return [{"name": f"safegen:{name}", "value": str(value)} for name, value in facts.items()]
