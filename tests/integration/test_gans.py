"""CTGAN, TVAE and CopulaGAN, from the ctgan package and from SDV: what they promise."""

from __future__ import annotations

import inspect
import json
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from safegen import Generator, plugins
from safegen.cli import main
from safegen.contracts import Backend, Model
from safegen.demo import place_data
from safegen.engines.blocks import sample_block
from safegen.errors import BackendError, SourceError, UsageError
from safegen.tables.schema import infer_schema
from safegen.testing import example_table

GAN = {"epochs": 1, "batch_size": 100, "generator_dim": [16], "discriminator_dim": [16]}
VAE = {"epochs": 1, "batch_size": 100, "compress_dims": [16], "decompress_dims": [16]}
TINY = {
    "ctgan": GAN,
    "ctgan.tvae": VAE,
    "sdv.ctgan": GAN,
    "sdv.tvae": VAE,
    "sdv.copula_gan": GAN | {"default_distribution": "norm"},
}
GANS = [name for name in TINY if "tvae" not in name]
ONE_OF_EACH = ["ctgan", "ctgan.tvae", "sdv.copula_gan"]


def backend(name: str) -> Backend:
    found: Backend = plugins.load(plugins.BACKENDS, name)()
    return found


def fit(name: str, table: pa.Table, *, seed: int = 7, roles: Any = None, **options: Any) -> Model:
    made = backend(name)
    chosen = made.Options.model_validate({"embedding_dim": 8, **TINY[name], **options})
    return made.fit({"t": table}, {"t": infer_schema(table, roles)}, chosen, seed=seed)


def sample(model: Model, rows: int = 200, **arguments: Any) -> pa.Table:
    found = model.sample(rows, **({"seed": 1, "block": 0} | arguments))["t"]
    found.validate(full=True)
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def people() -> pa.Table:
    """400 rows: ids, and a job that 5 % have."""
    table = example_table()
    names = [f"P{i:04}" for i in range(table.num_rows)]
    return table.append_column("person", pa.array(names)).drop_columns(["since", "gain"])


@pytest.fixture(scope="module")
def models(people: pa.Table) -> dict[str, Model]:
    roles = {"person": {"role": "id"}}
    return {name: fit(name, people, roles=roles, epochs=2) for name in ONE_OF_EACH}


class TestOptions:
    @pytest.mark.parametrize("name", list(TINY))
    def test_none_of_the_library_is_missing_and_none_has_another_default(self, name: str) -> None:
        import ctgan
        from sdv import single_table as sdv

        library = {
            "ctgan": ctgan.CTGAN,
            "ctgan.tvae": ctgan.TVAE,
            "sdv.ctgan": sdv.CTGANSynthesizer,
            "sdv.tvae": sdv.TVAESynthesizer,
            "sdv.copula_gan": sdv.CopulaGANSynthesizer,
        }[name]
        theirs = dict(inspect.signature(library).parameters)
        for met_otherwise in ("metadata", "verbose", "enable_gpu", "cuda"):
            theirs.pop(met_otherwise, None)
        ours = backend(name).Options.model_fields
        assert set(theirs) <= set(ours)
        if name == "sdv.copula_gan":  # its None stands for these
            assert ours["numerical_distributions"].default == {}
            assert ours["default_distribution"].default == "beta"
            theirs = {n: p for n, p in theirs.items() if "distribution" not in n}
        assert {n: p.default for n, p in theirs.items()} == {n: ours[n].default for n in theirs}
        assert all(field.description for field in ours.values())

    @pytest.mark.parametrize("name", list(TINY))
    @pytest.mark.parametrize("bad", [{"epochs": 0}, {"epochs": -1}, {"batch_size": 0}, {"cuda": 1}])
    def test_what_the_library_accepts_in_silence_is_refused(self, name: str, bad: Any) -> None:
        with pytest.raises(UsageError, match=next(iter(bad))):
            Generator(name, options=bad)

    @pytest.mark.parametrize("name", GANS)
    def test_a_batch_that_pac_does_not_divide_is_refused_with_those_that_it_does(
        self, name: str
    ) -> None:
        with pytest.raises(UsageError, match="multiple of pac: with pac=10 take 120 or 130"):
            Generator(name, options={"batch_size": 128})
        with pytest.raises(UsageError, match="with pac=3 take 498 or 504"):
            Generator(name, options={"pac": 3})
        with pytest.raises(UsageError, match="with pac=10 take 10"):
            Generator(name, options={"batch_size": 4})
        Generator(name, options={"batch_size": 128, "pac": 8})

    def test_widths_come_as_json_lists_or_as_tuples(self) -> None:
        for widths in ([32, 16], (32, 16)):
            options: Any = backend("ctgan").Options.model_validate({"generator_dim": widths})
            assert options.generator_dim == (32, 16)
        for bad in ([], [0], [True], ["32"], 32):
            with pytest.raises(UsageError, match="generator_dim"):
                Generator("ctgan", options={"generator_dim": bad})

    def test_distributions_are_checked(self, people: pa.Table) -> None:
        def chosen(**columns: str) -> Model:
            return fit("sdv.copula_gan", people, numerical_distributions=columns)

        for bad, why in (({"job": "norm"}, "not numeric"), ({"scor": "norm"}, "does not exist")):
            with pytest.raises(UsageError, match=why):
                chosen(**bad)
        many = pa.concat_tables([people] * 3)
        with pytest.raises(UsageError, match="at most 1,000 rows"):
            fit("sdv.copula_gan", many, default_distribution="gaussian_kde")
        ages = sample(chosen(age="uniform"))["age"]
        assert pc.min(ages).as_py() >= 17
        assert pc.max(ages).as_py() <= 89


class TestRows:
    @pytest.mark.parametrize("name", ONE_OF_EACH)
    def test_fewer_are_a_prefix_across_the_batches_of_a_block(
        self, models: dict[str, Model], name: str
    ) -> None:
        whole = sample(models[name], 16_384)
        for rows in (0, 1, 1_023, 1_025, 3_000):
            assert sample(models[name], rows).equals(whole.slice(0, rows))

    @pytest.mark.parametrize("name", ONE_OF_EACH)
    def test_any_number_of_threads_gives_the_same(
        self, models: dict[str, Model], name: str
    ) -> None:
        import torch

        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            one = sample(models[name], 2_000)
            torch.set_num_threads(4)
            assert sample(models[name], 2_000).equals(one)
            assert torch.get_num_threads() == 4
        finally:
            torch.set_num_threads(threads)

    def test_ids_are_unique_over_blocks(self, models: dict[str, Model]) -> None:
        ids = [sample(models["ctgan"], 16_384, block=b)["person"] for b in range(2)]
        assert len(set(pa.chunked_array([c for i in ids for c in i.chunks]).to_pylist())) == 32_768

    @pytest.mark.parametrize("bad", [{"rows": -5}, {"rows": 16_385}, {"seed": -1}, {"block": -1}])
    def test_impossible_requests_are_refused(self, models: dict[str, Model], bad: Any) -> None:
        with pytest.raises(UsageError):
            sample(models["ctgan"], **bad)

    def test_tiny_numbers_are_told_apart(self) -> None:
        """The library's mixtures add 1e-6 to every variance: raw, all of these would be one."""
        rng = np.random.default_rng(0)
        numbers = np.concatenate([rng.normal(1e-6, 1e-8, 300), rng.normal(5e-6, 1e-8, 300)])
        made = sample(fit("ctgan.tvae", pa.table({"x": numbers}), epochs=5), 2_000)["x"].to_numpy()
        far = np.minimum(abs(made - 1e-6), abs(made - 5e-6))
        assert np.quantile(far, 0.9) < 3e-7


class TestFitting:
    @pytest.mark.parametrize("name", ONE_OF_EACH)
    def test_nothing_else_decides_what_is_learned(
        self, people: pa.Table, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import torch

        def saved(place: str, **how: Any) -> dict[str, bytes]:
            fit(name, people, **how).save(tmp_path / place)
            return files(tmp_path / place)

        first = saved("a")
        monkeypatch.setattr("os.cpu_count", lambda: 7)
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        assert saved("b") == first
        after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
        assert before[:2] == after[:2]
        assert before[2].equal(after[2])
        assert saved("c", seed=8)["weights.safetensors"] != first["weights.safetensors"]

    @pytest.mark.parametrize("name", ONE_OF_EACH)
    def test_losses_are_kept_one_for_each_epoch(self, models: dict[str, Any], name: str) -> None:
        losses = {"loss"} if "tvae" in name else {"generator_loss", "discriminator_loss"}
        assert {n: len(c) for n, c in models[name].curves.items()} == dict.fromkeys(losses, 2)

    def test_long_curves_are_thinned_to_a_thousand_points(self) -> None:
        from safegen.backends.networks import thinned

        assert thinned([3.0, 2.0]) == [3.0, 2.0]
        thin = thinned([float(x) for x in range(2_500)])
        assert (len(thin), thin[0], thin[-1]) == (1_000, 0.0, 2_499.0)

    def test_epochs_are_shown(self, people: pa.Table, monkeypatch: pytest.MonkeyPatch) -> None:
        from contextlib import contextmanager

        shown: list[Any] = []

        @contextmanager
        def seen(*what: Any) -> Any:
            shown.append(what)
            yield shown.append

        monkeypatch.setattr("safegen.backends.ctgan.fitting.progress", seen)
        for name in ("ctgan.tvae", "sdv.ctgan"):
            fit(name, people, epochs=3)
        assert shown == [
            *[("training ctgan.tvae", 3, "epochs"), 1, 1, 1],
            *[("training sdv.ctgan", 3, "epochs"), 1, 1, 1],
        ]

    @pytest.mark.parametrize("name", list(TINY))
    def test_a_loss_that_is_no_number_stops_it_in_that_epoch(
        self, people: pa.Table, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from torch.optim import Adam

        step, steps = Adam.step, iter(range(10**6))

        def poisoned(self: Any, *args: Any) -> None:
            step(self, *args)
            if next(steps) > 40:
                for group in self.param_groups:
                    group["params"][0].data.fill_(float("nan"))

        monkeypatch.setattr(Adam, "step", poisoned)
        with pytest.raises(BackendError, match="NaN at step") as error:
            fit(name, people, epochs=100_000)
        assert "batch_size larger" in str(error.value)
        assert next(steps) < 100

    def test_weights_that_the_last_step_spoiled_are_not_kept(
        self, people: pa.Table, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No loss comes after them, and a model with such weights could not be loaded."""
        from safegen.backends.ctgan.training import WatchedTVAE

        fit("ctgan.tvae", people)
        network = WatchedTVAE.network.fget

        def spoiled(self: Any) -> Any:
            found = network(self)
            next(iter(found.weights.values())).fill_(float("nan"))
            return found

        monkeypatch.setattr(WatchedTVAE, "network", property(spoiled))
        with pytest.raises(BackendError, match="weights are not finite after the last step"):
            fit("ctgan.tvae", people)

    @pytest.mark.parametrize("steps", [50, 2_000])
    def test_the_average_is_of_late_weights_however_long_the_training(self, steps: int) -> None:
        """Of weights that grow by the step, 17.97/18.97 of the last, as the power law has it."""
        import torch

        from safegen.backends.ctgan.training import Average

        network = torch.nn.BatchNorm1d(1)
        average = Average(network)
        for step in range(1, steps):
            network.weight.data.fill_(step)
            network(torch.zeros(2, 1))
        network.weight.data.fill_(steps)
        found = average.weights()
        assert float(found["weight"]) == pytest.approx(0.947 * steps, rel=0.012)
        assert int(found["num_batches_tracked"]) == steps - 1
        assert float(network.weight.detach()) == steps  # goes on as if nothing were taken

    @pytest.mark.parametrize("name", GANS)
    def test_the_generator_is_the_average_and_not_the_last_step(
        self, people: pa.Table, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from safegen.backends.ctgan import training

        averaged: Any = fit(name, people, epochs=4)
        monkeypatch.setattr(training, "EXPONENT", 1e9)  # the last weights only
        last: Any = fit(name, people, epochs=4)
        weights = [m.network.weights["seq.0.fc.weight"] for m in (averaged, last)]
        assert 0 < float((weights[0] - weights[1]).abs().max()) < 0.1
        assert averaged.curves == last.curves  # training itself is the library's, step by step

    @pytest.mark.parametrize("name", list(TINY))
    def test_gans_see_one_number_where_a_row_has_none(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nine in ten are 0 here, and which are is another feature. A decoder sees them as the
        codec drew them, and so does CopulaGAN's distribution, before its network."""
        from safegen.backends.ctgan.modes import SideBySide

        seen: list[Any] = []
        plain = SideBySide.fit
        monkeypatch.setattr(
            SideBySide, "fit", lambda self, frame, *a: seen.append(frame) or plain(self, frame, *a)
        )
        gains = np.where(np.arange(300) % 10, 0.0, np.arange(300) + 0.5)
        fit(name, pa.table({"gain": gains, "g": ["u", "v"] * 150}))
        (frame,) = seen
        (numbers,) = (c.to_numpy() for _, c in frame.items() if c.dtype == float)
        known = numbers[::10]
        assert (np.diff(known) > 0).all()
        others = set(numbers[gains == 0])
        if name in GANS:
            assert others == {np.median(known)}
        else:
            assert len(others) > 10

    @pytest.mark.parametrize("name", ["ctgan", "sdv.tvae"])
    def test_ctrl_c_passes_out_and_leaves_nothing(
        self,
        people: pa.Table,
        name: str,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        from safegen.backends.ctgan.training import Watch

        epoch = Watch.epoch

        def interrupted(self: Any, frame: Any) -> Any:
            if self.curves:
                signal.raise_signal(signal.SIGINT)
            return epoch(self, frame)

        monkeypatch.setattr(Watch, "epoch", interrupted)
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may ignore it
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        threads, start = threading.active_count(), time.monotonic()
        try:
            with pytest.raises(KeyboardInterrupt):
                fit(name, people, epochs=5_000)
        finally:
            signal.signal(signal.SIGINT, handler)
        assert time.monotonic() - start < 60
        assert threading.active_count() == threads
        assert not list(tmp_path.iterdir())

    def test_related_tables_are_refused(self, people: pa.Table) -> None:
        made = backend("ctgan")
        schema = infer_schema(people)
        with pytest.raises(SourceError, match="one table, not 2"):
            made.fit({"a": people, "b": people}, {"a": schema, "b": schema}, made.Options(), seed=1)


class TestTables:
    @pytest.mark.parametrize("name", ONE_OF_EACH)
    @pytest.mark.parametrize("kind", ["constant", "number", "levels"])
    def test_one_column_is_enough(self, name: str, kind: str, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        table = pa.table(
            {
                kind: {
                    "constant": pa.array(["x"] * 60),
                    "number": pa.array(rng.normal(size=60)),
                    "levels": pa.array(rng.choice(["ä", "b", ""], 60)),
                }[kind]
            }
        )
        model = fit(name, table)
        made = sample(model, 1_500)
        assert (made.num_rows, made.schema) == (1_500, table.schema)
        assert set(made[kind].to_pylist()) <= set(table[kind].to_pylist()) or kind == "number"
        model.save(tmp_path)
        assert sample(backend(name).load(tmp_path), 1_500).equals(made)

    @pytest.mark.parametrize("name", list(TINY))
    def test_twenty_rows_will_do_for_the_default_batch(self, name: str) -> None:
        options = {"batch_size": 500} if "tvae" in name else {"batch_size": 500, "pac": 10}
        assert sample(fit(name, example_table(20), **options)).num_rows == 200

    @pytest.mark.parametrize("name", list(TINY))
    def test_fifty_thousand_levels_are_refused_with_the_way_out(self, name: str) -> None:
        levels = [f"secret-{i % 50_000}" for i in range(60_000)]
        table = pa.table({"n": range(60_000), "place": levels})
        roles = {"place": {"kind": "categorical"}}
        start = time.monotonic()
        with pytest.raises(SourceError, match=r"'place': 50,000 in 60,000 rows") as error:
            fit(name, table, roles=roles)
        assert time.monotonic() - start < 30
        for way_out in ("role id", "group", "sdv.gaussian_copula", "diffusion.tabular"):
            assert way_out in str(error.value)
        assert "secret" not in str(error.value)

    def test_a_thousand_levels_are_learned(self) -> None:
        table = pa.table({"place": [f"p{i % 1_000}" for i in range(3_000)]})
        model = fit("ctgan", table, roles={"place": {"kind": "categorical"}})
        assert pc.count_distinct(sample(model, 5_000)["place"]).as_py() > 500


class TestConditions:
    @pytest.mark.parametrize("name", ["ctgan", "sdv.copula_gan"])
    def test_every_row_meets_all_of_them(self, models: dict[str, Model], name: str) -> None:
        conditions: dict[str, Any] = {"job": "c", "member": True, "score": None}
        made = sample(models[name], 100, conditions=conditions)
        assert {n: set(made[n].to_pylist()) for n in conditions} == {
            "job": {"c"},
            "member": {True},
            "score": {None},
        }
        assert sample(models[name], 30, conditions=conditions).equals(made.slice(0, 30))
        other = sample(models[name], 100, block=1, conditions=conditions)
        assert not set(made["person"].to_pylist()) & set(other["person"].to_pylist())

    def test_the_vector_makes_what_is_asked_for_frequent(self, people: pa.Table) -> None:
        """A rare level, drawn without being told, would take some twenty rows for one."""
        rates = {"generator_lr": 1e-3, "epochs": 200}
        model: Any = fit("ctgan", people.select(["job", "member"]), **rates)
        told = model._told({"job": "c", "member": True})
        share = pc.mean(pc.equal(model._block(4_096, 1, 0, told)["job"], "c")).as_py()
        alone = pc.mean(pc.equal(model._block(4_096, 1, 0, None)["job"], "c")).as_py()
        assert told == model._told({"job": "c"}) != model._told({"member": True})
        assert share > 0.5 > 2 * alone

    def test_an_impossible_one_is_refused_at_once(self, models: dict[str, Model]) -> None:
        for conditions in ({"job": "pilot"}, {"age": 200}, {"nobody": 1}, {"job": None}):
            with pytest.raises(UsageError) as error:
                sample(models["ctgan"], 10, conditions=conditions)
            assert "pilot" not in str(error.value)

    def test_a_hopeless_one_ends_with_the_shortfall(self, models: dict[str, Any]) -> None:
        exact = sample(models["ctgan"], 1)["score"][0].as_py() or 0.25
        with pytest.raises(BackendError, match=r"of 9,000 rows: ctgan makes rows that meet"):
            sample(models["ctgan"], 9_000, conditions={"score": exact, "job": "c"})

    def test_an_autoencoder_is_left_to_the_engine(self, models: dict[str, Model]) -> None:
        made = backend("ctgan.tvae")
        assert not made.conditions
        job = sample(models["ctgan.tvae"], 500)["job"][0].as_py()
        asked = {"job": job}
        rows = sample_block(models["ctgan.tvae"], made, 50, seed=1, block=0, conditions=asked)["t"]
        assert set(rows["job"].to_pylist()) == {job}


class TestSaved:
    @pytest.mark.parametrize("name", ONE_OF_EACH)
    def test_it_comes_back_bit_by_bit(
        self, models: dict[str, Any], name: str, tmp_path: Path
    ) -> None:
        models[name].save(tmp_path / "a")
        loaded: Any = backend(name).load(tmp_path / "a")
        loaded.save(tmp_path / "b")
        assert files(tmp_path / "a") == files(tmp_path / "b")
        assert sample(loaded, 2_000).equals(sample(models[name], 2_000))
        assert loaded.curves == models[name].curves
        assert set(files(tmp_path / "a")) == {"model.json", "weights.safetensors"}

    @pytest.mark.parametrize(
        "broken",
        [
            lambda d: d.update(format="safegen.ctgan/9"),
            lambda d: d["parts"].pop(),
            lambda d: d["parts"][-2].update(shares=[0.5]),
            lambda d: d["parts"][0].update(means=[float("inf")]),
            lambda d: d["parts"][0].update(widths=[]),
            lambda d: d.update(network=None),
            lambda d: d["network"].update(layers=[17]),
            lambda d: d["network"].update(kind="decoder"),
            lambda d: d.pop("curves"),
        ],
    )
    def test_a_broken_document_is_refused(
        self, models: dict[str, Model], broken: Callable[[Any], Any], tmp_path: Path
    ) -> None:
        models["ctgan"].save(tmp_path)
        document = json.loads((tmp_path / "model.json").read_text())
        broken(document)
        (tmp_path / "model.json").write_text(json.dumps(document))
        with pytest.raises(BackendError, match="fit it again"):
            backend("ctgan").load(tmp_path)

    @pytest.mark.parametrize("how", ["absent", "cut", "nan"])
    def test_broken_weights_are_refused(
        self, models: dict[str, Any], how: str, tmp_path: Path
    ) -> None:
        from safegen.backends.networks import load_tensors, save_tensors

        models["ctgan"].save(tmp_path)
        file = tmp_path / "weights.safetensors"
        if how == "nan":
            tensors = load_tensors(file)
            tensors["network.seq.0.fc.bias"][0] = float("nan")
            save_tensors(file, tensors)
        else:
            data = file.read_bytes()
            file.unlink()
            if how == "cut":
                file.write_bytes(data[:-9])
        with pytest.raises(BackendError, match="fit it again"):
            backend("ctgan").load(tmp_path)


class TestCollapse:
    """An autoencoder that is hardly trained knows one level of many."""

    def call(self, *words: object) -> int:
        with pytest.raises(SystemExit) as end:
            main([str(w) for w in words])
        return int(end.value.code or 0)

    def compare(self, capsys: Any, source: Path, rows: int, backend: str, *more: str) -> None:
        """The copula's rows of the same source are admitted, those of the autoencoder are not."""
        ledger, out = source.with_name("ledger.db"), source.with_name("out")
        common = ("-n", rows, "--ledger", ledger, "--policy", "baseline", "--seed", "1")
        assert self.call("attest", source, "--by", "Ada", "--ledger", ledger) == 0
        assert self.call("generate", source, "-o", out / "copula", *common) == 0
        capsys.readouterr()
        words = ("--backend", backend, *more, "-o", out / "vae")
        assert self.call("generate", source, *words, *common) == 3
        said = " ".join(capsys.readouterr().err.split())
        assert "REFUSED at the release gate" in said
        assert "support/levels" in said
        assert "the generator has lost part of reality" in said
        assert not (out / "vae").exists()

    def test_levels_lost_by_a_short_training_are_refused(self, tmp_path: Path, capsys: Any) -> None:
        rng = np.random.default_rng(0)
        shares = np.array([60, *[4] * 10]) / 100
        levels = rng.choice([f"country {i}" for i in range(11)], 2_000, p=shares)
        table = pa.table({"country": levels, "age": rng.integers(18, 80, 2_000)})
        pq.write_table(table, tmp_path / "people.parquet")
        tiny = ("--set", "epochs=1", "--set", "compress_dims=[8]", "--set", "decompress_dims=[8]")
        self.compare(capsys, tmp_path / "people.parquet", 2_000, "ctgan.tvae", *tiny)

    @pytest.mark.slow
    def test_adult_after_four_epochs_is_refused(self, tmp_path: Path, capsys: Any) -> None:
        path, what = place_data(tmp_path)
        assert what.startswith("Adult"), "the Adult wheel is missing: make install"
        table = pq.read_table(path).replace_schema_metadata(None)
        pq.write_table(table.slice(48_842 - 32_561), path)
        self.compare(capsys, path, 32_561, "sdv.tvae", "--set", "epochs=4")
