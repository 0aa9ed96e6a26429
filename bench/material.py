"""What is measured on: the policies and tables of bench/steps.py and bench/units.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["policy_of", "real", "strange"]


def policy_of(kind: str) -> Any:
    """A policy by name; `tags`: every rule that looks at rows is off, so that they are tagged,
    digested, fingerprinted and described, and no more."""
    from safegen import Policy

    if kind != "tags":
        return Policy.load(kind)
    lab = Policy.load("lab")
    rows = ("schema", "support", "fidelity", "privacy", "watermark", "selection", "tails")
    off = {name: lab.rule(name).model_copy(update={"severity": "off"}) for name in rows}
    return lab.model_copy(update={"rules": {**lab.rules, **off}})


def real(place: Path, columns: int = 0) -> Path:
    """The data: Adult, or an invented table of so many columns, numbers and levels by turns."""
    if not columns:
        return next((place / "real").glob("**/*.parquet"))
    path = place / f"wide-{columns}.parquet"
    if not path.exists():
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        rng = np.random.default_rng(columns)
        shared = rng.normal(size=(5_000, 4))
        mixed = shared @ rng.normal(size=(4, columns)) + rng.normal(size=(5_000, columns))
        levels = np.array([f"level {i}" for i in range(8)])
        pq.write_table(
            pa.table(
                {
                    f"c{i}": x if i % 2 else levels[np.clip(x + 4, 0, 7).astype(int)]
                    for i, x in enumerate(mixed.T)
                }
            ),
            path,
        )
    return path


def strange(place: Path, rows: int, seed: int = 7) -> Path:
    """Real rows again and again with one column drawn anew, so that none is known to a ledger."""
    path = place / f"strange-{rows}.parquet"
    if not path.exists():
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pq.read_table(real(place)).replace_schema_metadata(None)
        rng = np.random.default_rng(seed)
        drawn = table.take(pa.array(rng.integers(0, table.num_rows, rows)))
        numbers = [f.name for f in table.schema if pa.types.is_integer(f.type)]
        name = "fnlwgt" if "fnlwgt" in numbers else numbers[0]
        new = np.asarray(drawn.column(name)) + rng.integers(-500, 500, rows)
        at = table.column_names.index(name)
        pq.write_table(drawn.set_column(at, name, pa.array(new)), path)
    return path
