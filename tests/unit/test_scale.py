"""The paper plan for clusters: what its simulation keeps, and whether its limits are the code's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

TOP = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def _bench() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOP / "bench"))
        yield
        for name in ("cluster", "scale"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def cluster(_bench: None) -> ModuleType:
    import cluster

    return cluster


@pytest.fixture(scope="module")
def scale(_bench: None) -> ModuleType:
    import scale

    return scale


SMALL = {"nodes": 8, "cores": 4}


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("in_order", [False, True])
@pytest.mark.parametrize("failures", [0.0, 2.0, 30.0])
def test_no_part_is_lost_and_none_is_merged_twice(
    cluster: ModuleType, failures: float, in_order: bool, copies: bool
) -> None:
    work = cluster.Work(parts=600, part=10.0, in_order=in_order, copies=copies, tries=50)
    for seed in range(3):
        found = cluster.simulated(cluster.Cluster(**SMALL, failures=failures), work, seed)
        assert (found.merged, found.failed) == (600, 0)
        # What counts is what was spent, less what was lost and what was made twice.
        assert found.useful <= found.spent
        if not failures and not copies:
            assert found.useful == pytest.approx(found.spent)
            assert found.useful == pytest.approx(
                cluster.durations(work, seed)[:, 0].sum() + 600 * work.put
            )
        if failures > 20:
            assert found.lost > 0
            assert found.again > 0


def test_it_takes_as_long_as_it_must_and_no_longer(cluster: ModuleType) -> None:
    """Without trouble, parts of one length: so many rounds of them, and not a second more."""
    work = cluster.without_trouble(
        cluster.Work(parts=320, part=10.0, start=5.0, put=1.0, merge=0.0, summary=0.0)
    )
    found = cluster.simulated(cluster.Cluster(**SMALL, failures=0.0), work)
    assert found.seconds == pytest.approx(5.0 + 320 / 32 * 11.0)
    slow = cluster.simulated(cluster.Cluster(**SMALL, failures=0.0), replace(work, merge=1.0))
    assert slow.seconds >= 320 * 1.0  # one driver merges one after the other
    assert slow.driver == pytest.approx(320.0)


def test_time_grows_with_rows_and_no_faster(cluster: ModuleType) -> None:
    work = cluster.Work(parts=2_000, part=10.0, slow=0.0)
    one, ten = (
        cluster.simulated(cluster.Cluster(**SMALL), replace(work, parts=n)).seconds - work.start
        for n in (2_000, 20_000)
    )
    assert 0.97 < ten / 10 / one < 1.03


def test_a_part_that_is_lost_each_time_ends_the_run(cluster: ModuleType) -> None:
    work = cluster.Work(parts=400, part=2_000.0)
    found = cluster.simulated(cluster.Cluster(**SMALL, failures=30.0, repair=1.0), work)
    assert found.failed > 0
    assert found.merged < 400


def test_the_same_seed_plays_the_same_run(cluster: ModuleType) -> None:
    work = cluster.Work(parts=500, part=10.0, copies=True)
    one, again, other = (
        cluster.simulated(cluster.Cluster(**SMALL, failures=5.0), work, seed) for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other


def test_copies_shorten_what_stragglers_draw_out(cluster: ModuleType) -> None:
    work = cluster.Work(parts=500, part=10.0, slow=0.05)
    alone, twice = (
        cluster.simulated(cluster.Cluster(**SMALL, failures=0.0), replace(work, copies=c))
        for c in (False, True)
    )
    assert twice.seconds < alone.seconds
    assert twice.spent > twice.useful


def test_the_limits_of_the_plan_are_the_code_s(scale: ModuleType) -> None:
    from safegen.engines import local, parts
    from safegen.ledger import base
    from safegen.lineage import routing
    from safegen.manifest import canonical, check

    assert scale.DOCUMENT == canonical.MAX_DOCUMENT_BYTES
    assert (scale.RECORD, scale.ATTACHED) == (base.MAX_BYTES, base.MAX_ATTACHED)
    assert scale.FILES == check._MAX_FILES
    assert (scale.KEPT, scale.BLOCKS) == (routing.KEPT, parts.MOST)
    plain = scale.Work(parts=1, part=1.0)
    assert (plain.tries, plain.ahead) == (local.TRIES, local._AHEAD)


def test_files_and_row_groups_are_counted_as_they_are_cut(scale: ModuleType) -> None:
    from safegen.engines.parts import part_plan

    units = json.loads(scale.UNITS.read_text())
    for kind in scale.NAMES:
        block = round(scale.unit(units, f"{kind}.rows") / scale.BLOCKS)
        for rows in (10**6, 10**7, 10**8):
            plan = [*part_plan(rows, block)]
            _, files, groups = scale.manifest_bytes(units, kind, rows)
            assert (files, groups) == (len(plan), sum(len(p.blocks) for p in plan))


def test_the_page_has_the_tables_of_its_costs(scale: ModuleType) -> None:
    """Those that are quickly made; `python bench/scale.py` writes all."""
    units, page = json.loads(scale.UNITS.read_text()), scale.PAGE.read_text(encoding="utf-8")
    for name in {*scale.TABLES} - {"runs", "rows", "failures", "sensitivity"}:
        found = f"<!-- table: {name} -->\n{scale.TABLES[name](units)}\n<!-- end -->"
        assert found in page, f"{name}: run `python bench/scale.py`"
    assert units["where"] in page
