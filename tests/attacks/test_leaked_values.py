"""Way round privacy: wait for a real value to turn up in a manifest, a ledger, a log or an error.

A canary level and a canary number stand in the real rows. Only the data, the model and the released
rows may hold them.
"""

from __future__ import annotations

import contextlib
import io
import logging
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from forging import World, cli, finish, start

import safegen

WORD = "CANARY-7f3a"
NUMBER = "73519264"


def _holds(data: bytes) -> bool:
    return WORD.encode() in data or NUMBER.encode() in data


def _rows(world: World) -> pd.DataFrame:
    """Real rows with a rare level and a lone number."""
    frame = world.rows(1500, 61)
    frame["note"] = np.where(np.arange(len(frame)) % 40 == 0, WORD, "plain")
    frame["amount"] = np.arange(len(frame), dtype=float)
    frame.loc[7, "amount"] = float(NUMBER)
    return frame


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """All that was said so far: on both streams, and to logging."""
    caplog.set_level(logging.DEBUG)

    def everything() -> str:
        out, err = capfd.readouterr()
        return out + err + caplog.text

    return everything


def _silent(said: Callable[[], str], *places: Path, but: tuple[str, ...] = ()) -> None:
    """Nothing of the canary in what was said, nor in any file except where it has to be."""
    assert not _holds(said().encode())
    for place in places:
        for path in place.rglob("*"):
            if path.is_file() and not any(path.match(pattern) for pattern in but):
                assert not _holds(path.read_bytes()), path


def _text(error: BaseException) -> str:
    """An error as a log would show it, with what it is chained to."""
    return "".join(traceback.format_exception(error)) + str(error) + repr(error)


def test_nothing_leaks_on_the_way_to_a_release(
    world: World, home: Path, tmp_path: Path, said: Callable[[], str]
) -> None:
    rows = tmp_path / "rows.csv"
    _rows(world).to_csv(rows, index=False)
    assert _holds(rows.read_bytes())
    out = tmp_path / "out"
    for arguments in (
        ("attest", rows, "--by", "an attack test"),
        ("fit", rows, "--save", tmp_path / "model"),
        ("generate", "--model", tmp_path / "model", "--rows", 1500, "--out", out),
        ("generate", rows, "--rows", 100, "--out", tmp_path / "dry", "--dry-run"),
        ("check", rows, "--policy", "strict"),
        ("check", out, "--policy", "baseline"),
        ("inspect", rows),
        ("inspect", out, "--json"),
        ("lineage", out),
        ("verify", out, "--deep", "--json"),
        ("ledger", "verify"),
    ):
        ran = cli(*arguments)
        assert ran.code == (3 if arguments[:2] == ("check", out) else 0), ran.err
        assert not _holds((ran.out + ran.err).encode()), arguments
    assert safegen.verify(out).rows == 1500
    # The number stands for a lone row, so it is not released; the level is one of many.
    assert WORD.encode() in pd.read_parquet(out / "data").to_csv().encode()
    data = ("rows.csv", "*.parquet", "model/*", "model/model/*")
    _silent(said, tmp_path, home, but=data)


def test_nothing_leaks_in_reprs(world: World, said: Callable[[], str]) -> None:
    gen = safegen.Generator().fit(_rows(world))
    shown = [repr(gen), str(gen), gen._repr_html_(), str(gen.decision), gen.decision._repr_html_()]  # type: ignore[union-attr]
    shown += [repr(gen.decision)]
    assert not any(_holds(text.encode()) for text in shown)
    _silent(said)


def test_a_refused_release_names_ranks_not_levels(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    """The level is lost on the way: the report says which rank, not which word."""
    gen = safegen.Generator().fit(_rows(world))
    model = gen._model
    assert model is not None

    class Collapsed:
        def sample(self, rows: int, **more: Any) -> Any:
            tables = model.sample(rows, **more)
            [(name, table)] = tables.items()
            at = table.schema.get_field_index("note")
            plain = pa.array(["plain"] * rows).cast(table.schema.field(at).type)
            return {name: table.set_column(at, table.schema.field(at), plain)}

    assert gen.generate(1500, tmp_path / "honest")
    monkeypatch.setattr(gen, "_model", Collapsed())
    with pytest.raises(safegen.ReleaseRefused) as refusal:
        gen.generate(1500, tmp_path / "out")
    assert "note#2" in str(refusal.value)
    assert (tmp_path / "out.refused.html").exists()
    assert not (tmp_path / "out").exists()
    assert not _holds(_text(refusal.value).encode())
    _silent(said, tmp_path, home, but=("*.parquet",))


def _ragged(folder: Path) -> Path:
    path = folder / "ragged.csv"
    path.write_text(f"a,b\n1,2\n3,{WORD},{NUMBER}\n")
    return path


def _typed(folder: Path) -> Path:
    """A column of numbers, and a word far behind the part that types are guessed from."""
    path = folder / "typed.csv"
    path.write_text("a,b\n" + f"1,{'x' * 500}\n" * 3_000 + f"{WORD},{NUMBER}\n")
    return path


def _bad_json(folder: Path) -> Path:
    path = folder / "bad.jsonl"
    path.write_text(f'{{"a": 1}}\n{{"a": {{"x": "{WORD}"}}}}\n{NUMBER}\n')
    return path


def _not_parquet(folder: Path) -> Path:
    path = folder / "bad.parquet"
    path.write_text(f"{WORD},{NUMBER}\n" * 10)
    return path


def _latin(folder: Path) -> Path:
    path = folder / "latin.csv"
    path.write_bytes(f"a,b\n{WORD}\xe9,{NUMBER}\n".encode("latin-1"))
    return path


BAD: dict[str, Callable[[Path], Any]] = {
    "ragged": _ragged,
    "typed": _typed,
    "json": _bad_json,
    "parquet": _not_parquet,
    "latin": _latin,
    "mixed": lambda f: pd.DataFrame({"a": [WORD, 1, 2.5, {"x": NUMBER}] * 50}),
    "bytes": lambda f: pd.DataFrame({"a": [WORD, WORD.encode(), int(NUMBER)] * 50}),
    "objects": lambda f: pd.DataFrame({"a": [complex(int(NUMBER)), object()] * 50}),
    "infinite": lambda f: pd.DataFrame(
        {"a": [float(NUMBER), np.inf, -np.inf] * 50, "b": [WORD, "x", "y"] * 50}
    ),
    "big": lambda f: pd.DataFrame({"a": [int(NUMBER) ** 9, 1] * 50}),
    "nested": lambda f: pa.table({"a": [[WORD]] * 50, "b": [{"x": int(NUMBER)}] * 50}),
    "one-row": lambda f: pd.DataFrame({"a": [WORD], "b": [int(NUMBER)]}),
    "all-null": lambda f: pd.DataFrame({"a": [None] * 50, "b": [WORD] * 50}),
    "constant": lambda f: pd.DataFrame({"a": [float(NUMBER)] * 50, "b": [WORD] * 50}),
}


@pytest.mark.parametrize("case", BAD)
def test_no_error_quotes_data(
    tmp_path: Path, home: Path, case: str, said: Callable[[], str]
) -> None:
    source = BAD[case](tmp_path)
    text = ""
    try:
        safegen.Generator().fit(source).generate(20, tmp_path / "out")
    except safegen.SafegenError as error:
        text = _text(error)
    assert not _holds(text.encode()), text
    _silent(said, home)
    if isinstance(source, Path):
        ran = cli("generate", source, "--rows", 20, "--out", tmp_path / "cli")
        assert ran.code in (0, 1, 2, 3)
        assert not _holds((ran.out + ran.err).encode())
        assert "Traceback" not in ran.err


def test_debug_shows_what_is_hidden_otherwise(tmp_path: Path) -> None:
    """The canary was there to be leaked: with --debug it is, after a warning."""
    path = _ragged(tmp_path)
    quiet = finish(start("check", path))
    assert (quiet.code, _holds((quiet.out + quiet.err).encode())) == (2, False)
    loud = finish(start("check", path, "--debug"))
    assert loud.code == 2
    assert WORD in loud.err or NUMBER in loud.err


@pytest.mark.parametrize("step", ["fit", "sample"])
def test_a_failing_backend_is_not_quoted(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, said: Any
) -> None:
    """What SDV says when it fails often holds the value that it failed on."""
    from safegen.backends.sdv import gaussian_copula

    rows = tmp_path / "rows.csv"
    _rows(world).to_csv(rows, index=False)

    def fails(*arguments: Any, **more: Any) -> Any:
        raise ValueError(f"could not convert {WORD!r} at {NUMBER}")

    if step == "fit":
        monkeypatch.setattr(gaussian_copula, "_sdv_univariate", fails)
    else:
        from safegen.backends.sdv.copula import CopulaModel

        monkeypatch.setattr(CopulaModel, "sample", fails)
    through_sdv = ("--set", 'default_distribution="norm"')
    ran = cli("generate", rows, *through_sdv, "--rows", 50, "--out", tmp_path / "out")
    assert ran.code == 1
    assert "ValueError" in ran.err
    assert not _holds((ran.out + ran.err).encode())
    assert not (tmp_path / "out").exists()
    _silent(said, home)


def test_a_failing_safeguard_is_not_quoted(
    world: World, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    from safegen.safeguards.support import SupportKept

    def fails(*arguments: Any, **more: Any) -> Any:
        raise KeyError(WORD, NUMBER)

    gen = safegen.Generator().fit(_rows(world))
    with monkeypatch.context() as patch:
        patch.setattr(SupportKept, "release", fails)
        with pytest.raises(safegen.ReleaseRefused) as refusal:
            gen.generate(200, tmp_path / "out")
    assert "support/broken" in str(refusal.value)
    assert not _holds(_text(refusal.value).encode())
    assert not (tmp_path / "out").exists()
    _silent(said, tmp_path, home)
    assert gen.generate(1500, tmp_path / "out")


def test_conditions_are_not_written_down(
    world: World, home: Path, tmp_path: Path, said: Any
) -> None:
    """Which columns were fixed may be told; to which value, a real one, may not."""
    gen = safegen.Generator().fit(_rows(world))
    out = tmp_path / "out"
    gen.generate(300, out, conditions={"note": WORD})
    _silent(said, out, home, but=("*.parquet",))
    with pytest.raises(safegen.UsageError) as error:
        gen.generate(300, tmp_path / "more", conditions={"note": f"{WORD}-2"})
    assert not _holds(_text(error.value).encode())


def test_a_notebook_shows_no_value(world: World) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print(safegen.check(_rows(world), policy="strict"))
    assert not _holds(out.getvalue().encode())
