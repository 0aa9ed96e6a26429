"""The battery: every check that a backend's kinds and declarations call for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from safegen.contracts import Backend, Kind
from safegen.errors import upstream
from safegen.testing import keeping, large, sampling, structure, training, traps
from safegen.testing.examples import (
    Example,
    example_images,
    example_sequences,
    example_tables,
    example_traps,
)
from safegen.testing.subject import CHECKS, Registered, Subject

__all__ = ["Check", "backend_checks", "check_backend"]

assert all((keeping, large, sampling, structure, training, traps))  # imported for their checks

TOLERANCE = 0.15
"""Of shares and distances. Chance alone moves a share of 400 rows by .05; a trap moves it by .5."""

_EXAMPLES: dict[Kind, Callable[[], Example]] = {
    "table": example_traps,
    "tables": example_tables,
    "sequences": example_sequences,
    "images": example_images,
}


@dataclass(frozen=True)
class Check:
    """One check of one backend: call it. Raises: AssertionError that names backend and check."""

    name: str
    registered: Registered
    subject: Subject
    expected: str | None = None  # why it is known to fail

    @property
    def __name__(self) -> str:
        """What pytest calls it."""
        return self.name

    def __call__(self) -> None:
        problem: str | None = None
        cause: Exception | None = None
        try:
            self.registered.run(self.subject)
        except AssertionError as error:
            problem, cause = str(error), error
        except Exception as error:
            text = str(error) or upstream(error)
            problem, cause = f"it raises {type(error).__name__}: {text}", error
        whose = f"{self.subject.backend.name}, check {self.name}"
        if self.expected is not None:
            if problem is None:
                raise AssertionError(
                    f"{whose}: passes, and is listed as failing ({self.expected}): take it off"
                )
            return
        if problem is not None:
            raise AssertionError(f"{whose}: {problem}") from cause


def backend_checks(
    backend: Backend,
    data: pa.Table | Example | Iterable[Example] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    whole: bool = False,
    tolerance: float | None = TOLERANCE,
    diverging: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> list[Check]:
    """The checks that `check_backend` makes, with its arguments, to be called one by one:

        @pytest.mark.parametrize("check", backend_checks(MyBackend()))
        def test_conforms(check: Check) -> None:
            check()

    Nothing is fitted before the first is called, and those of one kind share what is fitted.
    Where a backend takes several kinds, a check's name begins with its kind: `tables.repeats`.
    """
    assert isinstance(backend, Backend), "does not offer the members of contracts.Backend"
    assert backend.kinds, "declares no kinds"
    excused = dict(expected_failures or {})
    found = []
    examples = _examples(backend, data)
    for example in examples:
        chosen = backend.Options.model_validate(dict(options or {}))
        subject = Subject(backend, example, chosen, tolerance, diverging)
        for check in CHECKS.values():
            if example.kind in check.kinds and (whole or not check.whole) and check.when(subject):
                name = f"{example.kind}.{check.name}" if len(examples) > 1 else check.name
                found.append(Check(name, check, subject, excused.pop(name, None)))
    assert not excused, f"no such checks here: {', '.join(excused)}"
    return found


def check_backend(
    backend: Backend,
    data: pa.Table | Example | Iterable[Example] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    whole: bool = False,
    tolerance: float | None = TOLERANCE,
    diverging: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> None:
    """Whether a backend keeps the contract: returns when every check passes.

    data: what to fit; left out, the battery's own example of each kind that the backend declares.
    options: the backend's, small ones, as the battery fits five times; paths in them absolute,
    as it changes the working folder meanwhile. whole: also 500 columns, a million rows and a
    column of 50,000 levels, which takes minutes and more. tolerance: the largest distance of
    shares and distributions from the source's; None where the options train too briefly to keep
    any. diverging: options that make the loss NaN, `{"learning_rate": 1e30}` for instance; they
    are not validated, because good bounds would not let them through.
    expected_failures: known faults, each with its reason; one that passes is a failure as well.

    Two processes are compared with one only when the backend is registered by an entry point.
    Raises: AssertionError with every check that fails.
    """
    problems = []
    for check in backend_checks(
        backend,
        data,
        options,
        whole=whole,
        tolerance=tolerance,
        diverging=diverging,
        expected_failures=expected_failures,
    ):
        try:
            check()
        except AssertionError as error:
            problems.append(error)
    if problems:
        raise AssertionError("\n".join(map(str, problems))) from problems[0].__cause__


def _examples(
    backend: Backend, data: pa.Table | Example | Iterable[Example] | None
) -> list[Example]:
    if data is None:
        return [_EXAMPLES[kind]() for kind in sorted(backend.kinds)]
    if isinstance(data, pa.Table):
        return [Example.of(data)]
    return [data] if isinstance(data, Example) else list(data)
