"""A whole ledger into another database; a server's: tests/system/test_ledger_on_postgres.py."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from test_ledger import _own_home, path

from ledger_records import a_record, digest
from safegen.cli import main
from safegen.errors import UsageError, VerificationError
from safegen.ledger import Attachment, Ledger, open_ledger
from safegen.ledger.copying import copy_ledger

__all__ = ["_own_home", "path"]  # fixtures
pytestmark = pytest.mark.usefixtures("_own_home")


@pytest.fixture
def ledger(path: Path) -> Ledger:
    ledger = open_ledger(path)
    [(key, _)] = ledger.key_epochs()
    ledger.register(a_record(1), {key: [digest(1)]}, [Attachment("a", "f", key, b"\0\xff")])
    ledger.record_model(digest(4), {"depth": 1})
    ledger.new_epoch()
    return ledger


def test_a_copy_has_the_same_id_keys_and_log(ledger: Ledger, tmp_path: Path) -> None:
    copied = copy_ledger(ledger, str(tmp_path / "copy.db"))
    assert copied.verify() == []
    assert {**copied.state(), "url": ""} == {**ledger.state(), "url": ""}
    assert list(copied.log()) == list(ledger.log())
    assert copied.key_epochs() == ledger.key_epochs()
    assert copied.knows_model(digest(4)) == {"depth": 1}
    assert [copied.attachment(a) for a in copied.attached("a")] == [b"\0\xff"]
    assert copied.record("decision", {}).prev == ledger.state()["head"]
    assert ledger.state()["log_entries"] == 3


def test_nothing_is_copied_over_a_ledger_or_from_an_unsound_one(
    ledger: Ledger, path: Path, tmp_path: Path
) -> None:
    other = open_ledger(tmp_path / "other.db")
    with pytest.raises(UsageError, match=r"other\.db already"):
        copy_ledger(ledger, str(tmp_path / "other.db"))
    assert other.state()["log_entries"] == 0
    with sqlite3.connect(path) as db:
        db.execute("DROP TRIGGER log_no_update")
        db.execute("UPDATE log SET payload = '{}' WHERE seq = 1")
    db.close()
    with pytest.raises(VerificationError, match="log entry 1 was changed"):
        copy_ledger(ledger, str(tmp_path / "copy.db"))
    assert not (tmp_path / "copy.db").exists()


def test_the_command_copies_and_says_what(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ledger", "copy", str(tmp_path / "copy.db"), "--ledger", ledger.url])
    assert not ended.value.code
    said = capsys.readouterr().out
    assert ledger.state()["head"][:16] in said
    assert "write to one of the two only" in said
    assert open_ledger(tmp_path / "copy.db", create=False).ledger_id == ledger.ledger_id
