"""Diffusion for mixed-type tables: the most faithful backend for one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from safegen.backends.networks import Device
from safegen.backends.options import TableOptions
from safegen.contracts import BackendOptions, Kind
from safegen.errors import SourceError, UsageError
from safegen.tables.constraints import by_table

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.backends.diffusion.table_model import TableModel
    from safegen.tables.schema import TableSchema

__all__ = ["Options", "Tabular"]

PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"steps": 1_000, "width": 192, "layers": 3, "sampling_steps": 12},
    "default": {"steps": 6_000, "width": 256, "layers": 4, "sampling_steps": 16},
    "quality": {"steps": 16_000, "width": 512, "layers": 4, "sampling_steps": 32},
}


class Options(TableOptions):
    """How a network is trained, and how diffusers' sampler draws from it.

    `preset` gives the defaults of steps, width, layers and sampling_steps; each can be set alone.
    The defaults shown here are those of the preset `default`.
    """

    preset: Literal["fast", "default", "quality"] = Field(
        "default",
        description="How long to train. On 32,561 rows of 15 columns and two cores: fast about a "
        "minute, default five to ten, quality about an hour.",
    )
    steps: int = Field(6_000, description="Training steps at most.", ge=1, le=10_000_000)
    width: int = Field(256, description="Units of each layer.", ge=8, le=8_192)
    layers: int = Field(4, description="Residual layers.", ge=1, le=64)
    sampling_steps: int = Field(16, description="Steps of the sampler.", ge=2, le=1_000)
    batch_size: int = Field(1_024, description="Rows of a training step.", ge=1, le=1_048_576)
    learning_rate: float = Field(
        1e-3,
        description="AdamW's highest; it rises for 100 steps and falls as a cosine.",
        gt=0,
        le=1,
    )
    weight_decay: float = Field(0.01, description="AdamW's.", ge=0, le=1)
    dropout: float = Field(0.0, description="Share of units left out in training.", ge=0, le=0.9)
    ema: float = Field(
        0.998, description="Decay of the moving average of the weights, which is kept.", ge=0, lt=1
    )
    validation: float = Field(
        0.05,
        description="Share of the rows held out to stop early, 50 rows at least (or a quarter of "
        "them) and 4,096 at most; 0: none, trains to the end.",
        ge=0,
        le=0.5,
    )
    validate_every: int = Field(
        250,
        description="Steps between two validations, and between two points of the loss curve.",
        ge=1,
    )
    patience: int = Field(
        8, description="Validations without a lower loss before training stops.", ge=1
    )
    sampler: Literal["dpm++", "dpm++_sde", "euler"] = Field(
        "dpm++",
        description="diffusers' EDMDPMSolverMultistepScheduler (or its SDE form), or "
        "EDMEulerScheduler.",
    )
    sigma_min: float = Field(0.02, description="Lowest noise of the sampler.", gt=0, le=1)
    sigma_max: float = Field(10.0, description="Highest noise of the sampler.", gt=1, le=1_000)
    rho: float = Field(5.0, description="Karras's exponent of the noise levels.", ge=1, le=20)
    device: Device = Field(
        "auto", description="Where to train: auto takes the GPU if there is one."
    )
    threads: int = Field(
        1,
        description="Threads of training on a CPU; the model depends on them. A second one saves a "
        "fifth of the time on two quiet cores, and costs much more on busy ones.",
        ge=1,
        le=256,
    )

    @model_validator(mode="after")
    def _stops(self) -> Self:
        # Not `model_fields_set`: options that were written down whole must come back.
        if not self.validation and self.patience != type(self).model_fields["patience"].default:
            raise ValueError(
                "patience has no effect with validation=0, which trains to the end: leave it out, "
                "or hold rows out"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _preset_first(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        preset = given.get("preset", "default")
        return {**(PRESETS.get(preset, {}) if isinstance(preset, str) else {}), **given}


class Tabular:
    """Gaussian diffusion of numbers and levels together: minutes to fit, any condition native."""

    name: ClassVar[str] = "diffusion.tabular"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"table"})
    license: ClassVar[str] = "Apache-2.0"
    packages: ClassVar[tuple[str, ...]] = ("diffusers", "torch")
    weights: ClassVar[bool] = False
    conditions: ClassVar[bool] = True
    reproducible: ClassVar[bool] = True
    pickles: ClassVar[bool] = False
    block_rows: ClassVar[int] = 8_192
    Options: ClassVar[type[BackendOptions]] = Options

    def fit(
        self,
        tables: Mapping[str, pa.Table],
        schemas: Mapping[str, TableSchema],
        options: BackendOptions,
        *,
        seed: int,
    ) -> TableModel:
        """Fit one table. On a CPU the same table, options and seed give the same model.

        Raises: SourceError (not one table, or one that cannot be used), UsageError (options),
        BackendError (training diverged, or a library failed), MissingExtra.
        """
        from safegen.tables.schema import check_table

        if not isinstance(options, Options):
            raise UsageError("the options are not those of diffusion.tabular")
        if len(tables) != 1:
            raise SourceError(f"diffusion.tabular takes one table, not {len(tables)}")
        ((name, table),) = tables.items()
        schema = schemas[name]
        check_table(table, name)
        _require()
        held = by_table(options.constraints, tables)[name]
        codec = options.codec(table, schema, seed=seed, constraints=held)
        from safegen.backends.diffusion.table_training import fit

        return fit(name, codec, codec.encode(table, seed=seed), options, seed, self.block_rows)

    def load(self, folder: Path) -> TableModel:
        """Read what `TableModel.save` wrote: what was fitted on a CPU stays there, and repeats its
        rows; else onto the GPU when there is one. Raises: BackendError, MissingExtra."""
        _require()
        from safegen.backends.diffusion.table_model import TableModel

        return TableModel.load(folder)


def _require() -> None:
    """Raises: MissingExtra when a library is not installed."""
    from safegen.backends.networks import require

    for package in ("torch", "diffusers", "safetensors"):
        require(package, "diffusion")
