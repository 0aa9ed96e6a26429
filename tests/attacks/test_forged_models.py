"""Way round: a saved model that was changed, or that says it was fitted on attested data."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forging import World, cli, document, flip, reseal, unmet

import safegen
from safegen.models import MODEL_NAME


class Bomb:
    """What a planted pickle does when somebody reads it."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.canary),))


@pytest.fixture
def model(world: World, tmp_path: Path) -> Path:
    return Path(shutil.copytree(world.model, tmp_path / "model"))


def _listed(model: Path) -> list[Path]:
    return [model / f["path"] for f in document(model, MODEL_NAME)["files"]]


def test_an_honest_model_loads_and_releases(world: World, model: Path, tmp_path: Path) -> None:
    ran = cli("generate", "--model", model, "--rows", 200, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    made = safegen.verify(tmp_path / "out")
    assert (made.ancestry, made.depth_is_lower_bound) == ("attested", False)
    assert safegen.Generator.load(model, policy="strict")


def _link(path: Path) -> None:
    path.rename(path.parents[2] / "elsewhere")
    path.symlink_to(path.parents[2] / "elsewhere")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: flip(_listed(m)[0], 0),
        lambda m: flip(_listed(m)[0], -1),
        lambda m: _listed(m)[0].unlink(),
        lambda m: _listed(m)[0].write_bytes(b""),
        lambda m: _link(_listed(m)[0]),
        lambda m: (m / "model" / "more.npy").write_bytes(b"x"),
        lambda m: (m / ".hidden").write_bytes(b"x"),
        lambda m: (m / "model" / "linked").symlink_to("/tmp"),
        lambda m: os.mkfifo(m / "model" / "pipe"),
        lambda m: flip(m / MODEL_NAME, 40),
        lambda m: (m / MODEL_NAME).unlink(),
        lambda m: (m / MODEL_NAME).write_text("[]"),
        lambda m: reseal(m, document(m, MODEL_NAME) | {"files": [1]}, MODEL_NAME),
        lambda m: reseal(m, document(m, MODEL_NAME) | {"facts": [{}]}, MODEL_NAME),
        lambda m: reseal(m, document(m, MODEL_NAME) | {"facts": 3}, MODEL_NAME),
        lambda m: reseal(m, document(m, MODEL_NAME) | {"schema": "safegen.model/v2"}, MODEL_NAME),
    ],
    ids=[
        "first-byte",
        "last-byte",
        "removed",
        "emptied",
        "link",
        "added",
        "hidden",
        "linked-folder",
        "pipe",
        "description-byte",
        "no-description",
        "other-json",
        "odd-files",
        "odd-facts",
        "no-facts",
        "other-version",
    ],
)
def test_a_changed_model_is_not_read(
    world: World, model: Path, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    spoil(model)
    with pytest.raises(safegen.VerificationError):
        safegen.Generator.load(model)
    ran = cli("generate", "--model", model, "--rows", 200, "--out", tmp_path / "out")
    assert ran.code == 4
    assert not (tmp_path / "out").exists()


def _plant(model: Path, canary: Path) -> None:
    """Put a pickle in the place of every file, and mend all digests."""
    from safegen.tables.entries import file_entry

    entries = []
    for path in _listed(model):
        path.write_bytes(pickle.dumps(Bomb(canary)))
        name = path.relative_to(model).as_posix()
        entries.append(file_entry(path, name).model_dump(include={"path", "sha256"}))
    reseal(model, document(model, MODEL_NAME) | {"files": entries}, MODEL_NAME)


def test_a_planted_pickle_never_runs(world: World, model: Path, tmp_path: Path) -> None:
    canary = tmp_path / "ran"
    _plant(model, canary)
    with pytest.raises(safegen.SafegenError):
        safegen.Generator.load(model)
    assert cli("generate", "--model", model, "--rows", 9, "--out", tmp_path / "out").code
    assert not canary.exists()
    pickle.loads(_listed(model)[0].read_bytes())
    assert canary.exists()  # it would have


def test_an_adopted_model_that_no_ledger_knows_is_not_unpickled(
    world: World, model: Path, tmp_path: Path
) -> None:
    """The format that is code: a description that says so, mended in every digest."""
    canary = tmp_path / "ran"
    body = document(model, MODEL_NAME) | {"backend": "sdv.adopted", "options": {}}
    reseal(model, body, MODEL_NAME)
    for path in _listed(model):
        path.unlink()
    from safegen.backends.sdv.adopted import FILE
    from safegen.tables.entries import file_entry

    planted = model / "model" / FILE
    planted.write_bytes(pickle.dumps(Bomb(canary)))
    entry = file_entry(planted, f"model/{FILE}").model_dump(include={"path", "sha256"})
    reseal(model, body | {"files": [entry]}, MODEL_NAME)
    with pytest.raises(safegen.VerificationError, match="runs code"):
        safegen.Generator.load(model)
    assert cli("generate", "--model", model, "--rows", 9, "--out", tmp_path / "out").code == 4
    assert not canary.exists()


@pytest.mark.filterwarnings("ignore:We strongly recommend saving the metadata")
def test_an_adopted_model_loads_where_it_was_saved_only(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pandas as pd
    from sdv.metadata import Metadata
    from sdv.single_table import GaussianCopulaSynthesizer

    rows = pd.DataFrame({"a": range(300), "b": [i % 7 for i in range(300)]}).astype("float64")
    safegen.attest(rows, by="an attack test")
    synthesizer = GaussianCopulaSynthesizer(Metadata.detect_from_dataframes({"table": rows}))
    synthesizer.fit({"table": rows})
    saved = safegen.Generator.wrap(synthesizer, trained_on=rows).save(tmp_path / "adopted")
    assert safegen.Generator.load(saved)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(safegen.VerificationError, match="runs code"):
        safegen.Generator.load(saved)


def _attested(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as an attested real source has them."""
    said = {"ring": "ledger", "text": "attested as real", "origin": "real", "proof": True}
    said |= {"ancestry": "attested"}
    return facts | {
        "origin": "real",
        "ancestry": "attested",
        "depth": 0,
        "effective_depth": 0.0,
        "depth_is_lower_bound": False,
        "synthetic_share": 0.0,
        "evidence": [said],
    }


def test_facts_that_were_rewritten_prove_nothing(world: World, tmp_path: Path) -> None:
    rows = world.rows(900, 31)
    saved = safegen.Generator().fit(rows).save(tmp_path / "model")
    body = document(saved, MODEL_NAME)
    forged = [_attested(f) for f in body["facts"]]
    reseal(saved, body | {"facts": forged}, MODEL_NAME)
    gen = safegen.Generator.load(saved, source=rows)
    assert gen.decision is not None
    doubted = {"lineage/unattested", "lineage/model"}
    assert {r.finding.name for r in gen.decision.warnings} == doubted
    for policy in ("strict", "training"):
        with pytest.raises(safegen.AdmissionRefused) as refusal:
            safegen.Generator.load(saved, source=rows, policy=policy)
        assert unmet(refusal.value.decision) == doubted
    made = gen.generate(200, tmp_path / "out").manifest
    assert (made.ancestry, made.depth_is_lower_bound, made.claims) == ("unverified", True, [])


def test_a_model_unknown_to_the_ledger_has_unattested_sources(
    world: World, model: Path, no_ledger: Path, tmp_path: Path
) -> None:
    gen = safegen.Generator.load(model, source=world.real)
    made = gen.generate(200, tmp_path / "out").manifest
    assert (made.ancestry, made.depth_is_lower_bound, made.claims) == ("unverified", True, [])
    with pytest.raises(safegen.AdmissionRefused):
        safegen.Generator.load(model, policy="strict")


def test_other_rows_to_compare_with_are_refused(world: World, model: Path) -> None:
    with pytest.raises(safegen.SourceError, match="digest"):
        safegen.Generator.load(model, source=world.rows(900, 32))
    assert safegen.Generator.load(model, source=world.real)
