"""What lies in an evidence folder: all that the ledger knows of a dataset, and no more."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import safegen
from safegen.cli import main
from safegen.errors import LedgerError, UsageError, VerificationError
from safegen.evidence import gathering
from safegen.evidence.checking import check_evidence
from safegen.evidence.gathering import gather
from safegen.evidence.index import Index
from safegen.evidence.selecting import Period
from safegen.ledger import Ledger, open_ledger
from safegen.lineage.withdrawals import withdraw
from safegen.manifest import PublicKey, SigningKey, canonical_bytes, new_key

MARK = 48_151_623.42  # a value of the real data that stands nowhere else
TOWN = "Qwxzhausen"


class World(NamedTuple):
    """A ledger, its folder, a key, and the datasets in it."""

    books: Ledger
    folder: Path
    key: Path
    real: str
    made: safegen.Dataset
    derived: str
    other: str


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("evidence")
    ledger, key, real = folder / "ledger.db", folder / "key", folder / "real.parquet"
    new_key(key)
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "income": [MARK, *rng.normal(40, 9, 1_499).round(2)],
            "town": [TOWN, *rng.choice(["Ulm", "Kiel"], 1_499)],
        }
    )
    frame.to_parquet(real)
    other = folder / "other.parquet"
    frame.head(90).to_parquet(other)
    unrelated = safegen.attest(other, by="B. Kay", ledger=ledger).dataset_id
    safegen.check(other, policy="baseline", ledger=ledger)
    attested = safegen.attest(real, by="A. Lee", ledger=ledger, key=key).dataset_id
    generator = safegen.Generator(policy="baseline", ledger=ledger, key=key).fit(real)
    made = generator.generate(600, folder / "made", seed=3)
    safegen.check(made.path, policy="strict", ledger=ledger)  # synthetic: refused
    rows = made.to_pandas().head(50)
    derived = safegen.derive(rows, sources=[made], ledger=ledger, by="A. Lee").dataset_id
    return World(open_ledger(ledger), folder, key, attested, made, derived, unrelated)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        assert isinstance(end.value.code, int)
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return call


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_bytes().splitlines()]


def files(folder: Path) -> Iterator[Path]:
    yield from (p for p in sorted(folder.rglob("*")) if p.is_file())


# ---- of a dataset --------------------------------------------------------------------------------


def test_all_of_a_dataset_is_there_and_nothing_of_others(world: World, tmp_path: Path) -> None:
    out = tmp_path / "evidence"
    index = gather(world.books, out, dataset=str(world.made.path), key=SigningKey(world.key))
    made, real = world.made.manifest.dataset_id, world.real
    assert [(d.dataset_id, d.asked) for d in index.datasets] == [(made, True), (real, False)]
    assert index.descendants == [world.derived]
    # What it was decided by, and what was decided about it since; nothing of the other file.
    told = [
        (e["payload"]["gate"], e["payload"]["allowed"])
        for e in lines(out)
        if e["kind"] == "decision"
    ]
    assert told == [("admission", True), ("release", True), ("admission", False)]
    assert world.other not in (out / "log.jsonl").read_text()
    assert {p.id: p.found is not None for p in index.policies} == {"baseline": True, "strict": True}
    # Each as it was: the bytes of the folder, by the digests that the ledger has.
    assert (out / f"manifests/{made}.json").read_bytes() == (
        world.made.path / "safegen.manifest.json"
    ).read_bytes()
    assert (out / f"reports/{made}.html").read_bytes() == (
        world.made.path / "report.html"
    ).read_bytes()
    assert (out / f"envelopes/{made}.json").read_bytes() == (
        world.made.path / "safegen.manifest.dsse.json"
    ).read_bytes()
    assert (out / f"envelopes/{real}.json").exists()  # beside the file that the manifest names
    assert [d.report for d in index.datasets] == ["as released", "from the manifest"]
    assert index.missing == []
    for path in (out / "policies").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
    for path in out.rglob("*.json"):
        assert canonical_bytes(json.loads(path.read_bytes())) == path.read_bytes()
    checked = check_evidence(out, [PublicKey.read(f"{world.key}.pub")], world.books)
    assert (checked.problems, checked.compared) == ([], True)


def test_an_id_does_and_says_what_was_not_at_hand(world: World, tmp_path: Path, run: Any) -> None:
    out = tmp_path / "evidence"
    code, said, _ = run(
        "evidence", world.derived, "--out", out, "--ledger", world.books.url, "--json"
    )
    index = json.loads(said)
    assert code == 0
    assert index["signed_by"] is None
    asked = {d["dataset_id"]: d["asked"] for d in index["datasets"]}
    assert asked == {world.derived: True, world.made.manifest.dataset_id: False, world.real: False}
    assert index["descendants"] == []
    code, said, _ = run("evidence", "--verify", out, "--ledger", world.books.url)
    assert (code, "UNSIGNED; the ledger at hand" in said) == (0, True)


def test_signatures_are_looked_for_where_people_say(world: World, tmp_path: Path) -> None:
    moved = tmp_path / "archive" / "deep"
    shutil.copytree(world.made.path, moved)
    away = tmp_path / "away.db"
    shutil.copy(world.folder / "ledger.db", away)
    # Nothing says where a release lies that nothing was made from.
    gather(world.books, tmp_path / "one", dataset=world.made.manifest.dataset_id)
    index = Index.from_bytes((tmp_path / "one" / "evidence.json").read_bytes())
    assert not index.datasets[0].envelope
    assert any("was not at hand" in m for m in index.missing)
    index = gather(
        world.books,
        tmp_path / "two",
        dataset=world.made.manifest.dataset_id,
        look_in=[str(tmp_path / "archive")],
    )
    assert index.datasets[0].envelope
    assert index.datasets[0].report == "as released"
    # A report that was changed is not passed on as the one that was released.
    (moved / "report.html").write_text("<h1>perfect</h1>")
    index = gather(
        world.books,
        tmp_path / "three",
        dataset=world.made.manifest.dataset_id,
        look_in=[str(tmp_path / "archive")],
    )
    assert index.datasets[0].report == "from the manifest"
    assert any("changed since the release" in m for m in index.missing)


def test_what_passes_for_a_dataset_is_no_source_of_its_report(world: World, tmp_path: Path) -> None:
    """A folder with the same id, consistent in itself, whose manifest nobody registered."""
    forged = tmp_path / "archive" / "made"
    shutil.copytree(world.made.path, forged)
    page = b"<h1>perfect</h1>"
    (forged / "report.html").write_bytes(page)
    digest = f"sha256:{hashlib.sha256(page).hexdigest()}"
    files = [
        f.model_copy(update={"bytes": len(page), "sha256": digest})
        if f.path == "report.html"
        else f
        for f in world.made.manifest.files
    ]
    manifest = world.made.manifest.model_copy(update={"files": files})
    (forged / "safegen.manifest.json").write_bytes(manifest.to_bytes())
    index = gather(
        world.books,
        tmp_path / "out",
        dataset=world.made.manifest.dataset_id,
        look_in=[str(tmp_path / "archive")],
    )
    assert index.datasets[0].report == "from the manifest"
    assert any("not the statement that the ledger has" in m for m in index.missing)
    assert "perfect" not in (tmp_path / "out/reports" / f"{manifest.dataset_id}.html").read_text()


def test_a_policy_under_a_digest_that_is_not_its_own_is_none(world: World, tmp_path: Path) -> None:
    away = tmp_path / "ledger.db"
    shutil.copy(world.folder / "ledger.db", away)
    books, digest = open_ledger(away), f"sha256:{'7' * 64}"
    said = {"id": "mild", "version": "1", "digest": digest}
    since = books.record("policy", {"digest": digest, "policy": {"id": "mild", "rules": {}}}).time
    books.record("decision", {"allowed": True, "gate": "release", "policy": said, "findings": {}})
    index = gather(books, tmp_path / "out", period=Period.of(since, None))
    assert [(p.id, p.found) for p in index.policies] == [("mild", None)]
    assert not (tmp_path / "out" / "policies").exists()


def test_a_folder_that_is_not_as_released_says_so(world: World, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(world.made.path, copy)
    (copy / "README.md").write_text("edited")
    index = gather(world.books, tmp_path / "one", dataset=str(copy))
    assert [m for m in index.missing if "THE DATA ARE NOT AS RELEASED" in m]
    assert "NOT AS RELEASED" in (tmp_path / "one" / "index.html").read_text()
    forged = world.made.manifest.model_copy(update={"rows": 1}).sealed()
    (copy / "safegen.manifest.json").write_bytes(forged.to_bytes())
    with pytest.raises(VerificationError, match="not the one that the ledger has"):
        gather(world.books, tmp_path / "two", dataset=str(copy))
    assert not (tmp_path / "two").exists()


# ---- of a time -----------------------------------------------------------------------------------


def test_a_time_has_every_entry_of_it(world: World, tmp_path: Path) -> None:
    whole = list(world.books.log())
    index = gather(world.books, tmp_path / "all", period=Period.of("2020-01-01", None))
    assert index.ledger.entries == len(whole)
    assert index.ledger.stretch == (1, len(whole))
    assert len(index.datasets) == 4
    # From the moment of the release on: its sources and its admission are of before.
    first = next(e for e in whole if e.payload.get("dataset_id") == world.made.manifest.dataset_id)
    part = gather(world.books, tmp_path / "part", period=Period.of(first.time, None))
    assert part.ledger.stretch == (first.seq, len(whole))
    asked = {d.dataset_id: d.asked for d in part.datasets}
    assert asked == {
        world.made.manifest.dataset_id: True,
        world.derived: True,
        world.real: False,
    }
    kinds = [(e["seq"] < first.seq, e["kind"]) for e in lines(tmp_path / "part")]
    assert (True, "register") in kinds
    assert kinds.count((True, "decision")) == 2  # those that its manifest holds
    assert check_evidence(tmp_path / "part").problems == []


@pytest.mark.parametrize(
    ("since", "until", "inside"),
    [
        ("2026-01-02", None, "2026-01-02T00:00:00Z"),
        ("2026-01-01", "2026-01-02", "2026-01-02T23:59:59.999999Z"),
        ("2026-01-02T10:00:00Z", "2026-01-02T10:00:01Z", "2026-01-02T10:00:00.5Z"),
        ("2026-01-02T12:00:00+02:00", None, "2026-01-02T10:00:00Z"),
    ],
)
def test_days_count_whole_and_in_utc(since: str, until: str | None, inside: str) -> None:
    class Told:
        def __init__(self, seq: int, time: str):
            self.seq, self.time = seq, time

    period = Period.of(since, until)
    entries: Any = [
        Told(1, "2025-12-31T23:59:59Z"),
        Told(2, inside),
        Told(3, "2027-01-01T00:00:00Z"),
    ]
    found = period.stretch(entries)
    assert found == (2, 3 if until is None else 2)
    assert period.stretch(entries[:1]) is None


def test_a_clock_that_was_put_back_hides_no_entry() -> None:
    class Told:
        def __init__(self, seq: int, day: int):
            self.seq, self.time = seq, f"2026-01-{day:02}T00:00:00Z"

    entries: Any = [Told(1, 1), Told(2, 5), Told(3, 2), Told(4, 5), Told(5, 9)]
    assert Period.of("2026-01-05", "2026-01-06").stretch(entries) == (2, 4)


# ---- whatever is there ---------------------------------------------------------------------------


def test_no_real_value_and_no_markup_gets_in(world: World, tmp_path: Path) -> None:
    away = tmp_path / "ledger.db"
    shutil.copy(world.folder / "ledger.db", away)
    books = open_ledger(away)
    script = "<script>alert(1)</script>"
    withdraw(books, world.real, by=script, reason=f"</li>{script}")
    said = {"policy": {"id": script, "version": script, "digest": script}, "gate": script}
    waiver = {"id": script, "status": "applied", "reason": script, "approved_by": [script]}
    finding = {f"lineage/{script}": {"outcome": "block", "observed": script}}
    more = {"findings": finding, "subject": [script], "waivers": [waiver], "allowed": False}
    books.record("decision", {**said, **more})
    index = gather(books, tmp_path / "evidence", period=Period.of("2020-01-01", None))
    assert check_evidence(tmp_path / "evidence", ledger=books).problems == []
    assert index.ledger.refused == 2
    assert [w["id"] for w in index.waivers] == [script]
    assert all(d.withdrawn for d in index.datasets if d.dataset_id != world.other)
    assert any("nobody has recorded what it said" in m for m in index.missing)
    real = re.compile(rf"{TOWN}|48151623\.42|48,151,623".encode())
    for path in files(tmp_path / "evidence"):
        data = path.read_bytes()
        assert not real.search(data), path
        if path.suffix == ".html":
            assert b"<script" not in data
            assert b"http://" not in data.replace(b"http://www.w3.org", b"")
    page = (tmp_path / "evidence" / "index.html").read_text()
    assert "UNSIGNED" in page
    assert "&lt;script&gt;" in page


def test_a_policy_that_lets_reports_quote_real_values_is_named(
    world: World, tmp_path: Path, run: Any
) -> None:
    away, path = tmp_path / "ledger.db", tmp_path / "open.yaml"
    shutil.copy(world.folder / "ledger.db", away)
    path.write_text(
        "schema: safegen.policy/v1\nid: open\nversion: '1'\ndescription: d\ncontact: us\n"
        "report: {real_values: true}\n"
        "rules:\n  lineage: {severity: warn}\n  manifest: {severity: warn}\n"
    )
    since = list(open_ledger(away).log())[-1].time
    safegen.check(world.folder / "real.parquet", policy=path, ledger=away)
    code, _, said = run("evidence", "--since", since, "--out", tmp_path / "e", "--ledger", away)
    assert (code, "REAL VALUES may be in it" in said) == (0, True)
    assert "treat it as you treat the data" in (tmp_path / "e" / "index.html").read_text()
    gather(world.books, tmp_path / "f", period=Period.of("2020-01-01", None))
    assert "treat it as" not in (tmp_path / "f" / "index.html").read_text()


def test_a_ledger_that_was_edited_gives_no_evidence(world: World, tmp_path: Path, run: Any) -> None:
    away = tmp_path / "ledger.db"
    shutil.copy(world.folder / "ledger.db", away)
    db = sqlite3.connect(away, isolation_level=None)
    db.execute("DROP TRIGGER log_no_update")
    db.execute("UPDATE log SET payload = replace(payload, 'false', 'true') WHERE kind = 'decision'")
    db.close()
    with pytest.raises(LedgerError, match="not what was written"):
        gather(open_ledger(away), tmp_path / "one", period=Period.of("2020-01-01", None))
    code, _, said = run("evidence", world.real, "--out", tmp_path / "two", "--ledger", away)
    assert (code, "safegen ledger verify" in " ".join(said.split())) == (1, True)
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.db"]


def test_it_is_there_whole_or_not_at_all(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "evidence"
    monkeypatch.setattr(gathering, "page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        gather(world.books, out, dataset=world.real)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    out.mkdir()
    with pytest.raises(UsageError, match="is there already"):
        gather(world.books, out, dataset=world.real)
    assert list(out.iterdir()) == []


def test_what_cannot_be_meant_is_wrong_use(world: World, tmp_path: Path, run: Any) -> None:
    where = ("--ledger", world.books.url)
    out = ("--out", tmp_path / "out")
    for arguments, word in (
        ((world.real,), "--out names"),
        (out, "name a dataset"),
        ((world.real, "--since", "2026-01-01", *out), "name a dataset"),
        ((world.real, "--until", "2026-01-01", *out), "name a dataset"),
        (("--since", "yesterday", *out), "--since is a day"),
        (("--since", "2026-01-02", "--until", "2026-01-01", *out), "--until is before"),
        (("--since", "2999-01-01", *out), "no entry of that time"),
        (("01ARZ3NDEKTSV4RRFFQ69G5FAV", *out), "no id that"),
        ((world.folder / "real.parquet", *out), "no dataset's folder"),
        ((world.real, "--trusted-key", f"{world.key}.pub", *out), "is for --verify"),
        (("--verify",), "takes the folder"),
        (("--verify", tmp_path / "none"), "is no folder"),
        (("--verify", tmp_path, *out), "takes the folder"),
    ):
        code, _, said = run("evidence", *arguments, *where)
        assert (code, word in " ".join(said.split())) == (2, True), (arguments, said)
    assert not (tmp_path / "out").exists()


def test_the_organisation_says_whose_signature_counts(
    world: World, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = tmp_path / "ledger.db"
    shutil.copy(world.folder / "ledger.db", away)
    out = tmp_path / "evidence"
    gather(open_ledger(away), out, dataset=world.real, key=SigningKey(world.key))
    assert run("evidence", "--verify", out)[0] == 4  # by a key that nobody has named
    org = tmp_path / "safegen.org.yaml"
    monkeypatch.setenv("SAFEGEN_ORG", str(org))
    pinned = "schema: safegen.org/v1\ntrusted_keys: [{}]\n"
    org.write_text(pinned.format(PublicKey.read(f"{world.key}.pub").text))
    code, said, _ = run("evidence", "--verify", out)
    assert (code, "SIGNED by" in said) == (0, True)
    org.write_text(pinned.format(new_key(tmp_path / "theirs").text))
    assert run("evidence", "--verify", out)[0] == 4
    code, _, said = run(
        *("evidence", world.real, "--out", tmp_path / "more", "--ledger", away),
        *("--key", world.key),
    )
    assert (code, "pinned" in said) == (2, True)
    assert not (tmp_path / "more").exists()
