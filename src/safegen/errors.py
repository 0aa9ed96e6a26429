"""Every error that safegen raises on purpose, drawn as a tree.

* SafegenError                      exit code 1: a fault of the software, the backend or the machine
  + PolicyError, ManifestError      fix the file (every problem at once, with file and line)
  + SourceError                     fix the data (names the column and the count, never a value)
  + UsageError                      fix the call (an argument that cannot be meant)
  + PluginError                     fix the install
    - UnknownBackend
    - MissingExtra
  + LedgerError                     the ledger cannot be reached, read or written
  + TargetError                     the place that the rows should go to
  + BackendError                    look upstream (type and location; its text only with --debug)
  + Refused                         talk to governance: carries the Decision
    - AdmissionRefused
    - ReleaseRefused
  + VerificationError               do not use the data: carries every problem

A message says what happened, where, and what to do. It never holds a value taken from data:
exceptions of upstream libraries often quote values, so their text is kept out (`upstream`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from safegen.decision import Decision

__all__ = [
    "AdmissionRefused",
    "BackendError",
    "LedgerError",
    "ManifestError",
    "MissingExtra",
    "PluginError",
    "PolicyError",
    "Problem",
    "Refused",
    "ReleaseRefused",
    "SafegenError",
    "SafegenWarning",
    "SourceError",
    "TargetError",
    "UnknownBackend",
    "UsageError",
    "VerificationError",
    "WorkersLost",
    "reading",
    "upstream",
]


class SafegenError(Exception):
    """The root: catch this to catch all that safegen raises on purpose."""

    exit_code: ClassVar[int] = 1


class SafegenWarning(UserWarning):
    """What is probably not meant: it says what, and what to do."""


class Problem:
    """One thing wrong with a document: where (file, line) and what."""

    __slots__ = ("file", "line", "message")

    def __init__(self, message: str, file: str | Path | None = None, line: int | None = None):
        self.message = message
        self.file = str(file) if file is not None else None
        self.line = line

    def __str__(self) -> str:
        where = ":".join(str(p) for p in (self.file, self.line) if p is not None)
        return f"{where}: {self.message}" if where else self.message

    def __repr__(self) -> str:
        return f"Problem({str(self)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.message, self.file, self.line))


class _Problems(SafegenError):
    """An error that lists all problems of a document at once."""

    headline: ClassVar[str] = "problems"

    def __init__(self, problems: Sequence[Problem | str]):
        self.problems: tuple[Problem, ...] = tuple(
            p if isinstance(p, Problem) else Problem(p) for p in problems
        )
        super().__init__(self.problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return str(self.problems[0])
        lines = "\n".join(f"  - {p}" for p in self.problems)
        return f"{len(self.problems)} {self.headline}:\n{lines}"


class PolicyError(_Problems):
    """A policy file that cannot be used; `.problems` has every one with its file and line."""

    exit_code = 2
    headline = "problems in the policy"


class ManifestError(_Problems):
    """A manifest that cannot be read: not JSON, not canonical, or not of a known schema."""

    exit_code = 4
    headline = "problems in the manifest"


class SourceError(SafegenError):
    """Data that cannot be read or used. Names the column and the count, never a value."""

    exit_code = 2


class UsageError(SafegenError, ValueError):
    """A call that cannot be meant (rows=0, an unknown option, two outputs at one place)."""

    exit_code = 2


class PluginError(SafegenError):
    """The installation does not offer what was asked for."""

    exit_code = 2


class UnknownBackend(PluginError):
    """No installed package provides a backend (or safeguard) of that name."""


class MissingExtra(PluginError):
    """A backend is known, but the package under it is not installed; the message has the remedy."""


class LedgerError(SafegenError):
    """The ledger cannot be reached, read or written, or its log does not verify."""


class TargetError(SafegenError):
    """The place for the output exists already, cannot be written, or is full."""


class BackendError(SafegenError):
    """The library under a backend failed. Holds the type and the location of the cause, no text."""


class WorkersLost(BackendError):
    """The processes that made a part ended before it was done, every time it was tried."""


class Refused(SafegenError):
    """A policy said no. `.decision` says which rule, what was observed and what to do next."""

    exit_code = 3

    def __init__(self, decision: Decision):
        self.decision = decision
        super().__init__(decision)

    def __str__(self) -> str:
        return self.decision.to_text()

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the decision, not a stack."""
        return str(self).splitlines()


class AdmissionRefused(Refused):
    """Refused before training: the sources do not satisfy the policy."""


class ReleaseRefused(Refused):
    """Refused before publishing: the sampled rows do not satisfy the policy. No rows are left."""


class VerificationError(_Problems):
    """Data and manifest do not belong together; `.problems` lists everything that is wrong."""

    exit_code = 4
    headline = "problems: do not use this dataset"


def debugging() -> bool:
    """Whether upstream texts may be shown (`--debug`, or SAFEGEN_DEBUG=1). They can hold values."""
    return os.environ.get("SAFEGEN_DEBUG", "") not in ("", "0")


def upstream(error: BaseException) -> str:
    """Type and location of an upstream exception, without its text, which may quote real values.

    With debugging on, the text is added. Use it as
    `raise SourceError(f"… ({upstream(error)})") from hidden(error)`.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = ""
    if trace is not None:
        code = trace.tb_frame.f_code
        place = f" in {Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}"
    text = f": {error}" if debugging() else ""
    return f"{type(error).__module__}.{type(error).__qualname__}{place}{text}"


def hidden(error: BaseException) -> BaseException | None:
    """The cause to chain: the upstream exception itself when debugging, else nothing."""
    return error if debugging() else None


@contextlib.contextmanager
def reading(what: str = "the model") -> Iterator[None]:
    """Inside, whatever a broken or forged file makes fail is a BackendError, without its text.

    A forger chooses which error that is (a dict for a number, 10¹³ floats, infinity for a width),
    so all are meant.
    """
    try:
        yield
    except (BackendError, MissingExtra):
        raise
    except Exception as error:
        raise BackendError(
            f"{what} cannot be read ({type(error).__name__}): fit it again"
        ) from None
