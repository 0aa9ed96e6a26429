"""Riding on a waiver that was given for another dataset, by saying that one is it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forging import document, reseal

import safegen
from safegen.models import MODEL_NAME
from safegen.tables.stamps import stamped
from safegen.testing import example_table

POLICY = """\
schema: safegen.policy/v1
id: acme/team
version: "1"
description: A policy for tests.
contact: governance@acme.example
rules:
  lineage: {{severity: enforce, unattested: refuse}}
  manifest: {{severity: enforce}}
waivers:
  - {{id: W-1, rule: lineage, params: {params}, scope: "{scope}", reason: r, ticket: t,
     requested_by: a.lee, approved_by: [j.doe], expires: {expires}}}
"""


def written(folder: Path, scope: str, params: str) -> Path:
    path = folder / "team.yaml"
    last = datetime.now(UTC).date() + timedelta(days=3)
    path.write_text(POLICY.format(scope=scope, params=params, expires=last))
    return path


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "own.db"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    pq.write_table(example_table(300, seed=51), tmp_path / "real.parquet")
    return tmp_path / "real.parquet"


def status(decision: safegen.Decision) -> str:
    return str(decision.waivers[0]["status"])


def test_a_stamp_does_not_make_rows_the_dataset_that_is_excepted(tmp_path, source, ledger):
    safegen.attest(source, by="a test", ledger=ledger)
    made = safegen.Generator(ledger=ledger).fit(source).generate(200, tmp_path / "made")
    policy = written(tmp_path, made.manifest.dataset_id, "{max_depth: 1.0}")
    honest = safegen.check(made.path, policy=policy, ledger=ledger)
    assert (honest.allowed, status(honest)) == (True, "applied")
    # Rows that safegen has never seen, with the stamp of those that are excepted.
    stamp = {"dataset_id": made.manifest.dataset_id, "origin": "synthetic", "depth": 1}
    rows = example_table(200, seed=52)
    other = tmp_path / "other.parquet"
    pq.write_table(rows.cast(stamped(rows.schema, stamp)), other)
    forged = safegen.check(other, policy=policy, ledger=ledger)
    assert (forged.allowed, status(forged)) == (False, "out of scope")


def test_a_manifest_that_nobody_vouches_for_does_not_either(tmp_path, source, ledger):
    made = safegen.Generator(ledger=ledger).fit(source).generate(200, tmp_path / "made")
    policy = written(tmp_path, made.manifest.dataset_id, "{max_depth: 1.0}")
    assert status(safegen.check(made.path, policy=policy, ledger=ledger)) == "applied"
    stranger = tmp_path / "stranger.db"
    decision = safegen.check(made.path, policy=policy, ledger=stranger)
    assert (decision.allowed, status(decision)) == (False, "out of scope")
    by_content = written(tmp_path, made.manifest.logical_digest, "{max_depth: 1.0}")
    assert status(safegen.check(made.path, policy=by_content, ledger=stranger)) == "applied"


def test_the_same_rows_in_another_file_are_the_dataset(tmp_path, source, ledger):
    made = safegen.Generator(ledger=ledger).fit(source).generate(200, tmp_path / "made")
    policy = written(tmp_path, made.manifest.dataset_id, "{max_depth: 1.0}")
    rows: pd.DataFrame = made.to_pandas()
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), tmp_path / "same.parquet")
    decision = safegen.check(tmp_path / "same.parquet", policy=policy, ledger=ledger)
    assert status(decision) == "applied"


def test_a_strangers_model_is_not_of_the_data_that_it_names(tmp_path, source, ledger):
    saved = safegen.Generator(ledger=ledger).fit(source).save(tmp_path / "model")
    facts = document(saved, MODEL_NAME)["facts"]
    policy = written(tmp_path, facts[0]["logical_digest"], "{unattested: warn}")
    safegen.Generator.load(saved, policy=policy, ledger=ledger)
    # The same words from a model that the ledger does not know.
    body = document(saved, MODEL_NAME)
    reseal(saved, body | {"seed": "8"}, MODEL_NAME)
    with pytest.raises(safegen.AdmissionRefused) as refusal:
        safegen.Generator.load(saved, policy=policy, ledger=ledger)
    assert status(refusal.value.decision) == "out of scope"
