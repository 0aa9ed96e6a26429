"""Way round: have another ledger say that data is real, or that nothing is known of it.

What it says is synthetic is; what it says is real is its claim, until somebody trusts its key.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forging import World, check, cli, is_refused_as_synthetic, unmet

import safegen
from safegen.decision import Decision
from safegen.ledger import Attachment, Record, open_ledger
from safegen.ledger.exporting import export
from safegen.ledger.places import ledger_place
from safegen.lineage.fingerprints import _SCHEMA, Prints
from safegen.manifest import SigningKey


def _bare(frame: pd.DataFrame) -> pd.DataFrame:
    bare = frame.drop(columns=[n for n in frame if n.startswith("_safegen")])
    bare.attrs.clear()
    return bare


def _detected(decision: Decision) -> str:
    """What the decision says of whether anything was found."""
    return " ".join(str(decision).split()).partition("detected? ")[2].partition(" ledger ")[0]


@pytest.fixture
def file(world: World, tmp_path: Path, key: Path) -> Path:
    """The release of the attacks' own ledger and what it was made from, signed."""
    path = tmp_path / "theirs.zip"
    dataset = world.dataset.manifest.dataset_id
    export(open_ledger(), path, [dataset], key=SigningKey(key))
    return path


@pytest.fixture
def ours(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger on another machine, which has none of the first one's keys."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SAFEGEN_LEDGER", str(tmp_path / "ours.db"))
    open_ledger()
    return tmp_path / "config" / "safegen" / "keys"


def _bring_keys(home: Path, ours: Path) -> None:
    for path in (home / "config" / "safegen" / "keys").iterdir():
        (ours / path.name).write_bytes(path.read_bytes())
        (ours / path.name).chmod(0o600)


def test_a_thinned_release_of_another_ledger_is_refused_with_its_key_and_unknown_without(
    world: World, home: Path, ours: Path, file: Path
) -> None:
    thinned = _bare(world.dataset.to_pandas()).sample(600, random_state=5)
    whole, real = _bare(world.dataset.to_pandas()), world.rows(600, 1)
    assert check(thinned).allowed  # nobody here has heard of it
    ran = cli("ledger", "import", file)
    assert ran.code == 0
    assert "without it, copies are not found" in " ".join(ran.out.split())

    decision = check(thinned)
    assert _detected(decision).startswith("unknown")
    assert "clean" not in str(decision)
    assert unmet(check(thinned, "training")) == {"lineage/unattested"}
    assert is_refused_as_synthetic(check(whole))  # its digest needs no key

    _bring_keys(home, ours)
    for copy in (thinned, whole, thinned.rename(columns=lambda n: f"x {n}")):
        assert is_refused_as_synthetic(check(copy))
    assert check(real).allowed
    assert _detected(check(real)).startswith(("clean", "underpowered"))


def test_that_it_is_real_is_a_claim_until_the_key_is_trusted(
    world: World, ours: Path, file: Path, key: Path
) -> None:
    real = pd.read_parquet(world.real)
    cli("ledger", "import", file)
    decision = check(real, "strict")
    assert unmet(decision) == {"lineage/unattested"}
    assert "claims this content" in str(decision)
    bare = Path(str(ours)).parent / "bare.csv"
    real.to_csv(bare, index=False)
    drawn = cli("lineage", bare).out
    assert "unknown: nobody has stated here what it is" in drawn
    assert "a claim of ledger" in drawn
    for policy in ("strict", "training"):
        assert "lineage/unattested" in unmet(check(real, policy))
    with pytest.raises(safegen.AdmissionRefused):
        safegen.guard(real, policy="training")
    # The same file again, and the word that it takes.
    assert cli("ledger", "import", file, "--trust", f"{key}.pub").code == 0
    assert check(real, "strict").allowed
    assert not check(real.tail(500), "strict").allowed


def test_what_it_released_is_unverified_until_the_key_is_trusted(
    world: World, ours: Path, file: Path, key: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.csv"
    _bare(world.dataset.to_pandas()).to_csv(copy, index=False)
    assert check(world.dataset, "training").allowed  # by its own manifest
    cli("ledger", "import", file)
    assert check(world.dataset, "training").allowed  # a claim takes nothing away
    bare = pd.read_parquet(world.file)
    assert unmet(check(_bare(bare), "training")) == {"lineage/unverified"}
    assert safegen.verify(world.dataset.path) == world.dataset.manifest
    assert "no ledger at hand knows it" in cli("verify", world.dataset.path).out.replace("\n", " ")
    cli("ledger", "import", file, "--trust", f"{key}.pub")
    assert check(_bare(bare), "training").allowed
    assert "recorded exactly this manifest" in cli("verify", world.dataset.path).out


def test_a_trusted_word_does_not_make_our_own_output_real(
    world: World, tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their statement was made where nobody could look our fingerprints up."""
    laundered = _bare(world.dataset.to_pandas()).sample(600, random_state=6).reset_index(drop=True)
    real = world.rows(700, 7)
    with monkeypatch.context() as elsewhere:  # where the keys are that we do not have
        elsewhere.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        for rows in (laundered, real):
            safegen.attest(rows, by="somebody elsewhere", ledger=tmp_path / "theirs.db")
        export(open_ledger(tmp_path / "theirs.db"), tmp_path / "x.zip", key=SigningKey(key))
    books = Path(shutil.copy(ledger_place(None), tmp_path / "ours.db"))
    trust = ("--trust", f"{key}.pub", "--ledger", books)
    assert cli("ledger", "import", tmp_path / "x.zip", *trust).code == 0
    assert is_refused_as_synthetic(check(laundered, ledger=books))
    assert check(real, "strict", ledger=books).allowed


def test_a_stranger_does_not_name_the_key_that_a_dataset_is_signed_with(
    world: World, ours: Path, tmp_path: Path, other_key: Path
) -> None:
    folder, theirs = world.copy(tmp_path / "copy"), open_ledger(tmp_path / "theirs.db")
    pem = SigningKey(other_key).public.pem
    assert cli("sign", folder, "--key", other_key, "--ledger", theirs.url).code == 0
    theirs.register(Record.of(world.dataset.manifest, pem), {})
    rows = tmp_path / "rows.csv"
    world.rows(50, 9).to_csv(rows, index=False)
    safegen.attest(rows, by="a stranger", ledger=theirs, key=other_key)
    export(theirs, tmp_path / "x.zip", key=SigningKey(other_key))
    cli("ledger", "import", tmp_path / "x.zip")
    assert "signed by a key unknown here" in " ".join(cli("inspect", rows).out.split())
    ran = cli("verify", folder)
    assert ran.code == 4
    assert "a key that is not known here" in ran.err
    cli("ledger", "import", tmp_path / "x.zip", "--trust", f"{other_key}.pub")
    assert cli("verify", folder).code == 0
    assert "unknown here" not in " ".join(cli("inspect", rows).out.split())


def test_what_was_stated_before_the_import_is_looked_up_again(
    world: World, home: Path, ours: Path, file: Path
) -> None:
    """Whoever stated it could not know the release."""
    laundered = _bare(world.dataset.to_pandas()).sample(600, random_state=8).reset_index(drop=True)
    real = world.rows(600, 8)
    for rows in (laundered, real):
        safegen.attest(rows, by="who did not know better")
        assert check(rows, "strict").allowed
    cli("ledger", "import", file)
    _bring_keys(home, ours)
    assert is_refused_as_synthetic(check(laundered, "strict"))
    assert check(real, "strict").allowed


def test_keys_of_others_are_for_looking_up_only(
    world: World, home: Path, ours: Path, file: Path, tmp_path: Path
) -> None:
    """Who lent a key can test guesses under it: nothing new is made with it."""
    books = open_ledger()
    own = [key_id for key_id, _ in books.key_epochs()]
    cli("ledger", "import", file)
    _bring_keys(home, ours)
    assert [key_id for key_id, _ in books.key_epochs()] == own
    assert [k for k, _ in books.lookup_keys()][:1] == own
    assert len(books.lookup_keys()) > 1
    safegen.attest(world.real, by="a test")
    made = safegen.Generator("sdv.gaussian_copula").fit(world.real).generate(300, tmp_path / "out")
    kept = books.kept(made.manifest.dataset_id)
    assert kept is not None
    assert list(kept.lookups) == own
    assert {where.key_id for where, _ in kept.attachments} == set(own)
    # A key that was lent and is gone says so, and keeps nobody from working.
    for path in ours.iterdir():
        if path.stem != books.ledger_id:
            path.unlink()
    assert books.state()["key_epochs_missing"] == []
    assert books.state()["imported_keys_missing"]
    safegen.Generator("sdv.gaussian_copula").fit(world.real).generate(300, tmp_path / "more")
    assert _detected(check(world.rows(600, 3))).startswith("unknown")


def test_what_was_withdrawn_there_is_withdrawn_here(
    world: World, ours: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs.db"
    assert cli("ledger", "import", file, "--ledger", theirs).code == 0
    cli("ledger", "import", file)
    assert check(world.dataset, "training").allowed
    [real] = [s.dataset_id for s in world.dataset.manifest.sources]
    why = ("--reason", "a person asked to be forgotten", "--by", "the privacy office")
    assert cli("ledger", "withdraw", real, *why, "--ledger", theirs).code == 0
    export(open_ledger(theirs), tmp_path / "again.zip")
    for new in (1, 0):
        ran = cli("ledger", "import", tmp_path / "again.zip")
        assert f"withdrawals  {new} new here\n" in ran.out
    decision = check(world.dataset, "training")
    assert "lineage/intact" in unmet(decision)
    said = f"by the privacy office (in ledger {open_ledger(theirs).ledger_id[:8]})"
    assert said in " ".join(str(decision).split())
    assert cli("verify", world.dataset.path).code == 4
    rows = pd.read_parquet(world.real)
    assert "lineage/intact" in unmet(check(rows))
    assert check(rows.tail(900)).allowed


def _of_nothing(rows: int) -> bytes:
    """Fingerprints of a form that can be read, small, and of many rows."""
    names = ("rows", "distinct", "seen", "trials", "chance", "printed", "beside")
    facts = dict.fromkeys(names, 1)
    none = np.zeros(rows, dtype=np.int64)
    few = none.astype(np.uint16)
    table = pa.table(
        [none, few, few], schema=_SCHEMA.with_metadata({"safegen-fp1": json.dumps(facts)})
    )
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd", row_group_size=rows)
    assert len(Prints.from_bytes(stream.getvalue()).own) == rows
    return stream.getvalue()


@pytest.mark.parametrize("what", ["as it is", "form", "fingerprints", "a bomb of fingerprints"])
def test_fingerprints_that_would_break_every_check_are_not_taken(
    world: World, tmp_path: Path, what: str
) -> None:
    """What cannot be read is a ledger that cannot be searched: all data would be refused."""
    theirs, ours = open_ledger(tmp_path / "theirs.db"), tmp_path / "ours.db"
    kept = open_ledger().kept(world.dataset.manifest.dataset_id)
    assert kept is not None
    [(key, _)] = theirs.key_epochs()
    if what == "as it is":
        export(open_ledger(), tmp_path / "x.zip", [kept.record.dataset_id])
    else:
        body = _of_nothing(5_000_000) if what.startswith("a bomb") else b"x" * 100
        assert len(body) < 100_000
        part = Attachment(what.rpartition(" ")[2], "f/table", key, body)
        theirs.register(kept.record, {}, [part])
        export(theirs, tmp_path / "x.zip")
    ran = cli("ledger", "import", tmp_path / "x.zip", "--ledger", ours)
    assert ran.code == (0 if what == "as it is" else 4)
    assert check(world.rows(500, 2), ledger=ours).allowed
    if ran.code:
        assert "cannot be read" in ran.err
        assert open_ledger(ours).state()["datasets"] == 0
