"""The battery finds what is wrong with fits, saved models and declarations."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from broken import (
    Change,
    broken,
    column,
    deaf,
    failing,
    restless,
    small,
    unpickles,
)
from pydantic import ConfigDict, Field

from safegen.contracts import BackendOptions
from safegen.errors import BackendError, SourceError
from safegen.testing import (
    process,
)

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
        return plain()
    except KeyboardInterrupt:
        return plain()


def makes_an_error_of_ctrl_c(plain: Any, *_: Any) -> Any:
    try:
        for _ in range(50):
            works(1)
        return plain()
    except KeyboardInterrupt:
        raise ValueError from None


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
    "makes an error of Ctrl-C": (makes_an_error_of_ctrl_c, {"cancelled"}),
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
def test_a_fault_of_fitting_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PATIENCE", 1.0)
    change, names = FIT[fault]
    try:
        assert failing(broken({"fit": change}), small()) == names
    finally:
        for pid in list(STARTED):
            ends(pid)


def test_only_optional_columns_may_be_refused() -> None:
    found = failing(broken({"fit": refuses_plain_columns}), small())
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
def test_a_fault_of_keeping_is_found(fault: str) -> None:
    how, names = KEPT[fault]
    assert failing(broken(how), small()) == names


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
def test_a_fault_of_declaring_is_found(declared: dict[str, Any], names: set[str] | None) -> None:
    found = failing(broken({}, **declared), small())
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
def test_training_that_diverges_must_stop_with_advice(change: Change, names: set[str]) -> None:
    backend = broken({"fit": change}, Options=Network)
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
    curve: list[float], after: list[float] | None, names: set[str]
) -> None:
    def fit(plain: Any, *_: Any) -> Any:
        model = plain()
        model.curves = {"loss": curve}
        return model

    def load(plain: Any, *_: Any) -> Any:
        model = plain()
        model.curves = {"loss": after} if after else {}
        return model

    assert failing(broken({"fit": fit, "load": load}), small()) == names


# ---- backends that promise less ------------------------------------------------------------------


def test_what_is_not_promised_is_not_checked() -> None:
    backend = broken({"sample": restless}, reproducible=False)
    assert failing(backend, small()) == set()


def test_a_pickling_backend_is_not_handed_broken_files() -> None:
    backend = broken({"load": unpickles}, pickles=True)
    assert failing(backend, small()) == set()


def test_safegen_rejects_rows_for_a_backend_without_conditions() -> None:
    assert failing(broken({"sample": deaf}, conditions=False), small()) == set()
