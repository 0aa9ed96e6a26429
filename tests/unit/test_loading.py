"""Batches for training: every row once, in a new order each epoch, from where it was left."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from safegen.dataset import Dataset
from safegen.errors import UsageError, VerificationError
from safegen.loading import groups as reading
from safegen.loading.groups import VerifiedFile, groups_of
from safegen.loading.order import Order
from safegen.manifest import MANIFEST_NAME, Manifest
from safegen.manifest.identity import new_ulid
from safegen.tables.entries import data_entry

ROWS = 2_050


def dataset(folder: Path, table: pa.Table, *, weights: Any = None, group: int = 100) -> Dataset:
    """A released folder, by hand: two files of many row groups."""
    n = table.num_rows
    origin = pa.array(["synthetic" if i % 5 else "real" for i in range(n)]).dictionary_encode()
    weight = np.ones(n) if weights is None else weights
    whole = (
        table.append_column("_safegen_origin", origin)
        .append_column("_safegen_depth", pa.array(np.ones(n, np.float32)))
        .append_column("_safegen_weight", pa.array(weight.astype(np.float32)))
    )
    (folder / "data").mkdir(parents=True)
    files = []
    for i, part in enumerate((whole.slice(0, n // 2), whole.slice(n // 2))):
        path = folder / "data" / f"part-{i:05d}.parquet"
        pq.write_table(part, path, row_group_size=group)
        files.append(data_entry(path, f"data/{path.name}", "table"))
    columns = [{"name": f.name, "type": str(f.type), "role": "feature"} for f in table.schema]
    manifest = Manifest.model_validate(
        {
            "dataset_id": new_ulid(), "created": "2026-01-01T00:00:00Z", "kind": "table",
            "origin": "mixed", "ancestry": "attested", "depth": 1, "effective_depth": 0.8,
            "depth_is_lower_bound": False, "rows": n, "composition": {"synthetic": n},
            "logical_digest": "safegen-rows-v1:00", "files": files, "columns": columns,
        }
    ).sealed()  # fmt: skip
    (folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    return Dataset(folder, manifest)


def people() -> pa.Table:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "id": np.arange(ROWS),
            "pay": rng.normal(size=ROWS),
            "age": pd.array(rng.integers(0, 90, ROWS), "Int64"),
            "city": rng.choice(["Ulm", "", "Köln"], ROWS),
            "flag": rng.random(ROWS) < 0.3,
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 99, ROWS), "D"),
        }
    )
    frame.loc[::7, "age"] = pd.NA
    frame.loc[::11, "city"] = None
    return pa.Table.from_pandas(frame, preserve_index=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    weights = np.random.default_rng(2).uniform(0.5, 1.5, ROWS)
    return dataset(tmp_path_factory.mktemp("made") / "out", people(), weights=weights)


def ids(batches: Any) -> list[int]:
    return [int(i) for features, _ in batches for i in features["id"]]


# ---- order ---------------------------------------------------------------------------------------


def seen(order: Order, first: int = 0) -> list[tuple[int, int]]:
    found = []
    for pieces, rows in order.mixed(first):
        every = [(p.group, int(r)) for p in pieces for r in p.rows]
        found += [every[i] for i in rows]
    return found


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 12), max_size=24),
    st.integers(1, 5),
    st.none() | st.integers(0, 3),
    st.integers(0, 2),
    st.integers(0, 40),
)
def test_shares_have_every_row_once_and_can_be_entered_anywhere(
    sizes: list[int], shares: int, seed: int | None, epoch: int, first: int
) -> None:
    orders = [Order(tuple(sizes), seed, epoch, i, shares) for i in range(shares)]
    rows = [seen(o) for o in orders]
    assert Counter(r for share in rows for r in share) == Counter(
        (g, i) for g, size in enumerate(sizes) for i in range(size)
    )
    assert [len(r) for r in rows] == [o.rows for o in orders]
    assert max(map(len, rows)) - min(map(len, rows)) <= 1
    for order, share in zip(orders, rows, strict=True):
        assert seen(order, first) == share[first:]
    if seed is None:
        assert [r for share in rows for r in share] == sorted(r for share in rows for r in share)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [Order((50,) * 20, *x) for x in ((1, 0), (1, 1), (2, 0))]
    every = [seen(o) for o in orders]
    assert every[0] == seen(orders[0])
    assert len({tuple(e) for e in every}) == 3
    # Rows of far groups are neighbours.
    far = np.abs(np.diff([g for g, _ in every[0]]))
    assert far.mean() > 3


# ---- batches -------------------------------------------------------------------------------------


def test_batches_have_the_rows_of_the_dataset(made: Dataset) -> None:
    frame = people().to_pandas()
    rows = made.to_torch(64)
    batches = list(rows)
    assert len(batches) == len(rows) == -(-ROWS // 64)
    assert sorted(ids(batches)) == list(range(ROWS))
    assert ids(batches) != list(range(ROWS))
    order = np.array(ids(batches))
    features = {n: torch.cat([f[n].double() for f, _ in batches]).numpy() for n in rows.columns}
    weights = torch.cat([w for _, w in batches]).numpy()
    assert np.allclose(weights, made.weights()[order])
    expected = frame.iloc[order]
    assert np.allclose(features["pay"], expected["pay"].astype(np.float32))
    age = expected["age"].to_numpy(float, na_value=np.nan)
    assert np.allclose(features["age"], age, equal_nan=True)
    assert (features["flag"] == expected["flag"]).all()
    assert rows.levels == {"city": ["", "Köln", "Ulm"]}
    words = [None if c < 0 else rows.levels["city"][int(c)] for c in features["city"]]
    assert words == [None if pd.isna(x) else x for x in expected["city"]]
    unit = np.datetime64(1, made.to_arrow().schema.field("day").type.unit)
    days = features["day"].astype("int64").astype(unit.dtype)
    assert (days == expected["day"].to_numpy().astype(unit.dtype)).all()
    first = batches[0][0]
    assert {n: str(t.dtype)[6:] for n, t in first.items()} == {
        "id": "int64", "pay": "float32", "age": "float32", "city": "int64", "flag": "bool",
        "day": "int64",
    }  # fmt: skip


def test_an_epoch_is_in_another_order_and_a_seed_repeats_it(made: Dataset) -> None:
    rows, again = made.to_torch(100), made.to_torch(100)
    one, two = ids(rows), ids(rows)
    assert sorted(one) == sorted(two)
    assert one != two
    assert [ids(again), ids(again)] == [one, two]
    assert ids(made.to_torch(100, seed=None)) == list(range(ROWS))
    assert rows.epoch == 2


@pytest.mark.parametrize("stop", [0, 1, 7, 16])
def test_two_ranks_killed_within_an_epoch_see_each_row_once(made: Dataset, stop: int) -> None:
    before, after = [], []
    for rank in range(2):
        rows = made.to_torch(64, rank=rank, world=2)
        ids(rows)  # an epoch
        batches = iter(rows)
        before += ids(next(batches) for _ in range(stop))
        state = torch.load(_saved(rows.state_dict()), weights_only=True)  # as a checkpoint has it
        del rows, batches
        back = made.to_torch(64, rank=rank, world=2)
        back.load_state_dict(state)
        after += ids(back)
        assert (back.epoch, back.batches) == (2, 0)
    assert len(before) == 2 * 64 * stop
    assert sorted(before + after) == list(range(ROWS))


def _saved(state: dict[str, Any]) -> io.BytesIO:
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    return stream


def test_a_state_of_something_else_is_refused(made: Dataset, tmp_path: Path) -> None:
    state = made.to_torch(64).state_dict()
    other = dataset(tmp_path / "other", people())
    for rows, what in (
        (made.to_torch(65), "batch_size"),
        (made.to_torch(64, seed=8), "seed"),
        (made.to_torch(64, rank=1, world=2), "rank and world"),
        (other.to_torch(64), "dataset"),
    ):
        with pytest.raises(UsageError, match=what):
            rows.load_state_dict(state)


def test_workers_of_a_loader_share_the_rows(made: Dataset) -> None:
    rows = made.to_torch(64, columns=["id"])
    loader: Any = DataLoader(rows, batch_size=None, num_workers=2)
    orders = []
    for rows.epoch in range(2):  # workers are copies: they do not count for this one
        orders.append(ids(loader))
        assert sorted(orders[-1]) == list(range(ROWS))
    assert orders[0] != orders[1]


def test_selected_rows_are_streamed_too(made: Dataset) -> None:
    real = set(range(0, ROWS, 5))
    assert set(ids(made.real().to_torch(50))) == real
    assert set(ids(made.synthetic().to_torch(50))) == set(range(ROWS)) - real
    thinned = made.resampled(3)
    batches = list(thinned.to_torch(50))
    assert sorted(ids(batches)) == sorted(thinned.to_pandas()["id"])
    assert all((w == 1).all() for _, w in batches)
    assert len(ids(batches)) < ROWS
    part = made.synthetic().resampled(3)
    assert sorted(ids(part.to_torch(50))) == sorted(part.to_pandas()["id"])


def test_wrong_use_is_said(made: Dataset) -> None:
    with pytest.raises(UsageError, match="no column 'x'"):
        made.to_torch(columns=["x"])
    with pytest.raises(UsageError, match="1 or more"):
        made.to_torch(0)
    for rank, world in ((0, None), (2, 2), (-1, 2)):
        with pytest.raises(UsageError, match="rank and world"):
            made.to_torch(rank=rank, world=world)


def test_images_are_tensors(tmp_path: Path) -> None:
    def png(mode: str, shade: int) -> bytes:
        stream = io.BytesIO()
        Image.new(mode, (5, 4), shade).save(stream, "PNG")
        return stream.getvalue()

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for mode, channels in (("L", 1), ("RGB", 3)):
        images = [{"bytes": png(mode, i), "path": None} for i in range(6)]
        table = pa.table({"image": pa.array(images, kind), "label": range(6)})
        rows = dataset(tmp_path / mode, table).to_torch(6)
        ((features, _),) = list(rows)
        assert features["image"].shape == (6, 4, 5, channels)
        assert (features["image"][:, 0, 0, 0] == features["label"]).all()
    images[0]["bytes"] = None  # type: ignore[assignment]
    table = pa.table({"image": pa.array(images, kind)})
    with pytest.raises(UsageError, match="missing"):
        list(dataset(tmp_path / "gap", table).to_torch(6))


def test_columns_that_make_no_tensor_can_be_left_out(tmp_path: Path) -> None:
    table = pa.table({"x": [1, 2], "list": [[1], [2]], "big": pa.array([1, 2**64 - 1], "uint64")})
    made = dataset(tmp_path / "odd", table)
    with pytest.raises(UsageError, match="column 'list'"):
        list(made.to_torch())
    ((features, _),) = list(made.to_torch(columns=["x", "big"], seed=None))
    assert features["big"].tolist() == [1.0, 2.0**64]


# ---- verified ------------------------------------------------------------------------------------


def test_a_changed_row_group_ends_the_epoch(made: Dataset, tmp_path: Path) -> None:
    copy = dataset(tmp_path / "copy", people())
    path = copy.path / "data" / "part-00000.parquet"
    entry = copy.manifest.files[0]
    group = entry.row_groups[3]
    data = bytearray(path.read_bytes())
    data[group.offset + group.bytes // 2] ^= 1
    path.write_bytes(data)
    batches = iter(copy.to_torch(100, columns=["id"], seed=None))
    assert ids(next(batches) for _ in range(3)) == list(range(300))
    with pytest.raises(VerificationError, match="row group 3 differs"):
        next(batches)
    with pytest.raises(VerificationError, match="row group 3 differs"):
        copy.to_torch(columns=["city"])  # all groups are read for the levels


@pytest.mark.parametrize("spoil", ["footer", "leaf", "longer", "gone"])
def test_a_changed_footer_opens_nothing(tmp_path: Path, spoil: str) -> None:
    made = dataset(tmp_path / "copy", people())
    path, entry = made.path / "data" / "part-00000.parquet", made.manifest.files[0]
    data = bytearray(path.read_bytes())
    if spoil == "footer":
        data[-20] ^= 1
    if spoil == "longer":
        data += b"PAR1"
    path.write_bytes(data)
    if spoil == "gone":
        path.unlink()
    if spoil == "leaf":
        groups = [g.model_copy(update={"leaf": "0" * 64}) for g in entry.row_groups]
        entry = entry.model_copy(update={"row_groups": groups})
    with pytest.raises(VerificationError):
        VerifiedFile(made.path, entry)


def test_a_row_group_is_read_without_the_others(
    made: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only its bytes and the footer's; and what is parsed is what was hashed."""
    touched: list[tuple[int, int]] = []
    read = VerifiedFile._bytes

    def noted(self: VerifiedFile, start: int, length: int) -> bytes:
        touched.append((start, length))
        return read(self, start, length)

    monkeypatch.setattr(VerifiedFile, "_bytes", noted)
    groups = groups_of(made.path, made.manifest, "table")
    footers = len(touched)
    entry = made.manifest.files[0]
    table = groups[4].read(["id"])
    assert table.column("id").to_pylist() == list(range(400, 500))
    assert footers == len(made.manifest.files)
    ((start, length),) = touched[footers:]
    before = entry.row_groups[3]
    assert start == before.offset + before.bytes
    assert start + length == entry.row_groups[4].offset + entry.row_groups[4].bytes
    window = reading._Window(b"abc", 10, 20)
    window.seek(9)
    with pytest.raises(OSError, match="outside"):
        window.read(2)


# ---- others --------------------------------------------------------------------------------------


def test_duckdb_has_the_rows(made: Dataset) -> None:
    relation = made.to_duckdb()
    counted = relation.aggregate("count(*), sum(id)").fetchall()
    assert counted == [(ROWS, ROWS * (ROWS - 1) // 2)]
    assert "_safegen_origin" not in relation.columns
    with duckdb.connect() as connection:
        kept = made.to_duckdb(connection, provenance=True)
        real = kept.filter("_safegen_origin = 'real'").aggregate("count(*)").fetchall()
        assert real == [(410,)]
