"""The options that every backend for tables has, and the codec that they make."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from safegen.contracts import BackendOptions
from safegen.tables.constraints import Constraint, ConstraintList

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.tables.codec import Codec
    from safegen.tables.schema import TableSchema

__all__ = ["TableOptions"]


class TableOptions(BackendOptions):
    """How values come back, and what holds in every row, by SDV's names."""

    enforce_min_max_values: bool = Field(
        True, description="Numbers and dates stay within the source's minimum and maximum."
    )
    enforce_rounding: bool = Field(
        True, description="Numbers have the source's decimals, or are multiples of its step."
    )
    locales: list[str] = Field(
        ["en_US"], description="Faker's locales, for columns declared personal.", min_length=1
    )
    constraints: ConstraintList = Field(
        [],
        description="SDV's constraints, which hold in every row: FixedCombinations, Inequality, "
        "Range, FixedIncrements, OneHotEncoding.",
    )

    def codec(
        self,
        table: pa.Table,
        schema: TableSchema,
        *,
        seed: int,
        smooth: Collection[str] = (),
        masses: bool = True,
        constraints: Sequence[Constraint] = (),
    ) -> Codec:
        """The codec of a table under these options; the arguments are those of `Codec.fit`.

        Raises: SourceError, UsageError, MissingExtra.
        """
        from safegen.tables.codec import Codec

        return Codec.fit(
            table,
            schema,
            seed=seed,
            rounding=self.enforce_rounding,
            clip=self.enforce_min_max_values,
            smooth=smooth,
            masses=masses,
            locales=self.locales,
            constraints=constraints,
        )
