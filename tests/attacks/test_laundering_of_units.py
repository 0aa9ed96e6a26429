"""Way round: take rows of related tables and of sequences out of their dataset, without keys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from forging import check, is_refused_as_synthetic

import safegen


def shop(people: int, seed: int, first: int = 0) -> dict[str, pa.Table]:
    """People and what they bought, a handful of rows each, much alike."""
    rng = np.random.default_rng([seed, 8])
    ids = first + np.arange(people)
    many = rng.poisson(4, people)
    owner = np.repeat(np.arange(people), many)
    taste = rng.integers(0, 6, people)
    return {
        "person": pa.table(
            {
                "person_id": ids,
                "age": np.clip(rng.normal(40 + 3 * taste, 12), 18, 90).astype(int),
                "income": rng.lognormal(10, 0.5, people).round(2),
                "town": rng.choice([f"t{i}" for i in range(20)], people),
            }
        ),
        "purchase": pa.table(
            {
                "person_id": ids[owner],
                "kind": np.array(list("abcdef"))[taste[owner]],
                "price": rng.lognormal(3 + taste[owner] / 3, 0.6).round(2),
                "pieces": rng.integers(1, 6, len(owner)),
                "minute": rng.integers(0, 1_440, len(owner)),
            }
        ),
    }


SCHEMA = {
    "tables": {
        "person": {"columns": {"person_id": "key"}},
        "purchase": {"columns": {"person_id": {"references": "person.person_id"}}},
    }
}


def test_related_tables_are_known_again_on_their_own(tmp_path: Path) -> None:
    generator = safegen.Generator("sdv.hma").fit(shop(800, 1), schema=SCHEMA)
    dataset = generator.generate(800, tmp_path / "out")
    for name in ("person", "purchase"):
        made = dataset.of(name).to_pandas().drop(columns="person_id")
        made = made.drop(columns=[c for c in made if "safegen" in c])
        made.attrs.clear()
        for edited in (
            made,
            made.sample(frac=0.5, random_state=1).rename(columns=str.upper),
            made.drop(columns=made.columns[-1]),
        ):
            assert is_refused_as_synthetic(check(edited))
        for seed in range(4):
            real = shop(800, 10 + seed, first=800)[name].to_pandas()
            for honest in (real, real.drop(columns="person_id")):
                assert check(honest).allowed
                assert check(honest.drop_duplicates()).allowed


def test_rows_of_sequences_are_known_again(tmp_path: Path) -> None:
    def visits(seed: int, users: int = 300) -> pd.DataFrame:
        rng = np.random.default_rng([seed, 9])
        lengths = rng.integers(2, 7, users)
        owner = np.repeat(np.arange(users), lengths)
        inside = np.concatenate([np.arange(n) for n in lengths])
        day = rng.integers(18_000, 18_400, users)[owner] + 7 * inside
        return pd.DataFrame(
            {
                "user": [f"u{seed}-{i:04}" for i in owner],
                "when": day.astype("datetime64[D]").astype("datetime64[ns]"),
                "spent": rng.lognormal(3, 1, len(owner)).round(2),
                "shop": rng.choice(["web", "app", "store"], len(owner)),
                "items": rng.integers(1, 30, len(owner)),
            }
        )

    roles = {"user": {"role": "sequence_key"}, "when": {"role": "sequence_index"}}
    generator = safegen.Generator("sdv.par", options={"epochs": 2, "device": "cpu"})
    generator.fit(visits(1), schema={"columns": roles})
    made = generator.generate(300, tmp_path / "out").to_pandas()
    made = made.drop(columns=[c for c in made if "safegen" in c])
    made.attrs.clear()
    assert is_refused_as_synthetic(check(made.drop(columns="user")))
    assert is_refused_as_synthetic(check(made.drop(columns=["user", "when"]).sample(frac=0.6)))
    for seed in range(2, 6):
        assert check(visits(seed)).allowed
        assert check(visits(seed).drop(columns="user")).allowed
