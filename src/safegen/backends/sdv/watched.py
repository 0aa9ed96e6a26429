"""SDV's synthesizers with networks, watched: they train our subclasses of the ctgan package's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sdv.metadata import Metadata
from sdv.single_table import CopulaGANSynthesizer, CTGANSynthesizer, TVAESynthesizer

from safegen.backends.ctgan.fitting import Taught
from safegen.backends.ctgan.training import WatchedCTGAN, WatchedTVAE
from safegen.backends.sdv.marginals import Quantiles

if TYPE_CHECKING:
    from safegen.backends.ctgan.fitting import Lesson

__all__ = ["TVAE", "CTGAN", "CopulaGAN", "taught"]


class _Watched:
    """SDV assigns the network that it is about to train to `_model`: ours takes its place."""

    network: type[WatchedCTGAN] | type[WatchedTVAE]
    lesson: Lesson
    _model_kwargs: dict[str, Any]
    _trained: Any = None

    @property
    def _model(self) -> Any:
        return self._trained

    @_model.setter
    def _model(self, theirs: object) -> None:
        self._trained = self.network(self.lesson.watch, **self._model_kwargs)

    @property
    def marginals(self) -> Mapping[str, Quantiles]:
        """The distributions that numbers were made normal with."""
        return {}


class CTGAN(_Watched, CTGANSynthesizer):  # type: ignore[misc]
    """SDV's CTGANSynthesizer."""

    network = WatchedCTGAN


class TVAE(_Watched, TVAESynthesizer):  # type: ignore[misc]
    """SDV's TVAESynthesizer."""

    network = WatchedTVAE


class CopulaGAN(_Watched, CopulaGANSynthesizer):  # type: ignore[misc]
    """SDV's CopulaGANSynthesizer."""

    network = WatchedCTGAN

    @property
    def marginals(self) -> Mapping[str, Quantiles]:
        transformers = self._gaussian_normalizer_hyper_transformer.field_transformers
        return {n: Quantiles.of(transformers[n]._univariate) for n in self.lesson.columns}


def taught(synthesizer: type[Any], lesson: Lesson, options: Mapping[str, Any]) -> Taught:
    """What a synthesizer learns of a lesson."""
    kinds = {n: "numerical" if n in lesson.columns else "categorical" for n in lesson.frame.columns}
    metadata = Metadata.load_from_dict(
        {
            "METADATA_SPEC_VERSION": "V1",
            "tables": {"t": {"columns": {n: {"sdtype": kind} for n, kind in kinds.items()}}},
            "relationships": [],
        }
    )
    # The codec has bounded and rounded; the frame is plain: nothing to validate or transform.
    pupil = synthesizer(metadata, enforce_min_max_values=False, enforce_rounding=False, **options)
    pupil.lesson = lesson
    pupil.fit_processed_data({"t": lesson.frame})
    return Taught(pupil._model, pupil.marginals)
