"""Backends that are broken on purpose, and which checks of the battery find that."""

from __future__ import annotations

import importlib
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from safegen.testing import (
    Example,
    Rows,
    backend_checks,
    example_traps,
)

SOUND = Path(__file__).parents[2] / "examples" / "safegen-marginals" / "src"
sys.path.append(str(SOUND))  # worker processes are given this path too
sound: Any = importlib.import_module("safegen_marginals")

Change = Callable[..., Any]


class Model:
    """A fitted model, of which one method is replaced."""

    def __init__(self, inner: Any, changes: dict[str, Change]):
        self.inner, self.changes = inner, changes
        self.curves: dict[str, list[float]] = {}

    def sample(self, rows: int, *, seed: int, block: int, conditions: Any = None) -> Any:
        def plain(rows: int = rows, **other: Any) -> Any:
            asked = {"seed": seed, "block": block, "conditions": conditions}
            return self.inner.sample(rows, **(asked | other))

        change = self.changes.get("sample")
        if change is None:
            return plain()
        return change(plain, rows, seed, block, conditions)

    def save(self, folder: Path) -> None:
        self.inner.save(folder)
        if "save" in self.changes:
            self.changes["save"](self, folder)


def broken(how: dict[str, Change], **declared: Any) -> Any:
    """The example backend, which is sound, with some of sample, save, load and fit changed."""

    class Broken(sound.Marginals):
        def fit(self, tables: Any, schemas: Any, options: Any, *, seed: int) -> Any:
            def plain(tables: Any = tables, seed: int = seed, schemas: Any = schemas) -> Any:
                given = options if isinstance(options, sound.Options) else sound.Options()
                return Model(super(Broken, self).fit(tables, schemas, given, seed=seed), how)

            return how["fit"](plain, tables, schemas, options) if "fit" in how else plain()

        def load(self, folder: Path) -> Any:
            def plain() -> Any:
                return Model(super(Broken, self).load(folder), how)

            return how["load"](plain, folder) if "load" in how else plain()

    for name, value in declared.items():
        setattr(Broken, name, value)
    return Broken()


def failing(backend: Any, data: Any = None, **more: Any) -> set[str]:
    """The names of the checks that fail."""
    found = {}
    for check in backend_checks(backend, data, **more):
        try:
            check()
        except AssertionError as error:
            found[check.name] = str(error)
    assert all(f"check {name}:" in said for name, said in found.items())
    return set(found)


def small() -> Example:
    """Fewer columns than the traps: quicker, and enough for most faults."""
    whole = example_traps(300)
    kept = {"category", "date_us", "reference", "nan", "constant", "beyond_2_53", "city"}
    return whole.without(whole.optional - kept)


def column(table: pa.Table, name: str, values: Any) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), values)


def on(name: str, change: Callable[[pa.Table], pa.Table]) -> Change:
    """Change the table that was sampled where it has that column, and others."""

    def changed(plain: Any, *_: Any) -> Any:
        table = plain()["table"]
        there = name in table.column_names and table.num_columns > 1
        return {"table": change(table) if there else table}

    return changed


def short(plain: Any, rows: int, *_: Any) -> Any:
    return plain(rows - (rows == 17))


def restless(plain: Any, rows: int, seed: int, *_: Any) -> Any:
    return plain(seed=seed + time.perf_counter_ns() % 10**6)


def new_level(table: pa.Table) -> pa.Table:
    return column(table, "job", pa.array(["z"] * len(table)))


def deaf(plain: Any, *_: Any) -> Any:
    return plain(conditions=None)


def unpickles(plain: Any, folder: Path) -> Any:
    path = folder / "model.json"
    data = path.read_bytes() if path.exists() else b""
    if data.startswith(b"\x80"):
        pickle.loads(data)
    return plain()


def rows(change: Change) -> Any:
    """The toy for every kind, its samples changed, in small blocks."""

    class Changed(Rows):
        block_rows = 64

        def fit(self, *args: Any, **more: Any) -> Any:
            return Model(super().fit(*args, **more), {"sample": change})

        def load(self, folder: Path) -> Any:
            return Model(super().load(folder), {"sample": change})

    return Changed()
