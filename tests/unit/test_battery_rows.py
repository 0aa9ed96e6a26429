"""The battery finds what is wrong with the rows that a model gives."""

from __future__ import annotations

import io
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
    new_level,
    on,
    restless,
    rows,
    short,
    small,
    sound,
)

from safegen import plugins
from safegen.errors import UsageError
from safegen.testing import (
    Example,
    Rows,
    backend_checks,
    check_backend,
    example_images,
    example_sequences,
    example_table,
    example_tables,
)


def test_a_sound_backend_passes() -> None:
    check_backend(sound.Marginals(), small())


# ---- faults of sample ----------------------------------------------------------------------------


def takes_any_number(plain: Any, rows: int, *_: Any) -> Any:
    return plain(max(rows, 0))


def retyped(table: pa.Table) -> pa.Table:
    return table.set_column(0, "age", table.column("age").cast(pa.float64()))


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


def colliding(plain: Any, rows: int, seed: int, block: int, *_: Any) -> Any:
    entropy = np.random.SeedSequence([seed, block]).generate_state(1)
    return plain(seed=int(entropy[0]), block=0)


def by_length(plain: Any, rows: int, seed: int, *_: Any) -> Any:
    return plain(seed=seed * 10_000 + rows)


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
    "seeds run into blocks": (colliding, {"other_seeds", "ids"}),
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
def test_a_fault_of_sampling_is_found(fault: str) -> None:
    change, names = SAMPLE[fault]
    assert failing(broken({"sample": change}), small()) == names


# ---- faults that need torch ----------------------------------------------------------------------


def by_default_dtype(plain: Any, rows: int, seed: int, *_: Any) -> Any:
    import torch

    return plain(seed=seed + torch.ones(1).element_size())


def by_threads(plain: Any, rows: int, seed: int, *_: Any) -> Any:
    import torch

    return plain(seed=seed + torch.get_num_threads())


def by_global_generator(plain: Any, rows: int, seed: int, *_: Any) -> Any:
    import torch

    with torch.random.fork_rng():
        return plain(seed=seed + int(torch.randint(10**6, (1,))))


def uses_threads(plain: Any, *_: Any) -> Any:
    import torch

    torch.set_num_threads(1 + torch.get_num_threads() % 2)
    return plain()


def draws_numbers(plain: Any, *_: Any) -> Any:
    import torch

    torch.rand(1)
    return plain()


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (by_default_dtype, {"repeats"}),
        (by_threads, {"repeats"}),
        (by_global_generator, {"repeats"}),
        (uses_threads, {"leaves_alone"}),
        (draws_numbers, {"leaves_alone"}),
    ],
)
def test_what_torch_holds_globally_matters_to_no_row_and_is_left_alone(
    change: Change, names: set[str]
) -> None:
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    try:
        assert failing(broken({"sample": change}), small()) == names
    finally:
        torch.set_num_threads(threads)


# ---- more than one process -----------------------------------------------------------------------

_ELSEWHERE = """
import sys
from safegen_marginals import Marginals

class Backend(Marginals):
    name = "toy.elsewhere"
    def load(self, folder):
        model = super().load(folder)
        return Elsewhere(model) if sys.argv[1:2] == [self.name] else model

class Elsewhere:
    def __init__(self, inner):
        self.inner = inner
    def sample(self, rows, *, seed, block, conditions=None):
        return self.inner.sample(rows, seed=seed + 1, block=block, conditions=conditions)
"""


def test_workers_that_make_other_rows_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The honest twin is the example package, installed, in tests/integration/test_examples.py."""
    (tmp_path / "elsewhere.py").write_text(_ELSEWHERE, encoding="utf-8")
    info = tmp_path / "elsewhere-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    offer = "[safegen.backends]\ntoy.elsewhere = elsewhere:Backend\n"
    (info / "entry_points.txt").write_text(offer)
    monkeypatch.syspath_prepend(str(tmp_path))
    backend = plugins.load(plugins.BACKENDS, "toy.elsewhere")()
    [check] = [c for c in backend_checks(backend, small()) if c.name == "workers"]
    with pytest.raises(AssertionError, match="a worker process makes other rows"):
        check()


# ---- related tables, sequences, images -----------------------------------------------------------


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


def test_roots_share_the_rows_that_are_asked_for() -> None:
    two = Example.of(example_table(60)), Example.of(example_table(80))
    tables = {name: e.tables["table"] for name, e in zip("ab", two, strict=True)}
    schemas = {name: e.schemas["table"] for name, e in zip("ab", two, strict=True)}
    assert failing(Rows(), Example(tables, schemas)) == set()


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

    def again(plain: Any, *_: Any) -> Any:
        """The source's images, in other bytes."""
        table, made = plain()["images"], []
        for value in table.column("image").to_pylist():
            sink = io.BytesIO()
            Image.open(io.BytesIO(value["bytes"])).convert("RGB").save(sink, "BMP")
            made.append({"bytes": sink.getvalue(), "path": None})
        return {"images": column(table, "image", pa.array(made, table.schema.field("image").type))}

    assert failing(rows(drawn), example_images()) == set()
    assert failing(rows(again), example_images()) == {"images"}
    larger = rows(lambda *given: drawn(*given, size=16))
    assert failing(larger, example_images()) == {"images"}
    assert failing(rows(lambda plain, *_: plain()), example_images()) == {"images"}
    assert "images" in failing(rows(torn), example_images())
