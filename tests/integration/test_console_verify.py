"""What the console says of a dataset whose files lie on this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

import safegen
from console_world import EVIL, PASSWORD, World
from large_ledger import Growing
from safegen import plugins
from safegen.console.app import console
from safegen.ledger import open_ledger
from safegen.policy.load import shipped
from safegen.testing import Rows


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[World, safegen.Dataset]:
    monkeypatch.setenv("SAFEGEN_LEDGER", str(tmp_path / "ledger.db"))
    load = plugins.load
    monkeypatch.setattr(
        plugins, "load", lambda group, name: Rows if name.startswith("sdv.") else load(group, name)
    )
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {"age": rng.integers(18, 90, 400), "town": rng.choice(["Xanadu-4711", "Utopia-0815"], 400)}
    )
    frame.to_parquet(tmp_path / "people.parquet")
    safegen.attest(tmp_path / "people.parquet", by="Grace Example")
    gen = safegen.Generator("sdv.gaussian_copula", "lab").fit(tmp_path / "people.parquet")
    made = gen.generate(200, tmp_path / "made")
    ledger = open_ledger(tmp_path / "ledger.db")
    client = TestClient(console(ledger, password=PASSWORD), "http://localhost")
    return World(ledger, tmp_path, Growing(ledger), 0, client), made


def test_a_dataset_is_verified_where_it_lies(released: tuple[World, safegen.Dataset]) -> None:
    desk, made = released
    path = f"datasets/{made.manifest.dataset_id}"
    status, said = desk.api(f"{path}/verify")
    assert (status, said["verified"], said["place"]) == (200, True, str(made.path))
    report = desk.client.get(f"/{path}/report").text
    assert "Columns" in report
    assert "holds no comparison" not in report

    (made.path / "README.md").write_text("another")
    status, said = desk.api(f"{path}/verify")
    assert (status, said["verified"]) == (200, False)
    assert "README.md" in str(said["problems"])
    page = desk.client.post(f"/{path}", data={"token": desk.token()}).text
    assert "NOT VERIFIED" in page


def test_a_report_that_was_changed_is_not_drawn_from(
    released: tuple[World, safegen.Dataset],
) -> None:
    desk, made = released
    file = made.path / "report.html"
    file.write_text(file.read_text().replace("Columns", "Co1umns"))
    report = desk.client.get(f"/datasets/{made.manifest.dataset_id}/report").text
    assert "holds no comparison" in report


def test_no_page_shows_a_real_value(released: tuple[World, safegen.Dataset]) -> None:
    desk, made = released
    one = made.manifest.dataset_id
    source = str(made.manifest.sources[0].dataset_id)
    paths = ["/", "/datasets", "/decisions", "/lineage", "/controls"]
    paths += [f"/datasets/{i}{rest}" for i in (one, source) for rest in ("", "/report")]
    paths += [
        f"/decisions/{d['seq']}" for d in desk.client.get("/api/v1/decisions").json()["decisions"]
    ]
    assert len(paths) > 10
    for path in paths:
        answer = desk.client.get(path)
        assert answer.status_code == 200, path
        for value in ("Xanadu-4711", "Utopia-0815"):
            assert value not in answer.text, path


def test_not_even_where_a_policy_lets_reports_show_some(
    released: tuple[World, safegen.Dataset], tmp_path: Path
) -> None:
    desk, _ = released
    policy = tmp_path / "lab.yaml"
    policy.write_text(
        shipped()["lab"].read_text().replace("real_values: false", "real_values: true")
    )
    gen = safegen.Generator("sdv.gaussian_copula", policy).fit(tmp_path / "people.parquet")
    made = gen.generate(200, tmp_path / "shown")
    own = (tmp_path / "shown" / "report.html").read_text()
    assert "Xanadu-4711" in own
    report = desk.client.get(f"/datasets/{made.manifest.dataset_id}/report").text
    assert "Xanadu-4711" not in report
    assert "holds no comparison" in report


def test_no_record_has_another_folder_read(
    released: tuple[World, safegen.Dataset], tmp_path: Path
) -> None:
    """A manifest may name any place: only one where that very dataset lies is looked at."""
    desk, made = released
    there = [str(made.path), str(tmp_path), "/etc", "/etc/passwd", "made\0", "s3://lake/x", EVIL[0]]
    for place in there:
        said = {"subject": [f"100 rows by sdv.ctgan for {place}"], "findings": {}}
        record = desk.made.release(desk.made.source("x"), decisions=[said])
        status, answer = desk.api(f"datasets/{record.dataset_id}/verify")
        assert status == 409
        assert "no folder is recorded" in answer["detail"]
    assert desk.api(f"datasets/{made.manifest.dataset_id}/verify")[0] == 200
