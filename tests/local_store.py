"""A bucket of an S3 server in the tests' own process, with a back door: the fixture `store`.
And releases into it, without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safegen
from safegen.engines.blocks import Block
from safegen.engines.parts import Recipe, part_plan
from safegen.engines.writing import PartWriter
from safegen.lineage.descent import Descent
from safegen.manifest import Manifest, SigningKey
from safegen.manifest.identity import new_ulid, now
from safegen.manifest.model import ColumnEntry
from safegen.measure.figures import Figures
from safegen.places import place_of
from safegen.targets import staging
from safegen.testing import example_table

SECRET = "wJalrXUtnFEMI-a-secret-that-nobody-shows"


@dataclass(frozen=True)
class Store:
    """A bucket of a real S3 server in this process, with a back door."""

    client: Any
    bucket: str
    server: str

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def names(self, prefix: str = "") -> list[str]:
        """The objects with something in them: an empty one stands for a folder."""
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [o["Key"] for o in found.get("Contents", []) if o["Size"]]

    def get(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def put(self, key: str, data: bytes | Path) -> str:
        body = data if isinstance(data, bytes) else data.read_bytes()
        self.client.put_object(Bucket=self.bucket, Key=key, Body=body)
        return self.uri(key)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=key)


def released(
    target: Any, rows: int = 3_000, key: Path | None = None, tables: Sequence[str] = ("table",)
) -> safegen.Dataset:
    """A release of some rows into a target, as the generator makes it, without a model."""
    target, dataset_id = place_of(target), new_ulid()
    stamp = {"dataset_id": dataset_id, "origin": "synthetic", "depth": 1.0}
    recipe = Recipe("testing.rows", {}, seed=1, stamp=stamp)
    with staging(target, dataset_id=dataset_id, recipe=recipe, run=None) as stage:
        for part in part_plan(rows, 1_000):
            with PartWriter(recipe, part, stage.folder) as writer:
                made = example_table(part.units, seed=part.first)
                writer.write(Block(dict.fromkeys(tables, made)))
                stage.take(writer.finish())
        stage.close()
        digest, _ = stage.written.digests()
        manifest = Manifest(
            dataset_id=dataset_id,
            created=now(),
            kind="table" if len(tables) == 1 else "tables",
            origin="synthetic",
            ancestry="attested",
            depth=1,
            effective_depth=1.0,
            depth_is_lower_bound=False,
            rows=stage.written.rows,
            composition={"synthetic": stage.written.rows, "real": 0},
            columns=[
                ColumnEntry(name=f.name, type=str(f.type), role="feature", table=table)
                for table in tables
                for f in example_table(1).schema
            ],
            logical_digest=digest,
        )
        tree = Descent(None, [manifest]).ancestors({"dataset_id": dataset_id})
        stage.describe(manifest, Figures(asked=rows, noun="rows"), tree)
        signer = None if key is None else SigningKey(key)
        manifest = stage.seal(manifest.model_copy(update={"files": stage.files()}), signer)
        return safegen.Dataset(stage.publish(), manifest)
