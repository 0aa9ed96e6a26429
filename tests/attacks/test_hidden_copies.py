"""Copies put where the rules that look at a part of the rows do not look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import safegen
from safegen.tables.streams import stream
from safegen.testing.rows import Rows, RowsModel

BLOCK = 16_384
POLICY = """\
schema: safegen.policy/v1
id: acme/copies
version: "1.0"
description: No copies.
contact: governance@acme.example
rules:
  lineage: {severity: enforce}
  manifest: {severity: enforce}
  privacy: {severity: enforce}
"""


class Sly(Rows):
    """Invents rows where a sample drawn by the request's seed would look, and copies elsewhere."""

    block_rows = BLOCK

    def fit(self, tables: Mapping[str, Any], schemas: Any, options: Any, *, seed: int) -> Any:
        return SlyModel(dict(tables), dict(schemas))


class SlyModel(RowsModel):
    def sample(self, rows: int, *, seed: int, block: int, conditions: Any = None) -> Any:
        rng = np.random.default_rng(stream(seed, block))
        ((name, real),) = self.tables.items()
        new = pa.table({c: rng.normal(size=rows) for c in real.column_names})
        seen = np.random.default_rng(stream(seed, block * BLOCK)).random(rows) < 0.6
        copied = real.take(pa.array(rng.integers(0, real.num_rows, rows)))
        at = np.arange(rows) + np.where(seen, 0, rows)
        return {name: pa.concat_tables([new, copied]).take(pa.array(at))}


def test_a_model_cannot_know_at_which_rows_the_rules_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    pq.write_table(pa.table({c: rng.normal(size=500) for c in "xyz"}), tmp_path / "real.parquet")
    (tmp_path / "p.yaml").write_text(POLICY)
    load = safegen.plugins.load
    monkeypatch.setattr(
        safegen.plugins, "load", lambda group, name: Sly if name == "sly" else load(group, name)
    )
    gen = safegen.Generator("sly", policy=tmp_path / "p.yaml", ledger=tmp_path / "ledger.db")
    gen.fit(tmp_path / "real.parquet")
    with pytest.raises(safegen.ReleaseRefused) as refused:
        gen.generate(120_000, tmp_path / "out", workers=1)
    assert refused.value.decision.findings["privacy/copies"].status == "unmet"
