"""The lineage graph in a browser: it is drawn in time, moves, leads on, and shuts nobody out."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")

import uvicorn
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from large_ledger import Growing, large_ledger, strange
from safegen.console.app import console
from safegen.ledger import Ledger, open_ledger

pytestmark = pytest.mark.system

EVIL = "</pre><img src=x onerror=document.title='owned'>.parquet"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def served(ledger: Ledger) -> Iterator[str]:
    config = uvicorn.Config(console(ledger), port=0, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two sources, one of them withdrawn and one with a hostile name, and what was made of them."""
    growing = Growing(open_ledger(tmp_path_factory.mktemp("small") / "ledger.db"))
    first, second = growing.source("s3://lake/adult.parquet"), growing.source(EVIL)
    made = growing.release(first)
    growing.release(made, second, origin="mixed")
    growing.release(strange(growing))
    for _ in range(30):
        growing.release(second)
    growing.withdraw(second)
    yield from served(growing.ledger)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("large") / "ledger.db"
    yield from served(large_ledger(path, 10_000, 0))


class Seen:
    """A page, and what it asks for and complains about."""

    def __init__(self, browser: Browser, width: int, dark: bool = False):
        scheme: Any = "dark" if dark else "light"
        self.page: Page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on("console", lambda m: self.complaints.append(m.text))
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))

    def open(self, url: str) -> float:
        """Seconds until it is drawn."""
        begin = time.perf_counter()
        self.page.goto(url)
        self.page.wait_for_selector("#stage[data-drawn]")
        return time.perf_counter() - begin

    def faults(self) -> list[str]:
        found = Axe().run(self.page).response["violations"]
        return [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found]


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_it_shuts_nobody_out_and_asks_nobody_else(
    chromium: Browser, small: str, width: int, dark: bool
) -> None:
    seen = Seen(chromium, width, dark)
    for query in ("", "?q=adult"):
        seen.open(f"{small}/lineage{query}")
        seen.page.click("summary")
        assert seen.faults() == []
    assert {u for u in seen.asked if not u.startswith((small, "data:"))} == set()
    assert seen.complaints == []
    assert seen.page.title() == "Lineage · safegen"
    over = "document.documentElement.scrollWidth - innerWidth"
    assert seen.page.evaluate(over) <= 0
    seen.page.close()


def test_names_are_texts(chromium: Browser, small: str) -> None:
    seen = Seen(chromium, 1280)
    seen.open(f"{small}/lineage")
    assert seen.page.locator("img").count() == 0
    label = seen.page.locator(".piece a").evaluate_all(
        "all => all.map(a => a.getAttribute('aria-label')).find(l => l.includes('onerror'))"
    )
    assert EVIL.rpartition("/")[2] in label
    assert "withdrawn" in label
    seen.page.close()


def test_the_keyboard_goes_from_mark_to_mark_and_opens(chromium: Browser, small: str) -> None:
    seen = Seen(chromium, 1280)
    seen.open(f"{small}/lineage?q=adult")
    page = seen.page
    assert page.locator(".piece a[tabindex='0']").count() == 1
    page.focus(".piece a[tabindex='0']")
    assert "adult.parquet" in page.inner_text("#facts-of")
    page.keyboard.press("ArrowRight")
    assert "depth 1" in page.inner_text("#facts-of")
    before = page.locator(".stage svg > g").first.get_attribute("transform")
    for key in "+0-":
        page.keyboard.press(key)
        after = page.locator(".stage svg > g").first.get_attribute("transform")
        assert after != before
        before = after
    page.keyboard.press("Enter")
    page.wait_for_url("**/datasets/*")
    page.close()


def test_a_group_is_taken_apart_by_a_click(chromium: Browser, small: str) -> None:
    seen = Seen(chromium, 1280)
    seen.open(f"{small}/lineage")
    group = seen.page.locator(".piece a", has_text="30 datasets")
    group.hover()
    assert "30 withdrawn" in seen.page.inner_text("#facts-of")
    group.click()
    seen.page.wait_for_url("**/lineage?at=*")
    seen.page.wait_for_selector("#stage[data-drawn]")
    assert seen.page.locator(".piece .cross").count() >= 30
    seen.page.close()


def test_dragging_moves_and_opens_nothing(chromium: Browser, small: str) -> None:
    seen = Seen(chromium, 1280)
    seen.open(f"{small}/lineage")
    page = seen.page
    plane, mark = page.locator(".stage svg > g").first, page.locator(".piece .shape").first
    before, box = plane.get_attribute("transform"), mark.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 40, steps=4)
    page.mouse.up()
    assert plane.get_attribute("transform") != before
    assert page.url == f"{small}/lineage"
    before = plane.get_attribute("transform")
    page.mouse.wheel(0, -300)
    page.wait_for_timeout(50)
    assert plane.get_attribute("transform") != before
    page.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_ten_thousand_datasets_are_drawn_in_time(chromium: Browser, large: str, width: int) -> None:
    seen = Seen(chromium, width)
    seen.open(f"{large}/lineage")  # the first one builds the index
    assert min(seen.open(f"{large}/lineage") for _ in range(3)) < 2
    assert 100 < seen.page.locator(".piece").count() <= 240
    assert seen.faults() == []
    seen.page.close()
