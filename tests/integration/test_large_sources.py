"""Sources larger than memory: admission and gates as ever, and a stated part to fit on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import safegen
from local_store import Store
from safegen import planning
from safegen.errors import AdmissionRefused, SourceError, UsageError, VerificationError
from safegen.reading import Reading
from safegen.tables import memory
from safegen.tables.batches import Batches
from safegen.testing import example_table

GROUPS, OF = 40, 500  # row groups, rows in each
ROWS = GROUPS * OF
BUDGET = 400_000  # bytes: a few thousand rows

BACKEND = "sdv.gaussian_copula"


@pytest.fixture(scope="module")
def table() -> pa.Table:
    found = example_table(ROWS, seed=5)
    rare = np.full(ROWS, "usual", dtype=object)
    rare[[3, 70, 9_000]] = "seldom"
    return found.append_column("rare", pa.array(rare))


@pytest.fixture
def folder(table: pa.Table, tmp_path: Path) -> Path:
    """Four files of ten row groups each."""
    place = tmp_path / "large"
    place.mkdir()
    for i in range(4):
        part = table.slice(i * ROWS // 4, ROWS // 4)
        pq.write_table(part, place / f"part-{i}.parquet", row_group_size=OF)
    return place


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with hardly any memory."""
    monkeypatch.setattr(memory, "budget", lambda: BUDGET)


def fitted(source: Any, policy: str = "baseline", **more: Any) -> safegen.Generator:
    return safegen.Generator(BACKEND, policy).fit(source, **more)


def findings(gen: safegen.Generator) -> dict[str, str]:
    assert gen.decision is not None
    return {name: f.status for name, f in gen.decision.findings.items()}


def test_what_fits_has_the_manifest_that_it_had(folder: Path) -> None:
    made = fitted(folder).sample(300).manifest
    assert made.sources[0].sampled is None
    assert "sampled" not in made.document()["sources"][0]
    assert not any("drawn" in text for _, text in made.facts())


def test_a_large_source_is_admitted_and_judged_as_a_whole_and_says_what_was_fitted_on(
    folder: Path, table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safegen.attest(folder, by="a tester")
    whole = fitted(folder, "anchored")
    assert whole.decision is not None
    monkeypatch.setattr(memory, "budget", lambda: BUDGET)
    gen = fitted(folder, "anchored")
    assert gen.decision is not None
    # The same admission: counts, digests and evidence are of all rows.
    assert findings(gen) == findings(whole)
    assert gen.decision.subject == whole.decision.subject
    [facts], [of] = gen._ready().facts, whole._ready().facts
    assert facts.sampled is not None
    assert facts.to_json() | {"sampled": None} == of.to_json() | {"sampled": None}
    # A part was fitted on; a level of three rows among 20,000 is in it.
    parts = gen._ready().parts
    assert parts is not None
    real = parts.real("table")
    assert BUDGET / 2 < real.nbytes < BUDGET * 1.1
    assert "seldom" in real.column("rare").to_pylist()
    # The release gate compares with all rows.
    made = gen.generate(1_000, tmp_path / "out")
    assert made.manifest.ancestry == "attested"
    profile = gen._request(1_000, 11, None).profiles(gen._ready(), 0.01)
    assert profile is not None
    assert profile["table"].rows == ROWS
    assert profile["table"].columns["rare"].levels == {"usual": ROWS - 3, "seldom": 3}
    # Manifest and card say so.
    [source] = made.manifest.sources
    assert source.sampled is not None
    assert source.rows == source.sampled.of == ROWS
    assert source.sampled.rows == real.num_rows
    assert abs(source.sampled.rows - source.sampled.asked) <= source.sampled.strata
    said = f"of which {real.num_rows:,} were drawn (stratified, seed 7) and fitted on"
    assert said in str(made.manifest)
    assert said in (tmp_path / "out" / "README.md").read_text()
    assert safegen.verify(tmp_path / "out", deep=True).sources == made.manifest.sources


@pytest.mark.usefixtures("_small")
def test_a_seed_repeats_and_another_draws_other_rows(folder: Path) -> None:
    drawn = []
    for seed in (7, 7, 8):
        gen = safegen.Generator(BACKEND)
        gen.prepare(folder, seed=seed)
        [facts] = gen._ready().facts
        assert facts.sampled is not None
        drawn.append(facts.sampled["logical_digest"])
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.usefixtures("_small")
def test_rows_that_are_known_are_refused_and_their_honest_twin_is_admitted(
    folder: Path, table: pa.Table, tmp_path: Path
) -> None:
    made = fitted(table.slice(0, 3_000)).sample(8_000)
    rows = made.to_arrow()
    bare = tmp_path / "bare"
    bare.mkdir()
    for i in range(2):  # re-saved without its stamp
        part = rows.slice(i * 4_000, 4_000).replace_schema_metadata(None)
        pq.write_table(part, bare / f"part-{i}.parquet")
    mixed = tmp_path / "mixed"
    shutil.copytree(folder, mixed)
    pq.write_table(
        rows.slice(0, 400).replace_schema_metadata(None).cast(table.schema), mixed / "more.parquet"
    )
    for source in (bare, mixed):
        with pytest.raises(AdmissionRefused):
            safegen.Generator(BACKEND).prepare(source)
    safegen.Generator(BACKEND).prepare(folder)


@pytest.mark.usefixtures("_small")
def test_a_file_that_changes_between_passes_is_refused(
    folder: Path, table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = safegen.preparation.gates.resolve_all
    edit = {"due": True}

    def changed_after(*args: Any, **more: Any) -> Any:
        found = resolved(*args, **more)
        if edit.pop("due", False):
            part = table.slice(0, ROWS // 4)
            other = part.set_column(
                0, part.schema.field(0), part.column(0).take(pa.array(range(ROWS // 4)[::-1]))
            )
            pq.write_table(other, folder / "part-0.parquet", row_group_size=OF)
        return found

    monkeypatch.setattr(safegen.preparation.gates, "resolve_all", changed_after)
    gen = safegen.Generator(BACKEND)
    with pytest.raises(SourceError, match="changed since it was first read"):
        gen.prepare(folder)
    gen.prepare(folder)  # as it is now it is a source as any other

    # Nor may it change before the release gate asks for all rows.
    gen.train()
    shutil.copy(folder / "part-1.parquet", folder / "part-2.parquet")
    with pytest.raises(SourceError, match="changed since it was first read"):
        gen.sample(100)


@pytest.mark.usefixtures("_small")
def test_a_saved_model_finds_the_rows_that_it_was_fitted_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gen = fitted(folder)
    first = gen.generate(500, tmp_path / "first").manifest
    model = gen.save(tmp_path / "model")
    # On this machine or a larger one: the rows are those of the fit.
    monkeypatch.setattr(memory, "budget", lambda: 1 << 40)
    made = safegen.Generator.load(model).generate(500, tmp_path / "again").manifest
    assert made.logical_digest == first.logical_digest
    assert made.sources == first.sources
    assert made.extra["request"] == first.extra["request"]
    # The same rows in another order are the same source, of which others would be drawn.
    other = tmp_path / "other"
    other.mkdir()
    for i in range(4):
        shutil.copy(folder / f"part-{i}.parquet", other / f"part-{3 - i}.parquet")
    with pytest.raises(SourceError, match="in another"):
        safegen.Generator.load(model, source=other)
    safegen.Generator.load(model, source=folder)
    # A model that nobody vouches for says nothing of which rows it saw.
    monkeypatch.setattr(memory, "budget", lambda: BUDGET)
    stranger = safegen.Generator.load(
        model, source=folder, policy="lab", ledger=tmp_path / "new.db"
    )
    [facts] = stranger._ready().facts
    assert facts.sampled is not None
    assert facts.origin == "unknown"


@pytest.mark.usefixtures("_small")
def test_sources_keep_their_shares_of_each_other(folder: Path, table: pa.Table) -> None:
    safegen.attest(folder, by="a tester")
    made = fitted(folder, "anchored").sample(5_000)
    gen = safegen.Generator(BACKEND, "anchored")
    gen.prepare(folder, made)
    real, synthetic = gen._ready().facts
    assert (real.rows, synthetic.rows) == (ROWS, 5_000)
    assert real.sampled is not None
    assert synthetic.sampled is not None
    ratio = synthetic.sampled["rows"] / real.sampled["rows"]
    assert abs(ratio / (5_000 / ROWS) - 1) < 0.05
    parts = gen._ready().parts
    assert parts is not None
    assert parts.whole is not None
    assert [f.uri for _, f in parts.whole.sources] == [str(folder)]


@pytest.mark.usefixtures("_small")
def test_conditions_count_in_all_rows(folder: Path, table: pa.Table) -> None:
    gen = fitted(folder)
    member = {"rare": "usual"}
    profile = gen._request(200, 11, member).profiles(gen._ready(), 0.01)
    assert profile is not None
    assert profile["table"].rows == ROWS - 3
    with pytest.raises(UsageError, match="no real row meets"):
        gen.sample(100, conditions={"rare": "never"})


@pytest.mark.usefixtures("_small")
def test_what_hangs_together_is_not_cut(folder: Path, table: pa.Table, tmp_path: Path) -> None:
    gen = safegen.Generator("sdv.par")
    with pytest.raises(SourceError, match="draws no part"):
        gen.prepare(folder, schema={"columns": {"rare": {"role": "sequence_key"}}})
    with pytest.raises(SourceError, match="draws no part"):
        safegen.Generator("sdv.hma").prepare({"a": folder, "b": folder})
    # Small ones are read as ever.
    gen.prepare(table.slice(0, 200), schema={"columns": {"rare": {"role": "sequence_key"}}})


@pytest.mark.usefixtures("_small")
def test_a_dry_run_says_so(folder: Path) -> None:
    gen = safegen.Generator(BACKEND)
    gen.prepare(folder)
    [(_, said), *_] = planning.plan(gen, 1_000)
    assert said.startswith(f"{ROWS:,} rows, too large for memory")


@pytest.mark.usefixtures("_small")
def test_memory_is_bounded_whatever_the_rows(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Arrow holds at most is the same for three times the rows."""
    held: list[int] = []
    passing = Batches.__iter__

    def watched(batches: Batches) -> Iterator[pa.RecordBatch]:
        for batch in passing(batches):
            held.append(pa.total_allocated_bytes())
            yield batch

    monkeypatch.setattr(Batches, "__iter__", watched)
    peaks = []
    for files in (8, 24):
        place = tmp_path / f"larger-{files}"
        place.mkdir()
        for i in range(files):
            shutil.copy(folder / f"part-{i % 4}.parquet", place / f"part-{i:02}.parquet")
        before = pa.total_allocated_bytes()
        held.clear()
        gen = safegen.Generator(BACKEND)
        gen.prepare(place)
        profile = gen._request(1_000, 11, None).profiles(gen._ready(), 0.01)
        assert profile is not None
        assert profile["table"].rows == files * ROWS // 4
        assert len(held) > 3 * files  # every batch of each pass was looked at
        peaks.append(max(held) - before)
    assert peaks[1] < 1.3 * peaks[0]


def test_a_large_source_in_a_store(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in sorted(folder.iterdir()):
        store.put(f"raw/{file.name}", file)
    gen = safegen.Generator(BACKEND)
    gen.prepare(folder)
    [here] = gen._ready().facts
    monkeypatch.setattr(memory, "budget", lambda: BUDGET)
    gen.prepare(store.uri("raw"))
    [there] = gen._ready().facts
    assert there.logical_digest == here.logical_digest
    assert there.sampled is not None
    made = gen.train().sample(300)
    assert made.manifest.sources[0].uri == store.uri("raw")
    store.put("raw/part-0.parquet", folder / "part-1.parquet")
    gen.sample(301)  # counted once: what is compared with are the rows that were admitted
    with pytest.raises(SourceError, match="changed since it was first read"):
        gen.sample(100, conditions={"rare": "usual"})


def test_text_files_are_in_memory_when_they_are_open(
    table: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.csv as csv

    monkeypatch.setattr(memory, "budget", lambda: 1)
    csv.write_csv(table.slice(0, 100), tmp_path / "a.csv")
    assert Reading.of([tmp_path / "a.csv"]).levels is None
    assert Reading.of([table]).levels is None


def test_a_stolen_sample_entry_is_no_way_round(folder: Path, tmp_path: Path) -> None:
    """A model folder that was edited does not load, whatever it says of its sample."""
    gen = fitted(folder)
    model = gen.save(tmp_path / "model")
    [document] = [
        p for p in model.iterdir() if p.suffix == ".json" and b'"facts"' in p.read_bytes()
    ]
    text = document.read_text()
    document.write_text(text.replace('"facts"', '"facts" ', 1))
    with pytest.raises(VerificationError):
        safegen.Generator.load(model)
