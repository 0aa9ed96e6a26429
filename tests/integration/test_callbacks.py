"""Training loops of others: refused at the start, and each checkpoint names its data."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import lightning
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

import safegen
from safegen import receipts
from safegen.callbacks import LightningGuard, TrainerGuard
from safegen.errors import AdmissionRefused, UsageError, VerificationError
from safegen.ledger import open_ledger
from safegen.lineage.withdrawals import withdraw
from safegen.manifest import check
from safegen.testing import example_table

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """User folders in `home`, and two releases: `good`, and `deep`, which was made from it."""
    place = tmp_path_factory.mktemp("callbacks")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DATA", "CONFIG", "CACHE"):
            patch.setenv(f"XDG_{name}_HOME", str(place / "home" / name.lower()))
        pq.write_table(example_table(300), place / "real.parquet")
        safegen.attest(place / "real.parquet", by="a test")
        gen = safegen.Generator(policy="lab").fit(place / "real.parquet", seed=1)
        gen.generate(300, place / "good")
        gen.generate(300, place / "other", seed=2)
        again = safegen.Generator(policy="lab").fit(place / "good", seed=1)
        again.generate(300, place / "deep")
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    for name in ("DATA", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / "home" / name.lower()))
    monkeypatch.setattr(receipts, "SETTLED", -3600.0)  # copied a moment ago
    return tmp_path


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.steps = 0

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        self.steps += self.training
        out = self.layer(x).squeeze(-1)
        return {"loss": ((out - labels) ** 2).mean(), "logits": out}


DATA = [{"x": torch.tensor([i / 10, 1.0]), "labels": torch.tensor(1.0)} for i in range(8)]


def train(place: Path, guard: TrainerGuard, steps: int = 4, resume: Any = None) -> Tiny:
    model = Tiny()
    given = TrainingArguments(
        output_dir=str(place / "run"), max_steps=steps, save_steps=2, report_to=[], use_cpu=True,
        per_device_train_batch_size=2, disable_tqdm=True, logging_steps=1000,
    )  # fmt: skip
    trainer = Trainer(model=model, args=given, train_dataset=DATA, callbacks=[guard])
    trainer.train(resume_from_checkpoint=resume)
    return model


def record(place: Path, step: int) -> Any:
    return json.loads((place / "run" / f"checkpoint-{step}" / "safegen.json").read_bytes())


def test_checkpoints_of_the_hf_trainer_name_their_data(place: Path) -> None:
    ds = safegen.open(place / "good")
    train(place, TrainerGuard(ds))
    [run] = record(place, 2)["runs"]
    assert run["datasets"] == [
        {
            "dataset_id": ds.manifest.dataset_id, "manifest": ds.manifest.digest,
            "logical_digest": ds.manifest.logical_digest, "uri": str(place / "good"),
        }
    ]  # fmt: skip
    assert run["policy"]["id"] == "training"
    assert run["policy"]["digest"] == safegen.Policy.load("training").digest
    assert record(place, 4) == record(place, 2)
    assert json.loads((place / "run" / "safegen.json").read_bytes()) == record(place, 4)
    written = [e.payload for e in open_ledger().log(kind="decision")][-1]
    assert written["time"] == run["decision"]["time"]


def test_the_hf_trainer_takes_no_step_on_refused_data(place: Path) -> None:
    guard = TrainerGuard(place / "deep")
    with pytest.raises(AdmissionRefused, match="lineage/depth"):
        train(place, guard)
    assert not list((place / "run").glob("checkpoint-*"))
    assert train(place, TrainerGuard(place / "good")).steps == 4


def test_a_restart_hashes_nothing_and_keeps_the_decision(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(place, TrainerGuard(safegen.open(place / "good")), steps=2)
    hashed: list[Path] = []
    monkeypatch.setattr(check, "_sha256", lambda path: hashed.append(path) or "")
    model = train(place, TrainerGuard(safegen.open(place / "good")), steps=4, resume=True)
    assert model.steps == 2
    assert hashed == []
    assert record(place, 4) == record(place, 2)


def test_a_restart_on_other_data_names_both(place: Path) -> None:
    train(place, TrainerGuard(place / "good"), steps=2)
    train(place, TrainerGuard(place / "other"), steps=4, resume=True)
    ids = [r["datasets"][0]["dataset_id"] for r in record(place, 4)["runs"]]
    assert ids == [safegen.Manifest.read(place / n).dataset_id for n in ("good", "other")]


def test_a_restart_without_a_record_says_so(place: Path) -> None:
    train(place, TrainerGuard(place / "good"), steps=2)
    (place / "run" / "checkpoint-2" / "safegen.json").unlink()
    train(place, TrainerGuard(place / "good"), steps=4, resume=True)
    first, second = record(place, 4)["runs"]
    assert "first 2 steps" in first["unknown"]
    assert second["datasets"]


def test_a_restart_on_withdrawn_data_is_refused(place: Path) -> None:
    train(place, TrainerGuard(place / "good"), steps=2)
    mine = safegen.Manifest.read(place / "good").dataset_id
    withdraw(open_ledger(), mine, reason="a column was wrong", by="Bo")
    with pytest.raises(AdmissionRefused, match="withdrawn"):
        train(place, TrainerGuard(place / "good"), steps=4, resume=True)


def test_a_running_training_is_not_stopped(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither by a record that cannot be written, nor by what becomes of the data meanwhile."""
    from safegen.callbacks import trainer

    def full(path: Path, data: bytes) -> None:
        shutil.rmtree(place / "good", ignore_errors=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer, "write_whole", full)
    with caplog.at_level(logging.WARNING, "safegen.callbacks"):
        assert train(place, TrainerGuard(place / "good")).steps == 4
    assert "No space left" in caplog.text


def test_a_folder_that_was_exchanged_since_open_is_refused(place: Path) -> None:
    ds = safegen.open(place / "good")
    shutil.rmtree(place / "good")
    shutil.copytree(place / "other", place / "good")
    with pytest.raises(VerificationError, match="not the dataset that was opened"):
        train(place, TrainerGuard(ds))


def test_a_guard_of_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match="what the training reads"):
        TrainerGuard()


# ---- Lightning -----------------------------------------------------------------------------------


class TinyModule(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = Tiny()

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        return self.model(**batch)["loss"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(place: Path, guard: LightningGuard, steps: int, resume: Path | None = None) -> Path:
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", devices=1, logger=False, callbacks=[guard],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        default_root_dir=place,
    )  # fmt: skip
    loader = torch.utils.data.DataLoader(DATA, batch_size=2)
    trainer.fit(TinyModule(), loader, ckpt_path=resume)
    path = place / f"step-{steps}.ckpt"
    trainer.save_checkpoint(path)
    return path


def test_checkpoints_of_lightning_name_their_data(place: Path) -> None:
    ds = safegen.open(place / "good")
    first = fit(place, LightningGuard(ds), 4)
    kept = torch.load(first, weights_only=True)["safegen"]
    [run] = kept["runs"]
    assert run["datasets"][0]["manifest"] == ds.manifest.digest
    again = torch.load(fit(place, LightningGuard(ds), 8, first), weights_only=True)["safegen"]
    assert again == kept
    other = fit(place, LightningGuard(place / "other"), 12, first)
    assert len(torch.load(other, weights_only=True)["safegen"]["runs"]) == 2


def test_lightning_takes_no_step_on_refused_data(place: Path) -> None:
    with pytest.raises(AdmissionRefused, match="lineage/depth"):
        fit(place, LightningGuard(place / "deep"), 2)
    assert fit(place, LightningGuard(place / "good"), 2).exists()
