"""Way round: cut the newest entries off a ledger's log, put an older copy back, write it anew."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from forging import World, cli, unmet

import safegen
from safegen.dataset import sign
from safegen.errors import VerificationError
from safegen.ledger import open_ledger
from safegen.lineage import heads
from safegen.lineage.heads import read_head, write_head
from safegen.lineage.withdrawals import withdraw
from safegen.manifest import PublicKey, SigningKey

REASON = {"by": "the privacy office", "reason": "a person asked to be forgotten"}


class Place:
    """A ledger, an older copy of it, a release from before that copy and one from after."""

    def __init__(self, world: World, folder: Path):
        self.ledger, self.copy, self.folder = folder / "ledger.db", folder / "copy.db", folder
        self.real = folder / "real.parquet"
        pd.read_parquet(world.real).head(3_000).to_parquet(self.real)
        self.attested = safegen.attest(self.real, by="a test", ledger=self.ledger).dataset_id
        self.generator = safegen.Generator(ledger=self.ledger, policy="lab").fit(self.real)
        self.first = self.generator.generate(400, folder / "first")
        shutil.copy(self.ledger, self.copy)
        self.second = self.generator.generate(400, folder / "second", seed=5)

    def put_back(self) -> None:
        shutil.copy(self.copy, self.ledger)

    def cut(self, most: int) -> None:
        """Take the entries after `most` out, and what they registered."""
        db = sqlite3.connect(self.ledger, isolation_level=None)
        every = db.execute("SELECT type, name FROM sqlite_master").fetchall()
        for name in [n for kind, n in every if kind == "trigger"]:
            db.execute(f"DROP TRIGGER {name}")
        for name in [n for kind, n in every if kind == "table"]:
            if "seq" in [c[1] for c in db.execute(f"PRAGMA table_info({name})")]:
                db.execute(f"DELETE FROM {name} WHERE seq > ?", (most,))
        db.close()


@pytest.fixture
def place(world: World, tmp_path: Path) -> Place:
    return Place(world, tmp_path)


def _entries(place: Place) -> int:
    return int(open_ledger(place.ledger).state()["log_entries"])


def test_what_was_released_after_the_cut_says_so(place: Place) -> None:
    for dataset in (place.first, place.second):
        assert safegen.verify(dataset.path, ledger=place.ledger).rows == 400
        assert safegen.check(dataset, ledger=place.ledger).allowed
    place.put_back()
    assert safegen.verify(place.first.path, ledger=place.ledger).rows == 400
    with pytest.raises(VerificationError, match="cut off"):
        safegen.verify(place.second.path, ledger=place.ledger)
    assert "lineage/intact" in unmet(safegen.check(place.second, ledger=place.ledger))
    # And the ledger that goes on from there has other entries under the same numbers.
    place.generator.generate(400, place.folder / "third", seed=6)
    place.generator.generate(400, place.folder / "fourth", seed=7)
    with pytest.raises(VerificationError, match="cut off"):
        safegen.verify(place.second.path, ledger=place.ledger)
    assert safegen.check(place.folder / "third", ledger=place.ledger).allowed


def test_a_cut_right_after_the_head_that_a_manifest_names_is_seen(place: Place) -> None:
    named = max(d["ledger"]["log_entries"] for d in place.second.manifest.decisions)
    assert _entries(place) > named
    place.cut(named)
    assert open_ledger(place.ledger).verify() == []  # nothing in the ledger shows it
    with pytest.raises(VerificationError, match="has no record of it"):
        safegen.verify(place.second.path, ledger=place.ledger)
    assert safegen.verify(place.first.path, ledger=place.ledger).rows == 400


def test_a_log_that_was_cut_and_continued_has_other_entries(place: Place) -> None:
    place.generator.generate(400, place.folder / "third", seed=6)
    place.put_back()
    with pytest.raises(VerificationError, match="or it is an older copy"):
        safegen.verify(place.folder / "third", ledger=place.ledger)
    for seed in (7, 8):
        place.generator.generate(400, place.folder / f"other-{seed}", seed=seed)
    with pytest.raises(VerificationError, match="was rewritten, or cut and continued"):
        safegen.verify(place.folder / "third", ledger=place.ledger)
    assert safegen.verify(place.folder / "other-8", ledger=place.ledger).rows == 400


def test_another_ledger_says_nothing_of_the_cut(place: Place) -> None:
    other = place.folder / "other.db"
    safegen.attest(place.real, by="a test", ledger=other)
    assert safegen.verify(place.second.path, ledger=other).rows == 400


def test_a_signed_head_is_what_the_log_goes_on_from(
    place: Place, key: Path, other_key: Path, tmp_path: Path
) -> None:
    head = tmp_path / "head.json"
    assert cli("ledger", "head", head, "--key", key, "--ledger", place.ledger).code == 0
    entries = _entries(place)
    place.generator.generate(400, place.folder / "third", seed=6)
    of = ("ledger", "verify", "--ledger", place.ledger, "--head", head)
    trusted = ("--trusted-key", f"{key}.pub")
    assert cli(*of, *trusted).code == 0
    for words, arguments in (
        ("name the key", ()),
        ("not signed by a key that is trusted", ("--trusted-key", f"{other_key}.pub")),
    ):
        ran = cli(*of, *arguments)
        assert (ran.code, words in ran.err) == (4, True)
    # That it was signed is in the log, whose head the next manifest names.
    assert [e.payload["signed_by"] for e in open_ledger(place.ledger).log(kind="head")] == [
        PublicKey.read(f"{key}.pub").id
    ]
    place.cut(entries - 2)
    ran = cli(*of, *trusted)
    assert (ran.code, "cut off" in ran.err) == (4, True)
    ran = cli("ledger", "verify", "--ledger", tmp_path / "copy.db", "--head", head, *trusted)
    assert (ran.code, "cut off" in ran.err) == (4, True)
    other = tmp_path / "other.db"
    safegen.attest(place.real, by="a test", ledger=other)
    ran = cli("ledger", "verify", "--ledger", other, "--head", head, *trusted)
    assert (ran.code, "of another ledger" in ran.err) == (4, True)


# ---- the list of withdrawals, elsewhere ----------------------------------------------------------


@pytest.fixture
def listing(place: Place, key: Path, tmp_path: Path) -> Iterator[Any]:
    """Check a dataset on a machine without the ledger, under a policy that names a list."""
    head = tmp_path / "head.json"

    def checked(dataset: safegen.Dataset, more: str = "", trusted: Path | None = key) -> Any:
        keys = PublicKey.read(f"{trusted}.pub").text if trusted else ""
        path = tmp_path / "policy.yaml"
        path.write_text(
            "schema: safegen.policy/v1\nid: p\nversion: '1'\ndescription: d\ncontact: us\nrules:\n"
            "  lineage:\n    severity: enforce\n    max_depth: 1.0\n"
            f"    withdrawals: {head}\n{more}"
            f"  manifest: {{severity: enforce, trusted_keys: [{keys}]}}\n"
        )
        return safegen.check(dataset, policy=path, ledger=tmp_path / "elsewhere.db")

    return checked


CHECK = "lineage/withdrawals"


def test_what_was_withdrawn_is_refused_without_the_ledger(
    place: Place, listing: Any, key: Path
) -> None:
    books, head = open_ledger(place.ledger), place.folder / "head.json"
    write_head(head, books, SigningKey(key))
    decision = listing(place.second)
    assert decision.allowed
    assert decision.findings[CHECK].status == "met"
    withdraw(books, place.second.manifest.dataset_id, **REASON)
    assert listing(place.second).allowed  # the list is of before
    write_head(head, books, SigningKey(key))
    assert unmet(listing(place.second)) == {CHECK}
    (said,) = listing(place.second).findings[CHECK].evidence
    assert "by the privacy office: a person asked" in said
    assert listing(place.first).allowed
    # What is behind it, too.
    withdraw(books, place.attested, **REASON)
    done = write_head(head, books, SigningKey(key))
    assert {w.dataset_id for w in done.withdrawn} == {
        place.attested,
        place.first.manifest.dataset_id,
        place.second.manifest.dataset_id,
    }
    assert unmet(listing(place.first)) == {CHECK}
    said = listing(place.first).findings[CHECK].evidence
    assert any(f"made from {place.attested}" in line for line in said)


def test_what_another_ledger_made_of_what_was_withdrawn_is_refused(
    place: Place, listing: Any, key: Path
) -> None:
    """The ledger that wrote the list has never heard of it: its manifest names what it is of."""
    away = place.folder / "away.db"
    made = safegen.Generator(ledger=away, policy="lab").fit(place.second)
    deep = made.generate(400, place.folder / "deep")
    books, head = open_ledger(place.ledger), place.folder / "head.json"
    write_head(head, books, SigningKey(key))
    assert CHECK not in unmet(listing(deep))
    withdraw(books, place.second.manifest.dataset_id, **REASON)
    done = write_head(head, books, SigningKey(key))
    assert [w.dataset_id for w in done.withdrawn] == [place.second.manifest.dataset_id]
    assert CHECK in unmet(listing(deep))


def test_a_list_that_cannot_be_relied_on_is_what_the_policy_says(
    place: Place, listing: Any, key: Path, other_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    books, head = open_ledger(place.ledger), place.folder / "head.json"
    refuse = "    withdrawals_on_unreachable: refuse\n"

    def judged(word: str, **more: Any) -> None:
        for wanted, allowed in (("warn", True), ("allow", True), ("refuse", False)):
            text = f"    withdrawals_on_unreachable: {wanted}\n"
            decision = listing(place.second, text, **more)
            assert decision.allowed is allowed
            assert word in decision.findings[CHECK].observed
            assert bool(decision.warnings) is (wanted == "warn")

    judged("cannot be read")
    write_head(head, books, SigningKey(other_key))
    judged("not signed by a key that is trusted")
    judged("no trusted_keys", trusted=None)
    write_head(head, books, SigningKey(key))
    assert listing(place.second, refuse).allowed
    whole = head.read_bytes()
    for spoiled in (whole[:-2], whole + b" ", b"{}", b"[]", b"null", b"[" * 100_000, b""):
        head.write_bytes(spoiled)
        assert not listing(place.second, refuse).allowed
    # A manifest's signature, by the same key, is no list.
    sign(place.second.path, key, ledger=place.ledger)
    shutil.copy(place.second.path / "safegen.manifest.dsse.json", head)
    judged("of another kind")

    def at(hours: float) -> None:
        then = datetime.now(UTC) - timedelta(hours=hours)
        monkeypatch.setattr(heads, "now", lambda: then.strftime("%Y-%m-%dT%H:%M:%SZ"))
        write_head(head, books, SigningKey(key))

    at(23.9)
    assert listing(place.second, refuse).allowed
    at(24.1)
    judged("24.1 hours old")
    assert listing(place.second, refuse + "    withdrawals_max_age: 25.0\n").allowed
    at(-1)
    judged("dated in the future")
    # However old, what was withdrawn stays so.
    withdraw(books, place.second.manifest.dataset_id, **REASON)
    at(1_000)
    assert unmet(listing(place.second, "    withdrawals_on_unreachable: allow\n")) == {CHECK}


def test_a_head_names_its_key_and_no_more(place: Place, key: Path) -> None:
    head = place.folder / "head.json"
    done = write_head(head, open_ledger(place.ledger), SigningKey(key))
    assert read_head(head, [PublicKey.read(f"{key}.pub")]) == done
    assert done.log_entries == _entries(place) - 1
    assert b"PRIVATE" not in head.read_bytes()
