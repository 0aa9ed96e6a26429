"""The backend keeps safegen's contract: one test for each check of the battery."""

import pytest
from safegen_marginals import Marginals

from safegen.testing import Check, backend_checks


@pytest.mark.parametrize("check", backend_checks(Marginals()))
def test_conforms(check: Check) -> None:
    check()
