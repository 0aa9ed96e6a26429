"""No test touches the user's own ledger, keys or cache, nor another test's."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from safegen import folders

if TYPE_CHECKING:
    from local_store import Store
    from postgres_server import Postgres

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background deaf to Ctrl-C, and processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

VARIABLES = ("SAFEGEN_LEDGER", "SAFEGEN_ORG", "SAFEGEN_DEBUG", "NO_COLOR", "COLUMNS")
VARIABLES += ("PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGPASSWORD", "PGPASSFILE", "PGSERVICE")


def _isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    for folder in ("DATA", "CONFIG", "CACHE"):
        patch.setenv(f"XDG_{folder}_HOME", str(home / folder.lower()))
    for variable in VARIABLES:
        patch.delenv(variable, raising=False)
    # What an organisation pins on the machine that tests run on is not for them.
    patch.setattr(folders, "_system_folder", lambda: home / "system")
    patch.setattr(folders, "_home_of_account", lambda: None)


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


# ---- a store, on this machine --------------------------------------------------------------------


@pytest.fixture(scope="session")
def _s3_server() -> Iterator[str]:
    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    server.stop()


@pytest.fixture
def store(_s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty bucket, and the environment that leads to it."""
    import secrets

    import boto3

    from local_store import SECRET, Store

    monkeypatch.setenv("AWS_ENDPOINT_URL", _s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTKEYOFNOBODY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    client = boto3.client("s3", region_name="us-east-1")
    bucket = f"bucket-{secrets.token_hex(4)}"
    client.create_bucket(Bucket=bucket)
    return Store(client, bucket, _s3_server)


# ---- a database server, on this machine ----------------------------------------------------------


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Of system tests: it needs Debian's package `postgresql`."""
    from postgres_server import Postgres

    server = Postgres.start()
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.system)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where no ledger is yet, in each kind of database that holds one."""
    if request.param == "sqlite":
        yield str(tmp_path / "ledger.db")
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as name:
        yield server.url(name)
