"""The lineage page and its JSON: what is asked for comes, and nothing in a ledger is markup."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from starlette.testclient import TestClient

from large_ledger import Growing, strange
from safegen.console.app import console
from safegen.ledger import open_ledger

EVIL = [
    "</pre><script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>.csv',
    "</title></style></svg><svg onload=alert(3)>",
    "javascript:alert(4)//x",
    "\u202ereversed\x1b[31m\u0000",
    "__proto__",
]


class Tags(HTMLParser):
    """The tags and attributes of a page, as a browser sees them."""

    def __init__(self, page: str):
        super().__init__()
        self.names: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes += [(k, v or "") for k, v in attrs if k != "value"]
        if tag == "script":
            self.scripts.append(dict(attrs).get("src"))


@pytest.fixture
def growing(tmp_path: Path) -> Growing:
    return Growing(open_ledger(tmp_path / "ledger.db"))


def asked(growing: Growing) -> TestClient:
    return TestClient(console(growing.ledger), base_url="http://127.0.0.1")


def drawn(page: str) -> dict[str, Any]:
    """What the page's script draws."""
    found = re.search(r'<pre hidden id="drawn">(.*?)</pre>', page, re.DOTALL)
    assert found is not None
    told: dict[str, Any] = json.loads(unescape(found[1]))
    return told


def test_the_page_holds_what_the_json_says(growing: Growing) -> None:
    source = growing.source("s3://lake/adult.parquet")
    growing.release(source)
    growing.release(strange(growing))
    client = asked(growing)
    for query in ("", "?q=adult", f"?root={source.dataset_id}", f"?at={source.dataset_id}"):
        told = client.get(f"/api/v1/lineage{query}")
        page = client.get(f"/lineage{query}")
        assert (told.status_code, page.status_code) == (200, 200)
        assert drawn(page.text) == told.json()
    assert told.json()["total"] == 3


def test_the_table_says_what_the_drawing_shows(growing: Growing) -> None:
    source = growing.source("adult.parquet")
    made = growing.release(source)
    growing.withdraw(source)
    page = asked(growing).get("/lineage").text
    table = page[page.index("<table") : page.index("</table>")]
    rows = [unescape(re.sub(r"<[^>]+>", " ", r)) for r in table.split("<tr>")[2:]]
    assert re.search(r"adult\.parquet\s+0\s+real\s+withdrawn", rows[0])
    assert re.search(r"1\s+synthetic\s+made from what was withdrawn\s+adult\.parquet", rows[1])
    assert f'href="/datasets/{made.dataset_id}"' in table


def test_names_are_never_markup(growing: Growing) -> None:
    for name in EVIL:
        source = growing.source(f"s3://lake/{name}", attested_by=name, license=name)
        growing.release(source, strange(growing) | {"uri": name}, name=name)
    client = asked(growing)
    pages = [client.get("/lineage")]
    pages += [client.get("/lineage", params={"q": e, "root": e, "component": e}) for e in EVIL]
    pages += [client.get("/lineage", params={"at": e, "component": e}) for e in EVIL]
    for page in pages:
        assert page.status_code == 200
        seen = Tags(page.text)
        assert not seen.names & {"img", "iframe", "object", "embed"}
        assert seen.scripts == ["/lineage.js"]
        assert not {a for a, _ in seen.attributes if a.startswith("on") or a == "style"}
        assert not {v for _, v in seen.attributes if v.strip().lower().startswith("javascript:")}
        assert "\u202e" not in page.text
    assert len(drawn(pages[0].text)["marks"]) >= 2 * len(EVIL)
    assert {m["name"] for m in drawn(pages[0].text)["marks"]} & {"__proto__"}


@pytest.mark.parametrize(
    "query",
    [
        "origin=fake",
        "since=yesterday",
        "until=2026-1-1",
        "skip=-1",
        "skip=1e9",
        "most=5",
        "most=100000",
        "q=" + "a" * 201,
        "root=" + "a" * 601,
    ],
)
def test_what_cannot_be_asked_is_refused(growing: Growing, query: str) -> None:
    client = asked(growing)
    for path in ("/lineage", "/api/v1/lineage"):
        assert client.get(f"{path}?{query}").status_code == 422
    assert client.get("/lineage?origin=real&since=2026-01-01&skip=1&most=400").status_code == 200


def test_it_needs_no_inline_script_or_style_and_nothing_from_elsewhere(growing: Growing) -> None:
    client = asked(growing)
    page = client.get("/lineage")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for path, kind in (("/lineage.js", "text/javascript"), ("/lineage.css", "text/css")):
        answer = client.get(path)
        assert answer.headers["content-type"].startswith(kind)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", answer.text)
    script = client.get("/lineage.js").text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", script)


def test_a_ledger_without_a_dataset_has_a_page(growing: Growing) -> None:
    page = asked(growing).get("/lineage")
    assert (page.status_code, "Nothing to draw" in page.text) == (200, True)
