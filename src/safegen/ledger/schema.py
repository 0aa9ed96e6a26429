"""The tables of a ledger and the migrations that lead to them, in SQLite and in PostgreSQL.

A version number means the same contents in both.
"""

from __future__ import annotations

__all__ = ["APPLICATION_ID", "ATTACHING", "MIGRATIONS", "POSTGRES"]

ATTACHING = "kind = 'register' AND payload LIKE '%\"attachments\":%'"
"""Log entries that say that something is attached to their record."""

APPLICATION_ID = 0x53474C47  # "SGLG", in the file's header: tells a ledger from other databases


def _append_only(table: str, taken: str) -> list[str]:
    """Triggers against UPDATE, DELETE, and INSERT OR REPLACE of what is `taken`."""
    refuse = f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
    return [
        f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} {refuse}",
        f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} {refuse}",
        f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
        f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {taken}) {refuse}",
    ]


# (version, statements). Never edit one that was released: add the next.
MIGRATIONS: list[tuple[int, list[str]]] = [
    (
        1,
        [
            "CREATE TABLE ledger (one INTEGER PRIMARY KEY CHECK (one = 1),"
            " ledger_id TEXT NOT NULL)",
            "CREATE TABLE epochs (seq INTEGER PRIMARY KEY, key_id TEXT NOT NULL UNIQUE)",
            "CREATE TABLE log (seq INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL,"
            " payload TEXT NOT NULL, prev TEXT NOT NULL, hash TEXT NOT NULL)",
            "CREATE TABLE records (seq INTEGER PRIMARY KEY REFERENCES log, body TEXT NOT NULL,"
            " dataset_id TEXT NOT NULL UNIQUE, logical_digest TEXT NOT NULL)",
            "CREATE INDEX records_by_logical_digest ON records (logical_digest)",
            "CREATE TABLE lookups (key_id TEXT NOT NULL, digest TEXT NOT NULL,"
            " seq INTEGER NOT NULL REFERENCES log, PRIMARY KEY (key_id, digest, seq))"
            " WITHOUT ROWID",
            "CREATE INDEX lookups_by_seq ON lookups (seq)",
            "CREATE TABLE models (seq INTEGER PRIMARY KEY REFERENCES log, digest TEXT NOT NULL)",
            "CREATE INDEX models_by_digest ON models (digest)",
            *_append_only("ledger", "one = NEW.one"),
            *_append_only("epochs", "seq = NEW.seq OR key_id = NEW.key_id"),
            *_append_only("log", "seq >= NEW.seq"),
            *_append_only("records", "seq = NEW.seq OR dataset_id = NEW.dataset_id"),
            *_append_only(
                "lookups", "key_id = NEW.key_id AND digest = NEW.digest AND seq = NEW.seq"
            ),
            *_append_only("models", "seq = NEW.seq"),
        ],
    ),
    (
        2,
        [
            "CREATE TABLE attachments (seq INTEGER NOT NULL REFERENCES log, kind TEXT NOT NULL,"
            " name TEXT NOT NULL, key_id TEXT NOT NULL, digest TEXT NOT NULL, body BLOB NOT NULL,"
            " PRIMARY KEY (seq, kind, name, key_id))",
            "CREATE INDEX log_by_kind ON log (kind, seq)",
            "CREATE INDEX attachments_by_kind ON attachments (kind, seq, name, key_id)",
            *_append_only(
                "attachments",
                "seq = NEW.seq AND kind = NEW.kind AND name = NEW.name AND key_id = NEW.key_id",
            ),
        ],
    ),
    # Records of other ledgers are here from now on: a safegen that would take them for this
    # ledger's own statements must not open it.
    (3, []),
]


# ---- PostgreSQL ----------------------------------------------------------------------------------

# Whatever a session's settings are, these fire (ALWAYS), and they look at this schema only.
_FUNCTIONS = [
    "CREATE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog"
    " AS $$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$",
    "CREATE FUNCTION follows() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog"
    " AS $$ DECLARE last record; BEGIN"
    " SELECT seq, hash INTO last FROM safegen.log ORDER BY seq DESC LIMIT 1;"
    " IF NEW.seq <> coalesce(last.seq, 0) + 1 OR NEW.prev <> coalesce(last.hash, NEW.prev) THEN"
    " RAISE EXCEPTION 'log is append-only'; END IF; RETURN NEW; END $$",
]


def _kept(table: str, columns: str) -> list[str]:
    """A table that nothing is changed in, deleted from or emptied of."""
    return [
        f"CREATE TABLE {table} ({columns})",
        f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION append_only()",
        f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER append_only",
    ]


_TEXT = 'text COLLATE "C" NOT NULL'

POSTGRES: list[tuple[int, list[str]]] = [
    (
        3,
        [
            *_FUNCTIONS,
            *_kept("migrations", "version bigint PRIMARY KEY"),
            *_kept("ledger", f"one bigint PRIMARY KEY CHECK (one = 1), ledger_id {_TEXT}"),
            *_kept("epochs", f"seq bigint PRIMARY KEY, key_id {_TEXT} UNIQUE"),
            *_kept(
                "log",
                f"seq bigint PRIMARY KEY, time {_TEXT}, kind {_TEXT}, payload {_TEXT},"
                f" prev {_TEXT}, hash {_TEXT}",
            ),
            "CREATE TRIGGER follows BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION follows()",
            "ALTER TABLE log ENABLE ALWAYS TRIGGER follows",
            "CREATE INDEX log_by_kind ON log (kind, seq)",
            *_kept(
                "records",
                f"seq bigint PRIMARY KEY REFERENCES log, body {_TEXT},"
                f" dataset_id {_TEXT} UNIQUE, logical_digest {_TEXT}",
            ),
            "CREATE INDEX records_by_logical_digest ON records (logical_digest)",
            *_kept(
                "lookups",
                f"key_id {_TEXT}, digest {_TEXT}, seq bigint NOT NULL REFERENCES log,"
                " PRIMARY KEY (key_id, digest, seq)",
            ),
            "CREATE INDEX lookups_by_seq ON lookups (seq)",
            *_kept("models", f"seq bigint PRIMARY KEY REFERENCES log, digest {_TEXT}"),
            "CREATE INDEX models_by_digest ON models (digest)",
            *_kept(
                "attachments",
                f"seq bigint NOT NULL REFERENCES log, kind {_TEXT}, name {_TEXT}, key_id {_TEXT},"
                f" digest {_TEXT}, body bytea NOT NULL, PRIMARY KEY (seq, kind, name, key_id)",
            ),
            # Hashes cannot be compressed; trying takes longer than writing them.
            "ALTER TABLE attachments ALTER body SET STORAGE EXTERNAL",
            "CREATE INDEX attachments_by_kind ON attachments (kind, seq, name, key_id)",
        ],
    ),
]
