"""Every backend that ships passes the battery: small here, whole under `slow`."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from safegen import plugins
from safegen.contracts import Backend
from safegen.testing import Check, Rows, backend_checks, check_backend


class Conformance(NamedTuple):
    """How a backend is run: options that train briefly, and what such a model can keep."""

    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    tolerance: float | None = None  # a network trained for one epoch keeps no shares
    diverging: dict[str, Any] | None = None


SHIPPED = {
    "sdv.gaussian_copula": Conformance(tolerance=0.15),
}


def _backend(name: str) -> Backend:
    backend: Backend = plugins.load(plugins.BACKENDS, name)()
    return backend


def _checks(whole: bool) -> list[Any]:
    found: list[Any] = []
    for name, how in SHIPPED.items():
        checks = backend_checks(
            _backend(name),
            options=how.options,
            whole=whole,
            tolerance=how.tolerance,
            diverging=how.diverging,
        )
        found += [
            pytest.param(check, id=f"{name}-{check.name}")
            for check in checks
            if check.registered.whole == whole
        ]
    return found


@pytest.mark.parametrize("check", _checks(whole=False))
def test_shipped_backends_conform(check: Check) -> None:
    check()


@pytest.mark.slow
@pytest.mark.parametrize("check", _checks(whole=True))
def test_shipped_backends_conform_at_size(check: Check) -> None:
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
