"""The ledger: what is kept, who may write at once, and how failures read."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ledger_records import a_record, digest
from safegen.errors import LedgerError
from safegen.ledger import Ledger, books, connections, open_ledger, sqlite
from safegen.ledger.base import MAX_BYTES
from safegen.ledger.schema import APPLICATION_ID, MIGRATIONS

pytestmark = pytest.mark.usefixtures("_own_home")


@pytest.fixture
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("SAFEGEN_LEDGER", raising=False)
    monkeypatch.delenv("SAFEGEN_DEBUG", raising=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def python(code: str, *arguments: object, plain_user: bool = False) -> subprocess.Popen[str]:
    """Another process that imports the ledger; `plain_user` takes root's powers away."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    if plain_user and os.geteuid() == 0:
        command = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", *command]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output.strip()


# -- what is kept --------------------------------------------------------------------------


def test_what_was_registered_is_found_again(address: str) -> None:
    ledger = open_ledger(address)
    [(key, _)] = ledger.key_epochs()
    first, second = a_record(1), a_record(2, effective_depth=1.5, expires="2027-01-01T00:00:00Z")
    entry = ledger.register(first, {key: [digest(7), digest(8)]})
    ledger.register(second, {key: [digest(8)]})
    again = open_ledger(address)
    assert again.get(first.dataset_id) == first
    assert again.get("never") is None
    assert again.find(logical_digest=second.logical_digest) == [second]
    assert again.find(lookups={key: digest(8)}) == [first, second]
    assert again.find(logical_digest=second.logical_digest, lookups={key: digest(7)}) == [
        first,
        second,
    ]
    assert again.find(lookups={key: digest(9)}) == again.find() == []
    assert list(again.records()) == [first, second]
    assert entry.payload["manifest_digest"] == first.manifest_digest
    assert [e.seq for e in again.log()] == [1, 2]
    assert [e.seq for e in again.log(after=1)] == [2]
    assert again.verify() == []


def test_it_says_whether_content_is_known_by_its_logical_digest_alone(address: str) -> None:
    ledger = open_ledger(address)
    [(old, _)] = ledger.key_epochs()
    new = ledger.new_epoch()
    rows, tables = f"safegen-rows-v1:{'a' * 64}", f"safegen-tables-v2:{'b' * 64}"
    assert not ledger.digest_alone("safegen-rows-v1", [])
    ledger.register(a_record(1, logical_digest=rows), {old: [digest(7)], new: [digest(8)]})
    ledger.register(a_record(2, logical_digest=tables), {new: [digest(9)]})
    ledger.register(a_record(3), {})

    def alone(*key_ids: str) -> list[bool]:
        return [ledger.digest_alone(f"safegen-rows-v{n}", key_ids) for n in (1, 2, 3)]

    assert alone() == [True, True, False]
    assert alone("0" * 16) == [True, True, False]
    assert alone(old) == [False, True, False]
    assert alone(new) == alone(old, new) == [False, False, False]
    ledger.register(a_record(4, logical_digest=rows), {})
    assert alone(old, new) == [True, False, False]


def test_iterators_give_everything_and_hold_no_lock(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "PAGE", 2)
    ledger = open_ledger(address)
    for number in range(5):
        ledger.register(a_record(number), {})
    begun = (ledger.records(), ledger.log())
    assert [next(begun[0]).dataset_id, next(begun[1]).seq] == [a_record(0).dataset_id, 1]
    ledger.record("decision", {"allowed": False})
    assert [len(list(rest)) for rest in begun] == [4, 5]


def test_payload_comes_back_as_it_was(address: str) -> None:
    payload = {"p": 1e20, "q": 1e-9, "n": 2**53 - 1, "t": [True, None, "\u2028é\n"], "o": {}}
    assert open_ledger(address).record("decision", payload).payload == payload
    assert next(open_ledger(address).log()).payload == payload
    assert open_ledger(address).verify() == []


def test_saved_model_is_known_by_its_digest(address: str) -> None:
    ledger = open_ledger(address)
    assert ledger.knows_model(digest(1)) is None
    ledger.record_model(digest(1), {"depth": 1})
    ledger.record_model(digest(1), {"depth": 2})
    assert ledger.knows_model(digest(1)) == {"depth": 2}
    assert ledger.state()["log_entries"] == 2


def test_state_names_ledger_size_head_and_epochs(address: str) -> None:
    ledger = open_ledger(address)
    empty = ledger.state()
    assert (empty["datasets"], empty["log_entries"]) == (0, 0)
    entry = ledger.register(a_record(), {})
    assert ledger.state() == {
        "url": address if ":" in address else f"sqlite://{address}",
        "ledger_id": ledger.ledger_id,
        "datasets": 1,
        "log_entries": 1,
        "head": entry.hash,
        "key_epochs": [ledger.key_epochs()[0][0]],
        "key_epochs_missing": [],
        "imported_keys_missing": {},
    }
    assert entry.prev == empty["head"] != entry.hash


def test_dataset_id_registered_twice_is_refused_unless_the_same(address: str) -> None:
    ledger = open_ledger(address)
    entry = ledger.register(a_record(), {})
    assert ledger.register(a_record(), {}) == entry
    with pytest.raises(LedgerError, match="already"):
        ledger.register(a_record(origin="real"), {})
    assert ledger.state()["log_entries"] == 1


def test_value_of_data_as_lookup_is_refused(address: str) -> None:
    ledger = open_ledger(address)
    [(key, _)] = ledger.key_epochs()
    with pytest.raises(LedgerError, match="never values") as caught:
        ledger.register(a_record(), {key: ["Jane Doe"]})
    assert "Jane" not in str(caught.value)
    with pytest.raises(LedgerError, match="key epochs"):
        ledger.register(a_record(), {"0" * 16: [digest(1)]})
    with pytest.raises(LedgerError, match="key epochs"):
        ledger.find(lookups={"0" * 16: digest(1)})
    assert ledger.state()["datasets"] == 0
    ledger.register(a_record(), {key: [digest(1)]})


@pytest.mark.parametrize(
    "payload", [{"x": float("nan")}, {"x": 2**60}, {"x": "\ud800"}, {"x": {1}}, {1: "x"}]
)
def test_payload_that_is_not_json_is_refused(address: str, payload: dict[str, object]) -> None:
    ledger = open_ledger(address)
    with pytest.raises(LedgerError, match="plain JSON") as caught:
        ledger.record("decision", payload)
    assert str(2**60) not in str(caught.value)
    assert caught.value.__cause__ is None
    assert ledger.record("decision", {"x": str(2**60)}).seq == 1


def test_payload_that_is_too_large_is_refused(address: str) -> None:
    ledger = open_ledger(address)
    with pytest.raises(LedgerError, match="4,194,304"):
        ledger.record("decision", {"x": "a" * MAX_BYTES})
    with pytest.raises(LedgerError, match="4,194,304"):
        ledger.register(a_record(manifest={"x": "a" * MAX_BYTES}), {})
    ledger.record("decision", {"x": "a" * (MAX_BYTES - 10)})


def test_kind_that_the_ledger_answers_for_is_refused(address: str) -> None:
    ledger = open_ledger(address)
    for kind in ("register", "model", "epoch", "", "Two words"):
        with pytest.raises(LedgerError, match="kind"):
            ledger.record(kind, {})
    assert ledger.record("decision", {}).kind == "decision"


# -- failures ------------------------------------------------------------------------------


def refused(path: Path, *, create: bool = True) -> str:
    with pytest.raises(LedgerError) as caught:
        open_ledger(path, create=create)
    message = str(caught.value)
    assert str(path) in message
    assert "sqlite3." not in message
    assert "\n" not in message
    assert caught.value.__cause__ is None
    return message


def test_file_that_is_no_ledger_is_refused(path: Path, tmp_path: Path) -> None:
    assert "folder" in refused(tmp_path)
    text = tmp_path / "notes.txt"
    text.write_text("a secret value " * 100)
    assert "not SQLite" in refused(text)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE customers (name TEXT)")
    db.close()
    before = foreign.read_bytes()
    assert "another program" in refused(foreign)
    assert foreign.read_bytes() == before
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "regular file" in refused(pipe)
    with pytest.raises(LedgerError, match="cannot be made"):
        open_ledger(text / "ledger.db")
    open_ledger(path)


def test_missing_ledger_is_not_created_when_it_must_exist(path: Path) -> None:
    assert "no ledger" in refused(path, create=False)
    assert not path.exists()
    path.touch()
    assert "empty" in refused(path, create=False)
    ledger_id = open_ledger(path).ledger_id
    assert open_ledger(path, create=False).ledger_id == ledger_id


def test_ledger_of_a_newer_safegen_is_refused(path: Path) -> None:
    ledger = open_ledger(path)
    assert open_ledger(path).ledger_id == ledger.ledger_id
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    db.execute("PRAGMA user_version = 99")
    db.close()
    assert "upgrade safegen" in refused(path)
    with pytest.raises(LedgerError, match="upgrade safegen"):
        ledger.record("decision", {})


def test_next_migration_runs_once_and_keeps_what_was_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = open_ledger(path)
    old.register(a_record(), {})
    state = old.state()
    number = MIGRATIONS[-1][0] + 1
    broken = [*MIGRATIONS, (number, ["CREATE TABLE further (x)", "CREATE TABLE log (x)"])]
    monkeypatch.setattr(sqlite, "MIGRATIONS", broken)
    with pytest.raises(LedgerError):
        open_ledger(path)
    monkeypatch.setattr(sqlite, "MIGRATIONS", [*MIGRATIONS, (number, ["CREATE TABLE further (x)"])])
    for _ in range(2):
        new = open_ledger(path)
        assert new.state() == state
        assert new.verify() == []


def test_replaced_or_closed_ledger_is_refused(path: Path) -> None:
    ledger = open_ledger(path)
    path.unlink()
    with pytest.raises(LedgerError, match="no ledger at"):
        ledger.state()
    other = open_ledger(path)
    with pytest.raises(LedgerError, match="replaced"):
        ledger.record("decision", {})
    other.record("decision", {})
    other.close()
    for call in (other.state, other.verify, lambda: list(other.records())):
        with pytest.raises(LedgerError, match="closed"):
            call()


def test_ledger_locked_for_too_long_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger(path)
    monkeypatch.setattr(connections, "BUSY_SECONDS", 0.1)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    for call in (ledger.state, lambda: ledger.record("decision", {})):
        with pytest.raises(LedgerError, match=r"locked by another process for 0.1 s"):
            call()
    holder.close()
    assert ledger.record("decision", {}).seq == 1


def test_full_disk_is_an_error_and_leaves_nothing_half_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger(path)
    connect = sqlite3.connect

    def small(*arguments: object, **options: object) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*arguments, **options)  # type: ignore[call-overload]
        db.execute("PRAGMA max_page_count = 40")
        return db

    large = a_record(manifest={"x": "a" * 1_000_000})
    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", small)
        with pytest.raises(LedgerError, match=r"disk .* is full"):
            ledger.register(large, {})
    assert ledger.state()["log_entries"] == 0
    ledger.register(large, {})
    assert ledger.verify() == []


READ_ONLY = """
import sys
from pathlib import Path
from safegen.errors import LedgerError
from safegen.ledger import open_ledger
path = Path(sys.argv[1])
ledger = open_ledger(path)
assert ledger.verify() == [] and ledger.state()["log_entries"] == 1 and len(list(ledger.log())) == 1
for call in (lambda: ledger.record("decision", {}), lambda: open_ledger(path.parent / "new.db")):
    try:
        call()
    except LedgerError as error:
        print(error)
"""


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o400, 0o700), (0o600, 0o500)])
def test_read_only_ledger_can_be_read_and_not_written(
    tmp_path: Path, file_mode: int, folder_mode: int
) -> None:
    path = tmp_path / "shared" / "ledger.db"
    open_ledger(path).record("decision", {})
    path.chmod(file_mode)
    path.parent.chmod(folder_mode)
    lines = finished(python(READ_ONLY, path, plain_user=True)).splitlines()
    path.parent.chmod(0o700)
    assert "read-only" in lines[0]
    assert str(path) in lines[0]
    if folder_mode == 0o500:
        assert "cannot be created" in lines[1]
    else:
        assert len(lines) == 1
    path.chmod(0o600)
    assert open_ledger(path).record("decision", {}).seq == 2


def test_ledger_and_its_new_folder_are_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "ledger.db"
    open_ledger(path)
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (path, path.parent, path.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]
    assert [p.name for p in path.parent.iterdir()] == ["ledger.db"]


def test_what_is_opened_is_a_ledger(address: str) -> None:
    ledger: Ledger = open_ledger(address)
    assert open_ledger(ledger) is ledger
