"""What a ledger keeps of a decision, so that it can be taken again: enough, small, and no value."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from safegen import gates, grounds
from safegen.decision import Finding, Part, decide
from safegen.gates import Admission, Books, Release
from safegen.ledger import open_ledger
from safegen.lineage.facts import Evidence, Root, SourceFacts
from safegen.lineage.heads import Listed, Withdrawn
from safegen.measure.gains import Probe
from safegen.policy import Policy

ROOT = Root("real.parquet", "rows:aa", "01A", 1000)
MADE = Evidence(
    "manifest", "made", "synthetic", 1.0, 1, 1.0, ancestry="attested", dataset_id="01B",
    proof=True, roots=(ROOT,), signers=("k" * 64,), made_from=("01A",),
)  # fmt: skip


def facts(*evidence: Evidence, **more: Any) -> SourceFacts:
    known = {"rows": 500, "synthetic_share": 1.0, "lookups": {"key": "keyed digest"}, **more}
    return SourceFacts(
        "out", logical_digest="rows:bb", origin="synthetic", ancestry="attested", depth=1,
        effective_depth=1.0, depth_is_lower_bound=False, evidence=evidence, **known,
    )  # fmt: skip


def written(path: Path) -> list[dict[str, Any]]:
    return [e.payload for e in open_ledger(path).log(kind="decision")]


def policies(path: Path) -> list[dict[str, Any]]:
    return [e.payload for e in open_ledger(path).log(kind="policy")]


# ---- the policy ----------------------------------------------------------------------------------


def test_a_policy_is_recorded_once_before_the_first_decision_that_names_it(tmp_path: Path) -> None:
    books = Books.open(tmp_path / "ledger.db")
    for name in ("baseline", "baseline", "strict", "baseline"):
        gates.admit(Policy.load(name), [facts(MADE)], books)
    kinds = [e.kind for e in open_ledger(tmp_path / "ledger.db").log()]
    assert kinds == ["policy", "decision", "decision", "policy", "decision", "decision"]
    for payload, name in zip(policies(tmp_path / "ledger.db"), ("baseline", "strict"), strict=True):
        policy = Policy.load(name)
        assert payload == {"digest": policy.digest, "policy": policy.effective()}


def test_another_process_does_not_record_it_again_and_another_ledger_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        monkeypatch.setattr(gates, "_RECORDED", set())  # as in a new process
        gates.admit(Policy.load("lab"), [facts(MADE)], Books.open(tmp_path / "ledger.db"))
    gates.admit(Policy.load("lab"), [facts(MADE)], Books.open(tmp_path / "other.db"))
    assert len(policies(tmp_path / "ledger.db")) == 1
    assert len(policies(tmp_path / "other.db")) == 1


# ---- admission -----------------------------------------------------------------------------------


def test_what_was_known_of_sources_comes_back_but_for_keyed_digests(tmp_path: Path) -> None:
    sources = [
        facts(MADE, parts={"a": {"digest": "rows:cc", "lookups": {}}}, problems=("broken",)),
        facts(Evidence("columns", "marked", "mixed", 0.5), search={"least": 0.01, "datasets": 3}),
    ]
    probe = Probe((10, 20, 20), (("a#1", 1, 2, 3),))
    gates.admit(Policy.load("lab"), sources, Books.open(tmp_path / "l.db"), ("why",), probe)
    [payload] = written(tmp_path / "l.db")
    kept = payload["grounds"]
    assert "keyed digest" not in str(payload)
    first, second = map(grounds.read_source, kept["sources"])
    assert first == facts(MADE, parts={"a": {}}, problems=("broken",), lookups={})
    assert (second.evidence, second.search) == (sources[1].evidence, sources[1].search)
    assert Probe.from_json(kept["probe"]) == probe
    assert (kept["doubts"], kept["listed"]) == (["why"], None)


def test_of_a_list_of_withdrawals_what_the_sources_name_is_kept() -> None:
    def one(name: str) -> Withdrawn:
        return Withdrawn(dataset_id=name, behind=name, time="2026-01-01", by="me", reason="why")

    listed = Listed("head.json", {n: one(n) for n in ("01A", "01Z")}, "2026-01-01T00:00:00+00:00")
    context = Admission([facts(MADE)], {}, listed=listed)
    kept = grounds.of_admission(context, decide(Policy.load("lab"), "admission", [], ledger={}))
    assert grounds.read_listed(kept["listed"]) == Listed(
        "head.json", {"01A": one("01A")}, listed.time
    )


def test_sources_with_thousands_of_ancestors_are_left_out_and_the_decision_is_recorded(
    tmp_path: Path,
) -> None:
    roots = tuple(Root(f"{k}.parquet", f"rows:{k:064}", None, 1) for k in range(5_000))
    many = Evidence("manifest", "made", "synthetic", 1.0, 1, 1.0, proof=True, roots=roots)
    for evidence in (MADE, many):
        gates.admit(Policy.load("lab"), [facts(evidence)], Books.open(tmp_path / "l.db"))
    assert ["sources" in p["grounds"] for p in written(tmp_path / "l.db")] == [True, False]


def test_what_is_no_json_does_not_keep_a_decision_from_being_recorded(tmp_path: Path) -> None:
    for least in (0.5, math.inf):
        known = facts(MADE, search={"least": least, "datasets": 1})
        gates.admit(Policy.load("lab"), [known], Books.open(tmp_path / "l.db"))
    assert ["sources" in p["grounds"] for p in written(tmp_path / "l.db")] == [True, False]


# ---- release -------------------------------------------------------------------------------------


def test_of_parts_those_are_kept_that_lie_furthest_out() -> None:
    parts = [Part(f"c{k}", k, (k - 1 / (k + 1), k + 5), (None, 9.0), k % 2 == 0) for k in range(99)]
    parts += [Part("odd", 1.0, (math.nan, math.inf), (None, 9.0))]
    finding = Finding("schema", "missingness", "met", "o", "r", parts=tuple(parts), at_most="warn")
    context = Release(7, 7, {}, {}, None, {}, depth=2, in_band={"t": {"synthetic": 7}})
    policy = Policy.load("baseline")
    kept = grounds.of_release(context, decide(policy, "release", [finding], ledger={}))
    assert kept["at_most"] == {"schema/missingness": "warn"}
    assert (kept["depth"], kept["signer"], kept["in_band"]) == (2, None, {"t": {"synthetic": 7}})
    again = grounds.read_parts(kept["parts"]["schema/missingness"])
    assert sorted(p.name for p in again) == ["c0", "c1", "c97", "c98", "odd"]
    assert {p.name: p for p in again}["c97"] == parts[97]
    assert {p.name: p.interval for p in again}["odd"] == (-math.inf, math.inf)
