"""A table whose rows are elsewhere is looked at there: the same decision, and no key goes along."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import safegen
from safegen.errors import AdmissionRefused, SourceError
from safegen.ledger import open_ledger
from safegen.lineage.evidence import resolve
from safegen.lineage.looking import looked
from safegen.lineage.search import SAMPLE
from safegen.tables.batches import Batches, PartFunction
from safegen.tables.elsewhere import _Packing, _Part, is_elsewhere
from safegen.tables.sources import TABLE, Source, read_source
from safegen.testing import example_table

PARTS = 5


class Elsewhere:
    """A table in parts of unequal size, and what was sent to them and came back."""

    def __init__(self, table: pa.Table, parts: int = PARTS):
        cuts = [0, *(table.num_rows * i * i // parts**2 for i in range(1, parts + 1))]
        self.parts = [table.slice(a, b - a) for a, b in pairwise(cuts)]
        self.sent: list[bytes] = []
        self.came = 0
        self.iterated = 0
        self.table = table

    def there(self, of: PartFunction) -> Iterator[Any]:
        for part in reversed(self.parts):
            self.sent.append(pickle.dumps(of))
            answer = pickle.dumps(
                pickle.loads(self.sent[-1])(iter(part.to_batches(max_chunksize=300)))
            )
            self.came += len(answer)
            yield pickle.loads(answer)

    def open(self) -> Iterator[pa.RecordBatch]:
        self.iterated += 1
        yield from self.table.to_batches()

    @property
    def source(self) -> Source:
        rows = self.table.num_rows
        batches = Batches(self.table.schema, self.open, rows, there=self.there)
        return Source("memory:", {TABLE: batches})


@dataclass(frozen=True)
class World:
    """A ledger with one release, bare of all marks, and real rows of the same law."""

    home: Path
    made: pa.Table
    real: pa.Table

    def enter(self, patch: pytest.MonkeyPatch) -> None:
        for folder in ("DATA", "CONFIG", "CACHE"):
            patch.setenv(f"XDG_{folder}_HOME", str(self.home / folder.lower()))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    real = example_table(9_000, seed=3)
    empty = World(tmp_path_factory.mktemp("world"), real, real)
    with pytest.MonkeyPatch.context() as patch:
        empty.enter(patch)
        released = safegen.Generator("sdv.gaussian_copula").fit(real.slice(0, 3_000)).sample(6_000)
    return replace(empty, made=released.to_arrow().replace_schema_metadata(None))


@pytest.fixture(autouse=True)
def _in_the_world(_home: None, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.enter(monkeypatch)


def decided(source: Any) -> tuple[bool, dict[str, str], str]:
    """What a check comes to: the digest too."""
    [facts] = [resolve(read_source(source), open_ledger())]
    found = safegen.check(source, policy="baseline")
    return found.allowed, {n: f.status for n, f in found.findings.items()}, facts.logical_digest


def test_a_release_is_known_where_it_lies_and_real_rows_are_admitted(world: World) -> None:
    for table, allowed in ((world.made, False), (world.real, True)):
        there = Elsewhere(table)
        assert decided(there.source) == decided(table)
        assert decided(there.source)[0] is allowed
        assert there.iterated == 0  # no row came here


def test_some_released_rows_among_real_ones_are_found_there(world: World) -> None:
    rng = np.random.default_rng(2)
    mixed = pa.concat_tables([world.real, world.made.slice(0, 450)])
    mixed = mixed.take(pa.array(rng.permutation(mixed.num_rows)))
    there = Elsewhere(mixed)
    assert decided(there.source) == decided(mixed)
    with pytest.raises(AdmissionRefused):
        safegen.guard(there.source, policy="baseline")
    facts = resolve(there.source, open_ledger())
    assert {e.ring for e in facts.evidence} == {"fingerprints"}
    # As often as in a table that is here.
    here = resolve(read_source(mixed), open_ledger())
    assert here.search is not None
    assert facts.search is not None
    assert facts.search["rings"]["whole rows"] == here.search["rings"]["whole rows"]
    assert there.iterated == 0


def test_provenance_columns_and_marks_add_up(world: World) -> None:
    rows = world.real.num_rows
    origin = pa.array(["synthetic" if i % 3 == 0 else "real" for i in range(rows)])
    marked = world.real.append_column("_safegen_origin", origin)
    marked = marked.append_column("who", pa.array([f"sdv-id-{i}" for i in range(rows)]))
    keys = open_ledger().lookup_keys()
    there, here = (looked(b, keys) for b in _both(marked))
    assert there.in_band.evidence(TABLE) == here.in_band.evidence(TABLE)
    assert there.marks.evidence() == here.marks.evidence() != []
    assert there.rows.value() == here.rows.value()
    assert [x.value() for x in there.lookups.values()] == [x.value() for x in here.lookups.values()]


def _both(table: pa.Table) -> tuple[Batches, Batches]:
    return Elsewhere(table).source.tables[TABLE], Batches.of(table)


def test_a_sample_of_all_parts_is_one_of_the_whole(world: World) -> None:
    """As large, from every part, and no part's rows twice as likely."""
    table = pa.table({"part": np.arange(100_000) // 1_000, "x": np.arange(100_000)})
    keys = [("k", bytes(32))]
    sample = looked(Elsewhere(table, 7).source.tables[TABLE], keys).sample
    assert sample is not None
    columns = sample.columns()
    assert len(columns["x"]) == SAMPLE
    values = columns["x"].numbers
    assert len(np.unique(values)) == SAMPLE
    counts = np.bincount(values.astype(int) // 1_000)
    assert counts.min() > 327 - 6 * 327**0.5
    assert counts.max() < 327 + 6 * 327**0.5
    again = looked(Elsewhere(table, 7).source.tables[TABLE], keys).sample
    assert again is not None
    assert np.array_equal(again.columns()["x"].numbers, values)
    # Of two parts of a size not the same places.
    halves = Elsewhere(table, 2)
    halves.parts = [table.slice(0, 50_000), table.slice(50_000)]
    sample = looked(halves.source.tables[TABLE], keys).sample
    assert sample is not None
    drawn = sample.columns()["x"].numbers
    twice = np.intersect1d(drawn[drawn < 50_000], drawn[drawn >= 50_000] - 50_000)
    assert len(twice) < 6_000  # 5,400 by chance


def test_the_ledgers_key_stays_here(world: World) -> None:
    there = Elsewhere(world.real)
    safegen.check(there.source, policy="baseline")
    keys = [key for _, key in open_ledger().lookup_keys()]
    assert keys
    assert len(there.sent) > PARTS  # digests, and then whole rows
    for sent in there.sent:
        assert all(key not in sent and key.hex().encode() not in sent for key in keys)


def test_little_comes_back(world: World) -> None:
    """Cells of the sampled rows, eight bytes for each row, and some kilobytes for each part."""
    table = pa.concat_tables([world.real] * 8)
    one, more = Elsewhere(table, 2), Elsewhere(table, 40)
    safegen.check(one.source, policy="baseline")
    safegen.check(more.source, policy="baseline")
    assert more.came < one.came + 38 * 2 * 16_384


def test_an_index_column_is_looked_past_there_too(world: World) -> None:
    index = pa.array(range(world.made.num_rows))
    saved = world.made.add_column(0, "Unnamed: 0", index)
    there = Elsewhere(saved)
    assert decided(there.source) == decided(saved)
    assert not decided(there.source)[0]
    assert there.iterated == 0


def test_attested_where_it_lies_and_known_here(world: World) -> None:
    table = world.real.slice(0, 777)
    said = safegen.attest(Elsewhere(table).source, by="a tester")
    facts = resolve(read_source(table), open_ledger())
    assert facts.attested
    assert facts.dataset_id == said.dataset_id
    assert said.rows == 777


def test_a_fit_takes_its_rows_here(world: World) -> None:
    there = Elsewhere(world.real.slice(0, 500))
    gen = safegen.Generator("sdv.gaussian_copula")
    gen.prepare(there.source)
    parts = gen._ready().parts
    assert parts is not None
    assert parts.training[TABLE].num_rows == 500
    assert there.iterated > 0


def test_a_part_that_cannot_be_read_says_nothing_of_its_values() -> None:
    schema = pa.schema([pa.field("x", pa.int64())])
    batch = pa.record_batch({"x": ["a secret"]})
    for function in (_Part(schema, len), _Packing(schema)):
        with pytest.raises(SourceError) as raised:
            list(function(iter([batch])))
        assert "secret" not in "".join(traceback.format_exception(raised.value))
    numbers = pa.record_batch({"x": ["7"], "other": [0]})
    [answer] = _Part(schema, list)(iter([numbers]))
    [found] = pickle.loads(answer.column(0)[0].as_py())
    assert found.to_pydict() == {"x": [7]}
    assert not list(_Part(schema, list)(iter([numbers.slice(0, 0)])))


def test_what_only_looks_like_another_engines_table_is_none() -> None:
    class Frame:
        def map_batches(self) -> None: ...

    assert not is_elsewhere(Frame())
    with pytest.raises(SourceError, match="is not a source"):
        read_source(Frame())
