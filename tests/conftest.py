"""No test touches the user's own ledger, keys or cache, nor another test's."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background deaf to Ctrl-C, and processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

VARIABLES = ("SAFEGEN_LEDGER", "SAFEGEN_ORG", "SAFEGEN_DEBUG", "NO_COLOR", "COLUMNS")


def _isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    for folder in ("DATA", "CONFIG", "CACHE"):
        patch.setenv(f"XDG_{folder}_HOME", str(home / folder.lower()))
    for variable in VARIABLES:
        patch.delenv(variable, raising=False)


@pytest.fixture(scope="session", autouse=True)
def _session_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For fixtures of a wider scope, which run before the one below."""
    with pytest.MonkeyPatch.context() as patch:
        _isolate(patch, tmp_path_factory.mktemp("home"))
        yield


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of its own for every test."""
    _isolate(monkeypatch, tmp_path_factory.mktemp("home"))
