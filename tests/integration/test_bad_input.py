"""What goes wrong at the command line ends in one clear paragraph, without a real value in it.

Every case: the exit code of the contract, at most a few lines on stderr, no traceback, no value
planted in the data, and nothing left behind.
"""

from __future__ import annotations

import builtins
import csv
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import safegen
from safegen.cli import main
from safegen.errors import SourceError

CANARIES = ("Zanzibar-7731", "8675309.25")
N = 120


def frame(n: int = N) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "income": np.r_[8675309.25, np.round(rng.gamma(2, 100, n - 1), 2)],
            "town": rng.choice(["Zanzibar-7731", "Basel", "Chur"], n),
        }
    )


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(w) for w in words])
        said = capsys.readouterr()
        return Outcome(int(end.value.code or 0), said.out, said.err)

    return call


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def people(place: Path) -> Path:
    path = place / "people.csv"
    frame().to_csv(path, index=False)
    return path


def listing(place: Path) -> list[str]:
    return sorted(p.relative_to(place).as_posix() for p in place.rglob("*"))


def clear(outcome: Outcome, code: int, *words: str, lines: int = 6) -> None:
    """The rules for every message."""
    assert outcome.code == code, outcome
    assert outcome.out == ""
    text = outcome.err.strip()
    assert 0 < len(text.splitlines()) <= lines, text
    assert "Traceback" not in text
    for canary in CANARIES:
        assert canary not in text
        assert canary.lower() not in text.lower()
    for word in words:
        assert word in text, text


GENERATE = ("--rows", 50, "--out", "out/x")


# ---- data ----------------------------------------------------------------------------------------


def _text(content: str | bytes) -> Callable[[Path], None]:
    data = content.encode() if isinstance(content, str) else content
    return lambda path: path.write_bytes(data) and None


def _truncated(path: Path) -> None:
    frame().to_parquet(path)
    path.write_bytes(path.read_bytes()[:-200])


def _torn(path: Path) -> None:
    """The footer is whole and the rows are not: found while reading, not while opening."""
    frame(5_000).to_parquet(path)
    data = bytearray(path.read_bytes())
    data[100:2_000] = os.urandom(1_900)
    path.write_bytes(bytes(data))


def _ragged(path: Path) -> None:
    lines = frame().to_csv(index=False).splitlines()
    lines[50] = "1,8675309.25,Zanzibar-7731,Zanzibar-7731"
    path.write_text("\n".join(lines))


def _twice(path: Path) -> None:
    lines = frame().to_csv(index=False).splitlines()
    path.write_text("\n".join(["age,town,town", *lines[1:]]))


def _latin(path: Path) -> None:
    table = frame()
    table["town"] = "Zürich Zanzibar-7731"
    path.write_bytes(table.to_csv(index=False).encode("latin-1"))


def _latin_header(path: Path) -> None:
    path.write_bytes(
        frame().rename(columns={"town": "Ort für"}).to_csv(index=False).encode("cp1252")
    )


def _infinite(path: Path) -> None:
    table = frame()
    table.loc[3, "income"] = np.inf
    table.to_csv(path, index=False)


def _all_null(path: Path) -> None:
    pq.write_table(pa.table({"a": pa.nulls(50), "b": pa.nulls(50, pa.int64())}), path)


def _parquet(table: pa.Table) -> Callable[[Path], None]:
    return lambda path: pq.write_table(table, path)


def _plus(**column: pa.Array) -> pa.Table:
    table = pa.Table.from_pandas(frame(), preserve_index=False)
    for name, values in column.items():
        table = table.append_column(name, values)
    return table


BAD_DATA: dict[str, tuple[str, Callable[[Path], Any], tuple[str, ...]]] = {
    "empty csv": ("x.csv", _text(""), ("x.csv", "empty")),
    "empty parquet": ("x.parquet", _text(""), ("x.parquet", "empty")),
    "truncated parquet": ("x.parquet", _truncated, ("x.parquet", "damaged")),
    "torn parquet": ("x.parquet", _torn, ("x.parquet",)),
    "text named parquet": ("x.parquet", _text("age,town\n1,Zanzibar-7731\n"), ("x.parquet",)),
    "text named arrow": ("x.arrow", _text("age,town\n1,Zanzibar-7731\n"), ("x.arrow",)),
    "text named gz": ("x.csv.gz", _text("age,town\n1,Zanzibar-7731\n"), ("x.csv.gz",)),
    "csv named jsonl": ("x.jsonl", _text("age,town\n1,Zanzibar-7731\n"), ("x.jsonl",)),
    "torn json": ("x.jsonl", _text('{"town": "Zanzibar-7731"}\n{"town": '), ("x.jsonl",)),
    "ragged lines": ("x.csv", _ragged, ("x.csv", "ragged")),
    "duplicate columns": ("x.csv", _twice, ("'town'", "twice", "rename")),
    "not utf-8": ("x.csv", _latin, ("'town'", "UTF-8")),
    "header not utf-8": ("x.csv", _latin_header, ("x.csv", "UTF-8")),
    "infinite": ("x.csv", _infinite, ("'income'", "1 infinite")),
    "all columns null": ("x.parquet", _all_null, ("null",)),
    "one row": ("x.csv", lambda p: frame(1).to_csv(p, index=False), ("1 rows", "20")),
    "no rows": ("x.csv", lambda p: frame().iloc[:0].to_csv(p, index=False), ("0 rows", "20")),
    "no columns": ("x.parquet", _parquet(pa.table({})), ("no columns",)),
    "unknown suffix": ("x.xlsx", _text("Zanzibar-7731"), ("x.xlsx", ".parquet")),
    "list column": (
        "x.parquet",
        _parquet(_plus(many=pa.array([["Zanzibar-7731"]] * N))),
        ("'many'", "flatten"),
    ),
    "struct column": (
        "x.parquet",
        _parquet(_plus(deep=pa.array([{"t": "Zanzibar-7731"}] * N))),
        ("'deep'", "flatten"),
    ),
    "binary column": (
        "x.parquet",
        _parquet(_plus(raw=pa.array([b"Zanzibar-7731"] * N))),
        ("'raw'", "cast"),
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_refused_in_one_paragraph(case: str, run: Run, place: Path) -> None:
    name, write, words = BAD_DATA[case]
    write(place / name)
    before = listing(place)
    clear(run("generate", name, *GENERATE), 2, *words)
    clear(run("fit", name, "--save", "models/m"), 2, *words)
    assert listing(place) == before


@pytest.mark.parametrize("command", ["check", "inspect", "lineage", "attest"])
@pytest.mark.parametrize("case", ["empty csv", "truncated parquet", "ragged lines", "not utf-8"])
def test_every_reader_says_the_same(command: str, case: str, run: Run, place: Path) -> None:
    name, write, words = BAD_DATA[case]
    write(place / name)
    before = listing(place)
    clear(run(command, name, *(["--by", "Ada"] if command == "attest" else [])), 2, *words)
    assert listing(place) == before


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("missing.csv", "missing.csv: no such file"),
        ("empty", "empty: no data file"),
        ("ftp://host/x.parquet", "ftp://"),
        ("s3://me:Zanzibar-7731@bucket/x.parquet", "environment"),
        ("https://[half/x.parquet", "https://"),
        ("", "empty"),
        ("a\0b.csv", "no such file"),
    ],
)
def test_a_source_that_is_not_there(source: str, word: str, run: Run, place: Path) -> None:
    (place / "empty").mkdir()
    (place / "empty" / "notes.txt").write_text("Zanzibar-7731")
    before = listing(place)
    clear(run("generate", source, *GENERATE), 2, word)
    assert listing(place) == before


def test_files_of_other_columns_or_types_do_not_pool(run: Run, place: Path) -> None:
    for folder in ("names", "types"):
        (place / folder).mkdir()
        frame().to_parquet(place / folder / "a.parquet")
    frame().rename(columns={"town": "city"}).to_parquet(place / "names" / "b.parquet")
    frame().assign(age="Zanzibar-7731").to_parquet(place / "types" / "b.parquet")
    clear(run("generate", "names", *GENERATE), 2, "several tables (a, b)", "different columns")
    clear(run("generate", "types", *GENERATE), 2, "types")


def test_mixed_objects_from_pandas_name_column_and_type() -> None:
    table = frame().assign(odd=[1, "Zanzibar-7731"] * (N // 2))
    with pytest.raises(SourceError, match="'odd'") as refused:
        safegen.check(table)
    assert all(c not in str(refused.value) for c in CANARIES)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_one_column_without_values_comes_back_null(run: Run, place: Path) -> None:
    frame().assign(nothing=pd.Series([None] * N, dtype="float64")).to_parquet("x.parquet")
    assert run("generate", "x.parquet", *GENERATE).code == 0
    table = safegen.open("out/x", policy="lab").to_arrow()
    assert table.column("nothing").null_count == 50
    assert table.schema.field("nothing").type == pa.float64()


# ---- policy, backend, options --------------------------------------------------------------------


def test_a_typo_in_a_policy_has_file_line_and_nearest_key(
    run: Run, people: Path, place: Path
) -> None:
    text = (Path(__file__).parents[2] / "policies" / "baseline.yaml").read_text()
    assert "max_depth" in text
    (place / "mine.yaml").write_text(text.replace("max_depth", "max_dept"))
    line = next(i for i, row in enumerate(text.splitlines(), 1) if "max_depth" in row)
    before = listing(place)
    for words in (
        ("generate", people, *GENERATE, "--policy", "mine.yaml"),
        ("check", people, "--policy", "mine.yaml"),
        ("policy", "lint", "mine.yaml"),
        ("policy", "explain", "mine.yaml"),
    ):
        clear(run(*words), 2, f"mine.yaml:{line}", "max_dept", "max_depth")
    assert listing(place) == before


def test_wrong_names_are_told_with_the_nearest(run: Run, people: Path, place: Path) -> None:
    before = listing(place)
    clear(run("generate", people, *GENERATE, "--policy", "basline"), 2, "basline", "baseline")
    clear(run("policy", "lint", "basline"), 2, "basline", "baseline")
    clear(
        run("generate", people, *GENERATE, "--backend", "sdv.gausian_copula"),
        2,
        "sdv.gaussian_copula",
    )
    clear(run("fit", people, "--save", "m", "--backend", "nothing.like.it"), 2, "installed")
    assert listing(place) == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--set", "colour=blue"), ("colour", "default_distribution")),
        (("--set", "default_distribution=blue"), ("default_distribution", "norm")),
        (("--set", "enforce_rounding=7"), ("enforce_rounding",)),
        (("--set", "enforce_rounding"), ("--set", "NAME=VALUE")),
        (("--condition", "agee=3"), ("agee", "'age'")),
        (("--condition", "age"), ("--condition",)),
        (("--condition", "town=Genf"), ("town",)),
        (("--condition", "age=-4"), ("age",)),
        (("--condition", "age=old"), ("age",)),
        (("--rows", "0"), ("--rows",)),
        (("--rows", "-5"), ("--rows",)),
        (("--rows", "1000000000000000"), ("--rows",)),
        (("--rows", "many"), ("--rows",)),
        (("--seed", "-1"), ("seed",)),
        (("--fit-seed", "99999999999999999999"), ("seed",)),
        (("--workers", "0"), ("--workers",)),
        (("--engine", "spark"), ("--engine", "local")),
        (("--if-exists", "perhaps"), ("--if-exists", "version")),
        (("--colour", "blue"), ("--colour", "--help")),
        (("--schema", "none.yaml"), ("none.yaml",)),
        (("--key", "none.pem"), ("none.pem",)),
        (("--out", "ftp://host/x"), ("ftp://",)),
        (("--out", "s3://bucket/x?key=Zanzibar-7731"), ("environment",)),
    ],
)
def test_wrong_use_says_what_is_meant(
    words: tuple[str, ...], expected: tuple[str, ...], run: Run, people: Path, place: Path
) -> None:
    before = listing(place)
    clear(run("generate", people, *GENERATE, *words), 2, *expected)
    assert listing(place) == before


@pytest.mark.parametrize(
    "words",
    [
        ("generate",),
        ("generate", "people.csv"),
        ("generate", "people.csv", "--rows", "5"),
        ("fit", "people.csv"),
        ("attest", "people.csv"),
        ("attest", "people.csv", "--by", " "),
        ("attest", "people.csv", "--by", "Ada", "--origin", "perhaps"),
        ("attest", "people.csv", "--by", "Ada", "--expires", "soon"),
        ("verify",),
        ("nonsense",),
        ("policy", "nonsense"),
        ("ledger", "show", "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        ("key", "show", "people.csv"),
        ("key", "new", "people.csv"),
        ("sign", "people.csv", "--key", "people.csv"),
        ("generate", "--model", "m", "--rows", "5", "--dry-run"),
        ("check", "a=people.csv", "a=people.csv"),
    ],
)
def test_incomplete_commands_are_wrong_use(
    words: tuple[str, ...], run: Run, people: Path, place: Path
) -> None:
    if words[0] == "ledger":
        assert run("attest", people, "--by", "Ada").code == 0
    before = listing(place)
    clear(run(*words), 2)
    assert listing(place) == before


def test_without_sdv_the_remedy_is_told(
    run: Run, people: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    importing = builtins.__import__

    def no_sdv(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "sdv":
            raise ModuleNotFoundError("No module named 'sdv'", name="sdv")
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_sdv)
    before = listing(place)
    outcome = run("generate", people, *GENERATE)
    clear(outcome, 2, "pip install 'safegen[sdv]'", lines=8)
    assert listing(place) == before


# ---- places --------------------------------------------------------------------------------------


def test_a_target_that_cannot_be_written(run: Run, people: Path, place: Path) -> None:
    (place / "taken").mkdir()
    (place / "taken" / "mine.txt").write_text("mine")
    (place / "file").write_text("mine")
    before = listing(place)
    clear(run("generate", people, "--rows", 50, "--out", "taken"), 1, "taken exists", "if_exists")
    clear(run("generate", people, "--rows", 50, "--out", "file"), 1, "a file is in the way")
    clear(run("generate", people, "--rows", 50, "--out", "file/x/y"), 1, "file", lines=8)
    clear(run("fit", people, "--save", "taken"), 1, "taken exists")
    clear(run("fit", people, "--save", "file/x"), 1, "file", lines=8)
    assert listing(place) == before
    assert (place / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(run: Run, people: Path, place: Path) -> None:
    (place / "locked").mkdir(mode=0o500)
    clear(run("generate", people, "--rows", 50, "--out", "locked/x"), 1, "permission", lines=8)


def _ledgers(place: Path) -> Iterator[tuple[str, str]]:
    (place / "folder.db").mkdir()
    (place / "text.db").write_text("Zanzibar-7731\n" * 100)
    yield "folder.db", "folder.db"
    yield "text.db", "not a ledger"
    yield "postgresql://user:secret@host/db", "postgresql"


def test_a_ledger_out_of_reach_never_admits_in_silence(run: Run, people: Path, place: Path) -> None:
    for ledger, word in _ledgers(place):
        before = listing(place)
        for command in (("list",), ("list", "--log"), ("show", "x"), ("verify",)):
            clear(run("ledger", *command, "--ledger", ledger), 1, word)
        clear(run("inspect", people, "--ledger", ledger), 1, word)
        refused = run("attest", people, "--by", "Ada", "--ledger", ledger)
        clear(refused, 3, "lineage/ledger", "make it reachable", lines=30)
        refused = run("generate", people, *GENERATE, "--ledger", ledger, "--policy", "strict")
        clear(refused, 3, "lineage/ledger", lines=40)
        warned = run("check", people, "--ledger", ledger, "--policy", "baseline")
        assert "unreachable" in warned.out
        assert "underpowered" in warned.out
        assert "Zanzibar-7731" not in warned.out + warned.err
        assert listing(place) == before


def test_a_refusal_by_policy_names_the_rule_and_leaves_nothing(
    run: Run, people: Path, place: Path
) -> None:
    frame().assign(_safegen_origin="synthetic").to_csv(place / "made.csv", index=False)
    before = listing(place)
    outcome = run("generate", "made.csv", *GENERATE)
    clear(outcome, 3, "REFUSED", "lineage/depth", "required", "next", "ask", lines=60)
    assert listing(place) == before


@pytest.mark.parametrize("content", ["", "-----BEGIN NONSENSE-----", "\x00\xff"])
def test_a_bad_key_file(content: str, run: Run, people: Path, place: Path) -> None:
    (place / "k").write_text(content)
    (place / "k").chmod(0o600)
    before = listing(place)
    clear(run("generate", people, *GENERATE, "--key", "k"), 2, "k: not")
    assert listing(place) == before


def test_a_key_that_others_can_read(run: Run, people: Path, place: Path) -> None:
    assert run("key", "new", "k").code == 0
    (place / "k").chmod(0o644)
    clear(run("generate", people, *GENERATE, "--key", "k"), 2, "chmod 600")


@pytest.mark.parametrize("name", ["none", "people.csv", "."])
def test_what_is_no_dataset_does_not_verify(name: str, run: Run, people: Path, place: Path) -> None:
    clear(run("verify", name), 4, name)


# ---- what nobody foresaw -------------------------------------------------------------------------


def test_an_unexpected_fault_is_told_without_its_text(
    run: Run, people: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("bad value Zanzibar-7731 at 8675309.25")

    monkeypatch.setattr("safegen.backends.sdv.gaussian_copula.GaussianCopula.fit", broken)
    before = listing(place)
    outcome = run("generate", people, *GENERATE)
    clear(outcome, 1, "builtins.RuntimeError", "--debug", lines=8)
    shown = run("generate", people, *GENERATE, "--debug")
    assert shown.code == 1
    assert "Traceback" in shown.err
    assert "Zanzibar-7731" in shown.err
    assert "SAFEGEN_DEBUG" not in os.environ  # one run's --debug is not the next one's
    clear(run("generate", people, *GENERATE), 1, "--debug", lines=8)
    assert listing(place) == before


def test_memory_that_runs_out(
    run: Run, people: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("safegen.backends.sdv.gaussian_copula.GaussianCopula.fit", hungry)
    clear(run("generate", people, *GENERATE), 1, "memory", lines=8)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["check", "ragged.csv"], 2),
        (["generate", "people.csv", "--rows", "0", "--out", "x"], 2),
        (["verify", "nothing"], 4),
        (["--nonsense"], 2),
        ([], 2),
    ],
)
def test_a_process_ends_with_the_code(
    words: list[str], code: int, people: Path, place: Path
) -> None:
    _ragged(place / "ragged.csv")
    ended = subprocess.run(
        [Path(sys.executable).with_name("safegen"), *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    assert all(c not in ended.stdout + ended.stderr for c in CANARIES)


def test_a_csv_that_only_needs_a_second_look_is_read(place: Path) -> None:
    """Types are inferred from the first megabyte; a later fraction is no error."""
    with (place / "late.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["a", "b"])
        writer.writerows((i, "word" * 10) for i in range(40_000))
        writer.writerow([0.5, "end"])
    assert safegen.check(place / "late.csv", policy="lab").subject[0].count("40,001 rows")
