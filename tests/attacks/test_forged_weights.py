"""Way round: keep the rows of a release, by which it is known, and give them other weights.

Weights are outside the digest of rows. Forged ones would have a loop boost what was boosted, or
make of many rows the few that somebody likes.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forging import document, reseal, rewrite

import safegen
from safegen.engines.blocks import Block
from safegen.engines.writing import PartWriter
from safegen.errors import BackendError, SourceError
from safegen.tables.batches import PROVENANCE_COLUMNS, WEIGHT_COLUMN

ROWS = 4_000
POLICY = (
    "schema: safegen.policy/v1\nid: boosting\nversion: '1'\ndescription: a test\n"
    "contact: nobody\nrules:\n  lineage: {severity: enforce, max_depth: 1.0}\n"
    "  manifest: {severity: enforce}\n"
)
NOT_PROVEN = "nothing proves that these are the released ones"


def people() -> pa.Table:
    rng = np.random.default_rng(0)
    kind = np.where(rng.random(ROWS) < 0.009, "odd", "plain")
    return pa.table({"x": rng.normal(size=ROWS), "kind": kind})


@pytest.fixture(scope="module")
def place(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real rows, a release with weights, and one without."""
    folder = tmp_path_factory.mktemp("weights")
    pq.write_table(people(), folder / "real.parquet")
    (folder / "plain.yaml").write_text(POLICY)
    (folder / "boosting.yaml").write_text(POLICY + "  tails: {severity: enforce}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(home / "config"))  # where the ledger's key is
        for name in ("plain", "boosting"):
            generator(folder, name).fit(folder / "real.parquet").generate(ROWS, folder / name)
    return folder


def generator(place: Path, policy: str = "plain", ledger: str = "ledger.db") -> safegen.Generator:
    return safegen.Generator(policy=place / f"{policy}.yaml", ledger=place / ledger)


def trained_on(place: Path, source: Any, ledger: str = "ledger.db") -> int:
    """Rows beside the real ones that a fit is shown."""
    gen = generator(place, ledger=ledger)
    gen.prepare(place / "real.parquet", source)
    parts = gen._ready().parts
    assert parts is not None
    return parts.training["table"].num_rows - ROWS


def forged(table: pa.Table) -> pa.Table:
    """The odd ones count five times as much as others, not a fifth."""
    odd = np.asarray(table.column("kind")) == "odd"
    at = table.schema.get_field_index(WEIGHT_COLUMN)
    return table.set_column(at, WEIGHT_COLUMN, pa.array(np.where(odd, 5, 1).astype(np.float32)))


def flat(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index(WEIGHT_COLUMN)
    return table.set_column(at, WEIGHT_COLUMN, pa.array(np.ones(len(table), dtype=np.float32)))


def bare(table: pa.Table) -> pa.Table:
    return table.drop_columns(list(PROVENANCE_COLUMNS)).replace_schema_metadata(None)


def renamed(table: pa.Table) -> pa.Table:
    names = [n.upper() if n == WEIGHT_COLUMN else n for n in table.column_names]
    return forged(table).rename_columns(names)


def file_of(folder: Path) -> Path:
    return folder / "data" / "part-00000.parquet"


def test_a_release_counts_by_its_weights_in_its_own_folder(place: Path) -> None:
    kept = safegen.open(place / "boosting", policy=place / "plain.yaml", ledger=place / "ledger.db")
    weights = kept.weights().astype(float)
    due = int(weights.sum() / weights.max())
    assert ROWS / 2 < due < ROWS
    assert kept.manifest.weighted
    for source in (kept, kept.path, {"table": kept.path}):
        assert trained_on(place, source) == due
    shutil.copytree(kept.path, place / "moved")
    assert trained_on(place, place / "moved") == due
    assert trained_on(place, kept.path, ledger="another.db") == due


@pytest.mark.parametrize("change", [forged, flat, bare, renamed, lambda t: t])
def test_rows_known_by_their_digest_do_not_bring_weights(
    place: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table]
) -> None:
    """Nor come without, nor with the right ones, which nothing tells from others."""
    table = change(pq.read_table(file_of(place / "boosting")))
    pq.write_table(table, tmp_path / "saved.parquet")
    for source in (tmp_path / "saved.parquet", table, table.to_pandas()):
        with pytest.raises(SourceError, match=NOT_PROVEN):
            trained_on(place, source)


def test_a_copied_file_and_a_part_with_weights_are_refused(place: Path, tmp_path: Path) -> None:
    shutil.copy(file_of(place / "boosting"), tmp_path / "copy.parquet")
    part = pq.read_table(tmp_path / "copy.parquet").slice(100)
    pq.write_table(forged(part), tmp_path / "part.parquet")
    for source in (tmp_path / "copy.parquet", file_of(place / "boosting"), part):
        for ledger in ("ledger.db", "another.db"):
            with pytest.raises(SourceError, match=NOT_PROVEN):
                trained_on(place, source, ledger)


@pytest.mark.parametrize("change", [lambda t: t, bare])
def test_rows_without_weights_are_used_wherever_they_are(
    place: Path, tmp_path: Path, change: Callable[[pa.Table], pa.Table]
) -> None:
    table = change(pq.read_table(file_of(place / "plain")))
    pq.write_table(table, tmp_path / "saved.parquet")
    for source in (place / "plain", tmp_path / "saved.parquet", table, table.to_pandas()):
        assert trained_on(place, source) == ROWS


def test_rows_that_count_alike_are_used(place: Path) -> None:
    kept = safegen.open(place / "boosting", policy=place / "plain.yaml", ledger=place / "ledger.db")
    alike = kept.resampled()
    assert trained_on(place, alike.to_arrow()) == alike.to_arrow().num_rows
    assert trained_on(place, alike.to_arrow(provenance=True)) == alike.to_arrow().num_rows


def doubled(table: pa.Table) -> pa.Table:
    """A feature in place of another: rows that no digest knows."""
    x = pa.array(np.asarray(table.column("x")) * 2)
    return table.set_column(table.schema.get_field_index("x"), "x", x)


def test_a_derivation_does_not_wash_weights_away(place: Path) -> None:
    ledger = place / "ledger.db"
    kept = safegen.open(place / "boosting", policy=place / "plain.yaml", ledger=ledger)
    washed = doubled(kept.to_arrow())
    assert safegen.derive(washed, [place / "real.parquet", kept], ledger=ledger).weighted
    with pytest.raises(SourceError, match=NOT_PROVEN):
        trained_on(place, washed)
    again = doubled(washed)
    assert safegen.derive(again, [washed], ledger=ledger).weighted
    # Honest twins: of rows that count alike, and of a release whose rows do.
    plain = safegen.open(place / "plain", policy=place / "plain.yaml", ledger=ledger)
    for source in (kept.resampled(), plain):
        frame = doubled(source.to_arrow())
        assert not safegen.derive(frame, [source], ledger=ledger).weighted
        assert trained_on(place, frame) == frame.num_rows


@pytest.mark.parametrize("release", ["plain", "boosting"])
def test_a_consistent_rewrite_brings_no_weights(place: Path, tmp_path: Path, release: str) -> None:
    """Other weights, all digests to match; under its own name, and under one of nobody's."""
    folder = tmp_path / "forged"
    shutil.copytree(place / release, folder)
    rewrite(folder, forged)
    reseal(folder, {**document(folder), "weighted": True})
    with pytest.raises(safegen.AdmissionRefused, match="lineage/intact"):
        trained_on(place, folder)
    with pytest.raises(SourceError, match=NOT_PROVEN):  # where nothing but weights is asked about
        safegen.Generator(policy="lab", ledger=place / "ledger.db").prepare(folder)
    reseal(folder, {**document(folder), "dataset_id": "01" + "A" * 24})
    with pytest.raises(safegen.AdmissionRefused, match="lineage/intact"):
        trained_on(place, folder)  # the ledger is said to have decided on it, and does not know it
    reseal(folder, {**document(folder), "decisions": []})
    assert safegen.verify(folder, ledger=place / "ledger.db").weighted
    with pytest.raises(SourceError, match=NOT_PROVEN):
        trained_on(place, folder)


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf, 1e9])
def test_weights_that_are_none_are_neither_released_nor_used(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weight: float
) -> None:
    write = PartWriter.write

    def spoiled(self: PartWriter, made: Block) -> None:
        assert made.weights is not None
        weights = np.where(np.arange(len(made.weights)) == 7, weight, made.weights)
        write(self, Block(made.tables, weights))

    gen = generator(place, "boosting").fit(place / "real.parquet")
    monkeypatch.setattr(PartWriter, "write", spoiled)
    with pytest.raises(BackendError, match="weights that are not finite"):
        gen.generate(ROWS, tmp_path / "spoiled")
    assert not (tmp_path / "spoiled").exists()
    monkeypatch.setattr("safegen.engines.writing.sound_weights", lambda _: True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # sums of infinite weights
        gen.generate(ROWS, tmp_path / "spoiled", seed=12)
    with pytest.raises(SourceError, match="not above 0, or absurd"):
        trained_on(place, tmp_path / "spoiled")


def test_a_model_finds_its_weighted_rows_only_as_they_were(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "boosting", made := tmp_path / "made")
    sources = [place / "real.parquet", made]
    generator(place).fit(*sources).save(tmp_path / "model")
    options: dict[str, Any] = {"policy": place / "plain.yaml", "ledger": place / "ledger.db"}
    table = pq.read_table(file_of(made))
    for saved in (forged(table), bare(table)):
        pq.write_table(saved, tmp_path / "saved.parquet")
        source = [sources[0], tmp_path / "saved.parquet"]
        with pytest.raises(SourceError, match=NOT_PROVEN):
            safegen.Generator.load(tmp_path / "model", source=source, **options)
    for source in (None, sources):
        found = safegen.Generator.load(tmp_path / "model", source=source, **options)
        assert found._ready().parts is not None
    rewrite(made, forged)
    reseal(made, {**document(made), "weighted": True})
    lost = safegen.Generator.load(tmp_path / "model", **options)
    assert lost._ready().parts is None
