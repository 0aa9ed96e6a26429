"""What a check of the battery looks at: a backend, what it is fitted on, and the fits it shares."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from safegen.contracts import Backend, BackendOptions, Kind, Model, Scalar
from safegen.engines.blocks import sample_block
from safegen.errors import SourceError
from safegen.tables.schema import Column
from safegen.testing.examples import Example
from safegen.testing.process import observed

__all__ = [
    "CHECKS",
    "Registered",
    "Small",
    "Subject",
    "Tables",
    "check",
    "refusal",
    "reproducible",
]

Tables = dict[str, pa.Table]


@dataclass(frozen=True)
class Registered:
    """A check of the battery, and which backends it is for."""

    name: str
    run: Callable[[Subject], None]
    kinds: frozenset[Kind]
    whole: bool
    when: Callable[[Subject], bool]


CHECKS: dict[str, Registered] = {}


def check(
    *kinds: Kind, whole: bool = False, when: Callable[[Subject], bool] = lambda subject: True
) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Register a function as a check, by its name, for some kinds of data (none given: all).

    `whole`: only in the whole battery. `when`: whether a subject's declarations call for it.
    """
    every: tuple[Kind, ...] = ("table", "tables", "sequences", "images")

    def register(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
        name = function.__name__
        CHECKS[name] = Registered(name, function, frozenset(kinds or every), whole, when)
        return function

    return register


def reproducible(subject: Subject) -> bool:
    """Whether the backend promises to repeat its rows."""
    return subject.backend.reproducible


@dataclass
class Subject:
    """A backend under test. Checks share one fitted model, because a fit can take minutes."""

    backend: Backend
    example: Example
    options: BackendOptions
    tolerance: float | None = None  # None: the options train too briefly to keep shares
    diverging: Mapping[str, Any] | None = None
    traces: list[str] = field(default_factory=list)  # what fits changed that they must not
    refused: dict[str, str] = field(default_factory=dict)  # column → why it was not taken
    seconds: float = 0.0  # of the last fit
    _failure: BaseException | None = None

    def fit(
        self, example: Example, options: BackendOptions | None = None, *, seed: int = 1
    ) -> Model:
        """A fit of its own; what it changes is noted in `traces`."""
        tables, schemas = dict(example.tables), dict(example.schemas)
        content = _content(tables)
        with observed() as changed:
            start = time.perf_counter()
            model = self.backend.fit(tables, schemas, options or self.options, seed=seed)
            self.seconds = time.perf_counter() - start
            self.traces += [f"fit changes {what}" for what in changed()]
        if tables != example.tables or _content(example.tables) != content:
            self.traces.append("fit changes the tables that it is given")
        if schemas != example.schemas:
            self.traces.append("fit changes the schemas that it is given")
        return model

    @property
    def model(self) -> Model:
        """The shared model. A fit that failed once is not tried again."""
        if self._failure is not None:
            raise self._failure
        try:
            return self._fitted
        except Exception as error:
            self._failure = error
            raise

    @cached_property
    def _fitted(self) -> Model:
        """The model of the example, without the columns that the backend refuses by name."""
        while True:
            try:
                return self.fit(self.example)
            except SourceError as error:
                named = [c for c in self.example.optional if repr(c) in str(error)]
                if not named:
                    raise
                self.refused |= dict.fromkeys(named, str(error))
                self.example = self.example.without(named)

    def sample(
        self,
        rows: int,
        *,
        seed: int = 3,
        block: int = 0,
        conditions: Mapping[str, Scalar] | None = None,
        model: Model | None = None,
    ) -> Tables:
        """Rows of a block, by rejection where there are conditions that the backend does not take.

        Then the pool is drawn in smaller blocks than the backend's, which costs less.
        """
        model = model or self.model
        small: Any = Small(self.backend, min(self.backend.block_rows, 500))
        return sample_block(model, small, rows, seed=seed, block=block, conditions=conditions)

    @cached_property
    def many(self) -> Tables:
        """Rows enough to look at shares."""
        return self.sample(self.most)

    @property
    def most(self) -> int:
        """How many rows a check takes when it wants many: 1,100, or a block."""
        return min(self.backend.block_rows, 1_100)

    def columns(self) -> Iterator[tuple[str, Column, pa.ChunkedArray]]:
        """Every column of the example: its table, what it is, its real values."""
        _ = self.model  # first: it may leave columns out
        for table, schema in self.example.schemas.items():
            for column in schema.columns:
                yield table, column, self.example.tables[table].column(column.name)


@dataclass(frozen=True)
class Small:
    """A backend's declarations with smaller blocks; that is sound, for fewer rows are a prefix."""

    backend: Backend
    block_rows: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


def refusal(subject: Subject, example: Example, *words: str) -> str:
    """What the SourceError says with which a fit on the example is refused.

    It must hold the words, and no text that only the data have.
    """
    try:
        subject.fit(example)
    except SourceError as error:
        said = str(error)
    else:
        raise AssertionError("is fitted, and not refused by a SourceError")
    absent = [word for word in words if word not in said]
    assert not absent, f"the error does not say {', '.join(absent)}: {said}"
    assert example.canary not in said, "the error quotes a value of the data"
    return said


def _content(tables: Mapping[str, pa.Table]) -> dict[str, int]:
    found = {}
    for name, table in tables.items():
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        found[name] = hash(sink.getvalue().to_pybytes())
    return found
