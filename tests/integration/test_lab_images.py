"""The laboratory's loops of an image model: records, pictures, verdicts, refusals."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safegen import lab, plugins
from safegen.cli import main
from safegen.errors import AdmissionRefused, UsageError
from safegen.lab import image, pictures, refits
from safegen.lab.ways import WAYS
from safegen.policy import Policy
from safegen.tables.image_folders import from_arrays
from safegen.tables.images import encoded_images
from safegen.testing import Rows

TINY = {"channels": [8, 8], "steps": 4, "batch_size": 8, "sampler_steps": 2, "device": "cpu"}


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`diffusion.image` draws rows of what it is shown: loops without an hour of training."""
    load = plugins.load
    monkeypatch.setattr(
        plugins,
        "load",
        lambda group, name: Rows if name == "diffusion.image" else load(group, name),
    )


def folder_of(place: Path, n: int = 500) -> Path:
    """The digits as an image folder, a sub-folder to a class."""
    from sklearn.datasets import load_digits

    data = load_digits()
    files = encoded_images((data.images[:n, ..., None] * 15).astype(np.uint8))
    for i, (content, label) in enumerate(zip(files, data.target[:n], strict=True)):
        (place / f"digit-{label}").mkdir(parents=True, exist_ok=True)
        (place / f"digit-{label}" / f"{i}.png").write_bytes(content)
    return place


def pixels(png: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)))


def test_a_run_is_recorded_shown_and_goes_on_where_it_was(tmp_path: Path, capsys: Any) -> None:
    told: dict[str, Any] = {"rows": 200, "depth": 2, "arms": ["real-only", "replace"]}
    result = lab.run("image", tmp_path / "run", **told, options=TINY)
    pieces = {p.stem: pq.read_table(p).to_pydict() for p in (result.path / "records").iterdir()}
    assert sorted(pieces) == ["real-0", "real-only-0", "replace-0"]
    replace = pieces["replace-0"]
    assert replace["effective_depth"] == [1, 2]
    assert replace["refused"] == ["", ""]
    for metric in image.METRICS:
        low, value, high = (np.array(replace[metric + end]) for end in ("_low", "", "_high"))
        assert ((low <= value) & (value <= high)).all()
    # The same first fit in every arm, and another one after it.
    assert replace["recall"][0] == pieces["real-only-0"]["recall"][0]
    assert replace["pictures"][0] == pieces["real-only-0"]["pictures"][0] != replace["pictures"][1]
    assert {len(pieces[name]["pictures"]) for name in pieces} == {1, 2}
    assert pixels(replace["pictures"][0]).shape == (3 * 9, 10 * 9)
    # One file, which shows every picture and needs nothing else.
    text = result.page.read_text()
    assert not re.search(r"<script|url\(|https?://|href=", text)
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    assert len(sources) == text.count("src=") == 1 + 2 * 2
    assert base64.b64decode(sources[0]) == pieces["real-0"]["pictures"][0]
    assert "Difference to real-only" in text
    assert [c["name"] for c in json.loads((result.path / "result.json").read_text())["checks"]] == [
        "replace: recall kept"
    ]
    # Stopped, and given again on the command line: the piece that is gone is made as it was.
    records = result.path / "records"
    (records / "replace-0.parquet").unlink()
    (records / "real-0.parquet").unlink()
    kept = (records / "real-only-0.parquet").stat().st_mtime_ns
    words = ["lab", "run", "image", "-o", str(tmp_path / "run"), "-n", "200", "--depth", "2"]
    words += ["--arms", "real-only,replace", "--json"]
    for name, value in {**TINY, "channels": "[8,8]"}.items():
        words += ["--set", f"{name}={value}"]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == (0 if result.held else 1)
    assert json.loads(capsys.readouterr().out)["checks"] == [vars(c) for c in result.checks]
    assert (records / "real-only-0.parquet").stat().st_mtime_ns == kept
    for name, piece in pieces.items():
        assert pq.read_table(records / f"{name}.parquet").to_pydict() == piece


def test_a_loop_that_loses_images_is_told_from_the_control(drawing: None, tmp_path: Path) -> None:
    """Of rows drawn with replacement a third is gone each time; and all of them are copies."""
    told: dict[str, Any] = {"data": folder_of(tmp_path / "digits"), "rows": 250, "depth": 4}
    result = lab.run("image", tmp_path / "run", **told, arms=["real-only", "replace"], chains=2)
    (check,) = result.checks
    assert check.held, check
    assert "2 chain(s)" in check.expected
    last = {
        arm: pq.read_table(result.path / f"records/{arm}-0.parquet").to_pylist()[-1]
        for arm in ("real-only", "replace")
    }
    assert last["replace"]["recall"] < last["real-only"]["recall_low"]
    assert {record["copies"] for record in last.values()} == {1}
    (reality,) = pq.read_table(result.path / "records/real-0.parquet").to_pylist()
    assert reality["copies"] < 0.1 < reality["rare_share"]
    assert reality["recall"] > last["real-only"]["recall"]
    # The control alone: a loop that loses nothing is not said to.
    other = lab.run("image", tmp_path / "control", **told, arms=["real-only"])
    assert other.checks == ()


def _lenient(name: str) -> Policy:
    """A shipped policy that lets copies pass: the backend of these tests draws its own rows."""
    policy = Policy.load(name)
    privacy = policy.rule("privacy").model_copy(update={"severity": "off"})
    return policy.model_copy(update={"rules": {**policy.rules, "privacy": privacy}})


def under(monkeypatch: pytest.MonkeyPatch, policies: dict[str, str]) -> None:
    """Have these arms run under other policies."""
    others = {
        arm: dataclasses.replace(WAYS[arm], policy=partial(_lenient, name))
        for arm, name in policies.items()
    }
    monkeypatch.setattr(refits, "WAYS", {**WAYS, **others})


def test_a_refused_release_stands_in_the_records_and_the_loop_goes_on(
    drawing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    under(monkeypatch, {"replace": "baseline", "keep-all": "anchored"})
    told: dict[str, Any] = {"data": folder_of(tmp_path / "digits"), "rows": 200, "depth": 3}
    result = lab.run("image", tmp_path / "run", **told, arms=["replace", "keep-all"])
    replace, kept = (
        pq.read_table(result.path / f"records/{arm}-0.parquet").to_pydict()
        for arm in ("replace", "keep-all")
    )
    assert [bool(rules) for rules in replace["refused"]] == [False, True, True]
    assert "lineage" in replace["refused"][1]
    assert replace["effective_depth"] == [1, 1, 1]  # of the last release that there is
    assert len(set(replace["pictures"])) == len(set(replace["recall"])) == 1
    assert kept["refused"] == [""] * 3
    assert kept["effective_depth"] == [1, 1.5, 1.75]
    assert "Releases refused" in result.page.read_text()


def test_an_arm_without_any_release_is_an_error(
    drawing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    under(monkeypatch, {"replace": "strict"})  # nobody attested these images
    told: dict[str, Any] = {"data": folder_of(tmp_path / "digits"), "rows": 200, "depth": 1}
    with pytest.raises(AdmissionRefused):
        lab.run("image", tmp_path / "run", **told, arms=["replace"])


def found(first: dict[str, float], last: dict[str, float]) -> dict[str, np.ndarray]:
    """The records of two chains that agree."""
    return {name: np.array([[first[name], last[name]]] * 2) for name in first}


GOOD = {"recall": 0.9, "coverage": 0.9, "rare_share": 1.0, "rare_share_seen": 1.0, "copies": 0.01}


@pytest.mark.parametrize(
    ("last", "unmet"),
    [
        ({}, []),
        ({"recall": 0.86, "coverage": 0.86, "rare_share": 0.7, "rare_share_seen": 1.4}, []),
        ({"recall": 0.85}, ["safeguarded: recall kept"]),
        ({"coverage": 0.85}, ["safeguarded: coverage kept"]),
        ({"rare_share": 0.69}, ["safeguarded: rarest class"]),
        ({"rare_share_seen": 1.41}, ["safeguarded: rarest class as seen"]),
        ({"copies": 0.021}, ["safeguarded: near copies"]),
    ],
)
def test_each_verdict_can_fail(last: dict[str, float], unmet: list[str]) -> None:
    arms = {"safeguarded": found(GOOD, GOOD | last), "replace": found(GOOD, GOOD | {"recall": 0.7})}
    checks = image._checks(arms, image.METRICS, copies=0.01)
    assert len(checks) == 6
    assert [c.name for c in checks if not c.held] == unmet


def test_a_replace_loop_that_keeps_its_recall_is_noticed() -> None:
    (check,) = image._checks({"replace": found(GOOD, GOOD)}, image.METRICS, copies=0.01)
    assert not check.held


def test_the_default_images_have_one_rare_class() -> None:
    labels = image._digits()["label"]
    counts = dict(zip(*np.unique(labels, return_counts=True), strict=True))
    assert len(labels) == 1_656
    assert counts["8"] == 33
    assert min(n for label, n in counts.items() if label != "8") > 170
    # A chain's images have each class by its share, in any number of them, to one image.
    order = image._stratified(pa.chunked_array([labels]), np.random.default_rng(1))
    assert sorted(order.tolist()) == list(range(1_656))
    for n in (300, 1_000):
        for label, count in counts.items():
            assert abs((labels[order[:n]] == label).sum() - count * n / 1_656) <= 1
    other = image._stratified(pa.chunked_array([labels]), np.random.default_rng(2))
    assert not np.array_equal(order, other)


def test_a_sheet_has_a_column_to_a_class_and_white_where_there_is_none() -> None:
    shown = np.zeros((5, 40, 40), dtype=np.uint8) + np.arange(5, dtype=np.uint8)[:, None, None]
    table = from_arrays({"image": shown, "label": np.array(["b", "a", "a", "a", "a"])})
    drawn = pixels(pictures.sheet(table, "image", "label", ["a", "b", "c"]))
    assert drawn.shape == (3 * 33, 3 * 33)  # larger ones are scaled
    cells = drawn[16::33, 16::33].T.tolist()
    assert cells == [[1, 2, 3], [0, 255, 255], [255, 255, 255]]


def test_of_many_classes_the_rarest_and_the_most_frequent_are_shown() -> None:
    classes = [f"c{i:02d}" for i in range(30)]
    shares = np.arange(30) / sum(range(30))
    assert pictures.shown_classes(classes, shares) == ["c00", *classes[21:]]
    assert pictures.shown_classes(["a", "b"], np.array([0.5, 0.5])) == ["a", "b"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"rows": 1_500}, "at most 1,456, so that 200"),
        ({"rows": [200, 300]}, "one number here"),
        ({"rows": 50}, "rows: whole numbers from 100"),
        ({"target": "size"}, "no column of levels 'size'"),
        ({"arms": ["fresh-10"]}, "no arm 'fresh-10'"),
        ({"arms": ["safeguard"]}, "did you mean 'safeguarded'"),
        ({"options": {"step": 3}}, "Its options:"),
    ],
)
def test_settings_that_cannot_be_meant(tmp_path: Path, bad: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lab.run("image", tmp_path / "run", **{"depth": 1} | bad)
    assert not (tmp_path / "run").exists()


def test_data_without_images_or_with_several_columns_of_classes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": ["a", "b"] * 400}), tmp_path / "no.parquet")
    with pytest.raises(UsageError, match="one column of images, and here are 0"):
        lab.run("image", tmp_path / "run", data=tmp_path / "no.parquet")
    arrays = image._digits()
    both = from_arrays(arrays).append_column("again", pa.array(arrays["label"]))
    pq.write_table(both, tmp_path / "two.parquet")
    with pytest.raises(UsageError, match="which column has the classes"):
        lab.run("image", tmp_path / "run", data=tmp_path / "two.parquet")
    pq.write_table(both.select(["image"]), tmp_path / "none.parquet")
    with pytest.raises(UsageError, match="which column has the classes"):
        lab.run("image", tmp_path / "run", data=tmp_path / "none.parquet")


def test_simulations_have_no_safeguarded_arm(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no arm 'safeguarded'"):
        lab.run("gaussian", tmp_path / "run", arms=["safeguarded"])


@pytest.mark.slow
def test_digits_survive_five_fits_under_the_safeguards_and_not_without(tmp_path: Path) -> None:
    """A quarter of an hour: a chain of each of two arms in docs/lab.md."""
    result = lab.run("image", tmp_path / "run", arms=["replace", "safeguarded"])
    replace, ours = (
        pq.read_table(result.path / f"records/{arm}-0.parquet").to_pydict()
        for arm in ("replace", "safeguarded")
    )
    # Of one chain: the replace loop loses, which the safeguarded one is not shown to do.
    held = {check.name: check for check in result.checks}
    assert held["replace: recall kept"].held, held
    assert replace["recall_high"][-1] < ours["recall_low"][-1]
    for name in ("recall", "coverage"):
        assert ours[f"{name}_high"][-1] > image.LEAST * ours[name][0]
    assert held["safeguarded: near copies"].held, held
    assert ours["refused"] == [""] * 5
    assert ours["effective_depth"] == [1, 1.5, 1.75, 1.875, 1.9375]
    assert ours["recognised"][0] > 0.9
    # A release has 20 ± 4.4 images of a class of 2 % by chance alone: all five are taken together.
    for name in ("rare_share", "rare_share_seen"):
        assert image.BAND[0] < np.mean(ours[name]) < image.BAND[1]
