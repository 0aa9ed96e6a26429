"""CTGAN, from the ctgan package itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from safegen.backends.ctgan.backend import NetworkBackend
from safegen.backends.ctgan.options import GANOptions
from safegen.contracts import BackendOptions

if TYPE_CHECKING:
    from safegen.backends.ctgan.fitting import Lesson, Taught

__all__ = ["CTGAN"]


class CTGAN(NetworkBackend):
    """A conditional GAN: hundreds of epochs to train, native conditions on one column."""

    name: ClassVar[str] = "ctgan"
    conditions: ClassVar[bool] = True
    Options: ClassVar[type[BackendOptions]] = GANOptions

    def _teach(self, lesson: Lesson, options: Any) -> Taught:
        from safegen.backends.ctgan.fitting import Taught
        from safegen.backends.ctgan.training import WatchedCTGAN

        model = WatchedCTGAN(lesson.watch, **self._library_options(options, lesson))
        model.fit(lesson.frame, lesson.discrete)
        return Taught(model)
