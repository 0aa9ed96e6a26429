"""Existing work: synthesizers that a user fitted with SDV or ctgan, and what SDV 1 left behind."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import safegen
from safegen.backends.sdv.adopted import Adopted, AdoptedModel, check_adoptable
from safegen.backends.undisturbed import undisturbed
from safegen.errors import BackendError, UsageError

pytest.importorskip("sdv", reason="SDV is not installed: pip install 'safegen[sdv]'")

N = 300
ROWS = 400
SMALL = 1_000


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(6)
    age = rng.integers(18, 80, N)
    city = rng.choice(["Rome", "Oslo", "Lima"], N, p=[0.5, 0.3, 0.2])
    return pd.DataFrame(
        {
            "age": age,
            "until": age + rng.integers(0, 30, N),
            "town": city,
            "country": pd.Series(city).map({"Rome": "IT", "Oslo": "NO", "Lima": "PE"}),
            "pay": np.round(rng.gamma(2, 20_000, N), 2),
        }
    )


def metadata_of(frame: pd.DataFrame) -> Any:
    from sdv.metadata import Metadata

    kinds = {"age": "numerical", "until": "numerical", "pay": "numerical"}
    columns = {n: {"sdtype": kinds.get(n, "categorical")} for n in frame.columns}
    return Metadata.load_from_dict(
        {"METADATA_SPEC_VERSION": "V1", "tables": {"t": {"columns": columns}}, "relationships": []}
    )


def fitted(frame: pd.DataFrame, kind: str, *constraints: Any) -> Any:
    from sdv import single_table

    more = {} if kind == "GaussianCopula" else {"epochs": 1, "enable_gpu": False}
    with undisturbed():
        synthesizer = getattr(single_table, f"{kind}Synthesizer")(metadata_of(frame), **more)
        if constraints:
            synthesizer.add_constraints(list(constraints))
        synthesizer.fit({"t": frame})
    return synthesizer


def of_ctgan(frame: pd.DataFrame, kind: str) -> Any:
    import ctgan

    with undisturbed():
        synthesizer = getattr(ctgan, kind)(epochs=1, enable_gpu=False)
        synthesizer.fit(frame, ["town", "country"])
    return synthesizer


MAKERS: dict[str, Callable[[pd.DataFrame], Any]] = {
    **{
        kind: lambda frame, kind=kind: fitted(frame, kind)
        for kind in ("GaussianCopula", "CTGAN", "TVAE", "CopulaGAN")
    },
    **{
        f"ctgan.{kind}": lambda frame, kind=kind: of_ctgan(frame, kind)
        for kind in ("CTGAN", "TVAE")
    },
}


def wrap(synthesizer: Any, frame: pd.DataFrame, place: Path) -> safegen.Generator:
    gen = safegen.Generator.wrap(
        synthesizer, trained_on=frame, policy="lab", ledger=place / "ledger.db"
    )
    assert isinstance(gen._model, AdoptedModel)
    gen._model = replace(gen._model, block_rows=SMALL)  # what a short request costs, too
    return gen


@pytest.mark.parametrize("kind", MAKERS)
def test_it_is_sampled_saved_loaded_and_released(
    kind: str, frame: pd.DataFrame, tmp_path: Path
) -> None:
    synthesizer = MAKERS[kind](frame)
    safegen.attest(frame, by="a tester", ledger=tmp_path / "ledger.db")
    gen = wrap(synthesizer, frame, tmp_path)
    model = gen._model
    assert isinstance(model, AdoptedModel)
    before = np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    block = model.sample(ROWS, seed=5, block=3)["table"]
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index, union-attr]
    with undisturbed():  # whatever the owner does with it changes nothing
        synthesizer.sample(50)
    assert model.sample(90, seed=5, block=3)["table"].equals(block.slice(0, 90))
    assert not model.sample(ROWS, seed=5, block=4)["table"].equals(block)
    assert not model.sample(ROWS, seed=6, block=3)["table"].equals(block)

    released = gen.generate(ROWS, tmp_path / "first")
    assert released.manifest.ancestry == "unverified"
    assert released.manifest.depth_is_lower_bound
    assert "adopted" in released.manifest.warnings[0]
    assert not released.manifest.claims
    assert {"sdv", "ctgan", "torch"} <= set(released.manifest.generator.versions)
    saved = gen.save(tmp_path / "model")
    loaded = safegen.Generator.load(saved, policy="lab", source=frame, ledger=gen._ledger)
    again = loaded.generate(ROWS, tmp_path / "again", workers=2)
    assert again.manifest.logical_digest == released.manifest.logical_digest
    assert safegen.verify(tmp_path / "again").rows == ROWS


def test_conditions_are_met_by_rejection_and_a_shortfall_is_an_error(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Adopted, "block_rows", SMALL)
    gen = wrap(fitted(frame, "GaussianCopula"), frame, tmp_path)
    ds = gen.generate(300, tmp_path / "lima", conditions={"town": "Lima"})
    assert set(ds.to_pandas()["town"]) == {"Lima"}
    assert len(ds.to_pandas()) == 300
    rare = float(frame["pay"].max())
    with pytest.raises(BackendError, match="of 100 rows"):
        gen.generate(100, tmp_path / "rare", conditions={"pay": rare})
    assert not (tmp_path / "rare").exists()


def test_the_owners_constraints_hold(frame: pd.DataFrame, tmp_path: Path) -> None:
    from sdv.cag import FixedCombinations, Inequality

    synthesizer = fitted(
        frame,
        "GaussianCopula",
        FixedCombinations(column_names=["town", "country"]),
        Inequality(low_column_name="age", high_column_name="until"),
    )
    found = wrap(synthesizer, frame, tmp_path).generate(ROWS, tmp_path / "out").to_pandas()
    pairs = set(frame[["town", "country"]].itertuples(index=False, name=None))
    assert set(found[["town", "country"]].itertuples(index=False, name=None)) <= pairs
    assert (found["age"] <= found["until"]).all()
    assert list(found.columns) == list(frame.columns)


def test_constraints_that_reject_nearly_all_rows_are_an_error_not_fewer_rows(
    frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesizer = fitted(frame, "GaussianCopula")
    whole = type(synthesizer)._sample_batch
    few = {"max_tries": 1}

    def rejecting(self: Any, batch_size: int, **more: Any) -> Any:
        return whole(self, batch_size, **(more | few)).head(40)

    monkeypatch.setattr(type(synthesizer), "_sample_batch", rejecting)
    with pytest.raises(BackendError, match="40 of 1,000 rows: its constraints"):
        wrap(synthesizer, frame, tmp_path).generate(ROWS, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class TestRefused:
    """Each with the way out."""

    def test_related_tables_and_sequences(self, frame: pd.DataFrame, tmp_path: Path) -> None:
        from sdv.metadata import Metadata
        from sdv.multi_table import HMASynthesizer
        from sdv.sequential import PARSynthesizer

        columns = {"k": {"sdtype": "id"}, "x": {"sdtype": "numerical"}}
        document = {
            "METADATA_SPEC_VERSION": "V1",
            "tables": {
                "a": {"columns": columns, "primary_key": "k"},
                "b": {"columns": columns},
            },
            "relationships": [
                {
                    "parent_table_name": "a",
                    "parent_primary_key": "k",
                    "child_table_name": "b",
                    "child_foreign_key": "k",
                }
            ],
        }
        with undisturbed():
            hma = HMASynthesizer(Metadata.load_from_dict(document))
            del document["tables"]["b"], document["tables"]["a"]["primary_key"]  # type: ignore[attr-defined, arg-type, index]
            document["relationships"] = []
            document["tables"]["a"]["sequence_key"] = "k"  # type: ignore[index, call-overload]
            par = PARSynthesizer(Metadata.load_from_dict(document))
        for synthesizer, backend in ((hma, r"sdv\.hma"), (par, r"sdv\.par")):
            with pytest.raises(UsageError, match=backend):
                safegen.Generator.wrap(synthesizer, trained_on={"a": frame, "b": frame})

    def test_what_is_not_fitted(self, frame: pd.DataFrame) -> None:
        import ctgan
        from sdv.single_table import TVAESynthesizer

        for unfitted in (TVAESynthesizer(metadata_of(frame)), ctgan.CTGAN(), ctgan.TVAE()):
            with pytest.raises(UsageError, match="not fitted"):
                safegen.Generator.wrap(unfitted, trained_on=frame)

    def test_a_ctgan_of_an_array_and_other_columns(
        self, frame: pd.DataFrame, tmp_path: Path
    ) -> None:
        import ctgan

        array = ctgan.TVAE(epochs=1, enable_gpu=False)
        with undisturbed():
            array.fit(frame[["age", "pay"]].to_numpy())
        with pytest.raises(UsageError, match="on an array"):
            check_adoptable(array)
        with pytest.raises(UsageError, match="other names"):
            wrap(of_ctgan(frame, "TVAE"), frame.rename(columns={"town": "city"}), tmp_path)

    @pytest.mark.parametrize("given", ["model.pkl", b"\x80", Path("model.pkl")], ids=repr)
    def test_a_file_instead_of_the_synthesizer(self, given: Any, frame: pd.DataFrame) -> None:
        with pytest.raises(UsageError, match="load it first") as refusal:
            safegen.Generator.wrap(given, trained_on=frame)
        assert "docs/migrating.md" in str(refusal.value)


class TestSdv1:
    """SDV 2 has no module that a pickle of SDV 1 names, and so cannot read one."""

    @pytest.mark.parametrize(
        "named",
        ["sdv.metadata.single_table SingleTableMetadata", "sdv.tabular.copulas GaussianCopula",
         "sdv.lite.single_table SingleTablePreset", "sdv.constraints.tabular Inequality"],
    )  # fmt: skip
    def test_its_pickles_cannot_be_read(self, named: str, tmp_path: Path) -> None:
        from sdv.utils import load_synthesizer

        module, name = named.split()
        (tmp_path / "old.pkl").write_bytes(f"c{module}\n{name}\n.".encode())
        with pytest.raises(ModuleNotFoundError):
            load_synthesizer(tmp_path / "old.pkl")
        with pytest.raises(ModuleNotFoundError):
            pickle.loads((tmp_path / "old.pkl").read_bytes())

    def test_its_objects_are_refused_with_the_path(self, frame: pd.DataFrame) -> None:
        old = fitted(frame, "GaussianCopula")
        check_adoptable(old)
        old._fitted_sdv_version = "1.34.3"
        older = type("GaussianCopula", (), {"__module__": "sdv.tabular.copulas"})()
        for synthesizer in (old, older):
            with pytest.raises(UsageError, match=r"SDV 1.*docs/migrating\.md"):
                safegen.Generator.wrap(synthesizer, trained_on=frame)

    def test_its_metadata_declares_the_roles(self, frame: pd.DataFrame, tmp_path: Path) -> None:
        """As a JSON file and as a dict; an honest schema beside it says the same."""
        old = {
            "METADATA_SPEC_VERSION": "SINGLE_TABLE_V1",
            "columns": {
                "age": {"sdtype": "numerical", "computer_representation": "Int64"},
                "until": {"sdtype": "categorical"},
                "town": {"sdtype": "city", "pii": True},
                "country": {"sdtype": "categorical"},
                "pay": {"sdtype": "numerical"},
                "who": {"sdtype": "id", "regex_format": "[0-9]{4}"},
            },
            "primary_key": "who",
        }
        table = frame.assign(who=np.arange(N) + 1_000)
        path = tmp_path / "metadata.json"
        path.write_text(json.dumps(old))
        seen = []
        for metadata in (path, str(path), old):
            gen = safegen.Generator(policy="lab", ledger=tmp_path / "ledger.db")
            gen.prepare(table, metadata=metadata)
            [schema] = gen.schemas.values()
            seen.append({c.name: (c.kind, c.role) for c in schema.columns})
        assert seen[0] == seen[1] == seen[2]
        assert seen[0]["until"] == ("categorical", "feature")
        assert seen[0]["town"] == ("personal", "personal")
        assert seen[0]["who"] == ("id", "key")
        ds = gen.train().generate(100, tmp_path / "out")
        assert not set(ds.to_pandas()["who"]) & set(table["who"])
        with pytest.raises(UsageError, match="country"):
            gen.prepare(table.drop(columns="country"), metadata=old)
