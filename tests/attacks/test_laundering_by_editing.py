"""Way round: edit the output, so that no digest knows it any more, and train on that.

Each edit is also made to real rows, which must still be admitted.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from forging import World, check, is_refused_as_synthetic

import safegen
from safegen.errors import LedgerError
from safegen.ledger import open_ledger
from safegen.lineage import screening
from safegen.tables.batches import Batches

RNG = np.random.default_rng(20)
Edit = Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]


def _numbers(frame: pd.DataFrame) -> list[str]:
    return [n for n in frame if pd.api.types.is_numeric_dtype(frame[n])]


def _rounded(frame: pd.DataFrame, _: pd.DataFrame) -> pd.DataFrame:
    short = {n: frame[n].map(lambda x: float(f"{x:.3g}")) for n in _numbers(frame)}
    return frame.assign(**short)


def _noisy(frame: pd.DataFrame, _: pd.DataFrame) -> pd.DataFrame:
    noise = {n: RNG.normal(0, 0.05 * frame[n].std(), len(frame)) for n in _numbers(frame)}
    return frame.assign(**{n: frame[n] + x for n, x in noise.items()})


def _standardised(frame: pd.DataFrame, _: pd.DataFrame) -> pd.DataFrame:
    numbers = frame[_numbers(frame)]
    return frame.assign(**((numbers - numbers.mean()) / numbers.std()))


def _in_other_units(frame: pd.DataFrame, _: pd.DataFrame) -> pd.DataFrame:
    first, second, third = _numbers(frame)[:3]
    logs = np.log(frame[third] + 1)
    return frame.assign(**{first: frame[first] * 2.54, second: -frame[second], third: logs})


def _resampled(frame: pd.DataFrame, _: pd.DataFrame) -> pd.DataFrame:
    edited = frame.copy()
    for name in set(frame) - set(_numbers(frame)):
        values = frame[name].to_numpy(dtype=object).copy()
        some = RNG.random(len(values)) < 0.1
        values[some] = RNG.choice(values, some.sum())
        edited[name] = values
    return edited


EDITS: dict[str, Edit] = {
    "a few rows": lambda made, _: made.sample(500, random_state=1),
    "renamed and reordered": lambda made, _: made.rename(
        columns={n: f"v{i}" for i, n in enumerate(sorted(made, key=lambda n: n[::-1]))}
    ).sample(frac=1, axis=1, random_state=4),
    "two columns dropped": lambda made, _: made.drop(columns=[made.columns[2], made.columns[5]]),
    "half of the columns": lambda made, _: made.iloc[:, :7],
    "columns added": lambda made, _: made.assign(a=range(len(made)), b=RNG.random(len(made))),
    "1 % among real rows": lambda made, real: pd.concat([real.head(4_950), made.head(50)]),
    "rounded": _rounded,
    "as texts": lambda made, _: made.iloc[1:].astype(str),
    "copied twice": lambda made, _: pd.concat([made, made.head(100)]),
    "noise": _noisy,
    "standardised": _standardised,
    "other units": _in_other_units,
    "levels resampled": _resampled,
}


def _bare(frame: pd.DataFrame) -> pd.DataFrame:
    bare = frame.drop(columns=[n for n in frame if n.startswith("_safegen")])
    bare.attrs.clear()
    return bare


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_edited_output_is_refused_and_edited_real_rows_are_not(world: World, edit: Edit) -> None:
    real = pd.read_parquet(world.real)
    decision = check(edit(_bare(world.dataset.to_pandas()), real))
    assert is_refused_as_synthetic(decision)
    assert any("fingerprints" in e for e in decision.findings["lineage/depth"].evidence)
    for seed in (1, 2):
        rows = real.sample(5_000, random_state=seed)
        assert check(edit(rows, real.drop(rows.index))).allowed


@pytest.mark.parametrize("columns", [4, 6, 15])
def test_real_rows_without_their_equals_are_not_accused(
    world: World, tmp_path: Path, columns: int
) -> None:
    """Equal rows show that there is little to differ by; without them rows must not look copied."""
    own = {"ledger": tmp_path / "ledger.db"}
    real = pd.read_parquet(world.real)
    few = real[[n for n in real if n != "fnlwgt"][:columns]]
    fitted, others = few.head(4_000), few.tail(4_000)
    generator = safegen.Generator("sdv.gaussian_copula", **own).fit(fitted)
    made = _bare(generator.generate(8_000, tmp_path / "made").to_pandas())
    new = pd.concat([others, fitted, fitted]).drop_duplicates(keep=False)
    for rows in (others, others.drop_duplicates(), new, others.value_counts().reset_index()):
        assert check(rows, **own).allowed
    assert is_refused_as_synthetic(check(made.sample(2_000, random_state=1), **own))


def test_keys_that_go_on_are_not_accused(world: World, tmp_path: Path) -> None:
    """A generator numbers its rows as those who write the next real ones do, and of many rows the
    decoys are only as the first."""
    own = {"ledger": tmp_path / "ledger.db"}
    grades = list("abc") * 20_000
    rows = pd.DataFrame({"id": range(60_000), "grade": grades, "ok": [True] * 60_000})
    roles = {"columns": {"id": "key"}}
    generator = safegen.Generator("sdv.gaussian_copula", **own).fit(rows.head(5_000), schema=roles)
    generator.generate(100_000, tmp_path / "made")
    for later in (rows.tail(40_000), rows):
        assert check(later, **own).allowed


def test_a_key_that_was_dropped_hides_nothing(world: World, tmp_path: Path) -> None:
    own = {"ledger": tmp_path / "ledger.db"}
    real = pd.read_parquet(world.real).assign(number=range(8_000))
    roles = {"columns": {"number": "key"}}
    generator = safegen.Generator("sdv.gaussian_copula", **own)
    generator.fit(real.head(4_000), schema=roles)
    made = _bare(generator.generate(3_000, tmp_path / "made").to_pandas())
    rows = pd.concat([real.tail(3_960), made.head(40)])
    for part in (rows, rows.drop(columns="number")):
        assert is_refused_as_synthetic(check(part, **own))
        honest = part.iloc[:3_960]
        assert check(honest, **own).allowed


def test_what_was_found_is_said_with_its_share_and_its_dataset(world: World) -> None:
    real, made = pd.read_parquet(world.real), _bare(world.dataset.to_pandas())
    decision = check(pd.concat([real.head(4_900), made.head(100)]))
    # Other tests have released the same first rows: those are found, too.
    name = world.dataset.manifest.dataset_id
    (said,) = (e for e in decision.findings["lineage/depth"].evidence if name in e)
    assert f"100 fingerprints of 5,000 rows are of dataset {name}" in said
    assert "2 % of the rows, 1.63 to 2.43 %" in said


def test_finding_nothing_says_what_would_have_been_found(world: World) -> None:
    few, many = (check(pd.read_parquet(world.real).tail(n)) for n in (60, 6_000))
    assert "detected? underpowered: rows of" in few.notes[0]
    assert "5.00% is asked for" in few.notes[0]
    assert "detected? clean: rows of" in many.notes[0]
    others = check(pd.DataFrame({"x": range(100)}))
    assert "none has columns like these" in others.notes[0]


def test_fingerprints_that_were_removed_are_missed(world: World, tmp_path: Path) -> None:
    """Who can write the ledger's file cannot make a check find nothing in silence."""
    ledger = open_ledger()
    assert ledger.verify() == []
    copy = tmp_path / "ledger.db"
    shutil.copy(ledger.url.removeprefix("sqlite://"), copy)
    with sqlite3.connect(copy) as db:
        db.execute("DROP TRIGGER attachments_no_delete")
        db.execute("DELETE FROM attachments WHERE kind = 'fingerprints'")
    db.close()
    rows = pd.read_parquet(world.real).head(1_000)
    assert safegen.check(rows, policy="baseline", ledger=ledger).allowed
    decision = safegen.check(rows, policy="baseline", ledger=copy)
    assert not decision.allowed
    assert decision.findings["lineage/ledger"].status == "broken"
    assert any("attached" in p for p in open_ledger(copy).verify())
    with pytest.raises(LedgerError, match="is gone"):
        open_ledger(copy).attached("fingerprints")


def test_a_part_of_the_rows_is_enough_to_find_a_small_share(world: World) -> None:
    """A sample that is large enough for the share that was asked for, and no verdict beyond it."""
    real, made = pd.read_parquet(world.real), _bare(world.dataset.to_pandas())
    many = _many(real)
    planted = made.sample(300, random_state=2)
    for share in (0.2, 0.005):
        decision = check(many, power=share)
        assert decision.allowed
        assert "detected? clean: rows of" in decision.notes[0]
        assert "with a chance of 99.9 %" in decision.notes[0]
        assert "attested? cannot be said of a part" in decision.notes[0]
    assert is_refused_as_synthetic(check(pd.concat([many, planted]), power=0.005))
    # Nor is a dataset's own folder, or a stamp, overlooked.
    assert is_refused_as_synthetic(check(world.dataset.path, power=0.5))
    assert is_refused_as_synthetic(check(world.dataset.to_arrow(), power=0.5))
    # All rows of a small table are looked at, and what that cannot find is said.
    assert "underpowered" in check(real.head(300), power=0.001).notes[0]
    for wrong in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(safegen.UsageError, match="a share of rows, between 0 and 1"):
            check(real, power=wrong)


def test_more_rows_than_are_kept_pass_by_where_it_takes_them(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A ledger of its own: in that of all tests are releases of which whole rows tell little.
    own = {"ledger": tmp_path / "ledger.db"}
    real = pd.read_parquet(world.real)
    safegen.Generator("sdv.gaussian_copula", **own).fit(real).generate(2_000, tmp_path / "made")
    many = _many(real)
    monkeypatch.setattr(screening, "_MOST", screening.SAMPLE)
    passes: list[float] = []
    thinned = screening.thinned

    def noted(batches: Batches, share: float, key: bytes) -> Batches:
        passes.append(share)
        return thinned(batches, share, key)

    monkeypatch.setattr(screening, "thinned", noted)

    def whole_rows(power: float) -> float:
        (said,) = (n for n in check(many, power=power, **own).notes if n.startswith("looked up"))
        return float(said.partition("whole rows (p ")[2].partition("from ")[2].partition("%")[0])

    first = whole_rows(0.2)
    assert not passes
    assert whole_rows(0.0002) < first
    assert passes
    assert all(screening.SAMPLE / len(many) < p <= 1 for p in passes)


def _many(real: pd.DataFrame) -> pd.DataFrame:
    """60,000 rows like these, none there twice."""
    many = pd.concat([real] * 8, ignore_index=True).sample(60_000, random_state=1)
    numbers = RNG.normal(0, 1, len(many))
    return many.assign(fnlwgt=(many["fnlwgt"] * (1 + numbers / 50)).round())


def test_another_release_of_the_model_is_known_by_its_watermark(
    world: World, tmp_path: Path
) -> None:
    """Rows that no fingerprint is of: the ledger was put back to the day before their release."""
    own = {"ledger": tmp_path / "ledger.db"}
    real = pd.read_parquet(world.real)
    generator = safegen.Generator("sdv.gaussian_copula", **own).fit(real.head(4_000))
    generator.generate(3_000, tmp_path / "first")
    day_before = tmp_path / "before.db"
    shutil.copy(own["ledger"], day_before)
    made = _bare(generator.generate(8_000, tmp_path / "second", seed=5).to_pandas())
    rules = dict(safegen.Policy.load("baseline").rules)
    rules["watermark"] = rules["watermark"].model_copy(update={"severity": "off"})
    generator.policy = safegen.Policy.load("baseline").model_copy(update={"rules": rules})
    without = _bare(generator.generate(8_000, tmp_path / "third", seed=6).to_pandas())
    decision = check(made, ledger=day_before)
    assert is_refused_as_synthetic(decision)
    evidence = decision.findings["lineage/depth"].evidence
    assert any("rows have this ledger's watermark" in e for e in evidence)
    assert not any("fingerprints" in e for e in evidence)
    assert check(without, ledger=day_before).allowed
    assert check(real.tail(4_000), ledger=day_before).allowed
    for edited in (
        _noisy(made, real),
        made.drop(columns=[made.columns[0]]),  # of two the views that are left may be too few
        _bare(made).head(900),
    ):
        assert is_refused_as_synthetic(check(edited, ledger=day_before))
