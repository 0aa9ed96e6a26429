"""What single things cost on this machine, by which bench/scale.py reckons: `bench/units.json`.

    python bench/units.py                                    # some minutes
    python bench/units.py --postgres postgresql://host/db    # the ledger there as well

CPU seconds, for other programs disturb these least; each figure with how often it was measured, the
least and the most. The policies are those of `make bench`; parts are as large as they are of more
than 67 million rows, sixteen blocks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from fidelity import machine, versions
from material import policy_of, real

UNITS = Path(__file__).with_name("units.json")
BLOCKS = 16
BLOCK = {"tags": 65_536, "anchored": 16_384}
"""Rows of a block that is released: of four candidates `anchored` releases one."""

PART = 65_536 * BLOCKS


def figure(values: Sequence[float], unit: str) -> dict[str, Any]:
    return {
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "n": len(values),
        "unit": unit,
    }


def spent(call: Callable[[], Any], times: int = 5) -> list[float]:
    """CPU seconds of a call, each time."""
    found = []
    for _ in range(times):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return found


# ---- parts ---------------------------------------------------------------------------------------


def parts(place: Path, kind: str, count: int, blocks: int, size: int) -> dict[str, Any]:
    """Of parts of so many blocks of so many rows: making them, their files, their summaries, and
    merging these, pickled as they come from a worker."""
    import safegen
    from safegen.engines import local
    from safegen.engines import parts as planning
    from safegen.release import Staging

    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    making, taking = local.make_part, Staging.take

    def make(recipe: Any, *given: Any) -> Any:
        start = time.process_time()
        written = making(recipe, *given)
        if not recipe.decoys:
            note("part", time.process_time() - start)
            note("rows", written.rows)
        return written

    def take(self: Staging, written: Any) -> None:
        data = pickle.dumps(written)
        note("summary", len(data))
        for name in ("printings", "reservoirs", "tallies"):
            note(f"summary.{name}", len(pickle.dumps(getattr(written, name))))
        note("file", sum(f.bytes for f in written.files))
        start = time.process_time()
        taking(self, pickle.loads(data))
        note("merge", time.process_time() - start)

    ledger = place / f"{kind}.db"
    gen = safegen.Generator(policy=policy_of(kind), ledger=ledger)
    gen.fit(real(place), schema={"columns": {"income": {"role": "target"}}}, seed=3)
    start = time.process_time()
    with (
        mock.patch.object(planning, "FEW", 1),
        mock.patch.object(planning, "MOST", blocks),
        mock.patch.object(local, "make_part", make),
        mock.patch.object(Staging, "take", take),
    ):
        gen.generate(count * blocks * size, place / f"out-{kind}", workers=1)
    whole = time.process_time() - start
    rest = whole - sum(found["part"]) - sum(found["merge"])
    found["row"] = [s / n for s, n in zip(found.pop("part"), found["rows"], strict=True)]
    found["file"] = [b / n for b, n in zip(found["file"], found["rows"], strict=True)]
    units = {"row": "CPU s a row", "merge": "CPU s", "file": "bytes a row", "rows": "rows"}
    told = {f"{kind}.{n}": figure(x, units.get(n, "bytes")) for n, x in found.items()}
    return {**told, f"{kind}.once": figure([rest], "CPU s")}


def starting(place: Path) -> dict[str, Any]:
    """Of a worker: the interpreter, its imports, the model."""
    import safegen

    saved = place / "worker-model"
    gen = safegen.Generator(policy=policy_of("tags"), ledger=place / "start.db").fit(real(place))
    saved.mkdir()
    assert gen._model is not None
    gen._model.save(saved)
    code = (
        "import sys, time; from pathlib import Path; import safegen.engines.worker\n"
        "from safegen import plugins\n"
        "plugins.load(plugins.BACKENDS, sys.argv[1])().load(Path(sys.argv[2]))\n"
        "print(time.process_time())"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, gen.backend_name, str(saved)]
    found = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    return {"start": figure(found, "CPU s")}


# ---- manifests -----------------------------------------------------------------------------------


def manifests(files: int = 500) -> dict[str, Any]:
    """Bytes of a file's entry and of a row group's; writing and reading them."""
    from safegen.manifest import Manifest
    from safegen.manifest.identity import new_ulid

    def manifest(count: int, groups: int) -> Manifest:
        leaf = hashlib.sha256(b"leaf").hexdigest()
        group = {"offset": 123_456_789, "bytes": 612_345, "rows": 65_536, "leaf": leaf}
        entry = {
            "bytes": 9_812_345, "sha256": f"sha256:{leaf}", "table": "table", "rows": PART,
            "merkle_root": leaf, "row_groups": [group] * groups,
        }  # fmt: skip
        return Manifest.model_validate(
            {
                "dataset_id": new_ulid(), "created": "2026-01-01T00:00:00Z", "kind": "table",
                "origin": "synthetic", "ancestry": "attested", "depth": 1, "effective_depth": 1.0,
                "depth_is_lower_bound": False, "rows": count * PART,
                "composition": {"synthetic": count * PART},
                "logical_digest": "safegen-rows-v1:00",
                "files": [{"path": f"data/part-{i:05d}.parquet", **entry} for i in range(count)],
            }
        )  # fmt: skip

    bare, one, many = (len(manifest(*x).to_bytes()) for x in ((files, 0), (files, 1), (files, 17)))
    empty = len(manifest(0, 0).to_bytes())
    large = manifest(files, BLOCKS)
    data = large.to_bytes()
    mib = len(data) / 2**20
    return {
        "manifest.file": figure([(bare - empty) / files], "bytes"),
        "manifest.group": figure([(many - one) / (16 * files)], "bytes"),
        "manifest.write": figure([s / mib for s in spent(large.to_bytes)], "CPU s per MiB"),
        "manifest.read": figure(
            [s / mib for s in spent(lambda: Manifest.from_bytes(data))], "CPU s per MiB"
        ),
    }


# ---- the ledger ----------------------------------------------------------------------------------


def ledgers(place: Path, url: str | None, times: int = 200) -> dict[str, Any]:
    """Wall seconds of an entry, of a registration with small attachments, and of one with large."""
    from safegen.ledger import Attachment, Record, open_ledger
    from safegen.manifest import Manifest
    from safegen.manifest.identity import new_ulid

    found: dict[str, Any] = {}
    for name, where in (("sqlite", place / "units.db"), ("postgres", url)):
        if where is None:
            continue
        ledger = open_ledger(where)
        key = ledger.key_epochs()[0][0]

        def registered(size: int, times: int) -> list[float]:
            body, taken = bytes(size), []
            for i in range(times):
                manifest = Manifest.model_validate(
                    {
                        "dataset_id": new_ulid(), "created": "2026-01-01T00:00:00Z",
                        "kind": "table", "origin": "synthetic", "ancestry": "attested", "depth": 1,
                        "effective_depth": 1.0, "depth_is_lower_bound": False, "rows": i,
                        "composition": {"synthetic": i}, "logical_digest": f"x:{i:064x}",
                    }
                ).sealed()  # fmt: skip
                record = Record.of(manifest, None)
                part = Attachment("fingerprints", f"units/{size}", key, body)  # noqa: B023
                start = time.perf_counter()
                ledger.register(record, {}, [part])  # noqa: B023
                taken.append(time.perf_counter() - start)
            return taken

        def appended() -> None:
            ledger.record("decision", {"allowed": True, "text": "x" * 4_000})  # noqa: B023

        entries = []
        for _ in range(times):
            start = time.perf_counter()
            appended()
            entries.append(time.perf_counter() - start)
        small, large = registered(65_536, times), registered(64 * 2**20, 3)
        found |= {
            f"{name}.entry": figure(entries, "s"),
            f"{name}.register": figure(small, "s"),
            f"{name}.attach": figure([s / 64 for s in large], "s per MiB"),
        }
    return found


# ---- searching -----------------------------------------------------------------------------------


def searching(fingerprints: int = 10_000_000, rows: int = 1_000_000) -> dict[str, Any]:
    """Looking sorted whole rows up among sorted fingerprints, hashing, and what they take."""
    from safegen.lineage.fingerprints import SEEN, Prints, Tally, places

    rng = np.random.default_rng(1)
    kept = np.sort(rng.integers(0, 2**48, fingerprints, dtype=np.uint64))
    asked = np.sort(rng.integers(0, 2**48, rows, dtype=np.uint64))
    few = kept[::10]
    counts = np.ones(len(few), dtype=np.uint16)
    view = np.unique(rng.integers(0, 2**32, SEEN, dtype=np.uint32))
    one = np.ones(len(view), dtype=np.uint16)

    def prints(cells: np.ndarray, often: np.ndarray) -> Prints:
        facts = (len(cells), len(cells), SEEN, len(cells) // 20, 0, len(cells), len(cells) // 20)
        none = np.zeros_like(often)
        return Prints(*facts, Tally(cells, often, none), (Tally(view, one, one),))

    whole, none = (prints(*x).to_bytes() for x in ((few, counts), (few[:1], counts[:1])))
    data = bytes(2**26)
    return {
        "search.lookup": figure(
            [s / rows for s in spent(lambda: places(kept, asked), 3)], "CPU s per row"
        ),
        "search.read": figure(
            [s / len(few) for s in spent(lambda: Prints.from_bytes(whole), 3)],
            "CPU s per fingerprint",
        ),
        "search.fingerprint": figure([(len(whole) - len(none)) / len(few)], "bytes"),
        "sha256": figure(
            [s / 64 for s in spent(lambda: hashlib.sha256(data).digest())], "CPU s per MiB"
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--postgres", help="the URL of an empty ledger there")
    parser.add_argument("--quick", action="store_true", help="small, to try it out; says so")
    parser.add_argument("--out", type=Path, default=UNITS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    from safegen.demo import place_data

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place_data(place / "real")
        small = given.quick
        found = {
            "where": f"{machine()}; {versions()}" + ("; a quick try" if small else ""),
            "measured": time.strftime("%Y-%m-%d"),
            **manifests(50 if small else 500),
            **ledgers(place, given.postgres, 10 if small else 200),
            **searching(*((200_000, 20_000) if small else (10_000_000, 1_000_000))),
            **starting(place),
        }
        for kind, size in BLOCK.items():
            found |= parts(place, kind, 2 if small else 3, 1 if small else BLOCKS, size)
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(given.out)


if __name__ == "__main__":
    main()
