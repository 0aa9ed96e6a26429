"""The battery itself: what it says, what it excuses, what it costs."""

from __future__ import annotations

from typing import Any

import pytest
from broken import (
    broken,
    failing,
    new_level,
    on,
    short,
    sound,
)

from safegen.testing import (
    backend_checks,
    check_backend,
    example_table,
    large,
)


def test_a_known_fault_is_excused_and_a_mended_one_is_not() -> None:
    excused = {"exact_rows": "gives 16 of 17"}
    table = example_table(100)
    check_backend(broken({"sample": short}), table, expected_failures=excused)
    with pytest.raises(AssertionError, match=r"exact_rows: passes, .*gives 16 of 17.*take it off"):
        check_backend(sound.Marginals(), table, expected_failures=excused)
    with pytest.raises(AssertionError, match="no such checks here: exactrows"):
        check_backend(sound.Marginals(), table, expected_failures={"exactrows": ""})


def test_every_failing_check_is_named_at_once() -> None:
    backend = broken({"sample": on("job", new_level)}, license="")
    with pytest.raises(AssertionError, match=r"(?s)check declares: .*check levels: "):
        check_backend(backend, example_table(200))


def test_what_is_no_backend_is_said() -> None:
    with pytest.raises(AssertionError, match=r"contracts\.Backend"):
        check_backend(object())  # type: ignore[arg-type]


def test_a_fit_that_fails_is_tried_once() -> None:
    fits = 0

    def fails(plain: Any, tables: Any, *_: Any) -> Any:
        nonlocal fits
        fits += len(tables["table"]) == 77
        raise ValueError("no")

    found = failing(broken({"fit": fails}), example_table(77))
    assert {"saves", "repeats", "prefix"} <= found
    assert fits <= 2


def test_checks_are_collected_without_a_fit() -> None:
    def fails(*_: Any) -> Any:
        raise AssertionError("fitted")

    checks = backend_checks(broken({"fit": fails}), whole=True)
    assert {"many_columns", "many_rows", "many_levels"} <= {c.name for c in checks}
    assert all(c.__name__ == c.name and c.registered.run.__doc__ for c in checks)


@pytest.mark.slow
def test_memory_beyond_the_limit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = backend_checks(sound.Marginals(), example_table(50), whole=True)
    [check] = [c for c in checks if c.name == "many_levels"]
    check()
    monkeypatch.setattr(large, "LIMIT", 1 << 20)
    with pytest.raises(AssertionError, match="GB"):
        check()
