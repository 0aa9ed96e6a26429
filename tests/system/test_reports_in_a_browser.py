"""Reports as Chromium shows them: on a phone, on a desk, in the dark, on paper.

Pages of every kind of dataset, of a refusal, of a folder that does not verify, of a hundred
columns, and of names that are markup.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from browser import Tab, browser

import safegen
from safegen import plugins
from safegen.cli import main
from safegen.policy import Policy
from safegen.tables.images import encoded_images
from safegen.testing import Rows

pytestmark = pytest.mark.system

WIDTHS = (390, 1280)
N = 900


def _number(i: int, rng: np.random.Generator) -> Any:
    made = (
        rng.normal(0, 10.0 ** (i % 7), N),
        np.where(rng.random(N) < 0.8, 0, rng.lognormal(9, 2, N)),
        rng.integers(0, 5 + 40 * (i % 3), N),
    )
    return made[i % 3]


def _table(columns: int = 9) -> pd.DataFrame:
    """Numbers of every size, levels, dates, missing values, a constant."""
    rng = np.random.default_rng(columns)
    levels = [f"a level with quite a long name, number {k}" for k in range(30)]
    share = np.arange(30, 0, -1) ** 2.5
    frame: dict[str, Any] = {
        "level": pd.array(rng.choice(levels, N, p=share / share.sum()), dtype="string"),
        "day": pd.Timestamp("1998-03-01") + pd.to_timedelta(rng.integers(0, 9_000, N), "D"),
        "yes": rng.random(N) < 0.3,
        "constant": 7,
        "<script>alert(1)</script> & a_very_long_name_without_any_space_to_break_it_at": rng.choice(
            ["<b>bold</b>", "&amp;"], N
        ),
    }
    frame |= {f"number_{i}": _number(i, rng) for i in range(max(columns - len(frame), 1))}
    made = pd.DataFrame(frame)
    made.loc[made.index % 9 == 0, "level"] = pd.NA
    return made


def _photos(folder: Path) -> Path:
    rng = np.random.default_rng(3)
    for i, data in enumerate(encoded_images(rng.integers(0, 256, (80, 24, 24, 3)).astype("uint8"))):
        (folder / f"c{i % 3}").mkdir(parents=True, exist_ok=True)
        (folder / f"c{i % 3}" / f"{i}.png").write_bytes(data)
    return folder


def _shown(folder: Path) -> Policy:
    """The laboratory's policy, under which reports quote real values: the longest texts."""
    text = (Path(__file__).parents[2] / "policies" / "lab.yaml").read_text()
    place = folder / "lab.yaml"
    place.write_text(text.replace("real_values: false", "real_values: true"))
    return Policy.load(place)


def _report(*arguments: object) -> None:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), pytest.raises(SystemExit):
        main(["report", *map(str, arguments)])


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By kind of dataset, the page that safegen writes."""
    place = tmp_path_factory.mktemp("pages")
    load = plugins.load
    rng = np.random.default_rng(1)
    people = pa.table({"id": np.arange(300), "age": rng.integers(18, 90, 300)})
    visits = pa.table({"person": rng.integers(0, 300, 900), "cost": rng.lognormal(size=900)})
    keys = {
        "people": {"columns": {"id": {"role": "key"}}},
        "visits": {"columns": {"person": {"references": "people.id"}}},
    }
    steps = pa.table({"user": np.repeat(np.arange(100), 5), "spent": rng.lognormal(size=500)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            plugins,
            "load",
            lambda group, name: Rows if name.startswith("sdv.") else load(group, name),
        )

        def released(
            name: str, source: Any, backend: str = "sdv.gaussian_copula", **more: Any
        ) -> Path:
            policy = more.pop("policy", "lab")
            gen = safegen.Generator(backend, policy).fit(source, **more)
            return gen.generate(240, place / name).path

        table = released("table", _table(), policy=_shown(place))
        ledgerless = released("unverified", _table())
        (ledgerless / "README.md").write_text("another")
        _report(ledgerless, "--out", place / "unverified.html")
        _table().to_parquet(place / "rows.parquet")
        safegen.attest(place / "rows.parquet", by="Ada Example")
        refused = safegen.Generator(policy="strict").fit(place / "rows.parquet")
        with pytest.raises(safegen.ReleaseRefused):
            refused.generate(300, place / "refused")
        folders = {
            "table": table,
            "wide": released("wide", _table(100)),
            "tables": released(
                "tables", {"people": people, "visits": visits}, "sdv.hma", schema={"tables": keys}
            ),
            "sequences": released(
                "sequences",
                steps,
                "sdv.par",
                schema={"columns": {"user": {"role": "sequence_key"}}},
            ),
            "images": released("images", _photos(place / "photos"), policy=_shown(place)),
        }
    return {
        **{name: folder / "report.html" for name, folder in folders.items()},
        "unverified": place / "unverified.html",
        "refused": place / "refused.refused.html",
    }


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with browser() as one:
        yield one


KINDS = ("table", "wide", "tables", "sequences", "images", "unverified", "refused")

# Of each chart: how large it is, whether marks are in it, and what stands out of it.
CHARTS = """
document.querySelectorAll('details').forEach(d => d.open = true);
[...document.querySelectorAll('svg')].map(svg => {
  const box = svg.getBoundingClientRect();
  const marks = [...svg.querySelectorAll('path,rect,circle')].map(m => m.getBoundingClientRect());
  const words = [...svg.querySelectorAll('text')]
    .map(t => [t.textContent, t.getBoundingClientRect()]);
  return {
    says: svg.getAttribute('aria-label') || 'hidden',
    width: box.width, height: box.height,
    marks: marks.filter(m => m.width > 0 || m.height > 0).length,
    out: marks.filter(m => m.left < box.left - 3 || m.right > box.right + 3 ||
      m.top < box.top - 3 || m.bottom > box.bottom + 3).length,
    cut: words.filter(([, t]) => t.left < box.left - 2 || t.right > box.right + 2 ||
      t.bottom > box.bottom + 3).map(([word]) => word),
  };
})
"""

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_whole(tab: Tab, pages: dict[str, Path], kind: str, width: int) -> None:
    page = pages[kind]
    tab.open(page, width)
    charts = tab.ask(CHARTS)
    assert len(charts) > (4 if kind in ("tables", "sequences", "images") else 20)
    for chart in charts:
        assert chart["width"] > 10, chart
        assert chart["height"] > 5, chart
        assert chart["marks"] > 0, chart
        assert chart["out"] == 0, chart
        assert chart["cut"] == [], chart
    assert tab.ask(OVERFLOW) == 0  # with everything unfolded
    assert tab.complaints() == []
    fetched = [url for url in tab.requests() if not url.startswith("data:image/")]
    assert fetched == [page.resolve().as_uri()]
    assert tab.ask("document.images.length") == (12 if kind == "images" else 0)
    assert tab.ask("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert tab.ask("document.scripts.length") == 0


def test_a_page_in_the_dark_is_dark(tab: Tab, pages: dict[str, Path]) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    tab.open(pages["table"], 390, dark=True)
    assert tab.ask(ground) == "rgb(15, 20, 25)"
    tab.open(pages["table"], 390)
    assert tab.ask(ground) == "rgb(255, 255, 255)"


def test_a_page_on_paper_is_light_and_has_no_menu(tab: Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["table"], 800, dark=True, media="print")
    assert tab.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert tab.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.ask(OVERFLOW) == 0


def test_what_a_broken_page_would_look_like(tab: Tab, tmp_path: Path) -> None:
    """Each complaint that is asserted not to be there can be made."""
    page = tmp_path / "broken.html"
    page.write_text(
        "<!doctype html><body style='margin:0'><div style='width:500px'>wide</div>"
        "<svg aria-label='empty' width=40 height=40></svg>"
        "<svg aria-label='out' width=40 height=40 overflow=visible>"
        "<rect x=60 width=20 height=20 /><text x=30 y=20>cut off here</text></svg>"
        "<img src='http://127.0.0.1:9/x.png'><script>console.error('no'); throw 1</script>"
    )
    tab.open(page, 390)
    empty, out = tab.ask(CHARTS)
    assert (empty["marks"], out["out"], out["cut"]) == (0, 1, ["cut off here"])
    assert tab.ask(OVERFLOW) > 100
    assert any("console" in said or "no" in said for said in tab.complaints())
    assert "http://127.0.0.1:9/x.png" in tab.requests()
