"""Images, from a source to a verified release, in both forms; and the model that makes them."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import safegen
from safegen import plugins
from safegen.backends.diffusion.image import Image, Options
from safegen.errors import BackendError, SourceError, TargetError, UsageError, VerificationError
from safegen.tables.images import decoded_images, encoded_images, image_bytes, stamp_of
from safegen.tables.schema import infer_schema
from safegen.tables.sources import MAX_FILES, read_source
from safegen.testing import Rows, check_backend

TINY = {
    "channels": [8, 8],
    "steps": 4,
    "batch_size": 8,
    "sampler_steps": 2,
    "device": "cpu",
}


def digits(n: int = 400) -> dict[str, np.ndarray]:
    """Real images: scikit-learn's digits, 8 × 8."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return {"image": (data.images[:n] * 15).astype(np.uint8), "label": data.target[:n]}


def table_of(source: Any) -> pa.Table:
    return read_source(source).tables["table"].table()


def folder_of(place: Path, n: int = 400) -> Path:
    """The digits as an image folder, a sub-folder to a class."""
    arrays = digits(n)
    files = encoded_images(arrays["image"][..., None])
    for i, (data, label) in enumerate(zip(files, arrays["label"], strict=True)):
        (place / f"digit-{label}").mkdir(parents=True, exist_ok=True)
        (place / f"digit-{label}" / f"{i}.png").write_bytes(data)
    return place


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`diffusion.image` draws real images: the journey without an hour of training."""
    load = plugins.load
    monkeypatch.setattr(
        plugins,
        "load",
        lambda group, name: Rows if name == "diffusion.image" else load(group, name),
    )


@pytest.fixture
def gen(drawing: None, tmp_path: Path) -> safegen.Generator:
    real = folder_of(tmp_path / "real")
    safegen.attest(real, by="a tester")
    return safegen.Generator("diffusion.image", policy="images").fit(real)


# ---- the journey ---------------------------------------------------------------------------------


def test_from_an_image_folder_to_a_verified_release(gen: safegen.Generator, tmp_path: Path) -> None:
    dataset = gen.generate(300, tmp_path / "out")
    manifest = safegen.verify(tmp_path / "out", deep=True)
    assert (manifest.kind, manifest.origin, manifest.ancestry) == (
        "images",
        "synthetic",
        "attested",
    )
    assert [(c.name, c.type) for c in manifest.columns] == [
        ("image", "struct<bytes: binary, path: string>"),
        ("label", "string"),
    ]
    rows = dataset.to_arrow()
    assert rows.num_rows == 300
    for data in image_bytes(rows.column("image")):
        assert data is not None
        stamp = stamp_of(data)
        assert stamp is not None
        assert stamp["dataset_id"] == manifest.dataset_id
        assert (stamp["origin"], stamp["depth"]) == ("synthetic", 1.0)
    names = rows.column("image").combine_chunks().field("path").to_pylist()
    assert len(set(names)) == 300
    found, mode = decoded_images("image", rows.column("image"))
    assert found.shape == (300, 8, 8, 1)
    assert mode == "L"


def test_both_forms_hold_the_same_rows_and_have_one_digest(
    gen: safegen.Generator, tmp_path: Path
) -> None:
    one = gen.generate(300, tmp_path / "parquet")
    two = gen.generate(300, tmp_path / "png", images="png")
    again = gen.generate(300, tmp_path / "again")
    assert (
        one.manifest.logical_digest
        == two.manifest.logical_digest
        == again.manifest.logical_digest
        != gen.generate(300, tmp_path / "other", seed=12).manifest.logical_digest
    )
    safegen.verify(two.path, deep=True)
    files = sorted(p.relative_to(two.path).as_posix() for p in two.path.rglob("*.png"))
    assert files[0] == "data/00000/0000000.png"
    assert len(files) == 300
    assert {f.path for f in two.manifest.files} >= {*files, "data/metadata.parquet"}
    a, b = one.to_arrow(), two.to_arrow()
    assert a.schema.types == b.schema.types
    assert a.schema.names == b.schema.names
    assert a.column("label").equals(b.column("label"))
    assert (
        a.column("image")
        .combine_chunks()
        .field("path")
        .equals(b.column("image").combine_chunks().field("path"))
    )
    assert np.array_equal(
        decoded_images("i", a.column("image"))[0], decoded_images("i", b.column("image"))[0]
    )
    assert len(two.to_pandas()) == len(two.weights()) == 300
    # what Hugging Face's loader looks for
    listed = pq.read_table(two.path / "data" / "metadata.parquet")
    assert [f"data/{n}" for n in listed.column("file_name").to_pylist()] == files
    assert set(listed.column("_safegen_origin").to_pylist()) == {"synthetic"}


def test_same_keeps_a_release_only_in_the_form_that_it_has(
    gen: safegen.Generator, tmp_path: Path
) -> None:
    first = gen.generate(100, tmp_path / "out", images="png")
    kept = gen.generate(100, tmp_path / "out", images="png", if_exists="same")
    assert kept.manifest.dataset_id == first.manifest.dataset_id
    with pytest.raises(TargetError, match="not the one that this call would make"):
        gen.generate(100, tmp_path / "out", if_exists="same")


@pytest.mark.parametrize("change", ["pixel", "gone", "extra"])
def test_every_png_is_verified(gen: safegen.Generator, tmp_path: Path, change: str) -> None:
    dataset = gen.generate(100, tmp_path / "out", images="png")
    one = dataset.path / "data" / "00000" / "0000042.png"
    if change == "pixel":
        data = bytearray(one.read_bytes())
        data[-20] ^= 1
        one.write_bytes(data)
    elif change == "gone":
        one.unlink()
    else:
        shutil.copy(one, one.with_name("0000100.png"))
    with pytest.raises(VerificationError, match="00000/0000"):
        safegen.verify(dataset.path)


def test_png_files_are_for_one_column_of_images(drawing: None, tmp_path: Path) -> None:
    gen = safegen.Generator("diffusion.image")
    gen.prepare(table_of(digits(40)).append_column("again", table_of(digits(40)).column("image")))
    with pytest.raises(UsageError, match="one column of images"):
        gen.generate(100, tmp_path / "out", images="png")
    with pytest.raises(UsageError, match="parquet or png"):
        gen.generate(100, tmp_path / "out", images="jpeg")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "column", "rows", "message"),
    [
        ("faces", "label", 40, "without a name of its own"),
        ("table", "file_name", 40, "a column 'file_name' of its own"),
        ("table", "label", MAX_FILES, "fewer than 100,000 images"),
    ],
)
def test_what_could_not_be_read_back_as_png_files_is_refused_before_the_fit(
    drawing: None, tmp_path: Path, name: str, column: str, rows: int, message: str
) -> None:
    table = table_of(digits(40)).rename_columns(["image", column])
    gen = safegen.Generator("diffusion.image")
    gen.prepare({name: table})
    with pytest.raises(UsageError, match=message):
        gen.check_request(rows, images="png")
    gen.check_request(rows)  # in Parquet each of them can be read
    gen.prepare(table.rename_columns(["image", "label"]))
    gen.check_request(MAX_FILES - 1, images="png")
    gen.prepare({"a": table, "b": table})
    with pytest.raises(UsageError, match="one column of images"):
        gen.check_request(40, images="png")


def test_content_that_cannot_be_read_back_is_a_problem_of_verification(
    gen: safegen.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safegen.tables import sources

    dataset = gen.generate(100, tmp_path / "out", images="png")
    safegen.verify(dataset.path, deep=True)
    monkeypatch.setattr(sources, "MAX_FILES", 100)  # as a release of an earlier version would be
    with pytest.raises(VerificationError, match=r"its rows cannot be read: .*more than 100 files"):
        safegen.verify(dataset.path, deep=True)


def test_images_and_models_of_tables_do_not_go_together() -> None:
    with pytest.raises(UsageError, match="takes table, and this is images"):
        safegen.Generator("sdv.gaussian_copula").fit(digits())


def test_a_class_that_is_gone_is_refused(
    gen: safegen.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = gen._model.tables["table"]  # type: ignore[union-attr]
    kept = table.filter(pa.compute.not_equal(table.column("label"), "digit-3"))
    monkeypatch.setattr(gen._model, "tables", {"table": kept})
    with pytest.raises(safegen.ReleaseRefused) as refused:
        gen.generate(300, tmp_path / "out")
    assert "support/levels" in str(refused.value)


# ---- diffusion.image -----------------------------------------------------------------------------


def words(n: int = 60) -> pa.Table:
    arrays = digits(n)
    return table_of(arrays | {"label": np.array([f"d{x}" for x in arrays["label"]])})


def fitted(table: pa.Table, *, unchecked: dict[str, Any] | None = None, **more: Any) -> Any:
    options = Options.model_validate(TINY | more).model_copy(update=unchecked)
    return Image().fit({"table": table}, {"table": infer_schema(table)}, options, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"sampler": "ddpm", "guidance": 2.0, "schedule": "linear", "channels": [8]},
        {"sampler": "ddim", "objective": "epsilon", "attention": False, "held_out": 0.0},
    ],
)
def test_the_image_model_conforms(more: dict[str, Any]) -> None:
    check_backend(Image(), words(), TINY | more | {"steps": 2})


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_come_back_in_the_mode_and_size_of_the_source(channels: int) -> None:
    array = np.random.default_rng(0).integers(0, 256, (24, 8, 12, channels), dtype=np.uint8)
    table = table_of(array)
    made = fitted(table).sample(3, seed=1, block=0)["table"]
    assert made.schema.equals(table.schema)
    found, _ = decoded_images("image", made.column("image"))
    assert found.shape == (3, 8, 12, channels)


def test_labels_follow_their_shares_and_conditions_are_exact() -> None:
    model = fitted(words())
    real = Counter(words().column("label").to_pylist())
    blocks = [model.sample(256, seed=1, block=b)["table"].column("label") for b in range(2)]
    for block in blocks:
        labels = Counter(block.to_pylist())
        for label, count in real.items():  # of each class as many as are due, but for one
            assert abs(labels[label] - 256 * count / 60) < 1
    assert not blocks[0].equals(blocks[1])
    only = model.sample(70, seed=1, block=0, conditions={"label": "d3"})["table"]
    assert set(only.column("label").to_pylist()) == {"d3"}
    with pytest.raises(UsageError, match="no such value"):
        model.sample(5, seed=1, block=0, conditions={"label": "d77"})
    with pytest.raises(UsageError, match="on 'label' only"):
        model.sample(5, seed=1, block=0, conditions={"image": "x"})


def test_labels_may_be_missing_or_all_the_same() -> None:
    table = words(40)
    holes = pa.array([None if i % 2 else "a" for i in range(40)])
    made = fitted(table.set_column(1, "label", holes)).sample(256, seed=1, block=0)["table"]
    assert 80 < made.column("label").null_count < 180
    same = fitted(table.set_column(1, "label", pa.array(["a"] * 40)))
    assert set(same.sample(9, seed=1, block=0)["table"].column("label").to_pylist()) == {"a"}


def test_training_shows_its_curves_and_stops_early() -> None:
    model = fitted(words(), steps=40, patience=1, learning_rate=1.0)
    assert len(model.curves["held_out_loss"]) < 20
    assert 0 < len(model.curves["loss"]) < 40
    assert all(np.isfinite(model.curves["loss"]))


@pytest.mark.parametrize("held_out", [0.0, 0.1])
def test_a_loss_that_is_not_finite_stops_the_fit(held_out: float) -> None:
    with pytest.raises(BackendError, match=r"diverged.*learning_rate"):
        fitted(words(), steps=6, held_out=held_out, unchecked={"learning_rate": 1e30})


@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("objective", ["epsilon", "v"])
@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++"])
def test_every_sampler_walks_from_pure_noise_to_the_data(
    sampler: str, objective: str, schedule: str, steps: int
) -> None:
    """Of normal data the best denoiser is known. It errs by a hundredth here, as networks do: the
    samples are to have about the data's deviation, .5, and not that of noise."""
    import torch

    from safegen.backends.diffusion.image_model import Picture, Sampling

    options = Options.model_validate(
        {"sampler": sampler, "objective": objective, "schedule": schedule, "sampler_steps": steps}
    )
    scheduler = Sampling.of(options, Picture("L", 8, 8), "cpu").scheduler()
    assert scheduler.alphas_cumprod[scheduler.timesteps[0]] < 0.001  # as good as pure noise
    source = torch.Generator().manual_seed(0)
    images = torch.randn((16, 1, 8, 8), generator=source)
    more = {"generator": source} if sampler == "ddpm" else {}
    for time in scheduler.timesteps:
        signal = scheduler.alphas_cumprod[time].sqrt()
        loudness = (1 - scheduler.alphas_cumprod[time]).sqrt()
        variance = 0.25 * signal**2 + loudness**2
        noise, clean = loudness * images / variance, 0.25 * signal * images / variance
        said = noise if objective == "epsilon" else signal * noise - loudness * clean
        said += 0.01 * torch.randn(images.shape, generator=source)
        images = scheduler.step(said, time, images, **more).prev_sample
    assert 0.3 < float(images.std()) < 0.6


def test_the_watched_loss_is_taken_in_slices_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    from safegen.backends.diffusion import image_training

    seen = []
    loss = image_training._Training._loss

    def counted(self: Any, net: Any, noisy: Any, *rest: Any) -> Any:
        if net is self.average:
            seen.append(len(noisy))
        return loss(self, net, noisy, *rest)

    monkeypatch.setattr(image_training._Training, "_loss", counted)
    monkeypatch.setattr(image_training, "_WATCHED", 20)
    fitted(words(), steps=1, held_out=0.5)
    assert seen == [8, 8, 4]  # 20 at most, of 30 that are held out
    seen.clear()
    monkeypatch.setattr(image_training, "_WATCHED_PIXELS", 3 * 64)
    fitted(words(), steps=1, held_out=0.5)
    assert seen == [3]


def test_large_images_are_made_few_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from safegen.backends.diffusion import image_model
    from safegen.backends.diffusion.image_model import Picture, Sampling

    def batch(side: int, device: str) -> int:
        return Sampling.of(Options(), Picture("RGB", side, side), device).batch

    assert [batch(side, "cpu") for side in (8, 256, 512, 1024, 4096)] == [64, 64, 16, 4, 1]
    assert [batch(side, "cuda") for side in (8, 128, 1024)] == [256, 256, 4]
    monkeypatch.setattr(image_model, "BATCH_PIXELS", 24 * 64)
    model = fitted(words())
    assert model.sampling.batch == 24
    model.save(tmp_path)
    monkeypatch.undo()
    loaded = Image().load(tmp_path)  # the model's own, not this version's
    made = loaded.sample(60, seed=1, block=0)["table"]
    assert made.equals(model.sample(60, seed=1, block=0)["table"])
    assert made.slice(0, 30).equals(model.sample(30, seed=1, block=0)["table"])


def test_images_that_are_not_finite_are_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted(words(24))
    model.sample(1, seed=1, block=0)
    said = model._said
    monkeypatch.setattr(model, "_said", lambda *given: said(*given) * float("nan"))
    with pytest.raises(BackendError, match="not finite"):
        model.sample(1, seed=1, block=0)


def test_dropout_and_weight_decay_change_what_is_learned() -> None:
    def learned(**more: float) -> list[float]:
        curve: list[float] = fitted(words(24), **more).curves["loss"]
        return curve

    plain = learned()
    assert learned() == plain
    assert learned(dropout=0.5) != plain
    assert learned(weight_decay=1.0, learning_rate=0.5) != learned(learning_rate=0.5)


@pytest.mark.parametrize("change", ["weights", "document", "shares", "cut"])
def test_a_damaged_model_is_refused(tmp_path: Path, change: str) -> None:
    fitted(words(24)).save(tmp_path)
    weights, document = tmp_path / "weights.safetensors", tmp_path / "model.json"
    if change == "weights":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif change == "document":
        document.write_text("{}")
    elif change == "shares":
        text = document.read_text()
        document.write_text(text.replace('"classes": ', '"classes": 1'))
    else:
        weights.unlink()
    with pytest.raises(BackendError, match="cannot be read"):
        Image().load(tmp_path)


@pytest.mark.parametrize("forged", ["no image", "a small label", "shares in words", "shares"])
def test_a_table_that_no_such_model_makes_is_refused(tmp_path: Path, forged: str) -> None:
    """Not when the first image is drawn: when the model is read."""
    import base64
    import json

    fitted(words(24)).save(tmp_path)
    document = json.loads((tmp_path / "model.json").read_text())
    table = document["table"]
    Image().load(tmp_path)
    fields = {"image": pa.int64(), "label": pa.int8()}
    name = {"no image": "image", "a small label": "label"}.get(forged)
    if name is not None:
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(table["arrow_schema"])))
        at = schema.get_field_index(name)
        changed = schema.set(at, pa.field(name, fields[name]))
        table["arrow_schema"] = base64.b64encode(changed.serialize()).decode()
    else:
        table["shares"] = "1" if forged == "shares in words" else [0.5, 0.5]
    (tmp_path / "model.json").write_text(json.dumps(document))
    with pytest.raises(BackendError, match="cannot be read"):
        Image().load(tmp_path)


def test_a_model_folder_holds_no_image(tmp_path: Path) -> None:
    fitted(words(24)).save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"model.json", "weights.safetensors"}
    assert all(b"PNG" not in p.read_bytes() for p in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"size": np.arange(60.0)}, "at most one of labels, and here are 1 and 2"),
        ({"label": np.arange(60.0)}, "is numeric, and labels are categorical"),
        ({"label": np.arange(60)}, "60 labels for 60 images"),
    ],
)
def test_columns_that_are_no_labels_are_refused(extra: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        fitted(table_of(digits(60) | extra))


def test_a_size_that_cannot_be_halved_is_refused_with_the_way_out() -> None:
    table = table_of(np.zeros((24, 9, 9), np.uint8))
    with pytest.raises(SourceError, match=r"resolution=8"):
        fitted(table)
    assert fitted(table, resolution=8).picture.width == 8


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"attention_levels": 3}, "attention_levels is at most 2 here"),
        ({"attention_head_dim": 12}, "16 are no multiple of 12"),
        ({"attention": False, "attention_levels": 1, "attention_head_dim": 12}, "16 are no"),
    ],
)
def test_attention_that_does_not_fit_the_network_is_refused(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        fitted(table_of(digits(60)), channels=(8, 16), **given)


def test_the_options_of_the_network_reach_it_and_come_back_with_it(tmp_path: Path) -> None:
    more = {
        "channels": (8, 16),
        "attention_levels": 1,
        "attention_head_dim": 4,
        "activation": "gelu",
        "time_scale_shift": True,
    }
    model = fitted(table_of(digits(60)), **more)
    config = model.net.config
    assert config.down_block_types == ("DownBlock2D", "AttnDownBlock2D")
    assert config.up_block_types == ("AttnUpBlock2D", "UpBlock2D")
    found = config.attention_head_dim, config.act_fn, config.resnet_time_scale_shift
    assert found == (4, "gelu", "scale_shift")
    model.save(tmp_path)
    again = Image().load(tmp_path).sample(5, seed=1, block=0)
    assert again == model.sample(5, seed=1, block=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"channels": [12]}, "multiples of 8"),
        ({"guidance": 2.0, "label_dropout": 0.0}, "guidance needs label_dropout"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"sampler": "euler"}, "dpm"),
        ({"sampler_steps": 1}, "greater than or equal to 2"),
        ({"learning_rate": 2.0}, "less than or equal to 1"),
        ({"patience": 3, "held_out": 0.0}, "patience does nothing without held_out"),
        ({"attention": False, "attention_head_dim": 4}, "attention_head_dim does nothing"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        safegen.Generator("diffusion.image", options=given)


def test_the_whole_journey_of_a_trained_model(tmp_path: Path) -> None:
    options = TINY | {"steps": 2}
    gen = safegen.Generator("diffusion.image", policy="images", options=options).fit(digits(100))
    dataset = gen.generate(260, tmp_path / "out")
    gen.save(tmp_path / "model")
    loaded = safegen.Generator.load(tmp_path / "model", source=digits(100), policy="images")
    again = loaded.generate(260, tmp_path / "again", images="png")
    assert again.manifest.logical_digest == dataset.manifest.logical_digest
    names = [m["name"] for m in dataset.manifest.measurements]
    assert "training.loss" in names
    safegen.verify(again.path, deep=True)


@pytest.mark.slow
def test_generated_digits_train_a_classifier_and_cover_the_real_ones() -> None:
    """Minutes of training: what `bench/images.py` measures, against the targets."""
    import importlib.util

    path = Path(__file__).parents[2] / "bench" / "images.py"
    spec = importlib.util.spec_from_file_location("bench_images", path)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    found = bench.measured({"device": "cpu"})
    assert found["accuracy_real"] > 0.96
    assert found["accuracy"] >= 0.93
    for name in ("recall", "coverage"):
        assert found["prdc"][name].value >= 0.80 * found["prdc_real"][name].value
    assert found["training_processor_seconds"] < 300
