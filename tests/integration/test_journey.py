"""One dataset's journey, in the order of the list in `safegen/generator.py`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import safegen
from safegen.demo import place_data
from safegen.ledger import open_ledger
from safegen.tables.sources import read_source
from safegen.testing import example_table


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journey")


@pytest.fixture(scope="module")
def real(place: Path) -> Path:
    """The first 8,000 rows of Adult (or scikit-learn's table where Adult is not installed)."""
    whole, _ = place_data(place / "whole")
    table = read_source(whole).tables["table"].table()
    pq.write_table(table.slice(0, 8000), place / "real.parquet")
    return place / "real.parquet"


def test_from_a_real_table_to_a_verified_dataset_and_a_refusal(place: Path, real: Path) -> None:
    ledger = place / "ledger.db"
    key = place / "key"
    from safegen.manifest import new_key

    public = new_key(key)

    # 1, 2: a policy; a source that a named person vouches for
    attested = safegen.attest(real, by="a tester", license="CC-BY-4.0", ledger=ledger)
    assert (attested.origin, attested.ancestry, attested.depth) == ("real", "attested", 0)

    # 3 admission, 4 roles, 5 fit: under the strictest shipped policy
    gen = safegen.Generator("sdv.gaussian_copula", policy="strict", ledger=ledger, key=key)
    gen.fit(real, seed=7)
    assert gen.decision is not None
    assert gen.decision.gate == "admission"
    assert gen.decision.allowed

    # 6 to 11: sampled, staged, judged, published
    dataset = gen.generate(20_000, place / "out", seed=11)
    manifest = dataset.manifest
    assert gen.decision.gate == "release"
    assert (manifest.origin, manifest.depth, manifest.effective_depth) == ("synthetic", 1, 1.0)
    assert manifest.ancestry == "attested"
    assert not manifest.depth_is_lower_bound
    assert manifest.rows == 20_000
    assert manifest.generator is not None
    assert (manifest.generator.seed, manifest.generator.fit_seed) == ("11", "7")
    assert {c["definition"] for c in manifest.claims} == {"support"}
    assert all(m["interval"] and m["method"] for m in manifest.measurements)
    assert sorted(p.name for p in (place / "out").iterdir()) == [
        "README.md",
        "croissant.json",
        "data",
        "report.html",
        "safegen.manifest.dsse.json",
        "safegen.manifest.json",
    ]
    stored = pq.read_table(place / "out" / "data" / "part-00000.parquet")
    assert set(stored.column("_safegen_origin").to_pylist()) == {"synthetic"}
    assert set(stored.column("_safegen_depth").to_pylist()) == {1.0}
    assert str(stored.schema.field("_safegen_depth").type) == "float"

    # 12: verified here, and elsewhere with nothing but the public key
    safegen.verify(dataset.path, trusted_keys=[f"{key}.pub"], deep=True, ledger=ledger)
    assert public.id

    # the consumer's side
    opened = safegen.open(dataset.path, ledger=ledger, trusted_keys=[f"{key}.pub"])
    frame = opened.to_pandas()
    assert len(frame) == 20_000
    assert not [c for c in frame.columns if c.startswith("_safegen_")]
    assert list(frame.columns) == pq.read_schema(real).names
    assert opened.weights().sum() == 20_000
    assert opened.to_polars().shape == frame.shape
    assert opened.real().to_arrow().num_rows == 0
    assert opened.synthetic().to_arrow().num_rows == 20_000

    # and the refusal
    with pytest.raises(safegen.AdmissionRefused) as refused:
        safegen.Generator("sdv.gaussian_copula", policy="baseline", ledger=ledger).fit(dataset)
    depth = refused.value.decision.findings["lineage/depth"]
    assert depth.status == "unmet"

    # everything is in the ledger, allowed or not
    books = open_ledger(ledger)
    assert [r.statement for r in books.records()] == ["attestation", "release"]
    decisions = [e.payload["allowed"] for e in books.log() if e.kind == "decision"]
    assert decisions == [True, True, True, False]
    assert books.verify() == []


def test_doubt_is_inherited(place: Path, real: Path) -> None:
    """Trained on data that nobody vouched for: admitted with a warning, and it says so for ever."""
    ledger = place / "doubt.db"
    table = pq.read_table(real).slice(0, 3000)
    gen = safegen.Generator(ledger=ledger).fit(table)
    assert gen.decision is not None
    assert [r.finding.check for r in gen.decision.warnings] == ["unattested"]
    manifest = gen.generate(3000, place / "doubt").manifest
    assert (manifest.ancestry, manifest.depth_is_lower_bound) == ("unverified", True)
    assert manifest.claims == []
    refused = safegen.check(place / "doubt", ledger=ledger)
    assert not refused.allowed
    assert refused.findings["lineage/unverified"].status == "unmet"


def test_a_loop_of_refits_under_audit_counts_its_depth(place: Path) -> None:
    """The lab policy lets a loop run, and the depth tells how far it has gone: 1, 2, 3."""
    ledger = place / "loop.db"
    source: object = example_table(1500)
    safegen.attest(source, by="a tester", ledger=ledger)
    for step in (1, 2, 3):
        gen = safegen.Generator(policy="lab", ledger=ledger).fit(source)
        dataset = gen.generate(1500, place / f"loop-{step}", seed=step)
        assert (dataset.manifest.depth, dataset.manifest.effective_depth) == (step, step)
        source = dataset


def test_accumulating_gives_the_harmonic_depth_end_to_end(place: Path) -> None:
    ledger = place / "accumulate.db"
    real = example_table(1000)
    safegen.attest(real, by="a tester", ledger=ledger)
    pool: list[object] = [real]
    depths = []
    for step in (1, 2, 3):
        gen = safegen.Generator(policy="lab", ledger=ledger).fit(*pool)
        dataset = gen.generate(1000, place / f"accumulate-{step}", seed=step)
        depths.append(dataset.manifest.effective_depth)
        pool.append(dataset)
    assert depths == pytest.approx([1, 1.5, 1 + 1 / 2 + 1 / 3])


def test_half_real_is_admitted_by_anchored_and_not_by_baseline(place: Path) -> None:
    ledger = place / "half.db"
    real = example_table(1000)
    safegen.attest(real, by="a tester", ledger=ledger)
    first = safegen.Generator(ledger=ledger).fit(real).generate(1000, place / "half-1")
    with pytest.raises(safegen.AdmissionRefused):
        safegen.Generator(policy="baseline", ledger=ledger).fit(real, first)
    gen = safegen.Generator(policy="anchored", ledger=ledger).fit(real, first)
    second = gen.generate(1000, place / "half-2")
    assert second.manifest.effective_depth == pytest.approx(1.5)
    third = (
        safegen.Generator(policy="anchored", ledger=ledger)
        .fit(real, second)
        .generate(1000, place / "half-3")
    )
    assert third.manifest.effective_depth == pytest.approx(1.75)


def test_a_collapsed_model_is_refused_and_leaves_a_report_but_no_rows(place: Path) -> None:
    """A real model whose output lost a column's levels: conditions stand in for mode collapse."""
    from safegen.errors import ReleaseRefused

    ledger = place / "collapsed.db"
    table = example_table(2000)
    gen = safegen.Generator(ledger=ledger).fit(table)
    assert gen._model is not None
    inner = gen._model

    class Collapsed:
        def sample(self, rows: int, *, seed: int, block: int, conditions: object = None) -> object:
            return inner.sample(rows, seed=seed, block=block, conditions={"job": "a"})

    gen._model = Collapsed()  # type: ignore[assignment]
    with pytest.raises(ReleaseRefused) as refused:
        gen.generate(2000, place / "collapsed")
    found = refused.value.decision.findings
    assert found["support/levels"].status == "unmet"
    assert found["support/constant"].evidence == ("job",)
    assert not (place / "collapsed").exists()
    page = (place / "collapsed.refused.html").read_text()
    assert page.count("<h4>support/levels</h4>") == 1
    gen._model = inner
    assert gen.generate(2000, place / "collapsed").manifest.rows == 2000


@pytest.mark.filterwarnings("ignore:We strongly recommend saving the metadata:UserWarning")
def test_an_adopted_sdv_synthesizer_is_released_with_its_doubt_stated(place: Path) -> None:
    from sdv.metadata import Metadata
    from sdv.single_table import GaussianCopulaSynthesizer

    frame = example_table(400).to_pandas().drop(columns=["since", "member"])
    metadata = Metadata.detect_from_dataframes({"table": frame})
    synthesizer = GaussianCopulaSynthesizer(metadata, default_distribution="norm")
    synthesizer.fit({"table": frame})
    ledger = place / "wrap.db"
    safegen.attest(frame, by="a tester", ledger=ledger)
    gen = safegen.Generator.wrap(synthesizer, trained_on=frame, policy="lab", ledger=ledger)
    other = frame.rename(columns={"job": "work"})
    with pytest.raises(safegen.UsageError, match="other names"):
        safegen.Generator.wrap(synthesizer, trained_on=other, policy="lab", ledger=ledger)
    first = gen.generate(300, place / "wrapped")
    assert first.manifest.ancestry == "unverified"
    assert "adopted" in first.manifest.warnings[0]
    again = gen.generate(300, place / "wrapped-again")
    assert first.manifest.logical_digest == again.manifest.logical_digest
    saved = gen.save(place / "wrapped-model")
    loaded = safegen.Generator.load(saved, policy="lab", source=frame, ledger=ledger)
    assert (
        loaded.generate(300, place / "wrapped-loaded").manifest.logical_digest
        == first.manifest.logical_digest
    )


def test_an_sdv_metadata_object_gives_the_roles(place: Path) -> None:
    from sdv.metadata import Metadata

    frame = example_table(400).to_pandas()
    frame["code"] = [f"c{i}" for i in range(len(frame))]
    metadata = Metadata.detect_from_dataframes({"table": frame})
    metadata.update_column(table_name="table", column_name="code", sdtype="id")
    gen = safegen.Generator(ledger=place / "metadata.db").fit(frame, metadata=metadata)
    assert gen.schemas["table"].column("code").kind == "id"
    made = gen.generate(400, place / "metadata").to_pandas()
    assert made["code"].is_unique
    assert not set(made["code"]) & set(frame["code"])


def test_fit_changes_neither_the_frame_nor_global_random_state(place: Path) -> None:
    import random

    import numpy as np

    frame = example_table(300).to_pandas()
    copy = frame.copy(deep=True)
    random.seed(1)
    np.random.seed(1)
    before = (random.getstate(), str(np.random.get_state()))
    safegen.Generator(ledger=place / "pure.db").fit(frame).generate(50, place / "pure")
    assert (random.getstate(), str(np.random.get_state())) == before
    pd.testing.assert_frame_equal(frame, copy)


def test_a_sample_is_a_release_in_a_scratch_folder(place: Path) -> None:
    gen = safegen.Generator(ledger=place / "scratch.db").fit(example_table(300))
    dataset = gen.sample(100)
    assert "scratch" in dataset.path.parts
    assert safegen.verify(dataset.path, ledger=place / "scratch.db").rows == 100
    assert "<table>" in dataset._repr_html_()
    assert "<table>" in gen._repr_html_()


def test_a_release_from_before_the_attestation_does_not_hold_a_later_one_down(place: Path) -> None:
    """Same seeds, same rows: the second release has the first one's content, and its own proof."""
    ledger = place / "twice.db"
    table = example_table(600)
    first = safegen.Generator(ledger=ledger).fit(table).generate(500, place / "twice-1")
    assert not safegen.check(first, ledger=ledger).allowed
    safegen.attest(table, by="a tester", ledger=ledger)
    second = safegen.Generator(ledger=ledger).fit(table).generate(500, place / "twice-2")
    assert second.manifest.logical_digest == first.manifest.logical_digest
    assert safegen.check(second, ledger=ledger).allowed
    assert not safegen.check(second, policy="baseline", ledger=ledger).allowed
