"""A ledger in a PostgreSQL database: the schema `safegen`, for many writers on many machines.

A writer holds an advisory lock for its transaction, so that entries follow one another without a
gap, whoever dies in between. A connection is kept for the next call of the same process.
"""

from __future__ import annotations

import os
import re
import time
import weakref
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

from safegen.errors import LedgerError, MissingExtra, hidden
from safegen.ledger.failures import connecting_code, server_failure
from safegen.ledger.schema import POSTGRES
from safegen.ledger.servers import Server
from safegen.ledger.stores import Founding, Rows, Transaction

try:
    import psycopg
    from psycopg.pq import TransactionStatus
except ImportError:
    raise MissingExtra(
        "a ledger on PostgreSQL needs psycopg: pip install 'safegen[postgres]'"
    ) from None

__all__ = ["PostgresStore"]

BUSY_SECONDS = 30.0  # that a writer waits for the others
STATEMENT_SECONDS = 300.0  # that a statement may take, and a writer's pause between two
ANSWER_SECONDS = 330.0  # after which a server that says nothing counts as lost

_LOCK = 0x53474C47  # "SGLG": of this database only, as advisory locks are
_IDENTITY = (
    "SELECT (SELECT max(version) FROM safegen.migrations), (SELECT ledger_id FROM safegen.ledger)"
)
_INHERITED: list[object] = []  # what a fork must neither use nor close


class PostgresStore:
    """A `Store` in a database on a server."""

    def __init__(self, server: Server):
        self.url = server.url
        self.name = server.url
        self._server = server
        self._idle = _Idle()
        weakref.finalize(self, self._idle.close)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._server,)

    def open(self, found: Founding | None) -> str:
        with self._begun(write=False) as db:
            version = self._version(db)
            mine = "SELECT pg_has_role(nspowner, 'USAGE') AND NOT pg_is_in_recovery()"
            owner = db.execute(f"{mine} FROM pg_namespace WHERE nspname = 'safegen'").fetchone()
        if version == 0 and found is None:
            raise LedgerError(
                f"there is no ledger at {self.name}: check the address, or create it there"
            )
        # What cannot be altered can still be used, as the version that it is.
        if version == 0 or (version < POSTGRES[-1][0] and owner == (True,)):
            with self._begun(write=True) as db:
                self._migrate(db, found)
        with self.transaction() as db:
            return self.identity(db)[1]

    @contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[Transaction]:
        with self._begun(write=write, then=_IDENTITY) as db:
            yield db

    def identity(self, db: Transaction) -> tuple[int, str]:
        assert isinstance(db, _Transaction)
        version, ledger_id = db.found
        self._known(version)
        # The id becomes a file name, so nothing but hex digits is taken from a database.
        if not re.fullmatch(r"[0-9a-f]{32}", str(ledger_id)):
            raise LedgerError(f"the ledger {self.name} has lost its id: restore a backup")
        return int(version), str(ledger_id)

    def damage(self, db: Transaction) -> Iterator[str]:
        yield from ()

    def close(self) -> None:
        self._idle.close()

    # -- schema ----------------------------------------------------------------------------

    def _migrate(self, db: Transaction, found: Founding | None) -> None:
        """Bring the schema up to date under the write lock; found the ledger where it is new."""
        version = self._version(db)  # again: another process may have been faster
        if db.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'safegen'").fetchone() is None:
            db.execute("CREATE SCHEMA safegen")
        for number, statements in POSTGRES:
            if number > version:
                for statement in statements:
                    db.execute(statement)
                db.execute("INSERT INTO migrations (version) VALUES (?)", (number,))
        if version == 0 and found is not None:
            found(db)

    def _version(self, db: Transaction) -> int:
        """The schema version, 0 where there is none. Raises: LedgerError if it is not for us."""
        # Asked of the catalogue's tables, which tell what another session has just made; functions
        # such as to_regclass may still know what they knew before the lock.
        (relations, ours) = db.execute(
            "SELECT count(*), count(*) FILTER (WHERE c.relname = 'migrations')"
            " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE n.nspname = 'safegen'"
        ).fetchone()
        if ours:
            (version,) = db.execute("SELECT max(version) FROM safegen.migrations").fetchone()
            self._known(version)
            return int(version)
        if relations:
            raise self._strange()
        return 0

    def _known(self, version: object) -> None:
        if not isinstance(version, int) or version < POSTGRES[0][0]:
            raise self._strange()
        if version > POSTGRES[-1][0]:
            raise LedgerError(
                f"the ledger {self.name} has schema version {version} and this safegen knows up "
                f"to {POSTGRES[-1][0]}: upgrade safegen"
            )

    def _strange(self) -> LedgerError:
        return LedgerError(
            f"the schema safegen at {self.name} is another program's: name another database"
        )

    # -- transactions ----------------------------------------------------------------------

    @contextmanager
    def _begun(self, *, write: bool, then: str = "SELECT 1") -> Iterator[_Transaction]:
        """A transaction; `then` is its first query, which goes along with the beginning."""
        connection = None
        done = False
        try:
            connection, found = self._begin(_beginning(write, then))
            yield _Transaction(connection, found)
            done = True
            connection.execute(b"COMMIT")
        except psycopg.Error as error:
            raise server_failure(
                error,
                _code(error),
                self.name,
                write=write,
                waited=BUSY_SECONDS,
                committing=done,
            ) from hidden(error)
        except UnicodeError as error:
            raise LedgerError(
                "a text with lone surrogates cannot be in a ledger: it must be valid Unicode"
            ) from hidden(error)
        finally:
            if connection is not None:
                self._idle.give(connection)

    def _begin(self, statements: bytes) -> tuple[_Connection, Any]:
        """A connection on which a transaction has begun, and what its first query found.

        One that was kept may be dead, when the server was started anew for instance. Nothing was
        asked on it yet, so a new one is made, once.
        """
        kept = self._idle.take()
        if kept is not None:
            try:
                return kept, _last(kept, statements)
            except psycopg.OperationalError as error:
                self._idle.give(kept)
                if not kept.closed or isinstance(error, _Silent):
                    raise
            except BaseException:
                self._idle.give(kept)
                raise
        connection = self._connect()
        try:
            return connection, _last(connection, statements)
        except BaseException:
            self._idle.give(connection)
            raise

    def _connect(self) -> _Connection:
        try:
            connection = _Connection.connect(
                autocommit=True,
                prepare_threshold=None,  # so that a pooler may stand in between
                client_encoding="UTF8",
                application_name="safegen",
                **_KEEPALIVE,
                **self._server.connection(),
            )
        except psycopg.Error as error:
            raise _Unconnected(str(error)).with_traceback(error.__traceback__) from None
        said = connection.info.parameter_status("server_encoding")
        if said != "UTF8" or connection.info.server_version < 130000:
            connection.close()
            raise LedgerError(
                f"the database {self.name} cannot hold a ledger: it must be of PostgreSQL 13 or "
                "later, and made with ENCODING 'UTF8'"
            )
        return connection


# A machine that is gone without a word is noticed within a minute.
_KEEPALIVE: dict[str, Any] = {
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


class _Connection(psycopg.Connection[tuple[Any, ...]]):
    """One that does not wait for ever for a server that is up and says nothing."""

    def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
        return super().wait(_bounded(gen), *arguments, **named)


class _Unconnected(psycopg.OperationalError):
    """There is no connection."""


class _Silent(psycopg.OperationalError):
    """The server has not answered in time."""


def _bounded(steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """The steps of an exchange with the server, as long as they do not take too long."""
    end = time.monotonic() + ANSWER_SECONDS
    try:
        step = next(steps)
        while True:
            ready = yield step  # nothing is ready every tenth of a second
            if not ready and time.monotonic() > end:
                raise _Silent
            step = steps.send(ready)
    except StopIteration as last:
        return last.value


class _Transaction:
    """A `Transaction` on a connection. found: what its first query found."""

    def __init__(self, connection: _Connection, found: Any):
        self.found = found
        self._connection = connection

    def execute(self, query: str, values: Sequence[Any] = (), /) -> Rows:
        return self._connection.execute(_translated(query), tuple(values), binary=True)

    def insert(self, table: str, columns: str, rows: Sequence[Sequence[Any]], /) -> None:
        # COPY sends what is large in pieces; as a parameter, libpq would move all that is left of
        # it at every piece that went out.
        if not rows:
            return
        numbers = {"seq": "int8", "one": "int8"}
        texts = "bytea" if table == "attachments" else "text"
        named = columns.split(", ")
        types = [texts if c == "body" else numbers.get(c, "text") for c in named]
        query = f"COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)"
        with self._connection.cursor() as cursor, cursor.copy(query.encode()) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)


class _Idle:
    """The connection that is kept between two transactions, by the process that made it."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, _Connection]] = []

    def take(self) -> _Connection | None:
        with suppress(IndexError):  # another thread may have been faster
            while True:
                process, connection = self._kept.pop()
                if process == os.getpid():
                    return connection
                _INHERITED.append(connection)
        return None

    def give(self, connection: _Connection) -> None:
        """Take it back, if it can be used again."""
        with suppress(psycopg.Error):
            if connection.info.transaction_status in (_IN, _FAILED):
                connection.execute(b"ROLLBACK")
            if connection.info.transaction_status == _READY and not self._kept:
                self._kept.append((os.getpid(), connection))
                return
        connection.close()

    def close(self) -> None:
        while (connection := self.take()) is not None:
            connection.close()


_READY, _IN, _FAILED = TransactionStatus.IDLE, TransactionStatus.INTRANS, TransactionStatus.INERROR


def _beginning(write: bool, then: str) -> bytes:
    """What a transaction begins with, in one go. Nothing that a server, a database, a role or a
    variable has set counts: another schema's tables least of all."""
    mode = "READ COMMITTED, READ WRITE" if write else "REPEATABLE READ, READ ONLY"
    statements = [
        f"BEGIN ISOLATION LEVEL {mode}",
        "SET LOCAL search_path = safegen, pg_temp",
        "SET LOCAL row_security = off",  # rows that are hidden are an error, not missing
        f"SET LOCAL lock_timeout = {int(BUSY_SECONDS * 1000)}",
        f"SET LOCAL statement_timeout = {int(STATEMENT_SECONDS * 1000)}",
        f"SET LOCAL idle_in_transaction_session_timeout = {int(STATEMENT_SECONDS * 1000)}",
    ]
    if write:
        statements += [
            "SELECT set_config('synchronous_commit', 'on', true)"
            " WHERE current_setting('synchronous_commit') = 'off'",
            f"SELECT pg_advisory_xact_lock({_LOCK})",
        ]
    return "; ".join([*statements, then]).encode()


def _last(connection: _Connection, statements: bytes) -> Any:
    """The first row of the last of several statements."""
    cursor = connection.execute(statements)
    while cursor.nextset():
        pass
    return cursor.fetchone()


def _code(error: psycopg.Error) -> str:
    """The SQLSTATE of an error, or one like it where psycopg has none."""
    if isinstance(error, _Unconnected):
        return connecting_code(str(error))
    if error.sqlstate:
        return error.sqlstate
    return "22" if isinstance(error, psycopg.DataError) else "08006"


@lru_cache(maxsize=256)
def _translated(query: str) -> bytes:
    return query.replace("%", "%%").replace("?", "%s").encode()
