"""Rows as other libraries' own objects: the same rows, verified where they are read, and stamped
where the library has a place for it."""

from __future__ import annotations

import datetime
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import safegen
from safegen.dataset import Dataset
from safegen.errors import SafegenWarning, UsageError, VerificationError
from safegen.loading import unweighted
from safegen.manifest import MANIFEST_NAME, Manifest
from safegen.manifest.identity import new_ulid
from safegen.tables.batches import Batches
from safegen.tables.entries import data_entry
from safegen.tables.sources import TABLE, read_source
from safegen.tables.stamps import stamped
from safegen.testing import example_table

ROWS = 500


def picture(i: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 3), (i % 256, 0, 0)).save(file, "png")
    return file.getvalue()


def columns(n: int) -> dict[str, pa.Array]:
    days = [datetime.date(2020, 1, 1) + datetime.timedelta(i % 300) for i in range(n)]
    return {
        "id": pa.array(range(n), pa.int64()),
        "level": pa.array(["abc"[i % 3] for i in range(n)]).dictionary_encode(),
        "group": pa.array([i % 4 for i in range(n)]).dictionary_encode(),
        "day": pa.array(days, pa.date32()),
        "old_day": pa.array(days, pa.date64()),
        "time": pa.array([i % 86_400 for i in range(n)], pa.int32()).cast(pa.time32("s")),
        "price": pa.array([Decimal(i) / 4 for i in range(n)], pa.decimal128(10, 2)),
        "half": pa.array(np.arange(n, dtype=np.float16)),
        "big": pa.array(range(n), pa.uint64()),
        "at": pa.array(range(n), pa.timestamp("us", tz="UTC")),
        "ns": pa.array([i * 1000 for i in range(n)], pa.timestamp("ns")),
        "maybe": pa.array([None if i % 7 == 0 else i % 2 == 0 for i in range(n)]),
    }


def dataset(
    folder: Path, table: pa.Table, *, weights: Any = None, group: int = 100, weighted: bool = False
) -> Dataset:
    """A released folder, by hand: two files of some row groups, every fifth row real."""
    n = table.num_rows
    origin = pa.array(["synthetic" if i % 5 else "real" for i in range(n)]).dictionary_encode()
    weight = np.ones(n) if weights is None else np.asarray(weights)
    whole = (
        table.append_column("_safegen_origin", origin)
        .append_column("_safegen_depth", pa.array(np.ones(n, np.float32)))
        .append_column("_safegen_weight", pa.array(weight.astype(np.float32)))
    )
    ulid = new_ulid()
    schema = stamped(whole.schema, {"dataset_id": ulid, "origin": "mixed", "depth": 0.8})
    whole = whole.replace_schema_metadata(schema.metadata)
    (folder / "data").mkdir(parents=True)
    files = []
    for i, part in enumerate((whole.slice(0, n // 2), whole.slice(n // 2))):
        path = folder / "data" / f"part-{i:05d}.parquet"
        pq.write_table(part, path, row_group_size=group)
        files.append(data_entry(path, f"data/{path.name}", "table"))
    listed = [{"name": f.name, "type": str(f.type), "role": "feature"} for f in table.schema]
    manifest = Manifest.model_validate(
        {
            "dataset_id": ulid, "created": "2026-01-01T00:00:00Z", "kind": "table",
            "origin": "mixed", "ancestry": "attested", "depth": 1, "effective_depth": 0.8,
            "depth_is_lower_bound": False, "rows": n, "composition": {"synthetic": n},
            "logical_digest": "safegen-rows-v1:00", "files": files, "columns": listed,
            "weighted": weighted,
        }
    ).sealed()  # fmt: skip
    (folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    return Dataset(folder, manifest)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return dataset(tmp_path_factory.mktemp("rows") / "ds", pa.table(columns(ROWS)))


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    weights = np.where(np.arange(ROWS) % 2, 1.5, 0.5)
    table = pa.table({"id": range(ROWS)})
    return dataset(tmp_path_factory.mktemp("heavy") / "ds", table, weights=weights, weighted=True)


def spoil(ds: Dataset, to: Path) -> Dataset:
    """A copy in which a row group of the second file was edited."""
    import shutil

    shutil.copytree(ds.path, to)
    path = to / "data" / "part-00001.parquet"
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    return Dataset(to, ds.manifest)


def rows(ds: Dataset) -> list[dict[str, Any]]:
    return [{**r, "half": float(r["half"])} for r in ds.to_arrow().to_pylist()]


# ---- Hugging Face --------------------------------------------------------------------------------


def test_hf_has_the_rows_in_its_own_types(made: Dataset) -> None:
    hf = made.to_hf()
    assert isinstance(hf, datasets.Dataset)
    expected = rows(made)
    assert [dict(r) for r in hf] == expected
    kinds = {n: f.dtype for n, f in hf.features.items()}
    assert kinds["level"] == "string"
    assert kinds["group"] == "int64"
    assert kinds["price"] == "decimal128(10, 2)"
    assert kinds["day"] == "date32"
    assert kinds["at"] == "timestamp[us, tz=UTC]"


def test_hf_streams_by_row_groups(made: Dataset) -> None:
    stream = made.to_hf(streaming=True)
    assert isinstance(stream, datasets.IterableDataset)
    assert stream.num_shards == 6  # two files of 250 rows, in groups of 100
    assert stream.features == made.to_hf().features
    assert list(stream) == [dict(r) for r in made.to_hf()]
    shares = [list(stream.shard(num_shards=2, index=i)) for i in range(2)]
    assert sorted(r["id"] for s in shares for r in s) == list(range(ROWS))


def test_hf_decodes_images(tmp_path: Path) -> None:
    images = pa.array([{"bytes": picture(i), "path": f"{i}.png"} for i in range(10)])
    ds = dataset(tmp_path / "ds", pa.table({"image": images, "label": ["x"] * 10}))
    hf = ds.to_hf()
    assert isinstance(hf.features["image"], datasets.Image)
    assert hf[7]["image"].getpixel((0, 0)) == (7, 0, 0)
    assert next(iter(ds.to_hf(streaming=True)))["image"].size == (2, 3)


@pytest.mark.parametrize("streaming", [False, True])
def test_hf_carries_the_stamp_and_a_source_of_it_is_known(
    made: Dataset, tmp_path: Path, streaming: bool
) -> None:
    hf = made.to_hf(streaming=streaming)
    assert made.manifest.dataset_id in hf.info.description
    if streaming:
        return
    kept = hf.filter(lambda r: r["id"] < 100, load_from_cache_file=False)
    kept.save_to_disk(tmp_path / "saved")
    for one in (hf, kept, datasets.load_from_disk(str(tmp_path / "saved"))):
        [stamp] = read_source(one).stamps
        assert stamp["dataset_id"] == made.manifest.dataset_id
        assert stamp["place"] == "Hugging Face description"
        assert "synthetic" in safegen.check(one, policy="lab").subject[0]
    bare = datasets.Dataset.from_dict({"id": list(range(100))})
    bare.info.description = 'not made with "safegen"'
    assert read_source(bare).stamps == ()
    both = datasets.concatenate_datasets([bare, kept.select_columns("id")])
    assert len(read_source(both).stamps) == 1


@pytest.mark.parametrize("streaming", [False, True])
def test_hf_of_no_rows_is_empty(heavy: Dataset, tmp_path: Path, streaming: bool) -> None:
    none = dataset(tmp_path / "ds", pa.table({"id": pa.array([], pa.int64())}))
    assert list(none.to_hf(streaming=streaming)) == []
    assert none.to_pandas().shape == (0, 1)


def test_hf_honours_selections(made: Dataset, heavy: Dataset) -> None:
    assert made.real().to_hf()["id"][:] == list(range(0, ROWS, 5))
    assert [r["id"] for r in made.real().to_hf(streaming=True)] == list(range(0, ROWS, 5))
    drawn = heavy.resampled().to_hf(provenance=True)
    assert drawn["id"][:] == heavy.resampled().to_arrow().column("id").to_pylist()
    assert set(drawn["_safegen_weight"][:]) == {1.0}
    whole = heavy.to_hf(provenance=True)
    assert set(whole["_safegen_weight"][:]) == {0.5, 1.5}
    assert "_safegen_origin" not in made.to_hf().column_names


def test_edited_rows_do_not_reach_hf(made: Dataset, tmp_path: Path) -> None:
    ds = spoil(made, tmp_path / "ds")
    with pytest.raises(VerificationError, match="differs from the manifest"):
        ds.to_hf()
    seen = []
    with pytest.raises(VerificationError, match="differs from the manifest"):
        seen += [r["id"] for r in ds.to_hf(streaming=True)]
    assert list(made.to_hf(streaming=True))


def test_images_that_are_files_are_no_stream(tmp_path: Path, made: Dataset) -> None:
    files = [*made.manifest.files]
    image = files[0].model_copy(
        update={"path": "data/a.png", "table": None, "row_groups": [], "merkle_root": None}
    )
    beside = made.manifest.model_copy(update={"files": [*files, image]})
    with pytest.raises(UsageError, match="release them as Parquet"):
        Dataset(made.path, beside).to_hf()


# ---- weights -------------------------------------------------------------------------------------


@pytest.fixture
def _untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unweighted, "_told", set())


LOADERS: list[Callable[[Dataset], Any]] = [
    Dataset.to_arrow,
    Dataset.to_pandas,
    Dataset.to_polars,
    Dataset.to_duckdb,
    Dataset.to_hf,
]


@pytest.mark.usefixtures("_untold")
@pytest.mark.parametrize("load", LOADERS, ids=lambda f: f.__name__)
def test_rows_without_their_weights_are_warned_of_once(
    heavy: Dataset, load: Callable[[Dataset], Any]
) -> None:
    with pytest.warns(SafegenWarning, match=r"resampled\(\)") as told:
        load(heavy)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(heavy)
        load(heavy.synthetic())


@pytest.mark.usefixtures("_untold")
@pytest.mark.parametrize("load", LOADERS, ids=lambda f: f.__name__)
def test_nobody_is_warned_who_has_weights_or_needs_none(
    heavy: Dataset, made: Dataset, load: Callable[[Dataset], Any]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(made)  # all weights are 1
        load(heavy.resampled())
        heavy.to_torch()
        heavy.weights()
        load(heavy)


@pytest.mark.usefixtures("_untold")
def test_provenance_is_no_loss_of_weights(heavy: Dataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        heavy.to_pandas(provenance=True)
        heavy.to_hf(provenance=True)


@pytest.mark.usefixtures("_untold")
def test_guard_warns_of_a_folder_with_weights_and_of_no_dataset(heavy: Dataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        safegen.guard(heavy, policy="lab")
        safegen.guard(heavy.resampled(), policy="lab")
        safegen.guard(heavy.to_arrow(provenance=True), policy="lab")
        safegen.check(heavy.path, policy="lab")
    with pytest.warns(SafegenWarning, match="without their weights") as told:
        safegen.guard(heavy.path, policy="lab")
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        safegen.guard(heavy.path, policy="lab")


# ---- Ray and Spark: they take half a minute to start ---------------------------------------------


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield ray
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ray_reads_verified_rows_in_its_tasks(ray: Any, made: Dataset, tmp_path: Path) -> None:
    data = made.to_ray()
    assert data.count() == ROWS
    found = sorted(data.take_all(), key=lambda r: r["id"])
    expected = rows(made)
    for name in ("id", "level", "group", "day", "price", "at", "maybe"):
        assert [r[name] for r in found] == [r[name] for r in expected]
    assert made.real().to_ray().count() == ROWS // 5
    none = made.manifest.model_copy(update={"files": []})
    assert Dataset(made.path, none).to_ray().count() == 0
    edited = spoil(made, tmp_path / "ds").to_ray()
    with pytest.raises(Exception, match="differs from the manifest"):
        edited.materialize()


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a ledger is, rows that it knows without any mark, and honest ones beside them."""
    home = tmp_path_factory.mktemp("known")
    with pytest.MonkeyPatch.context() as patch:
        for folder in ("DATA", "CONFIG", "CACHE"):
            patch.setenv(f"XDG_{folder}_HOME", str(home / folder.lower()))
        real = example_table(6_000, seed=3)
        made = safegen.Generator("sdv.gaussian_copula").fit(real.slice(0, 2_000)).sample(4_000)
    bare = made.to_arrow().replace_schema_metadata(None).cast(real.schema)
    some = pa.concat_tables([real, bare.slice(0, 400)])
    for name, table in (("made", bare), ("mixed", some), ("real", real)):
        pq.write_table(table, home / f"{name}.parquet", row_group_size=1_000)
    return home


def _same_there(home: Path, opened: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A check, where the data is, comes to what that of the file comes to."""
    for folder in ("DATA", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{folder}_HOME", str(home / folder.lower()))
    for name, allowed in (("made", False), ("mixed", False), ("real", True)):
        place = str(home / f"{name}.parquet")
        here = safegen.check(place, policy="baseline")
        with monkeypatch.context() as patch:  # no row comes here
            patch.setattr(Batches, "__iter__", None)
            there = safegen.check(opened(place), policy="baseline")
        assert there.allowed is here.allowed is allowed, name
        assert {n: f.status for n, f in there.findings.items()} == {
            n: f.status for n, f in here.findings.items()
        }
        assert f"({pq.read_metadata(place).num_rows:,} rows" in there.subject[0]
    assert read_source(opened(str(home / "real.parquet"))).tables[TABLE].rows == 6_000
    with pytest.raises(safegen.errors.AdmissionRefused):
        safegen.guard(opened(str(home / "mixed.parquet")), policy="baseline")
    # Attested there, known here; and what a fit takes comes here in batches.
    safegen.attest(opened(str(home / "real.parquet")), by="a tester")
    [subject] = safegen.check(home / "real.parquet", policy="baseline").subject
    assert "attested" in subject
    gen = safegen.Generator("sdv.gaussian_copula")
    gen.prepare(opened(str(home / "real.parquet")))
    [facts] = gen._ready().facts
    assert (facts.rows, facts.origin) == (6_000, "real")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_check_runs_where_ray_has_the_rows(
    ray: Any, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _same_there(known, lambda place: ray.data.read_parquet(place), monkeypatch)
    frames = ray.data.from_pandas(pq.read_table(known / "real.parquet").to_pandas())
    assert read_source(frames).tables[TABLE].rows == 6_000


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    sql = pytest.importorskip("pyspark.sql")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        made = sql.SparkSession.builder.master("local[1]")
        for key, value in (
            ("spark.ui.enabled", "false"),
            ("spark.sql.session.timeZone", "UTC"),
            ("spark.sql.execution.arrow.pyspark.enabled", "true"),
        ):
            made = made.config(key, value)
        session = made.getOrCreate()
        yield session
        session.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_spark_reads_verified_rows_and_its_files_keep_the_stamp(
    spark: Any, made: Dataset, tmp_path: Path
) -> None:
    frame = made.to_spark(spark)
    found = [r.asDict() for r in frame.collect()]
    expected = rows(made)
    for name in ("id", "level", "group", "day", "old_day", "price", "half", "maybe"):
        assert [r[name] for r in found] == [r[name] for r in expected], name
    assert found[61]["time"].startswith("00:01:01")
    assert made.real().to_spark(spark).count() == ROWS // 5
    frame.filter("id < 100").withColumnRenamed("id", "number").write.parquet(str(tmp_path / "out"))
    stamps = read_source(tmp_path / "out").stamps
    assert stamps[0]["dataset_id"] == made.manifest.dataset_id
    decision = safegen.check(tmp_path / "out", policy="lab")
    assert "synthetic" in decision.subject[0]
    with pytest.raises(Exception, match="differs from the manifest"):
        spoil(made, tmp_path / "ds").to_spark(spark).collect()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_check_runs_where_spark_has_the_rows(
    spark: Any, known: Path, made: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    _same_there(known, spark.read.parquet, monkeypatch)
    # Its columns carry the stamp, and filters keep it.
    [stamp] = read_source(made.to_spark(spark).filter("id < 100")).stamps
    assert stamp["dataset_id"] == made.manifest.dataset_id
    assert "synthetic" in safegen.check(made.to_spark(spark), policy="lab").subject[0]
