"""What the attacks need: a command line in this process or another, and ways to forge."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import safegen
from safegen.decision import Decision
from safegen.manifest import MANIFEST_NAME, SIGNATURE_NAME
from safegen.manifest.canonical import canonical_bytes, digest_of
from safegen.tables.digests import RowsDigest
from safegen.tables.entries import data_entry, file_entry

COMMAND = [sys.executable, "-c", "from safegen.cli import main; main()"]


@dataclass(frozen=True)
class World:
    """One real table, attested; a generator fitted on it, saved; and what it released."""

    real: Path
    generator: safegen.Generator
    model: Path
    dataset: safegen.Dataset

    @property
    def file(self) -> Path:
        """The released Parquet file."""
        return self.dataset.path / "data" / "part-00000.parquet"

    def rows(self, n: int, seed: int) -> pd.DataFrame:
        """Random real rows that nobody has attested."""
        return pd.read_parquet(self.real).sample(n, random_state=seed).reset_index(drop=True)

    def copy(self, to: Path) -> Path:
        """The released folder, copied, to be tampered with."""
        shutil.copytree(self.dataset.path, to)
        return to


@dataclass(frozen=True)
class Ran:
    """A command line's exit code and what it said."""

    code: int
    out: str
    err: str


def cli(*arguments: object) -> Ran:
    """`safegen ARGUMENTS` in this process."""
    from safegen.cli import main

    out, err = io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(a) for a in arguments])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    return Ran(code, out.getvalue(), err.getvalue())


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """`safegen ARGUMENTS` in a process of its own."""
    return subprocess.Popen(
        [*COMMAND, *(str(a) for a in arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process: subprocess.Popen[str]) -> Ran:
    out, err = process.communicate(timeout=120)
    return Ran(process.returncode, out, err)


def check(source: Any, policy: str = "baseline", **more: Any) -> Decision:
    return safegen.check(source, policy=policy, **more)


def unmet(decision: Decision) -> set[str]:
    """The names of the findings that block."""
    return {r.finding.name for r in decision.judged if r.outcome == "block"}


def is_refused_as_synthetic(decision: Decision) -> bool:
    """Whether it is refused for what it is, and not for some other reason."""
    return not decision.allowed and "lineage/depth" in unmet(decision)


def document(folder: Path, name: str = MANIFEST_NAME) -> dict[str, Any]:
    return json.loads((folder / name).read_bytes())


def reseal(folder: Path, changed: dict[str, Any], name: str = MANIFEST_NAME) -> None:
    """Write an edited document with a self-digest that matches again."""
    body = {k: v for k, v in changed.items() if k != "digest"}
    (folder / name).write_bytes(canonical_bytes({**body, "digest": digest_of(body)}))


def rewrite(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """A consistent rewrite of a release: rows, every digest, counts, and the self-digest."""
    path = folder / "data" / "part-00000.parquet"
    table = change(pq.read_table(path))
    pq.write_table(table, path, row_group_size=1000)
    digest = RowsDigest(table.schema)
    for batch in table.to_batches():
        digest.update(batch)
    entries = []
    for entry in document(folder)["files"]:
        name = entry["path"]
        if name.startswith("data/"):
            entries.append(data_entry(path, name, "table").model_dump(mode="json"))
        else:
            entries.append(file_entry(folder / name, name).model_dump(mode="json"))
    reseal(
        folder,
        document(folder)
        | {"files": entries, "rows": table.num_rows, "logical_digest": digest.value()}
        | {"composition": {"synthetic": table.num_rows, "real": 0}},
    )


def flip(path: Path, offset: int) -> None:
    """Change one byte; a negative offset counts from the end."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x40
    path.write_bytes(data)


def unsigned(folder: Path) -> None:
    os.unlink(folder / SIGNATURE_NAME)
