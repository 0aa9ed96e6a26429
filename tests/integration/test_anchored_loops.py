"""Loops that keep real rows, and ways to keep too few of them, through the front door."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

import safegen
from safegen.cli import main
from safegen.contracts import BackendOptions
from safegen.models import MODEL_NAME
from safegen.tables.streams import stream

ROWS = 4_200


def people(rows: int = ROWS, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    label = np.where(rng.random(rows) < 1 / (1 + np.exp(1.5 - x)), "yes", "no")
    return pa.table({"x": x, "label": label})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    pq.write_table(people(), tmp_path / "real.parquet")
    safegen.attest(tmp_path / "real.parquet", by="a tester", ledger=tmp_path / "ledger.db")
    return tmp_path


def generator(place: Path, policy: str | Path = "anchored", backend: str = "") -> Any:
    name = backend or "sdv.gaussian_copula"
    return safegen.Generator(name, policy=policy, ledger=place / "ledger.db")


def blocked(refusal: Any) -> set[str]:
    return {r.finding.name for r in refusal.value.decision.judged if r.outcome == "block"}


# ---- ratio and kept ------------------------------------------------------------------------------


def test_a_loop_that_keeps_its_real_rows_is_admitted_and_one_that_does_not_is_not(
    place: Path,
) -> None:
    real = place / "real.parquet"
    rules = policy(place, "severity: enforce}\n  selection: {severity: enforce")
    first = generator(place, rules).fit(real).generate(ROWS, place / "1")
    assert generator(place).fit(real, first).decision.allowed
    second = generator(place, rules).fit(real, first).generate(ROWS, place / "2")
    found = second.manifest.decisions[0]["findings"]
    for check in ("ratio", "kept", "age"):
        assert found[f"anchor/{check}"]["status"] == "met"
    assert found["anchor/gain"]["status"] in ("met", "inconclusive")
    assert found["anchor/gain"]["n"] == ROWS
    assert "selected as releases are" in found["anchor/gain"]["method"]
    # the real rows behind the second release are known through the first, in the ledger
    assert generator(place).prepare(real, second).findings["anchor/kept"].status == "met"

    with pytest.raises(safegen.AdmissionRefused) as alone:
        generator(place).fit(first)
    assert blocked(alone) == {"anchor/ratio", "anchor/kept"}

    pq.write_table(people().slice(0, ROWS // 2), half := place / "half.parquet")
    safegen.attest(half, by="a tester", ledger=place / "ledger.db")
    short = generator(place, rules).fit(real).generate(ROWS // 2, place / "short")
    after = generator(place, rules).fit(real, short).generate(ROWS // 2, place / "after")
    for release in (short, after):
        with pytest.raises(safegen.AdmissionRefused) as part:
            generator(place).prepare(half, release)
        assert "anchor/kept" in blocked(part)
    assert generator(place).prepare(real, short).findings["anchor/kept"].status == "met"

    other = generator(place, rules).fit(real, seed=8).generate(ROWS, place / "other", seed=12)
    with pytest.raises(safegen.AdmissionRefused) as both:
        generator(place).fit(real, first, other)
    assert blocked(both) == {"anchor/ratio"}


def test_rows_without_their_manifest_have_ancestors_that_nobody_knows(place: Path) -> None:
    """Columns say that they are synthetic, and nothing says of what: with their manifest they might
    have been refused, so without it they are."""
    real = place / "real.parquet"
    made = generator(place, "baseline").fit(real).generate(2_000, place / "1")
    pq.write_table(made.to_arrow(provenance=True).slice(0, 1_500), place / "part.parquet")
    with pytest.raises(safegen.AdmissionRefused) as refused:
        generator(place).prepare(real, place / "part.parquet")
    assert blocked(refused) == {"anchor/kept"}
    pq.write_table(made.to_arrow(), place / "whole.parquet")  # known to the ledger by its rows
    found = generator(place).prepare(real, place / "whole.parquet")
    assert found.findings["anchor/kept"].status == "met"


def test_real_rows_saved_as_csv_are_the_same_rows(place: Path) -> None:
    gen = generator(place, "baseline").fit(place / "real.parquet")
    made = gen.generate(2_000, place / "1")
    people().to_pandas().to_csv(place / "real.csv", index=False)
    found = generator(place).prepare(place / "real.csv", made)
    assert found.findings["anchor/kept"].status == "met"


def test_real_rows_count_once_however_often_they_are_named(place: Path) -> None:
    real = place / "real.parquet"
    gen = generator(place, "baseline").fit(real)
    made = [gen.generate(3_000, place / str(n), seed=n) for n in (1, 2)]
    people().to_pandas().to_csv(place / "real.csv", index=False)
    for again in (real, place / "real.csv", people()):
        with pytest.raises(safegen.UsageError, match="holds the same rows as"):
            generator(place).prepare(real, again, *made)


# ---- gain ----------------------------------------------------------------------------------------


class Doubling:
    """A generator that doubles the odds of `yes` at each fit, and is faithful otherwise."""

    name: ClassVar[str] = "doubling"
    kinds: ClassVar[Any] = frozenset({"table"})
    license: ClassVar[str] = "Apache-2.0"
    packages: ClassVar[tuple[str, ...]] = ()
    weights: ClassVar[bool] = False
    conditions: ClassVar[bool] = False
    reproducible: ClassVar[bool] = True
    pickles: ClassVar[bool] = False
    block_rows: ClassVar[int] = 16_384
    Options: ClassVar[type[BaseModel]] = BackendOptions
    factor: ClassVar[float] = 2.0
    fits: ClassVar[list[int]] = []

    def fit(self, tables: Mapping[str, pa.Table], schemas: Any, options: Any, *, seed: int) -> Any:
        ((_, table),) = tables.items()
        self.fits.append(table.num_rows)
        share = pc.mean(pc.equal(table.column("label"), "yes").cast(pa.float64())).as_py()
        share = share * self.factor / (1 + share * (self.factor - 1))
        return Doubled(share, float(pc.stddev(table.column("x")).as_py()))

    def load(self, folder: Path) -> Any:
        return Doubled(*json.loads((folder / "model.json").read_text()))


class Doubled:
    def __init__(self, share: float, width: float):
        self.share, self.width = share, width

    def sample(self, rows: int, *, seed: int, block: int, conditions: Any = None) -> Any:
        rng = np.random.default_rng(stream(seed, block))
        drawn = rng.random((rows, 1))
        x = np.random.default_rng(stream(seed, block, 1)).normal(0, self.width, rows)
        label = np.where(drawn[:, 0] < self.share, "yes", "no")
        return {"table": pa.table({"x": x, "label": label})}

    def save(self, folder: Path) -> None:
        (folder / "model.json").write_text(json.dumps([self.share, self.width]))


@pytest.fixture
def doubling(monkeypatch: pytest.MonkeyPatch) -> type[Doubling]:
    load = safegen.plugins.load
    monkeypatch.setattr(
        safegen.plugins,
        "load",
        lambda group, name: Doubling if name == "doubling" else load(group, name),
    )
    monkeypatch.setattr(Doubling, "fits", [])
    return Doubling


def policy(place: Path, anchor: str = "severity: enforce, max_synthetic_per_real: 2.0") -> Path:
    path = place / "loops.yaml"
    path.write_text(
        "schema: safegen.policy/v1\nid: loops\nversion: '1'\ndescription: a test\n"
        "contact: nobody\nrules:\n  lineage: {severity: enforce, max_depth: 1.0}\n"
        f"  manifest: {{severity: enforce}}\n  anchor: {{{anchor}}}\n"
    )
    return path


def test_a_generator_that_doubles_odds_needs_more_than_half_real_rows(
    place: Path, doubling: type[Doubling]
) -> None:
    """R5: refused at a real share of .4, before the fit that would have used it; fine at .7."""
    real, rules = place / "real.parquet", policy(place)
    made = generator(place, rules, "doubling").fit(real)
    many, few = (made.generate(n, place / str(n)) for n in (6_300, 1_800))
    doubling.fits.clear()
    gen = generator(place, rules, "doubling")
    gen.prepare(real, many)
    with pytest.raises(safegen.AdmissionRefused) as drift:
        gen.train()
    assert blocked(drift) == {"anchor/gain"}
    assert doubling.fits == [6_300]
    with pytest.raises(safegen.UsageError, match="fit the generator first"):
        gen.generate(100, place / "none")
    doubling.fits.clear()
    found = generator(place, rules, "doubling").fit(real, few)
    assert found.decision.findings["anchor/gain"].status == "met"
    assert doubling.fits == [1_800, 6_000]


def test_a_faithful_generator_is_admitted_where_the_doubling_one_is_not(
    place: Path, doubling: type[Doubling], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doubling, "factor", 1.0)
    real, rules = place / "real.parquet", policy(place)
    many = generator(place, rules, "doubling").fit(real).generate(6_300, place / "many")
    found = generator(place, rules, "doubling").fit(real, many).decision.findings
    assert found["anchor/gain"].status == "met"


def test_the_command_line_warns_of_a_loop_that_is_not_stable(
    place: Path,
    doubling: type[Doubling],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Once, as of other things, though it is known only when the fit is under way."""
    real, rules = place / "real.parquet", policy(place)
    made = generator(place, rules, "doubling").fit(real).generate(6_300, place / "many")
    rules = policy(place, "severity: warn, max_synthetic_per_real: 1.0")
    fitting = [real, made.path, "--backend", "doubling"]

    def said(command: str, *arguments: object) -> str:
        more = ["--policy", rules, "--ledger", place / "ledger.db"]
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in (command, *arguments, *more)])
        assert end.value.code == 0
        return capsys.readouterr().err

    new = [said("fit", *fitting, "--save", place / "model")]
    new += [said("generate", *fitting, "--rows", 500, "--out", place / "rows")]
    new += [said("generate", "--model", place / "model", "--rows", 500, "--out", place / "more")]
    for text in new:
        assert text.count("warning: largest") == 1
        assert text.count("next: the loop drifts by itself") == 1
        assert text.count("warning: 1.5 per real row") == 1
    monkeypatch.setattr(doubling, "factor", 1.0)
    stable = said("fit", *fitting, "--save", place / "faithful")
    assert stable.count("warning: 1.5 per real row") == 1
    assert "warning: largest" not in stable


def test_nobody_pays_for_a_probe_that_no_rule_asks_for(
    place: Path, doubling: type[Doubling]
) -> None:
    real = place / "real.parquet"
    off = policy(place, "severity: off")
    made = generator(place, off, "doubling").fit(real).generate(2_000, place / "1")
    generator(place, off, "doubling").fit(real, made)
    generator(place, policy(place), "doubling").fit(real)
    assert doubling.fits == [ROWS, ROWS + 2_000, ROWS]


def test_a_probe_that_fails_is_no_pass(
    place: Path, doubling: type[Doubling], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, rules = place / "real.parquet", policy(place)
    made = generator(place, rules, "doubling").fit(real).generate(2_000, place / "1")
    fit = doubling.fit

    def fails(self: Any, tables: Any, *rest: Any, **more: Any) -> Any:
        if next(iter(tables.values())).num_rows == 2_000:
            raise safegen.SourceError("CANARY")
        return fit(self, tables, *rest, **more)

    monkeypatch.setattr(doubling, "fit", fails)
    with pytest.raises(safegen.AdmissionRefused) as broken:
        generator(place, rules, "doubling").fit(real, made)
    assert blocked(broken) == {"anchor/gain"}
    assert "CANARY" not in str(broken.value)


UNUSABLE = {
    "fails": KeyError("CANARY"),
    "fails in Arrow": pa.ArrowInvalid("CANARY"),
    "other columns": lambda table: table.rename_columns(["x", "CANARY"]),
    "other types": lambda table: table.set_column(0, "x", pc.cast(table["x"], pa.string())),
    "no rows": lambda table: table.slice(0, 0),
}


@pytest.mark.parametrize("fault", UNUSABLE.values(), ids=UNUSABLE)
def test_a_refit_that_is_of_no_use_is_a_finding_and_no_traceback(
    place: Path, doubling: type[Doubling], monkeypatch: pytest.MonkeyPatch, fault: Any
) -> None:
    real, rules = place / "real.parquet", policy(place)
    made = generator(place, rules, "doubling").fit(real).generate(2_000, place / "1")
    sample = Doubled.sample

    def spoiled(self: Any, *rest: Any, **more: Any) -> Any:
        if isinstance(fault, Exception):
            raise fault
        return {"table": fault(sample(self, *rest, **more)["table"])}

    monkeypatch.setattr(Doubled, "sample", spoiled)
    gen = generator(place, rules, "doubling")
    gen.prepare(real, made)
    with pytest.raises(safegen.AdmissionRefused) as broken:
        gen.train()
    assert blocked(broken) == {"anchor/gain"}
    assert "no usable fit on the synthetic rows alone" in " ".join(str(broken.value).split())
    assert "CANARY" not in str(broken.value)


def test_a_refit_that_fails_says_what_its_backend_says(
    place: Path, doubling: type[Doubling], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is made of somebody who stops it."""
    real, rules = place / "real.parquet", policy(place)
    made = generator(place, rules, "doubling").fit(real).generate(2_000, place / "1")

    def stops(error: BaseException) -> Any:
        def sample(*rest: Any, **more: Any) -> Any:
            raise error

        monkeypatch.setattr(Doubled, "sample", sample)
        return generator(place, rules, "doubling").fit(real, made)

    with pytest.raises(safegen.AdmissionRefused, match="the library broke"):
        stops(safegen.BackendError("the library broke"))
    with pytest.raises(KeyboardInterrupt):
        stops(KeyboardInterrupt())


def test_a_saved_model_is_judged_again_by_its_probe(
    place: Path, doubling: type[Doubling], tmp_path: Path
) -> None:
    """What the model says of the probe counts where the ledger knows the model, and is judged under
    the policy of today; a stranger's probe proves nothing."""
    real, rules = place / "real.parquet", policy(place, "severity: audit")
    gen = generator(place, rules, "doubling")
    many = gen.fit(real).generate(6_300, place / "many")
    saved = generator(place, rules, "doubling").fit(real, many).save(place / "model")
    document = json.loads((saved / MODEL_NAME).read_text())
    assert document["probe"]["rows"] == [4_200, 6_300, 6_300]

    def loaded(words: str, ledger: str) -> Any:
        rules = policy(place, f"{words}, max_synthetic_per_real: 2.0")
        return safegen.Generator.load(saved, policy=rules, ledger=place / ledger)

    with pytest.raises(safegen.AdmissionRefused) as drift:
        loaded("severity: enforce", "ledger.db")
    assert blocked(drift) == {"anchor/gain"}
    lax = loaded("severity: enforce, max_gain: 1.5", "ledger.db")
    assert lax.decision.findings["anchor/gain"].status == "met"
    stranger = loaded("severity: warn, max_gain: 1.5", "other.db").decision.findings
    assert stranger["anchor/kept"].status == "unmet"
    assert {stranger[f"anchor/{c}"].status for c in ("age", "gain")} == {"inconclusive"}
    with pytest.raises(safegen.AdmissionRefused) as unknown:
        loaded("severity: enforce, max_gain: 1.5, inconclusive: fail", "other.db")
    assert {"anchor/kept", "anchor/age", "anchor/gain"} <= blocked(unknown)
