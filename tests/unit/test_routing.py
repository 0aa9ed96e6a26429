"""Which of many releases a table is compared with: the right one, and the file says nothing that
the ledger's key does not vouch for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from test_fingerprints import KEY, OTHER, columns, law, profiles

from safegen.ledger import Attached
from safegen.lineage import routing
from safegen.lineage.detection import ALPHA, met_on_views, met_whole
from safegen.lineage.fingerprints import Cells, Prints, WholeRows
from safegen.lineage.forms import Form, form_of
from safegen.lineage.printing import Printing
from safegen.lineage.registering import Known
from safegen.lineage.routing import DIRECT, Routed, Routes, routes

MANY, ROWS = 60, 1_500
LEDGER = "ab" * 16


def made(number: int) -> pa.Table:
    return law(1_000 + number, ROWS, fitted=True)


class Releases:
    """Releases of one form, and how often each was read."""

    def __init__(self) -> None:
        self.form: Form = form_of(columns(made(0)), 7)
        self.known = Known("form", "key", KEY, self.form)
        self.there = [Attached(f"d{i:03}", "fingerprints", "form/t", "key") for i in range(MANY)]
        self._prints: dict[str, Prints] = {}
        self.read_: list[str] = []

    def read(self, where: Attached) -> Prints:
        self.read_.append(where.dataset_id)
        if where.dataset_id not in self._prints:
            number = int(where.dataset_id[1:])
            printing = Printing(made(0).column_names, KEY)
            printing.update(made(number))
            printing.update_decoys(law(5_000 + number, ROWS, fitted=True))
            self._prints[where.dataset_id] = printing.finish(self.form, law(3, 3_000))
        return self._prints[where.dataset_id]

    def routes(self, upto: int = MANY) -> Routes:
        return routes(LEDGER, self.known, self.there[:upto], self.read)

    def cells(self, table: pa.Table) -> tuple[Cells, WholeRows]:
        some = columns(table)
        match = self.form.matched(profiles(table))
        numbered = {c.number: some[c.name] for c in match.columns}
        hasher = Printing(made(0).column_names, KEY).hasher
        return Cells(hasher, self.form, numbered, match), WholeRows.of(hasher.whole(numbered))

    def routed(self, table: pa.Table, *, whole: bool = True, upto: int = MANY) -> Routed:
        cells, rows = self.cells(table)
        views = {i: cells.counted(v) for i, v in enumerate(self.form.views)}
        return self.routes(upto).routed(
            self.there[:upto], rows if whole else None, views, table.num_rows, MANY, 0.95
        )

    def found(self, table: pa.Table, chosen: tuple[Attached, ...]) -> set[str]:
        cells, rows = self.cells(table)
        assert cells.match is not None
        found = set()
        for where in chosen:
            prints = self.read(where)
            mets = (
                met_on_views(prints, self.form, cells.match, cells, MANY),
                met_whole(prints, rows, MANY),
            )
            if any(m is not None and m.p <= ALPHA for m in mets):
                found.add(where.dataset_id)
        return found


@pytest.fixture(scope="module")
def releases() -> Releases:
    return Releases()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def mixture(number: int, planted: int, rows: int) -> pa.Table:
    some = made(number).slice(0, planted)
    return pa.concat_tables([law(77, rows - planted), some.cast(law(77, 1).schema)])


def test_the_release_that_rows_are_of_is_looked_at(releases: Releases) -> None:
    for number in (0, 17, 59):
        for table in (made(number).slice(0, 200), mixture(number, 300, 3_000)):
            routed = releases.routed(table, whole=False)
            assert len(routed.chosen) == DIRECT < MANY
            assert releases.there[number] in routed.chosen
            assert releases.found(table, routed.chosen) == {f"d{number:03}"}
        few = mixture(number, 25, 3_000)  # whole rows say so where views do not
        assert releases.there[number] in releases.routed(few).chosen


def test_what_least_says_is_looked_at(releases: Releases) -> None:
    """Rows planted among real ones, as many as `least` says, lead to their release."""
    real = law(78, 4_000)
    least = releases.routed(real, whole=False).least
    assert 0 < least < 0.5
    hit = []
    for number in range(20):
        table = mixture(number, int(np.ceil(least * 4_000)), 4_000)
        chosen = releases.routed(table, whole=False).chosen
        hit.append(f"d{number:03}" in releases.found(table, chosen))
    assert np.mean(hit) >= 0.85
    # Whole rows are held against all releases: a smaller share is enough.
    assert releases.routed(real).least < least


def test_of_many_releases_a_part_is_kept_and_the_power_says_so(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in memory has an end, whatever the number of releases: what is held against all of
    them is less then, and more of a release's rows are needed."""
    real, all_ = law(78, 4_000), releases.routes()
    least = [releases.routed(real, whole=whole).least for whole in (False, True)]
    monkeypatch.setattr(routing, "MOST", 6_000)
    monkeypatch.setattr(routing, "MOST_ROWS", 20_000)
    monkeypatch.setattr(routing, "_TOGETHER", 7)
    monkeypatch.setenv("XDG_CACHE_HOME", os.environ["XDG_CACHE_HOME"] + "-few")
    few = releases.routes()
    assert all(len(view.cells) <= 6_000 for view in few.views)
    assert 8_000 < len(few.whole.cells) <= 20_000 < len(all_.whole.cells)
    less = [releases.routed(real, whole=whole).least for whole in (False, True)]
    assert all(a < b < 0.9 for a, b in zip(least, less, strict=True))
    for number in (5, 40):
        table = mixture(number, int(np.ceil(less[1] * 4_000)), 4_000)
        assert releases.there[number] in releases.routed(table).chosen


def test_no_release_is_read_again_for_a_second_table(releases: Releases) -> None:
    releases.routes()
    releases.read_.clear()
    releases.routes()
    assert releases.read_ == []


def test_new_releases_are_looked_at_at_once_and_kept_when_they_are_many(
    releases: Releases,
) -> None:
    releases.routes(30)
    releases.read_.clear()
    routed = releases.routed(law(79, 500), upto=30 + DIRECT)
    assert releases.read_ == []
    assert set(releases.there[30 : 30 + DIRECT]) < set(routed.chosen)
    releases.routes(30 + DIRECT + 1)
    assert releases.read_ == [f"d{i:03}" for i in range(30, 30 + DIRECT + 1)]
    # What was put in later is found as what was there first.
    table = made(41).slice(0, 300)
    assert releases.there[41] in releases.routed(table, upto=30 + DIRECT + 1).chosen


def test_a_release_that_the_ledger_does_not_have_is_not_looked_at(releases: Releases) -> None:
    """The file knows more than the ledger: a backup was put in its place."""
    releases.routes()
    table = made(50).slice(0, 500)
    assert releases.there[50] not in releases.routed(table, upto=40).chosen


@pytest.mark.parametrize("way", ["a bit", "cut", "empty", "another key", "junk"])
def test_a_file_that_was_changed_is_made_again(releases: Releases, way: str) -> None:
    first = releases.routes()
    (path,) = Path(os.environ["XDG_CACHE_HOME"]).glob("**/*.arrow")
    data = path.read_bytes()
    if way == "a bit":
        path.write_bytes(data[:-900] + bytes([data[-900] ^ 1]) + data[-899:])
    elif way == "another key":
        routing._write(path, Known("form", "key", OTHER, releases.form), first)
    else:
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "junk": b"x" * 99}[way])
    releases.read_.clear()
    again = releases.routes()
    assert len(releases.read_) == MANY
    assert again.names == first.names
    assert all((a.cells == b.cells).all() for a, b in zip(again.views, first.views, strict=True))
    releases.read_.clear()
    releases.routes()
    assert releases.read_ == []


def test_drafts_of_processes_that_were_killed_are_removed(releases: Releases) -> None:
    releases.routes()
    (path,) = Path(os.environ["XDG_CACHE_HOME"]).glob("**/*.arrow")
    old, new = path.with_name(".routes-old"), path.with_name(".routes-new")
    for draft in (old, new):
        draft.write_bytes(b"half")
    os.utime(old, (1, 1))
    path.unlink()
    releases.routes()
    assert path.exists()
    assert not old.exists()
    assert new.exists()  # somebody may be writing it


def test_a_cache_that_cannot_be_written_is_none(
    releases: Releases, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    table = made(3).slice(0, 300)
    assert releases.there[3] in releases.routed(table).chosen
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "full"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(routing.os, "replace", full)
    assert releases.there[3] in releases.routed(table).chosen
    assert list((tmp_path / "full").glob("**/.routes-*")) == []
