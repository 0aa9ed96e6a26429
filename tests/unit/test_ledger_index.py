"""The console's index of a ledger: the same as the ledger, whenever it was asked."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from large_ledger import Growing, entry, large_ledger, strange
from safegen.console import entries
from safegen.console import index as indexing
from safegen.console.contents import Contents
from safegen.console.index import Index
from safegen.errors import LedgerError
from safegen.ledger import Record, open_ledger
from safegen.ledger.exporting import export
from safegen.ledger.importing import import_
from safegen.lineage.withdrawals import descendants, withdrawal_of
from safegen.manifest import SigningKey
from safegen.manifest.sign import new_key


@pytest.fixture
def growing(tmp_path: Path) -> Growing:
    return Growing(open_ledger(tmp_path / "ledger.db"))


def same(one: Contents, other: Contents) -> bool:
    """Facts, and what follows from them."""
    names = ("seq", "head", "gone", "policies", "sources_of", "missing", "withdrawn", "names")
    return (
        list(one.datasets.items()) == list(other.datasets.items())
        and list(one.decisions) == list(other.decisions)
        and all(getattr(one, n) == getattr(other, n) for n in (*names, "days", "use"))
    )


# ---- what is in it -------------------------------------------------------------------------------


def test_facts_are_those_of_the_manifest(growing: Growing) -> None:
    source = growing.source("s3://lake/adult.parquet", license="CC-BY-4.0", expires="2020-01-01")
    made = growing.release(source, name="/srv/data/adult/", rows=900)
    after = growing.release(made, name="C:\\out\\adult-made\\")
    now = Index(growing.ledger).contents()
    told = now.datasets[source.dataset_id]
    assert (told.statement, told.origin, told.rows, told.synthetic_rows) == (
        "attestation",
        "real",
        source.rows,
        0,
    )
    assert (told.place, told.license, told.expired) == (
        "s3://lake/adult.parquet",
        "CC-BY-4.0",
        True,
    )
    child = now.datasets[made.dataset_id]
    assert child.policy is not None
    assert (child.depth, child.synthetic_rows, child.verified) == (1, 900, True)
    assert child.policy_digest == made.manifest["policy"]["digest"]
    assert now.names == {source.dataset_id: "adult", made.dataset_id: "adult-made"}
    assert now.sources_of == {
        made.dataset_id: (source.dataset_id,),
        after.dataset_id: (made.dataset_id,),
    }
    assert now.made_from[made.dataset_id] == [after.dataset_id]
    assert growing.ledger.get(made.dataset_id) == made


def test_a_decision_is_told_by_what_blocked_and_what_warned(growing: Growing) -> None:
    source = growing.source("a.parquet")
    growing.decision(source)
    entry_ = growing.decision(
        source,
        blocked=("lineage/depth",),
        waivers=[{"id": "W-1", "rule": "privacy", "status": "applied"}],
    )
    index = Index(growing.ledger)
    now = index.contents()
    allowed, refused = now.decisions
    assert (allowed.allowed, refused.allowed) == (True, False)
    assert refused.blocked == ("lineage/depth",)
    assert "lineage" in refused.rules
    assert refused.waivers == (("W-1", "applied", "privacy"),)
    assert now.find_decisions(rule="lineage", allowed=False).items == [refused]
    assert now.decisions_about(source) == [allowed, refused]
    assert now.decision(refused.seq) is refused
    told = index.log_entry(refused.seq)
    assert told == entry_
    assert index.log_entry(10_000) is None
    policy = now.policies[refused.policy_digest]
    assert (policy.refusals >= 1, policy.seq) == (True, None)
    growing.ledger.record("policy", {"digest": refused.policy_digest, "policy": {}})
    assert index.contents().policies[refused.policy_digest].seq == refused.seq + 1


def test_a_source_is_found_by_its_content_where_no_id_is_named(growing: Growing) -> None:
    source = growing.source("a.parquet")
    other = strange(growing)
    by_content = {**entry(source), "dataset_id": None}
    made = growing.release(by_content, other)
    now = Index(growing.ledger).contents()
    assert now.sources_of[made.dataset_id] == (source.dataset_id, other["logical_digest"])
    assert now.missing[other["logical_digest"]].origin == "unknown"
    assert now.made_from[other["logical_digest"]] == [made.dataset_id]


def test_another_ledgers_claim_is_no_source_for_content(tmp_path: Path, growing: Growing) -> None:
    theirs = Growing(open_ledger(tmp_path / "theirs.db"), seed=2)
    claimed = theirs.source("a.parquet")
    made = growing.release({**entry(claimed), "dataset_id": None})
    export(theirs.ledger, tmp_path / "plain.zip")
    import_(growing.ledger, tmp_path / "plain.zip")
    now = Index(growing.ledger).contents()
    assert now.datasets[claimed.dataset_id].claimed
    assert now.sources_of[made.dataset_id] == (claimed.logical_digest,)
    assert claimed.logical_digest in now.missing


def test_what_descends_from_a_withdrawn_dataset_is_what_verify_says(growing: Growing) -> None:
    draw = random.Random(3)
    made = [growing.source(f"{i}.parquet") for i in range(4)]
    made += [growing.release(*draw.sample(made, 2)) for _ in range(30)]
    growing.withdraw(made[0])
    growing.withdraw(made[9])
    now = Index(growing.ledger).contents()
    below = [r for m in (made[0], made[9]) for r in descendants(m.dataset_id, growing.ledger)]
    wanted = {made[0].dataset_id, made[9].dataset_id, *(r.dataset_id for r in below)}
    assert set(now.withdrawn) == wanted < {r.dataset_id for r in made}
    for record in made:
        found = withdrawal_of([record.dataset_id], growing.ledger)
        assert (found is None) == (record.dataset_id not in now.withdrawn)


def test_rows_of_unknown_origin_are_not_taken_for_real(growing: Growing) -> None:
    growing.source("real.parquet", rows=100)
    growing.register(origin="unknown", statement="attestation", rows=50)
    growing.register(origin="synthetic", rows=30, expires="2020-01-01")
    growing.withdraw(growing.register(origin="synthetic", rows=70))
    growing.register(origin="synthetic", rows=50)
    use = Index(growing.ledger).contents().use
    assert (use.datasets, use.real, use.synthetic, use.unknown) == (3, 100, 50, 50)
    assert use.synthetic_share == 0.25
    assert Index(open_ledger(growing.ledger.url + "2")).contents().use.synthetic_share is None


@pytest.mark.parametrize(
    "junk",
    [
        {"sources": "x", "policy": 3, "extra": [], "generator": "g", "composition": None},
        {"sources": [1, None, {"dataset_id": 7, "rows": -1, "depth": "9"}], "warnings": {}},
        {"policy": {"id": [], "version": {}, "digest": 5}, "attested_by": {"a": 1}, "kind": 1},
        {"license": "x" * 100_000, "extra": {"source_uri": "\u202e" * 9_000}},
    ],
)
def test_a_manifest_of_any_form_has_an_entry(growing: Growing, junk: dict[str, Any]) -> None:
    good = growing.source("a.parquet")
    odd = replace(good, dataset_id="0" * 26, logical_digest="1" * 64, manifest=junk)
    growing.ledger.register(odd, {})
    growing.ledger.record("decision", {"findings": 7, "policy": "p", "subject": {}, "waivers": [1]})
    now = Index(growing.ledger).contents()
    assert list(now.datasets) == [good.dataset_id, odd.dataset_id]
    assert not now.decisions[0].allowed
    assert len(repr(now.datasets[odd.dataset_id])) < 5_000
    for name in ("policies", "sources_of", "withdrawn", "names", "days", "use"):
        assert getattr(now, name) is not None
    assert now.find_datasets("a.parquet").items == [now.datasets[good.dataset_id]]


# ---- searching -----------------------------------------------------------------------------------


def test_searching_and_paging(tmp_path: Path) -> None:
    now = Index(large_ledger(tmp_path / "ledger.db", 200, 300)).contents()
    everything = now.find_datasets(size=1000).items
    assert [d.dataset_id for d in everything] == list(reversed(now.datasets))
    pages = [now.find_datasets(page=p, size=30) for p in range(1, 8)]
    assert [d for p in pages for d in p.items] == everything
    assert {(p.total, p.pages) for p in pages} == {(200, 7)}
    assert now.find_datasets(page=99, size=30).page == 7
    words = now.find_datasets("Parquet CUSTOMERS").items
    assert [now.names[d.dataset_id] for d in words] == ["customers.parquet"]
    assert now.find_datasets("customers nothing").items == []
    assert {d.origin for d in now.find_datasets(origin="mixed", size=1000).items} == {"mixed"}
    withdrawn = now.find_datasets(withdrawn=True, size=1000).items
    assert {d.dataset_id for d in withdrawn} == set(now.withdrawn) & set(now.datasets)
    day = everything[50].registered[:10]
    assert day in {d.registered[:10] for d in now.find_datasets(since=day, until=day).items}
    assert now.find_datasets(until="2000-01-01").total == 0
    assert now.find_decisions(allowed=False).total == sum(not d.allowed for d in now.decisions)
    assert sum(sum(kinds.values()) for kinds in now.days.values()) == (
        len(now.datasets) + len(now.decisions) + len(now.withdrawals)
    )


# ---- keeping up ----------------------------------------------------------------------------------


def test_nothing_new_is_the_same_object_and_reads_no_record(
    growing: Growing, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = growing.source("a.parquet")
    index = Index(growing.ledger)
    first = index.contents()
    monkeypatch.setattr(type(growing.ledger), "records", None)
    assert index.contents() is first
    made = growing.release(source)
    again = index.contents()
    assert list(again.datasets) == [source.dataset_id, made.dataset_id]
    assert list(first.datasets) == [source.dataset_id]


def test_what_expires_over_night_is_not_in_use_in_the_morning(
    growing: Growing, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing.source("a.parquet", rows=9, expires="2999-12-31")
    following = Index(growing.ledger)
    before = following.contents()
    assert before.use.real == 9
    monkeypatch.setattr(entries, "expired", lambda day: day == "2999-12-31")
    monkeypatch.setattr(indexing, "_today", lambda: "3000-01-01")
    assert following.contents().use.real == 0
    assert before.use.real == 9


def test_an_index_that_followed_is_one_that_was_built_anew(growing: Growing) -> None:
    draw, index = random.Random(5), Index(growing.ledger)
    made: list[Record] = [growing.source("a.parquet")]
    for step in range(60):
        what = draw.randrange(6)
        if what == 0:
            growing.withdraw(draw.choice(made))
        elif what == 1:
            growing.decision(draw.choice(made))
        elif what == 2:
            made.append(growing.release(strange(growing)))
        elif what == 3:
            growing.ledger.record("signature", {"dataset_id": draw.choice(made).dataset_id})
        else:
            made.append(growing.release(*draw.sample(made, min(2, len(made)))))
        if step % 7 == 0:
            index.contents()
    fresh = Index(growing.ledger).contents()
    assert same(index.contents(), fresh)
    assert any(d.signed for d in fresh.datasets.values())


def test_a_dataset_withdrawn_later_takes_what_was_made_from_it_along(growing: Growing) -> None:
    source = growing.source("a.parquet")
    made = growing.release(source)
    other = growing.release(growing.source("b.parquet"))
    index = Index(growing.ledger)
    assert not index.contents().withdrawn
    growing.withdraw(source)
    assert set(index.contents().withdrawn) == {source.dataset_id, made.dataset_id}
    assert other.dataset_id not in index.contents().withdrawn


def test_a_claim_ends_where_a_trusted_key_vouches_for_it(tmp_path: Path, growing: Growing) -> None:
    theirs = Growing(open_ledger(tmp_path / "theirs.db"), seed=2)
    stated = theirs.source("a.parquet")
    new_key(tmp_path / "key")
    key = SigningKey(tmp_path / "key")
    export(theirs.ledger, tmp_path / "plain.zip")
    export(theirs.ledger, tmp_path / "signed.zip", key=key)
    index = Index(growing.ledger)
    import_(growing.ledger, tmp_path / "plain.zip")
    claim = index.contents().datasets[stated.dataset_id]
    assert claim.claimed
    assert not claim.verified
    assert index.contents().use.real == 0
    import_(growing.ledger, tmp_path / "signed.zip", key.public)
    assert index.contents().datasets[stated.dataset_id].verified
    assert same(index.contents(), Index(growing.ledger).contents())


def test_a_ledger_that_was_set_back_is_read_anew(tmp_path: Path, growing: Growing) -> None:
    growing.source("a.parquet")
    index = Index(growing.ledger)
    index.contents()
    shutil.copy(tmp_path / "ledger.db", tmp_path / "backup.db")
    lost = growing.source("lost.parquet")
    assert lost.dataset_id in index.contents().datasets
    shutil.copy(tmp_path / "backup.db", tmp_path / "ledger.db")
    other = growing.source("other.parquet")
    assert set(index.contents().datasets) - {other.dataset_id} == {
        d for d in growing.records if d not in (lost.dataset_id, other.dataset_id)
    }


def edited(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as db:
        for name in ("records_no_update", "records_no_delete", "log_no_update"):
            db.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            db.execute(statement)
    db.close()


def test_a_record_that_was_changed_is_not_shown(tmp_path: Path, growing: Growing) -> None:
    growing.source("a.parquet")
    assert len(Index(growing.ledger).contents().datasets) == 1
    edited(tmp_path / "ledger.db", "UPDATE records SET body = replace(body, 'real', 'fake')")
    with pytest.raises(LedgerError, match="not what was written"):
        Index(growing.ledger).contents()


def test_a_record_that_is_gone_is_named(tmp_path: Path, growing: Growing) -> None:
    gone, kept = growing.source("a.parquet"), growing.source("b.parquet")
    assert Index(growing.ledger).contents().gone == ()
    edited(tmp_path / "ledger.db", f"DELETE FROM records WHERE dataset_id = '{gone.dataset_id}'")
    now = Index(growing.ledger).contents()
    assert now.gone == (gone.dataset_id,)
    assert list(now.datasets) == [kept.dataset_id]


def test_threads_see_whole_contents_while_the_ledger_grows(growing: Growing) -> None:
    growing.source("a.parquet")
    index, problems, done = Index(growing.ledger), list[str](), threading.Event()

    def look() -> None:
        seq = 0
        while not done.is_set():
            now = index.contents()
            if now.seq < seq or not set(now.sources_of) <= set(now.datasets):
                problems.append("went back")
            seq = now.seq

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(15):
        growing.release(growing.source("b.parquet"))
    done.set()
    for thread in threads:
        thread.join()
    assert not problems
    assert len(index.contents().datasets) == 31
