"""Where a ledger and its keys lie when nobody says otherwise: the user's folders, never the work's.

The database belongs to the data folder and its keys to the config folder, so that a copied or
shared database does not carry the keys along.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from safegen.errors import LedgerError, PolicyError, Problem, hidden, upstream
from safegen.folders import data_folder
from safegen.policy.organisation import pins

__all__ = [
    "create_empty",
    "ledger_path",
    "ledger_url",
]

_SQLITE = "sqlite"


def ledger_path(url: str | Path | None) -> Path:
    """The absolute path of the SQLite file that `url` means; nothing is opened or created.

    None means the one that the organisation pins, else $SAFEGEN_LEDGER, else `ledger.db` in the
    user's data folder.
    Raises: LedgerError when `url` names no file or another kind of database; UsageError where the
    organisation pins another one; PolicyError for an organisation file that cannot be used.
    """
    pinned = pins()
    named = url if url is not None else os.environ.get("SAFEGEN_LEDGER") or None
    if pinned.ledger is None:
        return _path(data_folder() / "ledger.db" if named is None else named)
    try:
        only = _path(pinned.ledger[0])
    except LedgerError as error:
        raise PolicyError([Problem(f"ledger: {error}", pinned.ledger[1])]) from None
    if named is not None:
        what = "$SAFEGEN_LEDGER" if url is None else "the other ledger"
        pinned.check_ledger(what, same=_path(named) == only)
    return only


def _path(url: str | Path) -> Path:
    text = os.fspath(url)
    scheme, marker, rest = text.partition(":")
    if marker and (rest.startswith("//") or scheme.lower() in ("postgres", "postgresql", _SQLITE)):
        # The rest of a URL can hold a password, so only its scheme is ever repeated.
        if scheme.lower() != _SQLITE:
            raise LedgerError(
                f"the ledger cannot be at a {scheme[:20]}:// address: this version of safegen "
                "speaks SQLite only; give a path or sqlite:///absolute/path.db"
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


def ledger_url(path: Path) -> str:
    """The URL of the SQLite ledger at an absolute path; `ledger_path` is its inverse."""
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
