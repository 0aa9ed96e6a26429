"""`diffusion.pipeline`: a pretrained diffusers pipeline in a local folder, behind the gates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import Field, model_validator

from safegen.backends.diffusion.image import BLOCK
from safegen.backends.networks import Device
from safegen.contracts import BackendOptions, Kind
from safegen.errors import SourceError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.backends.diffusion.pipeline_model import PipelineModel
    from safegen.tables.columns import LevelsColumn
    from safegen.tables.schema import TableSchema

__all__ = ["Options", "Pipeline", "Scheduler"]

PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "PIL")


Scheduler = Literal["ddim", "ddpm", "dpm++", "euler", "euler_a", "heun", "pndm", "unipc"]


class Options(BackendOptions):
    """Which pipeline, what it is told, and the LoRA adapter that is loaded or trained."""

    folder: str = Field(
        min_length=1,
        description="The pipeline's folder, as `save_pretrained` writes it: safetensors only.",
    )
    prompt_column: str | None = Field(
        None, description="The source's column of prompts; none for an unconditional pipeline."
    )
    negative_prompt: str | None = Field(None, description="What images are not to show.")
    steps: int | None = Field(
        None, ge=1, le=1_000, description="Denoising steps. Default: the pipeline's."
    )
    guidance_scale: float | None = Field(
        None, ge=0, le=100, description="How closely prompts are followed. Default: the pipeline's."
    )
    guidance_rescale: float | None = Field(
        None, ge=0, le=1, description="Against overexposure at a high guidance_scale."
    )
    scheduler: Scheduler | None = Field(
        None,
        description="diffusers' scheduler, with the settings of the pipeline's. Default: that one. "
        "Unconditional pipelines are written for their own.",
    )
    eta: float | None = Field(
        None, ge=0, le=1, description="Noise of the ddim scheduler: 0 is none, 1 is ddpm's."
    )
    height: int | None = Field(None, ge=8, le=8_192, description="Pixels. Default: the pipeline's.")
    width: int | None = Field(None, ge=8, le=8_192, description="Pixels. Default: the pipeline's.")
    batch_size: int = Field(4, ge=1, le=256, description="Images made at once.")
    lora: str | None = Field(None, description="A local LoRA adapter, a .safetensors file.")
    lora_scale: float = Field(1.0, ge=0, le=10, description="The weight of that adapter.")
    train_rank: int | None = Field(
        None,
        ge=1,
        le=1_024,
        description="Train a LoRA adapter of this rank on the source's images and prompts.",
    )
    train_alpha: int = Field(8, ge=1, le=1_024, description="Its alpha: scale × rank.")
    train_steps: int = Field(500, ge=1, le=1_000_000, description="Its training steps.")
    train_batch_size: int = Field(4, ge=1, le=1_024, description="Images per training step.")
    train_learning_rate: float = Field(1e-4, gt=0, le=1, description="AdamW's, constant.")
    device: Device = Field("auto", description="auto: the GPU when there is one.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Of the weights. auto: bfloat16 for prompts on a GPU, else float32."
    )
    variant: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-]+$",
        description='Which of the folder\'s weights, such as "fp16" for model.fp16.safetensors.',
    )

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.train_rank is not None and self.prompt_column is None:
            raise ValueError("train_rank needs prompt_column: adapters learn images with prompts")
        for name in ("negative_prompt", "guidance_rescale", "scheduler"):
            if getattr(self, name) is not None and self.prompt_column is None:
                raise ValueError(f"{name} needs prompt_column")
        scale = self.guidance_scale
        if self.guidance_rescale is not None and scale is not None and scale <= 1:
            raise ValueError("guidance_rescale does nothing without a guidance_scale above 1")
        if self.dtype == "bfloat16" and self.prompt_column is None:
            raise ValueError(
                "dtype bfloat16 needs prompt_column: unconditional pipelines make numpy arrays, "
                "which have no bfloat16; say float16 or float32"
            )
        if self.dtype == "float16" and self.train_rank is not None:
            raise ValueError(
                "an adapter trained in float16 loses its small gradients: say dtype bfloat16"
            )
        fields = type(self).model_fields
        needed = {name: "train_rank" for name in fields if name.startswith("train_")}
        needed["lora_scale"] = "lora"
        for name, of in needed.items():
            # Not "in model_fields_set": options are written whole, and read back.
            if getattr(self, of) is None and getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} does nothing without {of}: say {of}, or leave it out")
        return self

    @property
    def packages(self) -> tuple[str, ...]:
        """What must be installed: peft for adapters only."""
        return (*PACKAGES, "peft") if self.lora or self.train_rank else PACKAGES


class Pipeline:
    """Images by a pretrained pipeline. What it was trained on nobody here knows: its releases have
    unverified ancestry, and say so."""

    name: ClassVar[str] = "diffusion.pipeline"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"images"})
    license: ClassVar[str] = "Apache-2.0"
    packages: ClassVar[tuple[str, ...]] = ("diffusers", "torch", "transformers", "peft", "pillow")
    weights: ClassVar[bool] = False
    conditions: ClassVar[bool] = True
    reproducible: ClassVar[bool] = True
    # A saved model names the pipeline's folder, and opening what a stranger's word points to is
    # like running it: only a model that the ledger knows is followed.
    pickles: ClassVar[bool] = True
    block_rows: ClassVar[int] = BLOCK
    adds_images: ClassVar[bool] = True  # a table of prompts gets an empty column to be filled
    doubts: ClassVar[tuple[str, ...]] = ("the pipeline's own training data is unknown",)
    Options: ClassVar[type[BackendOptions]] = Options

    def fit(
        self,
        tables: Mapping[str, pa.Table],
        schemas: Mapping[str, TableSchema],
        options: BackendOptions,
        *,
        seed: int,
    ) -> PipelineModel:
        """Load the pipeline, and train its adapter where `train_rank` asks for one.

        Raises: SourceError (columns besides images and prompts), UsageError (a folder that is no
        pipeline, holds pickles or code, or takes other arguments), BackendError, MissingExtra.
        """
        from safegen.backends.diffusion.image_table import ImageTable
        from safegen.backends.diffusion.pipeline_model import PipelineModel
        from safegen.backends.networks import require
        from safegen.tables.schema import check_table

        if not isinstance(options, Options):
            raise UsageError("the options are not those of diffusion.pipeline")
        if len(tables) != 1:
            raise SourceError(f"diffusion.pipeline takes one table, not {len(tables)}")
        ((name, table),) = tables.items()
        check_table(table, name)
        for package in options.packages:
            require(package, "diffusion")
        image, prompts = _columns(table, schemas[name], options.prompt_column)
        layout, _ = ImageTable.of(name, table, image, prompts)
        model = PipelineModel.opened(layout, options, self.identity(options))
        if options.train_rank is not None:
            model.train(table, seed)
        return model

    def identity(self, options: BackendOptions) -> dict[str, str]:
        """The digests of the pipeline's files and of the adapter's. Raises: UsageError."""
        from safegen.backends.diffusion.pipeline_files import digests_of

        assert isinstance(options, Options)
        return digests_of(options.folder, options.lora)

    def load(self, folder: Path) -> PipelineModel:
        """Read what `PipelineModel.save` wrote, and the pipeline from its own folder.

        Raises: BackendError, also when the pipeline is not what it was.
        """
        from safegen.backends.diffusion.pipeline_model import PipelineModel
        from safegen.backends.networks import require

        for package in PACKAGES:
            require(package, "diffusion")
        return PipelineModel.load(folder)


def _columns(
    table: pa.Table, schema: TableSchema, prompt: str | None
) -> tuple[str, LevelsColumn | None]:
    """The image column's name, and the codec of the prompts. Raises: SourceError, UsageError."""
    from safegen.tables.columns import LevelsColumn
    from safegen.tables.numbers import single

    images = [c.name for c in schema.columns if c.kind == "image"]
    rest = [c.name for c in schema.columns if c.kind != "image" and c.name != prompt]
    if len(images) != 1 or rest:
        raise SourceError(
            "diffusion.pipeline takes a column of images and the prompt_column, and nothing else: "
            f"here are {len(images)} and, besides, {len(rest)} ({', '.join(rest)})"
        )
    if prompt is None:
        return images[0], None
    column = schema.column(prompt)
    if column.kind != "categorical":
        raise UsageError(
            f"column {prompt!r} is {column.kind} ({column.note or 'declared'}), and prompts come "
            "back as they are: say so by declaring it categorical"
        )
    values = single(table.column(prompt))
    if values.null_count:
        raise SourceError(f"column {prompt!r}: {values.null_count:,} prompts are missing")
    return images[0], LevelsColumn.fit(prompt, values)
