"""With ten thousand datasets in the ledger no page is waited for."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from console_world import own_policies
from large_ledger import large_ledger
from safegen.console.app import console

PAGE, GRAPH = 0.3, 2.0  # seconds, on two cores that have nothing else to do
NOISE = 3.0  # how much slower a machine may be that has


@pytest.mark.slow
def test_no_page_of_a_large_ledger_is_waited_for(tmp_path: Path) -> None:
    ledger = large_ledger(tmp_path / "ledger.db", 10_000)
    client = TestClient(console(ledger, policies=own_policies(tmp_path)), "http://localhost")
    client.app.state.desk.index.contents()  # type: ignore[attr-defined]  # as `safegen serve` does
    most = client.get("/api/v1/datasets?q=customers.parquet").json()["datasets"][0]["dataset_id"]
    some = client.get("/api/v1/datasets?page=7").json()["datasets"][0]["dataset_id"]
    refused = client.get("/api/v1/decisions?verdict=refused").json()["decisions"][0]["seq"]
    client.get("/controls")  # its first reading of all decisions is not a page's
    pages = [
        "/",
        "/datasets",
        "/datasets?q=patients&origin=synthetic&state=usable",
        "/datasets?page=200",
        f"/datasets/{most}",
        f"/datasets/{some}",
        f"/datasets/{some}/report",
        "/decisions",
        "/decisions?q=out&verdict=refused&rule=lineage",
        f"/decisions/{refused}",
        "/policies",
        "/policies/own.yaml",
        "/policies/own.yaml/edit?waive=lineage",
        "/waivers",
        "/controls",
        "/api/v1/overview",
        "/api/v1/datasets?size=500",
        "/api/v1/decisions?size=500",
    ]
    took = {}
    for path in [*pages, "/lineage", f"/lineage?root={most}"]:
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            assert client.get(path).status_code == 200, path
            times.append(time.perf_counter() - begin)
        took[path] = statistics.median(times)
    late = {p: t for p, t in took.items() if t > NOISE * (GRAPH if "lineage" in p else PAGE)}
    assert late == {}, took
