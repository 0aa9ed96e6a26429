"""The dataset card: Markdown with the front matter that Hugging Face's hub reads."""

from __future__ import annotations

import json

from safegen.manifest import Manifest

__all__ = ["card"]

_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
    (10_000_000_000, "1B<n<10B"),
    (100_000_000_000, "10B<n<100B"),
    (1_000_000_000_000, "100B<n<1T"),
)
"""https://huggingface.co/docs/hub/datasets-cards: the sizes that it knows."""


def card(manifest: Manifest) -> str:
    """A short dataset card. Its front matter is JSON, which is YAML that needs no quoting rules."""
    facts = "\n".join(f"| {_cell(k)} | {_cell(v)} |" for k, v in manifest.facts())
    made = manifest.composition.get("synthetic", 0) > 0
    return (
        f"---\n{_front(manifest)}\n---\n\n"
        f"# {'Synthetic dataset' if made else 'Dataset'} {manifest.dataset_id}\n\n"
        f"Made by safegen.{' The rows are not real.' if made else ''} Before training, run\n"
        "`safegen verify` on this folder and read `safegen.manifest.json`: it is the source of\n"
        "truth, and this page is derived from it.\n\n"
        f"| fact | value |\n|---|---|\n{facts}\n"
    )


def _front(manifest: Manifest) -> str:
    made = manifest.composition.get("synthetic", 0) > 0
    parts = {
        f.table: f"{f.path.rpartition('/')[0]}/*.parquet"
        for f in manifest.files
        if f.table is not None and f.path.rpartition("/")[2].startswith("part-")
    }
    policy = (manifest.policy or {}).get("id")
    fields = {
        "pretty_name": f"safegen {manifest.dataset_id}",
        "tags": [*(["synthetic"] if made else []), "safegen"],
        "annotations_creators": ["machine-generated"] if made else [],
        "size_categories": [next((n for most, n in _SIZES if manifest.rows < most), "n>1T")],
        **({"license": "other", "license_name": manifest.license} if manifest.license else {}),
        "configs": [
            {
                "config_name": "default" if len(parts) == 1 else str(table),
                "data_files": [{"split": "train", "path": path}],
            }
            for table, path in parts.items()
        ],
        "x-safegen": {
            "dataset_id": manifest.dataset_id,
            "origin": manifest.origin,
            "depth": manifest.depth,
            "ancestry": manifest.ancestry,
            "policy": policy,
            "sources": [s.dataset_id or s.logical_digest for s in manifest.sources],
        },
    }
    return "\n".join(f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in fields.items())


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
