"""Related tables, from files to a released dataset and back to a refusal."""

from __future__ import annotations

import datetime
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import safegen
from safegen.backends.sdv.hierarchy import HierarchyModel
from safegen.backends.sdv.hma import HMA, Options
from safegen.cli import main
from safegen.dataset import Dataset
from safegen.errors import AdmissionRefused, BackendError, UsageError
from safegen.gates import Release
from safegen.measure.profile import TableTally, profiles
from safegen.policy import Policy
from safegen.safeguards.schema import SchemaKept
from safegen.tables.relations import references, related
from safegen.tables.schema import infer_schema
from safegen.tables.units import units

BANK = Path(os.environ.get("SAFEGEN_TEST_DATA", "../shared/data")) / "berka"


def bank(accounts: int = 300, seed: int = 0) -> dict[str, pa.Table]:
    """Districts, accounts, orders, and disponents of two parents; child tables hold traps."""
    rng = np.random.default_rng(seed)
    district = rng.integers(0, 40, accounts)
    ids = 10_000 + np.arange(accounts)
    orders = rng.choice([0, 1, 2, 5], accounts, p=[0.4, 0.3, 0.2, 0.1])
    owner = np.repeat(np.arange(accounts), orders)
    rich = rng.random(accounts) < 0.3
    amount = np.where(rich[owner], 1_000.0, 10.0) * rng.lognormal(0, 0.3, len(owner))
    day = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    when = [day + datetime.timedelta(minutes=int(m)) for m in rng.integers(0, 500_000, len(owner))]
    kind = pa.array(
        rng.choice(["a", "b", "c"], len(owner), p=[0.7, 0.25, 0.05])
    ).dictionary_encode()
    clients = 200
    return {
        "district": pa.table(
            {"district_id": np.arange(40), "people": rng.integers(1_000, 9_000, 40)}
        ),
        "account": pa.table(
            {
                "account_id": ids,
                "district_id": district,
                "rich": rich,
                "since": pa.array(rng.integers(9_000, 19_000, accounts).astype("datetime64[D]")),
            }
        ),
        "order": pa.table(
            {
                "order_id": pa.array([f"o-{i}" for i in range(len(owner))]),
                "account_id": pa.array(ids[owner], pa.int64()),
                "amount": amount,
                "kind": kind,
                "day": pa.array(when, pa.timestamp("ms")),
                "moment": pa.array(when, pa.timestamp("us", tz="Europe/Berlin")),
                "count": pa.array(rng.integers(0, 9, len(owner)), pa.int16(), mask=owner % 7 == 0),
            }
        ),
        "client": pa.table({"client_id": np.arange(clients), "age": rng.integers(18, 90, clients)}),
        "disp": pa.table(
            {
                "disp_id": np.arange(500),
                "account_id": ids[rng.integers(0, accounts, 500)],
                "client_id": pa.array(rng.integers(0, clients, 500), mask=rng.random(500) < 0.2),
            }
        ),
    }


def roles(tables: dict[str, pa.Table], schema: Any = None) -> dict[str, Any]:
    return related(tables, {n: infer_schema(t) for n, t in tables.items()}, {})


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    return bank()


@pytest.fixture(scope="module")
def model(tables: dict[str, pa.Table]) -> HierarchyModel:
    return HMA().fit(tables, roles(tables), Options(), seed=3)


def orphans(made: dict[str, pa.Table], schemas: dict[str, Any]) -> dict[str, int]:
    return {
        str(r): pc.sum(
            pc.invert(
                pc.is_in(
                    made[r.table].column(r.column).drop_null(),
                    value_set=made[r.parent].column(r.key),
                )
            )
        ).as_py()
        or 0
        for r in references(schemas)
    }


def test_every_link_of_the_bank_is_detected(tables: dict[str, pa.Table]) -> None:
    assert {str(r): r.target for r in references(roles(tables))} == {
        "account.district_id": "district.district_id",
        "order.account_id": "account.account_id",
        "disp.account_id": "account.account_id",
        "disp.client_id": "client.client_id",
    }


def test_no_orphan_no_repeated_key_over_all_blocks(model: Any, tables: Any) -> None:
    schemas = roles(tables)
    blocks = [model.sample(n, seed=5, block=b) for b, n in ((0, 1_024), (1, 1_024), (2, 300))]
    for block in blocks:
        assert set(orphans(block, schemas).values()) == {0}
    whole = {n: pa.concat_tables([b[n] for b in blocks]) for n in tables}
    for name, key in (("district", "district_id"), ("account", "account_id"), ("disp", "disp_id")):
        column = whole[name].column(key)
        assert pc.count_distinct(column).as_py() == len(column) > 300
        assert not pc.any(pc.is_in(column, value_set=tables[name].column(key))).as_py()  # no real
    assert orphans(whole, schemas) == dict.fromkeys(orphans(whole, schemas), 0)


def test_units_types_and_nulls_are_kept(model: Any, tables: Any) -> None:
    for rows in (1, 2, 17, 1_024):
        made = model.sample(rows, seed=5, block=0)
        assert made["district"].num_rows + made["client"].num_rows == rows
    for name, table in tables.items():
        assert made[name].schema.equals(table.schema), name
    null = made["disp"].column("client_id").null_count / made["disp"].num_rows
    assert 0.15 < null < 0.25
    years = pc.year(made["order"].column("day"))
    assert pc.min_max(years).as_py() == {"min": 2020, "max": 2020}
    assert set(made["order"].column("kind").unique().to_pylist()) == {"a", "b", "c"}


def test_fewer_units_are_a_prefix_in_every_table(model: Any) -> None:
    whole, part = (model.sample(n, seed=5, block=1) for n in (1_024, 400))
    for name, table in part.items():
        assert whole[name].slice(0, table.num_rows).equals(table), name
        assert 0.2 < table.num_rows / whole[name].num_rows < 0.6, name


def test_the_same_seed_and_only_that_gives_the_same_rows(model: Any, tables: Any) -> None:
    first = model.sample(64, seed=5, block=0)
    assert model.sample(64, seed=5, block=0) == first
    assert model.sample(64, seed=6, block=0)["account"] != first["account"]
    assert model.sample(64, seed=5, block=1)["account"] != first["account"]


def test_fitting_repeats_and_leaves_no_trace(tables: Any, tmp_path: Path) -> None:
    before = {n: t.slice(0) for n, t in tables.items()}
    states = random.getstate(), str(np.random.get_state())
    for name in ("one", "two"):
        HMA().fit(tables, roles(tables), Options(), seed=3).save(tmp_path / name)
    assert (random.getstate(), str(np.random.get_state())) == states
    assert tables == before
    for file in ("model.json", "arrays.npz"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_saved_model_gives_the_same_rows_and_a_broken_one_an_error(
    model: Any, tmp_path: Path
) -> None:
    model.save(tmp_path / "m")
    again = HMA().load(tmp_path / "m")
    assert again.sample(99, seed=1, block=2) == model.sample(99, seed=1, block=2)
    assert b"pickle" not in (tmp_path / "m" / "model.json").read_bytes()
    (tmp_path / "m" / "model.json").write_text('{"format": "safegen.hierarchy/1"}')
    with pytest.raises(BackendError, match="fit it again"):
        HMA().load(tmp_path / "m")


def test_children_are_as_their_parents(model: Any, tables: Any) -> None:
    """Rich accounts have large orders; four accounts in ten have none; a client's age is kept."""

    def seen(made: Any) -> tuple[float, float]:
        account = made["account"]
        columns = (account[c].to_pylist() for c in ("account_id", "rich"))
        rich = dict(zip(*columns, strict=True))
        orders = made["order"]
        amount = np.asarray(orders.column("amount"))
        of_rich = np.array([rich[a] for a in orders.column("account_id").to_pylist()])
        none = 1 - pc.count_distinct(orders.column("account_id")).as_py() / len(rich)
        return float(np.median(amount[of_rich]) / np.median(amount[~of_rich])), none

    ratio, none = seen(model.sample(1_024, seed=8, block=0))
    assert seen(tables)[0] > 50
    assert ratio > 5
    assert abs(none - seen(tables)[1]) < 0.08


def test_tables_of_keys_alone_and_one_child_each(tables: Any) -> None:
    keys = {
        "client": pa.table({"client_id": range(40)}),
        "card": pa.table({"client_id": range(40), "colour": ["red", "blue"] * 20}),
    }
    schemas = roles(keys)
    assert [str(r) for r in references(schemas)] == ["card.client_id"]
    made = HMA().fit(keys, schemas, Options(), seed=1).sample(100, seed=1, block=0)
    assert made["client"].num_rows == made["card"].num_rows == 100
    assert pc.count_distinct(made["card"].column("client_id")).as_py() == 100


def test_tables_that_are_nothing_but_keys() -> None:
    """A join table has no feature of its own, nor has a table of one id."""
    keys = {
        "student": pa.table({"student_id": np.arange(60), "year": np.arange(60) % 4}),
        "course": pa.table({"course_id": np.arange(30), "hours": np.arange(30) % 5}),
        "enrolment": pa.table(
            {"student_id": np.arange(240) % 60, "course_id": np.arange(240) * 7 % 30}
        ),
    }
    made = HMA().fit(keys, roles(keys), Options(), seed=1).sample(90, seed=1, block=0)
    for name in ("student", "course"):
        held = made["enrolment"].column(f"{name}_id")
        assert pc.all(pc.is_in(held, value_set=made[name].column(f"{name}_id"))).as_py()
    assert 200 < made["enrolment"].num_rows < 280


def test_rows_whose_first_key_is_null_are_as_many_as_they_were() -> None:
    """They hang on a parent drawn at random, who then has more than any had rows with a key."""
    rng = np.random.default_rng(4)
    held = pa.array([*range(200), *[None] * 1_800])
    real = {
        "parent": pa.table({"parent_id": np.arange(200), "z": rng.normal(size=200)}),
        "child": pa.table({"parent_id": held, "x": rng.normal(size=2_000)}),
    }
    made = HMA().fit(real, roles(real), Options(), seed=1).sample(200, seed=1, block=0)
    rows, lost = made["child"].num_rows, made["child"].column("parent_id").null_count
    assert rows == pytest.approx(2_000, rel=0.1)
    assert lost / rows == pytest.approx(0.9, abs=0.03)


def test_a_block_without_rows_of_a_table_is_released(tmp_path: Path) -> None:
    """Three of 3,000 parents have all the children: most blocks have none."""
    rng = np.random.default_rng(5)
    real = {
        "parent": pd.DataFrame({"parent_id": np.arange(3_000), "z": rng.normal(size=3_000)}),
        "child": pd.DataFrame({"parent_id": np.repeat([5, 6, 7], 40), "x": rng.normal(size=120)}),
    }
    gen = safegen.Generator("sdv.hma", policy="lab").fit(real)
    dataset = gen.generate(5_000, tmp_path / "out", workers=1)
    entries = [f for f in dataset.manifest.files if f.table == "child"]
    assert len(entries) < len([f for f in dataset.manifest.files if f.table == "parent"])
    assert sum(f.rows or 0 for f in entries) == dataset.manifest.extra["table_rows"]["child"]
    safegen.verify(dataset.path, deep=True)


def test_what_never_varies_within_parents_has_no_correlation_there() -> None:
    """Means in floating point leave residuals of 1e-16, and these correlate with anything."""
    rng = np.random.default_rng(6)
    kind = rng.integers(0, 3, 400)
    owner = np.repeat(np.arange(400), 3)
    levels = {n: pa.array(np.array(list("uvw"))[(kind + i) % 3][owner]) for i, n in enumerate("ab")}
    real = {
        "parent": pa.table({"parent_id": np.arange(400), "z": rng.normal(size=400)}),
        "child": pa.table({"parent_id": owner, **levels, "x": rng.normal(size=1_200)}),
    }
    within = HMA().fit(real, roles(real), Options(), seed=1).tiers["child"].correlation
    assert np.abs(within - np.eye(3)).max() < 0.1


@pytest.mark.parametrize("wrong", [-1.0, 1e300, float("nan")])
def test_variances_that_none_can_be_are_refused(
    model: HierarchyModel, tmp_path: Path, wrong: float
) -> None:
    model.save(tmp_path)
    HierarchyModel.load(tmp_path)
    arrays = dict(np.load(tmp_path / "arrays.npz"))
    name = next(n for n in arrays if n.endswith("_variances") and arrays[n].size)
    arrays[name][0, 1, 0] = wrong
    np.savez(tmp_path / "arrays.npz", **arrays)
    with pytest.raises(BackendError, match="fit it again"):
        HierarchyModel.load(tmp_path)


def test_a_distribution_for_a_table_with_a_dot_in_its_name() -> None:
    tables = {
        "a.b": pa.table({"b_id": np.arange(300), "z": np.random.default_rng(0).gamma(2, 1, 300)})
    }
    options = Options(numerical_distributions={"a.b.z": "uniform"})
    model = HMA().fit(tables, roles(tables), options, seed=1)
    (marginal,) = model.tiers["a.b"].marginals
    assert marginal.parametric  # type: ignore[attr-defined]


def alike(table: pa.Table, key: str, column: str) -> float:
    """How much two rows of one parent go together: the rank correlation of all such pairs."""
    frame = table.to_pandas()
    ranks = frame[column].rank()
    ranks -= ranks.mean()
    groups = ranks.groupby(frame[key])
    others = (groups.transform("sum") - ranks) / (groups.transform("size") - 1)
    some = groups.transform("size") > 1
    return float((others * ranks)[some].sum() / (ranks**2)[some].sum())


def test_children_are_as_much_alike_as_they_were_and_follow_their_parent_as_much() -> None:
    """A parent's few children were too much alike: the noise of their mean came on top of theirs.
    Here one of the parent's features about them is a constant, which once upset all the others."""
    rng = np.random.default_rng(0)
    size = 3_000
    z = rng.normal(size=size)
    part = 0.7 * z + 0.5 * rng.normal(size=size)
    owner = np.repeat(
        np.arange(size), rng.choice([0, 1, 2, 3, 8], size, p=[0.1, 0.2, 0.3, 0.3, 0.1])
    )
    width = np.exp(0.5 * rng.normal(size=size))
    noise = rng.normal(size=(2, len(owner)))
    x = part[owner] + 0.8 * width[owner] * noise[0]
    y = -0.5 * part[owner] + 0.6 * noise[0] + 0.8 * noise[1]
    real = {
        "parent": pa.table({"parent_id": np.arange(size), "z": z}),
        "child": pa.table({"parent_id": owner, "x": x, "y": y, "c": np.where(y > 0.7, "u", "v")}),
    }
    model = HMA().fit(real, roles(real), Options(), seed=1)
    blocks = [model.sample(1_024, seed=1, block=b) for b in range(3)]
    made = {n: pa.concat_tables([b[n] for b in blocks]) for n in real}
    for column in "xy":
        before, after = (alike(t["child"], "parent_id", column) for t in (real, made))
        assert after == pytest.approx(before, abs=0.06), column
    joined = [
        t["child"].to_pandas().merge(t["parent"].to_pandas(), on="parent_id") for t in (real, made)
    ]
    for a, b in (("x", "z"), ("y", "z"), ("x", "y")):
        before, after = (t[a].corr(t[b], method="spearman") for t in joined)
        assert after == pytest.approx(before, abs=0.06), (a, b)


def test_options_that_cannot_be_meant(tables: Any) -> None:
    options = Options(numerical_distributions={"order.amout": "norm"})
    with pytest.raises(UsageError, match=r"did you mean 'order\.amount'"):
        HMA().fit(tables, roles(tables), options, seed=1)
    with pytest.raises(UsageError, match="no conditions"):
        HMA().fit(tables, roles(tables), Options(), seed=1).sample(
            1, seed=1, block=0, conditions={"age": 3}
        )


# ---- the gate ------------------------------------------------------------------------------------


def keys_finding(tables: Any, made: Any) -> Any:
    schemas = roles(tables)
    real = profiles(tables, schemas)
    tallies = {n: TableTally(p) for n, p in real.items()}
    for name, table in made.items():
        for batch in table.to_batches(max_chunksize=100):
            tallies[name].update(batch)
    rows = sum(t.num_rows for t in made.values())
    asked = units(made, schemas)
    context = Release(rows, asked, {}, schemas, real, tallies)
    found = SchemaKept().release(context, Policy.load("baseline").rule("schema"))
    return next(f for f in found if f.check == "keys")


def test_orphans_and_repeated_keys_are_refused_at_release(model: Any, tables: Any) -> None:
    made = model.sample(500, seed=2, block=0)
    assert keys_finding(tables, made).status == "met"
    lost = {**made, "account": made["account"].slice(3)}
    finding = keys_finding(tables, lost)
    assert finding.status == "unmet"
    assert "order.account_id" in " ".join(finding.evidence)
    twice = {**made, "account": pa.concat_tables([made["account"], made["account"].slice(0, 2)])}
    finding = keys_finding(tables, twice)
    assert finding.status == "unmet"
    assert "2 keys repeat" in " ".join(finding.evidence)


# ---- the journey ---------------------------------------------------------------------------------


@pytest.fixture
def files(tables: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "bank"
    folder.mkdir()
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return folder


class Ran(NamedTuple):
    exit_code: int
    output: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def called(*args: object) -> Ran:
        try:
            main([str(a) for a in args])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        else:
            code = 0
        out, err = capsys.readouterr()
        return Ran(code, " ".join((out + err).split()))

    return called


def bare(released: Path, to: Path) -> Path:
    """The rows alone: no stamp, no provenance column, no manifest."""
    to.mkdir()
    for folder in sorted((released / "data").iterdir()):
        table = pq.read_table(folder)
        keep = [n for n in table.column_names if not n.startswith("_safegen_")]
        pq.write_table(
            table.select(keep).replace_schema_metadata(None), to / f"{folder.name}.parquet"
        )
    return to


def test_from_a_folder_to_a_dataset_and_back_to_a_refusal(
    run: Any, files: Path, tables: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = run("generate", files, "--backend", "sdv.hma", "--rows", 240, "--out", out)
    assert done.exit_code == 0, done.output
    assert "surrogates of that table" in done.output
    assert run("verify", out, "--deep").exit_code == 0
    ds = Dataset(out, safegen.verify(out))
    assert ds.manifest.kind == "tables"
    assert ds.tables == ("account", "client", "disp", "district", "order")
    told = {(c.table, c.name): c.references for c in ds.manifest.columns}
    assert told["order", "account_id"] == "account.account_id"
    assert told["order", "amount"] is None
    made = {n: ds.of(n).to_arrow() for n in ds.tables}
    assert made["district"].num_rows + made["client"].num_rows == 240
    assert set(orphans(made, roles(tables)).values()) == {0}

    stripped = bare(out, tmp_path / "stripped")
    for source in (out, stripped, {n: stripped / f"{n}.parquet" for n in ds.tables}):
        with pytest.raises(AdmissionRefused):
            safegen.guard(source, policy="baseline")
    for name in ds.tables:
        with pytest.raises(AdmissionRefused):
            safegen.guard(stripped / f"{name}.parquet", policy="baseline")
        with pytest.raises(AdmissionRefused):  # one released table among real ones
            safegen.guard({**tables, name: stripped / f"{name}.parquet"}, policy="baseline")
    assert safegen.guard(bank(seed=5), policy="baseline").allowed
    assert safegen.guard(files, policy="baseline").allowed  # the honest twin
    for name in ds.tables:
        assert safegen.guard(files / f"{name}.parquet", policy="baseline").allowed


def test_a_dict_of_frames_named_files_and_a_folder_are_one_source(
    run: Any, files: Path, tables: Any, tmp_path: Path
) -> None:
    named = [f"{n}={files / n}.parquet" for n in tables]
    ways: list[Any] = [
        tables,
        {n: t.to_pandas(types_mapper=pd.ArrowDtype) for n, t in tables.items()},
        files,
    ]
    made = []
    for number, way in enumerate(ways):
        gen = safegen.Generator("sdv.hma").fit(way)
        made.append(gen.generate(50, tmp_path / str(number)).manifest.logical_digest)
    done = run("generate", *named, "--backend", "sdv.hma", "-n", 50, "-o", tmp_path / "cli")
    assert done.exit_code == 0, done.output
    assert {*made, safegen.verify(tmp_path / "cli").logical_digest} == {made[0]}


def test_a_loaded_model_finds_its_tables_again(
    files: Path, tables: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    named = {n: f"{n}.parquet" for n in tables}
    safegen.Generator("sdv.hma").fit(named).save(tmp_path / "named")
    safegen.Generator("sdv.hma").fit(".").save(tmp_path / "folder")
    monkeypatch.chdir(tmp_path)
    first = safegen.Generator.load(tmp_path / "named").generate(50, tmp_path / "a")
    second = safegen.Generator.load(tmp_path / "folder").generate(50, tmp_path / "b")
    assert first.manifest.logical_digest == second.manifest.logical_digest
    (files / "order.parquet").unlink()
    gen = safegen.Generator.load(tmp_path / "named")
    with pytest.raises(safegen.ReleaseRefused, match="real rows"):
        gen.generate(50, tmp_path / "c")
    gen = safegen.Generator.load(tmp_path / "named", source=tables)
    assert gen.generate(50, tmp_path / "c").manifest.logical_digest == (
        first.manifest.logical_digest
    )


def test_a_model_is_not_loaded_when_one_of_its_tables_turns_out_released(
    files: Path, tables: Any, tmp_path: Path
) -> None:
    """What the ledger learns after the fit counts at load, of every table."""
    safegen.Generator("sdv.hma").fit(files).save(tmp_path / "model")
    assert safegen.Generator.load(tmp_path / "model").decision.allowed  # type: ignore[union-attr]
    safegen.attest(files / "order.parquet", "synthetic", by="its maker")
    with pytest.raises(AdmissionRefused):
        safegen.Generator.load(tmp_path / "model")


def test_a_folder_that_is_neither_says_how_to_name_tables(
    run: Any, files: Path, tmp_path: Path
) -> None:
    shutil.copy(files / "order.parquet", files / "order_of_last_year.parquet")
    done = run("generate", files, "--backend", "sdv.hma", "-n", 50, "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert "NAME=PATH" in done.output


def test_orphans_end_before_fitting_and_the_way_out_works(
    run: Any, files: Path, tables: Any, tmp_path: Path
) -> None:
    pq.write_table(tables["account"].slice(1), files / "account.parquet")
    args = ["generate", files, "--backend", "sdv.hma", "-n", 50, "-o", tmp_path / "out"]
    done = run(*args)
    assert done.exit_code == 2, done.output
    assert "disp.account_id: 1 value" in done.output
    assert "references: null" in done.output
    off = "{columns: {account_id: {references: null}}}"
    schema = f"tables: {{order: {off}, disp: {off}}}\n"
    (tmp_path / "roles.yaml").write_text(schema)
    done = run(*args, "--schema", tmp_path / "roles.yaml")
    assert done.exit_code == 0, done.output


def test_a_dry_run_forecasts_related_tables(run: Any, files: Path) -> None:
    done = run("generate", files, "--backend", "sdv.hma", "-n", 500, "--dry-run")
    assert done.exit_code == 0, done.output
    assert "fit, forecast" in done.output


@pytest.mark.slow
@pytest.mark.skipif(not BANK.exists(), reason="the Berka tables are not on this machine")
def test_berka_is_released_and_verified(run: Any, tmp_path: Path) -> None:
    named = [f"{n}={BANK / n}.parquet" for n in ("account", "order", "loan")]
    done = run("generate", *named, "--backend", "sdv.hma", "-n", 4_500, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert run("verify", tmp_path / "out", "--deep").exit_code == 0
