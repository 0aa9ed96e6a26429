"""Conformance batteries for backends and safeguards, data to test with, and a small backend.

    from safegen.testing import backend_checks

    @pytest.mark.parametrize("check", backend_checks(MyBackend()))
    def test_mine_conforms(check) -> None:
        check()

`check_backend(MyBackend())` makes all checks in one call.
"""

from __future__ import annotations

from safegen.testing.battery import Check, backend_checks, check_backend
from safegen.testing.examples import (
    Example,
    example_images,
    example_sequences,
    example_table,
    example_tables,
    example_traps,
)
from safegen.testing.rows import Rows
from safegen.testing.safeguards import check_safeguard

__all__ = [
    "Check",
    "Example",
    "Rows",
    "backend_checks",
    "check_backend",
    "check_safeguard",
    "example_images",
    "example_sequences",
    "example_table",
    "example_tables",
    "example_traps",
]
