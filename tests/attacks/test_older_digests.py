"""Way round: wait until digests are made otherwise, so that nobody knows the old rows again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from forging import check, cli, document, is_refused_as_synthetic, reseal, rewrite, unmet

import safegen
from safegen.console.index import Index
from safegen.ledger import keys, open_ledger
from safegen.lineage import evidence
from safegen.lineage.evidence import as_of_now
from safegen.lineage.withdrawals import withdraw
from safegen.safeguards.anchor import _kept
from safegen.tables import digests
from safegen.tables.digests import SCHEMES, scheme_of
from safegen.tables.sources import read_source

V1, V2 = SCHEMES


@pytest.fixture(autouse=True)
def _ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger of its own for every test, whose keys may be lost."""
    monkeypatch.setenv("SAFEGEN_LEDGER", str(tmp_path / "own.db"))


@contextmanager
def before() -> Iterator[None]:
    """The version of safegen that made digests of the first scheme, and knew no other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digests, "SCHEME", V1)
        patch.setattr(evidence, "SCHEME", V1)
        for module in (digests, evidence):
            patch.setattr(module, "SCHEMES", (V1,))
        patch.setattr(digests.RowsDigest.value, "__defaults__", (V1,))
        yield


def rows(seed: int = 1, n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.integers(17, 90, n),
            "pay": rng.normal(30_000, 9_000, n).round(2),
            "job": rng.choice(["clerk", "nurse", "cook", "smith"], n),
        }
    )


def lose_keys() -> Callable[[], None]:
    """The ledger without its keys; the answer brings them back."""
    place = keys.key_file(open_ledger(None).ledger_id)
    aside = place.rename(place.with_name("aside"))

    def restore() -> None:
        aside.replace(place)

    return restore


def known(source: Any) -> evidence.SourceFacts:
    return evidence.resolve(read_source(source), open_ledger(None))


def rings(facts: evidence.SourceFacts) -> set[tuple[str, str]]:
    return {(e.ring, e.origin) for e in facts.evidence if e.proof}


# ---- bare rows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [False, True], ids=["with its keys", "its keys are lost"])
@pytest.mark.parametrize("source", ["as it was", "with an index"])
def test_rows_that_a_ledger_knows_by_an_older_digest_are_known(lost: bool, source: str) -> None:
    with before():
        safegen.attest(rows(), origin="synthetic", by="a test", tool="a tool")
    if lost:
        lose_keys()
    copy = rows() if source == "as it was" else rows().reset_index()
    assert is_refused_as_synthetic(check(copy))
    assert ("ledger", "synthetic") in rings(known(copy))
    # Where the lookup digest finds it, nothing is made twice.
    assert [scheme_of(d) for d in known(copy).digests] == ([V2, V1] if lost else [V2])
    assert "lineage/depth" not in unmet(check(rows(2)))


def test_a_record_that_was_made_without_keys_is_known_by_its_digest() -> None:
    """One record with keys beside it must not hide that another has none."""
    with before():
        safegen.attest(rows(3), by="a test")
        restore = lose_keys()
        safegen.attest(rows(), origin="synthetic", by="a test")
        restore()
    assert ("ledger", "synthetic") in rings(known(rows()))
    assert ("ledger", "real") in rings(known(rows(3)))
    assert rings(known(rows(2))) == set()


def test_one_table_of_several_is_known(tmp_path: Path) -> None:
    both = {"a": rows(), "b": rows(2)}
    with before():
        safegen.attest(both, origin="synthetic", by="a test")
        safegen.attest(rows(5), origin="synthetic", by="a test")
    assert known(both).others == ()
    assert ("ledger", "synthetic") in rings(known(both))
    lose_keys()
    facts = known({"b": rows(2), "a": rows()})
    assert [scheme_of(d) for d in facts.digests] == [V2, V1]
    assert ("ledger", "synthetic") in rings(facts)
    assert rings(known({"a": rows(5), "b": rows(6)})) == {("ledger", "synthetic")}
    assert rings(known({"a": rows(7), "b": rows(6)})) == set()


def test_a_ledger_of_new_records_asks_for_no_old_digest() -> None:
    safegen.attest(rows(), by="a test")
    assert known(rows()).others == ()
    lose_keys()
    assert known(rows()).others == ()
    assert ("ledger", "real") in rings(known(rows()))


# ---- statements beside a file --------------------------------------------------------------------


def test_an_old_attestation_beside_a_file_counts(tmp_path: Path) -> None:
    path, other = tmp_path / "real.parquet", tmp_path / "other.parquet"
    rows().to_parquet(path)
    with before():
        made = safegen.attest(path, by="a test")
    assert scheme_of(made.logical_digest) == V1
    Path(f"{path}.safegen.json").rename(f"{other}.safegen.json")
    rows(2).to_parquet(other)
    Path(f"{path}.safegen.json").write_bytes(Path(f"{other}.safegen.json").read_bytes())
    found = [e for e in known(path).evidence if e.ring == "sidecar"]
    assert [e.origin for e in found] == ["real"]
    assert known(path).attested
    wrong = [e for e in known(other).evidence if e.ring == "sidecar"]
    assert [e.origin for e in wrong] == ["unknown"]
    assert "other content" in wrong[0].text
    assert not known(other).attested


# ---- releases ------------------------------------------------------------------------------------


@pytest.fixture
def real(tmp_path: Path) -> Path:
    path = tmp_path / "real.parquet"
    rows(9, 1_500).to_parquet(path)
    return path


def a_release(real: Path, out: Path, policy: str = "baseline", **more: Any) -> safegen.Dataset:
    gen = safegen.Generator("sdv.gaussian_copula", policy=policy).fit(real, seed=1)
    return gen.generate(300, out, seed=2, **more)


@pytest.mark.parametrize("lost", [False, True], ids=["with its keys", "its keys are lost"])
def test_a_release_that_was_withdrawn_stays_so_when_it_is_made_again(
    real: Path, tmp_path: Path, lost: bool
) -> None:
    with before():
        safegen.attest(real, by="a test")
        old = a_release(real, tmp_path / "old")
    again = a_release(real, tmp_path / "again")
    assert scheme_of(old.manifest.logical_digest) == V1
    assert scheme_of(again.manifest.logical_digest) == V2
    assert check(again, "training").allowed
    withdraw(open_ledger(None), old.manifest.dataset_id, by="a test", reason="a test")
    if lost:
        lose_keys()
    assert "withdrawn" in str(check(again, "training"))
    assert not check(again, "training").allowed


def test_a_released_folder_is_known_by_all_records_of_its_rows(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with before():
        safegen.attest(real, by="a test")
        old = a_release(real, tmp_path / "old")
    again = a_release(real, tmp_path / "again")
    ids = {old.manifest.dataset_id, again.manifest.dataset_id}

    def recorded(made: safegen.Dataset) -> set[str | None]:
        facts = evidence.resolve_released(read_source(made.path), open_ledger(None))
        return {e.dataset_id for e in facts.evidence if e.ring == "ledger"}

    with monkeypatch.context() as patch:  # its own record's lookup digests find the old one
        patch.setattr(evidence, "looked", None)
        assert recorded(again) == ids
    assert recorded(old) == ids
    restore, copy = lose_keys(), pd.DataFrame(again.to_pandas().to_dict("list"))
    with before():
        ids.add(safegen.attest(copy, origin="synthetic", by="a test").dataset_id)
    ids.add(safegen.attest(copy, origin="synthetic", by="a test").dataset_id)
    restore()
    assert len(ids) == 4
    assert recorded(again) == recorded(old) == ids


def test_old_releases_open_verify_and_are_told_from_their_copies(
    real: Path, tmp_path: Path
) -> None:
    with before():
        safegen.attest(real, by="a test")
        old = a_release(real, tmp_path / "old")
    assert safegen.verify(old.path, deep=True).logical_digest == old.manifest.logical_digest
    assert len(safegen.open(old.path).to_pandas()) == 300
    assert check(old.path, "training").allowed
    copy = tmp_path / "copy.parquet"
    old.to_pandas().to_parquet(copy)
    with pytest.raises(safegen.UsageError, match="same rows"):
        safegen.Generator(policy="lab").fit(real, old.path, copy)


def test_other_rows_are_not_those_of_an_old_release(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with before():
        old = a_release(real, tmp_path / "old")
        said = old.manifest.logical_digest
        rewrite(old.path, lambda t: t.take(pa.array([0, *range(t.num_rows - 1)])))
    monkeypatch.delenv("SAFEGEN_LEDGER")  # nobody knows it
    assert cli("verify", old.path, "--deep").code == 0
    reseal(old.path, document(old.path) | {"logical_digest": said})
    ran = cli("verify", old.path, "--deep")
    assert "the rows differ" in ran.out + ran.err
    reseal(old.path, document(old.path) | {"logical_digest": said.replace("v1", "v9")})
    ran = cli("verify", old.path, "--deep")
    assert "does not know" in ran.out + ran.err


def test_real_rows_behind_an_old_release_are_kept(real: Path, tmp_path: Path) -> None:
    """Attested twice: they may be known by the other statement now."""
    with before():
        safegen.attest(real, by="a test", expires="2100-01-01")
        old = a_release(real, tmp_path / "old")
        safegen.attest(real, by="another")
    made = known(old.path)
    assert made.roots is not None
    assert _kept([known(real), made]).status == "met"
    assert _kept([known(rows(10, 1_500)), made]).status == "unmet"


def test_decisions_about_rows_are_told_with_an_older_record_of_them(real: Path) -> None:
    with before():
        made = safegen.attest(real, by="a test")
        other = safegen.attest(rows(4), by="a test")
    safegen.Generator(policy="baseline").fit(real, seed=1)
    now = Index(open_ledger(None)).contents()
    assert [d.allowed for d in now.decisions_about(now.datasets[made.dataset_id])] == [True]
    assert now.decisions_about(now.datasets[other.dataset_id]) == []


# ---- models --------------------------------------------------------------------------------------


def test_an_old_model_finds_its_real_rows(real: Path, tmp_path: Path) -> None:
    with before():
        safegen.attest(real, by="a test")
        model = safegen.Generator(policy="baseline").fit(real, seed=1).save(tmp_path / "model")
    gen = safegen.Generator.load(model, policy="baseline")
    made = gen.generate(300, tmp_path / "out")
    assert [scheme_of(s.logical_digest) for s in made.manifest.sources] == [V1]
    assert made.manifest.ancestry == "attested"
    rows(8, 1_500).to_parquet(real)
    with pytest.raises(safegen.SafegenError):
        safegen.Generator.load(model, policy="baseline", source=real)


def test_an_old_model_is_asked_about_what_was_registered_since(real: Path, tmp_path: Path) -> None:
    with before():
        safegen.attest(rows(4), by="a test")  # so that the ledger is there
        model = safegen.Generator(policy="baseline").fit(real, seed=1).save(tmp_path / "model")
    safegen.attest(rows(5), origin="synthetic", by="a test")
    assert safegen.Generator.load(model, policy="baseline").decision.allowed
    safegen.attest(real, origin="synthetic", by="a test")
    with pytest.raises(safegen.AdmissionRefused):
        safegen.Generator.load(model, policy="baseline")


def test_old_facts_that_cannot_be_looked_up_are_doubted() -> None:
    """Somebody may have registered their rows since, by a digest that they do not have."""
    with before():
        safegen.attest(rows(), by="a test")
        facts = known(rows())
    safegen.attest(rows(5), origin="synthetic", by="a test")
    assert as_of_now(facts, ["table"], open_ledger(None)) == facts
    assert facts.attested
    lose_keys()
    doubted = as_of_now(facts, ["table"], open_ledger(None))
    assert (doubted.origin, doubted.attested, doubted.names) == ("unknown", False, ())
    assert known(rows()).attested  # read again, they have all digests
    assert as_of_now(known(rows()), ["table"], open_ledger(None)).attested
