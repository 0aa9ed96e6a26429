"""A pipeline at work: prompts drawn by their shares, images made, an adapter trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from safegen.backends.arrays import read_curves, read_document
from safegen.backends.diffusion.image_table import ImageTable
from safegen.backends.diffusion.pipeline import Options
from safegen.backends.diffusion.pipeline_files import (
    arguments,
    check_noise,
    digests_of,
    offline,
    opened_pipeline,
    reschedule,
)
from safegen.backends.networks import (
    device_of,
    load_tensors,
    require,
    save_tensors,
    seeded,
    torch_seed,
)
from safegen.backends.undisturbed import failing, undisturbed
from safegen.errors import BackendError, UsageError, reading
from safegen.tables.images import decoded_images

if TYPE_CHECKING:
    from safegen.contracts import Scalar

__all__ = ["PipelineModel"]

FORMAT = "safegen.pipeline/1"


class PipelineModel:
    """An opened pipeline. On a CPU block i is a pure function of (pipeline, adapters, seed, i)."""

    def __init__(
        self,
        table: ImageTable,
        options: Options,
        digests: Mapping[str, str],
        pipe: Any,
    ):
        self.table, self.options = table, options
        self.digests, self.pipe = dict(digests), pipe
        self.curves: dict[str, list[float]] = {}
        self.device = device_of(options.device)
        self.arguments = arguments(
            pipe,
            {
                "num_inference_steps": options.steps,
                "guidance_scale": options.guidance_scale,
                "guidance_rescale": options.guidance_rescale,
                "negative_prompt": options.negative_prompt,
                "eta": options.eta,
                "height": options.height,
                "width": options.width,
            },
            table.levels is not None,
        )

    @classmethod
    def opened(
        cls, table: ImageTable, options: Options, digests: Mapping[str, str]
    ) -> PipelineModel:
        """With the pipeline and the adapter opened from their files, whose digests are given.

        Raises: UsageError, BackendError (also when the files are others than the digests say).
        """
        import torch

        with undisturbed():
            dtype = options.dtype
            if dtype == "auto":
                fast = table.levels is not None and device_of(options.device).type == "cuda"
                dtype = "bfloat16" if fast else "float32"
            pipe = opened_pipeline(
                Path(options.folder), torch_dtype=getattr(torch, dtype), variant=options.variant
            )
            if options.scheduler is not None:
                reschedule(pipe, options.scheduler)
            if options.eta is not None:
                check_noise(pipe)
            model = cls(table, options, digests, pipe)
            pipe.to(model.device)
            if options.lora is not None:
                place = Path(options.lora).absolute()
                if not hasattr(pipe, "load_lora_weights"):
                    raise UsageError(f"lora: {type(pipe).__name__} takes no adapters")
                with failing("loading the LoRA adapter", "diffusers"), offline():
                    pipe.load_lora_weights(
                        str(place.parent),
                        weight_name=place.name,
                        adapter_name="given",
                        local_files_only=True,
                        use_safetensors=True,
                    )
                    pipe.set_adapters(["given"], [options.lora_scale])
        if digests_of(options.folder, options.lora) != dict(digests):
            raise BackendError(f"{options.folder}: changed while it was opened: try again")
        return model

    @property
    def reproducible(self) -> bool:
        """A GPU's sums depend on its kind and its library."""
        return self.device.type == "cpu"

    @property
    def alone(self) -> bool:
        """Each process would hold the whole pipeline, gigabytes."""
        return True

    @property
    def doubts(self) -> tuple[str, ...]:
        """What alone is known of the pipeline; `Pipeline.doubts` says what that means."""
        return (f"the pipeline is known by its files only: {self.digests['folder']}",)

    # ---- sampling --------------------------------------------------------------------------------

    def sample(
        self, rows: int, *, seed: int, block: int, conditions: Mapping[str, Scalar] | None = None
    ) -> dict[str, pa.Table]:
        """`rows` images of a block with their prompts: drawn as often as they stand in the source,
        or fixed by a condition. Raises: UsageError for a condition on anything but the prompt."""
        prompts = self.table.levels
        codes = self.table.drawn(rows, seed, block, conditions, "diffusion.pipeline")
        texts = [] if prompts is None else prompts.levels.take(pa.array(codes)).to_pylist()
        size = self.options.batch_size
        batches = []
        with undisturbed(), failing("making images", "diffusers"):
            for start in range(0, max(rows, 1), size):
                # The last batch of a block is full too: bits depend on a batch's size.
                some = (texts[start : start + size] + texts[:size])[:size]
                batches.append(self._batch(some, [seed, block, start]))
        return self.table.rows(batches, codes, rows, seed, block)

    def _batch(self, texts: list[str], entropy: list[int]) -> np.ndarray:
        """uint8 (batch, height, width, channels)."""
        import torch

        more: dict[str, Any] = dict(self.arguments)
        if self.table.levels is None:
            more["batch_size"] = self.options.batch_size
        else:
            more["prompt"] = texts
            if "negative_prompt" in more:
                more["negative_prompt"] = [more["negative_prompt"]] * len(texts)
        noise = torch.Generator().manual_seed(torch_seed(*entropy))
        with seeded(torch_seed(*entropy, 1), self.device), torch.no_grad(), offline():
            output = self.pipe(generator=noise, output_type="np", **more)
        made = np.asarray(output.images)
        blanked = sum(getattr(output, "nsfw_content_detected", None) or ())
        if blanked:
            raise BackendError(
                f"{blanked:,} of {len(made):,} images were blanked by the pipeline's safety "
                "checker, and black rows are no data: change the prompts or the seed, or set "
                "negative_prompt"
            )
        made = made[..., None] if made.ndim == 3 else made
        if not np.isfinite(made).all():
            raise BackendError("the pipeline made numbers that are not finite")
        pixels: np.ndarray = np.rint(np.clip(made, 0, 1) * 255).astype(np.uint8)
        return pixels

    # ---- the adapter -----------------------------------------------------------------------------

    def train(self, table: pa.Table, seed: int) -> None:
        """Train a LoRA adapter (Hu et al. 2022) on the attention of the pipeline's U-Net."""
        from safegen.backends.diffusion.lora import size_of, train_adapter

        assert self.table.levels is not None
        size = size_of(self.pipe, self.options)
        pixels, _ = decoded_images(self.table.image, table.column(self.table.image), size)
        texts = table.column(self.table.levels.name).to_pylist()
        self.curves = {
            "loss": train_adapter(self.pipe, pixels, texts, self.options, self.device, seed)
        }

    # ---- on disk ---------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """`model.json`, and `adapter.safetensors` when one was trained. Prompts are in it; the
        pipeline stays where it is, known by its digest."""
        from safegen.backends.diffusion.lora import adapter_weights

        document = {
            "format": FORMAT,
            "table": self.table.to_json(),
            "options": {
                **self.options.model_dump(mode="json"),
                "folder": str(Path(self.options.folder).absolute()),
                "lora": self.options.lora and str(Path(self.options.lora).absolute()),
            },
            "digests": self.digests,
            "curves": self.curves,
        }
        text = json.dumps(document, sort_keys=True, indent=1)
        (folder / "model.json").write_text(text, encoding="utf-8")
        if self.options.train_rank is not None:
            save_tensors(folder / "adapter.safetensors", adapter_weights(self.pipe))

    @classmethod
    def load(cls, folder: Path) -> PipelineModel:
        """Read what `save` wrote. Raises: BackendError."""
        from safegen.backends.diffusion.lora import put_adapter

        with reading():
            document = read_document(folder / "model.json", FORMAT)
            table = ImageTable.from_json(document["table"])
            options = Options.model_validate(document["options"])
            digests, curves = dict(document["digests"]), read_curves(document["curves"])
            if digests.keys() - {"folder", "lora"}:
                raise ValueError
        for package in options.packages:
            require(package, "diffusion")
        try:
            now = digests_of(options.folder, options.lora)
            for what in now.keys() | digests.keys():
                if now.get(what) != digests.get(what):
                    raise BackendError(f"{what}: changed since the model was fitted: fit it again")
            model = cls.opened(table, options, digests)
        except UsageError as error:
            raise BackendError(str(error)) from None
        model.curves = curves
        if options.train_rank is not None:
            put_adapter(model.pipe, options, load_tensors(folder / "adapter.safetensors"))
        return model
