"""Where a ledger on a PostgreSQL server is: postgresql://user@host:port/database?sslmode=verify-full.

A password may be in an address and is in nothing that is made of it; better it is in a password
file ($PGPASSFILE) or wherever libpq finds one. What the address leaves open, libpq's variables say.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

from safegen.errors import LedgerError

__all__ = ["SCHEMES", "Server"]

SCHEMES = ("postgresql", "postgres")
# What may follow the question mark: how to reach and to trust the server, nothing that sets up a
# session and nothing secret. `host` and `port` are for a folder of Unix sockets.
PARAMETERS = (
    "channel_binding",
    "connect_timeout",
    "gssencmode",
    "host",
    "krbsrvname",
    "passfile",
    "port",
    "require_auth",
    "service",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "target_session_attrs",
)
# Of these everybody may say their own, also where the organisation pins the server.
OWN = {"connect_timeout", "passfile", "sslcert", "sslkey"}


@dataclass(frozen=True)
class Server:
    """A database on a server, or on one of several. hosts: with their ports, "" for libpq's own.
    database: None where a service of libpq's names it."""

    hosts: tuple[tuple[str, str], ...]
    database: str | None
    user: str | None
    parameters: tuple[tuple[str, str], ...]
    password: str | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, url: str) -> Server:
        """The server that a URL names. Raises: LedgerError, without repeating any of it."""
        scheme, _, rest = url.partition(":")
        if scheme.lower() not in SCHEMES or not rest.startswith("//") or "#" in rest:
            raise _not_understood()
        place, _, query = rest[2:].partition("?")
        authority, _, path = place.partition("/")
        login, _, names = authority.rpartition("@")
        user, _, password = login.partition(":")
        said = parse_qsl(query, keep_blank_values=True)
        more = dict(said)
        secret = more.pop("password", None) or unquote(password) or None
        named = more.pop("user", None) or unquote(user) or None
        database = more.pop("dbname", None) or unquote(path) or None
        if len(said) != len(dict(said)) or set(more) - set(PARAMETERS):
            raise LedgerError(
                "the ledger's address has a parameter that is not understood: after the question "
                f"mark may be {', '.join(PARAMETERS)}"
            )
        hosts = tuple(_host(name) for name in names.split(",")) if names else ()
        if hosts and ("host" in more or ("port" in more)):
            raise _not_understood()
        if not hosts and "host" in more:
            hosts = ((more.pop("host"), more.pop("port", "")),)
        texts = [database, named, secret, *more.values(), *(t for h in hosts for t in h)]
        if any(ord(c) < 32 for t in texts if t for c in t) or "/" in (database or ""):
            raise _not_understood()
        if database is None and "service" not in more:
            raise _not_understood()
        return cls(hosts, database, named, tuple(sorted(more.items())), secret)

    @property
    def url(self) -> str:
        """The address, without a password."""
        login = f"{quote(self.user, safe='')}@" if self.user else ""
        more = dict(self.parameters)
        folder = len(self.hosts) == 1 and self.hosts[0][0].startswith("/")
        if folder:
            host, port = self.hosts[0]
            more |= {"host": host} | ({"port": port} if port else {})
        names = "" if folder else ",".join(map(_written, self.hosts))
        query = f"?{urlencode(sorted(more.items()), safe='/')}" if more else ""
        return f"postgresql://{login}{names}/{quote(self.database or '', safe='')}{query}"

    def within(self, pinned: Server) -> bool:
        """Whether this is the server that is pinned, and trusted as is pinned, whoever logs in."""

        def fixed(server: Server) -> tuple[object, ...]:
            kept = tuple(p for p in server.parameters if p[0] not in OWN)
            return server.hosts, server.database, kept

        return fixed(self) == fixed(pinned) and pinned.user in (None, self.user)

    def connection(self) -> dict[str, Any]:
        """What libpq is told. The same address means the same place whatever variables there are:
        $PGHOSTADDR and $PGPORT move no host that is named."""
        told: dict[str, Any] = dict(self.parameters)
        if self.hosts:
            told["host"] = ",".join(host for host, _ in self.hosts)
            told["port"] = ",".join(port or "5432" for _, port in self.hosts)
            told["hostaddr"] = ""
        for name in ("database", "user", "password"):
            value = getattr(self, name)
            if value is not None:
                told["dbname" if name == "database" else name] = value
        told.setdefault("connect_timeout", os.environ.get("PGCONNECT_TIMEOUT") or "10")
        return told


def _host(text: str) -> tuple[str, str]:
    """A host and its port, "" where none is said. An IPv6 address is in brackets."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        wrong = not bracket or (bool(rest) and colon != ":")
    else:
        host, _, port = text.partition(":")
        host, wrong = unquote(host), "[" in text
    if wrong or not host or (port and not (port.isascii() and port.isdigit())):
        raise _not_understood()
    return host, port


def _written(host: tuple[str, str]) -> str:
    name, port = host
    text = f"[{name}]" if ":" in name else quote(name, safe="")
    return f"{text}:{port}" if port else text


def _not_understood() -> LedgerError:
    return LedgerError(
        "the ledger's address is not understood: write "
        "postgresql://user@host:port/database?sslmode=verify-full"
    )
