"""What a failure of SQLite means for the user: one sentence with the path and what to do."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from safegen.errors import LedgerError, upstream

__all__ = ["failure"]


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
