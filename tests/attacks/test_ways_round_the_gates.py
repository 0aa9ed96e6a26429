"""Evidence that is lost, stale, forged or crowded out, and a backend that does more than asked."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import safegen
from safegen.decision import Finding, decide
from safegen.engines.writing import PartWriter
from safegen.ledger import open_ledger
from safegen.lineage.documents import sidecar_of
from safegen.manifest.canonical import canonical_bytes, digest_of, parse_canonical
from safegen.tables.stamps import stamped
from safegen.testing import example_table

TODAY = datetime.now(UTC).date()
YESTERDAY = TODAY - timedelta(days=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "own-ledger.db"


@pytest.fixture
def real(tmp_path: Path) -> Path:
    pq.write_table(example_table(800, seed=77), tmp_path / "real.parquet")
    return tmp_path / "real.parquet"


def tomorrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the lineage code live two days later."""
    from safegen.lineage import roots

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(days=2)

    monkeypatch.setattr(roots, "datetime", Later)


def test_a_saved_model_does_not_outlive_its_attestation(
    real: Path, ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safegen.attest(real, by="a tester", expires=TODAY, ledger=ledger)
    safegen.Generator(ledger=ledger).fit(real).save(tmp_path / "model")
    gen = safegen.Generator.load(tmp_path / "model", ledger=ledger)
    assert gen.decision is not None
    assert not gen.decision.warnings
    tomorrow(monkeypatch)
    later = safegen.Generator.load(tmp_path / "model", ledger=ledger)
    assert later.decision is not None
    assert "unattested" in [r.finding.check for r in later.decision.warnings]


def test_a_saved_model_does_not_outlive_what_the_ledger_learns(
    real: Path, ledger: Path, tmp_path: Path
) -> None:
    safegen.Generator(ledger=ledger).fit(real).save(tmp_path / "model")
    assert safegen.Generator.load(tmp_path / "model", ledger=ledger)
    safegen.attest(real, "synthetic", by="a tester", ledger=ledger)
    with pytest.raises(safegen.AdmissionRefused):
        safegen.Generator.load(tmp_path / "model", ledger=ledger)


def test_a_derivation_does_not_outlive_the_attestation_of_its_source(
    real: Path, ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safegen.attest(real, by="a tester", expires=TODAY, ledger=ledger)
    frame = pd.read_parquet(real).query("age > 30")
    safegen.derive(frame, [real], ledger=ledger)
    assert not safegen.check(frame, policy="baseline", ledger=ledger).warnings
    tomorrow(monkeypatch)
    assert safegen.check(frame, policy="baseline", ledger=ledger).warnings


def test_a_rewritten_sidecar_does_not_outweigh_the_ledger(real: Path, ledger: Path) -> None:
    safegen.attest(real, by="a tester", expires=YESTERDAY, ledger=ledger)
    assert not safegen.check(real, ledger=ledger).allowed
    sidecar = sidecar_of(real)
    forged = safegen.Manifest.read(sidecar).model_copy(update={"expires": None}).sealed()
    sidecar.write_bytes(forged.to_bytes())
    assert not safegen.check(real, ledger=ledger).allowed
    safegen.attest(real, by="a tester", ledger=ledger)
    assert safegen.check(real, ledger=ledger).allowed


def test_a_signature_that_is_not_of_the_statement_beside_it_spoils_it(
    real: Path, tmp_path: Path
) -> None:
    from safegen.manifest import new_key

    new_key(tmp_path / "key")
    first, other = tmp_path / "first.db", tmp_path / "other.db"
    safegen.attest(real, by="a tester", ledger=first, key=tmp_path / "key")
    assert safegen.check(real, ledger=other).allowed  # by the sidecar alone
    sidecar_of(real).with_suffix(".dsse.json").write_bytes(b"{}")
    assert not safegen.check(real, ledger=other).allowed


@pytest.mark.parametrize(
    "save",
    [
        lambda f, p: f.sample(frac=1, random_state=1).to_csv(p),
        lambda f, p: f.reset_index().to_csv(p, index=False),
        lambda f, p: f.reset_index().reset_index().to_csv(p, index=False),
    ],
    ids=["index", "reset", "twice"],
)
def test_an_index_column_does_not_hide_a_copy(
    save: Any, real: Path, ledger: Path, tmp_path: Path
) -> None:
    made = safegen.Generator(ledger=ledger).fit(real).generate(500, tmp_path / "out").to_pandas()
    save(made, tmp_path / "copy.csv")
    assert not safegen.check(tmp_path / "copy.csv", policy="baseline", ledger=ledger).allowed
    save(pd.read_parquet(real), tmp_path / "honest.csv")
    assert safegen.check(tmp_path / "honest.csv", policy="baseline", ledger=ledger).allowed


def test_rows_that_leave_untagged_are_refused(
    real: Path, ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gen = safegen.Generator(ledger=ledger).fit(real)
    with monkeypatch.context() as broken:
        broken.setattr(PartWriter, "_tagged", lambda self, table, weights: table)
        with pytest.raises(safegen.ReleaseRefused) as refused:
            gen.generate(300, tmp_path / "out")
    assert refused.value.decision.findings["manifest/in-band"].status == "unmet"
    assert gen.generate(300, tmp_path / "out").manifest.rows == 300


def test_a_table_that_nobody_asked_for_does_not_leave(
    real: Path, ledger: Path, tmp_path: Path
) -> None:
    gen = safegen.Generator(ledger=ledger).fit(real)
    inner: Any = gen._model
    extra = pa.table({"name": ["somebody"]})
    gen._model = SimpleNamespace(  # type: ignore[assignment]
        sample=lambda rows, **more: {**inner.sample(rows, **more), "extra": extra}
    )
    with pytest.raises(safegen.BackendError, match="other tables"):
        gen.generate(100, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    gen._model = inner
    assert gen.generate(100, tmp_path / "out").manifest.rows == 100


def test_a_status_that_nobody_knows_is_no_pass() -> None:
    policy = safegen.Policy.load("baseline")
    for status, allowed in (("met", True), ("failed", False), ("", False)):
        finding = Finding("lineage", "depth", status, "seen", "wanted")  # type: ignore[arg-type]
        findings = [finding, Finding("manifest", "signature", "met", "seen", "wanted")]
        assert decide(policy, "admission", findings, ledger={}).allowed is allowed


def test_a_few_marked_rows_do_not_dilute_a_stamp(ledger: Path) -> None:
    table = example_table(1000, seed=5)
    stamp = {"dataset_id": "0" * 26, "origin": "synthetic", "depth": 2.0}
    deep = table.replace_schema_metadata(stamped(table.schema, stamp).metadata)
    assert not safegen.check(deep, policy="anchored", ledger=ledger).allowed
    marks = pa.array([2.0] + [None] * 999, pa.float32())
    marked = deep.append_column("_safegen_depth", marks)
    assert not safegen.check(marked, policy="anchored", ledger=ledger).allowed
    assert safegen.check(table, policy="anchored", ledger=ledger).allowed


def test_one_marked_row_does_not_speak_for_the_others(tmp_path: Path, ledger: Path) -> None:
    text = Path(safegen.__file__).parents[2] / "policies" / "anchored.yaml"
    policy = tmp_path / "mine.yaml"
    policy.write_text(text.read_text().replace("unattested: warn", "unattested: refuse"))
    table = example_table(1000, seed=6)
    assert not safegen.check(table, policy=policy, ledger=ledger).allowed
    marks = pa.array(["synthetic"] + [None] * 999)
    marked = table.append_column("_safegen_origin", marks)
    assert not safegen.check(marked, policy=policy, ledger=ledger).allowed
    safegen.attest(table, by="a tester", ledger=ledger)
    assert safegen.check(table, policy=policy, ledger=ledger).allowed


def test_a_stamp_cannot_command_the_terminal(ledger: Path) -> None:
    table = example_table(100)
    stamp = {"dataset_id": "\x1b[2J\x1b[HADMITTED", "origin": "synthetic", "depth": 1.0}
    bad = table.replace_schema_metadata(stamped(table.schema, stamp).metadata)
    text = str(safegen.check(bad, policy="baseline", ledger=ledger))
    assert text.startswith("REFUSED")
    assert "\x1b" not in text


def test_a_lost_level_among_many_is_refused(ledger: Path, tmp_path: Path) -> None:
    """Thirty thousand rows, more than ten thousand levels, one of them in every second row."""
    rng = np.random.default_rng(4)
    words = [f"w{i}" for i in range(30_000)]
    names = [words[i] if rng.random() < 0.5 else "common" for i in range(30_000)]
    table = pa.table({"x": rng.normal(size=30_000), "name": names})
    schema = {"columns": {"name": {"kind": "categorical"}}}
    gen = safegen.Generator(ledger=ledger).fit(table, schema=schema)
    inner: Any = gen._model

    def lost(rows: int, **more: Any) -> dict[str, pa.Table]:
        made = inner.sample(rows, **more)["table"]
        kept = ["w1" if v == "common" else v for v in made.column("name").to_pylist()]
        index = made.schema.get_field_index("name")
        return {"table": made.set_column(index, made.schema.field("name"), pa.array(kept))}

    assert gen.generate(2000, tmp_path / "honest").manifest.rows == 2000
    gen._model = SimpleNamespace(sample=lost)  # type: ignore[assignment]
    with pytest.raises(safegen.ReleaseRefused) as refused:
        gen.generate(2000, tmp_path / "lost")
    assert "name#1" in refused.value.decision.findings["support/levels"].evidence[0]


def test_workers_import_nothing_from_the_working_folder(tmp_path: Path, ledger: Path) -> None:
    """A file named like a library lies beside the data; one process or two must not run it."""
    (tmp_path / "threadpoolctl.py").write_text("open('ran', 'w').write('yes')")
    (tmp_path / "scipy.py").write_text("open('ran', 'w').write('yes')")
    script = (
        "import sys; sys.path = [p for p in sys.path if p]\n"
        "import safegen\nfrom safegen.testing import example_table\n"
        "g = safegen.Generator(ledger=sys.argv[1]).fit(example_table(300))\n"
        "print(g.generate(66_000, 'out', workers=2).manifest.rows)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, str(ledger)],
        cwd=tmp_path,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "66000"
    assert not (tmp_path / "ran").exists()


def test_a_ledger_that_lost_its_key_takes_no_release(
    real: Path, ledger: Path, tmp_path: Path
) -> None:
    from safegen.folders import config_folder

    gen = safegen.Generator(ledger=ledger).fit(real)
    assert gen.generate(100, tmp_path / "before")
    ledger_id = open_ledger(ledger).ledger_id
    key = next((config_folder() / "keys").glob(f"{ledger_id}*"))
    key.rename(tmp_path / "key-elsewhere")
    with pytest.raises(safegen.LedgerError, match="no key here"):
        gen.generate(100, tmp_path / "after")
    assert not (tmp_path / "after").exists()


def test_a_strangers_model_cannot_borrow_the_digest_of_attested_data(
    real: Path, ledger: Path, tmp_path: Path
) -> None:
    """A model of who knows what names a table that this ledger knows to be real."""
    attested = safegen.attest(real, by="a tester", ledger=ledger)
    gen = safegen.Generator(ledger=tmp_path / "elsewhere.db").fit(example_table(300, seed=8))
    gen.save(tmp_path / "model")
    place = tmp_path / "model" / "safegen.model.json"
    document = parse_canonical(place.read_bytes(), "the model")
    document.pop("digest")
    document["facts"][0]["logical_digest"] = attested.logical_digest
    place.write_bytes(canonical_bytes({**document, "digest": digest_of(document)}))
    forged = safegen.Generator.load(tmp_path / "model", ledger=ledger)
    assert forged.decision is not None
    assert "unattested" in [r.finding.check for r in forged.decision.warnings]
    safegen.Generator(ledger=ledger).fit(real).save(tmp_path / "honest")
    honest = safegen.Generator.load(tmp_path / "honest", ledger=ledger)
    assert honest.decision is not None
    assert not honest.decision.warnings
