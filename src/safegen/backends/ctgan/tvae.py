"""TVAE, from the ctgan package itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from safegen.backends.ctgan.backend import NetworkBackend
from safegen.backends.ctgan.options import VAEOptions
from safegen.contracts import BackendOptions

if TYPE_CHECKING:
    from safegen.backends.ctgan.fitting import Lesson, Taught

__all__ = ["TVAE"]


class TVAE(NetworkBackend):
    """A variational autoencoder: quicker than CTGAN, and it drops rare levels when short trained.

    Its rows are the likeliest for a random vector, so what is seldom the likeliest is never made.
    """

    name: ClassVar[str] = "ctgan.tvae"
    conditions: ClassVar[bool] = False
    Options: ClassVar[type[BackendOptions]] = VAEOptions

    def _teach(self, lesson: Lesson, options: Any) -> Taught:
        from safegen.backends.ctgan.fitting import Taught
        from safegen.backends.ctgan.training import WatchedTVAE

        model = WatchedTVAE(lesson.watch, **self._library_options(options, lesson))
        model.fit(lesson.frame, lesson.discrete)
        return Taught(model)
