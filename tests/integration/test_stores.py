"""Datasets in an object store: an S3 server of this process, asked as any other would be."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

import safegen
from local_store import Store, released
from safegen import places, targets
from safegen.cli.report import report
from safegen.ledger import open_ledger
from safegen.lineage.heads import write_head
from safegen.lineage.withdrawals import withdraw
from safegen.manifest import SigningKey, new_key
from safegen.pages import figures_in
from safegen.places import place_of
from safegen.tables.images import image_bytes
from safegen.tables.sources import read_source
from safegen.testing import example_images, example_table

ROWS = 600


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("real") / "real.parquet"
    pq.write_table(example_table(2_000, seed=3), path)
    return path


def _live_in(home: Path, patch: pytest.MonkeyPatch) -> None:
    for folder in ("DATA", "CONFIG", "CACHE"):
        patch.setenv(f"XDG_{folder}_HOME", str(home / folder.lower()))


@pytest.fixture(autouse=True)
def _one_home(_home: None, real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _live_in(real.parent, monkeypatch)


@pytest.fixture(scope="module")
def generator(real: Path) -> safegen.Generator:
    with pytest.MonkeyPatch.context() as patch:
        _live_in(real.parent, patch)
        safegen.attest(real, by="a tester")
        return safegen.Generator("sdv.gaussian_copula").fit(real)


def test_a_dataset_is_made_and_used_in_a_store(store: Store, real: Path) -> None:
    # Real rows in the store: attested there, fitted on from there.
    source = store.put("raw/real.parquet", real)
    attested = safegen.attest(source, by="a tester")
    assert attested.extra["source_uri"] == source
    assert "raw/real.parquet.safegen.json" in store.names()
    out = store.uri("out/people")
    gen = safegen.Generator("sdv.gaussian_copula").fit(source)
    made = gen.generate(ROWS, out)
    assert str(made.path) == out
    assert made.manifest.sources[0].uri == source
    assert made.manifest.ancestry == "attested"

    own = made.manifest.dataset_id
    assert store.names("out/people") == [
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
    # A model finds its real rows again where they are.
    model = safegen.Generator.load(gen.save(real.parent / "model-of-a-store"))
    assert model.generate(100, store.uri("out/again")).manifest.ancestry == "attested"
    assert model._ready().parts is not None
    # The same rows as on a disk.
    pd.testing.assert_frame_equal(gen.sample(ROWS).to_pandas(), frame)

    # The page about it, verified, has the figures of its own.
    assert report(out, None, None, None) == 0
    page, its_own = ("out/people.report.html", f"out/people/{own}/report.html")
    figures = figures_in(store.get(page).decode())
    assert figures is not None
    assert figures == figures_in(store.get(its_own).decode())
    part = f"out/people/{own}/data/part-00000.parquet"
    data = bytearray(store.get(part))
    data[len(data) // 2] ^= 1
    store.put(part, bytes(data))
    assert not safegen.check(out, policy="training").allowed
    with pytest.raises(safegen.VerificationError, match="content differs"):
        safegen.open(out)


# ---- reading -------------------------------------------------------------------------------------


def _as_json(table: pa.Table, path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))


def _as_arrow(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, 700)


def _as_gzip(table: pa.Table, path: Path) -> None:
    with pa.CompressedOutputStream(str(path), "gzip") as sink:
        csv.write_csv(table, sink)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.parquet", pq.write_table),
        ("rows.csv", csv.write_csv),
        ("rows.csv.gz", _as_gzip),
        ("rows.jsonl", _as_json),
        ("rows.arrow", _as_arrow),
    ],
)
def test_every_kind_of_file_is_read_as_on_a_disk(
    name: str, write: Callable[[pa.Table, Path], None], store: Store, tmp_path: Path
) -> None:
    table = example_table(2_000, seed=5).select(["age", "score"])
    write(table, tmp_path / name)
    here = read_source(tmp_path / name)
    there = read_source(store.put(f"raw/{name}", tmp_path / name))
    assert there.tables["table"].schema == here.tables["table"].schema
    for _ in range(2):  # again and again
        assert there.tables["table"].table().equals(here.tables["table"].table())
    assert there.uri == store.uri(f"raw/{name}")


@pytest.mark.parametrize("name", ["x.parquet", "x.csv", "x.jsonl", "x.arrow"])
def test_a_store_that_fails_while_it_is_read_is_no_damaged_file(
    name: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = example_table(5_000, seed=5).select(["age", "score"])
    writers = {"parquet": pq.write_table, "csv": csv.write_csv, "jsonl": _as_json}
    writers.get(name.partition(".")[2], _as_arrow)(table, tmp_path / name)
    uri = store.put(name, tmp_path / name)
    monkeypatch.setattr(places, "_AHEAD", 1 << 12)
    plain, left = places._Stream.readinto, [1_000]

    def fails(stream: places._Stream, buffer: memoryview) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise places.StoreError(uri, "no answer")
        return plain(stream, buffer)

    monkeypatch.setattr(places._Stream, "readinto", fails)
    assert read_source(uri).tables["table"].table().num_rows == 5_000
    for reads in range(min(1_000 - left[0], 6)):
        left[0] = reads
        with pytest.raises(safegen.SourceError, match="no answer"):
            read_source(uri).tables["table"].table()
    assert left[0] < 0


def test_a_folder_of_images_is_read(store: Store, tmp_path: Path) -> None:
    for i, data in enumerate(image_bytes(example_images(4).tables["images"].column("image"))):
        assert data is not None
        (tmp_path / "images" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / "ab"[i % 2] / f"{i}.png").write_bytes(data)
        store.put(f"images/{'ab'[i % 2]}/{i}.png", data)
    there = read_source(store.uri("images")).tables["table"].table()
    assert there.equals(read_source(tmp_path / "images").tables["table"].table())
    assert there.num_rows == 4


def test_a_folder_of_parts_and_related_tables_are_read(store: Store, tmp_path: Path) -> None:
    table = example_table(1_000, seed=6)
    for i in range(2):
        pq.write_table(table.slice(500 * i, 500), tmp_path / f"{i}.parquet")
        store.put(f"parts/{i}.parquet", tmp_path / f"{i}.parquet")
        store.put(f"parts/_temporary/{i}.parquet", tmp_path / f"{i}.parquet")
    assert read_source(store.uri("parts/")).tables["table"].table().equals(table)
    two = read_source({"one": store.uri("parts"), "two": store.uri("parts/1.parquet")})
    assert [b.table().num_rows for b in two.tables.values()] == [1_000, 500]
    assert (two.parts["one"].uri, two.place) == (store.uri("parts"), None)


def test_a_file_uri_is_a_path(real: Path, tmp_path: Path, generator: safegen.Generator) -> None:
    assert read_source(real.as_uri()).file == real
    made = generator.generate(100, (tmp_path / "o ut").as_uri())
    assert made.path == tmp_path / "o ut"
    assert safegen.verify((tmp_path / "o ut").as_uri()) == made.manifest


def test_memory_does_not_hang_on_the_size_of_a_file(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file of many row groups never more is asked for than is needed next."""
    table = pa.table({f"c{i}": pa.array(range(100_000)) for i in range(5)})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=1_000, use_dictionary=False)
    uri = store.put("x.parquet", tmp_path / "x.parquet")
    monkeypatch.setattr(places, "_AHEAD", 1 << 16)
    read: list[int] = []
    plain = places._Stream.readinto

    def counted(stream: places._Stream, buffer: memoryview) -> int:
        read.append(plain(stream, buffer))
        return read[-1]

    monkeypatch.setattr(places._Stream, "readinto", counted)
    batches = iter(read_source(uri).tables["table"])
    next(batches)
    size = (tmp_path / "x.parquet").stat().st_size
    assert sum(read) < size / 4
    assert sum(b.num_rows for b in batches) == 99_000
    assert sum(read) < size * 1.5
    assert max(read) <= 1 << 17


def test_a_row_group_is_one_request_and_is_checked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = released(store.uri("out"), ROWS)
    opened = safegen.open(made.path)
    (part,) = [f for f in made.manifest.files if f.rows]
    asked: list[int] = []
    plain = places.StorePath.read_range

    def counted(place: places.StorePath, start: int, length: int) -> bytes:
        asked.append(length)
        return plain(place, start, length)

    monkeypatch.setattr(places.StorePath, "read_range", counted)
    assert opened.to_arrow().num_rows == ROWS
    assert sum(asked) == part.bytes  # its footer, and each group once
    # What lies there may change after it was opened.
    data = bytearray(store.get(f"out/{part.path}"))
    data[100] ^= 1
    store.put(f"out/{part.path}", bytes(data))
    with pytest.raises(safegen.VerificationError, match="row group 0 differs"):
        opened.to_pandas()
    with pytest.raises(safegen.VerificationError, match="row group 0 differs"):
        list(opened.to_torch(columns=["age"]))


def test_workers_of_a_loader_read_from_a_store(store: Store) -> None:
    from torch.utils.data import DataLoader

    made = released(store.uri("out"), ROWS)
    rows = made.to_torch(batch_size=100, columns=["age"])
    loader = DataLoader(rows, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert sum(len(weights) for _, weights in loader) == ROWS


# ---- what is wrong is found ----------------------------------------------------------------------


def test_a_tampered_missing_or_extra_object_does_not_verify(store: Store) -> None:
    made = released(store.uri("out"), ROWS)
    own = made.manifest.dataset_id
    part = f"out/{own}/data/part-00000.parquet"
    whole = store.get(part)
    data = bytearray(whole)
    data[len(data) // 2] ^= 1
    store.put(part, bytes(data))
    with pytest.raises(safegen.VerificationError, match="content differs"):
        safegen.verify(made.path)
    with pytest.raises(safegen.VerificationError):
        safegen.open(made.path)
    store.delete(part)
    with pytest.raises(safegen.VerificationError, match="missing"):
        safegen.verify(made.path)
    store.put(part, whole)
    assert safegen.verify(made.path)
    # Nothing extra where a reader might take it for a part of the dataset.
    for extra in (
        f"out/{own}/data/part-00001.parquet",
        "out/data/part-00000.parquet",
        "out/part.parquet",
        f"out/{own.lower()}/data/part-00001.parquet",
        f"out/.safegen-claim-{own}/part.parquet",
    ):
        store.put(extra, whole)
        with pytest.raises(safegen.VerificationError, match="not in the manifest"):
            safegen.verify(made.path)
        store.delete(extra)
    assert safegen.verify(made.path, deep=True)


def test_what_another_run_left_is_no_part_of_the_dataset(store: Store) -> None:
    made = released(store.uri("out"), ROWS)
    part = store.get(f"out/{made.manifest.dataset_id}/data/part-00000.parquet")
    other = safegen.manifest.identity.new_ulid()
    store.put(f"out/{other}/data/part-00000.parquet", part)
    store.put(f"out/.safegen-claim-{other}", b"x")
    assert safegen.verify(made.path, deep=True).rows == ROWS
    assert safegen.open(made.path).to_arrow().num_rows == ROWS
    assert sum(b.num_rows for b in read_source(made.path).tables["table"]) == ROWS


def test_related_tables_in_a_store(store: Store) -> None:
    made = released(store.uri("out"), 1_000, tables=("people", "orders"))
    assert made.tables == ("people", "orders")
    assert f"out/{made.manifest.dataset_id}/data/orders/part-00000.parquet" in store.names()
    assert safegen.verify(made.path, deep=True) == made.manifest
    assert set(read_source(made.path).tables) == {"people", "orders"}
    assert made.of("orders").to_arrow().num_rows == 1_000
    with pytest.raises(safegen.UsageError, match="choose one"):
        made.to_arrow()


def test_a_dataset_in_a_store_is_one_when_it_is_copied_to_a_disk(
    store: Store, tmp_path: Path
) -> None:
    made = released(store.uri("out"), ROWS)
    for key in store.names("out/"):
        path = tmp_path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(key))
    assert safegen.verify(tmp_path / "out", deep=True) == made.manifest
    assert safegen.open(tmp_path / "out").to_arrow().equals(made.to_arrow())
    # And one of a disk is one in a store.
    local = released(tmp_path / "local", ROWS)
    for path in sorted((tmp_path / "local").rglob("*")):
        if path.is_file():
            store.put(path.relative_to(tmp_path).as_posix(), path)
    assert safegen.verify(store.uri("local"), deep=True) == local.manifest
    assert safegen.open(store.uri("local")).to_pandas().equals(local.to_pandas())
    store.put("local/data/part-00001.parquet", b"more")
    with pytest.raises(safegen.VerificationError, match="not in the manifest"):
        safegen.verify(store.uri("local"))


# ---- publishing ----------------------------------------------------------------------------------


def test_what_exists_is_kept_versioned_or_refused(
    store: Store, generator: safegen.Generator
) -> None:
    out = store.uri("deep/down/out")
    made = generator.generate(ROWS, out)
    before = store.names()
    with pytest.raises(safegen.TargetError, match="exists"):
        generator.generate(ROWS, out)
    assert generator.generate(ROWS, out, if_exists="same").manifest == made.manifest
    with pytest.raises(safegen.TargetError, match="not the one"):
        generator.generate(ROWS, out, seed=99, if_exists="same")
    assert store.names() == before
    second = generator.generate(ROWS, out, if_exists="version")
    assert str(second.path) == f"{out}-2"
    assert safegen.verify(out) == made.manifest
    for taken in ("file.csv", "folder/mine.txt"):
        store.put(taken, b"mine")
        with pytest.raises(safegen.TargetError, match="exists"):
            generator.generate(ROWS, store.uri(taken.partition("/")[0]))
    with pytest.raises(safegen.UsageError, match="name a folder"):
        generator.generate(ROWS, f"s3://{store.bucket}")


def test_a_refused_release_leaves_no_rows(
    store: Store,
    generator: safegen.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(*given: object, **more: object) -> object:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr("safegen.safeguards.support.SupportKept.release", refuses)
        with pytest.raises(safegen.ReleaseRefused):
            generator.generate(ROWS, store.uri("out"))
    assert store.names() == ["out.refused.html"]
    assert not (targets.cache_folder() / "uploads").exists()
    assert safegen.verify(generator.generate(ROWS, store.uri("out")).path)


def test_a_store_that_fails_midway_keeps_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, left = places.StorePath.upload, [2]

    def fails(place: places.StorePath, file: Path) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise places.StoreError(place, "no answer")
        plain(place, file)

    monkeypatch.setattr(places.StorePath, "upload", fails)
    with pytest.raises(safegen.TargetError, match="no answer; nothing was published"):
        released(store.uri("out"))
    assert left[0] < 0
    assert store.names() == []


def test_only_the_part_that_is_written_lies_on_this_machine(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many parts there are."""
    seen: list[list[str]] = []
    plain = targets._StoreStaging._put

    def counted(stage: targets._StoreStaging, path: Path) -> None:
        seen.append(sorted(p.name for p in stage.folder.rglob("*.parquet")))
        plain(stage, path)

    monkeypatch.setattr(targets._StoreStaging, "_put", counted)
    made = released(store.uri("out"))
    parts = [f.path for f in made.manifest.files if f.rows]
    assert len(parts) == 3
    assert max(map(len, seen)) == 1
    assert safegen.verify(made.path, deep=True).rows == 3_000
    assert made.to_arrow().num_rows == 3_000


def test_one_of_two_writers_wins(store: Store) -> None:
    """Both past every check before either publishes."""
    out = place_of(store.uri("out"))
    ready = threading.Barrier(2)
    plain = targets._StoreStaging._claimed
    ends: dict[int, object] = {}

    def both(stage: targets._StoreStaging, claim: places.StorePath) -> float:
        ready.wait(30)
        return plain(stage, claim)

    def run(seed: int) -> None:
        try:
            ends[seed] = released(out)
        except safegen.SafegenError as error:
            ends[seed] = error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets._StoreStaging, "_claimed", both)
        threads = [threading.Thread(target=run, args=(seed,)) for seed in (1, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    (won,) = [e for e in ends.values() if isinstance(e, safegen.Dataset)]
    (lost,) = [e for e in ends.values() if isinstance(e, safegen.TargetError)]
    assert "nothing was overwritten" in str(lost)
    assert safegen.verify(out, deep=True) == won.manifest
    own = won.manifest.dataset_id
    assert {k.split("/")[1] for k in store.names("out/")} == {own, "safegen.manifest.json"}


def test_withdrawals_are_known_from_a_list_in_the_store(
    store: Store, generator: safegen.Generator, tmp_path: Path
) -> None:
    """A signed head of the ledger: written into the store, named by a policy, elsewhere."""
    made = generator.generate(ROWS, tmp_path / "made")
    key = new_key(tmp_path / "key")
    books, head = open_ledger(), store.uri("lists/head.json")
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "schema: safegen.policy/v1\nid: p\nversion: '1'\ndescription: d\ncontact: us\nrules:\n"
        f"  lineage: {{severity: enforce, max_depth: 1.0, withdrawals: '{head}', "
        "withdrawals_on_unreachable: refuse}\n"
        f"  manifest: {{severity: enforce, trusted_keys: ['{key.text}']}}\n"
    )

    def decided() -> safegen.Decision:
        return safegen.check(made, policy=policy, ledger=tmp_path / "elsewhere.db")

    assert "cannot be read" in decided().findings["lineage/withdrawals"].observed
    assert not decided().allowed
    write_head(head, books, SigningKey(tmp_path / "key"))
    assert decided().allowed
    withdraw(books, made.manifest.dataset_id, by="a tester", reason="a test")
    write_head(head, books, SigningKey(tmp_path / "key"))
    assert not decided().allowed
