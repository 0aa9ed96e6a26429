"""A ledger on a real PostgreSQL server: who dies, who lies, who may do what.

What a ledger means is tested in tests/unit/test_ledger*.py, in both kinds of database.
"""

from __future__ import annotations

import gc
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from ledger_records import a_record
from postgres_server import OWNER, PASSWORD, Postgres
from safegen.errors import LedgerError, UsageError, VerificationError
from safegen.ledger import Attachment, Ledger, open_ledger
from safegen.ledger import postgres as driver
from safegen.ledger.copying import copy_ledger
from safegen.ledger.exporting import export
from safegen.ledger.keys import key_file
from safegen.ledger.schema import POSTGRES

pytestmark = pytest.mark.system
TABLES = ("ledger", "epochs", "log", "records", "lookups", "models", "attachments", "migrations")


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    with postgres.database() as name:
        yield name


@pytest.fixture
def url(postgres: Postgres, database: str) -> str:
    return postgres.url(database)


def filled(url: str | Path) -> Ledger:
    """Registrations, one with attachments, a decision, a model, a further key."""
    ledger = open_ledger(url)
    [(key, _)] = ledger.key_epochs()
    parts = [Attachment("a", "f", key, bytes(range(256))), Attachment("b", "f/t", key, b"\0\xff")]
    ledger.register(a_record(1), {key: [f"{i:032x}" for i in (9, 1, 5)]}, parts)
    ledger.record("decision", {"q": 1e20, "t": ["\u2028é\n", "\0", None]})
    ledger.record_model("ab" * 16, {"depth": 1})
    new = ledger.new_epoch()
    ledger.register(a_record(2), {new: ["f" * 32]}, [Attachment("b", "F/é", new, b"")])
    assert ledger.verify() == []
    return ledger


def writer(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


# ---- many writers, of whom some die --------------------------------------------------------------

WRITE = """
import sys
from safegen.ledger import open_ledger
ledger = open_ledger(sys.argv[1])
for i in range(int(sys.argv[3])):
    ledger.record("decision", {"writer": sys.argv[2], "i": i})
    print(i, flush=True)
"""


def test_writers_at_once_of_whom_some_are_killed_keep_one_chain(url: str) -> None:
    doomed = [writer(WRITE, url, f"doomed-{n}", 10_000) for n in range(3)]
    others = [writer(WRITE, url, f"other-{n}", 25) for n in range(5)]
    for n, process in enumerate(doomed):
        assert process.stdout is not None
        for _ in range(5 + 5 * n):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    for process in others:
        process.communicate(timeout=60)
        assert process.returncode == 0
    ledger = open_ledger(url)
    assert ledger.verify() == []
    entries = list(ledger.log())
    assert [e.seq for e in entries] == list(range(1, len(entries) + 1))
    for n in range(5):
        mine = [e.payload["i"] for e in entries if e.payload["writer"] == f"other-{n}"]
        assert mine == list(range(25))
    assert all(sum(e.payload["writer"] == f"doomed-{n}" for e in entries) >= 5 for n in range(3))


HOLD = """
import sys, time
from safegen.ledger import base, books, open_ledger
ledger = open_ledger(sys.argv[1])
with ledger._transaction(write=True) as at:
    at.append("decision", {"half": True})
    print("holds", flush=True)
    time.sleep(60)
"""


def test_a_writer_that_stands_still_is_waited_for_and_named_and_its_death_frees_the_lock(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger(url)
    holder = writer(HOLD, url)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "holds\n"
    monkeypatch.setattr(driver, "BUSY_SECONDS", 0.2)
    with pytest.raises(LedgerError, match=r"locked by another writer for 0.2 s"):
        ledger.record("decision", {})
    assert ledger.state()["log_entries"] == 0  # readers do not wait
    monkeypatch.setattr(driver, "BUSY_SECONDS", 30.0)
    threading.Timer(0.3, holder.kill).start()
    assert ledger.record("decision", {}).seq == 1
    holder.communicate()
    assert ledger.verify() == []


# ---- a server that goes away ---------------------------------------------------------------------


def test_a_server_that_was_started_anew_is_used_again(postgres: Postgres, url: str) -> None:
    ledger = filled(url)
    postgres.down()
    with pytest.raises(LedgerError, match="cannot be reached: check address and network") as caught:
        ledger.state()
    assert url in str(caught.value)
    postgres.up()
    assert ledger.record("decision", {}).seq == 6
    assert ledger.verify() == []


def test_a_kept_connection_that_was_cut_costs_nothing(
    postgres: Postgres, database: str, url: str
) -> None:
    ledger = filled(url)
    for again in range(2):
        before = postgres.backends(database)
        assert before
        cut(postgres, database)
        assert ledger.record("decision", {}).seq == 6 + again
        assert ledger.state()["log_entries"] == 6 + again
    assert ledger.verify() == []


def cut(postgres: Postgres, database: str) -> None:
    query = (
        f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{database}'"
    )
    postgres.sql("postgres", query)


def test_a_connection_lost_in_the_middle_writes_nothing_and_says_so(
    postgres: Postgres, database: str, url: str
) -> None:
    ledger = filled(url)

    def write(more: int) -> None:
        with ledger._transaction(write=True) as at:  # type: ignore[attr-defined]
            at.append("decision", {})
            cut(postgres, database)
            for _ in range(more):
                at.append("decision", {})

    with pytest.raises(LedgerError, match="was lost, and nothing was written: try again"):
        write(1)
    assert ledger.state()["log_entries"] == 5
    with pytest.raises(LedgerError, match="was lost, and whether it was written is not known"):
        write(0)
    assert ledger.verify() == []
    assert ledger.record("decision", {}).seq == 6


def test_a_server_that_stands_still_is_not_waited_for_for_ever(
    postgres: Postgres, database: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = filled(url)
    monkeypatch.setattr(driver, "ANSWER_SECONDS", 0.3)
    [process] = postgres.backends(database)
    os.kill(process, signal.SIGSTOP)
    start = time.monotonic()
    try:
        with pytest.raises(LedgerError, match=r"connection .* was lost, and nothing was written"):
            ledger.record("decision", {})
        assert time.monotonic() - start < 5
        assert ledger.record("decision", {}).seq == 6  # by another connection
    finally:
        os.kill(process, signal.SIGCONT)
    assert ledger.verify() == []


@contextmanager
def strange_server(answer: bytes | None) -> Iterator[int]:
    """A port where something answers so; None: where nothing is ever said."""
    server = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            try:
                client, _ = server.accept()
            except OSError:
                return
            with client:
                client.recv(4096)
                if answer is None:
                    done.wait(10)
                else:
                    client.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    yield server.getsockname()[1]
    done.set()
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"E\xff\xff\xff\xff",
        b"N" + b"R\0\0\0\x08\0\0\0\0" + b"Z\0\0\0\x05I",
        bytes(1000),
        b"N" + b"R\0\0\0\x08\0\0\0\0" + b"S\0\0\0\x16server_encoding\0\xff\0" + b"Z\0\0\0\x05I" * 9,
    ],
)
def test_what_is_no_postgresql_is_an_error_and_no_crash(answer: bytes | None) -> None:
    with strange_server(answer) as port:
        address = f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/db?connect_timeout=2"
        with pytest.raises(LedgerError) as caught:
            open_ledger(address)
    assert f"postgresql://u@127.0.0.1:{port}/db" in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- what is there -------------------------------------------------------------------------------


def test_what_is_no_ledger_is_refused(postgres: Postgres, database: str, url: str) -> None:
    with pytest.raises(LedgerError, match=r"no ledger at .* create it there"):
        open_ledger(url, create=False)
    postgres.sql(database, "CREATE SCHEMA safegen", "CREATE TABLE safegen.customers (name text)")
    with pytest.raises(LedgerError, match="another program's"):
        open_ledger(url)
    postgres.sql(database, "DROP SCHEMA safegen CASCADE")
    with pytest.raises(LedgerError, match="no such database"):
        open_ledger(postgres.url("never_made"))
    assert open_ledger(url).verify() == []
    postgres.sql(database, "DROP SCHEMA safegen CASCADE")
    with pytest.raises(LedgerError, match="no ledger"):
        open_ledger(url, create=False)


def test_a_ledger_that_was_replaced_is_refused(postgres: Postgres, database: str, url: str) -> None:
    ledger = filled(url)
    postgres.sql(database, "DROP SCHEMA safegen CASCADE")
    with pytest.raises(LedgerError, match="holds no ledger"):
        ledger.state()
    other = open_ledger(url)
    with pytest.raises(LedgerError, match="replaced"):
        ledger.record("decision", {})
    other.record("decision", {})
    other.close()
    with pytest.raises(LedgerError, match="closed"):
        other.state()


@pytest.mark.parametrize(
    "options", ["ENCODING 'LATIN1' LOCALE 'C'", "ENCODING 'SQL_ASCII' LOCALE 'C'"]
)
def test_a_database_of_another_encoding_is_refused(postgres: Postgres, options: str) -> None:
    with (
        postgres.database(f"TEMPLATE template0 {options}") as name,
        pytest.raises(LedgerError, match="ENCODING 'UTF8'"),
    ):
        open_ledger(postgres.url(name))
    with postgres.database("TEMPLATE template0 LOCALE 'C'") as name:
        assert filled(postgres.url(name)).verify() == []


def test_texts_that_the_database_cannot_hold_are_refused(url: str) -> None:
    ledger = filled(url)
    [*_, (key, _)] = ledger.key_epochs()
    for name in ("a\0b", "\ud800"):
        with pytest.raises(LedgerError, match=r"NUL|Unicode|plain JSON"):
            ledger.register(a_record(3), {}, [Attachment("a", name, key, b"")])
        with pytest.raises(LedgerError, match=r"NUL|Unicode"):
            ledger.get(name)
    assert ledger.state()["log_entries"] == 5
    assert ledger.get("\u2028\U0001f600%s?") is None


def test_a_large_attachment_comes_back_as_it_was(url: str) -> None:
    ledger = open_ledger(url)
    [(key, _)] = ledger.key_epochs()
    body = random.Random(1).randbytes(20_000_000)
    ledger.register(a_record(), {}, [Attachment("a", "f", key, body)])
    assert ledger.attachment(ledger.attached("a")[0]) == body
    assert ledger.verify() == []


# ---- migrations ----------------------------------------------------------------------------------


def test_the_next_migration_runs_once_and_keeps_what_was_there(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = filled(url).state()
    number = POSTGRES[-1][0] + 1
    further = "CREATE TABLE further (x bigint)"
    broken = [*POSTGRES, (number, [further, "CREATE TABLE log (x bigint)"])]
    monkeypatch.setattr(driver, "POSTGRES", broken)
    with pytest.raises(LedgerError, match="SQLSTATE 42P07"):
        open_ledger(url)
    monkeypatch.setattr(driver, "POSTGRES", [*POSTGRES, (number, [further])])
    opened = list[Ledger]()
    threads = [threading.Thread(target=lambda: opened.append(open_ledger(url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [o.state() for o in opened] == [state] * 4
    assert opened[0].verify() == []
    monkeypatch.setattr(driver, "POSTGRES", POSTGRES)
    with pytest.raises(LedgerError, match=f"schema version {number} .* upgrade safegen"):
        open_ledger(url)


def test_a_role_that_may_not_migrate_uses_what_is_there(
    postgres: Postgres, database: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(url)
    grant(postgres, database, "scribe", "SELECT, INSERT")
    number = POSTGRES[-1][0] + 1
    later = [*POSTGRES, (number, ["CREATE TABLE further (x bigint)"])]
    monkeypatch.setattr(driver, "POSTGRES", later)
    assert open_ledger(postgres.url(database, "scribe")).record("decision", {}).seq == 6
    versions = "SELECT max(version) FROM safegen.migrations"
    assert postgres.sql(database, versions) == [(number - 1,)]
    open_ledger(url)
    assert postgres.sql(database, versions) == [(number,)]


# ---- who may do what -----------------------------------------------------------------------------


def grant(postgres: Postgres, database: str, role: str, rights: str) -> None:
    if not postgres.sql("postgres", f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'"):
        postgres.sql("postgres", f"CREATE ROLE {role} LOGIN")
    postgres.sql(
        database,
        f"GRANT USAGE ON SCHEMA safegen TO {role}",
        f"GRANT {rights} ON ALL TABLES IN SCHEMA safegen TO {role}",
    )


def test_a_writer_may_append_and_nothing_else(postgres: Postgres, database: str, url: str) -> None:
    filled(url)
    grant(postgres, database, "scribe", "SELECT, INSERT")
    ledger = open_ledger(postgres.url(database, "scribe"))
    [*_, (key, _)] = ledger.key_epochs()
    ledger.register(a_record(3), {key: ["1" * 32]}, [Attachment("a", "f2", key, b"x")])
    ledger.new_epoch()
    assert ledger.verify() == []
    column = {"ledger": "one", "migrations": "version"}
    for table in TABLES:
        for statement in (
            f"UPDATE safegen.{table} SET {column.get(table, 'seq')} = 9",
            f"DELETE FROM safegen.{table}",
            f"TRUNCATE safegen.{table} CASCADE",
            f"DROP TRIGGER append_only ON safegen.{table}",
            f"ALTER TABLE safegen.{table} DISABLE TRIGGER ALL",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                postgres.sql(database, statement, role="scribe")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        postgres.sql(database, "CREATE TABLE safegen.further (x bigint)", role="scribe")


def test_a_reader_reads_and_a_stranger_does_not(
    postgres: Postgres, database: str, url: str
) -> None:
    filled(url)
    grant(postgres, database, "reader", "SELECT")
    ledger = open_ledger(postgres.url(database, "reader"))
    assert ledger.state()["log_entries"] == 5
    assert ledger.verify() == []
    with pytest.raises(LedgerError, match=r"your role do this: ask .* docs/ledger.md"):
        ledger.record("decision", {})
    postgres.sql("postgres", "CREATE ROLE stranger LOGIN")
    for create in (True, False):
        with pytest.raises(LedgerError, match="does not let your role do this"):
            open_ledger(postgres.url(database, "stranger"), create=create)
    with (
        postgres.database() as empty,
        pytest.raises(LedgerError, match="does not let your role do this"),
    ):
        open_ledger(postgres.url(empty, "stranger"))


@pytest.mark.parametrize("table", TABLES)
def test_nobody_edits_a_table_in_passing(
    postgres: Postgres, database: str, url: str, table: str
) -> None:
    """Not even the owner, nor a superuser who says that triggers are not for him."""
    filled(url)
    column = {"ledger": "one", "migrations": "version"}.get(table, "seq")
    edits = (
        f"UPDATE safegen.{table} SET {column} = {column}",
        f"DELETE FROM safegen.{table}",
        f"TRUNCATE safegen.{table} CASCADE",
    )
    for statement in edits:
        for role, before in ((OWNER, ""), ("superuser", "SET session_replication_role = replica;")):
            with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
                postgres.sql(database, before + statement, role=role)
    assert open_ledger(url).verify() == []


@pytest.mark.parametrize("seq", [1, 5, 7, 1_000])
def test_an_entry_out_of_turn_is_stopped_by_the_database(
    postgres: Postgres, database: str, url: str, seq: int
) -> None:
    ledger = filled(url)
    head = ledger.state()["head"]
    insert = "INSERT INTO safegen.log VALUES ({}, '', 'decision', '{{}}', '{}', '')"
    for number, prev in ((seq, head), (6, "0" * 64)):
        with pytest.raises((psycopg.errors.RaiseException, psycopg.errors.UniqueViolation)):
            postgres.sql(database, insert.format(number, prev))
    assert ledger.verify() == []
    postgres.sql(database, insert.format(6, head))
    assert ledger.verify() == ["log entry 6 was changed"]


def test_rows_that_a_policy_of_the_database_hides_are_an_error_and_not_missing(
    postgres: Postgres, database: str, url: str
) -> None:
    filled(url)
    grant(postgres, database, "reader", "SELECT")
    address = postgres.url(database, "reader")
    assert len(list(open_ledger(address).records())) == 2
    postgres.sql(
        database,
        "ALTER TABLE safegen.records ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY partly ON safegen.records USING (seq > 1)",
    )
    with pytest.raises(LedgerError, match="does not let your role"):
        list(open_ledger(address).records())
    assert len(list(open_ledger(url).records())) == 2


def test_tables_of_another_schema_are_not_taken_for_the_ledgers(
    postgres: Postgres, database: str, url: str
) -> None:
    state = filled(url).state()
    fakes = [f"CREATE TABLE evil.{t} AS SELECT * FROM safegen.{t} LIMIT 0" for t in TABLES]
    postgres.sql(
        database,
        "CREATE SCHEMA evil",
        *fakes,
        "CREATE FUNCTION evil.count(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint'",
        "CREATE FUNCTION evil.substr(text, int, int) RETURNS text LANGUAGE sql AS 'SELECT 1'",
        f"GRANT ALL ON SCHEMA evil TO {OWNER}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA evil TO {OWNER}",
        f"ALTER ROLE {OWNER} IN DATABASE {database} SET search_path = evil, public",
    )
    try:
        ledger = open_ledger(url)
        assert ledger.state() == state
        assert ledger.record("decision", {}).seq == 6
        assert ledger.verify() == []
        assert postgres.sql(database, "SELECT count(*) FROM evil.log") == [(0,)]
    finally:
        postgres.sql(
            database,
            "DROP SCHEMA evil CASCADE",
            f"ALTER ROLE {OWNER} IN DATABASE {database} RESET search_path",
        )


# ---- passwords -----------------------------------------------------------------------------------


def with_password(postgres: Postgres, database: str, password: str | None) -> str:
    login = OWNER if password is None else f"{OWNER}:{quote(password, safe='')}"
    return f"postgresql://{login}@127.0.0.1:{postgres.port}/{database}"


def test_a_password_is_used_and_repeated_nowhere(
    postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = open_ledger(with_password(postgres, database, PASSWORD))
    plain = with_password(postgres, database, None)
    assert ledger.url == ledger.state()["url"] == plain
    assert PASSWORD not in repr(vars(ledger)) + repr(ledger._store._server)  # type: ignore[attr-defined]
    entry = ledger.record("decision", {"ledger": ledger.state()})
    assert PASSWORD not in str(entry)
    for debug in ("", "1"):
        monkeypatch.setenv("SAFEGEN_DEBUG", debug)
        for wrong in ("hunter2-wrong", None):
            with pytest.raises(LedgerError, match="does not let you in: check user, password") as c:
                open_ledger(with_password(postgres, database, wrong))
            assert plain in str(c.value)
            assert "hunter2" not in str(c.value) + repr(c.value.__cause__)
    again = pickle.loads(pickle.dumps(ledger))
    assert again.verify() == []


def test_a_password_comes_from_where_libpq_looks(
    postgres: Postgres, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = with_password(postgres, database, None)
    founded = open_ledger(with_password(postgres, database, PASSWORD)).ledger_id
    with pytest.raises(LedgerError, match="check user, password"):
        open_ledger(plain)
    with monkeypatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        assert open_ledger(plain).ledger_id == founded
    file = tmp_path / "pgpass"
    file.write_text(f"127.0.0.1:*:*:{OWNER}:{PASSWORD}\n")
    file.chmod(0o600)
    with monkeypatch.context() as patch:
        patch.setenv("PGPASSFILE", str(file))
        assert open_ledger(plain).ledger_id == founded
    assert open_ledger(f"{plain}?passfile={quote(str(file))}").ledger_id == founded
    services = tmp_path / "services"
    services.write_text(
        f"[books]\nhost=127.0.0.1\nport={postgres.port}\ndbname={database}\nuser={OWNER}\n"
        f"password={PASSWORD}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    by_service = open_ledger("postgresql:///?service=books")
    assert by_service.ledger_id == founded
    assert by_service.url == "postgresql:///?service=books"


def test_a_variable_moves_no_host_that_is_named(
    postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = with_password(postgres, database, PASSWORD)
    ledger = open_ledger(address)
    with monkeypatch.context() as patch:
        for name, value in (("PGHOSTADDR", "192.0.2.1"), ("PGPORT", "1"), ("PGDATABASE", "other")):
            patch.setenv(name, value)
        assert open_ledger(address).ledger_id == ledger.ledger_id


def test_a_server_without_tls_is_refused_where_tls_is_asked_for(
    postgres: Postgres, database: str
) -> None:
    address = with_password(postgres, database, PASSWORD)
    with pytest.raises(LedgerError, match=r"not reached as safely as asked: check sslmode"):
        open_ledger(f"{address}?sslmode=require")
    assert open_ledger(f"{address}?sslmode=prefer").verify() == []


def test_no_connection_is_left_behind(postgres: Postgres, database: str, url: str) -> None:
    ledgers = [open_ledger(url) for _ in range(3)]
    assert len(postgres.backends(database)) == 3
    ledgers[0].close()
    del ledgers[1]
    gc.collect()
    end = time.monotonic() + 10
    while len(postgres.backends(database)) != 1:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert ledgers[1].verify() == []


# ---- from one database into another --------------------------------------------------------------


def test_a_copy_is_the_same_ledger_and_exports_the_same_bytes(url: str, tmp_path: Path) -> None:
    first = filled(tmp_path / "first.db")
    there = copy_ledger(first, url)
    back = copy_ledger(there, str(tmp_path / "back.db"))
    files = []
    for n, ledger in enumerate((first, there, back)):
        assert {**ledger.state(), "url": ""} == {**first.state(), "url": ""}
        assert list(ledger.log()) == list(first.log())
        assert list(ledger.records()) == list(first.records())
        assert ledger.attached("a", "b") == first.attached("a", "b")
        assert [ledger.attachment(a) for a in ledger.attached("a", "b")] == [
            bytes(range(256)),
            b"\0\xff",
            b"",
        ]
        export(ledger, tmp_path / f"{n}.zip")
        files.append((tmp_path / f"{n}.zip").read_bytes())
    assert files[0] == files[1] == files[2]
    assert there.record("decision", {}).prev == first.state()["head"]
    with pytest.raises(UsageError, match=r"there is a ledger at .* already"):
        copy_ledger(first, url)


def test_a_dump_that_was_restored_is_the_same_ledger(
    postgres: Postgres, database: str, url: str
) -> None:
    ledger = filled(url)
    dump = postgres.folder / "dump"
    at = ("-h", postgres.folder, "-p", postgres.port, "-U", "superuser")
    postgres.run("pg_dump", *at, "-Fc", "-f", dump, database)
    with postgres.database() as other:
        postgres.run("pg_restore", *at, "-d", other, dump)
        restored = open_ledger(postgres.url(other))
        assert restored.verify() == []
        assert {**restored.state(), "url": url} == ledger.state()
        assert restored.record("decision", {}).seq == 6
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            postgres.sql(other, "DELETE FROM safegen.log")
    dump.unlink()


def test_a_ledger_that_does_not_verify_is_not_copied(
    postgres: Postgres, database: str, url: str, tmp_path: Path
) -> None:
    ledger = filled(url)
    postgres.sql(
        database,
        "ALTER TABLE safegen.log DISABLE TRIGGER ALL",
        "UPDATE safegen.log SET payload = '{}' WHERE seq = 2",
    )
    with pytest.raises(VerificationError, match="log entry 2 was changed"):
        copy_ledger(ledger, str(tmp_path / "copy.db"))
    assert not (tmp_path / "copy.db").exists()


def test_a_copy_that_breaks_off_leaves_nothing(
    postgres: Postgres, database: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = filled(tmp_path / "first.db")
    insert = driver._Transaction.insert

    def breaking(self: driver._Transaction, table: str, *arguments: object) -> None:
        if table == "attachments":
            cut(postgres, database)
        insert(self, table, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(driver._Transaction, "insert", breaking)
        with pytest.raises(LedgerError, match="nothing was written"):
            copy_ledger(first, url)
    with pytest.raises(LedgerError, match="no ledger at"):
        open_ledger(url, create=False)
    assert copy_ledger(first, url).verify() == []
    assert key_file(first.ledger_id).is_file()
