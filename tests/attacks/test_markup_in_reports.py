"""Way round a reader: a name, a level or a manifest that becomes part of the page that shows it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from forging import World, cli, document, reseal

import safegen
from safegen.manifest import Manifest
from safegen.measure.figures import Figures
from safegen.pages import Standing, figures_in, report, unreadable_report

EVIL = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "' onload='alert(3)",
    "</pre></style></title><iframe src=//evil.example>",
    "]]><svg onload=alert(4)>",
    "&lt;b&gt; &amp; \u202eright to left\u2066 \x1b[31m\x00",
    "javascript:alert(5)",
    "{url(//evil.example)}</style>",
]

TAGS = re.findall(
    r"\S+",
    "html head meta title style body main h1 h2 h3 h4 p div section nav ul li a b code pre span "
    "strong small svg rect path circle text table caption thead tbody tr th td dl dt dd figure "
    "figcaption article header footer details summary img br wbr",
)
ATTRIBUTES = re.findall(
    r"\S+",
    "lang charset http-equiv content name class id aria-label aria-labelledby aria-hidden role "
    "tabindex href src alt title style hidden scope width height viewbox d x y cx cy r fill "
    "fill-opacity preserveaspectratio",
)


class Reader(HTMLParser):
    """What a browser would make of a page: anything but the tags and attributes of ours is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.strange: list[str] = []
        self.styles = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            self.strange.append(tag)
        self.styles += tag == "style"
        for name, value in attrs:
            text = value or ""
            if name not in ATTRIBUTES:
                self.strange.append(f"{tag} {name}")
            if name == "href" and not text.startswith("#"):
                self.strange.append(f"{tag} href {text}")
            if name == "src" and not text.startswith(("data:image/png;base64,", "data:image/jpeg")):
                self.strange.append(f"{tag} src {text}")
            if name == "style" and not text.startswith("color:var(--"):
                self.strange.append(f"{tag} style {text}")


def _sound(page: str) -> None:
    """A page with nothing in it but what the builder put there."""
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.strange == []
    assert reader.styles == 1
    assert "default-src 'none'" in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert page.startswith("<!doctype html>")
    assert page.count("</html>") == 1


def _named(folder: Path) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    n = 400
    frame = {name: rng.normal(size=n).round(3) for name in EVIL[:4]}
    frame["levels"] = rng.choice(EVIL[:5], n)
    frame[EVIL[4]] = rng.choice(["a", "b"], n)
    return pd.DataFrame(frame)


def test_names_and_levels_are_text(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "<img src=x onerror=alert(6)>"
    folder.mkdir()
    source = folder / "rows.parquet"
    _named(tmp_path).to_parquet(source)
    safegen.attest(source, by=EVIL[0], license=EVIL[1], source_uri=EVIL[6])
    gen = safegen.Generator().fit(source, schema={"columns": {"levels": {"public": True}}})
    gen.generate(400, folder / "out")
    page = (folder / "out" / "report.html").read_text()
    _sound(page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    ran = cli("report", folder / "out")
    assert ran.code == 0, ran.err
    again = folder / "out.report.html"
    assert ran.out.strip() == str(again)
    _sound(again.read_text())


def test_a_refusal_is_text_too(home: Path, tmp_path: Path) -> None:
    rows = _named(tmp_path)
    rows["levels"] = ["<script>x</script>"] + ["plain"] * (len(rows) - 1)
    policy = safegen.Policy.load("strict")
    rows.to_parquet(tmp_path / "rows.parquet")
    safegen.attest(tmp_path / "rows.parquet", by="somebody")
    gen = safegen.Generator(policy=policy).fit(tmp_path / "rows.parquet")
    with pytest.raises(safegen.ReleaseRefused):  # unsigned, and next to nothing can be judged
        gen.generate(60, tmp_path / "<b>out")
    page = (tmp_path / "<b>out.refused.html").read_text()
    _sound(page)
    assert "Refused by policy strict" in page


def _spoilt(value: Any, put: Any) -> Any:
    """A document in which every text is another thing."""
    if isinstance(value, dict):
        return {k: _spoilt(v, put) for k, v in value.items()}
    if isinstance(value, list):
        return [_spoilt(v, put) for v in value]
    return put if isinstance(value, str | int | float) and not isinstance(value, bool) else value


OPEN = ("decisions", "safeguards", "claims", "privacy", "extra", "policy")
PUTS: dict[str, Any] = {
    **{f"text-{i}": text for i, text in enumerate(EVIL)},
    "list": [["<i>", {"<u>": 1}]],
    "map": {"<script>": "<script>", "id": ["<b>"]},
    "none": None,
    "huge": 10**15,
    "float": 1e308,
}


@pytest.mark.parametrize("case", PUTS)
def test_a_forged_manifest_writes_no_page_of_its_own(world: World, case: str) -> None:
    told = document(world.dataset.path)
    told.update({name: _spoilt(told[name], PUTS[case]) for name in OPEN})
    told["measurements"] = [PUTS[case] if isinstance(PUTS[case], dict) else {}]
    manifest = Manifest.model_validate(told)
    page = report(manifest, None, None, Standing(False, EVIL[0], (EVIL[1],)))
    _sound(page)
    assert "NOT VERIFIED" in page


def test_forged_figures_write_no_page_of_their_own(world: World) -> None:
    """They are read from a page that somebody may have written."""
    manifest = world.dataset.manifest
    page = (world.dataset.path / "report.html").read_text()
    honest = figures_in(page)
    assert honest is not None
    assert figures_in(report(manifest, honest, None)) == honest
    told = honest.model_dump(mode="json")
    for evil in EVIL:
        forged = Figures.model_validate(
            {**_renamed(told, evil), "noun": evil, "problem": evil}, strict=False
        )
        _sound(report(manifest, forged, None))
        # and once more through a page
        _sound(report(manifest, figures_in(report(manifest, forged, None)), None))


def _renamed(value: Any, put: str) -> Any:
    if isinstance(value, dict):
        return {k: _renamed(v, put) for k, v in value.items()}
    if isinstance(value, list):
        return [_renamed(v, put) for v in value]
    return put if isinstance(value, str) else value


@pytest.mark.parametrize(
    "change",
    [
        lambda t: (
            t | {"pictures": [{"kind": "png", "data": '"><script>', "width": 1, "height": 1}]}
        ),
        lambda t: t | {"pictures": [{"kind": 'x"', "data": "AA==", "width": 1, "height": 1}]},
        lambda t: t | {"asked": "<script>"},
        lambda t: t | {"columns": [{"table": "t"}]},
        lambda t: t | {"more": "fields"},
    ],
)
def test_figures_of_another_form_are_none(world: World, change: Callable[[Any], Any]) -> None:
    page = (world.dataset.path / "report.html").read_text()
    honest = figures_in(page)
    assert honest is not None
    told = change(honest.model_dump(mode="json"))
    assert figures_in(f'<pre hidden id="safegen-figures">{escape(json.dumps(told))}</pre>') is None


def test_a_dataset_that_does_not_verify_says_so_first(
    world: World, no_ledger: Path, tmp_path: Path
) -> None:
    forged = world.copy(tmp_path / "forged")
    told = document(forged)
    told["warnings"] = [EVIL[0]]
    reseal(forged, told)
    page = forged / "report.html"
    page.write_text(page.read_text().replace("<main>", "<main><script>alert(1)</script>"))
    ran = cli("report", forged)
    assert ran.code == 4
    assert "NOT VERIFIED" in ran.err
    written = (tmp_path / "forged.report.html").read_text()
    _sound(written)
    assert written.index("NOT VERIFIED") < written.index("Released by policy")
    assert "report.html" in written[written.index("NOT VERIFIED") :][:2000]  # which file it is


def test_a_manifest_that_cannot_be_read_leaves_a_page_that_says_why(
    world: World, tmp_path: Path
) -> None:
    broken = world.copy(tmp_path / "broken")
    manifest = broken / "safegen.manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-40])
    ran = cli("report", broken)
    assert ran.code == 4
    page = (tmp_path / "broken.report.html").read_text()
    _sound(page)
    assert "NOT VERIFIED" in page
    assert "Released" not in page
    _sound(unreadable_report(EVIL[0], EVIL))
    shutil.rmtree(broken)
