"""Diffusion for tables: marginals, dependence, conditions, and the ends of what it can take."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from safegen.backends.diffusion.tabular import PRESETS, Options, Tabular
from safegen.errors import BackendError, SourceError, UsageError
from safegen.tables.schema import infer_schema

torch = pytest.importorskip(
    "torch", reason="torch is not installed: pip install safegen[diffusion]"
)
pytest.importorskip("diffusers", reason="diffusers is not installed")

TINY: Mapping[str, Any] = {
    "steps": 20,
    "width": 16,
    "layers": 1,
    "batch_size": 256,
    "sampling_steps": 6,
    "threads": 1,
    "device": "cpu",
}
SMALL = {
    **TINY,
    "steps": 700,
    "width": 128,
    "layers": 2,
    "learning_rate": 2e-3,
    "sampling_steps": 12,
}


def fit(table: pa.Table, options: Mapping[str, Any] = TINY, seed: int = 7) -> Any:
    return Tabular().fit({"t": table}, {"t": infer_schema(table)}, Options(**options), seed=seed)


def sample(model: Any, rows: int = 2_000, **arguments: Any) -> pa.Table:
    found = model.sample(rows, **({"seed": 1, "block": 0} | arguments))["t"]
    found.validate(full=True)
    assert found.num_rows == rows
    return found


def shares(values: Any) -> dict[Any, float]:
    counts = pc.value_counts(values)
    return {c["values"].as_py(): c["counts"].as_py() / len(values) for c in counts}


def visits(rows: int = 6_000) -> pa.Table:
    """Ill people are rarely young, have a fever, and of a third of them no weight is known."""
    rng = np.random.default_rng(3)
    ill = rng.random(rows) < 0.25
    age = np.where(ill, rng.normal(65, 8, rows), rng.normal(35, 8, rows)).round()
    ward = np.where(ill, rng.choice(["a", "b", "rare"], rows, p=[0.1, 0.87, 0.03]), "none")
    fever = np.where(ill, rng.normal(39, 0.5, rows), 36.6)
    weight = pa.array(rng.normal(70, 9, rows), mask=ill & (rng.random(rows) < 1 / 3))
    return pa.table(
        {
            "state": np.where(ill, "ill", "well"),
            "age": pa.array(age, pa.int64()),
            "ward": ward,
            "fever": fever.round(1),
            "weight": weight,
        }
    )


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return visits()


@pytest.fixture(scope="module")
def model(table: pa.Table) -> Any:
    return fit(table, SMALL)


def test_dependence_is_learned(table: pa.Table, model: Any) -> None:
    made = sample(model, 6_000)
    for ill in ("ill", "well"):
        real, own = (t.filter(pc.equal(t["state"], ill)) for t in (table, made))
        assert abs(pc.mean(real["age"]).as_py() - pc.mean(own["age"]).as_py()) < 3
    ill = made.filter(pc.equal(made["state"], "ill"))
    assert shares(ill["ward"]).get("none", 0) < 0.08  # 75 % of all rows
    assert shares(ill["fever"]).get(36.6, 0) < 0.08


def test_marginals_masses_and_missing_values_are_kept(table: pa.Table, model: Any) -> None:
    made = sample(model, 6_000)
    assert abs(shares(table["fever"])[36.6] - shares(made["fever"])[36.6]) < 0.03
    assert abs(table["weight"].null_count - made["weight"].null_count) / 6_000 < 0.02
    assert 0.5 < shares(made["ward"])["rare"] / shares(table["ward"])["rare"] < 2
    ages = [np.sort(t["age"].to_numpy()) for t in (table, made)]
    assert np.abs(ages[0] - ages[1]).mean() < 1.5


def test_an_untrained_network_has_the_training_shares(table: pa.Table) -> None:
    """What a level's own noise says of it is known, so rare levels need no training to be kept."""
    made = sample(fit(table, {**TINY, "steps": 1, "learning_rate": 1e-9}), 6_000)
    real, own = shares(table["ward"]), shares(made["ward"])
    assert set(real) == set(own)
    assert all(abs(real[k] - own[k]) < 0.02 for k in real)


def test_conditions_hold_and_shift_the_other_columns(table: pa.Table, model: Any) -> None:
    made = sample(model, conditions={"state": "ill"})
    assert set(made["state"].to_pylist()) == {"ill"}
    real = table.filter(pc.equal(table["state"], "ill"))
    assert abs(pc.mean(made["age"]).as_py() - pc.mean(real["age"]).as_py()) < 3
    assert pc.mean(table["age"]).as_py() < pc.mean(real["age"]).as_py() - 15  # it had to move
    for ward, share in shares(real["ward"]).items():
        assert abs(shares(made["ward"]).get(ward, 0) - share) < 0.06


@pytest.mark.parametrize(
    "conditions",
    [
        {"ward": "rare"},
        {"state": "ill", "ward": "a"},
        {"age": 60},
        {"fever": 36.6},
        {"fever": 39.1, "state": "ill"},
        {"weight": None},
        {"state": "well", "age": 80, "ward": "rare"},
    ],
)
def test_every_row_meets_any_conditions(model: Any, conditions: dict[str, Any]) -> None:
    made = sample(model, 100, conditions=conditions)
    for name, value in conditions.items():
        assert set(made[name].to_pylist()) == {value}
    longer = sample(model, 1_500, conditions=conditions)
    assert longer.slice(0, 100).equals(made)
    assert not sample(model, 100, block=1, conditions=conditions).equals(made)


def test_a_condition_on_a_number_moves_levels(model: Any) -> None:
    old, young = (shares(sample(model, conditions={"age": a})["state"]) for a in (70, 30))
    assert old.get("ill", 0) > 0.8
    assert young.get("ill", 0) < 0.2


@pytest.mark.parametrize(
    "conditions",
    [{"ward": "nowhere"}, {"age": 1_000}, {"state": None}, {"nothing": 1}, {"age": 30.5}],
)
def test_impossible_conditions_are_refused_at_once(model: Any, conditions: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(conditions))):
        model.sample(10, seed=1, block=0, conditions=conditions)


def test_a_rare_level_of_fifty_thousand_can_be_drawn_and_asked_for() -> None:
    rng = np.random.default_rng(0)
    rows, levels = 100_000, 50_000
    codes = np.concatenate([np.arange(levels), rng.integers(0, 100, rows - levels)])
    table = pa.table({"zip": [f"{c:05}" for c in codes], "x": rng.normal(size=rows)})
    schema = infer_schema(table, {"zip": {"kind": "categorical"}})
    small = Options(**{**TINY, "steps": 2})
    model = Tabular().fit({"t": table}, {"t": schema}, small, seed=1)
    assert model.denoiser is not None
    assert model.denoiser.size <= 1 + 512  # never a one-hot of the levels
    made = sample(model, 8_000)
    frequent = np.mean([int(v) < 100 for v in made["zip"].to_pylist()])
    assert abs(frequent - (codes < 100).mean()) < 0.03
    assert len(set(made["zip"].to_pylist())) > 3_000  # of 8,000 real rows it is about 3,800
    asked = sample(model, 20, conditions={"zip": "43210"})
    assert set(asked["zip"].to_pylist()) == {"43210"}


@pytest.mark.parametrize(
    "columns",
    [
        {"only": np.random.default_rng(0).normal(size=300)},
        {"only": ["a", "b", "ü"] * 100},
        {"constant": ["same"] * 300},
        {"nothing": pa.nulls(300, pa.float64()), "x": np.arange(300.0)},
        {"twenty": np.arange(20), "word": list("abcdefghijabcdefghij")},
        {f"c{i}": np.random.default_rng(i).integers(0, 3, 60) for i in range(500)},
    ],
    ids=["number", "levels", "constant", "null", "twenty rows", "500 columns"],
)
def test_odd_tables_come_back_in_their_schema(columns: dict[str, Any]) -> None:
    table = pa.table(columns)
    made = sample(fit(table, {**TINY, "steps": 3}), 50)
    assert made.schema.equals(table.schema)


def test_presets_are_defaults_that_each_can_be_set_alone() -> None:
    assert Options() == Options(preset="default")
    assert Options().model_dump().items() >= PRESETS["default"].items()
    quick = Options(preset="fast", width=99)
    assert quick.width == 99
    assert quick.steps == PRESETS["fast"]["steps"] < Options().steps
    assert Options.model_validate(quick.model_dump()) == quick
    assert Options.model_validate_json('{"preset": "quality"}').steps > Options().steps


@pytest.mark.parametrize(
    "wrong",
    [
        {"preset": "best"},
        {"steps": 0},
        {"batch_size": 0},
        {"ema": 1.0},
        {"sampling_steps": 1},
        {"validation": 0.9},
        {"sampler": "ddpm"},
        {"sigma_min": 0.0},
        {"epochs": 3},
        {"validation": 0.0, "patience": 2},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Options(**wrong)


@pytest.mark.parametrize("sampler", ["dpm++", "dpm++_sde", "euler"])
def test_each_sampler_of_diffusers_repeats_and_keeps_prefixes(
    table: pa.Table, sampler: str
) -> None:
    model = fit(table.slice(0, 500), {**TINY, "sampler": sampler})
    made = sample(model, 1_100)
    assert made.equals(sample(model, 1_100))
    assert made.slice(0, 30).equals(sample(model, 30))
    assert not made.equals(sample(model, 1_100, seed=2))


def test_training_stops_early_when_validation_gets_no_better() -> None:
    rng = np.random.default_rng(0)
    table = pa.table({f"n{i}": rng.integers(0, 30, 300).astype(str) for i in range(4)})
    eager = {**TINY, "steps": 400, "width": 64, "learning_rate": 1e-2, "validate_every": 10}
    stopped = fit(table, {**eager, "patience": 2})
    assert len(stopped.curves["validation"]) < 40
    whole = fit(table, {**eager, "validation": 0.0, "steps": 100})
    assert len(whole.curves["loss"]) == 10
    assert "validation" not in whole.curves


def test_a_loss_that_is_not_finite_stops_the_fit(
    table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safegen.backends.diffusion import table_training

    loss = table_training._Batches.loss
    monkeypatch.setattr(table_training._Batches, "loss", lambda *a: loss(*a) * float("nan"))
    with pytest.raises(BackendError, match="became NaN at step 20; set a lower learning_rate"):
        fit(table)


def test_a_loss_that_is_not_finite_is_seen_long_before_a_late_validation(
    table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safegen.backends.diffusion import table_training

    loss = table_training._Batches.loss
    monkeypatch.setattr(table_training, "FINITE_EVERY", 4)
    monkeypatch.setattr(table_training._Batches, "loss", lambda *a: loss(*a) * float("nan"))
    with pytest.raises(BackendError, match="became NaN at step 4;"):
        fit(table, {**TINY, "validate_every": 10_000})


def test_weights_that_the_last_step_spoiled_are_refused(
    table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, steps = torch.optim.AdamW.step, iter(range(1, 100))

    def spoiled(self: Any, *args: Any) -> None:
        step(self, *args)
        if next(steps) == TINY["steps"]:
            self.param_groups[0]["params"][0].data.fill_(float("nan"))

    fit(table, {**TINY, "validation": 0.0})
    monkeypatch.setattr(torch.optim.AdamW, "step", spoiled)
    with pytest.raises(BackendError, match="weights are not finite"):
        fit(table, {**TINY, "validation": 0.0, "ema": 0.0})


def test_many_wide_columns_are_grouped_until_they_fit_and_else_refused() -> None:
    from safegen.backends.diffusion.table_encoding import SLOTS, Layout

    def columns(count: int) -> pa.Table:
        codes = np.arange(600) % 300
        return pa.table({f"c{i}": [f"v{(c + i) % 300}" for c in codes] for i in range(count)})

    few = fit(columns(3), {**TINY, "steps": 1})
    assert few.encoding.tokens == (300,) * 3
    monkey = {**TINY, "steps": 1, "sampling_steps": 2, "batch_size": 16}
    many = fit(columns(100), monkey)
    assert set(many.encoding.tokens) == {128}
    assert sum(Layout.of(many.encoding).widths) <= SLOTS
    assert set(sample(many, 10)["c0"].to_pylist()) <= set(columns(1)["c0"].to_pylist())
    with pytest.raises(SourceError, match=r"GB are the most: .*'c0' has the most, 300") as error:
        fit(columns(100), {**TINY, "batch_size": 8_192})
    assert "batch_size" in str(error.value)


def test_validation_rows_are_looked_at_a_batch_at_once(
    table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safegen.backends.diffusion import table_training

    seen: list[int] = []
    loss = table_training._Batches.loss

    def watched(self: Any, network: Any, index: Any, generator: Any) -> Any:
        seen.append(len(index))
        return loss(self, network, index, generator)

    monkeypatch.setattr(table_training._Batches, "loss", watched)
    model = fit(table, {**TINY, "batch_size": 32, "validation": 0.5})
    assert len(model.curves["validation"]) == 1
    assert len(seen) > TINY["steps"] + 2
    assert max(seen) == 32


def test_a_model_stays_on_the_kind_of_device_that_it_was_fitted_on(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    from safegen.backends.diffusion import table_model

    asked: list[str] = []
    real = table_model.device_of
    monkeypatch.setattr(table_model, "device_of", lambda o: (asked.append(o), real("cpu"))[1])
    model.save(tmp_path)
    assert not Tabular().load(tmp_path).alone
    document = json.loads((tmp_path / "model.json").read_text())
    assert document["device"] == "cpu"
    (tmp_path / "model.json").write_text(json.dumps({**document, "device": "cuda"}))
    Tabular().load(tmp_path)
    assert asked == ["cpu", "auto"]


def test_an_interrupted_fit_passes_through_and_leaves_torch_as_it_was(
    table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safegen.backends.diffusion import table_training

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = torch.get_num_threads(), torch.get_rng_state()
    monkeypatch.setattr(table_training._Batches, "loss", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(table, {**TINY, "threads": 2})
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_loaded_tensors_begin_where_fitted_ones_do(tmp_path: Path) -> None:
    """At multiples of 64 bytes, wherever they lie in the file: last digits of products depend on
    it on some processors, and so would the rows of a loaded model."""
    from safegen.backends.networks import load_tensors, save_tensors

    tensors = {f"t{i}": torch.rand(i + 1, 3) for i in range(20)}
    save_tensors(tmp_path / "t.safetensors", tensors)
    loaded = load_tensors(tmp_path / "t.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    assert {tensor.data_ptr() % 64 for tensor in loaded.values()} == {0}


def test_a_saved_model_is_the_same_bytes_and_the_same_rows(
    table: pa.Table, model: Any, tmp_path: Path
) -> None:
    model.save(tmp_path / "a")
    model.save(tmp_path / "b")
    loaded = Tabular().load(tmp_path / "a")
    loaded.save(tmp_path / "c")
    for name in ("model.json", "tensors.safetensors"):
        first = (tmp_path / "a" / name).read_bytes()
        assert first == (tmp_path / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()
    assert loaded.reproducible
    assert loaded.curves == model.curves
    assert sample(loaded).equals(sample(model))


@pytest.mark.parametrize("name", ["model.json", "tensors.safetensors"])
@pytest.mark.parametrize("how", ["absent", "cut", "other"])
def test_a_broken_model_is_refused(model: Any, tmp_path: Path, name: str, how: str) -> None:
    model.save(tmp_path)
    file = tmp_path / name
    if how == "absent":
        file.unlink()
    elif how == "cut":
        file.write_bytes(file.read_bytes()[:-20])
    else:
        file.write_bytes(b"{}")
    with pytest.raises(BackendError, match="fit it again"):
        Tabular().load(tmp_path)


def test_a_model_with_weights_that_are_not_finite_is_refused(model: Any, tmp_path: Path) -> None:
    from safegen.backends.networks import load_tensors, save_tensors

    model.save(tmp_path)
    path = tmp_path / "tensors.safetensors"
    tensors = load_tensors(path)
    save_tensors(path, tensors)
    Tabular().load(tmp_path)
    tensors["network.outside.bias"][0] = float("nan")
    save_tensors(path, tensors)
    with pytest.raises(BackendError, match="fit it again"):
        Tabular().load(tmp_path)


def test_several_tables_and_strange_options_are_refused(table: pa.Table) -> None:
    schema = infer_schema(table)
    with pytest.raises(SourceError, match="one table, not 2"):
        Tabular().fit({"a": table, "b": table}, {"a": schema, "b": schema}, Options(), seed=1)
    from safegen.contracts import BackendOptions

    with pytest.raises(UsageError, match="options"):
        Tabular().fit({"a": table}, {"a": schema}, BackendOptions(), seed=1)


def test_options_are_known_without_torch() -> None:
    code = (
        "import sys; from safegen.backends.diffusion.tabular import Options; Options();"
        "sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_adult_keeps_its_marginals_and_rare_levels_with_the_fast_preset(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from safegen.demo import place_data

    path, what = place_data(tmp_path)
    assert what.startswith("Adult"), "the Adult wheel is missing: make install"
    adult = pq.read_table(path).replace_schema_metadata(None).slice(48_842 - 32_561)
    model = fit(adult, {"preset": "fast"})
    made = pa.concat_tables([sample(model, 8_192, block=b) for b in range(4)])
    for field in adult.schema:
        if pa.types.is_string(field.type):
            real, own = shares(adult[field.name]), shares(made[field.name])
            assert sum(abs(real[k] - own.get(k, 0)) for k in real) / 2 < 0.03, field.name
            lost = [k for k in real if real[k] * adult.num_rows >= 30 and k not in own]
            assert not lost, field.name
