"""Sequences: whole, in order, as long as real ones, and the same for the same seed."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

import safegen
from safegen.backends.sdv.par import PAR, Options
from safegen.backends.sdv.sequences import SequenceModel
from safegen.cli import main
from safegen.errors import AdmissionRefused, BackendError, SourceError, UsageError
from safegen.tables.schema import infer_schema

CDNOW = Path(os.environ.get("SAFEGEN_TEST_DATA", "../shared/data")) / "cdnow/purchases.parquet"
QUICK = Options(epochs=2, device="cpu")
ROLES = {"user": {"role": "sequence_key"}, "when": {"role": "sequence_index"}}


def visits(users: int = 120, index: str = "date", seed: int = 0) -> pa.Table:
    """Visits of users, shuffled: ties in time, one-row histories, traps at each step."""
    rng = np.random.default_rng(seed)
    lengths = rng.choice([1, 2, 3, 9], users, p=[0.3, 0.3, 0.3, 0.1])
    owner = np.repeat(np.arange(users), lengths)
    inside = np.concatenate([np.arange(n) for n in lengths])
    day = rng.integers(18_000, 18_100, users)[owner] + inside * 7
    day[::11] -= 7 * (inside[::11] > 0)  # ties
    when: Any = day.astype("datetime64[D]")
    if index == "int":
        when = day
    elif index == "float":
        when = day / 8
    elif index == "ms":
        when = when.astype("datetime64[ms]")
    n = len(owner)
    table = pa.table(
        {
            "spent": pa.array(rng.lognormal(3, 1, n).round(2), mask=rng.random(n) < 0.1),
            "user": pa.array([f"u{i:04}" for i in owner]),
            "country": pa.array(rng.choice(["AT", "CZ"], users)[owner]).dictionary_encode(),
            "when": pa.array(when, {"ms": pa.timestamp("ms", tz="UTC")}.get(index)),
            "shop": rng.choice(["web", "app", "store"], n, p=[0.6, 0.3, 0.1]),
            "items": pa.array(rng.integers(1, 5, n), pa.int16()),
        }
    )
    return table.take(pa.array(rng.permutation(n)))


def fitted(table: pa.Table, options: Options = QUICK, roles: Any = None) -> SequenceModel:
    schemas = {"table": infer_schema(table, ROLES if roles is None else roles)}
    return PAR().fit({"table": table}, schemas, options, seed=3)


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return visits()


@pytest.fixture(scope="module")
def model(table: pa.Table) -> SequenceModel:
    return fitted(table)


def histories(made: pa.Table) -> dict[Any, list[Any]]:
    found: dict[Any, list[Any]] = {}
    for user, when in zip(made["user"].to_pylist(), made["when"].to_pylist(), strict=True):
        found.setdefault(user, []).append(when)
    return found


def test_sequences_are_counted_whole_and_unlike_real_ones(model: Any, table: Any) -> None:
    for count in (1, 20, 1_024):
        made = model.sample(count, seed=5, block=0)["table"]
        assert made.schema.equals(table.schema)
        users = made["user"].to_pylist()
        changes = 1 + sum(a != b for a, b in pairwise(users))
        assert changes == len(set(users)) == count  # one run of rows each
    assert not set(users) & set(table["user"].to_pylist())
    more = model.sample(50, seed=5, block=1)["table"]
    assert not set(more["user"].to_pylist()) & set(users)


def test_time_never_runs_backwards_nor_out_of_the_source(model: Any, table: Any) -> None:
    made = model.sample(1_024, seed=5, block=0)["table"]
    assert all(h == sorted(h) for h in histories(made).values())
    real, found = pc.min_max(table["when"]).as_py(), pc.min_max(made["when"]).as_py()
    assert real["min"] <= found["min"] < found["max"] <= real["max"]


def test_lengths_context_and_shares_are_as_in_the_source(model: Any, table: Any) -> None:
    made = model.sample(1_024, seed=5, block=0)["table"]

    def lengths(rows: pa.Table) -> np.ndarray:
        counts = np.array([len(h) for h in histories(rows).values()])
        return np.bincount(counts, minlength=10)[:10] / len(counts)

    assert np.abs(lengths(made) - lengths(table)).max() < 0.07
    countries = made.group_by("user").aggregate([("country", "count_distinct")])
    assert set(countries["country_count_distinct"].to_pylist()) == {1}
    assert set(made["items"].unique().to_pylist()) <= {1, 2, 3, 4}
    assert abs(made["spent"].null_count / made.num_rows - 0.1) < 0.05


def test_the_same_seed_and_only_that_gives_the_same_rows(model: Any) -> None:
    whole = model.sample(1_024, seed=5, block=1)["table"]
    part = model.sample(300, seed=5, block=1)["table"]
    assert whole.slice(0, part.num_rows).equals(part)
    assert not model.sample(300, seed=6, block=1)["table"].equals(part)
    assert not model.sample(300, seed=5, block=2)["table"].equals(part)
    assert model.sample(0, seed=5, block=1)["table"].num_rows == 0


def test_fitting_repeats_and_leaves_no_trace(table: Any, model: Any, tmp_path: Path) -> None:
    import torch

    before, copy = (random.getstate(), str(np.random.get_state())), table.slice(0)
    state = torch.get_rng_state()
    again = fitted(table)
    assert (random.getstate(), str(np.random.get_state())) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert table.equals(copy)
    model.save(tmp_path / "one")
    again.save(tmp_path / "two")
    for file in ("model.json", "arrays.npz", "network.safetensors", "context/model.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert len(again.curves["loss"]) == 2


def test_a_saved_model_gives_the_same_rows_and_a_broken_one_an_error(
    model: Any, tmp_path: Path
) -> None:
    model.save(tmp_path)
    loaded = PAR().load(tmp_path)
    assert loaded.sample(40, seed=1, block=2) == model.sample(40, seed=1, block=2)
    assert loaded.curves == model.curves
    (tmp_path / "network.safetensors").write_bytes(b"x")
    with pytest.raises(BackendError, match="fit it again"):
        PAR().load(tmp_path)


@pytest.mark.parametrize("index", ["int", "float", "ms"])
def test_any_index_that_can_be_counted_comes_back_in_its_type(index: str) -> None:
    table = visits(40, index)
    made = fitted(table, Options(epochs=1, device="cpu", segment_size=3, sample_size=2))
    rows = made.sample(100, seed=1, block=0)["table"]
    assert rows.schema.equals(table.schema)
    assert all(h == sorted(h) for h in histories(rows).values())


def test_no_index_and_no_steps_to_learn() -> None:
    table = visits(40).drop_columns(["when"])
    rows = fitted(table, roles={"user": {"role": "sequence_key"}}).sample(30, seed=1, block=0)
    assert pc.count_distinct(rows["table"]["user"]).as_py() == 30
    constant = table.select(["user", "country"])
    rows = fitted(constant, roles={"user": {"role": "sequence_key"}}).sample(30, seed=1, block=0)
    assert rows["table"].schema.equals(constant.schema)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.set_column(1, "user", pa.array([None, *t["user"].to_pylist()[1:]])), "1 rows"),
        (lambda t: t.set_column(3, "when", pa.array([None, *t["when"].to_pylist()[1:]])), "'when'"),
        (lambda t: t.filter(pc.less(t["user"], "u0010")), "has 10 sequences"),
        (lambda t: t.set_column(3, "when", t["when"].cast(pa.string())), "cast it to a date"),
        (
            lambda t: t.append_column("page", pa.array([f"p{i % 5_000}" for i in range(len(t))])),
            "'page' has 5,000 levels",
        ),
    ],
)
def test_unusable_sequences_are_counted_and_never_shown(
    change: Callable[[Any], Any], words: str
) -> None:
    table = visits(4_000 if "levels" in words else 120)
    changed = change(table)
    roles = {**ROLES, "page": {"kind": "categorical"}} if "page" in changed.column_names else ROLES
    with pytest.raises(SourceError, match=words) as caught:
        fitted(changed, roles=roles)
    assert "u00" not in str(caught.value)


def test_options_that_cannot_be_meant(table: Any) -> None:
    for wrong in ({"epochs": 0}, {"segment_size": 1}, {"batch_size": 0}, {"cuda": True}):
        with pytest.raises(ValidationError):
            Options.model_validate(wrong)
    with pytest.raises(UsageError, match="changes within sequences"):
        fitted(table, Options(context_columns=["shop"]))
    with pytest.raises(UsageError, match="did you mean 'country'"):
        fitted(table, Options(context_columns=["contry"]))


def test_a_sequence_too_long_to_learn_is_refused_with_the_way_out(
    table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safegen.backends.sdv import sequences

    fitted(table)
    monkeypatch.setattr(sequences, "CELLS", 100)
    with pytest.raises(SourceError, match=r"longest sequence has 9 rows .* segment_size=\d"):
        fitted(table)
    fitted(table, Options(epochs=1, device="cpu", segment_size=2))
    monkeypatch.setattr(sequences, "CELLS", 20)
    with pytest.raises(SourceError, match="cut such sequences"):
        fitted(table, Options(epochs=1, device="cpu", segment_size=2))


def test_long_sequences_are_drawn_a_few_at_once_and_fewer_are_a_prefix(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safegen.backends.sdv import sequences

    assert model._batch == 1_024
    shapes: list[int] = []
    once = SequenceModel._once

    def watched(self: Any, ctx: Any, *args: Any) -> Any:
        shapes.append(len(ctx))
        return once(self, ctx, *args)

    monkeypatch.setattr(sequences, "CELLS", 2_000)
    monkeypatch.setattr(SequenceModel, "_once", watched)
    made = model.sample(100, seed=1, block=0)["table"]
    assert set(shapes) == {model._batch}
    assert len(shapes) == -(-100 // model._batch)
    for rows in (0, 1, 33, 70):
        fewer = model.sample(rows, seed=1, block=0)["table"]
        assert fewer.equals(made.slice(0, fewer.num_rows))
        assert len(histories(fewer)) == rows


def test_a_diverging_fit_stops_and_says_so(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from safegen.backends.sdv import par

    real = par._loss
    monkeypatch.setattr(par, "_loss", lambda *a: real(*a) * float("nan"))
    with pytest.raises(BackendError, match="became NaN at step 1"):
        fitted(table)


def test_from_a_file_to_a_dataset_and_back_to_a_refusal(
    table: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real, roles, out = tmp_path / "visits.parquet", tmp_path / "roles.yaml", tmp_path / "out"
    pq.write_table(table, real)
    roles.write_text("columns: {user: sequence_key, when: sequence_index}\n")
    words = ["generate", real, "--backend", "sdv.par", "--set", "epochs=2", "--schema", roles]
    with pytest.raises(SystemExit) as end:
        main([*map(str, words), "--rows", "150", "--out", str(out)])
    assert end.value.code in (0, None), capsys.readouterr().err
    manifest = safegen.verify(out, deep=True)
    assert manifest.kind == "sequences"
    assert any(m["name"] == "training.loss" for m in manifest.measurements)
    [part] = (out / "data").iterdir()
    rows = pq.read_table(part).select(table.column_names).replace_schema_metadata(None)
    assert pc.count_distinct(rows["user"]).as_py() == 150
    with pytest.raises(AdmissionRefused):
        safegen.guard(rows, policy="baseline")
    assert safegen.guard(visits(seed=5), policy="baseline").allowed
    assert safegen.guard(real, policy="baseline").allowed  # the honest twin


@pytest.mark.slow
@pytest.mark.skipif(not CDNOW.exists(), reason="the CDNOW purchases are not on this machine")
def test_cdnow_is_released_and_verified(tmp_path: Path) -> None:
    gen = safegen.Generator("sdv.par", options={"epochs": 20})
    gen.fit(CDNOW, schema={"columns": {"users_id": "sequence_key", "date": "sequence_index"}})
    gen.generate(23_570, tmp_path / "out")
    assert safegen.verify(tmp_path / "out").kind == "sequences"
