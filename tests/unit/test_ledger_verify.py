"""Whoever edits the database is found, as far as a ledger without signed heads can find it."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ledger import _own_home, path

from ledger_records import a_record, digest
from safegen.errors import LedgerError
from safegen.ledger import Ledger, open_ledger
from safegen.ledger.base import (
    LogEntry,
    attachments_digest,
    canonical,
    entry_from,
    next_entry,
)

__all__ = ["_own_home", "path"]  # fixtures
pytestmark = pytest.mark.usefixtures("_own_home")
of_sqlite = pytest.mark.parametrize("address", ["sqlite"], indirect=True)


@pytest.fixture
def ledger(address: str) -> Ledger:
    """Entries: 1 and 2 registrations, 3 a decision, 4 a model, 5 a key epoch, 6 a decision."""
    ledger = open_ledger(address)
    [(key, _)] = ledger.key_epochs()
    ledger.register(a_record(1), {key: [digest(1), digest(2)]})
    ledger.register(a_record(2), {key: [digest(3)]})
    ledger.record("decision", {"allowed": False})
    ledger.record_model(digest(4), {"depth": 1})
    ledger.new_epoch()
    ledger.record("decision", {"allowed": True})
    assert ledger.verify() == []
    return ledger


def tamper(address: str, *statements: str) -> None:
    """What somebody with write access does: drop the triggers, edit."""
    if ":" in address:
        tamper_on_server(address, *statements)
        return
    db = sqlite3.connect(address, isolation_level=None)
    for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        db.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        db.execute(statement)
    db.close()


def tamper_on_server(address: str, *statements: str) -> None:
    import psycopg

    with psycopg.connect(address.replace("keeper@", "superuser@"), autocommit=True) as db:
        db.execute("SET search_path = safegen")
        for table in ("ledger", "epochs", "log", "records", "lookups", "models", "attachments"):
            db.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL".encode())
        for statement in statements:
            db.execute(statement.encode())


def problems_after(ledger: Ledger, address: str, *statements: str) -> str:
    tamper(address, *statements)
    return "\n".join(ledger.verify())


@pytest.mark.parametrize(
    "edit",
    [
        "payload = replace(payload, 'false', 'true')",
        "payload = 'not json'",
        "time = '2020-01-01T00:00:00Z'",
        "kind = 'note'",
    ],
)
def test_edited_log_entry_is_found(ledger: Ledger, address: str, edit: str) -> None:
    assert problems_after(ledger, address, f"UPDATE log SET {edit} WHERE seq = 3") == (
        "log entry 3 was changed"
    )


@of_sqlite
@pytest.mark.parametrize("edit", ["payload = X'FF'", "payload = CAST(X'22FF22' AS TEXT)"])
def test_log_entry_that_is_no_text_any_more_is_found(
    ledger: Ledger, address: str, edit: str
) -> None:
    assert problems_after(ledger, address, f"UPDATE log SET {edit} WHERE seq = 3") == (
        "log entry 3 was changed"
    )


def test_rewritten_log_entry_breaks_the_chain(ledger: Ledger, address: str) -> None:
    entries = list(ledger.log())
    forged, text = next_entry(3, entries[1].hash, "decision", {"allowed": True})
    found = problems_after(
        ledger,
        address,
        f"UPDATE log SET payload = '{text}', time = '{forged.time}', hash = '{forged.hash}' "
        "WHERE seq = 3",
    )
    assert found == "log entry 4 does not follow from the one before it"


def test_deleted_log_entry_is_found(ledger: Ledger, address: str) -> None:
    assert "log entries 3 to 3 are gone" in problems_after(
        ledger, address, "DELETE FROM log WHERE seq = 3"
    )


def test_deleted_first_log_entry_is_found(ledger: Ledger, address: str) -> None:
    found = problems_after(ledger, address, "DELETE FROM log WHERE seq = 1")
    assert "log entries 1 to 1 are gone" in found
    assert "a row of records names log entry 1" in found
    with pytest.raises(LedgerError, match="verify"):
        ledger.get(a_record(1).dataset_id)
    assert ledger.get(a_record(2).dataset_id) == a_record(2)


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("DELETE FROM records WHERE seq = 2", "(log entry 2) is gone"),
        ("UPDATE records SET body = replace(body, 'synthetic', 'real') WHERE seq = 2", "changed"),
        ("UPDATE records SET dataset_id = 'x' WHERE seq = 2", "(log entry 2) was changed"),
        ("UPDATE records SET logical_digest = 'x' WHERE seq = 2", "(log entry 2) was changed"),
        ("INSERT INTO records SELECT 3, body, 'x', 'x' FROM records WHERE seq = 2", "of records"),
        ("DELETE FROM lookups WHERE seq = 2", "lookup digests of dataset"),
        ("UPDATE lookups SET digest = 'x' WHERE seq = 2", "lookup digests of dataset"),
        ("INSERT INTO lookups SELECT key_id, 'x', 3 FROM lookups LIMIT 1", "a row of lookups"),
        ("DELETE FROM models", "the model of log entry 4"),
        ("UPDATE models SET digest = 'x'", "the model of log entry 4"),
        ("INSERT INTO models VALUES (3, 'x')", "a row of models"),
        ("DELETE FROM epochs WHERE seq = 5", "the key epoch of log entry 5"),
        ("DELETE FROM epochs WHERE seq = 0", "the first key epoch is gone"),
        ("UPDATE epochs SET key_id = 'x' WHERE seq = 0", "log entry 1 does not follow"),
        ("INSERT INTO epochs VALUES (3, 'x')", "a key epoch names log entry 3"),
        ("SELECT 1", ""),
    ],
)
def test_table_that_differs_from_the_log_is_found(
    ledger: Ledger, address: str, statement: str, problem: str
) -> None:
    found = problems_after(ledger, address, statement)
    assert problem in found
    assert bool(found) == bool(problem)  # the last line edits nothing


def test_edited_record_is_not_believed_when_read(ledger: Ledger, address: str) -> None:
    tamper(address, "UPDATE records SET body = replace(body, 'synthetic', 'real') WHERE seq = 2")
    calls: list[Callable[[], object]] = [
        lambda: ledger.get(a_record(2).dataset_id),
        lambda: ledger.find(logical_digest=a_record(2).logical_digest),
        lambda: list(ledger.records()),
    ]
    for call in calls:
        with pytest.raises(LedgerError, match=r"entry 2 .* not what was written"):
            call()
    assert ledger.get(a_record(1).dataset_id) == a_record(1)


def test_edited_model_is_not_believed_when_read(ledger: Ledger, address: str) -> None:
    assert ledger.knows_model(digest(4)) == {"depth": 1}
    tamper(address, "UPDATE log SET payload = replace(payload, ':1', ':0') WHERE seq = 4")
    with pytest.raises(LedgerError, match="entry 4"):
        ledger.knows_model(digest(4))


@of_sqlite
def test_chain_of_another_ledger_is_found(ledger: Ledger, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    open_ledger(other).record("decision", {})
    tamper(str(other), f"ATTACH '{path}' AS donor", "DELETE FROM log")
    tamper(
        str(other),
        f"ATTACH '{path}' AS donor",
        "INSERT INTO log SELECT * FROM donor.log WHERE seq <= 1",
        "INSERT INTO records SELECT * FROM donor.records WHERE seq <= 1",
        "INSERT INTO lookups SELECT * FROM donor.lookups WHERE seq <= 1",
    )
    assert open_ledger(other).verify() == ["log entry 1 does not follow from the one before it"]


@of_sqlite
@pytest.mark.parametrize("table", ["ledger", "epochs", "log", "records", "lookups", "models"])
def test_plain_edit_is_stopped_by_the_database(ledger: Ledger, path: Path, table: str) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    column = db.execute(f"SELECT name FROM pragma_table_info('{table}')").fetchone()[0]
    for statement in (
        f"UPDATE {table} SET {column} = {column}",
        f"DELETE FROM {table}",
        f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute(statement)
    db.close()
    assert ledger.verify() == []


@of_sqlite
def test_damaged_file_is_found(ledger: Ledger, path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[5000:9000] = bytes(4000)
    path.write_bytes(data)
    try:
        assert ledger.verify() != []
    except LedgerError as error:
        assert "restore a backup" in str(error)  # noqa: PT017


def test_cut_tail_is_not_found_but_the_head_tells(ledger: Ledger, address: str) -> None:
    """A stated limit (docs/ledger.md): the head that a decision names is what shows it."""
    head = ledger.state()["head"]
    assert problems_after(ledger, address, "DELETE FROM log WHERE seq = 6") == ""
    assert head not in {entry.hash for entry in ledger.log()}


def test_entry_hash_is_sha256_of_rfc8785_bytes(ledger: Ledger) -> None:
    entry = LogEntry(
        seq=1,
        time="2026-01-01T00:00:00.000000Z",
        kind="decision",
        payload={"b": 1.0, "a": "é"},
        prev="0" * 64,
        hash="",
    )
    text = (
        '{"kind":"decision","payload":{"a":"é","b":1},"prev":"' + "0" * 64 + '","seq":1,'
        '"time":"2026-01-01T00:00:00.000000Z"}'
    )
    expected = hashlib.sha256(text.encode()).hexdigest()
    assert LogEntry(**{**vars(entry), "hash": expected}).sound()
    assert not LogEntry(**{**vars(entry), "hash": expected, "seq": 2}).sound()


NUMBERS = st.integers(1 - 2**53, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=10,
)


@settings(deadline=None)  # other work may share the cores
@given(st.dictionaries(TEXT, JSON))
def test_any_payload_keeps_its_hash_when_read_back(payload: dict[str, object]) -> None:
    entry, text = next_entry(1, "0" * 64, "decision", payload)
    again = entry_from(1, entry.time, "decision", text, entry.prev, entry.hash)
    assert again == entry
    assert again.payload == payload
    assert again.sound()
    assert canonical(again.payload, "payload").decode() == text


@given(st.lists(st.tuples(TEXT, TEXT, TEXT, TEXT)))
def test_what_was_attached_is_digested_as_rfc8785_bytes(
    parts: list[tuple[str, str, str, str]],
) -> None:
    expected = canonical([list(p) for p in sorted(set(parts))], "attachments")
    assert attachments_digest(parts) == hashlib.sha256(expected).hexdigest()
