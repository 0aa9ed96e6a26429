"""What the five backends with a network of the ctgan package have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from safegen.backends.ctgan.options import NetworkOptions
from safegen.contracts import BackendOptions, Kind
from safegen.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.backends.ctgan.fitting import Lesson, Taught
    from safegen.backends.ctgan.model import NeuralModel
    from safegen.tables.schema import TableSchema

__all__ = ["BLOCK_ROWS", "LICENSE", "NetworkBackend"]

LICENSE = "BUSL-1.1"
BLOCK_ROWS = 16_384


class NetworkBackend:
    """A backend whose library trains a network on plain columns. A subclass has it taught."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"table"})
    license: ClassVar[str] = LICENSE
    packages: ClassVar[tuple[str, ...]] = ("ctgan", "rdt", "torch")
    weights: ClassVar[bool] = False
    reproducible: ClassVar[bool] = True
    pickles: ClassVar[bool] = False
    block_rows: ClassVar[int] = BLOCK_ROWS
    name: ClassVar[str]
    conditions: ClassVar[bool]
    Options: ClassVar[type[BackendOptions]]

    def fit(
        self,
        tables: Mapping[str, pa.Table],
        schemas: Mapping[str, TableSchema],
        options: BackendOptions,
        *,
        seed: int,
    ) -> NeuralModel:
        """Fit one table. The same table, options and seed give the same model on a CPU.

        Raises: SourceError (not one table, or one that cannot be used), UsageError (options),
        BackendError (training failed or diverged), MissingExtra.
        """
        if not isinstance(options, self.Options):
            raise UsageError(f"the options are not those of {self.name}")
        self._require()
        from safegen.backends.ctgan.fitting import fit_network

        return fit_network(self, tables, schemas, options, seed=seed)

    def load(self, folder: Path) -> NeuralModel:
        """Read what `NeuralModel.save` wrote. Raises: BackendError, MissingExtra."""
        self._require()
        from safegen.backends.ctgan.model import NeuralModel

        return NeuralModel.load(folder)

    def _require(self) -> None:
        """Raises: MissingExtra when the library is not installed."""
        from safegen.backends.networks import require

        require("ctgan", "ctgan")

    def _whole(self, options: Any, schema: TableSchema, rows: int) -> frozenset[str]:
        """The numeric columns that keep their point masses. Raises: UsageError."""
        return frozenset()

    def _teach(self, lesson: Lesson, options: Any) -> Taught:
        """Have the library learn the lesson."""
        raise NotImplementedError

    def _library_options(self, options: NetworkOptions, lesson: Lesson) -> dict[str, Any]:
        """The arguments of the library's class: its own options, not those that the codec meets."""
        return {**options.model_dump(exclude=set(NetworkOptions.OURS)), "enable_gpu": lesson.gpu}
