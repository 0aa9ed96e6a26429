"""What `make bench` measures: each function is a step, run in a process of its own by measuring.py.

    python bench/steps.py generate '{"kind": "tags", "rows": 1000000, "place": "…", "turn": 0}'

`place` is the benchmark's folder. Beside ours stands what somebody does who has no safegen, in the
calls that the library's own documentation shows, from the same data on the same cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from material import policy_of, real, strange
from measuring import timed

TARGET = {"columns": {"income": {"role": "target"}}}

STEPS: dict[str, Callable[..., dict[str, Any]]] = {}


def step(function: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    STEPS[function.__name__] = function
    return function


# ---- what all of them need -----------------------------------------------------------------------


@contextlib.contextmanager
def scratch(place: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=place / "tmp") as name:
        yield Path(name)


def copied(ledger: Path, folder: Path) -> Path:
    """A ledger as it was, under the same key, so that no run leaves something to the next."""
    shutil.copyfile(ledger, folder / "ledger.db")
    os.chmod(folder / "ledger.db", 0o600)
    return folder / "ledger.db"


# ---- generate ------------------------------------------------------------------------------------


@step
def fit(place: Path, kind: str, columns: int = 0, **_: Any) -> dict[str, Any]:
    """Fit and save the model that later steps load."""
    source, model = real(place, columns), place / "models" / f"{kind}-{columns}"
    model.parent.mkdir(exist_ok=True)
    if model.exists():
        shutil.rmtree(model) if model.is_dir() else model.unlink()
    if kind == "raw":
        import pandas as pd
        from sdv.metadata import Metadata
        from sdv.single_table import GaussianCopulaSynthesizer

        def raw() -> Any:
            frame = pd.read_parquet(source)
            metadata = Metadata.detect_from_dataframes({"table": frame})
            synthesizer = GaussianCopulaSynthesizer(metadata)
            synthesizer.fit({"table": frame})
            return synthesizer

        taken, synthesizer = timed(raw)
        synthesizer.save(str(model))
        return taken
    import pyarrow.parquet as pq

    import safegen

    ledger = place / "ledgers" / f"{kind}-{columns}.db"
    ledger.parent.mkdir(exist_ok=True)
    ledger.unlink(missing_ok=True)
    # The rows and not the file, beside which there is one statement for all ledgers.
    safegen.attest(pq.read_table(source), by="A. Person", license="CC-BY-4.0", ledger=ledger)
    gen = safegen.Generator(policy=policy_of(kind), ledger=ledger, key=signing_key(place))
    taken, _ = timed(lambda: gen.fit(source, schema=None if columns else TARGET, seed=3))
    gen.save(model)
    return taken


def signing_key(place: Path) -> Path:
    """`strict` asks for a signature; so all are signed."""
    path = place / "key"
    if not path.exists():
        subprocess.run(
            [sys.executable, "-m", "safegen", "key", "new", str(path)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return path


@step
def generate(
    place: Path,
    kind: str,
    rows: int,
    turn: int,
    workers: int | None = None,
    engine: str = "local",
    columns: int = 0,
    ledger: bool = True,
) -> dict[str, Any]:
    """A release of so many rows from the saved model; of SDV `sample` and `to_parquet`."""
    model = place / "models" / f"{kind}-{columns}"
    with scratch(place) as folder:
        if kind == "raw":
            from sdv.utils import load_synthesizer

            synthesizer = load_synthesizer(str(model))

            def raw() -> None:
                made = synthesizer.sample(rows)
                frame = made["table"] if isinstance(made, dict) else made
                frame.to_parquet(folder / "rows.parquet")

            return timed(raw)[0]
        import safegen

        mine = copied(place / "ledgers" / f"{kind}-{columns}.db", folder)
        where: Any = mine if ledger else "/dev/null/ledger.db"  # nobody can found one there
        gen = safegen.Generator.load(
            model, policy=policy_of(kind), ledger=where, key=signing_key(place)
        )
        more: dict[str, Any] = {"workers": workers}
        if engine != "local":
            more["engine"] = engine

        def ours() -> dict[str, Any]:
            try:
                made = gen.generate(rows, folder / "out", seed=5, **more)
            except safegen.Refused as refusal:
                return {"refused": sorted({r.split(":")[0] for r in refusal.decision.reasons})}
            return {"digest": made.manifest.logical_digest}

        with _there(engine):
            taken, told = timed(ours)
        size = sum(p.stat().st_size for p in (folder / "out").glob("data/**/*.parquet"))
        return {**taken, **told, "bytes": size}


def _there(engine: str) -> contextlib.AbstractContextManager[Any]:
    """What an engine needs before the clock: Ray's own start is not sampling."""
    if engine != "ray":
        return contextlib.nullcontext()
    from safegen.engines.ray.cluster import cluster

    return cluster(len(os.sched_getaffinity(0)))


# ---- check ---------------------------------------------------------------------------------------


@step
def releases(place: Path, rows: int, count: int, **_: Any) -> dict[str, Any]:
    """A ledger with so many releases, and their files, which the others need."""
    import safegen

    name = f"{count}x{rows}"
    shutil.rmtree(place / "known" / name, ignore_errors=True)
    ledger = copied(place / "ledgers" / "tags-0.db", place / "tmp")
    kept = place / "ledgers" / f"{name}.db"
    gen = safegen.Generator.load(
        place / "models" / "tags-0", policy=policy_of("tags"), ledger=ledger
    )

    def every() -> None:
        for number in range(count):
            gen.generate(rows, place / "known" / name / str(number), seed=100 + number)

    taken, _ = timed(every)
    os.replace(ledger, kept)
    return {**taken, "bytes": kept.stat().st_size}


@step
def check(
    place: Path, rows: int, known: str, power: float | None = None, rings: str = "all", **_: Any
) -> dict[str, Any]:
    """Whether rows that are nobody's are of any of these releases. rings: `whole` leaves out parts
    of rows and the watermark, which no argument of `check` does."""
    import safegen

    path = strange(place, rows)
    with scratch(place) as folder, contextlib.ExitStack() as stack:
        ledger = copied(place / "ledgers" / f"{known}.db", folder)
        look = safegen.check  # loads what it needs
        for name in ("met_on_views", "met_watermark", "Cells.counted") if rings == "whole" else ():
            nothing = lambda *given: None  # noqa: E731
            stack.enter_context(mock.patch(f"safegen.lineage.search.{name}", nothing))
        taken, decision = timed(lambda: look(path, policy="baseline", ledger=ledger, power=power))
        return {**taken, "allowed": decision.allowed}


@step
def merge(place: Path, rows: int, known: str, **_: Any) -> dict[str, Any]:
    """The same question without a ledger, in pandas: which rows are in any of the released files.
    One file at a time, so that they need not fit into memory together."""
    import pandas as pd

    path, files = strange(place, rows), _files(place, known)

    def merged() -> int:
        mine = pd.read_parquet(path)
        distinct = mine.drop_duplicates()
        return sum(
            len(distinct.merge(pd.read_parquet(f, columns=[*mine]).drop_duplicates()))
            for f in files
        )

    taken, found = timed(merged)
    return {**taken, "found": found}


@step
def duckdb(place: Path, rows: int, known: str, **_: Any) -> dict[str, Any]:
    """The same in DuckDB, which uses all cores and spills to disk."""
    import duckdb
    import pyarrow.parquet as pq

    path, files = strange(place, rows), _files(place, known)
    names = ", ".join(f'"{n}"' for n in pq.read_schema(path).names)
    query = (
        f"SELECT count(*) FROM (SELECT {names} FROM read_parquet('{path}') INTERSECT "
        f"SELECT {names} FROM read_parquet({[str(f) for f in files]}))"
    )
    taken, found = timed(lambda: duckdb.connect().execute(query).fetchone())
    return {**taken, "found": found[0]}


def _files(place: Path, known: str) -> list[Path]:
    return sorted((place / "known" / known).glob("*/data/*.parquet"))


# ---- verify and open -----------------------------------------------------------------------------


@step
def files(place: Path, mib: int, count: int, **_: Any) -> dict[str, Any]:
    """A dataset of random numbers, unsigned and in no ledger."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from safegen.manifest import MANIFEST_NAME, Manifest
    from safegen.manifest.identity import new_ulid
    from safegen.tables.entries import data_entry

    folder = place / "files"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    rng, rows, entries = np.random.default_rng(1), mib * 2**20 // count // 64, []
    for i in range(count):
        table = pa.table({f"c{j}": rng.normal(size=rows) for j in range(8)})
        path = folder / "data" / f"part-{i:05d}.parquet"
        pq.write_table(table, path, row_group_size=65_536, compression="none", use_dictionary=False)
        entries.append(data_entry(path, f"data/{path.name}", "table"))
    manifest = Manifest.model_validate(
        {
            "dataset_id": new_ulid(), "created": "2026-01-01T00:00:00Z", "kind": "table",
            "origin": "synthetic", "ancestry": "attested", "depth": 1, "effective_depth": 1.0,
            "depth_is_lower_bound": False, "rows": rows * count,
            "composition": {"synthetic": rows * count},
            "logical_digest": "safegen-rows-v1:00", "files": entries,
        }
    )  # fmt: skip
    (folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    return timed(lambda: None)[0]


@step
def hashed(place: Path, folder: str, **_: Any) -> dict[str, Any]:
    """One pass of hashlib over the same files, as many at once as there are cores."""
    import hashlib
    from concurrent.futures import ThreadPoolExecutor

    def one(path: Path) -> str:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    paths = sorted((place / folder).glob("data/*"))
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return timed(lambda: list(pool.map(one, paths)))[0]


@step
def verify(place: Path, folder: str, deep: bool, **_: Any) -> dict[str, Any]:
    """`safegen.verify` of a folder; `deep` reads every row for the logical digest."""
    import safegen

    look, where = safegen.verify, place / folder
    return timed(lambda: look(where, deep=deep))[0]


@step
def opened(place: Path, folder: str, known: str, again: bool, **_: Any) -> dict[str, Any]:
    """`safegen.open` of a release, the first time or again, by its receipt."""
    import safegen

    with scratch(place) as mine:
        ledger = copied(place / "ledgers" / f"{known}.db", mine)
        look, where = safegen.open, place / folder
        os.environ["XDG_CACHE_HOME"] = str(mine)
        if again:
            look(where, ledger=ledger)
        return timed(lambda: look(where, ledger=ledger))[0]


# ---- starts --------------------------------------------------------------------------------------


@step
def start(place: Path, command: Sequence[str], **_: Any) -> dict[str, Any]:
    """A command of an interpreter of its own, from its start to its end."""
    words = [str(place / w[1:]) if w.startswith("@") else w for w in command]
    return timed(
        lambda: subprocess.run(
            [sys.executable, *words],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    )[0]


# ---- diffusion -----------------------------------------------------------------------------------


@step
def diffusion(place: Path, what: str, **_: Any) -> dict[str, Any]:
    """Rows a second of a diffusion backend, and of a plain loop of diffusers around the network."""
    import throughput

    taken, told = timed(lambda: throughput.compared(what, rounds=3))
    return {**taken, **told}


def main() -> None:
    name, given = sys.argv[1:]
    arguments = json.loads(given)
    place = Path(arguments.pop("place"))
    (place / "tmp").mkdir(parents=True, exist_ok=True)
    print(json.dumps(STEPS[name](place, **arguments)), flush=True)


if __name__ == "__main__":
    main()
