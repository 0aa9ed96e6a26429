"""Conformance batteries for backends and safeguards, and a small backend to test with.

    from safegen.testing import check_backend
    def test_mine_conforms() -> None:
        check_backend(MyBackend())

Each battery raises AssertionError with the first thing that does not conform.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from safegen.contracts import Backend, BackendOptions, Kind, Safeguard, Scalar
from safegen.decision import Finding

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.contracts import Model
    from safegen.tables.schema import TableSchema

__all__ = ["Rows", "check_backend", "check_safeguard", "example_table"]


def example_table(rows: int = 400, seed: int = 0) -> pa.Table:
    """A table with one column of each plain type, missing values, and a point mass."""
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    gain = np.where(rng.random(rows) < 0.8, 0, rng.integers(1, 10_000, rows))
    day = rng.integers(10_000, 20_000, rows).astype("datetime64[D]")
    half = rng.normal(size=rows)
    return pa.table(
        {
            "age": pa.array(rng.integers(17, 90, rows), pa.int64()),
            "score": pa.array(half, pa.float64(), mask=rng.random(rows) < 0.1),
            "gain": pa.array(gain, pa.int32()),
            "job": pa.array(rng.choice(["a", "b", "c"], rows, p=[0.7, 0.25, 0.05])),
            "member": pa.array(rng.random(rows) < 0.3),
            "since": pa.array(day),
        }
    )


def check_backend(
    backend: Backend,
    table: pa.Table | None = None,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> None:
    """Whether a backend keeps the contract on a table (default: `example_table()`).

    Fits, samples, saves and loads. `expected_failures` names checks that are left out, each with
    its reason; the names are those of the functions `_check_*` below, without the prefix.
    """
    from safegen.tables.schema import infer_schema

    assert isinstance(backend, Backend), "does not offer the members of contracts.Backend"
    table = example_table() if table is None else table
    schemas = {"table": infer_schema(table)}
    chosen = backend.Options.model_validate(dict(options or {}))
    before = _random_state()
    model = backend.fit({"table": table}, schemas, chosen, seed=1)
    excused = expected_failures or {}
    for name, check in _BACKEND_CHECKS.items():
        if name not in excused:
            check(backend, model, table, schemas, chosen)
    if "leaves_random_state" not in excused:
        assert before == _random_state(), "changes a global random state"


def _random_state() -> tuple[Any, ...]:
    import numpy as np

    state = np.random.get_state()
    return random.getstate(), str(state)


def _check_declares(backend: Backend, model: Model, table: pa.Table, *_: Any) -> None:
    assert backend.license, "declares no licence"
    assert backend.kinds, "declares no kinds"
    assert backend.block_rows > 0, "declares no block size"
    assert backend.Options.model_config.get("extra") == "forbid", "takes unknown options"


def _check_exact_rows(backend: Backend, model: Model, table: pa.Table, *_: Any) -> None:
    for rows in (1, 17, 100):
        got = model.sample(rows, seed=3, block=0)["table"].num_rows
        assert got == rows, f"gave {got} rows where {rows} were asked for"


def _check_schema(backend: Backend, model: Model, table: pa.Table, *_: Any) -> None:
    made = model.sample(10, seed=3, block=0)["table"].schema
    assert made.equals(table.schema), "does not give the source's Arrow schema"


def _check_repeats(backend: Backend, model: Model, table: pa.Table, *_: Any) -> None:
    if not backend.reproducible:
        return
    first = model.sample(50, seed=3, block=0)["table"]
    assert first.equals(model.sample(50, seed=3, block=0)["table"]), "same seed, other rows"
    assert not first.equals(model.sample(50, seed=4, block=0)["table"]), "other seed, same rows"
    assert not first.equals(model.sample(50, seed=3, block=1)["table"]), "other block, same rows"


def _check_prefix(backend: Backend, model: Model, table: pa.Table, *_: Any) -> None:
    if not backend.reproducible:
        return
    long = model.sample(60, seed=3, block=2)["table"]
    short = model.sample(20, seed=3, block=2)["table"]
    assert long.slice(0, 20).equals(short), "fewer rows are not a prefix of more"


def _check_refit_repeats(
    backend: Backend,
    model: Model,
    table: pa.Table,
    schemas: Mapping[str, TableSchema],
    options: BackendOptions,
) -> None:
    if not backend.reproducible:
        return
    again = backend.fit({"table": table}, schemas, options, seed=1)
    assert model.sample(30, seed=3, block=0)["table"].equals(
        again.sample(30, seed=3, block=0)["table"]
    ), "the same fit seed gives another model"


def _check_saves(backend: Backend, model: Model, table: pa.Table, *_: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        model.save(Path(name))
        loaded = backend.load(Path(name))
        if backend.reproducible:
            assert model.sample(30, seed=3, block=0)["table"].equals(
                loaded.sample(30, seed=3, block=0)["table"]
            ), "a loaded model gives other rows"


def _check_conditions(backend: Backend, model: Model, table: pa.Table, *_: Any) -> None:
    if not backend.conditions:
        return
    import pyarrow.compute as pc

    name = next((f.name for f in table.schema if str(f.type) in ("string", "large_string")), None)
    if name is None:
        return
    value = pc.value_counts(table.column(name))[-1]["values"].as_py()
    made = model.sample(40, seed=3, block=0, conditions={name: value})["table"]
    assert made.num_rows == 40, "conditions cost rows"
    assert set(made.column(name).to_pylist()) == {value}, "conditions are not met by every row"


_BACKEND_CHECKS = {
    "declares": _check_declares,
    "exact_rows": _check_exact_rows,
    "schema": _check_schema,
    "repeats": _check_repeats,
    "prefix": _check_prefix,
    "refit_repeats": _check_refit_repeats,
    "saves": _check_saves,
    "conditions": _check_conditions,
}


def check_safeguard(
    safeguard: Safeguard,
    params: Any,
    *,
    admissions: Iterable[Any] = (),
    releases: Iterable[Any] = (),
) -> None:
    """Whether a safeguard keeps the contract on given contexts.

    It must report at least one finding at each gate that its rule declares, for its own rule only,
    the same ones when asked twice, and change nothing that it looks at.
    """
    assert isinstance(safeguard, Safeguard), "does not offer the members of contracts.Safeguard"
    gates = type(params).gates
    for gate, ask, contexts in (
        ("admission", safeguard.admission, admissions),
        ("release", safeguard.release, releases),
    ):
        for context in contexts:
            before = repr(context)
            found = list(ask(context, params))
            assert all(isinstance(f, Finding) for f in found), "gives something else than findings"
            assert {f.rule for f in found} <= {safeguard.rule}, "speaks for another rule"
            names = [f.check for f in found]
            assert len(set(names)) == len(names), "gives two findings of one name"
            assert bool(found) or gate not in gates, f"is silent at the {gate} gate"
            assert list(ask(context, params)) == found, "gives other findings when asked again"
            assert repr(context) == before, "changes what it looks at"


class Rows:
    """A backend that draws real rows with replacement: quick, deterministic, and no generator.

    For tests of code that uses safegen. Its output copies real rows; never release it.
    """

    name: ClassVar[str] = "testing.rows"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"table", "tables", "images"})
    license: ClassVar[str] = "Apache-2.0"
    packages: ClassVar[tuple[str, ...]] = ("numpy", "pyarrow")
    weights: ClassVar[bool] = False
    conditions: ClassVar[bool] = False
    reproducible: ClassVar[bool] = True
    pickles: ClassVar[bool] = False
    block_rows: ClassVar[int] = 1024
    Options: ClassVar[type[BackendOptions]] = BackendOptions

    def fit(
        self,
        tables: Mapping[str, pa.Table],
        schemas: Mapping[str, TableSchema],
        options: BackendOptions,
        *,
        seed: int,
    ) -> RowsModel:
        return RowsModel(dict(tables))

    def load(self, folder: Path) -> RowsModel:
        import pyarrow.feather as feather

        return RowsModel({p.stem: feather.read_table(p) for p in sorted(folder.glob("*.arrow"))})


class RowsModel:
    """What `Rows` fits."""

    def __init__(self, tables: dict[str, pa.Table]):
        self.tables = tables

    def sample(
        self, rows: int, *, seed: int, block: int, conditions: Mapping[str, Scalar] | None = None
    ) -> dict[str, pa.Table]:
        import numpy as np

        made = {}
        for number, (name, table) in enumerate(self.tables.items()):
            rng = np.random.default_rng([seed, block, number])
            made[name] = table.take(rng.integers(0, table.num_rows, Rows.block_rows)[:rows])
        return made

    def save(self, folder: Path) -> None:
        import pyarrow.feather as feather

        for name, table in self.tables.items():
            feather.write_feather(table, folder / f"{name}.arrow", compression="uncompressed")
