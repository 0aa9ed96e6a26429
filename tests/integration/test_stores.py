"""Datasets in an object store: an S3 server of this process, asked as any other would be."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import Store

import safegen
from safegen.testing import example_table

ROWS = 1_500


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("real") / "real.parquet"
    pq.write_table(example_table(2_000, seed=3), path)
    return path


@pytest.fixture
def generator(real: Path) -> safegen.Generator:
    safegen.attest(real, by="a tester")
    return safegen.Generator("sdv.gaussian_copula").fit(real)


def test_a_dataset_is_made_and_used_in_a_store(store: Store, real: Path) -> None:
    # Real rows in the store: attested there, fitted on from there.
    source = store.put("raw/real.parquet", real)
    attested = safegen.attest(source, by="a tester")
    assert attested.extra["source_uri"] == source
    assert "raw/real.parquet.safegen.json" in store.keys()
    out = store.uri("out/people")
    gen = safegen.Generator("sdv.gaussian_copula").fit(source)
    made = gen.generate(ROWS, out)
    assert str(made.path) == out
    assert made.manifest.sources[0].uri == source
    assert made.manifest.ancestry == "attested"

    own = made.manifest.dataset_id
    assert store.keys("out/people") == [
        f"out/people/{own}/README.md",
        f"out/people/{own}/croissant.json",
        f"out/people/{own}/data/part-00000.parquet",
        f"out/people/{own}/report.html",
        "out/people/safegen.manifest.json",
    ]
    opened = safegen.open(out)
    frame = opened.to_pandas()
    assert (len(frame), len(opened.weights())) == (ROWS, ROWS)
    assert opened.to_arrow().num_rows == opened.to_polars().height == ROWS
    assert opened.synthetic().to_arrow().num_rows == ROWS
    rows = sum(len(weights) for _, weights in opened.to_torch(batch_size=256, columns=["age"]))
    assert rows == ROWS
    assert safegen.verify(out, deep=True).dataset_id == own
    assert safegen.check(out, policy="training").allowed
    # The same rows as on a disk.
    pd.testing.assert_frame_equal(gen.sample(ROWS).to_pandas(), frame)
