"""The address of a ledger on a server: what it means, what is refused, and that no password gets
out. Without a server: tests/system/test_ledger_on_postgres.py has one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import safegen
from safegen.errors import LedgerError, MissingExtra, PolicyError, UsageError
from safegen.ledger import open_ledger
from safegen.ledger.places import ledger_place, ledger_url
from safegen.ledger.servers import Server

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "same", "told"),
    [
        (
            "postgresql://ada:hunter2@db.example.org:6432/books?sslmode=verify-full",
            "postgresql://ada@db.example.org:6432/books?sslmode=verify-full",
            {"host": "db.example.org", "port": "6432", "dbname": "books", "user": "ada"},
        ),
        ("postgres://db/books", "postgresql://db/books", {"host": "db", "port": "5432"}),
        (
            "postgresql://a%40b:h%75nter2@[::1]:7/b%C3%BCcher",
            "postgresql://a%40b@[::1]:7/b%C3%BCcher",
            {"host": "::1", "user": "a@b", "dbname": "bücher", "password": "hunter2"},
        ),
        (
            "postgresql://one,two:6000/books?target_session_attrs=read-write",
            "postgresql://one,two:6000/books?target_session_attrs=read-write",
            {"host": "one,two", "port": "5432,6000", "hostaddr": ""},
        ),
        (
            "postgresql:///books?host=/run/postgresql&port=5433&user=ada&password=hunter2",
            "postgresql://ada@/books?host=/run/postgresql&port=5433",
            {"host": "/run/postgresql", "port": "5433", "user": "ada"},
        ),
        ("postgresql:///?service=books", "postgresql:///?service=books", {"service": "books"}),
        ("postgresql:///books", "postgresql:///books", {"dbname": "books"}),
    ],
)
def test_an_address_is_what_libpq_is_told_and_without_its_password_when_shown(
    url: str, same: str, told: dict[str, str]
) -> None:
    server = Server.parse(url)
    assert ledger_url(server) == server.url == same
    assert Server.parse(same) == server
    assert server.connection().items() >= told.items()
    given = SECRET if "password" in url or "nter2" in url else None
    assert server.connection().get("password") == given
    assert SECRET not in repr(server) + server.url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:books",
        "postgresql:/user:hunter2@db/books",
        "postgresql://user:hunter2@db",
        "postgresql://user:hunter2@db/",
        "postgresql://user:hunter2@db/a/b",
        "postgresql://user:hunter2@db:port/books",
        "postgresql://user:hunter2@[::1/books",
        "postgresql://user:hunter2@,/books",
        "postgresql://user:hunter2@db/books#part",
        "postgresql://user:hunter2@db/books?host=other",
        "postgresql://user:hunter2@db/books?hunter2",
        "postgresql://user:hunter2@db/books?options=-csearch_path%3Devil",
        "postgresql://user:hunter2@db/books?sslmode=require&sslmode=disable",
        "postgresql://user:hunter2@db/bo%00oks",
        Path("postgresql://user:hunter2@db/books"),
        "postgresql+psycopg://user:hunter2@db/books",
    ],
)
def test_an_address_that_is_not_understood_is_refused_without_its_password(url: str | Path) -> None:
    with pytest.raises(LedgerError) as caught:
        open_ledger(url)
    assert "hunter2" not in str(caught.value)
    assert "postgresql://user@host" in str(caught.value) or "sslmode" in str(caught.value)


def test_without_the_driver_the_error_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "safegen.ledger.postgres", raising=False)
    with pytest.raises(MissingExtra, match=r"pip install 'safegen\[postgres\]'"):
        open_ledger("postgresql://db/books")


# ---- what the organisation pins ------------------------------------------------------------------

PINNED = "postgresql://db.example.org/books?sslmode=verify-full"


def pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    file = tmp_path / "org.yaml"
    file.write_text(f'schema: safegen.org/v1\nledger: "{url}"\n')
    monkeypatch.setenv("SAFEGEN_ORG", str(file))


@pytest.mark.parametrize(
    ("named", "same"),
    [
        (None, True),
        (PINNED, True),
        ("postgres://ada:hunter2@db.example.org/books?sslmode=verify-full", True),
        (PINNED + "&sslcert=/home/ada/cert.pem&connect_timeout=3", True),
        ("postgresql://db.example.org/books", False),
        ("postgresql://db.example.org/books?sslmode=disable", False),
        (PINNED + "&sslrootcert=/home/ada/mine.pem", False),
        (PINNED + "&service=mine", False),
        ("postgresql://db.example.org/other?sslmode=verify-full", False),
        ("postgresql://db.example.org:6432/books?sslmode=verify-full", False),
        ("postgresql://other.example.org/books?sslmode=verify-full", False),
        ("postgresql://db.example.org,evil.example.org/books?sslmode=verify-full", False),
        ("/home/ada/ledger.db", False),
    ],
)
def test_a_pinned_server_is_the_only_one_whoever_logs_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str | None, same: bool
) -> None:
    pin(tmp_path, monkeypatch, PINNED)
    for variable in (False, True):
        with monkeypatch.context() as patch:
            if variable and named:
                patch.setenv("SAFEGEN_LEDGER", named)
            asked = None if variable else named
            if same:
                place = ledger_place(asked)
                assert isinstance(place, Server)
                assert (place.hosts, place.database) == ((("db.example.org", ""),), "books")
            else:
                with pytest.raises(UsageError, match="is pinned to") as caught:
                    ledger_place(asked)
                assert "hunter2" not in str(caught.value)


def test_a_pinned_user_is_the_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(tmp_path, monkeypatch, "postgresql://app@db/books")
    for url in ("postgresql://db/books", "postgresql://app:hunter2@db/books"):
        place = ledger_place(url)
        assert isinstance(place, Server)
        assert place.user == "app"
    with pytest.raises(UsageError, match="is pinned to"):
        ledger_place("postgresql://root:hunter2@db/books")


@pytest.mark.parametrize(
    "url", ["postgresql://ada:hunter2@db/books", "postgresql://db/books?password=hunter2"]
)
def test_a_password_in_an_organisation_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    pin(tmp_path, monkeypatch, url)
    with pytest.raises(PolicyError, match=r"org.yaml:2: ledger: .*PGPASSFILE") as caught:
        ledger_place(None)
    assert "hunter2" not in str(caught.value)
    pin(tmp_path, monkeypatch, "postgresql://ada@db/books")
    assert ledger_place(None) == Server.parse("postgresql://ada@db/books")


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    import pandas as pd

    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
    address = "postgresql://ada:hunter2@127.0.0.1:1/books?connect_timeout=2"
    decision = safegen.check(frame, policy="baseline", ledger=address)
    assert not decision.allowed
    said = str(decision) + str(decision.to_json())
    assert "postgresql://ada@127.0.0.1:1/books" in said
    assert "hunter2" not in said
