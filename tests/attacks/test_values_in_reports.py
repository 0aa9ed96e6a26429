"""Way round law 4: let a report show real values, by a generator that hands real rows out.

Every text, every lone number and every image of the source is unmistakable, and what is released
are copies of real rows; the policy of laboratories lets them out. The report draws them all the
same, and may show none. With `report: {real_values: true}` it shows them: they were there to show.
"""

from __future__ import annotations

import base64
import datetime
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from forging import cli

import safegen
from safegen import plugins
from safegen.policy import Policy
from safegen.testing import Rows

N = 600
WORDS = [f"CANARY-{i:02}-zq" for i in range(12)]
FIRST_AMOUNT, FIRST_DAY = 73_519_264, datetime.date(2003, 2, 11)


def _rows() -> pd.DataFrame:
    """Levels of every frequency, lone integers, floats and dates, ids, mail addresses, and a number
    that everybody has."""
    rng = np.random.default_rng(3)
    share = np.arange(12, 0, -1) ** 2.0
    i = np.arange(N)
    return pd.DataFrame(
        {
            "word": rng.choice(WORDS, N, p=share / share.sum()),
            "amount": FIRST_AMOUNT + 7919 * i,
            "large": 2**61 + 97 * i,
            "rate": (7_351_926.4 + 1.37 * i).round(2),
            "day": [FIRST_DAY + datetime.timedelta(days=int(d)) for d in i],
            "id": [f"ZK{d:07}" for d in 5_000_000 + 31 * i],
            "mail": [f"someone{d}@canary{d % 7}.example" for d in i],
            "usual": np.where(i % 2, 41, 42),
            "free": rng.choice(["open-word-a", "open-word-b"], N),
        }
    )


SCHEMA = {
    "columns": {
        "word": {"kind": "categorical"},
        "id": {"kind": "id"},
        "free": {"kind": "categorical", "public": True},
    }
}


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend that remembers everything."""
    load = plugins.load
    monkeypatch.setattr(
        plugins, "load", lambda group, name: Rows if "copula" in name else load(group, name)
    )


def _policy(folder: Path, shown: bool) -> Policy:
    text = Path(plugins.__file__).parent.joinpath("policies/lab.yaml")
    text = text if text.exists() else Path(__file__).parents[2] / "policies/lab.yaml"
    place = folder / f"lab-{shown}.yaml"
    said = f"real_values: {str(shown).lower()}"
    place.write_text(text.read_text().replace("real_values: false", said))
    return Policy.load(place)


def _texts(frame: pd.DataFrame) -> Iterator[str]:
    """Every real value that a page could show, as it would be written."""
    for name in ("word", "id", "mail", "day"):
        yield from map(str, frame[name].unique())
    yield from map(str, frame["amount"])
    yield from map(str, frame["large"])
    yield from (f"{x:,}" for x in frame["amount"])
    yield from (f"{x:.2f}" for x in frame["rate"])
    yield from (f"{x:.6g}" for x in frame["rate"])


def _shown(page: str, frame: pd.DataFrame) -> list[str]:
    return [text for text in dict.fromkeys(_texts(frame)) if text in page]


def test_a_report_shows_no_real_value(memory: None, home: Path, tmp_path: Path) -> None:
    frame = _rows()
    gen = safegen.Generator(policy=_policy(tmp_path, False)).fit(frame, schema=SCHEMA)
    released = gen.generate(400, tmp_path / "out")
    rows = released.to_pandas()
    assert set(rows["amount"]) <= set(frame["amount"])  # the rows are real ones
    again = tmp_path / "again.html"
    assert cli("report", tmp_path / "out", "--out", again).code == 0
    for place in (tmp_path / "out" / "report.html", again):
        page = place.read_text()
        assert _shown(page, frame) == []
        # and it draws and shows all the same what may be shown
        assert page.count('class="real"') > 15
        assert 'id="sample"' in page
        assert page.count("▒") > 20
        assert ">41<" in page or ">42<" in page  # every other real row has that number
        assert "open-word-a" in page  # declared public
        assert re.search(r">#\d+<", page)


def test_the_policy_may_let_it_show_them(memory: None, home: Path, tmp_path: Path) -> None:
    """The same rows: were there nothing to show, the test above would pass for nothing."""
    frame = _rows()
    gen = safegen.Generator(policy=_policy(tmp_path, True)).fit(frame, schema=SCHEMA)
    gen.generate(400, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    shown = _shown(page, frame)
    assert {*WORDS[:6]} <= set(shown)
    assert len([s for s in shown if s.startswith(("7", "20"))]) >= 16
    assert "▒" not in page


def test_a_refusal_shows_no_row(memory: None, home: Path, tmp_path: Path) -> None:
    """Also where real values may be shown: the rows were refused."""
    from safegen.policy.model import Report

    frame = _rows()
    policy = Policy.load("baseline")
    for shown in (False, True):
        asked = policy.model_copy(update={"report": Report(real_values=shown)})
        gen = safegen.Generator(policy=asked).fit(frame, schema=SCHEMA)
        with pytest.raises(safegen.ReleaseRefused):
            gen.generate(400, tmp_path / "out")
        page = (tmp_path / "out.refused.html").read_text()
        assert 'id="sample"' not in page
        assert 'id="columns"' in page
        assert bool(_shown(page, frame)) is shown


def test_without_the_real_rows_nothing_is_shown(home: Path, tmp_path: Path) -> None:
    """Whether a value is a real one cannot be told then, so none is shown but what is public."""
    from safegen.measure.drawn import Drawn
    from safegen.measure.excerpts import sample
    from safegen.tables.schema import infer_schema
    from safegen.tables.sources import read_source

    table = read_source(_rows()).tables["table"].table()
    schema = infer_schema(table, SCHEMA["columns"])
    made = Drawn(table, np.ones(table.num_rows))
    found = sample("table", made, None, schema, real_values=False)
    assert found is not None
    cells = {h: {row[i] for row in found.rows} for i, h in enumerate(found.heads)}
    assert cells.pop("free") <= {"open-word-a", "open-word-b"}
    assert all(shown == {None} for shown in cells.values())


# ---- images --------------------------------------------------------------------------------------


def _photos(folder: Path) -> Path:
    from safegen.tables.images import encoded_images

    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (60, 16, 16, 3)).astype(np.uint8)
    for i, data in enumerate(encoded_images(pixels)):
        (folder / f"c{i % 2}").mkdir(parents=True, exist_ok=True)
        (folder / f"c{i % 2}" / f"{i}.png").write_bytes(data)
    return folder


def _pixels(page: str) -> list[bytes]:
    from safegen.tables.images import pixels_of

    found = re.findall(r'src="data:image/png;base64,([A-Za-z0-9+/=]+)"', page)
    return [pixels_of(base64.b64decode(data)) for data in found]


@pytest.mark.parametrize("shown", [False, True])
def test_no_real_image_is_shown(
    memory: None, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: bool
) -> None:
    from safegen.tables.images import pixels_of

    photos = _photos(tmp_path / "photos")
    gen = safegen.Generator(policy=_policy(tmp_path, shown)).fit(photos)
    gen.generate(40, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    real = {pixels_of(p.read_bytes()) for p in photos.rglob("*.png")}
    assert bool(real & set(_pixels(page))) is shown
    assert ("12 of the images that were drawn are not shown" in page) is not shown


def test_new_images_are_shown(home: Path, tmp_path: Path) -> None:
    """Honest ones, and small: a photograph comes as a thumbnail."""
    import pyarrow as pa
    from looking import photographs

    from safegen.measure.excerpts import EDGE, pictures
    from safegen.tables.images import encoded_images, image_column, opened_image

    both = encoded_images(np.kron(photographs(6, 1), np.ones((1, 5, 5, 1), np.uint8)))
    made, real = both[:3], both[3:]
    columns = [pa.chunked_array([image_column(x, [None] * len(x))]) for x in (made, real)]
    found, withheld = pictures(*columns, real_values=False)
    assert (len(found), withheld) == (3, 0)
    for one in found:
        assert one.kind == "jpeg"
        assert max(one.width, one.height) == EDGE
        assert len(one.data) < 16_000
        assert opened_image(base64.b64decode(one.data)).size == (one.width, one.height)
