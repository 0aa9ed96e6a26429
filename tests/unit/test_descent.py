"""The tree behind a dataset: what is said of each node, and that forged manifests end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from safegen.cli.tree import draw
from safegen.ledger import Ledger, Record, open_ledger
from safegen.ledger.exporting import export
from safegen.ledger.importing import import_
from safegen.lineage.descent import MAX_DEPTH, MAX_NODES, Descent, Node
from safegen.lineage.facts import Root
from safegen.lineage.roots import roots_of
from safegen.lineage.withdrawals import withdraw
from safegen.manifest import Manifest


def dataset(number: int) -> str:
    return f"01JD{number:022d}"


def a_manifest(number: int, *sources: int, **changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "dataset_id": dataset(number),
        "created": "2026-01-01T00:00:00Z",
        "kind": "table",
        "origin": "synthetic",
        "ancestry": "attested",
        "depth": 1,
        "effective_depth": 1.0,
        "depth_is_lower_bound": False,
        "rows": 1000,
        "composition": {"real": 0, "synthetic": 1000},
        "logical_digest": f"safegen-rows-v1:{number:064x}",
        "sources": [
            {
                "uri": f"file-{s}",
                "dataset_id": dataset(s),
                "origin": "synthetic",
                "depth": 1,
                "effective_depth": 1.0,
                "rows": 1000,
            }
            for s in sources
        ],
    }
    return Manifest(**{**fields, **changes}).sealed()


def attested(number: int, **changes: Any) -> Manifest:
    real = {"origin": "real", "depth": 0, "effective_depth": 0.0, "composition": {"real": 1000}}
    return a_manifest(number, statement="attestation", attested_by="Ada", **{**real, **changes})


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path / "ledger.db")


def keep(ledger: Ledger, *manifests: Manifest) -> None:
    for manifest in manifests:
        ledger.register(Record.of(manifest, None), {})


def tree(ledger: Ledger, number: int) -> Node:
    return Descent(ledger).ancestors({"dataset_id": dataset(number)})


def drawn(node: Node, capsys: pytest.CaptureFixture[str]) -> str:
    draw(node)
    return capsys.readouterr().out


def size(node: Node) -> int:
    return 1 + sum(map(size, node.nodes))


def test_each_node_says_what_it_is_and_under_which_verdicts_it_was_made(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = {"status": "unmet", "outcome": "warn"}
    verdicts = [
        {
            "gate": gate,
            "allowed": True,
            "policy": {"id": "baseline", "version": "1.0.0"},
            "findings": {f"a/{i}": finding for i in range(warned)} | {"b/c": {"outcome": "pass"}},
        }
        for gate, warned in (("admission", 2), ("release", 0))
    ]
    keep(
        ledger,
        attested(1, expires="2999-12-31"),
        attested(
            2,
            origin="mixed",
            composition={"real": 750, "synthetic": 250},
            depth=2,
            effective_depth=0.5,
            extra={"tool": "other"},
        ),
        a_manifest(
            3,
            1,
            2,
            9,
            decisions=verdicts,
            depth=3,
            effective_depth=1.25,
            depth_is_lower_bound=True,
            ancestry="unverified",
        ),
    )
    assert drawn(tree(ledger, 3), capsys).splitlines() == [
        dataset(3),
        "│ synthetic, released on 2026-01-01, ancestry unverified",
        "│ 1,000 rows, all synthetic, depth at least 3, effective at least 1.25",
        "│ admitted with 2 warnings and released by policy baseline 1.0.0",
        f"├── file-1 [{dataset(1)}]",
        "│     real, attested by Ada on 2026-01-01, until 2999-12-31",
        "│     1,000 rows, none synthetic, depth 0",
        f"├── file-2 [{dataset(2)}]",
        "│     mixed, made by other, attested by Ada on 2026-01-01",
        "│     1,000 rows, 25.0% synthetic, depth 2, effective 0.5",
        f"└── file-9 [{dataset(9)}]",
        "      synthetic, as what was made from it says; nobody states it here, "
        "ancestry unverified",
        "      1,000 rows, all synthetic, depth at least 1",
    ]


def test_what_is_not_to_be_used_is_said_wherever_it_stands(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(ledger, attested(1, expires="2026-01-31"), a_manifest(2, 1), a_manifest(3, 2, 1))
    assert "EXPIRED on 2026-01-31: it counts as unknown" in drawn(tree(ledger, 3), capsys)
    withdraw(ledger, dataset(1), by="Bo", reason="a mistake")
    node = tree(ledger, 3)
    said = drawn(node, capsys)
    assert said.count(f"NOT TO BE USED: {dataset(1)} was withdrawn") == 2
    assert said.count("    WITHDRAWN on ") == 1
    assert f"file-1 [{dataset(1)}] (as above)" in said
    for one in (node, *node.nodes):
        assert one.withdrawn is not None
        assert one.to_json("sources")["withdrawn"]["by"] == "Bo"
    below = Descent(ledger).descendants(tree(ledger, 1))
    assert [n.withdrawn is not None for n in below.nodes] == [True, True]
    assert tree(ledger, 9).withdrawn is None


def test_a_claim_is_a_claim(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(ledger, attested(1), a_manifest(2, 1))
    export(ledger, tmp_path / "x.zip")
    other = open_ledger(tmp_path / "other.db")
    import_(other, tmp_path / "x.zip")
    said = drawn(tree(other, 2), capsys)
    assert said.count(f"a claim of ledger {ledger.ledger_id[:8]}, imported") == 2
    assert "depth at least 1" in said
    assert "claim" not in drawn(tree(ledger, 2), capsys)


def test_a_claim_does_not_say_which_real_rows_are_behind(ledger: Ledger, tmp_path: Path) -> None:
    real = {"uri": "real", "origin": "real", "depth": 0, "effective_depth": 0.0, "rows": 1000}
    keep(ledger, a_manifest(2, sources=[real | {"logical_digest": "x", "dataset_id": dataset(1)}]))
    behind = a_manifest(3, 2).document()
    assert roots_of(behind, ledger) == (Root("real", "x", dataset(1), 1000),)
    export(ledger, tmp_path / "x.zip")
    other = open_ledger(tmp_path / "other.db")
    import_(other, tmp_path / "x.zip")
    assert roots_of(behind, other) is None


def test_what_was_made_is_drawn_from_what_it_was_made_of(ledger: Ledger) -> None:
    keep(ledger, attested(1), a_manifest(2, 1), a_manifest(3, 2, 1), a_manifest(4, 3), attested(5))
    first, again = Descent(ledger).descendants(tree(ledger, 1)).nodes
    assert (first.dataset_id, [n.dataset_id for n in first.nodes]) == (dataset(2), [dataset(3)])
    assert [n.dataset_id for n in first.nodes[0].nodes] == [dataset(4)]
    assert (again.dataset_id, again.note, again.nodes) == (dataset(3), "as above", ())
    assert Descent(ledger).descendants(tree(ledger, 5)).nodes == ()


def test_without_a_ledger_the_manifest_at_hand_speaks() -> None:
    node = Descent(None, [a_manifest(2, 1)]).ancestors({"dataset_id": dataset(2), "uri": "here"})
    assert (node.uri, node.statement) == ("here", "release")
    assert [(n.dataset_id, n.statement) for n in node.nodes] == [(dataset(1), None)]


def test_forged_circles_end(ledger: Ledger) -> None:
    keep(ledger, a_manifest(1, 2), a_manifest(2, 3), a_manifest(3, 1), a_manifest(4, 4))
    for number, steps in ((1, 3), (4, 1)):
        node = tree(ledger, number)
        assert size(node) == steps + 1
        for _ in range(steps):
            [node] = node.nodes
        assert (node.dataset_id, node.nodes) == (dataset(number), ())
        assert node.note is not None
        assert "forged" in node.note
        assert size(Descent(ledger).descendants(tree(ledger, number))) == steps + 1


def test_forged_depth_width_and_crossings_end_soon(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(ledger, *(a_manifest(i, i + 1) for i in range(100)))
    keep(ledger, *(a_manifest(1000 + i, 1001 + i, 1001 + i, 1001 + i) for i in range(60)))
    keep(ledger, a_manifest(5000, *range(10_000, 30_000)))
    start = time.monotonic()
    node, deep = tree(ledger, 0), 0
    while node.nodes:
        (node, *_), deep = node.nodes, deep + 1
    assert (deep, node.note) == (MAX_DEPTH, f"more than {MAX_DEPTH} levels")
    assert size(tree(ledger, 1000)) <= 200
    wide = tree(ledger, 5000)
    assert size(wide) <= MAX_NODES + 1
    assert wide.more == 20_000 - len(wide.nodes)
    assert f"└── {wide.more:,} more, which are not shown" in drawn(wide, capsys)
    assert time.monotonic() - start < 10
