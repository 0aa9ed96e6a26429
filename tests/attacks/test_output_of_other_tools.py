"""Output of other tools: their marks are warned of and never refused, and can be put on record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from forging import World, check, cli, is_refused_as_synthetic
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import safegen


@pytest.mark.parametrize("mark", ["sdv-id-7", "sdv-pii-a8f1", "_RARE_"])
def test_a_value_of_another_tool_is_a_warning(world: World, tmp_path: Path, mark: str) -> None:
    rows = world.rows(900, 31)
    assert "lineage/marks" not in check(rows).findings
    marked = rows.assign(who=["someone"] * 897 + [mark, mark, None])
    for source in (marked, marked.astype({"who": "category"})):
        decision = check(source)
        assert decision.allowed
        finding = decision.findings["lineage/marks"]
        assert finding.evidence[0].startswith("2 values are such as")
        assert [r.outcome for r in decision.judged if r.finding.check == "marks"] == ["warn"]
    marked.to_csv(tmp_path / "rows.csv", index=False)
    assert safegen.attest(tmp_path / "rows.csv", by="a test").origin == "real"  # a person may know


@pytest.mark.parametrize(
    ("card", "told"),
    [
        ("---\ntags:\n- synthetic\nlicense: mit\n---\n# Rows\n", True),
        ("---\ntags: [tabular, synthetic]\n---\n", True),
        ("---\nannotations_creators:\n- machine-generated\n---\n", True),
        ("---\ntags: [tabular]\n---\nNothing synthetic.\n", False),
        ("# Not synthetic\n- synthetic\n", False),
    ],
)
def test_a_card_that_says_so_is_a_warning(
    world: World, tmp_path: Path, card: str, told: bool
) -> None:
    (tmp_path / "README.md").write_text(card)
    world.rows(700, 32).to_csv(tmp_path / "rows.csv", index=False)
    decision = check(tmp_path / "rows.csv")
    assert decision.allowed
    assert ("lineage/marks" in decision.findings) == told


def test_an_image_of_a_web_ui_is_a_warning_that_tells_no_prompt(tmp_path: Path) -> None:
    pixels = np.random.default_rng(9).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    said = PngInfo()
    said.add_text("parameters", "jane roe, smiling\nSteps: 20, Sampler: Euler a, Seed: 1")
    for i, array in enumerate(pixels):
        Image.fromarray(array).save(tmp_path / f"{i}.png", pnginfo=said if i % 4 == 0 else None)
    decision = check(tmp_path, "images")
    assert decision.allowed
    finding = decision.findings["lineage/marks"]
    assert finding.evidence == (
        "10 images with settings of Stable Diffusion in a text (parameters)",
    )
    assert [r.outcome for r in decision.judged if r.finding.check == "marks"] == ["warn"]
    assert "jane" not in json.dumps(decision.to_json())
    assert safegen.attest(tmp_path, by="a test").origin == "real"  # a person may know


def test_output_on_record_is_refused_with_its_marks_gone(world: World, tmp_path: Path) -> None:
    own = {"ledger": tmp_path / "ledger.db"}
    real = pd.read_parquet(world.real)
    foreign = real.sample(frac=1, random_state=1).reset_index(drop=True)
    foreign["occupation"] = real["occupation"].to_numpy()
    foreign["who"] = [f"sdv-id-{i}" for i in range(len(foreign))]
    with pytest.raises(safegen.errors.UsageError, match="tool="):
        safegen.attest(foreign, by="a test", tool="SDV", **own)
    safegen.attest(foreign, origin="synthetic", by="a test", tool="SDV 2", **own)
    (said,) = check(foreign, **own).findings["lineage/depth"].evidence[:1]
    assert "attested as synthetic by a test, made by SDV 2" in said
    assert is_refused_as_synthetic(check(foreign.sample(frac=1, random_state=2), **own))
    assert check(real.sample(frac=1, random_state=2), **own).allowed


def test_a_folder_is_scanned(world: World, tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    (lake / "in" / ".hidden").mkdir(parents=True)
    world.copy(lake / "released")
    rows = world.dataset.to_pandas().sample(600, random_state=4)
    rows.drop(columns=[n for n in rows if n.startswith("_safegen")]).to_csv(lake / "in" / "x.csv")
    world.rows(500, 7171).to_parquet(lake / "in" / "real.parquet")
    world.rows(500, 7171).to_parquet(lake / "in" / ".hidden" / "real.parquet")
    (lake / "in" / "torn.parquet").write_bytes(b"PAR1")
    (lake / "in" / "notes.txt").write_text("none of ours")
    (lake / "in" / "link.parquet").symlink_to(lake / "in" / "real.parquet")
    before = {p: p.read_bytes() for p in lake.rglob("*") if p.is_file()}
    ran = cli("scan", lake, "--json")
    assert ran.code == 0
    found = {Path(one["path"]).name: one for one in json.loads(ran.out)}
    assert list(found) == ["real.parquet", "torn.parquet", "x.csv", "released"]
    assert (found["real.parquet"]["origin"], found["real.parquet"]["evidence"]) == ("unknown", [])
    assert found["torn.parquet"]["problem"]
    # In the ledger of all tests other releases of the model, of one seed, may have its rows too.
    assert found["x.csv"]["synthetic_share"] > 0.9
    assert found["x.csv"]["dataset_id"] is not None
    assert found["released"]["synthetic_share"] == 1.0
    assert {p: p.read_bytes() for p in lake.rglob("*") if p.is_file()} == before
    said = cli("scan", lake).out.splitlines()
    assert len(said) == 4
    assert "100.0% synthetic" in said[3]
    assert cli("scan", lake / "nothing").code == 2
    assert cli("scan", lake / "in" / ".hidden").code == 0


def test_parts_of_output_are_known_beside_decoys(world: World, tmp_path: Path) -> None:
    """Another tool's rows: here our own model's, as somebody has them who never heard of us."""
    real = pd.read_parquet(world.real)
    maker = safegen.Generator("sdv.gaussian_copula", "lab", ledger=tmp_path / "away.db")
    maker.fit(real.head(4_000))
    output, decoys = (
        maker.generate(3_000, tmp_path / name, seed=i).to_pandas()
        for i, name in enumerate(("output", "decoys"))
    )
    for frame in (output, decoys):
        frame.attrs.clear()
    own = {"ledger": tmp_path / "ledger.db"}
    part = pd.concat([real.tail(3_000), output.sample(300, random_state=1)])
    edited = part.drop(columns=[real.columns[0]]).rename(columns=str.upper)
    safegen.attest(output, origin="synthetic", by="a test", tool="X", **own)
    assert check(part, **own).allowed  # nothing to compare with
    safegen.attest(output, origin="synthetic", by="a test", tool="X", decoys=decoys, **own)
    for rows in (part, edited, output.sample(500, random_state=2)):
        assert is_refused_as_synthetic(check(rows, **own))
    for rows in (real.tail(4_000), real.tail(4_000).drop_duplicates(), real.head(4_000)):
        assert check(rows, **own).allowed
    # Other rows of the same model are no copies of these.
    assert check(decoys.sample(1_000, random_state=3), **own).allowed


def test_decoys_that_can_be_none_are_refused(world: World, tmp_path: Path) -> None:
    own = {"ledger": tmp_path / "ledger.db", "by": "a test"}
    rows = pd.read_parquet(world.real).head(2_000)
    for wrong, said in (
        ({"origin": "real", "decoys": rows}, "as synthetic as a whole"),
        ({"origin": "synthetic", "decoys": rows}, "more than half of the rows are among"),
        ({"origin": "synthetic", "decoys": rows.iloc[:, :3]}, "they need its columns"),
        ({"origin": "synthetic", "decoys": {"a": rows, "b": rows}}, "for one table"),
    ):
        with pytest.raises(safegen.errors.UsageError, match=said):
            safegen.attest(rows, **wrong, **own)
    with pytest.raises(safegen.errors.UsageError, match="too few columns"):
        safegen.attest(rows[["age"]], origin="synthetic", decoys=rows[["age"]], **own)
