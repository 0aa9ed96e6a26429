"""CTGAN, TVAE and CopulaGAN, trained by SDV's synthesizers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from safegen.backends.ctgan.backend import NetworkBackend
from safegen.backends.ctgan.options import GANOptions, VAEOptions
from safegen.backends.sdv.distributions import Distribution, check_distributions, distributions_of
from safegen.contracts import BackendOptions

if TYPE_CHECKING:
    from safegen.backends.ctgan.fitting import Lesson, Taught
    from safegen.tables.schema import TableSchema

__all__ = ["CTGAN", "TVAE", "CopulaGAN", "CopulaGANOptions"]


class CopulaGANOptions(GANOptions):
    """CTGAN's, and the distributions that numbers are made normal with."""

    numerical_distributions: dict[str, Distribution] = Field(
        {},
        description="SDV's distribution for a numeric or date column, fitted to the whole column.",
    )
    default_distribution: Distribution = Field(
        "beta",
        description="The distribution of every other numeric or date column, without its point "
        "masses.",
    )


class _Synthesizer(NetworkBackend):
    """A backend whose library is SDV, which has the ctgan package train."""

    packages: ClassVar[tuple[str, ...]] = ("sdv", "ctgan", "rdt", "torch")

    def _require(self) -> None:
        from safegen.backends.sdv.library import require_sdv

        require_sdv()


class CTGAN(_Synthesizer):
    """SDV's CTGAN: the network of `ctgan`, by SDV's code."""

    name: ClassVar[str] = "sdv.ctgan"
    conditions: ClassVar[bool] = True
    Options: ClassVar[type[BackendOptions]] = GANOptions

    def _teach(self, lesson: Lesson, options: Any) -> Taught:
        from safegen.backends.sdv.watched import CTGAN, taught

        return taught(CTGAN, lesson, self._library_options(options, lesson))


class TVAE(_Synthesizer):
    """SDV's TVAE: the network of `ctgan.tvae`, by SDV's code."""

    name: ClassVar[str] = "sdv.tvae"
    conditions: ClassVar[bool] = False
    Options: ClassVar[type[BackendOptions]] = VAEOptions

    def _teach(self, lesson: Lesson, options: Any) -> Taught:
        from safegen.backends.sdv.watched import TVAE, taught

        return taught(TVAE, lesson, self._library_options(options, lesson))


class CopulaGAN(_Synthesizer):
    """CTGAN on numbers made normal by a distribution each: for smooth, skewed numbers."""

    name: ClassVar[str] = "sdv.copula_gan"
    packages: ClassVar[tuple[str, ...]] = ("sdv", "copulas", "ctgan", "rdt", "torch")
    conditions: ClassVar[bool] = True
    Options: ClassVar[type[BackendOptions]] = CopulaGANOptions

    def _whole(self, options: Any, schema: TableSchema, rows: int) -> frozenset[str]:
        chosen = options.numerical_distributions
        check_distributions(chosen, options.default_distribution, schema.kinds, rows, "beta")
        return frozenset(chosen)

    def _teach(self, lesson: Lesson, options: Any) -> Taught:
        from safegen.backends.sdv.watched import CopulaGAN, taught

        chosen = options.numerical_distributions
        by_column = distributions_of(lesson.columns.values(), chosen, options.default_distribution)
        given = self._library_options(options, lesson)
        given["numerical_distributions"] = {n: by_column[c] for n, c in lesson.columns.items()}
        return taught(CopulaGAN, lesson, given)
