"""Train a classifier on a released dataset, with its weights, or refuse to.

    python examples/train.py DATASET --target income [--checkpoint FILE] [--trusted-key KEY.pub]

What the policy does not admit, and what does not verify, ends before the first row is read, with
the exit codes of `safegen`: 3 refused by policy, 4 not verified. Stopped and started again with the
same checkpoint, it goes on with the next batch. Several processes under `torchrun` share the rows.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import nn

import safegen


class Classifier(nn.Module):
    """An embedding for each column of texts, the numbers beside them, and two layers."""

    def __init__(self, numbers: list[str], levels: dict[str, int], classes: int):
        super().__init__()
        self.numbers, self.texts = numbers, [*levels]
        self.embeddings = nn.ModuleList(nn.Embedding(n + 1, 8) for n in levels.values())
        self.norm = nn.BatchNorm1d(max(len(numbers), 1))
        width = max(len(numbers), 1) + 8 * len(levels)
        self.layers = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, classes))

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        rows = len(next(iter(features.values())))
        numbers = [features[n].float().nan_to_num() for n in self.numbers]
        parts = [self.norm(torch.stack(numbers, 1) if numbers else torch.zeros(rows, 1))]
        # -1 is a missing text: the first row of an embedding.
        for embedding, name in zip(self.embeddings, self.texts, strict=True):
            parts.append(embedding(features[name] + 1))
        return self.layers(torch.cat(parts, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("--target", required=True)
    parser.add_argument("--policy", default="training")
    parser.add_argument("--trusted-key", action="append")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    given = parser.parse_args()

    # One line, and a policy: nothing is trained on that it does not admit.
    dataset = safegen.open(given.dataset, policy=given.policy, trusted_keys=given.trusted_key)

    place = {}
    if "RANK" in os.environ:  # torchrun
        torch.distributed.init_process_group("gloo")
        place = {"rank": torch.distributed.get_rank(), "world": torch.distributed.get_world_size()}
        if given.checkpoint:  # each has rows of its own to go on with
            given.checkpoint = given.checkpoint.with_suffix(f".{place['rank']}.pt")
    torch.manual_seed(0)
    rows = dataset.to_torch(256, **place)
    texts = {n: len(rows.levels[n]) for n in rows.levels if n != given.target}
    numbers = [n for n in rows.columns if n not in rows.levels and n != given.target]
    model: nn.Module = Classifier(numbers, texts, len(rows.levels[given.target]))
    if place:
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    loss_of_each = nn.CrossEntropyLoss(reduction="none", ignore_index=-1)

    if given.checkpoint and given.checkpoint.exists():
        saved = torch.load(given.checkpoint, weights_only=True)
        if saved["dataset"] != dataset.manifest.digest:
            sys.exit("the checkpoint is of another dataset")
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        rows.load_state_dict(saved["rows"])

    while rows.epoch < given.epochs:
        total, count = 0.0, 0
        # A rank may have a batch more than another.
        with model.join() if place else nullcontext():
            for features, weights in rows:
                truth = features.pop(given.target)
                loss = (loss_of_each(model(features), truth) * weights).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total, count = total + loss.item(), count + 1
                if given.checkpoint and rows.batches % 20 == 0:
                    save(given.checkpoint, model, optimizer, rows, dataset)
        print(f"epoch {rows.epoch}: loss {total / max(count, 1):.3f}", flush=True)
    if given.checkpoint:
        save(given.checkpoint, model, optimizer, rows, dataset)
    print(f"trained on {dataset.manifest.dataset_id}, depth {dataset.manifest.depth}")


def save(path: Path, model, optimizer, rows, dataset) -> None:  # type: ignore[no-untyped-def]
    """A checkpoint that names what it was trained on; whole, or not at all."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rows": rows.state_dict(),
        "dataset": dataset.manifest.digest,
    }
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


if __name__ == "__main__":
    try:
        main()
    except safegen.SafegenError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
