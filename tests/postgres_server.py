"""A real PostgreSQL server of the tests' own, in a temporary folder: the fixture `postgres`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "autovacuum": "off",
    "listen_addresses": "'127.0.0.1'",
}
OWNER, PASSWORD = "keeper", "open-sesame-7f3a"


@dataclass
class Postgres:
    """A running server: `superuser` may do everything, `keeper` owns the databases of tests."""

    folder: Path
    port: int
    programs: Path
    count: int = 0
    free: list[str] = field(default_factory=list)

    @classmethod
    def start(cls) -> Postgres:
        """Raises: FileNotFoundError where Debian's package `postgresql` is not installed."""
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [
            Path(p) for p in [shutil.which("initdb")] if p
        ]
        if not found:
            raise FileNotFoundError("PostgreSQL's initdb: apt-get install postgresql")
        folder = Path(tempfile.mkdtemp(prefix="safegen-postgres-"))
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            server = cls(folder, free.getsockname()[1], found[-1].parent)
        server.run("initdb", "-D", folder / "data", "-U", "superuser", "-N", "-A", "trust",
                   "-E", "UTF8", "--locale", "C.UTF-8")  # fmt: skip
        (folder / "data" / "pg_hba.conf").write_text(
            "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )
        settings = {**SETTINGS, "unix_socket_directories": f"'{folder}'", "port": server.port}
        with open(folder / "data" / "postgresql.conf", "a") as file:
            file.writelines(f"{k} = {v}\n" for k, v in settings.items())
        server.up()
        server.sql("template1", f"CREATE ROLE {OWNER} LOGIN PASSWORD '{PASSWORD}'")
        return server

    def run(self, program: str, *arguments: object) -> None:
        """Run one of PostgreSQL's programs, which refuse to be root."""
        command = [str(self.programs / program), *map(str, arguments)]
        if os.geteuid() == 0:
            command = [
                "setpriv",
                "--reuid=postgres",
                "--regid=postgres",
                "--clear-groups",
                *command,
            ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def up(self) -> None:
        self.run("pg_ctl", "-D", self.folder / "data", "-w", "-l", self.folder / "log", "start")

    def down(self, how: str = "fast") -> None:
        self.run("pg_ctl", "-D", self.folder / "data", "-w", "-m", how, "stop")

    def remove(self) -> None:
        self.down("immediate")
        shutil.rmtree(self.folder)

    def sql(self, database: str, *statements: str, role: str = "superuser") -> list[Any]:
        """Run statements, each in a transaction of its own; the rows of the last one."""
        import psycopg

        rows: list[Any] = []
        with psycopg.connect(
            host=str(self.folder), port=self.port, user=role, dbname=database, autocommit=True
        ) as db:
            for statement in statements:
                cursor = db.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows

    @contextmanager
    def database(self, options: str = "") -> Iterator[str]:
        """The name of a database of the keeper's with nothing in it. One without options is used
        again and again: making one copies seven megabytes."""
        name = self.free.pop() if self.free and not options else None
        if name is None:
            self.count += 1
            name = f"ledger_{self.count}"
            self.sql("postgres", f"CREATE DATABASE {name} OWNER {OWNER} {options}")
        yield name
        if options:
            self.sql("postgres", f"DROP DATABASE {name} WITH (FORCE)")
        else:
            ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
            self.sql("postgres", f"{ends}'{name}' AND state <> 'idle'")
            self.sql(name, "DROP SCHEMA IF EXISTS safegen CASCADE")
            self.free.append(name)

    def url(self, database: str, user: str = OWNER) -> str:
        """Its address, by the Unix socket, where nobody needs a password."""
        return f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}"

    def backends(self, database: str) -> Sequence[int]:
        """The server's processes that serve a database."""
        query = f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}'"
        return [pid for (pid,) in self.sql("postgres", query)]

    def wait_for(self, database: str, query: str, seconds: float = 20.0) -> Any:
        """The first row of a query, once it gives one."""
        end = time.monotonic() + seconds
        while not (rows := self.sql(database, query)):
            assert time.monotonic() < end, query
            time.sleep(0.01)
        return rows[0]
