"""OpenLineage: the run that made a dataset, as one event of its spec 2-0-2 (https://openlineage.io).

What is safegen's own is in a facet of the output: origin, depth, ancestry, policy, verdicts.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from safegen.manifest import Manifest
from safegen.manifest.model import SourceEntry

__all__ = ["openlineage"]

PRODUCER = "urn:safegen"
EVENT = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
FACETS = "https://openlineage.io/spec/facets"
_ULID = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def openlineage(manifest: Manifest) -> dict[str, Any]:
    """A COMPLETE event, JSON-ready. The run's id is the dataset's, as a UUID: so an event that is
    sent twice is one run."""
    return {
        "eventType": "COMPLETE",
        "eventTime": manifest.created,
        "producer": PRODUCER,
        "schemaURL": EVENT,
        "run": {"runId": str(run_id(manifest.dataset_id)), "facets": {}},
        "job": {"namespace": "safegen", "name": _job(manifest), "facets": {}},
        "inputs": [_input(s) for s in manifest.sources],
        "outputs": [
            {
                "namespace": "safegen",
                "name": manifest.dataset_id,
                "facets": {
                    "schema": _facet(
                        "1-2-0/SchemaDatasetFacet.json#/$defs/SchemaDatasetFacet",
                        fields=[{"name": c.name, "type": c.type} for c in manifest.columns],
                    ),
                    "version": _facet(
                        "1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet",
                        datasetVersion=manifest.digest,
                    ),
                    "safegen": _own(manifest),
                },
                "outputFacets": {
                    "outputStatistics": _facet(
                        "1-0-2/OutputStatisticsOutputDatasetFacet.json"
                        "#/$defs/OutputStatisticsOutputDatasetFacet",
                        rowCount=manifest.rows,
                        size=sum(f.bytes for f in manifest.files),
                        fileCount=len(manifest.files),
                    )
                },
            }
        ],
    }


def run_id(dataset_id: str) -> uuid.UUID:
    """The 128 bits of a ULID."""
    number = 0
    for digit in dataset_id:
        number = number * 32 + _ULID.index(digit)
    return uuid.UUID(int=number % 2**128)


def _job(manifest: Manifest) -> str:
    maker = manifest.generator
    return f"{manifest.statement} by {maker.backend}" if maker else manifest.statement


def _input(source: SourceEntry) -> dict[str, Any]:
    own = {"origin": source.origin, "ancestry": source.ancestry, "depth": source.depth}
    return {
        "namespace": "safegen" if source.dataset_id else "file",
        "name": source.dataset_id or source.uri,
        "facets": {"safegen": {**_facet(None), **own, "logicalDigest": source.logical_digest}},
    }


def _own(manifest: Manifest) -> dict[str, Any]:
    return {
        **_facet(None),
        "origin": manifest.origin,
        "ancestry": manifest.ancestry,
        "depth": manifest.depth,
        "effectiveDepth": manifest.effective_depth,
        "depthIsLowerBound": manifest.depth_is_lower_bound,
        "composition": dict(manifest.composition),
        "logicalDigest": manifest.logical_digest,
        "manifestDigest": manifest.digest,
        "policy": _named(manifest.policy),
        "allowed": [bool(d.get("allowed")) for d in manifest.decisions],
        "warnings": list(manifest.warnings),
    }


def _named(policy: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if policy is None else {k: policy.get(k) for k in ("id", "version", "digest")}


def _facet(schema: str | None, **fields: Any) -> dict[str, Any]:
    url = "urn:safegen:openlineage-facet:v1" if schema is None else f"{FACETS}/{schema}"
    return {"_producer": PRODUCER, "_schemaURL": url, **fields}
