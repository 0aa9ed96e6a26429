"""The battery: each check finds the fault that it is named after, and a sound backend passes."""

from __future__ import annotations

import ctypes
import io
import itertools
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ConfigDict, Field

from safegen import plugins
from safegen.contracts import BackendOptions
from safegen.errors import BackendError, SourceError, UsageError
from safegen.testing import (
    Example,
    Rows,
    backend_checks,
    check_backend,
    example_images,
    example_sequences,
    example_table,
    example_tables,
    example_traps,
    large,
    process,
)

SOUND = Path(__file__).parents[2] / "examples" / "safegen-marginals" / "src"


@pytest.fixture(scope="module")
def sound() -> Iterator[ModuleType]:
    """The example backend, which passes: what is broken below is broken on purpose."""
    sys.path.insert(0, str(SOUND))
    try:
        import safegen_marginals

        yield safegen_marginals
    finally:
        sys.path.remove(str(SOUND))


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


def broken(sound: ModuleType, how: dict[str, Change], **declared: Any) -> Any:
    """The sound backend with some of sample, save, load and fit changed."""

    class Broken(sound.Marginals):  # type: ignore[misc, name-defined]
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


def test_a_sound_backend_passes(sound: ModuleType) -> None:
    check_backend(sound.Marginals(), small())


# ---- faults of sample ----------------------------------------------------------------------------


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


def takes_any_number(plain: Any, rows: int, *_: Any) -> Any:
    return plain(max(rows, 0))


def retyped(table: pa.Table) -> pa.Table:
    return table.set_column(0, "age", table.column("age").cast(pa.float64()))


def restless(plain: Any, rows: int, seed: int, *_: Any) -> Any:
    return plain(seed=seed + time.perf_counter_ns() % 10**6)


def worldly(plain: Any, rows: int, seed: int, *_: Any) -> Any:
    """Draws from numpy's global generator, which it puts back as it was."""
    state = np.random.get_state()
    extra = np.random.randint(10**6)
    np.random.set_state(state)
    return plain(seed=seed + extra)


def fixed_seed(plain: Any, *_: Any) -> Any:
    return plain(seed=0)


def fixed_block(plain: Any, *_: Any) -> Any:
    return plain(block=0)


def by_length(plain: Any, rows: int, seed: int, *_: Any) -> Any:
    return plain(seed=seed * 10_000 + rows)


def deaf(plain: Any, *_: Any) -> Any:
    return plain(conditions=None)


def half_deaf(plain: Any, rows: int, seed: int, block: int, conditions: Any) -> Any:
    first = dict(list((conditions or {}).items())[:1])
    return plain(conditions=first)


def miserly(plain: Any, rows: int, seed: int, block: int, conditions: Any) -> Any:
    return plain(max(rows // 2, 1) if conditions and rows >= 20 else rows)


def quoting(plain: Any, rows: int, seed: int, block: int, conditions: Any) -> Any:
    try:
        return plain()
    except UsageError as error:
        raise UsageError(f"{error}: {conditions}") from None


def new_level(table: pa.Table) -> pa.Table:
    return column(table, "job", pa.array(["z"] * len(table)))


def other_dictionary(table: pa.Table) -> pa.Table:
    values = table.column("category").combine_chunks()
    words = pa.array(["common", "some", "rare", "never seen"])
    return column(table, "category", pa.DictionaryArray.from_arrays(values.indices, words))


def in_1970(table: pa.Table) -> pa.Table:
    numbers = table.column("date_us").cast(pa.int64()).to_numpy() // 1_000_000_000
    return column(table, "date_us", pa.array(numbers, pa.timestamp("us")))


def lost(table: pa.Table) -> pa.Table:
    return column(table, "beyond_2_53", pa.array([2**52] * len(table), pa.int64()))


def null_for_nan(table: pa.Table) -> pa.Table:
    return column(table, "nan", pa.array(table.column("nan").to_numpy(), from_pandas=True))


def no_zeros(table: pa.Table) -> pa.Table:
    gain = table.column("gain").to_numpy()
    spread = 1 + np.arange(len(gain), dtype=np.int32) * 13 % 9_000
    return column(table, "gain", pa.array(np.where(gain == 0, spread, gain)))


def other_shares(table: pa.Table) -> pa.Table:
    return column(table, "job", pa.array([["a", "b", "c"][i % 3] for i in range(len(table))]))


def squeezed(table: pa.Table) -> pa.Table:
    ages = 50 + (table.column("age").to_numpy() - 50) // 10
    return column(table, "age", pa.array(ages))


def real_ids(table: pa.Table) -> pa.Table:
    words = pa.array([f"REFERENCE-{i % 300:05}" for i in range(len(table))])
    return column(table, "reference", words)


def repeated_ids(table: pa.Table) -> pa.Table:
    return column(table, "reference", pa.array(["syn-0000000001"] * len(table)))


def noisy(plain: Any, *_: Any) -> Any:
    np.random.random()
    return plain()


SAMPLE = {
    "short": (short, {"exact_rows"}),
    "takes any number": (takes_any_number, {"exact_rows"}),
    "retyped": (on("age", retyped), {"schema"}),
    "restless": (
        restless,
        {"repeats", "prefix", "conditions", "saves", "refuses_tampered", "refit_repeats"},
    ),
    "worldly": (worldly, {"repeats"}),
    "fixed seed": (fixed_seed, {"other_seeds"}),
    "fixed block": (fixed_block, {"other_seeds", "ids"}),
    "by length": (by_length, {"prefix", "conditions"}),
    "deaf to conditions": (deaf, {"conditions", "more_conditions", "impossible_conditions"}),
    "hears one condition": (half_deaf, {"more_conditions"}),
    "conditions cost rows": (miserly, {"conditions"}),
    "quotes the condition": (quoting, {"impossible_conditions"}),
    "a new level": (on("job", new_level), {"levels", "shares", "conditions", "more_conditions"}),
    "another dictionary": (on("category", other_dictionary), {"levels"}),
    "dates in 1970": (on("date_us", in_1970), {"ranges", "distributions"}),
    "numbers lost": (on("beyond_2_53", lost), {"ranges", "distributions", "more_conditions"}),
    "null for NaN": (on("nan", null_for_nan), {"missing"}),
    "no zeros": (on("gain", no_zeros), {"shares", "distributions", "more_conditions"}),
    "other shares": (on("job", other_shares), {"shares", "conditions", "more_conditions"}),
    "squeezed": (on("age", squeezed), {"distributions", "more_conditions"}),
    "real ids": (on("reference", real_ids), {"ids"}),
    "repeated ids": (on("reference", repeated_ids), {"ids"}),
    "noisy": (noisy, {"leaves_alone"}),
}


@pytest.mark.parametrize("fault", SAMPLE)
def test_a_fault_of_sampling_is_found(fault: str, sound: ModuleType) -> None:
    change, names = SAMPLE[fault]
    assert failing(broken(sound, {"sample": change}), small()) == names


# ---- faults of fit -------------------------------------------------------------------------------


def shows_itself(plain: Any, tables: Any, *_: Any) -> Any:
    model = plain()
    tables["table"] = tables["table"].slice(0, 30)
    return model


def scribbles(plain: Any, tables: Any, *_: Any) -> Any:
    model = plain()
    if len(tables["table"]) == 300:
        (data,) = tables["table"].column("age").chunk(0).buffers()[1:]
        ctypes.memset(data.address, 0, 8)
    return model


def forgets_schemas(plain: Any, tables: Any, schemas: Any, *_: Any) -> Any:
    model = plain()
    schemas.clear()
    return model


def seeds(plain: Any, *_: Any) -> Any:
    np.random.seed(0)
    return plain()


FITS = itertools.count(1)


def grows(plain: Any, tables: Any, *_: Any) -> Any:
    (table,) = tables.values()
    return plain({"table": table.slice(0, len(table) - next(FITS) % 20)})


def litters(plain: Any, *_: Any) -> Any:
    tempfile.mkdtemp()
    return plain()


def works(steps: int) -> None:
    for _ in range(steps):
        time.sleep(0.001)
        pa.scalar(1).as_py()


def litters_when_cancelled(plain: Any, *_: Any) -> Any:
    folder = tempfile.mkdtemp()
    model = plain()
    for _ in range(50):
        works(1)
    os.rmdir(folder)
    return model


STARTED: list[int] = []


def leaves_a_process_when_cancelled(plain: Any, *_: Any) -> Any:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "20"], {})  # no object that warns of its death
    STARTED.append(pid)
    model = plain()
    for _ in range(50):
        works(1)
    ends(pid)
    return model


def ends(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    STARTED.remove(pid)


def goes_on_after_ctrl_c(plain: Any, *_: Any) -> Any:
    try:
        for _ in range(50):
            works(1)
    except KeyboardInterrupt:
        pass
    return plain()


def takes_one_row(plain: Any, tables: Any, *_: Any) -> Any:
    (table,) = tables.values()
    if 1 <= len(table) < 20:
        return plain({"table": pa.concat_tables([table] * 20)})
    return plain()


def clips_infinity(plain: Any, tables: Any, *_: Any) -> Any:
    (table,) = tables.values()
    for name in table.column_names:
        if table.column_names.count(name) == 1 and pa.types.is_float64(table[name].type):
            numbers = table[name].to_pandas().replace([np.inf, -np.inf], 0.0).to_numpy()
            null = table[name].is_null().to_numpy()
            if not np.array_equal(numbers, table[name].to_numpy(), equal_nan=True):
                table = column(table, name, pa.array(numbers, mask=null))
    return plain({"table": table})


def tells(plain: Any, tables: Any, *_: Any) -> Any:
    try:
        return plain()
    except SourceError as error:
        raise SourceError(f"{error}: {tables['table'].to_pydict()}") from None


def mutters(plain: Any, *_: Any) -> Any:
    try:
        return plain()
    except SourceError:
        raise SourceError("bad data") from None


def gives_up(plain: Any, *_: Any) -> Any:
    try:
        return plain()
    except SourceError as error:
        raise BackendError(str(error)) from None


def refuses_plain_columns(plain: Any, tables: Any, *_: Any) -> Any:
    if "job" in tables["table"].column_names:
        raise SourceError("column 'job' cannot be used, because it is a column of texts")
    return plain()


def refuses_curtly(plain: Any, tables: Any, *_: Any) -> Any:
    if "nan" in tables["table"].column_names:
        raise SourceError("no 'nan'")
    return plain()


def refuses_one_column(plain: Any, tables: Any, *_: Any) -> Any:
    if tables["table"].num_columns == 1:
        raise SourceError("table 'table' needs two columns")
    return plain()


def refuses_constants(plain: Any, tables: Any, *_: Any) -> Any:
    if tables["table"].column_names[0] == "number":
        raise SourceError("table 'table' has columns that never vary")
    return plain()


REFUSALS = {"all_null", "refuses_few_rows", "refuses_infinity", "refuses_names", "types"}

FIT = {
    "changes the mapping of tables": (shows_itself, {"leaves_alone"}),
    "writes into the data": (scribbles, {"leaves_alone", "refit_repeats"}),
    "changes the schemas": (forgets_schemas, {"leaves_alone"}),
    "seeds numpy": (seeds, {"leaves_alone", "cancelled"}),
    "another model each time": (grows, {"refit_repeats"}),
    "litters": (litters, {"refit_repeats", "cancelled"}),
    "litters when cancelled": (litters_when_cancelled, {"cancelled"}),
    "leaves a process": (leaves_a_process_when_cancelled, {"cancelled"}),
    "goes on after Ctrl-C": (goes_on_after_ctrl_c, {"cancelled"}),
    "takes one row": (takes_one_row, {"refuses_few_rows"}),
    "clips infinity": (clips_infinity, {"refuses_infinity"}),
    "tells values": (tells, REFUSALS - {"all_null"}),
    "says nothing": (mutters, REFUSALS),
    "another error": (gives_up, REFUSALS),
    "refuses one column": (refuses_one_column, {"one_column"}),
    "refuses constants": (refuses_constants, {"constant_columns"}),
    "refuses without a reason": (refuses_curtly, {"refused_columns"}),
}


@pytest.mark.parametrize("fault", FIT)
def test_a_fault_of_fitting_is_found(
    fault: str, sound: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "PATIENCE", 0.2)
    change, names = FIT[fault]
    try:
        assert failing(broken(sound, {"fit": change}), small()) == names
    finally:
        for pid in list(STARTED):
            ends(pid)


def test_only_optional_columns_may_be_refused(sound: ModuleType) -> None:
    found = failing(broken(sound, {"fit": refuses_plain_columns}), small())
    assert {"exact_rows", "schema", "saves", "refused_columns"} <= found


# ---- faults of save and load ---------------------------------------------------------------------


def forgets(model: Any, folder: Path) -> None:
    (folder / "model.json").unlink()


def dates(model: Any, folder: Path) -> None:
    (folder / "made.txt").write_text(str(time.perf_counter_ns()))


def keeps_rows(model: Any, folder: Path) -> None:
    (folder / "cache").write_bytes(b"REFERENCE-00007")


def bends_curves(model: Any, folder: Path) -> None:
    model.curves = {"loss": [1.0, float("nan")]}


def other_model(plain: Any, folder: Path) -> Any:
    model = plain()
    model.changes = {"sample": lambda plain, rows, seed, *_: plain(seed=seed + 1)}
    return model


def unpickles(plain: Any, folder: Path) -> Any:
    path = folder / "model.json"
    data = path.read_bytes() if path.exists() else b""
    if data.startswith(b"\x80"):
        pickle.loads(data)
    return plain()


def bare_errors(plain: Any, folder: Path) -> Any:
    try:
        return plain()
    except BackendError:
        raise KeyError("format") from None


KEPT = {
    "saves nothing": (
        {"save": forgets},
        {"saves", "refuses_tampered", "same_bytes"},
    ),
    "other bytes each time": ({"save": dates}, {"same_bytes"}),
    "keeps ids": ({"save": keeps_rows}, {"keeps_no_ids"}),
    "loads another model": (
        {"load": other_model},
        {"saves", "refuses_tampered"},
    ),
    "unpickles": ({"load": unpickles}, {"refuses_broken_files"}),
    "bare errors": ({"load": bare_errors}, {"refuses_broken_files"}),
}


@pytest.mark.parametrize("fault", KEPT)
def test_a_fault_of_keeping_is_found(fault: str, sound: ModuleType) -> None:
    how, names = KEPT[fault]
    assert failing(broken(sound, how), small()) == names


# ---- faults of what is declared ------------------------------------------------------------------


class Counting(BackendOptions):
    epochs: int = 3


class Lax(BackendOptions):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Rounding(BackendOptions):
    rate: float = Field(0.5, description="Changes whenever it is read.")

    def model_post_init(self, context: object) -> None:
        self.__dict__["rate"] = self.rate / 2


class Network(BackendOptions):
    epochs: int = Field(3, ge=1, description="Rounds over the data.")
    learning_rate: float = Field(0.1, gt=0, description="Length of a step.")


@pytest.mark.parametrize(
    ("declared", "names"),
    [
        ({"license": ""}, {"declares"}),
        ({"Options": Lax}, {"declares"}),
        ({"Options": Counting}, {"declares", "options"}),
        ({"Options": Rounding}, {"options"}),
        ({"Options": Network}, set()),
        ({"block_rows": 0}, None),
    ],
)
def test_a_fault_of_declaring_is_found(
    declared: dict[str, Any], names: set[str] | None, sound: ModuleType
) -> None:
    found = failing(broken(sound, {}, **declared), small())
    assert "declares" in found if names is None else found == names


def diverges(advice: str) -> Change:
    def fit(plain: Any, tables: Any, schemas: Any, options: Any) -> Any:
        if options.learning_rate > 1e20:
            raise BackendError(f"the loss became NaN at step 3{advice}")
        return plain()

    return fit


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (diverges("; take a smaller learning_rate"), set()),
        (diverges(""), {"divergence"}),
        (lambda plain, *_: plain(), {"divergence"}),
    ],
)
def test_training_that_diverges_must_stop_with_advice(
    change: Change, names: set[str], sound: ModuleType
) -> None:
    backend = broken(sound, {"fit": change}, Options=Network)
    assert failing(backend, small(), diverging={"learning_rate": 1e30}) == names


@pytest.mark.parametrize(
    ("curve", "after", "names"),
    [
        ([1.0, 0.5], [1.0, 0.5], set()),
        ([1.0, 0.5], None, {"curves"}),
        ([1.0, float("nan")], [1.0, float("nan")], {"curves"}),
        ([1.0] * 1_001, [1.0] * 1_001, {"curves"}),
    ],
)
def test_curves_are_short_finite_and_saved(
    curve: list[float], after: list[float] | None, names: set[str], sound: ModuleType
) -> None:
    def fit(plain: Any, *_: Any) -> Any:
        model = plain()
        model.curves = {"loss": curve}
        return model

    def load(plain: Any, *_: Any) -> Any:
        model = plain()
        model.curves = {"loss": after} if after else {}
        return model

    assert failing(broken(sound, {"fit": fit, "load": load}), small()) == names


# ---- backends that promise less ------------------------------------------------------------------


def test_what_is_not_promised_is_not_checked(sound: ModuleType) -> None:
    backend = broken(sound, {"sample": restless}, reproducible=False)
    assert failing(backend, small()) == set()


def test_a_pickling_backend_is_not_handed_broken_files(sound: ModuleType) -> None:
    backend = broken(sound, {"load": unpickles}, pickles=True)
    assert failing(backend, small()) == set()


def test_safegen_rejects_rows_for_a_backend_without_conditions(sound: ModuleType) -> None:
    assert failing(broken(sound, {"sample": deaf}, conditions=False), small()) == set()


# ---- more than one process -----------------------------------------------------------------------

_ELSEWHERE = """
import sys
from safegen_marginals import Marginals

class Backend(Marginals):
    name = "NAME"
    def load(self, folder):
        model = super().load(folder)
        return Elsewhere(model) if NAMED and sys.argv[1:2] == ["NAME"] else model

class Elsewhere:
    def __init__(self, inner):
        self.inner = inner
    def sample(self, rows, *, seed, block, conditions=None):
        return self.inner.sample(rows, seed=seed + 1, block=block, conditions=conditions)
"""


@pytest.mark.parametrize("faulty", [False, True])
def test_workers_that_make_other_rows_are_found(
    faulty: bool, sound: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"toy.elsewhere{int(faulty)}"
    module = f"elsewhere{int(faulty)}"
    text = _ELSEWHERE.replace("NAMED", str(faulty)).replace("NAME", name)
    (tmp_path / f"{module}.py").write_text(text, encoding="utf-8")
    info = tmp_path / f"{module}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[safegen.backends]\n{name} = {module}:Backend\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    backend = plugins.load(plugins.BACKENDS, name)()
    checks = {c.name: c for c in backend_checks(backend, small())}
    if faulty:
        with pytest.raises(AssertionError, match="a worker process makes other rows"):
            checks["workers"]()
    else:
        checks["workers"]()


# ---- related tables, sequences, images -----------------------------------------------------------


def rows(change: Change) -> Any:
    """The toy for every kind, its samples changed, in small blocks."""

    class Changed(Rows):
        block_rows = 64

        def fit(self, *args: Any, **more: Any) -> Any:
            return Model(super().fit(*args, **more), {"sample": change})

        def load(self, folder: Path) -> Any:
            return Model(super().load(folder), {"sample": change})

    return Changed()


def orphans(plain: Any, *_: Any) -> Any:
    made = plain()
    buyers = made["orders"].column("buyer").to_numpy() + 10**9
    return {**made, "orders": column(made["orders"], "buyer", pa.array(buyers))}


def same_keys(plain: Any, rows: int, seed: int, block: int, *_: Any) -> Any:
    made, first = plain(), plain(block=0)
    return made if block == 0 else {**first, "orders": first["orders"]}


def childless(plain: Any, *_: Any) -> Any:
    made = plain()
    return {**made, "orders": made["orders"].slice(0, 0)}


def shuffled(plain: Any, *_: Any) -> Any:
    made = plain()
    (table,) = made.values()
    return {"table": table.take(pa.array(np.arange(len(table))[::-1]))}


def interleaved(plain: Any, *_: Any) -> Any:
    (table,) = plain().values()
    return {"table": table.sort_by("day")}


def cut(plain: Any, rows: int, *_: Any) -> Any:
    (table,) = plain().values()
    return {"table": table.slice(0, rows)}


STRUCTURE = {
    "sound tables": (example_tables, lambda plain, *_: plain(), set()),
    "orphans": (example_tables, orphans, {"no_orphans"}),
    "same keys in each block": (example_tables, same_keys, {"no_orphans", "other_seeds", "ids"}),
    "childless": (example_tables, childless, {"no_orphans", "ranges"}),
    "sound sequences": (example_sequences, lambda plain, *_: plain(), set()),
    "backwards": (example_sequences, shuffled, {"whole_sequences", "prefix"}),
    "interleaved": (example_sequences, interleaved, {"whole_sequences", "prefix"}),
    "cut": (example_sequences, cut, {"whole_sequences", "exact_rows"}),
}


@pytest.mark.parametrize("fault", STRUCTURE)
def test_a_fault_of_structure_is_found(fault: str) -> None:
    example, change, names = STRUCTURE[fault]
    assert failing(rows(change), example()) == names


def test_images_that_are_copies_or_no_images_are_found() -> None:
    pytest.importorskip("PIL")
    from PIL import Image

    def drawn(plain: Any, rows: int, seed: int, block: int, conditions: Any, size: int = 8) -> Any:
        table = plain()["images"]
        made = []
        for i in range(len(table)):
            sink = io.BytesIO()
            pixels = np.random.default_rng([seed, block, i]).integers(0, 255, (size, size))
            Image.fromarray(pixels.astype(np.uint8)).save(sink, "PNG")
            made.append({"bytes": sink.getvalue(), "path": None})
        return {"images": column(table, "image", pa.array(made, table.schema.field("image").type))}

    def torn(plain: Any, *_: Any) -> Any:
        table = plain()["images"]
        layout = table.schema.field("image").type
        made = pa.array([{"bytes": b"no image", "path": None}] * len(table), layout)
        return {"images": column(table, "image", made)}

    assert failing(rows(drawn), example_images()) == set()
    larger = rows(lambda *given: drawn(*given, size=16))
    assert failing(larger, example_images()) == {"images"}
    assert failing(rows(lambda plain, *_: plain()), example_images()) == {"images"}
    assert "images" in failing(rows(torn), example_images())


# ---- the battery itself --------------------------------------------------------------------------


def test_a_known_fault_is_excused_and_a_mended_one_is_not(sound: ModuleType) -> None:
    excused = {"exact_rows": "gives 16 of 17"}
    table = example_table(100)
    check_backend(broken(sound, {"sample": short}), table, expected_failures=excused)
    with pytest.raises(AssertionError, match=r"exact_rows: passes, .*gives 16 of 17.*take it off"):
        check_backend(sound.Marginals(), table, expected_failures=excused)
    with pytest.raises(AssertionError, match="no such checks here: exactrows"):
        check_backend(sound.Marginals(), table, expected_failures={"exactrows": ""})


def test_every_failing_check_is_named_at_once(sound: ModuleType) -> None:
    backend = broken(sound, {"sample": on("job", new_level)}, license="")
    with pytest.raises(AssertionError, match=r"(?s)check declares: .*check levels: "):
        check_backend(backend, example_table(200))


def test_what_is_no_backend_is_said() -> None:
    with pytest.raises(AssertionError, match=r"contracts\.Backend"):
        check_backend(object())  # type: ignore[arg-type]


def test_a_fit_that_fails_is_tried_once(sound: ModuleType) -> None:
    fits = 0

    def fails(plain: Any, tables: Any, *_: Any) -> Any:
        nonlocal fits
        fits += len(tables["table"]) == 77
        raise ValueError("no")

    found = failing(broken(sound, {"fit": fails}), example_table(77))
    assert {"saves", "repeats", "prefix"} <= found
    assert fits <= 2


def test_checks_are_collected_without_a_fit(sound: ModuleType) -> None:
    def fails(*_: Any) -> Any:
        raise AssertionError("fitted")

    checks = backend_checks(broken(sound, {"fit": fails}), whole=True)
    assert {"many_columns", "many_rows", "many_levels"} <= {c.name for c in checks}
    assert all(c.__name__ == c.name and c.registered.run.__doc__ for c in checks)


@pytest.mark.slow
def test_memory_beyond_the_limit_is_found(
    sound: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = backend_checks(sound.Marginals(), example_table(50), whole=True)
    [check] = [c for c in checks if c.name == "many_levels"]
    check()
    monkeypatch.setattr(large, "LIMIT", 1 << 20)
    with pytest.raises(AssertionError, match="GB"):
        check()
