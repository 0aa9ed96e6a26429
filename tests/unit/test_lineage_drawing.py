"""The lineage of a ledger as a drawing: nothing lost, nothing on top of anything, few marks."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from large_ledger import Growing, entry, large_ledger, strange
from safegen.console.contents import Contents
from safegen.console.drawing import INDENT, drawing
from safegen.console.index import Index
from safegen.console.marks import Asked, Drawing, Mark
from safegen.ledger import Record, open_ledger


@pytest.fixture
def growing(tmp_path: Path) -> Growing:
    return Growing(open_ledger(tmp_path / "ledger.db"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    path = tmp_path_factory.mktemp("large") / "ledger.db"
    return Index(large_ledger(path, 600, 0)).contents()


def of(growing: Growing, asked: Asked | None = None) -> Drawing:
    return drawing(Index(growing.ledger).contents(), asked or Asked())


def mark(drawn: Drawing, record: Record) -> Mark:
    return next(m for m in drawn.marks if m.key == record.dataset_id)


def sound(drawn: Drawing, most: int) -> None:
    """What holds of every drawing."""
    assert sum(m.count for m in drawn.marks) == drawn.datasets + drawn.missing
    assert len(drawn.marks) <= most
    places = Counter((m.x, m.y) for m in drawn.marks)
    assert not places or max(places.values()) == 1
    rows: dict[int, list[float]] = {}
    for x, y in sorted(places):
        rows.setdefault(y, []).append(x)
    # A name has the width of a column: but for one place, nearer marks are in rows of their own.
    assert not [xs for xs in rows.values() for a, b in pairwise(xs) if b - a < 1 - INDENT - 1e-9]
    for one in drawn.marks:
        column = drawn.columns[int(one.x)]
        assert column.first <= one.depth <= column.last
        assert 0 <= one.y < drawn.rows
    assert sum(c.count for c in drawn.columns) == drawn.datasets + drawn.missing
    for line in drawn.lines:
        assert line.source != line.target
        backward = int(drawn.marks[line.source].x) > int(drawn.marks[line.target].x)
        assert (line.kind == "backward") == backward
    json.dumps(drawn.to_json(), allow_nan=False)


@pytest.mark.parametrize("most", [20, 60, 240, 400])
def test_every_dataset_is_in_one_mark_and_every_mark_has_a_place(
    large: Contents, most: int
) -> None:
    drawn = drawing(large, Asked(most=most))
    assert drawn.datasets == drawn.total == 600
    assert drawn.missing == len(large.missing)
    assert len(drawn.marks) > most / 2
    sound(drawn, most)


def test_every_dataset_is_reached_by_taking_groups_apart(large: Contents) -> None:
    found: Counter[str] = Counter()
    open_, seen = [(None, 0)], set[tuple[str | None, int]]()
    while open_:
        at, skip = open_.pop()
        if (at, skip) in seen:
            continue
        seen.add((at, skip))
        drawn = drawing(large, Asked(at=at, skip=skip, most=40))
        sound(drawn, 40)
        for one in drawn.marks:
            if one.kind == "group":
                open_.append((one.at, one.skip))
            else:
                found[str(one.key)] += 1
    assert found.keys() == {*large.datasets, *large.missing}


def test_a_small_ledger_is_drawn_whole(growing: Growing) -> None:
    first, second = growing.source("a.parquet"), growing.source("b.parquet")
    made = growing.release(first)
    mixed = growing.release(made, second, origin="mixed")
    drawn = of(growing)
    sound(drawn, 4)
    assert [mark(drawn, r).x for r in (first, second, made, mixed)] == [0, 0, 1, 2]
    assert mark(drawn, first).y == mark(drawn, made).y == mark(drawn, mixed).y
    kinds = {
        (drawn.marks[line.source].name, drawn.marks[line.target].key): line.kind
        for line in drawn.lines
    }
    assert kinds["b.parquet", mixed.dataset_id] == "other"
    assert kinds["a.parquet", made.dataset_id] == "main"
    assert (drawn.components, drawn.datasets, drawn.missing) == (1, 4, 0)


def test_hundreds_of_releases_of_one_source_are_one_mark(growing: Growing) -> None:
    with growing.at_once():
        source = growing.source("popular.parquet")
        made = [growing.release(source) for _ in range(400)]
        growing.withdraw(made[7])
    drawn = of(growing)
    assert [m.count for m in drawn.marks] == [1, 400]
    assert (drawn.marks[1].withdrawn, drawn.marks[1].name) == (1, "400 datasets")
    found = of(growing, Asked(q=made[200].dataset_id))
    assert mark(found, made[200]).found == 1
    assert len(found.marks) < 20
    inside = of(growing, Asked(at=source.dataset_id))
    assert mark(inside, made[7]).own
    assert len(inside.marks) > 200
    sound(inside, Asked.most + 1)


def test_withdrawn_and_unverified_are_told_apart(growing: Growing) -> None:
    source, gone = growing.source("a.parquet"), growing.source("b.parquet")
    good, bad = growing.release(source), growing.release(gone)
    doubtful = growing.release(strange(growing), origin="synthetic")
    doubtful = growing.release(doubtful, ancestry="unverified")
    growing.withdraw(gone)
    drawn = of(growing)
    told = [mark(drawn, r) for r in (good, gone, bad, doubtful)]
    assert [(m.withdrawn, m.own, m.unverified) for m in told] == [
        (0, False, 0),
        (1, True, 0),
        (1, False, 0),
        (0, False, 1),
    ]
    [missing] = [m for m in drawn.marks if m.kind == "missing"]
    assert (missing.origin, missing.unverified) == ("unknown", 1)


def test_claims_that_go_round_in_a_circle_are_drawn(growing: Growing) -> None:
    source = growing.source("a.parquet")
    first = growing.release(source, dataset_id="01CYC1E0000000000000000001")
    later = replace(first, dataset_id="01CYC1E0000000000000000002", logical_digest="9" * 64)
    second = growing.release(first, dataset_id="01CYC1E0000000000000000003", depth=2)
    growing.release(entry(second) | {"dataset_id": later.dataset_id}, depth=1, dataset_id="0" * 26)
    growing.release(entry(second) | {"dataset_id": "0" * 26}, depth=1, dataset_id=later.dataset_id)
    growing.release(entry(first) | {"dataset_id": "1" * 26}, depth=7, dataset_id="1" * 26)
    drawn = of(growing)
    assert drawn.datasets == 6
    sound(drawn, 10)
    for one in ("0" * 26, later.dataset_id, "1" * 26):
        assert of(growing, Asked(root=one)).datasets >= 1
        assert of(growing, Asked(component=one)).datasets >= 1
        assert of(growing, Asked(at=one)).datasets >= 1


def test_depth_that_shrinks_is_pointed_at(growing: Growing) -> None:
    deep = growing.release(growing.source("a.parquet"), depth=4)
    growing.release(deep, depth=1)
    assert [line.kind for line in of(growing).lines].count("backward") == 1


def test_derivations_stay_in_their_depth(growing: Growing) -> None:
    source = growing.source("a.parquet")
    derived = growing.release(source, statement="derivation", origin="real", depth=0)
    again = growing.release(derived, statement="derivation", origin="real", depth=0)
    drawn = of(growing)
    sound(drawn, 3)
    assert [int(mark(drawn, r).x) for r in (source, derived, again)] == [0, 0, 0]
    assert not any(line.kind == "backward" for line in drawn.lines)


def test_a_line_of_two_hundred_models_fits(growing: Growing) -> None:
    with growing.at_once():
        last = growing.source("a.parquet")
        for _ in range(200):
            last = growing.release(last)
    drawn = of(growing)
    assert 40 < len(drawn.columns) <= 60
    assert drawn.columns[-1].last == 200
    sound(drawn, Asked.most)
    assert of(growing, Asked(root=last.dataset_id)).datasets == 201
    now = Index(growing.ledger).contents()
    for key in list(now.datasets)[:40]:
        sound(drawing(now, Asked(at=key)), Asked.most)


def test_a_mixture_of_hundreds_of_sources_is_told_in_few_marks(growing: Growing) -> None:
    with growing.at_once():
        sources = [growing.source(f"{i}.parquet") for i in range(300)]
        mixed = growing.release(*sources, origin="mixed")
    drawn = of(growing, Asked(root=mixed.dataset_id))
    sound(drawn, 20)
    assert mark(drawn, mixed).depth == 1
    [others] = [m for m in drawn.marks if m.kind == "group"]
    assert "real sources" in others.name
    further = of(growing, Asked(at=others.at, skip=others.skip))
    assert len(further.marks) > 200
    sound(further, Asked.most)


def test_what_is_searched_comes_out_of_its_group(growing: Growing) -> None:
    with growing.at_once():
        for _ in range(15):
            source = growing.source("dull.parquet")
            for _ in range(15):
                growing.release(source)
        lone = growing.source("needle.parquet")
        made = growing.release(lone)
    assert not any(m.key == lone.dataset_id for m in of(growing, Asked(most=20)).marks)
    drawn = of(growing, Asked(q="NEEDLE", most=20))
    assert (mark(drawn, lone).found, drawn.found) == (1, 1)
    assert mark(drawn, lone).y == mark(drawn, made).y == 0


def test_filters(growing: Growing) -> None:
    first, second = growing.source("a.parquet"), growing.source("b.parquet")
    made, other = growing.release(first), growing.release(second)
    both = growing.release(made, other, origin="mixed")
    alone = growing.release(strange(growing))
    assert of(growing, Asked(root=made.dataset_id)).datasets == 3
    assert of(growing, Asked(root=both.dataset_id)).datasets == 5
    assert of(growing, Asked(component=second.dataset_id)).datasets == 5
    real = of(growing, Asked(origin="real"))
    assert {m.key for m in real.marks} == {first.dataset_id, second.dataset_id}
    assert of(growing, Asked(component=alone.dataset_id)).missing == 1
    today = Index(growing.ledger).contents().datasets[first.dataset_id].registered[:10]
    assert of(growing, Asked(since=today, until=today)).datasets == 6
    for nothing in (
        Asked(since="2999-01-01"),
        Asked(until="2000-01-01"),
        Asked(root="nobody"),
        Asked(component="nobody"),
        Asked(at="nobody"),
        Asked(skip=10**9),
        Asked(origin="unknown", at=made.dataset_id),
    ):
        assert of(growing, nothing).marks == []


def test_an_empty_ledger_gives_an_empty_drawing(growing: Growing) -> None:
    drawn = of(growing)
    assert (drawn.marks, drawn.lines, drawn.columns, drawn.rows) == ([], [], [], 0)
