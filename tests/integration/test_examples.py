"""The examples run as they stand, from anywhere, and touch nothing of the user's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.csv as pc
import pytest

import safegen
from safegen.testing import example_table

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder and user folders of the test's own, and this interpreter's programs."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    for name in ("DATA", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"])
    monkeypatch.delenv("SAFEGEN_LEDGER", raising=False)
    monkeypatch.chdir(tmp_path)
    return home


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_script_tells_the_story(tmp_path: Path, own_home: Path) -> None:
    told = run(sys.executable, EXAMPLES / "story.py", tmp_path)
    assert "REFUSED at the admission gate by policy baseline" in told
    assert "the derived table is synthetic, depth 1" in told
    assert (tmp_path / "synthetic" / "safegen.manifest.json").is_file()
    assert not (own_home / "data" / "safegen").exists(), "the user's own ledger was touched"


def test_the_shell_script_checks_its_exit_codes(tmp_path: Path, own_home: Path) -> None:
    (tmp_path / "here").mkdir()
    told = run("bash", EXAMPLES / "story.sh", tmp_path / "here")
    assert "REFUSED at the admission gate by policy baseline" in told
    assert not (tmp_path / "here" / "again").exists()
    assert not (own_home / "data" / "safegen").exists(), "the user's own ledger was touched"


def test_the_notebook_shows_decisions_and_no_stack() -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(EXAMPLES / "story.ipynb", as_version=4)
    assert not any(c.get("outputs") for c in notebook.cells), "commit it without outputs"
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()

    pages = [text for o in _outputs(notebook) for text in [o.get("data", {}).get("text/html")]]
    for face in ("safegen manifest", "safegen generator", "safegen dataset", "RELEASED", "REFUSED"):
        assert any(face in page for page in pages if page), f"no HTML face of: {face}"

    [refusal] = [o for o in _outputs(notebook) if o["output_type"] == "error"]
    assert refusal["ename"] == "AdmissionRefused"
    shown = "\n".join(refusal["traceback"])
    assert shown.startswith("REFUSED at the admission gate by policy baseline")
    assert "lineage/depth (enforce, unmet)" in shown
    assert "Traceback" not in shown
    assert "generator.py" not in shown


def test_a_third_partys_backend_is_installed_found_conforms_and_generates(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, site = tmp_path / "package", tmp_path / "site"
    shutil.copytree(EXAMPLES / "safegen-marginals", package)
    offline = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--no-compile")
    run(sys.executable, "-m", "pip", "install", *offline, "--target", site, package)
    path = (site, Path(safegen.__file__).parents[1], os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, path)).rstrip(os.pathsep))
    safegen_ = (sys.executable, "-m", "safegen")

    assert "marginals" in run(*safegen_, "backends").split()
    pc.write_csv(example_table(300), tmp_path / "people.csv")
    words = ("--backend", "marginals", "--rows", 100, "--out", "out", "--condition", "job=b")
    run(*safegen_, "generate", "people.csv", *words)
    manifest = safegen.verify(tmp_path / "out")
    assert (manifest.rows, manifest.generator.backend) == (100, "marginals")
    assert manifest.generator.versions["safegen-marginals"] == "0.1.0"

    told = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", package / "tests")
    assert " passed" in told
    assert "skipped" not in told


def _outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]
