"""The folders of a user and of the system: data, settings, and what can be made again."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from safegen.errors import LedgerError, hidden, upstream

__all__ = [
    "at_home",
    "cache_folder",
    "config_folder",
    "data_folder",
    "make_private",
    "settings_folders",
]


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


def cache_folder() -> Path:
    """The user's cache folder of safegen. Raises: LedgerError when there is no home folder."""
    return _folder("XDG_CACHE_HOME", "LOCALAPPDATA", ".cache")


def settings_folders() -> list[Path]:
    """Every folder that may hold settings which bind this user: the system's, and the user's
    wherever the environment says it is. An environment adds a place and takes none away.
    """
    folders = [_system_folder()]
    with contextlib.suppress(LedgerError):
        folders.append(config_folder())
    if (home := _home_of_account()) is not None:
        unix = ".config"
        folders.append(home / (_mac(unix) if sys.platform == "darwin" else unix) / "safegen")
    return list(dict.fromkeys(folders))


def _system_folder() -> Path:
    if os.name == "nt":
        return Path("C:/ProgramData/safegen")  # not from the environment, which anybody can set
    return Path(
        "/Library/Application Support/safegen" if sys.platform == "darwin" else "/etc/safegen"
    )


def _home_of_account() -> Path | None:
    """The home folder that the system has for this account, whatever $HOME says."""
    try:
        import pwd

        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except (ImportError, KeyError):
        return None


def at_home(path: str) -> str:
    """A path whose `~` is this account's home, whatever $HOME says."""
    home = _home_of_account()
    return str(home / path[2:]) if home is not None and path.startswith("~/") else path


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
