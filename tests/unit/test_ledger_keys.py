"""Where a ledger and its keys lie, and what happens when a key is lost, open or damaged."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest
from test_ledger import _own_home, finished, path, python
from test_ledger_writers import WRITE_FIFTY

from ledger_records import a_record, digest
from safegen.errors import LedgerError
from safegen.ledger import open_ledger
from safegen.ledger.places import ledger_place, ledger_url

__all__ = ["_own_home", "path"]  # fixtures
pytestmark = pytest.mark.usefixtures("_own_home")


def key_file(tmp_path: Path, ledger_id: str) -> Path:
    return tmp_path / "config" / "safegen" / "keys" / f"{ledger_id}.json"


def test_default_ledger_is_in_the_data_folder_and_its_key_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    ledger = open_ledger()
    database = tmp_path / "share" / "safegen" / "ledger.db"
    assert ledger.url == f"sqlite://{database}"
    assert stat.S_IMODE(database.parent.stat().st_mode) == 0o700
    keys = key_file(tmp_path, ledger.ledger_id)
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.parent.stat().st_mode) == 0o700
    [(key_id, key)] = ledger.key_epochs()
    assert key_id == hashlib.sha256(key).hexdigest()[:16]
    assert key not in database.read_bytes()
    assert key.hex().encode() not in database.read_bytes()
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert ledger_place(None) != database
    assert ledger_place(None).is_relative_to(tmp_path / "home")
    assert list(work.iterdir()) == []


def test_environment_names_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFEGEN_LEDGER", str(tmp_path / "team.db"))
    ledger = open_ledger()
    assert ledger.url.endswith("/team.db")
    assert not (tmp_path / "share").exists()
    assert open_ledger(ledger.url).ledger_id == ledger.ledger_id


def test_account_without_a_home_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "not/absolute")
    with pytest.raises(LedgerError, match="no home folder"):
        ledger_place(None)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://user:hunter2@db/ledger",
        "mysql://user:hunter2@db/ledger",
        "sqlite://user:hunter2@db/ledger.db",
        "sqlite:///ledger.db?password=hunter2",
        "sqlite:relative.db",
        ":memory:",
        "",
    ],
)
def test_address_of_another_kind_is_refused_without_its_password(url: str | Path) -> None:
    with pytest.raises(LedgerError) as caught:
        open_ledger(url)
    assert "hunter2" not in str(caught.value)
    assert "sqlite:///absolute/path.db" in str(caught.value)


@pytest.mark.parametrize("name", ["plain.db", "with space & 100%?#.db", "größe.db"])
def test_address_of_a_file_survives_the_round_trip(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    ledger = open_ledger(path)
    assert path.is_file()
    assert ledger_place(ledger_url(path)) == path
    assert open_ledger(ledger.url).ledger_id == ledger.ledger_id


def test_lost_key_is_visible_and_never_replaced(address: str, tmp_path: Path) -> None:
    ledger = open_ledger(address)
    [(key_id, _)] = ledger.key_epochs()
    ledger.register(a_record(), {key_id: [digest(1)]})
    keys = key_file(tmp_path, ledger.ledger_id)
    kept = keys.read_bytes()
    keys.unlink()
    again = open_ledger(address)
    assert again.key_epochs() == []
    assert again.state()["key_epochs"] == again.state()["key_epochs_missing"] == [key_id]
    assert again.record("decision", {}).seq == 2
    assert not keys.exists()
    fresh = again.new_epoch()
    assert [k for k, _ in again.key_epochs()] == [fresh]
    assert again.state()["key_epochs"] == [fresh, key_id]
    assert again.state()["key_epochs_missing"] == [key_id]
    keys.write_bytes(kept)
    assert [k for k, _ in again.key_epochs()] == [key_id]
    assert again.state()["key_epochs_missing"] == [fresh]


def test_new_epoch_comes_first_and_older_lookups_are_still_found(address: str) -> None:
    ledger = open_ledger(address)
    [(old, old_key)] = ledger.key_epochs()
    ledger.register(a_record(1), {old: [digest(1)]})
    new = ledger.new_epoch()
    ledger.register(a_record(2), {old: [digest(2)], new: [digest(3)]})
    assert [k for k, _ in ledger.key_epochs()] == [new, old]
    assert ledger.key_epochs()[1][1] == old_key
    assert ledger.find(lookups={new: digest(9), old: digest(1)}) == [a_record(1)]
    assert ledger.verify() == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_key_file_open_to_others_is_refused(path: Path, tmp_path: Path, mode: int) -> None:
    ledger = open_ledger(path)
    keys = key_file(tmp_path, ledger.ledger_id)
    keys.chmod(mode)
    for call in (lambda: open_ledger(path), ledger.key_epochs, ledger.state):
        with pytest.raises(LedgerError) as caught:
            call()
        assert f"chmod 600 '{keys}'" in str(caught.value)
    keys.chmod(0o400)
    assert len(open_ledger(path).key_epochs()) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"ledger_id": "LEDGER", "keys": ["00"]}', b'{"keys": [1]}', b"\xff"],
)
def test_damaged_key_file_is_refused_and_kept(path: Path, tmp_path: Path, content: bytes) -> None:
    ledger = open_ledger(path)
    keys = key_file(tmp_path, ledger.ledger_id)
    sound, damaged = keys.read_bytes(), content.replace(b"LEDGER", ledger.ledger_id.encode())
    keys.write_bytes(damaged)
    for call in (lambda: open_ledger(path), ledger.new_epoch):
        with pytest.raises(LedgerError, match="damaged"):
            call()
    assert keys.read_bytes() == damaged
    keys.write_bytes(sound)
    assert len(open_ledger(path).key_epochs()) == 1


def test_key_file_of_another_ledger_is_refused(tmp_path: Path) -> None:
    one, two = open_ledger(tmp_path / "1.db"), open_ledger(tmp_path / "2.db")
    one_file, two_file = (key_file(tmp_path, x.ledger_id) for x in (one, two))
    one_file.write_bytes(two_file.read_bytes())
    with pytest.raises(LedgerError, match="damaged"):
        one.key_epochs()
    assert len(two.key_epochs()) == 1


def test_key_that_cannot_be_written_founds_no_ledger(address: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("in the way")
    with pytest.raises(LedgerError, match="cannot be read"):
        open_ledger(address)
    os.unlink(tmp_path / "config")
    ledger = open_ledger(address)
    assert ledger.state()["key_epochs_missing"] == []


def test_default_ledger_founded_by_many_has_one_key(tmp_path: Path) -> None:
    code = WRITE_FIFTY.replace("sys.argv[1]", "").replace("range(50)", "range(1)")
    assert len({finished(process) for process in [python(code, "-", n) for n in range(4)]}) == 1
    assert len(list((tmp_path / "config" / "safegen" / "keys").iterdir())) == 1
