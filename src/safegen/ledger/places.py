"""Where a ledger and its keys lie when nobody says otherwise: the user's folders, never the work's.

The database belongs to the data folder and its keys to the config folder, so that a copied or
shared database does not carry the keys along.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from safegen.errors import LedgerError, PolicyError, Problem, hidden, upstream
from safegen.folders import data_folder
from safegen.ledger.servers import SCHEMES, Server
from safegen.policy.organisation import pins

__all__ = [
    "Place",
    "create_empty",
    "ledger_place",
    "ledger_url",
    "named_place",
]

_SQLITE = "sqlite"
Place = Path | Server
"""A SQLite file, or a database on a PostgreSQL server."""


def ledger_place(url: str | Path | None) -> Place:
    """The absolute path of the SQLite file that `url` means, or the PostgreSQL database; nothing is
    opened or created.

    None means the one that the organisation pins, else $SAFEGEN_LEDGER, else `ledger.db` in the
    user's data folder.
    Raises: LedgerError when `url` names neither; UsageError where the organisation pins another
    one; PolicyError for an organisation file that cannot be used.
    """
    pinned = pins()
    named = url if url is not None else os.environ.get("SAFEGEN_LEDGER") or None
    if pinned.ledger is None:
        return named_place(data_folder() / "ledger.db" if named is None else named)
    try:
        only = named_place(pinned.ledger[0])
    except LedgerError as error:
        raise PolicyError([Problem(f"ledger: {error}", pinned.ledger[1])]) from None
    if named is None:
        return only
    mine = named_place(named)
    what = "$SAFEGEN_LEDGER" if url is None else "the other ledger"
    if isinstance(only, Server):
        if isinstance(mine, Server):
            mine = replace(mine, user=mine.user or only.user)
        pinned.check_ledger(what, same=isinstance(mine, Server) and mine.within(only))
        return mine
    pinned.check_ledger(what, same=mine == only)
    return only


def named_place(url: str | Path) -> Place:
    """What `ledger_place` gives for a name, whatever is pinned. Raises: LedgerError."""
    text = os.fspath(url)
    scheme, marker, rest = text.partition(":")
    if marker and (rest.startswith("//") or scheme.lower() in (*SCHEMES, _SQLITE)):
        # The rest of a URL can hold a password, so only its scheme is ever repeated.
        if scheme.lower() in SCHEMES:
            return Server.parse(text)
        if scheme.lower() != _SQLITE:
            raise LedgerError(
                f"the ledger cannot be at a {scheme[:20]}:// address: give a path, "
                "sqlite:///absolute/path.db or postgresql://user@host/database"
            )
        if not rest.startswith("///") or "?" in rest or "#" in rest:
            raise LedgerError(
                "the ledger's address is not understood: write sqlite:///absolute/path.db, "
                "without a host or options"
            )
        text = "/" + os.fsdecode(unquote_to_bytes(rest)).lstrip("/")
        if os.name == "nt":
            text = text.lstrip("/")
    if text in ("", ":memory:") or "\0" in text:
        raise LedgerError("the ledger needs a file: give a path or sqlite:///absolute/path.db")
    return Path(os.path.abspath(os.path.expanduser(text)))


def ledger_url(place: Place) -> str:
    """The URL of a ledger, without a password; `ledger_place` is its inverse."""
    if isinstance(place, Server):
        return place.url
    path = place
    return f"{_SQLITE}:///{quote(os.fsencode(path.as_posix().lstrip('/')), safe='/:')}"


def create_empty(path: Path) -> None:
    """Create an empty file of mode 0600; where there is one already, it stays as it is.

    Raises: LedgerError when the file cannot be made.
    """
    try:
        # Linked into place, because closing a descriptor of a file that SQLite has open in
        # another thread would drop that thread's POSIX locks.
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=".ledger-")
        os.close(descriptor)
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        finally:
            os.unlink(draft)
    except OSError as error:
        raise LedgerError(
            f"the ledger {path} cannot be created: check that its folder can be written and "
            f"has space, or name another place with $SAFEGEN_LEDGER ({upstream(error)})"
        ) from hidden(error)
