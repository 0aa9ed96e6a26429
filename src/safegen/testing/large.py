"""Checks of the whole battery: a wide table, a long one, and a column of 50,000 levels."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from safegen.errors import SourceError
from safegen.testing.examples import Example, example_table
from safegen.testing.subject import Subject, check

LEVELS = 50_000
LIMIT = 2 << 30
"""Bytes of memory that a process may take at most for a column of 50,000 levels."""


def _fits(subject: Subject, table: pa.Table) -> None:
    made = subject.sample(50, model=subject.fit(Example.of(table)))["table"]
    assert made.num_rows == 50, f"gave {made.num_rows} rows where 50 were asked for"
    assert made.schema.equals(table.schema), "does not give the source's Arrow schema"


@check("table", whole=True)
def many_columns(subject: Subject) -> None:
    """500 columns."""
    table = example_table(300)
    names = table.column_names
    columns = {f"{names[i % len(names)]}_{i}": table.column(i % len(names)) for i in range(500)}
    _fits(subject, pa.table(columns))


@check("table", whole=True)
def many_rows(subject: Subject) -> None:
    """1,000,000 rows."""
    _fits(subject, example_table(1_000_000))


@check("table", whole=True)
def many_levels(subject: Subject) -> None:
    """A column of 50,000 levels: within 2 GB in a process of its own, or refused by name."""
    kind = type(subject.backend)
    assert "<locals>" not in kind.__qualname__, "another process cannot import the backend's class"
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from safegen.testing.large import child; child({kind.__module__!r}, "
            f"{kind.__qualname__!r}, {subject.options.model_dump_json()!r})",
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-500:]}"
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["peak"] <= LIMIT, f"took {told['peak'] / 2**30:.1f} GB"
    if (said := told["refused"]) is not None:
        assert "'code'" in said, f"the refusal does not name the column: {said}"
        assert re.search(r"50[,.]?000", said), f"the refusal does not say how many: {said}"


def levels_table() -> pa.Table:
    """Three rows of each of 50,000 codes, beside two plain columns."""
    rng = np.random.default_rng(0)
    codes = rng.permutation(np.repeat(np.arange(LEVELS), 3))
    words = pa.array([f"C{i:05}" for i in range(LEVELS)])
    return pa.table(
        {
            "code": words.take(pa.array(codes)),
            "amount": pa.array(rng.gamma(2.0, 50.0, len(codes))),
            "paid": pa.array(rng.random(len(codes)) < 0.8),
        }
    )


def child(module: str, name: str, options: str) -> None:
    """Fit and sample in this process, and print its peak of memory in bytes as JSON."""
    import importlib

    backend: Any = importlib.import_module(module)
    for part in name.split("."):
        backend = getattr(backend, part)
    backend = backend()
    example = Example.of(levels_table())
    refused = None
    try:
        model = backend.fit(
            example.tables,
            example.schemas,
            backend.Options.model_validate_json(options),
            seed=1,
        )
        assert model.sample(100, seed=1, block=0)["table"].num_rows == 100
    except SourceError as error:
        refused = str(error)
    sys.stdout.write(json.dumps({"peak": _peak(), "refused": refused}) + "\n")


def _peak() -> int:
    """The most memory that this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would begin with what the parent held
        found = re.search(r"VmHWM:\s+(\d+)", status.read_text())
        return int(found[1]) * 1024 if found else 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
