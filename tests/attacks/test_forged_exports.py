"""Way round: hand somebody an export that was changed, made up, or never came to its end.

Each is made from an honest export, which is taken in.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forging import cli, finish, start

from safegen.errors import LedgerError, VerificationError
from safegen.ledger import Attachment, Ledger, Record, open_ledger, sqlite
from safegen.ledger.base import attachments_digest, lookups_digests, sha256
from safegen.ledger.exported import Header, statement_of
from safegen.ledger.exporting import export
from safegen.ledger.importing import import_
from safegen.manifest import Manifest, PublicKey, SigningKey
from safegen.manifest.canonical import canonical_bytes, digest_of
from safegen.manifest.sign import signature_of

Members = dict[str, bytes]


def a_record(number: int, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "dataset_id": f"01JD{number:022d}",
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
    }
    return Record.of(Manifest(**{**fields, **changes}).sealed(), None)


@pytest.fixture
def theirs(tmp_path: Path) -> Ledger:
    """A ledger with three releases, of which one is known by more than its digests."""
    ledger = open_ledger(tmp_path / "theirs.db")
    [(key, _)] = ledger.key_epochs()
    for number in (1, 2, 3):
        parts = [Attachment("a", "f", key, b"form"), Attachment("b", "f/t", key, b"prints")]
        ledger.register(a_record(number), {key: [f"{number:032x}"]}, parts[: 2 * (number == 1)])
    return ledger


@pytest.fixture
def ours(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    if getattr(request, "param", "sqlite") == "sqlite":
        yield open_ledger(tmp_path / "ours.db")
        return
    server = request.getfixturevalue("postgres")
    with server.database() as name:
        yield open_ledger(server.url(name))


in_each = pytest.mark.parametrize(
    "ours", ["sqlite", pytest.param("postgres", marks=pytest.mark.system)], indirect=True
)


@pytest.fixture
def file(theirs: Ledger, tmp_path: Path) -> Path:
    export(theirs, tmp_path / "theirs.zip")
    return tmp_path / "theirs.zip"


@pytest.fixture
def signed(theirs: Ledger, key: Path, tmp_path: Path) -> Path:
    export(theirs, tmp_path / "signed.zip", key=SigningKey(key))
    return tmp_path / "signed.zip"


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path: Path, contents: Members, how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def lines(contents: Members) -> list[dict[str, Any]]:
    return [json.loads(line) for line in contents["records.jsonl"].splitlines()]


def with_lines(contents: Members, changed: list[dict[str, Any]]) -> Members:
    """The members with other lines, of which the header has the digest again."""
    data = b"".join(canonical_bytes(line) + b"\n" for line in changed)
    header = json.loads(contents["export.json"])
    header |= {"records": len(changed), "sha256": sha256(data)}
    return contents | {"records.jsonl": data, "export.json": canonical_bytes(header)}


def a_withdrawal(line: dict[str, Any]) -> dict[str, str]:
    said = dict.fromkeys(("by", "reason", "time"), "x") | {"ledger_id": "0" * 32}
    return said | {"dataset_id": line["manifest"]["dataset_id"]}


def enter(line: dict[str, Any]) -> None:
    """Forge the log entry of a line, so that it vouches for what the line says."""
    pairs = [(k, d) for k, digests in line["lookups"].items() for d in digests]
    told = {"manifest_digest": line["manifest"]["digest"], "lookups": lookups_digests(pairs)}
    if parts := [
        tuple(p[k] for k in ("kind", "name", "key_id", "sha256")) for p in line["attachments"]
    ]:
        told["attachments"] = attachments_digest(parts)
    line["entry"]["payload"] |= told
    body = {k: v for k, v in line["entry"].items() if k != "hash"}
    line["entry"]["hash"] = sha256(canonical_bytes(body))


def nothing_came(ours: Ledger, *words: object, code: int = 4) -> str:
    """Refused with the code, and the ledger is as it was."""
    before = ours.state()
    ran = cli("ledger", "import", *words, "--ledger", ours.url)
    assert (ran.code, ran.out) == (code, "")
    assert ours.state() == before
    assert ours.verify() == []
    return ran.err


@in_each
def test_an_honest_export_comes_whole_and_once(theirs: Ledger, ours: Ledger, file: Path) -> None:
    sender, taken = import_(ours, file)
    assert (taken.new, taken.known, sender.ledger_id) == (3, 0, theirs.ledger_id)
    after = ours.state()
    assert import_(ours, file)[1].known == 3
    assert ours.state() == after
    assert ours.verify() == []
    [(key, _)] = theirs.key_epochs()
    assert [r.dataset_id for r in ours.find(lookups={key: f"{2:032x}"})] == [a_record(2).dataset_id]
    assert [ours.attachment(w) for w in ours.attached("b")] == [b"prints"]
    [entry] = ours.log(kind="import")
    assert entry.payload["ledger_id"] == theirs.ledger_id
    assert entry.payload["file"] == sha256(file.read_bytes())
    export(theirs, file.with_name("again.zip"))
    assert file.with_name("again.zip").read_bytes() == file.read_bytes()


def _entry_of_another(all_: list[dict[str, Any]]) -> None:
    all_[0]["entry"] = all_[1]["entry"]


def _shallower(all_: list[dict[str, Any]]) -> None:
    all_[0]["manifest"] |= {"depth": 0, "effective_depth": 0}


def _resealed(all_: list[dict[str, Any]]) -> None:
    body = {k: v for k, v in all_[0]["manifest"].items() if k != "digest"} | {"origin": "real"}
    all_[0]["manifest"] = body | {"digest": digest_of(body)}


CHANGES: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "depth": _shallower,
    "origin, with its digest": _resealed,
    "lookups": lambda all_: all_[0].update(lookups={}),
    "attachments": lambda all_: all_[0].update(attachments=[]),
    "another attachment": lambda all_: all_[0]["attachments"][0].update(name="g"),
    "the log's entry": lambda all_: all_[0]["entry"]["payload"].update(depth=0),
    "another's entry": _entry_of_another,
    "a withdrawal of another": lambda all_: all_[0]["withdrawals"].append(a_withdrawal(all_[1])),
    "a value as a lookup": lambda all_: all_[0].update(lookups={"0" * 16: ["Jane Doe, 1970"]}),
    "a further field": lambda all_: all_[0].update(more=1),
    "no JSON object": lambda all_: all_.insert(0, []),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_record_is_refused(ours: Ledger, file: Path, change: Any) -> None:
    contents = members(file)
    changed = lines(contents)
    change(changed)
    said = nothing_came(ours, written(file, with_lines(contents, changed)))
    assert str(file) in said
    assert "Jane" not in said


def test_a_record_that_is_left_out_of_the_lines_is_missed(ours: Ledger, file: Path) -> None:
    contents = members(file)
    cut = contents["records.jsonl"].splitlines(keepends=True)[:-1]
    nothing_came(ours, written(file, contents | {"records.jsonl": b"".join(cut)}))
    # As many lines, and a withdrawal that nobody has entered: the header has their digest.
    changed = lines(contents)
    changed[0]["withdrawals"].append(a_withdrawal(changed[0]))
    honest = with_lines(contents, changed)
    forged = honest | {"export.json": contents["export.json"]}
    nothing_came(ours, written(file, forged))
    for count in (2, 4):
        header = json.loads(contents["export.json"]) | {"records": count}
        nothing_came(ours, written(file, contents | {"export.json": canonical_bytes(header)}))
    assert cli("ledger", "import", written(file, honest), "--ledger", ours.url).code == 0


def test_a_forged_ledger_that_holds_together_is_a_claim(ours: Ledger, file: Path) -> None:
    """Nobody can tell a forged entry of a stranger's log from a true one: so it makes nothing real,
    and its keys are those that it names."""
    contents = members(file)
    changed = lines(contents)
    body = {k: v for k, v in changed[0]["manifest"].items() if k != "digest"} | {"origin": "real"}
    changed[0]["manifest"] = body | {"digest": digest_of(body)}
    changed[1]["lookups"] = {"0" * 16: ["f" * 32]}
    for line in changed[:2]:
        enter(line)
    nothing_came(ours, written(file, with_lines(contents, changed)))
    header = json.loads(contents["export.json"])
    header["keys"]["0" * 16] = "0" * 32
    contents["export.json"] = canonical_bytes(header)
    import_(ours, written(file, with_lines(contents, changed)))
    assert {r.claimed for r in ours.records()} == {True}
    assert ours.state()["imported_keys_missing"] == {"0" * 16: "0" * 32}


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(ours: Ledger, file: Path, keep: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep)])
    assert "incomplete" in nothing_came(ours, file)


def test_every_flipped_byte_of_a_member_is_refused(ours: Ledger, file: Path) -> None:
    data = file.read_bytes()
    for name, content in members(file).items():
        start = data.index(content)
        for offset in (start, start + len(content) // 2, start + len(content) - 1):
            changed = bytearray(data)
            changed[offset] ^= 0x40
            file.write_bytes(changed)
            assert nothing_came(ours, file), name


def test_other_bytes_under_an_attachments_digest_are_refused(ours: Ledger, file: Path) -> None:
    contents = members(file)
    [blob] = [n for n in contents if n.endswith(sha256(b"prints"))]
    assert "other bytes" in nothing_came(ours, written(file, contents | {blob: b"tnirps"}))
    del contents[blob]
    nothing_came(ours, written(file, contents))


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "blobs/../evil", "C:\\evil", "evil.pkl"])
def test_a_member_of_another_name_is_refused_and_nothing_unpacked(
    ours: Ledger, file: Path, name: str
) -> None:
    before = sorted(file.parent.parent.rglob("*"))
    nothing_came(ours, written(file, members(file) | {name: b"x"}))
    assert sorted(file.parent.parent.rglob("*")) == before


def test_an_attachment_that_nobody_names_is_refused(ours: Ledger, file: Path) -> None:
    nothing_came(ours, written(file, members(file) | {f"blobs/{sha256(b'x')}": b"x"}))


def test_a_member_that_is_there_twice_is_refused(ours: Ledger, file: Path) -> None:
    """Which of the two is read depends on the reader."""
    contents = members(file)
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("records.jsonl", contents["records.jsonl"])
    nothing_came(ours, file)


@pytest.mark.parametrize("name", ["export.json", "records.jsonl"])
def test_a_member_that_is_missing_is_refused(ours: Ledger, file: Path, name: str) -> None:
    contents = members(file)
    del contents[name]
    nothing_came(ours, written(file, contents))


def test_what_unpacks_to_more_than_it_is_is_refused(ours: Ledger, file: Path) -> None:
    contents = members(file)
    bomb = {f"blobs/{'0' * 64}": bytes(64 * 1024 * 1024)}
    written(file, contents | bomb, zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 1_000_000
    nothing_came(ours, file)
    # Compressed at all: a decompressor may want gigabytes for a few bytes.
    written(file, contents, zipfile.ZIP_LZMA)
    with zipfile.ZipFile(file, "a") as archive:
        archive.comment = bytes(60_000)
    assert file.stat().st_size > sum(map(len, contents.values()))
    nothing_came(ours, file)
    # One attachment, under many names.
    body, changed = bytes(1_000_000), lines(contents)
    part = changed[0]["attachments"][0] | {"sha256": sha256(body)}
    for number, code in ((2, 0), (50, 4)):
        changed[0]["attachments"] = [part | {"name": f"n{i}"} for i in range(number)]
        enter(changed[0])
        bomb = with_lines(contents, changed) | {f"blobs/{sha256(body)}": body}
        for blob in (b"form", b"prints"):
            bomb.pop(f"blobs/{sha256(blob)}", None)
        books = open_ledger(file.with_name(f"{number}.db"))
        assert cli("ledger", "import", written(file, bomb), "--ledger", books.url).code == code
        assert books.state()["datasets"] == (0 if code else 3)


def test_deep_or_endless_json_is_refused(ours: Ledger, file: Path) -> None:
    contents = members(file)
    deep = b"[" * 100_000 + b"]" * 100_000 + b"\n"
    header = json.loads(contents["export.json"]) | {"sha256": sha256(deep), "records": 1}
    many = json.loads(contents["export.json"])
    many["keys"] |= {f"{i:016x}": "0" * 32 for i in range(30_000)}
    for changed in (
        {"export.json": canonical_bytes(many)},
        {"records.jsonl": deep, "export.json": canonical_bytes(header)},
        {"export.json": deep},
        {"export.json": b" " * 2_000_000},
        {"records.jsonl": b"x" * 20_000_000},
    ):
        nothing_came(ours, written(file, contents | changed))


def test_what_is_no_export_is_wrong_use(ours: Ledger, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    for path in (other, tmp_path, tmp_path / "missing.zip"):
        nothing_came(ours, path, code=2)


def test_a_signature_binds_the_file_and_is_not_lost(
    ours: Ledger, signed: Path, key: Path, other_key: Path
) -> None:
    contents = members(signed)
    public, other = f"{key}.pub", f"{other_key}.pub"
    assert "not by the key" in nothing_came(ours, signed, "--trust", other)
    changed = lines(contents)[:2]
    nothing_came(ours, written(signed, with_lines(contents, changed)), "--trust", public)
    bare = {k: v for k, v in contents.items() if k != "export.dsse.json"}
    assert "signature is gone" in nothing_came(ours, written(signed, bare))
    header = json.loads(contents["export.json"]) | {"public_key": None}
    bare["export.json"] = canonical_bytes(header)
    assert "nobody" in nothing_came(ours, written(signed, bare), "--trust", public)
    # In the name of the key that is trusted, signed by another.
    forged = Header.model_validate(header | {"public_key": SigningKey(key).public.pem})
    bare["export.json"] = canonical_bytes(forged.document())
    bare["export.dsse.json"] = signature_of(statement_of(forged), SigningKey(other_key))
    nothing_came(ours, written(signed, bare), "--trust", public)
    nothing_came(ours, signed)
    header["public_key"] = SigningKey(other_key).public.pem
    contents["export.json"] = canonical_bytes(header)
    nothing_came(ours, written(signed, contents), "--trust", other)


@in_each
def test_a_signature_that_comes_later_counts_once_its_key_is_trusted(
    theirs: Ledger, ours: Ledger, file: Path, signed: Path, key: Path
) -> None:
    def claimed() -> set[bool]:
        return {r.claimed for r in ours.records()}

    for path in (file, signed):
        import_(ours, path)
        before = ours.state()
        assert import_(ours, path)[1].claims == 3
        assert ours.state() == before  # nothing new, nothing written
        assert claimed() == {True}
    trusted = PublicKey.read(f"{key}.pub")
    assert import_(ours, signed, trusted)[1].claims == 0
    before = ours.state()
    import_(ours, signed, trusted)
    assert ours.state() == before
    assert claimed() == {False}
    # What the key signs from now on counts too; what comes without it is a claim.
    theirs.register(a_record(4), {})
    export(theirs, file.with_name("more.zip"))
    assert import_(ours, file.with_name("more.zip"))[1].claims == 1
    assert claimed() == {False, True}
    export(theirs, file.with_name("signed-more.zip"), key=SigningKey(key))
    import_(ours, file.with_name("signed-more.zip"))
    assert claimed() == {False}
    assert ours.verify() == []


@in_each
def test_one_id_with_two_manifests_is_refused_whole(
    theirs: Ledger, ours: Ledger, file: Path
) -> None:
    ours.register(a_record(3, rows=999), {})
    before = ours.state()
    with pytest.raises(VerificationError, match=r"01JD0*3 .* another manifest.* nothing was"):
        import_(ours, file)
    assert ours.state() == before
    assert ours.get(a_record(1).dataset_id) is None


KILL = """
import os, signal, sys
from safegen.ledger.opened import Opened
append = Opened.append
def killed(self, kind, payload):
    entry = append(self, kind, payload)
    if kind == "import":
        os.kill(os.getpid(), signal.SIGKILL)
    return entry
Opened.append = killed
from safegen.cli import main
main(sys.argv[1:])
"""


@in_each
def test_a_killed_import_leaves_nothing(ours: Ledger, file: Path) -> None:
    before = ours.state()
    command = [sys.executable, "-c", KILL, "ledger", "import", file, "--ledger", ours.url]
    process = subprocess.Popen([str(c) for c in command])
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert ours.state() == before
    assert ours.verify() == []
    assert import_(ours, file)[1].new == 3


@in_each
def test_two_imports_at_once_are_one(ours: Ledger, file: Path) -> None:
    both = [start("ledger", "import", file, "--ledger", ours.url, "--json") for _ in range(2)]
    ran = [finish(p) for p in both]
    assert [r.code for r in ran] == [0, 0], ran
    assert sorted(json.loads(r.out)["new"] for r in ran) == [0, 3]
    assert len(list(ours.log(kind="import"))) == 1
    assert ours.verify() == []


def test_an_entry_of_an_import_is_the_ledgers_own(ours: Ledger) -> None:
    """Nobody writes by hand that a key is trusted."""
    with pytest.raises(LedgerError, match="import"):
        ours.record("import", {"trusted": True})


def test_a_claim_does_not_become_a_statement_by_going_on(
    theirs: Ledger, ours: Ledger, tmp_path: Path, key: Path
) -> None:
    """Whoever signs vouches for what his ledger states, not for what it was told."""
    real = a_record(9, origin="real", depth=0, effective_depth=0.0, composition={"real": 1000})
    theirs.register(replace(real), {})
    export(theirs, tmp_path / "first.zip")
    import_(ours, tmp_path / "first.zip")
    ours.register(a_record(8), {ours.key_epochs()[0][0]: ["8" * 32]})
    export(ours, tmp_path / "second.zip", key=SigningKey(key))
    # Back where it came from, nothing of it is a claim, and its own keys are not lent.
    import_(theirs, tmp_path / "second.zip")
    assert [r.claimed for r in theirs.records()] == [False] * 4 + [True]
    assert theirs.lookup_keys() == [*theirs.key_epochs(), *ours.key_epochs()]
    third = open_ledger(tmp_path / "third.db")
    import_(third, tmp_path / "second.zip", PublicKey.read(f"{key}.pub"))
    told, stated = third.get(real.dataset_id), third.get(a_record(8).dataset_id)
    assert told is not None
    assert stated is not None
    assert (told.claimed, told.imported_from) == (True, theirs.ledger_id)
    assert (stated.claimed, stated.imported_from) == (False, ours.ledger_id)


@in_each
def test_some_bring_what_they_were_made_from_and_are_known_by(
    theirs: Ledger, ours: Ledger, tmp_path: Path
) -> None:
    """Fingerprints are of a form that hangs on another record, which is not sent."""
    [(key, _)] = theirs.key_epochs()
    behind = {"uri": "x", "origin": "synthetic", "depth": 1, "effective_depth": 1.0, "rows": 1}
    child = a_record(4, sources=[behind | {"dataset_id": a_record(2).dataset_id}])
    theirs.register(child, {}, [Attachment("b", "f/u", key, b"more")])
    export(theirs, tmp_path / "some.zip", [child.dataset_id])
    import_(ours, tmp_path / "some.zip")
    assert [r.dataset_id for r in ours.records()] == [a_record(2).dataset_id, child.dataset_id]
    assert [ours.attachment(w) for w in ours.attached("a")] == [b"form"]
    export(theirs, tmp_path / "all.zip")
    import_(ours, tmp_path / "all.zip")
    assert len(ours.attached("b")) == 2
    # What is there already is not taken again.
    theirs.register(a_record(5), {}, [Attachment("b", "f/v", key, b"still more")])
    export(theirs, tmp_path / "one.zip", [a_record(5).dataset_id])
    before = ours.attached("a")
    import_(ours, tmp_path / "one.zip")
    assert ours.attached("a") == before
    third = open_ledger(tmp_path / "third.db")
    import_(third, tmp_path / "all.zip")
    assert [w.dataset_id for w in third.attached("a")] == [a_record(1).dataset_id]
    assert (third.verify(), ours.verify()) == ([], [])


def test_a_safegen_that_knows_no_claims_does_not_open_a_ledger_that_has_some(
    ours: Ledger, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take them for statements."""
    import_(ours, file)
    monkeypatch.setattr(sqlite, "MIGRATIONS", sqlite.MIGRATIONS[:2])
    with pytest.raises(LedgerError, match="upgrade safegen"):
        open_ledger(ours.url)


def test_an_export_takes_no_place_and_knows_its_datasets(theirs: Ledger, file: Path) -> None:
    data = file.read_bytes()
    assert cli("ledger", "export", file, "--ledger", theirs.url).code == 2
    assert file.read_bytes() == data
    new = file.with_name("new.zip")
    assert cli("ledger", "export", new, "--dataset", "01X", "--ledger", theirs.url).code == 2
    assert cli("ledger", "export", new / "x", "--ledger", theirs.url).code == 1
    assert sorted(file.parent.glob("*.zip")) == [file]
    assert not list(file.parent.glob(".safegen-*"))
