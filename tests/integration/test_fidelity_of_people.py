"""The fidelity rule on real people's rows: what a good backend makes is never refused, and what is
broken on purpose is; and what a dry run says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safegen.backends.sdv.gaussian_copula import GaussianCopula
from safegen.decision import Finding
from safegen.demo import place_data
from safegen.gates import Release
from safegen.generator import Generator
from safegen.measure.drawn import Drawn
from safegen.planning import plan
from safegen.policy import FidelityParams
from safegen.safeguards.fidelity import FidelityKept
from safegen.tables.schema import infer_schema

N = 6_000
POLICY = """\
schema: safegen.policy/v1
id: acme/close
version: "1.0"
description: Rows have to be close.
contact: governance@acme.example
rules:
  lineage: {severity: enforce}
  manifest: {severity: enforce}
  fidelity: {severity: enforce}
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    path, what = place_data(tmp_path_factory.mktemp("data"))
    if not what.startswith("Adult"):
        pytest.skip("Adult is not installed")
    table = pq.read_table(path).replace_schema_metadata(None)
    return table.take(pa.array(np.random.default_rng(1).permutation(table.num_rows)))


@pytest.fixture(scope="module")
def made(people: pa.Table) -> pa.Table:
    real = people.slice(0, N)
    backend = GaussianCopula()
    model = backend.fit({"t": real}, {"t": infer_schema(real)}, backend.Options(), seed=1)
    return model.sample(N, seed=1, block=0)["t"]


def judge(people: pa.Table, made: pa.Table) -> dict[str, Finding]:
    real, held = people.slice(0, N), people.slice(N, 3_000)
    schema = infer_schema(real, {"income": {"role": "target"}})
    drawn = {"table": Drawn(made, np.ones(made.num_rows))}
    where = Release(N, N, {}, {"table": schema}, None, {}, {"table": real}, {"table": held}, drawn)
    found = FidelityKept().release(where, FidelityParams(severity="enforce"))
    return {f.check: f for f in found}


def test_the_copula_is_never_refused_and_mostly_met(people: pa.Table, made: pa.Table) -> None:
    found = judge(people, made)
    assert "unmet" not in {f.status for f in found.values()}
    assert {c for c, f in found.items() if f.status == "met"} >= {"marginals", "pairs", "utility"}


def test_real_rows_that_were_not_trained_on_are_never_refused(people: pa.Table) -> None:
    for k in range(4):
        found = judge(people, people.slice(N * (k + 2), N))
        assert "unmet" not in {f.status for f in found.values()}


def test_columns_drawn_each_for_itself_are_refused(people: pa.Table) -> None:
    """Every marginal is real, and nothing belongs together: what raking without an anchor does."""
    fresh, rng = people.slice(2 * N, N), np.random.default_rng(0)
    alone = pa.table(
        {
            name: column.take(pa.array(rng.permutation(N)))
            for name, column in zip(fresh.schema.names, fresh.columns, strict=True)
        }
    )
    found = judge(people, alone)
    assert found["marginals"].status == "met"
    assert {found[c].status for c in ("pairs", "utility")} == {"unmet"}


def test_a_dry_run_says_what_can_be_judged(people: pa.Table, tmp_path: Path) -> None:
    pq.write_table(people.slice(0, 2_000), tmp_path / "people.parquet")
    (tmp_path / "close.yaml").write_text(POLICY)
    gen: Any = Generator(
        "sdv.gaussian_copula", policy=tmp_path / "close.yaml", ledger=tmp_path / "ledger.db"
    )
    gen.prepare(tmp_path / "people.parquet", seed=1)
    facts = dict(plan(gen, 2_000))
    assert "0 of 15 marginals" in facts["fidelity gate"]
    assert "no rows are held out" in facts["fidelity gate"]
    assert "would refuse" not in facts["fidelity gate"]


def test_a_dry_run_says_what_the_policy_would_refuse_and_what_would_do(
    people: pa.Table, tmp_path: Path
) -> None:
    """At 600 rows no mean over columns can be judged: with `inconclusive: fail` that is a refusal,
    and no seed changes it."""
    pq.write_table(people.slice(0, 600), tmp_path / "people.parquet")
    strict = POLICY.replace(
        "fidelity: {severity: enforce}", "fidelity: {severity: enforce, inconclusive: fail}"
    )
    for number, policy in enumerate((strict, POLICY)):
        (tmp_path / "close.yaml").write_text(policy)
        gen: Any = Generator(
            "sdv.gaussian_copula",
            policy=tmp_path / "close.yaml",
            ledger=tmp_path / f"ledger{number}.db",
        )
        gen.prepare(tmp_path / "people.parquet", seed=1)
        said = dict(plan(gen, 600))["fidelity gate"]
        assert "chance may leave marginals" in said
        assert re.search(r"about [\d,]+ real rows, and [\d,]+ asked for, would do", said)
        assert ("the policy would then refuse (inconclusive: fail)" in said) == (policy is strict)
