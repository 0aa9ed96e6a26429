"""Way round: a model of unknown training on attested data, and models that say what is judged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from forging import World, document, reseal, unmet

import safegen
from safegen.backends.sdv.copula import CopulaModel
from safegen.backends.sdv.gaussian_copula import GaussianCopula
from safegen.models import MODEL_NAME

DOUBT = ("it came from nobody knows where",)


def refused_for_the_model(run: Callable[[], object]) -> None:
    with pytest.raises(safegen.AdmissionRefused) as refusal:
        run()
    assert unmet(refusal.value.decision) == {"lineage/model"}


@pytest.mark.parametrize("holder", [GaussianCopula, CopulaModel])
def test_a_model_of_unknown_training_is_refused_as_unattested_data_is(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, holder: type
) -> None:
    assert safegen.Generator(policy="strict").fit(world.real)
    monkeypatch.setattr(holder, "doubts", DOUBT, raising=False)
    gen = safegen.Generator(policy="strict")
    refused_for_the_model(lambda: gen.fit(world.real))
    with pytest.raises(safegen.UsageError, match="fit the generator first"):
        gen.generate(100, tmp_path / "none")
    gen = safegen.Generator(policy="baseline").fit(world.real)
    made = gen.generate(300, tmp_path / "out").manifest
    assert (made.ancestry, made.depth_is_lower_bound, made.claims) == ("unverified", True, [])
    admission = made.decisions[0]["findings"]["lineage/model"]
    assert (admission["outcome"], admission["evidence"]) == ("warn", list(DOUBT))
    saved = gen.save(tmp_path / "model")
    monkeypatch.delattr(holder, "doubts")
    refused_for_the_model(lambda: safegen.Generator.load(saved, policy="strict"))
    assert safegen.Generator.load(saved, policy="baseline")
    assert safegen.Generator.load(world.model, policy="strict")
    monkeypatch.setattr(holder, "doubts", DOUBT, raising=False)
    refused_for_the_model(lambda: safegen.Generator.load(world.model, policy="strict"))


@pytest.mark.filterwarnings("ignore:We strongly recommend saving the metadata")
def test_an_adopted_model_is_refused_where_unattested_data_is(world: World) -> None:
    from sdv.metadata import Metadata
    from sdv.single_table import GaussianCopulaSynthesizer

    rows = pd.DataFrame({"a": range(300), "b": [i % 7 for i in range(300)]}).astype("float64")
    safegen.attest(rows, by="an attack test")
    synthesizer = GaussianCopulaSynthesizer(Metadata.detect_from_dataframes({"table": rows}))
    synthesizer.fit({"table": rows})
    for policy in ("strict", "training"):
        refused_for_the_model(
            lambda policy=policy: safegen.Generator.wrap(
                synthesizer, trained_on=rows, policy=policy
            )
        )
    assert safegen.Generator.wrap(synthesizer, trained_on=rows, policy="baseline")
    assert safegen.Generator(policy="strict").fit(rows)


def test_what_a_doubtful_model_made_is_not_kept_as_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def existing() -> safegen.Dataset | None:
        gen = safegen.Generator()
        gen.prepare(world.real)
        return gen.existing(300, tmp_path / "out")

    safegen.Generator().fit(world.real).generate(300, tmp_path / "out")
    assert existing()
    monkeypatch.setattr(GaussianCopula, "doubts", DOUBT, raising=False)
    with pytest.raises(safegen.TargetError, match="unknown training"):
        existing()


def test_another_content_of_what_an_option_names_is_another_request(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def existing(content: str) -> safegen.Dataset | None:
        monkeypatch.setattr(
            GaussianCopula, "identity", lambda self, options: {"folder": content}, raising=False
        )
        gen = safegen.Generator()
        gen.prepare(world.real)
        if not (tmp_path / "out").exists():
            gen.train().generate(300, tmp_path / "out")
        return gen.existing(300, tmp_path / "out")

    assert existing("one")
    with pytest.raises(safegen.TargetError, match="not the one"):
        existing("other")


def _edited(model: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """A description in which every column was changed, mended in its digest."""
    body = document(model, MODEL_NAME)
    for schema in body["schemas"].values():
        schema["columns"] = [change(column) for column in schema["columns"]]
    reseal(model, body, MODEL_NAME)


def _hidden(column: dict[str, Any]) -> dict[str, Any]:
    return column | {"kind": "id", "role": "id"}


def _personal(column: dict[str, Any]) -> dict[str, Any]:
    hidden = {"kind": "personal", "role": "personal"} if column["kind"] == "categorical" else {}
    return column | hidden


def _renamed(column: dict[str, Any]) -> dict[str, Any]:
    return column | {"name": column["name"] + "_"}


def _retyped(column: dict[str, Any]) -> dict[str, Any]:
    return column | {"type": "int8"}


@pytest.mark.parametrize("change", [_hidden, _personal, _renamed, _retyped])
def test_a_strangers_model_does_not_say_which_columns_are_judged(
    world: World, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    model = Path(shutil.copytree(world.model, tmp_path / "model"))
    _edited(model, lambda column: column | {"note": "as it is"})  # unknown now, but honest
    assert safegen.Generator.load(model, source=world.real)
    _edited(model, change)
    with pytest.raises(safegen.VerificationError):
        safegen.Generator.load(model, source=world.real)


def test_a_strangers_model_has_one_doubt_and_shows_no_level(world: World, tmp_path: Path) -> None:
    model = Path(shutil.copytree(world.model, tmp_path / "model"))
    _edited(model, lambda column: column | {"public": True})
    said = "<script>look here</script>"
    reseal(model, document(model, MODEL_NAME) | {"doubts": [said]}, MODEL_NAME)
    gen = safegen.Generator.load(model, source=world.real)
    assert not any(c.public for schema in gen.schemas.values() for c in schema.columns)
    made = gen.generate(300, tmp_path / "out").manifest
    assert "does not know this model" in made.warnings[0]
    assert said not in str(made.warnings)
