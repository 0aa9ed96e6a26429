"""`safegen report`, and the reports that releases of every kind write."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import safegen
from safegen import plugins
from safegen.cli import main
from safegen.manifest import new_key
from safegen.pages import figures_in
from safegen.testing import Rows


def run(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return int(end.value.code or 0), out.getvalue(), err.getvalue()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that needs no fit."""
    load = plugins.load
    given = ("sdv.hma", "sdv.par", "sdv.gaussian_copula")
    monkeypatch.setattr(
        plugins, "load", lambda group, name: Rows if name in given else load(group, name)
    )


def rows(n: int = 800, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return pd.DataFrame(
        {
            "x": x,
            "y": (x + rng.normal(size=n)).round(1),
            "level": rng.choice([*"abcd"], n, p=[0.6, 0.3, 0.06, 0.04]),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), "D"),
        }
    )


@pytest.fixture
def released(tmp_path: Path) -> Path:
    source = tmp_path / "rows.parquet"
    rows().to_parquet(source)
    safegen.attest(source, by="Ada Example", license="CC-BY-4.0")
    gen = safegen.Generator(policy="lab").fit(source)
    return gen.generate(700, tmp_path / "out").path


def sections(page: str) -> list[str]:
    return re.findall(r'<section id="(\w+)"', page)


def test_a_release_writes_a_page_with_everything(released: Path) -> None:
    page = (released / "report.html").read_text()
    assert sections(page) == [
        "lineage",
        "asked",
        "gates",
        "columns",
        "pairs",
        "tails",
        "sample",
        "privacy",
        "licences",
        "repeat",
        "digests",
    ]
    assert "attested by Ada Example" in page
    assert "CC-BY-4.0" in page
    assert "--rows 700" in page
    assert "--fit-seed 7 --seed 11" in page
    figures = figures_in(page)
    assert figures is not None
    assert figures.problem is None
    assert [c.name for c in figures.columns] == ["x", "y", "level", "day"]
    assert set(figures.parts) >= {"fidelity/marginals", "fidelity/pairs", "fidelity/tails"}
    for part in figures.parts["fidelity/marginals"]:
        assert part.within == (None, 0.05)


def test_the_command_verifies_first_and_says_where_the_page_is(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run("report", released)
    assert (code, err) == (0, "")
    written = tmp_path / "out.report.html"
    assert out == f"{written}\n"
    assert "recorded exactly this manifest" in written.read_text()
    safegen.verify(released)  # the folder is as it was

    # on another machine, without the ledger
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    code, out, _ = run("report", released, "--out", tmp_path / "new" / "page.html")
    assert code == 0
    page = (tmp_path / "new" / "page.html").read_text()
    assert "UNSIGNED, and no ledger at hand knows it" in page
    assert "attested by" not in page  # only the ledger knows by whom
    assert "rows.parquet" in page
    assert sections(page) == sections(written.read_text())
    assert figures_in(page) == figures_in(written.read_text())


def test_a_signature_by_a_trusted_key_is_told(released: Path, tmp_path: Path) -> None:
    new_key(tmp_path / "key")
    code, _, err = run("report", released, "--trusted-key", tmp_path / "key.pub")
    assert code == 4
    assert "not signed" in err
    assert "NOT VERIFIED" in (tmp_path / "out.report.html").read_text()
    assert run("sign", released, "--key", tmp_path / "key")[0] == 0
    code, _, _ = run("report", released, "--trusted-key", tmp_path / "key.pub")
    assert code == 0
    page = (tmp_path / "out.report.html").read_text()
    assert "SIGNED by" in page
    assert "NOT VERIFIED" not in page


def test_what_does_not_verify_is_said_at_the_top(released: Path, tmp_path: Path) -> None:
    data = next((released / "data").glob("*.parquet"))
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    code, out, err = run("report", released)
    assert code == 4
    assert "NOT VERIFIED" in err
    page = Path(out.strip()).read_text()
    top = page[page.index("<main>") : page.index("<nav")]
    assert top.index("NOT VERIFIED: do not use") < top.index("Released by policy lab")
    assert "part-00000.parquet" in top


def test_the_tree_reaches_as_far_back_as_the_ledger(released: Path, tmp_path: Path) -> None:
    second = safegen.Generator(policy="lab").fit(released).generate(300, tmp_path / "second")
    tree = re.compile(r'<section id="lineage".*?</section>', re.DOTALL)
    for page in (second.path / "report.html", tmp_path / "again.html"):
        if not page.exists():
            assert run("report", second.path, "--out", page)[0] == 0
        [shown] = tree.findall(page.read_text())
        assert shown.count("<li>") == 3
        assert shown.index(second.manifest.dataset_id) < shown.index(str(released))
        assert shown.index(str(released)) < shown.index("rows.parquet")
        assert "depth 2" in shown
        assert "attested by Ada Example" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (lambda d: (d / "nothing",), "no folder"),
        (lambda d: (d, "--out", d / "page.html"), "would not verify"),
        (lambda d: (d, "--out", d.parent), "is a folder"),
    ],
)
def test_wrong_use(released: Path, arguments: Callable[[Path], Any], says: str) -> None:
    before = sorted(released.rglob("*"))
    code, _, err = run("report", *arguments(released))
    assert code == 2
    assert says in err
    assert sorted(released.rglob("*")) == before


def test_related_tables(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    people = pa.table({"id": np.arange(300), "age": rng.integers(18, 90, 300)})
    visits = pa.table({"person": rng.integers(0, 300, 900), "cost": rng.lognormal(size=900)})
    schema = {
        "tables": {
            "people": {"columns": {"id": {"role": "key"}}},
            "visits": {"columns": {"person": {"references": "people.id"}}},
        }
    }
    gen = safegen.Generator("sdv.hma", policy="lab").fit(
        {"people": people, "visits": visits}, schema=schema
    )
    page = (gen.generate(250, tmp_path / "out").path / "report.html").read_text()
    figures = figures_in(page)
    assert figures is not None
    assert figures.problem is None
    assert {(c.table, c.name) for c in figures.columns} == {("people", "age"), ("visits", "cost")}
    assert [s.table for s in figures.samples] == ["people", "visits"]
    assert "250 rows of people" in page
    assert "by table" in page
    assert "visits.cost" in page
    assert "safegen generate people=SOURCE visits=SOURCE" in page


def test_sequences(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    table = pa.table(
        {"user": np.repeat(np.arange(100), 5), "step": np.tile(np.arange(5), 100),
         "spent": rng.lognormal(size=500)}
    )  # fmt: skip
    roles = {"user": {"role": "sequence_key"}, "step": {"role": "sequence_index"}}
    gen = safegen.Generator("sdv.par", policy="lab").fit(table, schema={"columns": roles})
    page = (gen.generate(80, tmp_path / "out").path / "report.html").read_text()
    figures = figures_in(page)
    assert figures is not None
    assert (figures.asked, figures.noun, figures.problem) == (80, "sequences", None)
    assert "80 sequences" in page
    assert "400 rows" in page


def test_conditions_are_told_by_column(tmp_path: Path) -> None:
    gen = safegen.Generator(policy="lab").fit(rows())
    out = gen.generate(100, tmp_path / "out", conditions={"level": "b"}).path
    page = (out / "report.html").read_text()
    assert "--condition 'level=…'" in page.replace("&#x27;", "'")
    figures = figures_in(page)
    assert figures is not None
    levels = next(c.levels for c in figures.columns if c.name == "level")
    assert levels is not None
    assert levels.real == levels.made == [1.0]  # the real rows that meet the condition


def test_what_cannot_be_drawn_stops_no_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safegen.reporting as reporting

    def fails(*arguments: Any, **more: Any) -> Any:
        raise ValueError("CANARY is what it fell over")

    monkeypatch.setattr(reporting, "column_figures", fails)
    dataset = safegen.Generator(policy="lab").fit(rows()).generate(200, tmp_path / "out")
    page = (dataset.path / "report.html").read_text()
    assert "Not all of this could be drawn: builtins.ValueError" in page
    assert "CANARY" not in page
    assert "fidelity/tails" in page
