"""Pretrained pipelines in local folders: tiny ones, made here, and never a network."""

from __future__ import annotations

import inspect
import json
import logging
import shutil
import socket
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from pydantic import ValidationError

import safegen
from safegen.backends.diffusion import pipeline_files
from safegen.backends.diffusion.pipeline import Options, Pipeline, Scheduler
from safegen.errors import (
    BackendError,
    MissingExtra,
    SourceError,
    UsageError,
    VerificationError,
)
from safegen.tables.images import decoded_images, encoded_images, image_column
from safegen.tables.schema import infer_schema
from safegen.testing import check_backend

PROMPTS = ["a red dot", "a blue dot", "a green dot"]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **more: Any) -> None:
        raise AssertionError("a test went to the network")

    monkeypatch.setattr(socket.socket, "connect", refused)


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DDPMPipeline with a tiny U-Net, 8 × 8 pixels."""
    import torch
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    place = tmp_path_factory.mktemp("ddpm") / "pipeline"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet2DModel(
            sample_size=8,
            block_out_channels=(8, 8),
            down_block_types=("DownBlock2D",) * 2,
            up_block_types=("UpBlock2D",) * 2,
            layers_per_block=1,
            norm_num_groups=4,
            add_attention=False,
        )
        DDPMPipeline(net, DDPMScheduler(num_train_timesteps=10)).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def by_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A StableDiffusionPipeline whose parts are tiny: 16 × 16 pixels, a vocabulary of letters."""
    import torch
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    place = tmp_path_factory.mktemp("sd")
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (place / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("diffusers").setLevel(logging.ERROR)
        torch.manual_seed(0)
        tokenizer = CLIPTokenizer(
            str(place / "vocab.json"), str(place / "merges.txt"), model_max_length=12
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=12,
                bos_token_id=len(words) - 2,
                eos_token_id=len(words) - 1,
                pad_token_id=len(words) - 1,
            )
        )
        unet = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=4,
            norm_num_groups=4,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=16,
        )
        pipe = StableDiffusionPipeline(
            vae=vae,
            text_encoder=text,
            tokenizer=tokenizer,
            unet=unet,
            scheduler=DDIMScheduler(num_train_timesteps=10),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.save_pretrained(place / "pipeline")
    return place / "pipeline"


def illustrated(n: int = 24, size: int = 16) -> pa.Table:
    """Images with prompts."""
    array = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    texts = [PROMPTS[i % 3] for i in range(n)]
    return pa.table({"prompt": texts, "image": image_column(encoded_images(array), [None] * n)})


def given(folder: Path, **more: Any) -> dict[str, Any]:
    return {"folder": str(folder), "steps": 2, "batch_size": 4, "device": "cpu", **more}


def fitted(table: pa.Table, options: dict[str, Any], seed: int = 1) -> Any:
    chosen = Options.model_validate(options)
    return Pipeline().fit({"table": table}, {"table": infer_schema(table)}, chosen, seed=seed)


@pytest.mark.slow
def test_an_unconditional_pipeline_conforms(unconditional: Path) -> None:
    check_backend(
        Pipeline(), illustrated(24, 8).select(["image"]), given(unconditional, batch_size=16)
    )


def test_a_text_to_image_pipeline_conforms(by_text: Path) -> None:
    options = given(by_text, prompt_column="prompt", guidance_scale=2.0, steps=1, batch_size=20)
    check_backend(Pipeline(), illustrated(), options)


def test_from_a_table_of_prompts_to_a_release_that_says_what_is_not_known(
    by_text: Path, tmp_path: Path
) -> None:
    source = tmp_path / "prompts.csv"
    pa.csv.write_csv(pa.table({"prompt": PROMPTS * 10}), source)
    safegen.attest(source, by="a tester")
    options = given(by_text, prompt_column="prompt", steps=1, batch_size=8)
    gen = safegen.Generator("diffusion.pipeline", "images", options=options).fit(source)
    dataset = gen.generate(16, tmp_path / "out")
    manifest = safegen.verify(dataset.path, deep=True)
    assert manifest.kind == "images"
    assert manifest.ancestry == "unverified"
    assert manifest.depth_is_lower_bound
    assert manifest.claims == []
    assert any("training data is unknown" in w for w in manifest.warnings)
    rows = dataset.to_arrow()
    assert set(rows.column("prompt").to_pylist()) <= set(PROMPTS)
    assert decoded_images("image", rows.column("image"))[0].shape == (16, 16, 16, 3)
    gen.save(tmp_path / "model")
    again = safegen.Generator.load(tmp_path / "model", policy="images")
    other = again.generate(16, tmp_path / "again").manifest
    assert other.logical_digest == manifest.logical_digest
    assert other.ancestry == "unverified"


def test_prompts_tell_images_apart_and_conditions_fix_them(by_text: Path) -> None:
    model = fitted(illustrated(), given(by_text, prompt_column="prompt", guidance_scale=7.0))
    made = {}
    for prompt in PROMPTS[:2]:
        rows = model.sample(3, seed=1, block=0, conditions={"prompt": prompt})["table"]
        assert set(rows.column("prompt").to_pylist()) == {prompt}
        made[prompt] = decoded_images("i", rows.column("image"))[0]
    assert not np.array_equal(*made.values())
    with pytest.raises(UsageError, match="no such value"):
        model.sample(1, seed=1, block=0, conditions={"prompt": "a cat"})


class GlobalNoise:
    """A pipeline that also draws from torch's global generator, whatever it is given."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def __call__(self, *, generator: Any, batch_size: int, **_: Any) -> Any:
        import torch

        self.seeds.append(generator.initial_seed())
        return SimpleNamespace(images=torch.rand(batch_size, 8, 8, 3).numpy())


def test_what_a_pipeline_draws_by_itself_differs_from_batch_to_batch(unconditional: Path) -> None:
    model = fitted(illustrated(24, 8).select(["image"]), given(unconditional))
    model.pipe = pipe = GlobalNoise()
    made = [
        decoded_images("i", model.sample(8, seed=1, block=block)["table"].column("image"))[0]
        for block in (0, 1, 0)
    ]
    assert np.array_equal(made[0], made[2])
    batches = [made[0][:4], made[0][4:], made[1][:4], made[1][4:]]
    assert len({batch.tobytes() for batch in batches}) == 4
    assert len(set(pipe.seeds)) == 4
    assert max(pipe.seeds) > 2**32


def test_a_pipeline_that_has_changed_is_not_loaded(unconditional: Path, tmp_path: Path) -> None:
    pipe = shutil.copytree(unconditional, tmp_path / "pipe")
    (tmp_path / "model").mkdir()
    fitted(illustrated(24, 8).select(["image"]), given(pipe)).save(tmp_path / "model")
    Pipeline().load(tmp_path / "model")
    config = pipe / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(BackendError, match="changed since"):
        Pipeline().load(tmp_path / "model")
    shutil.rmtree(pipe)
    with pytest.raises(BackendError, match="no such file"):
        Pipeline().load(tmp_path / "model")


def test_a_strangers_model_is_followed_to_no_folder(
    unconditional: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safegen.backends.diffusion import pipeline_model

    source = illustrated(24, 8).select(["image"])
    gen = safegen.Generator("diffusion.pipeline", options=given(unconditional))
    gen.fit(source).save(tmp_path / "model")
    opened = []
    digests = pipeline_model.digests_of
    monkeypatch.setattr(
        pipeline_model,
        "digests_of",
        lambda folder, lora: opened.append(Path(folder)) or digests(folder, lora),
    )
    with pytest.raises(VerificationError, match="ledger does not know its digest"):
        safegen.Generator.load(tmp_path / "model", ledger=tmp_path / "other.db")
    assert not opened
    safegen.Generator.load(tmp_path / "model")
    assert set(opened) == {unconditional}


def test_a_model_is_the_same_bytes_twice_and_a_broken_one_is_refused(
    unconditional: Path, tmp_path: Path
) -> None:
    places = [tmp_path / name for name in "ab"]
    for place in places:
        place.mkdir()
    model = fitted(illustrated(24, 8).select(["image"]), given(unconditional))
    model.save(places[0])
    Pipeline().load(places[0]).save(places[1])
    first, second = (place / "model.json" for place in places)
    assert first.read_bytes() == second.read_bytes()
    for broken in (b"", b"{}", first.read_bytes()[:-9], first.read_bytes().replace(b"1.0", b"7.0")):
        second.write_bytes(broken)
        with pytest.raises(BackendError):
            Pipeline().load(places[1])


def test_only_a_pipeline_of_a_pipelines_size_is_read_in_full(
    unconditional: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=r"no model_index\.json"):
        pipeline_files.digests_of(str(tmp_path), None)
    count = sum(1 for p in unconditional.rglob("*") if p.is_file())
    size = sum(p.stat().st_size for p in unconditional.rglob("*") if p.is_file())
    for name, enough in (("MAX_FILES", count), ("MAX_BYTES", size)):
        with monkeypatch.context() as patch:
            patch.setattr(pipeline_files, name, enough)
            assert pipeline_files.folder_digest(unconditional).startswith("sha256:")
            patch.setattr(pipeline_files, name, enough - 1)
            with pytest.raises(UsageError, match="more than"):
                pipeline_files.folder_digest(unconditional)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "custom.py", "unet/weights.pt", "x.pkl", "x.gguf", "noname"]
)
def test_code_and_pickles_are_refused_before_they_are_read(
    unconditional: Path, tmp_path: Path, name: str
) -> None:
    pipe = shutil.copytree(unconditional, tmp_path / "pipe")
    (pipe / name).write_bytes(b"raise SystemExit('I ran')")
    with pytest.raises(UsageError, match="1 files may be code or pickles"):
        fitted(illustrated(24, 8).select(["image"]), given(pipe))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "EvilPipeline"}, "not one of diffusers'"),
        ({"_class_name": ["module", "Evil"]}, "not one of diffusers'"),
        ({"_class_name": "UNet2DModel"}, "not one of diffusers'"),
        ({"_class_name": "DiffusionPipeline"}, "not one of diffusers'"),
        ({"unet": ["evil_module", "Net"]}, "code of others"),
    ],
)
def test_classes_of_others_are_refused(
    unconditional: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    pipe = shutil.copytree(unconditional, tmp_path / "pipe")
    index = json.loads((pipe / "model_index.json").read_text())
    (pipe / "model_index.json").write_text(json.dumps(index | change))
    with pytest.raises(UsageError, match=message):
        fitted(illustrated(24, 8).select(["image"]), given(pipe))


@pytest.mark.parametrize("link", ["folder", "file"])
def test_links_out_of_the_folder_are_refused_and_links_in_it_are_not(
    unconditional: Path, tmp_path: Path, link: str
) -> None:
    pipe = shutil.copytree(unconditional, tmp_path / "pipe")
    (pipe / "again.json").symlink_to(pipe / "unet" / "config.json")
    table = illustrated(24, 8).select(["image"])
    fitted(table, given(pipe))
    what = pipe / "unet" if link == "folder" else pipe / "unet" / "config.json"
    what.rename(tmp_path / "elsewhere")
    what.symlink_to(tmp_path / "elsewhere")
    (pipe / "again.json").unlink()
    with pytest.raises(UsageError, match="is a link"):
        fitted(table, given(pipe))


def test_a_folder_of_too_much_is_refused(
    unconditional: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safegen.backends.diffusion import pipeline_files

    pipe = shutil.copytree(unconditional, tmp_path / "pipe")
    files = [p for p in pipe.rglob("*") if p.is_file()]
    size = sum(p.stat().st_size for p in files)
    for limit, most, message in (("MAX_FILES", len(files), "files"), ("MAX_BYTES", size, "bytes")):
        with monkeypatch.context() as patch:
            patch.setattr(pipeline_files, limit, most)
            pipeline_files.folder_digest(pipe)
            patch.setattr(pipeline_files, limit, most - 1)
            with pytest.raises(UsageError, match=f"more than .* {message}"):
                pipeline_files.folder_digest(pipe)


def test_files_that_change_while_they_are_opened_are_refused(
    unconditional: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safegen.backends.diffusion import pipeline_model

    pipe = shutil.copytree(unconditional, tmp_path / "pipe")
    opened = pipeline_model.opened_pipeline

    def swapped(folder: Path, **more: Any) -> Any:
        (folder / "README.md").write_text("something else")
        return opened(folder, **more)

    monkeypatch.setattr(pipeline_model, "opened_pipeline", swapped)
    with pytest.raises(BackendError, match="changed while"):
        fitted(illustrated(24, 8).select(["image"]), given(pipe))


def test_images_that_a_safety_checker_blanked_are_no_rows(unconditional: Path) -> None:
    model = fitted(illustrated(24, 8).select(["image"]), given(unconditional))
    pipe = model.pipe

    def checked(found: list[bool] | None) -> Any:
        def call(**more: Any) -> Any:
            made = pipe(**more)
            made["nsfw_content_detected"] = found
            return made

        return call

    for harmless in (None, [False] * 4):
        model.pipe = checked(harmless)
        model.sample(2, seed=1, block=0)
    model.pipe = checked([False, True, False, False])
    with pytest.raises(BackendError, match=r"1 of 4 images were blanked.*change the prompts"):
        model.sample(2, seed=1, block=0)


def test_adapters_and_calls_of_the_pipeline_ask_no_server(
    by_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import StableDiffusionPipeline
    from huggingface_hub import constants

    from safegen.backends.diffusion.lora import adapter_weights

    base = given(by_text, prompt_column="prompt", steps=1)
    model = fitted(illustrated(), base | {"train_rank": 2, "train_steps": 1})
    StableDiffusionPipeline.save_lora_weights(tmp_path, adapter_weights(model.pipe))
    (adapter,) = tmp_path.glob("*.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    seen = {}

    def watch(name: str) -> None:
        kept = getattr(StableDiffusionPipeline, name)

        def watched(self: Any, *given: Any, **more: Any) -> Any:
            seen[name] = constants.HF_HUB_OFFLINE
            return kept(self, *given, **more)

        watched.__signature__ = inspect.signature(kept)  # type: ignore[attr-defined]
        monkeypatch.setattr(StableDiffusionPipeline, name, watched)

    watch("load_lora_weights")
    watch("__call__")
    fitted(illustrated(), base | {"lora": str(adapter)}).sample(1, seed=1, block=0)
    assert seen == {"load_lora_weights": True, "__call__": True}
    assert constants.HF_HUB_OFFLINE is False


def test_half_precision_and_variants_of_the_weights(by_text: Path, tmp_path: Path) -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    from safegen.backends.diffusion.pipeline_files import opened_pipeline

    base = given(by_text, prompt_column="prompt", steps=1)
    more = {"dtype": "bfloat16", "train_rank": 2, "train_steps": 2, "train_learning_rate": 0.1}
    model = fitted(illustrated(), base | more)
    assert model.pipe.unet.dtype == torch.bfloat16
    assert fitted(illustrated(), base).pipe.unet.dtype == torch.float32
    made = model.sample(2, seed=1, block=0)["table"]
    (tmp_path / "model").mkdir()
    model.save(tmp_path / "model")
    assert Pipeline().load(tmp_path / "model").sample(2, seed=1, block=0)["table"].equals(made)
    pipe: StableDiffusionPipeline = opened_pipeline(by_text)
    pipe.save_pretrained(tmp_path / "fp16", variant="fp16")
    there = given(tmp_path / "fp16", prompt_column="prompt")
    assert fitted(illustrated(), there | {"variant": "fp16"}).pipe.unet is not None
    with pytest.raises(BackendError, match="opening the pipeline"):
        fitted(illustrated(), there)


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        fitted(illustrated().select(["image"]), given(tmp_path / "nothing"))
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(UsageError, match="not a diffusers pipeline"):
        fitted(illustrated().select(["image"]), given(tmp_path))


def test_arguments_that_the_pipeline_does_not_take_are_refused(
    unconditional: Path, by_text: Path
) -> None:
    alone = illustrated().select(["image"])
    with pytest.raises(UsageError, match="takes no guidance_scale"):
        fitted(alone, given(unconditional, guidance_scale=2.0))
    with pytest.raises(UsageError, match="takes no prompts"):
        fitted(illustrated(), given(unconditional, prompt_column="prompt"))
    with pytest.raises(UsageError, match="say which prompt_column"):
        fitted(alone, given(by_text))


@pytest.mark.parametrize("name", get_args(Scheduler))
def test_every_scheduler_makes_images_of_its_own(by_text: Path, name: str) -> None:
    options = given(by_text, prompt_column="prompt", steps=4)
    models = [fitted(illustrated(), {**options, "scheduler": s}) for s in (name, None)]
    made = [m.sample(3, seed=1, block=0)["table"].column("image") for m in models]
    assert models[0].sample(3, seed=1, block=0)["table"].column("image") == made[0]
    if name not in ("ddim", "euler"):  # the pipeline's own; and Euler's steps are DDIM's
        assert made[0] != made[1]


def test_a_scheduler_of_another_kind_is_refused_with_those_that_fit(by_text: Path) -> None:
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

    from safegen.backends.diffusion.pipeline_files import reschedule

    with pytest.raises(UsageError, match=r"dpm\+\+ does not fit .*FlowMatch.*leave it out"):
        reschedule(SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler()), "dpm++")
    pipe = SimpleNamespace(scheduler=DDIMScheduler(beta_end=0.03))
    reschedule(pipe, "euler")
    assert (type(pipe.scheduler).__name__, pipe.scheduler.config.beta_end) == (
        "EulerDiscreteScheduler",
        0.03,
    )


def test_what_a_call_is_told_reaches_the_pipeline(by_text: Path) -> None:
    base = given(by_text, prompt_column="prompt", guidance_scale=7.0)

    def images(**more: Any) -> Any:
        model = fitted(illustrated(), {**base, **more})
        return model.sample(3, seed=1, block=0)["table"].column("image")

    plain = images()
    for more in ({"eta": 1.0}, {"guidance_rescale": 0.9}):
        assert images(**more) != plain, more
    for told, way in (
        ({"eta": 1.0, "scheduler": "euler"}, "eta does nothing with .*Euler.*scheduler=ddim"),
        ({"guidance_rescale": 0.5, "guidance_scale": 1.0}, "guidance_rescale does nothing"),
        ({"guidance_rescale": 0.5, "guidance_scale": 0.0}, "guidance_rescale does nothing"),
    ):
        with pytest.raises((UsageError, ValidationError), match=way):
            images(**told)
    with pytest.raises(ValidationError, match="scheduler needs prompt_column"):
        Options(folder=str(by_text), scheduler="ddim")


def test_other_columns_and_unique_texts_are_refused_with_the_way_out(by_text: Path) -> None:
    more = illustrated().append_column("size", pa.array(range(24)))
    with pytest.raises(SourceError, match=r"nothing else: .*size"):
        fitted(more, given(by_text, prompt_column="prompt"))
    texts = pa.array([f"prompt number {i}" for i in range(60)])
    unique = illustrated(60).set_column(0, "prompt", texts)
    with pytest.raises(UsageError, match="declaring it categorical"):
        fitted(unique, given(by_text, prompt_column="prompt"))


def test_an_adapter_is_trained_saved_and_loaded(by_text: Path, tmp_path: Path) -> None:
    base = given(by_text, prompt_column="prompt")
    train = {"train_rank": 2, "train_steps": 3, "train_learning_rate": 0.1}
    table = illustrated()
    plain = fitted(table, base).sample(2, seed=1, block=0)["table"]
    model = fitted(table, base | train)
    made = model.sample(2, seed=1, block=0)["table"]
    assert not made.equals(plain)
    assert len(model.curves["loss"]) == 3
    model.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"model.json", "adapter.safetensors"}
    assert Pipeline().load(tmp_path).sample(2, seed=1, block=0)["table"].equals(made)


@pytest.mark.parametrize("change", ["missing", "infinite", "size"])
def test_an_adapter_of_others_is_not_loaded(by_text: Path, tmp_path: Path, change: str) -> None:
    from safegen.backends.networks import load_tensors, save_tensors

    options = given(by_text, prompt_column="prompt", train_rank=2, train_steps=1)
    fitted(illustrated(), options).save(tmp_path)
    weights = load_tensors(tmp_path / "adapter.safetensors")
    name = min(weights)
    if change == "missing":
        del weights[name]
    else:
        weights[name] = weights[name][:1] if change == "size" else weights[name] * float("inf")
    save_tensors(tmp_path / "adapter.safetensors", weights)
    with pytest.raises(BackendError, match="adapter"):
        Pipeline().load(tmp_path)


def test_pipelines_whose_adapters_cannot_be_trained_here_are_refused(by_text: Path) -> None:
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

    from safegen.backends.diffusion.lora import size_of

    options = Options.model_validate(given(by_text, prompt_column="prompt", train_rank=2))
    pipe = fitted(illustrated(), given(by_text, prompt_column="prompt")).pipe
    assert size_of(pipe, options) == 16
    scheduler = pipe.scheduler
    for other in (FlowMatchEulerDiscreteScheduler(), DDIMScheduler(prediction_type="sample")):
        pipe.scheduler = other
        with pytest.raises(UsageError, match="train_rank: StableDiffusionPipeline is not trained"):
            size_of(pipe, options)
    pipe.scheduler = scheduler
    pipe.unet.register_to_config(sample_size=(8, 16))
    with pytest.raises(UsageError, match="say height and width"):
        size_of(pipe, options)
    both = given(by_text, prompt_column="prompt", train_rank=2, height=16, width=32)
    assert size_of(pipe, Options.model_validate(both)) == 16
    pipe.unet.register_to_config(sample_size=8, addition_embed_type="text_time")
    with pytest.raises(UsageError, match="is not trained"):
        size_of(pipe, options)


def test_an_adapter_that_diverges_in_its_last_step_is_refused(
    by_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def diverged(self: Any) -> None:
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                parameter.fill_(torch.nan)

    options = given(by_text, prompt_column="prompt", train_rank=2, train_steps=1)
    fitted(illustrated(), options)
    monkeypatch.setattr(torch.optim.AdamW, "step", diverged)
    with pytest.raises(BackendError, match=r"diverged.*train_learning_rate"):
        fitted(illustrated(), options)


def test_loading_an_adapter_without_peft_says_what_to_install(
    by_text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = given(by_text, prompt_column="prompt", train_rank=2, train_steps=1)
    for folder, more in (("adapter", options), ("plain", given(by_text, prompt_column="prompt"))):
        (tmp_path / folder).mkdir()
        fitted(illustrated(), more).save(tmp_path / folder)
    from safegen.backends.diffusion import pipeline_model

    def without_peft(package: str, extra: str) -> None:
        if package == "peft":
            raise MissingExtra(f"{package} of {extra}")

    monkeypatch.setattr(pipeline_model, "require", without_peft)
    Pipeline().load(tmp_path / "plain")
    with pytest.raises(MissingExtra, match="peft"):
        Pipeline().load(tmp_path / "adapter")


def test_a_given_adapter_is_loaded_with_its_scale(by_text: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    base = given(by_text, prompt_column="prompt")
    train = {"train_rank": 2, "train_steps": 3, "train_learning_rate": 0.1}
    model = fitted(illustrated(), base | train)
    from safegen.backends.diffusion.lora import adapter_weights

    StableDiffusionPipeline.save_lora_weights(tmp_path, adapter_weights(model.pipe))
    (adapter,) = tmp_path.glob("*.safetensors")
    rows = {
        scale: fitted(illustrated(), base | {"lora": str(adapter), "lora_scale": scale}).sample(
            2, seed=1, block=0
        )["table"]
        for scale in (0.0, 1.0)
    }
    plain = fitted(illustrated(), base).sample(2, seed=1, block=0)["table"]
    assert rows[0.0].equals(plain)
    assert not rows[1.0].equals(plain)


def test_options_that_contradict_each_other_are_refused() -> None:
    for more, message in (
        ({"train_rank": 2}, "needs prompt_column"),
        ({"negative_prompt": "blur"}, "needs prompt_column"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"train_steps": 7}, "train_steps does nothing without train_rank"),
        ({"lora_scale": 0.5}, "lora_scale does nothing without lora"),
        ({"dtype": "bfloat16"}, "needs prompt_column"),
        ({"variant": "../x"}, "should match pattern"),
        ({"dtype": "float16", "train_rank": 2, "prompt_column": "p"}, "say dtype bfloat16"),
    ):
        with pytest.raises(UsageError, match=message):
            safegen.Generator("diffusion.pipeline", options={"folder": "x", **more})
