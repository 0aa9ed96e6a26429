"""Every backend that ships passes the battery: small here, whole under `slow`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from pydantic import ValidationError

from safegen import plugins
from safegen.contracts import Backend
from safegen.errors import PluginError
from safegen.testing import Rows, backend_checks, check_backend


class Conformance(NamedTuple):
    """How a backend is run: options that train briefly, and what such a model can keep."""

    options: dict[str, Any]
    tolerance: float | None = None  # a network trained for one epoch keeps no shares
    diverging: dict[str, Any] | None = None
    at_size: dict[str, Any] | None = None  # what else where there are a million rows


SMALL, LARGE = {"epochs": 1, "batch_size": 100}, {"batch_size": 5_000}
GAN = Conformance(SMALL, diverging={"discriminator_lr": 1e30}, at_size=LARGE)
VAE = Conformance(SMALL, diverging={"loss_factor": 1e38}, at_size=LARGE)

SHIPPED = {
    "sdv.gaussian_copula": Conformance({}, tolerance=0.15),
    "sdv.hma": Conformance({}, tolerance=0.15),
    "sdv.par": Conformance({"epochs": 1}),
    "sdv.ctgan": GAN,
    "sdv.tvae": VAE,
    "sdv.copula_gan": GAN,
    "ctgan": GAN,
    "ctgan.tvae": VAE,
    "diffusion.tabular": Conformance(
        {"steps": 10, "width": 16, "layers": 1, "sampling_steps": 2},
        diverging={"learning_rate": 1e30},
    ),
    "diffusion.image": Conformance(
        {"steps": 8, "batch_size": 16, "channels": (8, 16), "sampler_steps": 2},
        diverging={"learning_rate": 1e30},
    ),
}

OTHERWISE = {
    "sdv.adopted": "is fitted by SDV, not by safegen",
    "diffusion.pipeline": "needs a pipeline in a local folder: see its own tests",
}


def _checks(whole: bool) -> list[Any]:
    found: list[Any] = []
    for name, how in SHIPPED.items():
        try:
            backend: Backend = plugins.load(plugins.BACKENDS, name)()
            checks = backend_checks(
                backend,
                options=how.options | (how.at_size or {} if whole else {}),
                whole=whole,
                tolerance=how.tolerance,
                diverging=how.diverging,
            )
        except (PluginError, ValidationError) as error:  # the tests of the others still run
            found.append(pytest.param(_raising(error), id=name))
            continue
        found += [
            pytest.param(check, id=f"{name}-{check.name}")
            for check in checks
            if check.registered.whole == whole
        ]
    return found


def _raising(error: Exception) -> Callable[[], None]:
    def check() -> None:
        raise error

    return check


def test_every_shipped_backend_is_held_to_the_battery() -> None:
    assert set(plugins.names(plugins.BACKENDS)) == set(SHIPPED) | set(OTHERWISE)


@pytest.mark.parametrize("check", _checks(whole=False))
def test_shipped_backends_conform(check: Callable[[], None]) -> None:
    check()


@pytest.mark.slow
@pytest.mark.parametrize("check", _checks(whole=True))
def test_shipped_backends_conform_at_size(check: Callable[[], None]) -> None:
    check()


def test_the_test_backend_conforms_but_for_what_it_is() -> None:
    pytest.importorskip("PIL")
    copies = "it hands real rows back"
    check_backend(
        Rows(),
        expected_failures={
            "images.images": copies,
            "table.ids": copies,
            "table.keeps_no_ids": copies,
        },
    )
