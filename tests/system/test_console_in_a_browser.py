"""The console in Chromium: a governance person's way from a refusal to a re-run that is admitted,
and what every page has to be: whole on a phone and on a desk, without a fault for people who do not
see it, without a request to elsewhere.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import axe_playwright_python
import numpy as np
import pandas as pd
import pytest
from browser import chromium
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

import safegen
from console_world import PASSWORD
from console_world import world as hostile
from safegen import plugins
from safegen.policy.load import shipped
from safegen.testing import Rows

pytestmark = pytest.mark.system

AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
FAULTS = """axe.run().then(r => r.violations
  .filter(v => ['serious', 'critical'].includes(v.impact))
  .map(v => v.id + ': ' + v.nodes.map(n => n.html.slice(0, 200)).join(' | ')))"""


@contextmanager
def served(*arguments: object) -> Iterator[str]:
    """`safegen serve` in a process of its own, with this one's environment; its address."""
    command = [sys.executable, "-c", "from safegen.cli import main; main()", "serve", "--port", "0"]
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SAFEGEN_CONSOLE_PASSWORD": PASSWORD},
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield one
        one.close()


@dataclass
class Visitor:
    """A tab, and all that it asks for, logs and throws."""

    page: Page
    at: str
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        self.page.goto(self.at.rstrip("/") + path)
        self.page.wait_for_load_state("networkidle")

    def enter(self) -> None:
        self.page.get_by_label("Your name").fill("Ada Example")
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.locator("main").get_by_role("button", name="Sign in").click()

    def strange(self) -> list[str]:
        """Requests to elsewhere."""
        return [u for u in self.asked if not u.startswith((self.at, "data:"))]

    def faults(self) -> list[str]:
        """What axe-core finds that is serious or critical."""
        self.page.evaluate(AXE.read_text() + ";0")
        found: list[str] = self.page.evaluate(FAULTS)
        return found

    def overflow(self) -> int:
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.page.evaluate(wide))


def visitor(context: BrowserContext, at: str) -> Visitor:
    one = Visitor(context.new_page(), at)
    one.page.set_default_timeout(10_000)
    one.page.on("request", lambda r: one.asked.append(r.url))
    one.page.on("console", lambda m: one.complaints.append(m.text))
    one.page.on("pageerror", lambda e: one.complaints.append(str(e)))
    return one


# ---- the walk ------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a policy of one's own, and what was released under it."""
    monkeypatch.setenv("SAFEGEN_LEDGER", str(tmp_path / "ledger.db"))
    load = plugins.load
    monkeypatch.setattr(
        plugins, "load", lambda group, name: Rows if name.startswith("sdv.") else load(group, name)
    )
    rng = np.random.default_rng(5)
    frame = pd.DataFrame({"age": rng.integers(18, 90, 600), "paid": rng.lognormal(size=600)})
    frame.to_parquet(tmp_path / "people.parquet")
    safegen.attest(tmp_path / "people.parquet", by="Grace Example", license="CC-BY-4.0")
    gen = safegen.Generator("sdv.gaussian_copula", "lab").fit(tmp_path / "people.parquet")
    gen.generate(300, tmp_path / "made")
    folder = tmp_path / "policies"
    folder.mkdir()
    text = shipped()["baseline"].read_text().replace("id: baseline", "id: acme")
    (folder / "acme.yaml").write_text(text.replace("your data governance team", "data@acme.test"))
    return folder


def test_from_a_refusal_to_a_waiver_to_a_rerun_that_is_admitted(own: Path, chrome: Browser) -> None:
    made, policy = own.parent / "made", own / "acme.yaml"
    refused = safegen.check(made, policy=policy)
    assert not refused.allowed
    with served("--policies", own, "--allow-edit") as at, chrome.new_context() as context:
        tab = visitor(context, at)
        page = tab.page

        # The refusal, its evidence, and whom to ask.
        tab.go("/")
        page.get_by_role("link", name="refused").first.click()
        assert "Refused by policy acme" in page.inner_text("main")
        assert "Ask: data@acme.test" in page.inner_text("main")
        card = page.locator(".card.block")
        assert "lineage/depth" in card.inner_text()
        page.get_by_text("evidence (").first.click()
        assert "required" in card.inner_text()

        # Its data: where they come from, and whether they still are what was released.
        page.get_by_role("link", name=re.compile("[0-9A-Z]{26}")).first.click()
        page.get_by_role("button", name="Verify now").click()
        assert "Verified just now" in page.inner_text("main")
        page.go_back()
        page.go_back()

        # The waiver: drafted, and filled in.
        page.get_by_role("link", name="lineage", exact=True).click()
        page.get_by_role("link", name="Sign in to save").click()
        tab.enter()
        page.wait_for_url("**/edit?waive=lineage")
        area = page.get_by_label("The text of the policy")
        page.wait_for_selector("#found li:not(.good):not(.note)")  # not filled in yet
        text = area.input_value()
        filled = (
            text.replace("# max_depth: 0.0", "max_depth: 1.0")
            .replace('reason: ""', 'reason: "a pilot, until the survey is back"')
            .replace('ticket: ""', 'ticket: "ACME-7"')
            .replace('requested_by: ""', 'requested_by: "Ada Example"')
            .replace("approved_by: []", 'approved_by: ["Grace Example"]')
        )
        area.fill(filled)
        page.wait_for_selector("#found li.good")
        assert "counts until" in page.inner_text("#found")

        # What it loosens, as a patch, and saved.
        page.get_by_role("button", name="Compare").click()
        assert "1 loosened" in page.inner_text("main")
        page.get_by_role("button", name="Replay").click()
        assert "0 newly refused, 1 newly admitted" in page.inner_text("main")
        page.get_by_role("button", name="As a patch").click()
        assert "+    rule: lineage" in page.inner_text(".patch")
        page.get_by_role("button", name="Save", exact=True).click()
        assert "Saved acme.yaml" in page.inner_text("main")
        assert policy.read_text() == filled

        # The same data once more.
        again = safegen.check(made, policy=policy)
        assert again.allowed
        tab.go("/decisions?verdict=waived")
        page.get_by_role("link", name="allowed").click()
        said = page.inner_text("main")
        assert "Admitted by policy acme" in said
        assert "waived" in said
        assert "a pilot, until the survey is back" in said
        assert "Grace Example (self-asserted)" in said
        tab.go("/waivers")
        assert "applied #" in page.inner_text("main")
        assert tab.strange() == []
        assert tab.complaints == []


# ---- every page ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """A console of hostile names, and its pages."""
    there = hostile(tmp_path_factory.mktemp("console"))
    ids = list(there.made.records)
    pages = [
        "/",
        "/datasets",
        f"/datasets/{ids[1]}",
        f"/datasets/{ids[2]}",
        f"/datasets/{ids[2]}/report",
        "/lineage",
        "/decisions",
        f"/decisions/{there.refused}",
        "/policies",
        "/policies/own.yaml",
        "/policies/own.yaml/edit?waive=lineage",
        "/waivers",
        "/controls",
        "/login",
        "/nothing-here",
    ]
    ledger = there.policies.parent / "ledger.db"
    with served("--ledger", ledger, "--policies", there.policies, "--allow-edit") as at:
        yield at, pages


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_every_page_is_whole(
    site: tuple[str, list[str]], chrome: Browser, width: int, scheme: Any
) -> None:
    at, pages = site
    # Past the pages' own policy: a report is in a sandbox, where nothing runs.
    with chrome.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True
    ) as context:
        tab = visitor(context, at)
        tab.go("/login")
        tab.enter()
        for path in pages:
            tab.go(path)
            assert tab.faults() == [], path
            assert tab.overflow() == 0, path


def test_no_page_asks_or_runs_what_is_not_the_consoles(
    site: tuple[str, list[str]], chrome: Browser
) -> None:
    at, pages = site
    with chrome.new_context() as context:
        tab = visitor(context, at)
        tab.page.on("dialog", lambda d: tab.complaints.append(d.message))
        tab.go("/login")
        tab.enter()
        for path in pages:
            tab.go(path)
        # A browser says of the one that is not there that it is not there, and nothing more.
        assert [c for c in tab.complaints if "404" not in c] == []
        assert len(tab.complaints) == 1
        assert len(tab.asked) > len(pages)
        assert tab.strange() == []


def test_what_a_broken_page_would_look_like(site: tuple[str, list[str]], chrome: Browser) -> None:
    with chrome.new_context(viewport={"width": 390, "height": 900}) as context:
        tab = visitor(context, site[0])
        tab.go("/")
        tab.page.evaluate(
            """() => {
              document.body.innerHTML = "<div style='width:900px'><img src='/x.png'><input></div>";
              fetch('http://127.0.0.1:9/elsewhere').catch(() => 0);
            }"""
        )
        tab.page.wait_for_timeout(300)
        assert tab.overflow() == 0 or tab.overflow() > 100
        assert len(tab.faults()) >= 2
        assert any("Content Security Policy" in c for c in tab.complaints)


def test_the_editor_offers_what_the_schema_knows(
    site: tuple[str, list[str]], chrome: Browser
) -> None:
    with chrome.new_context() as context:
        tab = visitor(context, site[0])
        tab.go("/policies/own.yaml/edit")
        area = tab.page.get_by_label("The text of the policy")
        area.fill("schema: safegen.policy/v1\nrules:\n  lineage:\n    ")
        area.press("End")
        area.type("max_d")
        offers = tab.page.locator("#offers li")
        assert offers.count() == 1
        assert "Pooled effective depth" in offers.first.inner_text()
        area.press("Enter")
        assert area.input_value().endswith("    max_depth: ")
        area.type("0\n    unattested: ")
        area.press("Control+Space")
        assert [o.split("\n")[0] for o in offers.all_inner_texts()] == ["allow", "warn", "refuse"]
        area.press("ArrowDown")
        area.press("Enter")
        assert area.input_value().endswith("    unattested: warn")
        area.type("\nreporrt: 1\n")
        tab.page.wait_for_selector("#found li:has-text('did you mean')")
        tab.page.get_by_role("button", name="line 6").first.click()
        assert tab.page.evaluate("document.getSelection().toString()") == "reporrt: 1"


def test_without_scripts_the_buttons_do_it(site: tuple[str, list[str]], chrome: Browser) -> None:
    with chrome.new_context(java_script_enabled=False) as context:
        tab = visitor(context, site[0])
        tab.page.goto(f"{site[0]}policies/own.yaml/edit")
        tab.page.get_by_label("The text of the policy").fill("id: [")
        tab.page.get_by_role("button", name="Check").click()
        assert "1 problem" in tab.page.inner_text("main")
        assert tab.page.get_by_label("The text of the policy").input_value() == "id: ["
