"""A job verifies once: later opens read a receipt, and what is wrong is found all the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import safegen
from safegen import receipts
from safegen.errors import AdmissionRefused, VerificationError
from safegen.ledger import open_ledger
from safegen.lineage.withdrawals import withdraw
from safegen.manifest import check
from safegen.testing import example_table


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """User folders in `home`, a release of attested rows in `good`, one of that in `deep`."""
    place = tmp_path_factory.mktemp("receipts")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA", "CONFIG", "CACHE"):
            patch.setenv(f"XDG_{name}_HOME", str(place / "home" / name.lower()))
        pq.write_table(example_table(400), place / "real.parquet")
        safegen.attest(place / "real.parquet", by="a test")
        gen = safegen.Generator(policy="lab").fit(place / "real.parquet", seed=1)
        gen.generate(500, place / "good")
        again = safegen.Generator(policy="lab").fit(place / "good", seed=1)
        again.generate(100, place / "deep")
    return place


@pytest.fixture
def good(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release of this test's own, and user folders of its own, with the ledger that knows it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    for name in ("DATA", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "home" / name.lower()))
    monkeypatch.setattr(receipts, "SETTLED", -3600.0)  # copied a moment ago
    return tmp_path / "good"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are hashed, as they are."""
    seen: list[Path] = []
    sha256 = check._sha256

    def noted(path: Path) -> str:
        seen.append(path)
        return sha256(path)

    monkeypatch.setattr(check, "_sha256", noted)
    return seen


def decisions() -> int:
    return sum(1 for _ in open_ledger().log(kind="decision"))


def test_the_second_open_hashes_nothing_and_the_decision_stands(
    good: Path, hashed: list[Path]
) -> None:
    before = decisions()
    safegen.open(good)
    assert hashed
    assert decisions() == before + 1
    hashed.clear()
    first = safegen.guard(good)
    again = safegen.guard(good)
    assert safegen.open(good).to_pandas().shape[0] == 500
    assert hashed == []
    assert decisions() == before + 1
    assert first.digest == again.digest
    safegen.check(good)  # looks itself
    assert hashed


def test_no_receipt_is_written_for_files_that_are_too_young(
    good: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "SETTLED", 3600.0)
    safegen.open(good)
    hashed.clear()
    safegen.open(good)
    assert hashed


def test_another_policy_decides_itself(good: Path, tmp_path: Path, hashed: list[Path]) -> None:
    safegen.open(good, policy="training")
    hashed.clear()
    with pytest.raises(AdmissionRefused, match="lineage/depth"):
        safegen.open(good, policy="baseline")
    assert hashed == []
    count = decisions()
    with pytest.raises(AdmissionRefused, match="lineage/depth"):
        safegen.open(good, policy="baseline")
    assert decisions() == count + 1, "a refusal is written down each time"


def test_what_was_withdrawn_since_is_refused(good: Path, hashed: list[Path]) -> None:
    safegen.open(good)
    mine = safegen.Manifest.read(good).dataset_id
    withdraw(open_ledger(), mine, reason="a column was wrong", by="Bo")
    hashed.clear()
    with pytest.raises(VerificationError, match="withdrawn"):
        safegen.open(good)
    with pytest.raises(AdmissionRefused, match="withdrawn"):
        safegen.guard(good)


def test_the_source_behind_it_was_withdrawn_since(good: Path) -> None:
    safegen.open(good)
    [source] = safegen.Manifest.read(good).sources
    assert source.dataset_id is not None
    withdraw(open_ledger(), source.dataset_id, reason="no consent", by="Bo")
    with pytest.raises((VerificationError, AdmissionRefused), match="withdrawn"):
        safegen.open(good)


def test_what_the_ledger_learned_since_counts_though_nothing_is_hashed(
    good: Path, hashed: list[Path]
) -> None:
    rows = safegen.open(good).to_arrow()
    safegen.derive(
        rows, sources=[good.parent / "deep"]
    )  # the same content, two models from reality
    hashed.clear()
    count = decisions()
    for ask in (safegen.open, safegen.guard):
        with pytest.raises(AdmissionRefused, match="lineage/depth"):
            ask(good)
    assert hashed == []
    assert decisions() == count + 2
    assert not safegen.check(good).allowed


def test_guard_of_several_says_what_check_says(good: Path, hashed: list[Path]) -> None:
    sources = [good, good.parent / "real.parquet", safegen.open(good).to_pandas().head(20)]
    for _ in range(2):
        checked = safegen.check(*sources, policy="lab")
        hashed.clear()
        guarded = safegen.guard(*sources, policy="lab")
        assert hashed == []
        assert guarded.subject == checked.subject
        assert guarded.findings == checked.findings


def test_guard_of_what_does_not_verify_is_a_refusal(good: Path) -> None:
    safegen.open(good)
    spoil(data_file(good))
    with pytest.raises(AdmissionRefused, match="lineage/intact"):
        safegen.guard(good)


def test_another_ledger_is_asked_itself(good: Path, tmp_path: Path) -> None:
    safegen.open(good)
    decision = safegen.guard(good, ledger=tmp_path / "other.db")
    assert decision.ledger["url"].endswith("other.db")


# ---- attacks -------------------------------------------------------------------------------------


def data_file(folder: Path) -> Path:
    return next((folder / "data").glob("*.parquet"))


def spoil(path: Path, *, keep_times: bool = True) -> None:
    """One bit of the rows, in place, the size as it was."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(times.st_size // 3)
        byte = file.read(1)[0] ^ 1
        file.seek(times.st_size // 3)
        file.write(bytes([byte]))
    if keep_times:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("keep_times", [False, True])
def test_edited_bytes_are_found_also_with_the_time_set_back(good: Path, keep_times: bool) -> None:
    safegen.open(good)
    spoil(data_file(good), keep_times=keep_times)
    with pytest.raises(VerificationError, match="content differs"):
        safegen.open(good)


def test_bytes_that_no_time_betrays_are_found_when_rows_are_read(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can turn the system's clock can give a file its old ctime. `open` is fooled then;
    the Merkle leaf at reading is not."""
    frozen = receipts._identities(good)
    safegen.open(good)
    spoil(data_file(good))
    monkeypatch.setattr(receipts, "_identities", lambda _: frozen)
    ds = safegen.open(good)
    for load in (ds.to_pandas, ds.to_arrow, ds.to_polars, ds.to_duckdb, ds.weights):
        with pytest.raises(VerificationError, match="differs from the manifest"):
            load()


def receipt() -> Path:
    [path] = [p for p in (receipts.cache_folder() / "receipts").iterdir() if not p.suffix]
    return path


def test_a_forged_receipt_counts_nothing(good: Path, hashed: list[Path]) -> None:
    safegen.open(good)
    assert receipt().stat().st_mode & 0o777 == 0o600
    spoil(data_file(good))
    mac, _, body = receipt().read_bytes().partition(b"\n")
    document = json.loads(body)
    [name] = [p for p in document["files"] if p.startswith("data/")]
    document["files"][name][1] = receipts._identities(good)[name]
    for forged in (mac, b"", b"0" * 64):
        receipt().write_bytes(forged + b"\n" + json.dumps(document).encode())
        with pytest.raises(VerificationError, match="content differs"):
            safegen.open(good)
    # Its twin, under the user's own key, is what an edit has to come by.
    true = json.dumps(document).encode()
    key = receipts._key()
    receipt().write_bytes(receipts._mac(key, good.resolve(), true) + b"\n" + true)
    assert safegen.open(good)


def test_a_receipt_of_another_user_or_of_another_folder_counts_nothing(
    good: Path, tmp_path: Path, hashed: list[Path]
) -> None:
    safegen.open(good)
    whole, place = receipt().read_bytes(), receipt()
    key = receipts.config_folder() / "receipts.key"
    mine = key.read_bytes()
    key.write_bytes(b"x" * 32)
    hashed.clear()
    safegen.open(good)
    assert hashed, "another key's receipt was believed"
    key.write_bytes(mine)
    place.write_bytes(whole)
    hashed.clear()
    safegen.open(good)
    assert hashed == []
    other = tmp_path / "other"
    good.rename(other)  # the same inodes and times, another place
    receipts._place(other).write_bytes(whole)
    safegen.open(other)
    assert hashed, "another folder's receipt was believed"


def test_a_key_that_others_can_read_is_not_used(good: Path, hashed: list[Path]) -> None:
    safegen.open(good)
    (receipts.config_folder() / "receipts.key").chmod(0o644)
    hashed.clear()
    safegen.open(good)
    assert hashed


@pytest.mark.parametrize("body", [b"", b"\n", b"x\ny", b"\xff" * 200])
def test_a_damaged_receipt_is_none(good: Path, hashed: list[Path], body: bytes) -> None:
    safegen.open(good)
    receipt().write_bytes(body)
    hashed.clear()
    safegen.open(good)
    assert hashed
    hashed.clear()
    safegen.open(good)
    assert hashed == [], "it was not written anew"


def test_a_file_more_is_found_beside_a_receipt(good: Path) -> None:
    safegen.open(good)
    (good / "data" / "more.parquet").write_bytes(b"x")
    with pytest.raises(VerificationError, match="not in the manifest"):
        safegen.open(good)


def test_an_edited_manifest_is_found_beside_a_receipt(good: Path) -> None:
    safegen.open(good)
    path = good / "safegen.manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"depth":1', b'"depth":0', 1))
    with pytest.raises(VerificationError, match="self-digest"):
        safegen.open(good)


def test_without_a_place_for_receipts_all_is_verified(
    good: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        hashed.clear()
        assert safegen.open(good)
        assert hashed


# ---- ranks ---------------------------------------------------------------------------------------

RANK = r"""
import sys, time
from pathlib import Path
from safegen import receipts
from safegen.manifest import check
import safegen
receipts.SETTLED = -3600
sha256, pause = check._sha256, float(sys.argv[2])
def noted(path):
    sys.stdout.write("hashed\n")
    sys.stdout.flush()
    time.sleep(pause)
    return sha256(path)
check._sha256 = noted
safegen.open(sys.argv[1])
print("opened", flush=True)
"""


def rank(folder: Path, pause: float = 0.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RANK, str(folder), str(pause)], stdout=subprocess.PIPE, text=True
    )


def told(process: subprocess.Popen[str]) -> set[str]:
    out, _ = process.communicate(timeout=60)
    return set(out.split())


def test_other_ranks_wait_for_the_first_and_hash_nothing(good: Path) -> None:
    ranks = [rank(good, 0.1) for _ in range(3)]
    said = [told(r) for r in ranks]
    assert sorted(said, key=len) == [{"opened"}, {"opened"}, {"hashed", "opened"}]


def test_others_go_on_when_the_first_is_killed(good: Path) -> None:
    first = rank(good, 60.0)
    assert first.stdout is not None
    assert first.stdout.readline() == "hashed\n"
    other = rank(good)
    time.sleep(1.5)
    assert other.poll() is None, "it did not wait"
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert told(other) == {"hashed", "opened"}


def test_nobody_waits_for_ever(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "WAIT", 0.3)
    with receipts.turn(good):
        start = time.monotonic()
        with receipts.turn(good) as late:  # another descriptor, as another process has
            assert not late.whole
        assert 0.2 < time.monotonic() - start < 5
