"""What a failure of a database means for the user: one sentence, with the place and what to do."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from safegen.errors import LedgerError, upstream

__all__ = ["connecting_code", "failure", "server_failure"]


def failure(error: sqlite3.Error, path: Path, write: bool, waited: float) -> LedgerError:
    """One sentence: what happened to which file, and what to do."""
    code = getattr(error, "sqlite_errorcode", -1) & 0xFF
    elsewhere = "or name another ledger with $SAFEGEN_LEDGER"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LedgerError(
            f"the ledger {path} was locked by another process for {waited:g} s: "
            "end that process or try again"
        )
    if code == sqlite3.SQLITE_FULL:
        return LedgerError(f"the disk of the ledger {path} is full: make space and try again")
    if code == sqlite3.SQLITE_READONLY and not write:
        return LedgerError(
            f"the ledger {path} has an unfinished write of a process that died and is "
            "read-only here: open it once where it can be written"
        )
    if code == sqlite3.SQLITE_READONLY or (code == sqlite3.SQLITE_CANTOPEN and write):
        return LedgerError(
            f"the ledger {path} is read-only: make file and folder writable, {elsewhere}"
        )
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        if os.path.isfile(path):
            return LedgerError(
                f"the ledger {path} cannot be opened: check its owner and mode, {elsewhere}"
            )
        return LedgerError(f"there is no ledger at {path}: check the path, or create it there")
    if code == sqlite3.SQLITE_NOTADB:
        return LedgerError(f"the file {path} is not a ledger (not SQLite): name another path")
    if code == sqlite3.SQLITE_CORRUPT:
        return LedgerError(f"the ledger {path} is damaged: restore a backup")
    return LedgerError(
        f"the ledger {path} cannot be {'written' if write else 'read'}: check its disk, "
        f"{elsewhere} ({getattr(error, 'sqlite_errorname', 'no SQLite code')}, "
        f"{upstream(error)})"
    )


_AGAIN = "try again, or ask whoever keeps the server"
# By SQLSTATE, or the class that its first two characters are.
_SERVER = {
    "08": ("cannot be reached", "check address and network"),
    "0A": ("cannot do what a ledger needs", "it must be PostgreSQL 13 or later"),
    "22": ("took a text for invalid", "a text in a ledger has no NUL character"),
    "23": ("has other entries than were expected", "run `safegen ledger verify`"),
    "25006": ("is read-only", "name the primary server, not a replica of it"),
    "28": ("does not let you in", "check user, password ($PGPASSFILE) and pg_hba.conf"),
    "3D": ("has no such database", "check the address, or let it be created"),
    "3F": ("holds no ledger", "check the address, or create it there"),
    "42501": (
        "does not let your role do this",
        "ask whoever keeps it for the rights in docs/ledger.md",
    ),
    "42P01": ("holds no ledger", "check the address, or create it there"),
    "53100": ("has a full disk", "let space be made and try again"),
    "53": ("has no room for this", _AGAIN),
    "55P03": ("was locked by another writer for {waited:g} s", "end that process or try again"),
    "57014": ("took too long for an answer", _AGAIN),
    "57P": ("was shut down or is starting", _AGAIN),
    "P0001": (
        "is append-only",
        "something else than safegen writes there: run `safegen ledger verify`",
    ),
    "XX": ("is damaged", "restore a backup"),
    "TLS": ("is not reached as safely as asked", "check sslmode, sslrootcert and its certificate"),
}
# What libpq says before there is a connection has no SQLSTATE. Its words are in English, unless a
# server's are not; then it just could not be reached.
_CONNECTING = (
    ("ssl", "TLS"),
    ("certificate", "TLS"),
    ("authentication", "28"),
    ("no password", "28"),
    ("pg_hba.conf", "28"),
    ("role ", "28"),
    ("permission denied for database", "28"),
    ("database ", "3D"),
    ("too many", "53"),
    ("remaining connection slots", "53"),
    ("starting up", "57P"),
    ("shutting down", "57P"),
    ("recovery", "57P"),
)


def connecting_code(text: str) -> str:
    """What would be the SQLSTATE, or its class, of what libpq says where it cannot connect."""
    return next((code for words, code in _CONNECTING if words in text.lower()), "08001")


def server_failure(
    error: Exception, code: str, name: str, *, write: bool, waited: float, committing: bool
) -> LedgerError:
    """One sentence: what happened to which ledger, and what to do. code: the SQLSTATE, or its
    class. committing: whether all had been sent, so that it may be written or not."""
    if code in ("08006", "57P01", "57P02"):
        what = "whether it was written is not known" if committing else "nothing was written"
        return LedgerError(
            f"the connection to the ledger {name} was lost"
            f"{f', and {what}' if write else ''}: {_AGAIN} ({upstream(error)})"
        )
    for length in (5, 3, 2):
        if code[:length] in _SERVER:
            what, advice = _SERVER[code[:length]]
            said = what.format(waited=waited)
            return LedgerError(f"the ledger {name} {said}: {advice} ({upstream(error)})")
    return LedgerError(
        f"the ledger {name} cannot be {'written' if write else 'read'}: {_AGAIN} "
        f"(SQLSTATE {code}, {upstream(error)})"
    )
