"""Where a ledger and its keys lie when nobody says otherwise: the user's folders, never the work's.

The database belongs to the data folder and its keys to the config folder, so that a copied or
shared database does not carry the keys along.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from safegen.errors import LedgerError, hidden, upstream

__all__ = [
    "cache_folder",
    "config_folder",
    "create_empty",
    "data_folder",
    "ledger_path",
    "ledger_url",
    "make_private",
]

_SQLITE = "sqlite"


def data_folder() -> Path:
    """The user's data folder of safegen. Raises: LedgerError when there is no home folder."""
    return _folder("XDG_DATA_HOME", "LOCALAPPDATA", ".local/share")


def config_folder() -> Path:
    """The user's config folder of safegen. Raises: LedgerError when there is no home folder."""
    return _folder("XDG_CONFIG_HOME", "APPDATA", ".config")


def _folder(xdg: str, windows: str, unix: str) -> Path:
    # A relative value is ignored, as the XDG specification asks: it would mean the working folder.
    for variable in (xdg, windows) if os.name == "nt" else (xdg,):
        named = os.environ.get(variable, "")
        if os.path.isabs(named):
            return Path(named) / "safegen"
    home = Path(os.path.expanduser("~"))
    if not home.is_absolute():
        raise LedgerError(
            "the ledger has no place: this account has no home folder; "
            "name a file with $SAFEGEN_LEDGER and a config folder with $XDG_CONFIG_HOME"
        )
    return home / (_mac(unix) if sys.platform == "darwin" else unix) / "safegen"


def _mac(unix: str) -> str:
    return "Library/Caches" if unix == ".cache" else "Library/Application Support"


def ledger_path(url: str | Path | None) -> Path:
    """The absolute path of the SQLite file that `url` means; nothing is opened or created.

    None means $SAFEGEN_LEDGER, else `ledger.db` in the user's data folder.
    Raises: LedgerError when `url` names no file or another kind of database.
    """
    if url is None:
        url = os.environ.get("SAFEGEN_LEDGER") or data_folder() / "ledger.db"
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


def make_private(folder: Path) -> None:
    """Make a folder and its missing parents, for this user only; existing ones stay as they are.

    Raises: LedgerError when the folder cannot be made.
    """
    try:
        for part in reversed([folder, *folder.parents]):
            if not os.path.isdir(part):
                with contextlib.suppress(FileExistsError):
                    part.mkdir(mode=0o700)
        if not os.path.isdir(folder):
            raise NotADirectoryError
    except OSError as error:
        raise LedgerError(
            f"the folder {folder} cannot be made: check that its parent is a folder "
            f"that you may write to, or name another place ({upstream(error)})"
        ) from hidden(error)


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


def cache_folder() -> Path:
    """The user's cache folder of safegen. Raises: LedgerError when there is no home folder."""
    return _folder("XDG_CACHE_HOME", "LOCALAPPDATA", ".cache")
