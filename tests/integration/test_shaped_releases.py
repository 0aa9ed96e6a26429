"""Releases under policies that select and boost: the same rows however they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import safegen
from safegen import sampling
from safegen.contracts import BackendOptions
from safegen.errors import BackendError, SourceError, TargetError, UsageError
from safegen.measure.distances import pair_error
from safegen.tables.streams import stream

# Rows are looked at here, and nothing is trained on them.
pytestmark = pytest.mark.filterwarnings("ignore:.*its rows count differently")

ROWS = 6_000


def people(seed: int = 0, rows: int = ROWS) -> pa.Table:
    """A copula keeps ranks and loses shapes: here a parabola, and a level that hangs on it."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    y = x**2 + 0.3 * rng.normal(size=rows)
    kind = np.where(y > 2.5, "high", np.where(rng.random(rows) < 0.006, "odd", "plain"))
    label = np.where(rng.random(rows) < 1 / (1 + np.exp(4.5 - y)), "yes", "no")
    return pa.table({"x": x, "y": y, "kind": kind, "label": label})


SCHEMA = {"columns": {"label": {"role": "target"}}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shaped")
    pq.write_table(people(), folder / "real.parquet")
    for name, rules in {
        "selecting": "  selection: {severity: enforce}\n",
        "boosting": "  tails: {severity: enforce}\n",
        "both": "  selection: {severity: enforce}\n  tails: {severity: enforce}\n",
    }.items():
        (folder / f"{name}.yaml").write_text(
            f"schema: safegen.policy/v1\nid: {name}\nversion: '1'\ndescription: a test\n"
            "contact: nobody\nrules:\n  lineage: {severity: enforce, max_depth: 1.0}\n"
            f"  manifest: {{severity: enforce}}\n  support: {{severity: warn}}\n{rules}"
        )
    return folder


def fitted(place: Path, policy: str, ledger: Path) -> safegen.Generator:
    gen = safegen.Generator(policy=place / f"{policy}.yaml", ledger=ledger)
    return gen.fit(place / "real.parquet", schema=SCHEMA, seed=7)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def both(place: Path, ledger: Path) -> safegen.Generator:
    return fitted(place, "both", ledger)


def test_any_number_of_processes_makes_the_same_release(
    place: Path, ledger: Path, both: safegen.Generator, tmp_path: Path
) -> None:
    alone = both.generate(20_000, tmp_path / "one", workers=1)
    beside = both.generate(20_000, tmp_path / "two", workers=2)
    assert alone.manifest.logical_digest == beside.manifest.logical_digest
    assert np.array_equal(alone.weights(), beside.weights())
    short = both.generate(3_000, tmp_path / "short")
    assert short.to_arrow().equals(alone.to_arrow().slice(0, 3_000))
    assert np.array_equal(short.weights(), alone.weights()[:3_000])
    again = fitted(place, "both", ledger).generate(3_000, tmp_path / "again")
    assert again.manifest.logical_digest == short.manifest.logical_digest
    safegen.verify(alone.path, deep=True)


def test_selection_halves_the_pair_error(place: Path, ledger: Path, tmp_path: Path) -> None:
    gen = fitted(place, "selecting", ledger)
    made = gen.generate(ROWS, tmp_path / "selected")
    plain = safegen.Generator(policy="baseline", ledger=ledger)
    raw = plain.fit(place / "real.parquet", schema=SCHEMA, seed=7).generate(ROWS, tmp_path / "raw")
    held, schema = people(1), gen.schemas["table"]
    before, after = (pair_error(held, d.to_arrow(), schema).value for d in (raw, made))
    assert after < 0.6 * before
    assert set(made.weights()) == {1.0}
    done = made.manifest.safeguards["selection"]["done"]
    assert done["method"] == "raking"
    assert 0.25 <= done["effective_share"] < 0.9
    assert "selection" not in raw.manifest.safeguards


def test_boosts_are_undone_by_weights(place: Path, ledger: Path, tmp_path: Path) -> None:
    made = fitted(place, "boosting", ledger).generate(20_000, tmp_path / "boosted")
    table, weights = made.to_arrow(), made.weights().astype(float)
    odd = np.asarray(pc.equal(table.column("kind"), "odd"))
    due = float(np.mean(np.asarray(people().column("kind")) == "odd"))
    assert odd.mean() > 3 * due
    error = (due * (1 - due) * (1 / 20_000 + 1 / ROWS)) ** 0.5
    assert abs(np.average(odd, weights=weights) - due) < 4 * error
    done = made.manifest.safeguards["tails"]["done"]
    kish = weights.sum() ** 2 / (weights**2).sum()
    assert done["effective_rows"] == pytest.approx(kish, rel=1e-4)
    resampled = made.resampled(seed=3)
    share = np.mean(np.asarray(resampled.to_arrow().column("kind")) == "odd")
    assert abs(share - due) < 5 * error
    assert set(resampled.weights()) == {1.0}
    assert resampled.to_arrow().num_rows == len(resampled.weights()) > 10_000


def test_a_loop_does_not_boost_what_was_boosted(place: Path, ledger: Path, tmp_path: Path) -> None:
    """The next fit takes weighted rows by their weights: a rare level keeps its share."""
    first = fitted(place, "boosting", ledger).generate(ROWS, tmp_path / "first")
    gen = safegen.Generator(policy=place / "boosting.yaml", ledger=ledger)
    gen.fit(place / "real.parquet", first, schema=SCHEMA)
    parts = gen._ready().parts
    assert parts is not None
    kept = parts.training["table"].num_rows - ROWS
    assert parts.anchor["table"].num_rows == ROWS
    assert ROWS / 2 < kept < ROWS
    due = np.mean(np.asarray(people().column("kind")) == "odd")
    share = np.mean(np.asarray(parts.training["table"].column("kind")) == "odd")
    assert share == pytest.approx(due, abs=4 * (due / ROWS) ** 0.5)


def test_quotas_are_counted_within_the_conditions(
    place: Path, ledger: Path, both: safegen.Generator, tmp_path: Path
) -> None:
    made = both.generate(2_000, tmp_path / "yes", conditions={"label": "yes"})
    assert set(made.to_arrow().column("label").to_pylist()) == {"yes"}
    done = made.manifest.safeguards
    yes = int(pc.sum(pc.equal(people().column("label"), "yes")).as_py())
    assert done["selection"]["done"]["real_rows"] == yes
    assert all("label" not in s["id"] for s in done["tails"]["done"]["strata"])


def test_a_model_whose_real_rows_are_gone_selects_nothing(
    place: Path, ledger: Path, both: safegen.Generator, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.parquet"
    pq.write_table(people(), moved)
    gen = safegen.Generator(policy=place / "selecting.yaml", ledger=ledger)
    gen.fit(moved, schema=SCHEMA, seed=7).save(tmp_path / "model")
    options: dict[str, Any] = {"policy": place / "selecting.yaml", "ledger": ledger}
    kept = safegen.Generator.load(tmp_path / "model", **options)
    assert kept.generate(500, tmp_path / "kept").manifest.rows == 500
    moved.unlink()
    lost = safegen.Generator.load(tmp_path / "model", **options)
    with pytest.raises(SourceError, match="selected by the real ones"):
        lost.generate(500, tmp_path / "lost")
    assert not (tmp_path / "lost").exists()
    found = safegen.Generator.load(tmp_path / "model", source=place / "real.parquet", **options)
    assert found.generate(500, tmp_path / "found").manifest.rows == 500


def test_a_named_stratum_of_a_column_that_is_not_there_is_an_error(
    place: Path, ledger: Path, tmp_path: Path
) -> None:
    text = (place / "boosting.yaml").read_text()
    text = text.replace(
        "tails: {severity: enforce}",
        "tails: {severity: enforce, strata: [{column: nothing, equals: 1}]}",
    )
    (tmp_path / "named.yaml").write_text(text)
    gen = safegen.Generator(policy=tmp_path / "named.yaml", ledger=ledger)
    with pytest.raises(UsageError, match="stratum of column 'nothing'"):  # before any training
        gen.fit(place / "real.parquet", schema=SCHEMA)
    text = text.replace("column: nothing, equals: 1", "column: y, above: 4.0")
    (tmp_path / "named.yaml").write_text(text)
    gen = safegen.Generator(policy=tmp_path / "named.yaml", ledger=ledger)
    made = gen.fit(place / "real.parquet", schema=SCHEMA).generate(2_000, tmp_path / "some")
    high = np.mean(made.to_arrow().column("y").to_numpy() > 4.0)
    assert high > 1.5 * np.mean(people().column("y").to_numpy() > 4.0)


def test_string_views_are_selected_held_out_and_resampled(ledger: Path, tmp_path: Path) -> None:
    table = people()
    for name in ("kind", "label"):
        i = table.schema.get_field_index(name)
        table = table.set_column(i, name, table.column(name).cast(pa.string_view()))
    (tmp_path / "views.yaml").write_text(
        "schema: safegen.policy/v1\nid: views\nversion: '1'\ndescription: a test\ncontact: nobody\n"
        "rules:\n  lineage: {severity: enforce, max_depth: 1.0}\n  manifest: {severity: enforce}\n"
        "  selection: {severity: enforce}\n  tails: {severity: enforce}\n"
        "  fidelity: {severity: warn, held_out: 0.2}\n"
        "  privacy: {severity: warn, held_out: 0.2}\n"
    )
    gen = safegen.Generator(policy=tmp_path / "views.yaml", ledger=ledger)
    made = gen.fit(table, schema=SCHEMA, seed=7).generate(3_000, tmp_path / "out")
    assert made.to_arrow().schema.field("kind").type == pa.string_view()
    assert not [w for w in made.manifest.warnings if "failed" in w]
    assert made.resampled().to_arrow().num_rows < 3_000
    gen.fit(table, made, schema=SCHEMA)  # thinned by its weights


def test_boosts_do_not_count_as_lost_missing_values(ledger: Path, tmp_path: Path) -> None:
    """What only frauds have is missing less often where frauds are boosted."""
    rng = np.random.default_rng(0)
    fraud = rng.random(40_000) < 0.0095
    table = pa.table(
        {
            "fraud": np.where(fraud, "yes", "no"),
            "chargeback": pa.array(rng.normal(size=40_000), mask=~fraud),
            "amount": rng.normal(size=40_000),
        }
    )
    gen = safegen.Generator(policy="rare-events", ledger=ledger)
    gen.fit(table, schema={"columns": {"fraud": {"role": "target"}}})
    made = gen.generate(40_000, tmp_path / "out")
    column = made.to_arrow().column("chargeback")
    assert column.null_count / 40_000 < table.column("chargeback").null_count / 40_000 - 0.02
    assert made.manifest.rows == 40_000


def test_a_model_that_saw_all_rows_does_not_pass_for_one_that_held_some_out(
    place: Path, ledger: Path, tmp_path: Path
) -> None:
    policies = {}
    for share in (0.0, 0.2):
        text = (place / "selecting.yaml").read_text()
        held = f"  fidelity: {{severity: warn, held_out: {share}}}\n"
        policies[share] = tmp_path / f"{share}.yaml"
        policies[share].write_text(text + held)
    source = place / "real.parquet"
    gen = safegen.Generator(policy=policies[0.0], ledger=ledger).fit(source, schema=SCHEMA)
    gen.save(tmp_path / "model")
    loaded = safegen.Generator.load(tmp_path / "model", policy=policies[0.2], ledger=ledger)
    loaded.generate(500, tmp_path / "out")
    fresh = safegen.Generator(policy=policies[0.2], ledger=ledger).fit(source, schema=SCHEMA)
    with pytest.raises(TargetError, match="not the one"):
        fresh.generate(500, tmp_path / "out", if_exists="same")


def test_a_stranger_s_word_on_what_was_held_out_is_not_taken(place: Path, tmp_path: Path) -> None:
    """A model that nobody vouches for may have seen the rows that it says it has not."""
    (tmp_path / "held.yaml").write_text(
        (place / "selecting.yaml").read_text() + "  privacy: {severity: warn, held_out: 0.2}\n"
    )
    options: dict[str, Any] = {"policy": tmp_path / "held.yaml"}
    gen = safegen.Generator(**options, ledger=tmp_path / "a.db")
    gen.fit(place / "real.parquet", schema=SCHEMA).save(tmp_path / "model")
    for ledger, held in ((tmp_path / "a.db", True), (tmp_path / "b.db", False)):
        loaded = safegen.Generator.load(
            tmp_path / "model", source=place / "real.parquet", ledger=ledger, **options
        )
        parts = loaded._ready().parts
        assert parts is not None
        assert bool(parts.held["table"].num_rows) == held
        loaded.generate(500, tmp_path / f"out{held}")
        assert loaded.decision is not None
        status = loaded.decision.findings["privacy/membership"].status
        assert held or status == "inconclusive"


@pytest.mark.parametrize(
    ("rows", "rare", "says"),
    [
        (2_000, 0.02, r"equal rows .* stay together"),  # nearly all would be held out
        (400, 0.0, r"equal rows .* stay together"),  # all rows are one: none or all
        (90, 0.02, "90 real rows are too few"),
    ],
)
def test_rows_that_are_nearly_all_equal_cannot_be_held_out(
    rows: int, rare: float, says: str, tmp_path: Path, ledger: Path
) -> None:
    """Equal rows stay together: a side of nearly all rows is not the share that was asked for."""
    rng = np.random.default_rng(1)
    (tmp_path / "held.yaml").write_text(
        "schema: safegen.policy/v1\nid: held\nversion: '1'\ndescription: a test\ncontact: nobody\n"
        "rules:\n  lineage: {severity: enforce}\n  manifest: {severity: enforce}\n"
        "  fidelity: {severity: warn, held_out: 0.2}\n"
    )
    table = pa.table({"q0": np.where(rng.random(rows) < rare, "yes", "0")})
    gen = safegen.Generator(policy=tmp_path / "held.yaml", ledger=ledger)
    with pytest.raises(SourceError, match=says):
        gen.fit(table)


def test_calibration_breaks_no_constraint(place: Path, ledger: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    low = rng.integers(0, 500, ROWS)
    table = pa.table({"low": low, "high": low + rng.geometric(0.1, ROWS), "x": people()["x"]})
    text = (place / "selecting.yaml").read_text()
    text = text.replace(
        "selection: {severity: enforce}", "selection: {severity: enforce, calibrate: true}"
    )
    (tmp_path / "calibrating.yaml").write_text(text)
    constraint = {"type": "Inequality", "low_column_name": "low", "high_column_name": "high"}
    gen = safegen.Generator(
        policy=tmp_path / "calibrating.yaml", ledger=ledger, options={"constraints": [constraint]}
    )
    made = gen.fit(table).generate(ROWS, tmp_path / "out")
    assert made.manifest.safeguards["selection"]["done"]["calibrated"] == ["x"]
    rows = made.to_arrow()
    assert (rows["low"].to_numpy() <= rows["high"].to_numpy()).all()


def test_rows_held_out_reach_neither_the_fit_nor_selection(
    place: Path, ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = (place / "selecting.yaml").read_text() + "  fidelity: {severity: warn, held_out: 0.2}\n"
    (tmp_path / "holding.yaml").write_text(rules)
    gen = safegen.Generator(policy=tmp_path / "holding.yaml", ledger=ledger)
    shown: dict[str, set[float]] = {}
    fit, select = type(gen._backend).fit, sampling.shape_for

    def fitting(self: Any, tables: Any, *more: Any, **named: Any) -> Any:
        shown["fit"] = set(tables["table"].column("x").to_pylist())
        return fit(self, tables, *more, **named)

    def selecting(real: pa.Table, *more: Any, **named: Any) -> Any:
        shown["selection"] = set(real.column("x").to_pylist())
        return select(real, *more, **named)

    monkeypatch.setattr(type(gen._backend), "fit", fitting)
    monkeypatch.setattr(sampling, "shape_for", selecting)
    gen.fit(place / "real.parquet", schema=SCHEMA).generate(500, tmp_path / "out")
    parts = gen._ready().parts
    assert parts is not None
    held = set(parts.held["table"].column("x").to_pylist())
    assert 0.15 * ROWS < len(held) < 0.25 * ROWS
    for rows in shown.values():
        assert not rows & held
        assert len(rows | held) == ROWS
    assert shown.keys() == {"fit", "selection"}


class Rejecting:
    """A backend that takes no conditions, and says yes as often as its source does."""

    name, license = "rejecting", "Apache-2.0"
    kinds, packages = frozenset({"table"}), ()
    weights = conditions = pickles = False
    reproducible, block_rows, Options = True, 8_192, BackendOptions

    def fit(self, tables: Any, schemas: Any, options: Any, *, seed: int) -> Any:
        ((_, table),) = tables.items()
        self.share = np.mean(np.asarray(table.column("label")) == "yes")
        return self

    def sample(self, rows: int, *, seed: int, block: int, conditions: Any = None) -> Any:
        rng = np.random.default_rng(stream(seed, block))
        label = np.where(rng.random(rows) < self.share, "yes", "no")
        return {"table": pa.table({"x": rng.normal(size=rows), "label": label})}


@pytest.mark.parametrize("policy", ["selecting", "both"])
def test_a_condition_that_is_too_rare_for_the_policy_is_told_as_that(
    place: Path, ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """Three rows are asked for, and many more are needed to select them."""
    load = safegen.plugins.load
    monkeypatch.setattr(
        safegen.plugins, "load", lambda g, n: Rejecting if n == "rejecting" else load(g, n)
    )

    def made(share: float, name: str) -> safegen.Dataset:
        label = np.where(np.arange(ROWS) < share * ROWS, "yes", "no")
        table = pa.table({"x": people()["x"], "label": label})
        gen = safegen.Generator("rejecting", policy=place / f"{name}.yaml", ledger=ledger)
        out = tmp_path / f"{name}-{share}"
        return gen.fit(table, schema=SCHEMA).generate(3, out, conditions={"label": "yes"})

    assert made(0.3, policy).manifest.rows == 3
    text = (place / "selecting.yaml").read_text()
    text = text.replace("selection: {severity: enforce}", "selection: {severity: off}")
    (place / "neither.yaml").write_text(text)
    assert made(0.005, "neither").manifest.rows == 3
    with pytest.raises(BackendError) as error:
        made(0.005, policy)
    said = str(error.value)
    assert "the policy (selection, tails) needs" in said
    assert "to find its constants, however few are asked for" in said
    assert "fewer rows" not in said
    assert "use a policy that does not, or fit a backend that takes conditions" in said
