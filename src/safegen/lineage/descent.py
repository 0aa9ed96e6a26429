"""The tree of what a dataset was made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safegen.ledger import Ledger

__all__ = ["ancestors"]

_MAX_DEPTH = 64


def ancestors(entry: Mapping[str, Any], ledger: Ledger | None, _level: int = 0) -> dict[str, Any]:
    """A tree {label, dataset_id, origin, depth, effective_depth, rows, sources} from a manifest or
    a manifest's source entry; parents that the ledger knows are followed, at most 64 levels."""
    node = dict(entry)
    dataset_id = node.get("dataset_id")
    record = None
    if ledger is not None and isinstance(dataset_id, str):
        record = ledger.get(dataset_id)
        if record is not None:
            node = {**record.manifest, "uri": node.get("uri")}
    name = str(node.get("uri") or dataset_id or "unknown")
    if dataset_id and node.get("uri"):
        name += f" [{dataset_id}]"
    made = (node.get("generator") or {}).get("backend")
    label = (
        f"{name}: {node.get('origin')}, depth {float(node.get('effective_depth', 0)):.3g}, "
        f"{int(node.get('rows', 0)):,} rows"
        + (f", by {made}" if made else "")
        + (f", attested by {node['attested_by']}" if node.get("attested_by") else "")
        + (", unverified" if node.get("ancestry") == "unverified" else "")
    )
    parents = node.get("sources") or []
    return {
        "label": label,
        "dataset_id": dataset_id,
        "origin": str(node.get("origin")),
        "depth": node.get("depth"),
        "effective_depth": node.get("effective_depth"),
        "rows": node.get("rows"),
        "sources": [ancestors(p, ledger, _level + 1) for p in parents]
        if _level < _MAX_DEPTH
        else [],
    }
