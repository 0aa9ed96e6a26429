"""`diffusion.image`: a U-Net trained on your images, by class where they have labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from safegen.backends.networks import Device
from safegen.contracts import BackendOptions, Kind
from safegen.errors import SourceError, UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.backends.diffusion.image_model import ImageModel
    from safegen.tables.columns import LevelsColumn
    from safegen.tables.schema import TableSchema

__all__ = ["Image", "Options", "Sampler"]

Sampler = Literal["ddpm", "ddim", "dpm++"]

BLOCK = 256
MAX_CLASSES = 1_000


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class Options(BackendOptions):
    """The network, its training, and how images are drawn from it.

    The defaults learn scikit-learn's digits (8 × 8) in a few minutes of two cores; photographs
    need wider networks, more steps and a GPU.
    """

    resolution: int | None = Field(
        None,
        ge=4,
        le=1024,
        description="Scale and cut every image to this many pixels square. Default: as they are.",
    )
    channels: Annotated[tuple[int, ...], BeforeValidator(_tuple)] | None = Field(
        None,
        min_length=1,
        max_length=6,
        description="Width of the network at each resolution, halved from one to the next; "
        "multiples of 8. Default: by the images' size.",
    )
    layers: int = Field(1, ge=1, le=4, description="Residual blocks at each resolution.")
    attention: bool = Field(True, description="Self-attention in the middle of the network.")
    attention_levels: int = Field(
        0,
        ge=0,
        le=6,
        description="At how many resolutions, from the lowest up, the blocks attend too: for large "
        "images.",
    )
    attention_head_dim: int = Field(
        8, ge=1, le=1_024, description="Width of a head of attention; divides its channels."
    )
    activation: Literal["silu", "mish", "gelu", "relu"] = Field(
        "silu", description="The network's activation function."
    )
    time_scale_shift: bool = Field(
        False, description="Noise levels scale the features too, instead of only shifting them."
    )
    steps: int = Field(1_500, ge=1, le=10_000_000, description="Training steps, at most.")
    batch_size: int = Field(128, ge=1, le=65_536, description="Images per training step.")
    learning_rate: float = Field(2e-3, gt=0, le=1, description="AdamW's, decayed by a cosine.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="AdamW's.")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="In the residual blocks; against learning few images by heart."
    )
    ema: float = Field(0.995, ge=0, lt=1, description="Decay of the averaged weights, the model.")
    objective: Literal["epsilon", "v"] = Field(
        "v", description="What the network predicts: the noise, or velocity."
    )
    schedule: Literal["cosine", "linear"] = Field("cosine", description="How noise grows.")
    label_dropout: float = Field(
        0.1, ge=0, lt=1, description="Share of images trained without their label, for guidance."
    )
    guidance: float = Field(
        1.0, ge=1, le=20, description="Classifier-free guidance: 1 is none; more costs variety."
    )
    sampler: Sampler = Field("dpm++", description="diffusers' DDPM, DDIM or DPM-Solver++ (2M).")
    sampler_steps: int | None = Field(
        None, ge=2, le=1_000, description="Default: 1,000 for ddpm, 50 for ddim, 25 for dpm++."
    )
    held_out: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="Share of images on which the loss is watched; 0 trains on all, to the end.",
    )
    patience: int = Field(
        6, ge=1, le=100, description="Stop after so many checks, of twenty, without improvement."
    )
    compile: bool = Field(False, description="torch.compile the network on a GPU.")
    device: Device = Field("auto", description="auto: the GPU when there is one, in bfloat16.")

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.channels is not None and any(c < 8 or c % 8 for c in self.channels):
            raise ValueError("channels are multiples of 8, such as [32, 64]")
        if self.guidance > 1 and not self.label_dropout:
            raise ValueError("guidance needs label_dropout above 0, such as 0.1")
        # Not "in model_fields_set": options are written whole, and read back.
        usual = type(self).model_fields["attention_head_dim"].default
        if self.attention_head_dim != usual and not (self.attention or self.attention_levels):
            raise ValueError("attention_head_dim does nothing without attention: leave it out")
        if not self.held_out and self.patience != type(self).model_fields["patience"].default:
            raise ValueError("patience does nothing without held_out, such as 0.05: leave it out")
        return self


class Image:
    """Denoising diffusion (Ho et al. 2020) with a U-Net; conditions on the label are native."""

    name: ClassVar[str] = "diffusion.image"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"images"})
    license: ClassVar[str] = "Apache-2.0"
    packages: ClassVar[tuple[str, ...]] = ("diffusers", "torch", "pillow")
    weights: ClassVar[bool] = False
    conditions: ClassVar[bool] = True
    reproducible: ClassVar[bool] = True
    pickles: ClassVar[bool] = False
    block_rows: ClassVar[int] = BLOCK
    Options: ClassVar[type[BackendOptions]] = Options

    def fit(
        self,
        tables: Mapping[str, pa.Table],
        schemas: Mapping[str, TableSchema],
        options: BackendOptions,
        *,
        seed: int,
    ) -> ImageModel:
        """Train on one column of images and at most one of labels.

        On a CPU the same images, options and seed give the same model, byte for byte.

        Raises: SourceError (other columns; images of several sizes, or damaged), UsageError,
        BackendError (training diverged), MissingExtra.
        """
        from safegen.backends.diffusion.image_model import ImageModel, Picture, Sampling
        from safegen.backends.diffusion.image_table import ImageTable
        from safegen.backends.diffusion.image_training import trained
        from safegen.backends.networks import device_of, require
        from safegen.tables.images import decoded_images
        from safegen.tables.schema import check_table

        if not isinstance(options, Options):
            raise UsageError("the options are not those of diffusion.image")
        if len(tables) != 1:
            raise SourceError(f"diffusion.image takes one table, not {len(tables)}")
        ((name, table),) = tables.items()
        check_table(table, name)
        for package in ("torch", "diffusers", "safetensors", "PIL"):
            require(package, "diffusion")
        column, label = _columns(table, schemas[name])
        pixels, mode = decoded_images(column, table.column(column), options.resolution)
        channels = options.channels or _usual(pixels.shape[1:3])
        picture = Picture(mode, pixels.shape[1], pixels.shape[2])
        picture.check(column, channels)
        _check_attention(options, channels)
        layout, codes = ImageTable.of(name, table, column, label)
        classes = len(layout.shares)
        network = {
            "channels": list(channels),
            "layers": options.layers,
            "attention": options.attention,
            "attention_levels": options.attention_levels,
            "attention_head_dim": options.attention_head_dim,
            "activation": options.activation,
            "time_scale_shift": options.time_scale_shift,
            "dropout": options.dropout,
            "classes": classes if classes > 1 else 0,
        }
        device = device_of(options.device)
        sampling = Sampling.of(options, picture, device.type)
        net, curves = trained(pixels, codes, network, options, sampling, device, seed)
        return ImageModel(layout, picture, network, sampling, net, curves, device)

    def load(self, folder: Path) -> ImageModel:
        """Read what `ImageModel.save` wrote. Raises: BackendError."""
        from safegen.backends.diffusion.image_model import ImageModel
        from safegen.backends.networks import require

        for package in ("torch", "diffusers", "safetensors", "PIL"):
            require(package, "diffusion")
        return ImageModel.load(folder)


def _columns(table: pa.Table, schema: TableSchema) -> tuple[str, LevelsColumn | None]:
    """The name of the image column, and the codec of the label. Raises: SourceError."""
    from safegen.tables.columns import LevelsColumn
    from safegen.tables.numbers import single
    from safegen.tables.types import family

    images = [c.name for c in schema.columns if c.kind == "image"]
    rest = [c for c in schema.columns if c.kind != "image"]
    if len(images) != 1 or len(rest) > 1:
        raise SourceError(
            f"diffusion.image takes one column of images and at most one of labels, and here are "
            f"{len(images)} and {len(rest)} ({', '.join(c.name for c in rest)}): leave the others "
            "out"
        )
    if not rest:
        return images[0], None
    (column,) = rest
    type_ = table.schema.field(column.name).type
    if column.kind not in ("categorical", "boolean") and family(type_) != "int":
        raise SourceError(
            f"column {column.name!r} is {column.kind}, and labels are categorical: declare it so, "
            "or leave it out"
        )
    label = LevelsColumn.fit(column.name, single(table.column(column.name)))
    levels = len(label.levels)
    if levels > max(1, min(MAX_CLASSES, table.num_rows // 2)):
        raise SourceError(
            f"column {column.name!r} has {levels:,} labels for {table.num_rows:,} images: at most "
            f"{MAX_CLASSES:,}, of two images each on average, can be learned. Group them, or leave "
            "the column out"
        )
    return images[0], label


def _check_attention(options: Options, channels: Sequence[int]) -> None:
    """Raises: UsageError for levels that are not there, and heads that do not fill the channels."""
    if options.attention_levels > len(channels):
        raise UsageError(
            f"attention_levels is at most {len(channels)} here, as many as there are channels"
        )
    levels = max(options.attention_levels, int(options.attention))
    for width in channels[len(channels) - levels :]:
        if width % options.attention_head_dim:
            raise UsageError(
                f"attention_head_dim must divide the channels that attend, and {width} are no "
                f"multiple of {options.attention_head_dim}"
            )


def _usual(size: tuple[int, ...]) -> tuple[int, ...]:
    """Widths that fit the size: from 32 on small images, halved until some 8 pixels are left."""
    largest, least = max(size), min(size)
    widths: tuple[int, ...] = (
        (32, 64) if largest <= 16 else (64, 128, 128) if largest <= 64 else (64, 128, 256, 256)
    )
    while len(widths) > 1 and any(side % 2 ** (len(widths) - 1) for side in size):
        widths = widths[:-1]
    return widths if least >= 4 else widths[:1]
