"""A training script on a released dataset: it starts, goes on after a kill, and refuses."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch

import safegen
from safegen.demo import place_data
from safegen.errors import AdmissionRefused, VerificationError
from safegen.ledger import open_ledger
from safegen.lineage.withdrawals import withdraw

SCRIPT = Path(__file__).parents[2] / "examples" / "train.py"
POLICIES = Path(__file__).parents[2] / "policies"
SOON = 2.0  # seconds of work after which a refusal is late, however busy the machine is


class World:
    """A release of attested rows, one of rows that nobody attested, and one of the first's."""

    def __init__(self, place: Path):
        source, _ = place_data(place / "real")
        frame = pd.read_parquet(source) if source.suffix == ".parquet" else pd.read_csv(source)
        frame.head(4_000).to_parquet(place / "real.parquet")
        frame.tail(4_000).to_parquet(place / "unattested.parquet")
        safegen.attest(place / "real.parquet", by="a test")

        def release(source: Path, out: str) -> Path:
            gen = safegen.Generator(policy="lab").fit(source, seed=1)
            return gen.generate(6_000, place / out).path

        self.good = release(place / "real.parquet", "good")
        self.unverified = release(place / "unattested.parquet", "unverified")
        self.deep = release(self.good, "deep")


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        for name in ("DATA", "CONFIG", "CACHE"):
            patch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
        patch.delenv("SAFEGEN_LEDGER", raising=False)
        yield


@pytest.fixture(scope="module")
def world(_home: object, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def train(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, words), "--target", "income"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_trains_with_weights_and_goes_on_after_a_kill(world: World, tmp_path: Path) -> None:
    whole = train(world.good, "--epochs", 1)
    assert (whole.returncode, whole.stderr) == (0, "")
    assert "depth 1" in whole.stdout
    checkpoint = tmp_path / "state.pt"
    command = [sys.executable, str(SCRIPT), str(world.good), "--target", "income",
               "--checkpoint", str(checkpoint), "--epochs", "50"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    state = torch.load(checkpoint, weights_only=True)
    assert state["rows"]["batches"] > 0
    epochs = state["rows"]["epoch"] + 1
    again = train(world.good, "--checkpoint", checkpoint, "--epochs", epochs)
    assert (again.returncode, again.stderr) == (0, "")
    assert f"epoch {epochs}: loss" in again.stdout
    assert torch.load(checkpoint, weights_only=True)["rows"]["epoch"] == epochs


def spoiled(world: World, to: Path) -> Path:
    shutil.copytree(world.good, to)
    path = to / "data" / "part-00000.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return to


def edited(world: World, to: Path) -> Path:
    shutil.copytree(world.good, to)
    path = to / "safegen.manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"depth":1', b'"depth":0', 1))
    return to


REFUSALS: dict[str, tuple[Callable[[World, Path], Path], type[Exception], str, int]] = {
    "tampered rows": (spoiled, VerificationError, "content differs", 4),
    "edited manifest": (edited, VerificationError, "self-digest", 4),
    "too deep": (lambda w, _: w.deep, AdmissionRefused, "lineage/depth", 3),
    "unverified": (lambda w, _: w.unverified, AdmissionRefused, "lineage/unverified", 3),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_it_refuses_to_start(world: World, tmp_path: Path, case: str) -> None:
    make, error, word, code = REFUSALS[case]
    folder = make(world, tmp_path / "copy")
    start = time.process_time()
    with pytest.raises(error) as refused:
        safegen.open(folder, policy="training")
    assert time.process_time() - start < SOON
    assert word in str(refused.value)
    ran = train(folder)
    assert (ran.returncode, ran.stdout, word in ran.stderr) == (code, "", True), ran.stderr
    assert "Traceback" not in ran.stderr


def test_it_refuses_what_was_withdrawn_since(world: World, tmp_path: Path) -> None:
    assert safegen.open(world.good, policy="training")
    books = tmp_path / "ledger.db"
    ledger = Path(open_ledger().url.removeprefix("sqlite://"))
    shutil.copy(ledger, books)  # not for the other tests
    mine = safegen.Manifest.read(world.good).dataset_id
    withdraw(open_ledger(books), mine, reason="a column was wrong", by="Bo")
    start = time.process_time()
    with pytest.raises(VerificationError, match="withdrawn"):
        safegen.open(world.good, policy="training", ledger=books)
    assert time.process_time() - start < SOON


def test_it_refuses_what_a_key_should_have_signed(world: World, tmp_path: Path) -> None:
    from safegen.manifest import new_key

    new_key(tmp_path / "key")
    ran = train(world.good, "--trusted-key", tmp_path / "key.pub")
    assert (ran.returncode, "not signed" in ran.stderr) == (4, True)


def test_it_refuses_an_unsigned_dataset_under_strict(world: World, tmp_path: Path) -> None:
    from safegen.dataset import sign
    from safegen.manifest import new_key

    start = time.process_time()
    with pytest.raises(AdmissionRefused, match="manifest/signature"):
        safegen.open(world.good, policy="strict")
    assert time.process_time() - start < SOON
    ran = train(world.good, "--policy", "strict")
    assert (ran.returncode, ran.stdout, "manifest/signature" in ran.stderr) == (3, "", True)
    # As strict, but for the training of models on what it let out: nothing else is wrong with it.
    text = (POLICIES / "strict.yaml").read_text().replace("max_depth: 0.0", "max_depth: 1.0")
    mine = tmp_path / "strict-training.yaml"
    mine.write_text(text)
    ran = train(world.good, "--policy", mine, "--epochs", 1)
    assert (ran.returncode, ran.stderr.count("✗")) == (3, 1), ran.stderr
    copy = Path(shutil.copytree(world.good, tmp_path / "copy"))
    new_key(tmp_path / "key")
    sign(copy, tmp_path / "key")
    ran = train(copy, "--policy", mine, "--epochs", 1)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.slow
def test_two_processes_share_the_rows(world: World, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(SCRIPT), str(world.good), "--target", "income", "--epochs", "1",
         "--checkpoint", str(tmp_path / "state.pt")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    states = [torch.load(tmp_path / f"state.{i}.pt", weights_only=True) for i in range(2)]
    assert [s["rows"]["rank"] for s in states] == [0, 1]
    one, other = (s["model"]["module.layers.0.weight"] for s in states)
    assert torch.equal(one, other)
