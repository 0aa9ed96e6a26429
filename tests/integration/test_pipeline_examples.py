"""The examples for dbt and continuous integration: their files parse, and their commands and
models do what they say."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import duckdb
import jinja2
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

import safegen
from safegen.errors import AdmissionRefused
from safegen.testing import example_table

EXAMPLES = Path(__file__).parents[2] / "examples"


def read(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with attested rows at data/train.parquet, and the policy of the examples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(safegen.__file__).parents[1]))
    for folder in ("data", "policies"):
        (tmp_path / folder).mkdir()
    pq.write_table(example_table(100), tmp_path / "data" / "train.parquet")
    safegen.attest(tmp_path / "data" / "train.parquet", by="a test")
    shipped = Path(safegen.__file__).parents[2] / "policies" / "baseline.yaml"
    (tmp_path / "policies" / "ours.yaml").write_bytes(shipped.read_bytes())
    return tmp_path


def github() -> tuple[str, dict[str, str]]:
    job = read(EXAMPLES / "ci" / "github-actions.yml")["jobs"]["admitted"]
    [step] = [s["run"] for s in job["steps"] if "safegen check" in s.get("run", "")]
    return step, {"DATA": job["env"]["DATA"]}


def gitlab() -> tuple[str, dict[str, str]]:
    job = read(EXAMPLES / "ci" / "gitlab-ci.yml")["training-data"]
    [step] = [s for s in job["script"] if "safegen check" in s]
    return step, job["variables"]


@pytest.mark.parametrize("job", [github, gitlab])
def test_the_job_passes_on_admitted_data_and_stops_on_what_is_warned_of(
    place: Path, job: Any
) -> None:
    command, variables = job()
    command = command.replace("safegen check", f"{sys.executable} -m safegen check")

    def run() -> int:
        return subprocess.run(
            ["bash", "-c", command], env={**os.environ, **variables}, check=False
        ).returncode

    assert run() == 0
    pq.write_table(example_table(100, seed=3), place / variables["DATA"])  # nobody attested these
    assert run() == 3
    if job is github:
        found = json.loads((place / "safegen.sarif").read_bytes())["runs"][0]["results"]
        assert any("lineage/unattested" in r["ruleId"] for r in found)
    else:
        suite = ElementTree.parse(place / "safegen.xml").getroot()
        assert suite.findall(".//failure")


class Dbt:
    """What a Python model of dbt is given."""

    def __init__(self) -> None:
        self.configured: dict[str, Any] = {}

    def config(self, **given: Any) -> None:
        self.configured |= given

    def ref(self, name: str) -> str:
        return f"the relation {name}"


def test_the_dbt_model_passes_on_what_is_admitted_only(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = runpy.run_path(str(EXAMPLES / "dbt" / "models" / "admitted.py"))["model"]
    monkeypatch.setenv("SAFEGEN_ROWS", str(place / "data" / "train.parquet"))
    monkeypatch.setenv("SAFEGEN_POLICY", "baseline")
    assert model(Dbt(), None) == "the relation rows"
    monkeypatch.setenv("SAFEGEN_POLICY", "strict")
    monkeypatch.setenv("SAFEGEN_LEDGER", str(place / "empty.db"))
    with pytest.raises(AdmissionRefused):
        model(Dbt(), None)


def test_the_rows_of_dbt_have_no_columns_of_provenance(place: Path) -> None:
    gen = safegen.Generator(policy="lab").fit(place / "data" / "train.parquet")
    gen.generate(50, place / "out")
    template = jinja2.Template((EXAMPLES / "dbt" / "models" / "rows.sql").read_text())
    for source, rows in (("out", 50), ("data/train.parquet", 100)):
        sql = template.render(env_var={"SAFEGEN_ROWS": str(place / source)}.__getitem__)
        found = duckdb.sql(sql)
        assert found.columns == example_table(1).column_names
        assert len(found.fetchall()) == rows


def test_the_files_of_dbt_fit_together() -> None:
    folder = EXAMPLES / "dbt"
    project, profiles = read(folder / "dbt_project.yml"), read(folder / "profiles.yml")
    assert project["profile"] in profiles
    named = {m["name"] for m in read(folder / "models" / "schema.yml")["models"]}
    models = {p.stem for p in (folder / "models").iterdir() if p.suffix in (".sql", ".py")}
    assert named == models
    told = (folder / "README.md").read_text()
    assert all(f"models/{p.name}" in told for p in (folder / "models").iterdir())
