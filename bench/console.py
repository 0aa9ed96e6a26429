"""How fast the console is on a ledger of ten thousand datasets and twice as many decisions.

    python bench/console.py [--datasets 10000] [--runs 11] [--ledger FILE] [--no-browser]

Builds the ledger (`tests/large_ledger.py`), or takes the one at FILE, and times: the index, built
and brought up to date; each page and each JSON answer over a socket; the lineage graph in headless
Chromium until it stands there. Needs `pip install 'safegen[console]' httpx playwright` and a
Chromium.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from large_ledger import Growing, large_ledger
from safegen.console.app import console
from safegen.console.index import Index
from safegen.ledger import Ledger, open_ledger


def timed(run: Callable[[], object]) -> float:
    """Seconds."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def say(what: str, *seconds: float) -> None:
    """One line: the median, and the worst where there are several."""
    worst = f", worst {1000 * max(seconds):,.0f}" if len(seconds) > 1 else ""
    print(f"{what:<56} {1000 * statistics.median(seconds):>9,.1f} ms{worst}", flush=True)


def index(ledger: Ledger, runs: int) -> None:
    """Building, and keeping up."""
    index = Index(ledger)
    say("index: built", timed(index.contents))
    say("index: nothing new", *(timed(index.contents) for _ in range(runs)))
    growing, times = Growing(ledger, seed=int(time.time())), []
    source = growing.source("s3://lake/new.parquet")
    for _ in range(runs):
        growing.release(source)
        growing.decision(source)
        times.append(timed(index.contents))
    say("index: two new entries", *times)
    now = index.contents()
    for name in ("sources_of", "made_from", "withdrawn", "names", "days", "use", "policies"):
        say(f"index: {name}, asked for first", timed(lambda name=name: getattr(now, name)))
    say("search: datasets", *(timed(lambda: now.find_datasets("patients")) for _ in range(runs)))
    say("search: decisions", *(timed(lambda: now.find_decisions("loans")) for _ in range(runs)))


def memory(ledger: Ledger) -> None:
    """What the index keeps."""
    tracemalloc.start()
    kept = Index(ledger)
    kept.contents()
    print(f"index: keeps {tracemalloc.get_traced_memory()[0] / 1e6:,.0f} MB")
    tracemalloc.stop()


@contextmanager
def served(ledger: Ledger) -> Iterator[str]:
    """The console at an address of this machine."""
    config = uvicorn.Config(console(ledger), port=0, log_level="error", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def paths(ledger: Ledger) -> list[str]:
    """Every page, and every JSON answer."""
    now = Index(ledger).contents()
    refused = next(d for d in now.decisions if not d.allowed)
    middle = list(now.datasets)[len(now.datasets) // 2]
    popular = next(iter(now.datasets))
    pages = [
        "/datasets",
        "/datasets?q=patients&origin=synthetic&page=2",
        f"/datasets/{middle}",
        f"/datasets/{popular}",
        "/decisions",
        "/decisions?verdict=refused&rule=lineage",
        f"/decisions/{refused.seq}",
        "/policies",
        "/policies/baseline",
        "/waivers",
        "/controls",
        "/lineage",
        "/lineage?q=patients",
        f"/lineage?root={middle}",
        f"/lineage?component={middle}",
        f"/lineage?at={popular}",
    ]
    shown = [p for p in pages if not p.startswith("/controls")]
    return ["/", *pages, "/api/v1/overview", *(f"/api/v1{p}" for p in shown)]


def pages(base: str, ledger: Ledger, runs: int) -> None:
    """Each answer; the worst of all once more at the end."""
    slowest = (0.0, "")
    with httpx.Client(base_url=base, timeout=120) as client:
        say("first page, which builds the index", timed(lambda: client.get("/")))
        for path in paths(ledger):
            answers = [client.get(path) for _ in range(runs)]
            times = [a.elapsed.total_seconds() for a in answers]
            status = {a.status_code for a in answers} - {200}
            short = path if len(path) < 48 else f"{path[:40]}…{path[-6:]}"
            say(f"{short}{f'  {status}' if status else ''}", *times)
            slowest = max(slowest, (max(times), path))
    print(f"slowest of all: {1000 * slowest[0]:,.0f} ms, {slowest[1]}")


def drawing(base: str, runs: int) -> None:
    """From a click to a drawing that stands there, at a desk and on a phone."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for width in (1280, 390):
            whole, inside = [], []
            for _ in range(runs):
                page = browser.new_page(viewport={"width": width, "height": 900})
                begin = time.perf_counter()
                page.goto(f"{base}/lineage")
                page.wait_for_selector("#stage[data-drawn]")
                whole.append(time.perf_counter() - begin)
                took = (
                    "performance.now() - performance.getEntriesByType('navigation')[0].responseEnd"
                )
                inside.append(page.evaluate(took) / 1000)
                page.close()
            say(f"Chromium, {width} wide: asked until drawn", *whole)
            say(f"Chromium, {width} wide: of that after the answer", *inside)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--ledger", type=Path)
    parser.add_argument("--no-browser", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("XDG_CONFIG_HOME", folder)
        path = given.ledger or Path(folder) / "ledger.db"
        if path.exists():
            ledger = open_ledger(path)
        else:
            say("the ledger: built", timed(lambda: large_ledger(path, given.datasets)))
            ledger = open_ledger(path)
        print(f"{path.stat().st_size / 1e6:,.0f} MB, {ledger.state()['log_entries']:,} entries")
        index(ledger, given.runs)
        memory(ledger)
        with served(ledger) as base:
            pages(base, ledger, given.runs)
            if not given.no_browser:
                drawing(base, max(3, given.runs // 2))


if __name__ == "__main__":
    main()
