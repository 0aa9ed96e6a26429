"""Every command: what it prints, its exit code, and what it leaves on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from safegen.cli import main
from safegen.manifest import Manifest

N = 300
SAFEGEN = Path(sys.executable).with_name("safegen")


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)


class World(NamedTuple):
    """A folder with attested data, a dataset, a model and a key; and the home it was made in."""

    place: Path
    home: Path


def _call(capture: Any, *words: object) -> Outcome:
    capture.readouterr()
    with pytest.raises(SystemExit) as end:
        main([str(w) for w in words])
    said = capture.readouterr()
    return Outcome(int(end.value.code or 0), said.out, said.err)


def people(n: int = N) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "income": np.round(rng.gamma(2, 20_000, n), 2),
            "job": rng.choice(["clerk", "cook", "pilot"], n, p=[0.5, 0.3, 0.2]),
            "member": rng.random(n) < 0.4,
        }
    )


def _live_in(patch: pytest.MonkeyPatch, world: World) -> None:
    for folder in ("DATA", "CONFIG", "CACHE"):
        patch.setenv(f"XDG_{folder}_HOME", str(world.home / folder.lower()))
    patch.chdir(world.place)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("world-home"))
    with pytest.MonkeyPatch.context() as patch:
        _live_in(patch, made)
        people().to_csv("people.csv", index=False)
        for words in (
            ["key", "new", "k"],
            ["attest", "people.csv", "--by", "Ada"],
            ["generate", "people.csv", "-n", "200", "-o", "out/a", "--key", "k"],
            ["fit", "people.csv", "--save", "models/m"],
        ):
            with pytest.raises(SystemExit) as end:
                main(words)
            assert not end.value.code
        yield made


@pytest.fixture(autouse=True)
def _in_the_world(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _live_in(monkeypatch, world)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda *words: _call(capsys, *words)


def listing(place: Path) -> dict[str, int]:
    return {p.relative_to(place).as_posix(): p.stat().st_mtime_ns for p in place.rglob("*")}


# ---- making --------------------------------------------------------------------------------------


def test_generate_prints_the_place_and_the_facts(run: Any, tmp_path: Path) -> None:
    made = run("generate", "people.csv", "-n", 120, "-o", tmp_path / "x")
    assert made.code == 0
    first, *rest = made.out.splitlines()
    assert first == str(tmp_path / "x")
    assert any(line.split() == ["rows", "120"] for line in rest)
    assert any("real, attested" in line for line in rest)
    assert made.err == ""
    assert (tmp_path / "x" / "safegen.manifest.json").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_generate_json_is_the_manifest(run: Any, tmp_path: Path) -> None:
    made = run("generate", "people.csv", "-n", 120, "-o", tmp_path / "x", "--json")
    assert made.code == 0
    assert made.document == Manifest.read(tmp_path / "x").document()


def test_fit_then_generate_gives_the_rows_of_generate(run: Any, tmp_path: Path) -> None:
    whole = run("generate", "people.csv", "-n", 200, "-o", tmp_path / "x", "--json")
    loaded = run("generate", "--model", "models/m", "-n", 200, "-o", tmp_path / "y", "--json")
    assert whole.document["logical_digest"] == loaded.document["logical_digest"]
    fitted = run("fit", "people.csv", "--save", tmp_path / "m", "--json")
    assert fitted.code == 0
    assert fitted.document["decision"]["allowed"] is True
    assert fitted.document["model"] == str(tmp_path / "m")


def test_if_exists_same_leaves_it_untouched_and_does_not_fit(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("generate", "people.csv", "-n", 120, "-o", tmp_path / "x")
    made = run(*words, "--json")
    before = listing(tmp_path)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("fitted")

    monkeypatch.setattr("safegen.backends.sdv.gaussian_copula.GaussianCopula.fit", never)
    again = run(*words, "--if-exists", "same", "--json")
    assert again.code == 0
    assert again.document == made.document
    assert listing(tmp_path) == before
    other = run(*words, "--if-exists", "same", "--seed", 12)
    assert other.code == 1
    assert "not the one that this call would make" in other.err
    assert listing(tmp_path) == before


def test_if_exists_version_writes_beside_it(run: Any, tmp_path: Path) -> None:
    words = ("generate", "--model", "models/m", "-n", 50, "-o", tmp_path / "x")
    assert run(*words).code == 0
    assert run(*words).code == 1
    second = run(*words, "--if-exists", "version")
    assert second.out.splitlines()[0] == str(tmp_path / "x-2")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x", "x-2"]


def test_two_workers_write_the_rows_of_one(run: Any, tmp_path: Path) -> None:
    rows = 65_536 + 200  # two blocks
    digests, tables = [], []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        made = run(
            *("generate", "--model", "models/m", "-n", rows, "-o", out),
            *("--workers", workers, "--json"),
        )
        assert made.code == 0, made.err
        digests.append(made.document["logical_digest"])
        tables.append(pd.read_parquet(out / "data"))
    assert digests[0] == digests[1]
    pd.testing.assert_frame_equal(tables[0], tables[1])


def test_conditions_hold_on_every_row(run: Any, tmp_path: Path) -> None:
    made = run(
        *("generate", "people.csv", "-n", 80, "-o", tmp_path / "x"),
        *("--condition", "job=pilot", "--condition", "member=True"),
    )
    assert made.code == 0, made.err
    table = pd.read_parquet(tmp_path / "x" / "data")
    assert set(table["job"]) == {"pilot"}
    assert table["member"].all()
    assert len(table) == 80


def test_dry_run_makes_no_files(run: Any, world: World) -> None:
    before = listing(world.place)
    told = run("generate", "people.csv", "-n", 1_000, "--dry-run")
    assert told.code == 0
    assert [line.split("  ")[0] for line in told.out.splitlines() if line[0] != " "] == [
        "sources",
        "fit, forecast",
        "sample, forecast",
        "memory so far",
        "support gate",
        "fidelity gate",
        "privacy gate",
    ]
    forecast = run("generate", "people.csv", "-n", 1_000, "-o", "out/new", "--dry-run", "--json")
    assert set(forecast.document) >= {"sources", "fit, forecast"}
    assert forecast.document["memory so far"].endswith("it does not grow with --rows")
    assert listing(world.place) == before


def test_a_dry_run_says_what_judging_keys_costs(run: Any, tmp_path: Path) -> None:
    people().assign(no=np.arange(N)).to_parquet(tmp_path / "keyed.parquet")
    (tmp_path / "roles.yaml").write_text("columns: {no: {role: key}}\n")
    args = ["generate", tmp_path / "keyed.parquet", "--schema", tmp_path / "roles.yaml", "-n", 60]
    forecast = run(*args, "--dry-run", "--json")
    assert "8 bytes per row and key (no)" in forecast.document["memory so far"]


def test_columns_that_are_replaced_are_said(run: Any, tmp_path: Path) -> None:
    table = people().assign(mail=[f"ada{i}@example.org" for i in range(N)])
    table.to_parquet(tmp_path / "mail.parquet")
    made = run("generate", tmp_path / "mail.parquet", "-n", 60, "-o", tmp_path / "x")
    assert made.code == 0
    assert "column mail: personal" in made.err
    assert "warning: " in made.err  # unattested
    assert "  next: if you know that it is real: safegen attest" in made.err
    assert "ada1@" not in made.out + made.err


# ---- looking -------------------------------------------------------------------------------------


def test_check_admits_real_data_and_refuses_what_a_strict_policy_does_not_know(
    run: Any, tmp_path: Path
) -> None:
    admitted = run("check", "people.csv")
    assert admitted.code == 0
    assert admitted.out.startswith("ADMITTED at the admission gate by policy training")
    people().sample(100, random_state=1).to_csv(tmp_path / "unknown.csv", index=False)
    refused = run("check", tmp_path / "unknown.csv", "--policy", "strict")
    assert refused.code == 3
    assert refused.out.startswith("REFUSED")
    assert refused.err == ""


def test_a_refusal_in_json_is_the_decision(run: Any, tmp_path: Path) -> None:
    for words in (
        ("check", "out/a", "--policy", "baseline", "--json"),
        ("generate", "out/a", "-n", 50, "-o", tmp_path / "x", "--json"),
        ("fit", "out/a", "--save", tmp_path / "m", "--json"),
        ("attest", "out/a", "--by", "Ada", "--json"),
    ):
        refused = run(*words)
        assert refused.code == 3, refused.err
        assert refused.document["allowed"] is False
        assert refused.document["gate"] == "admission"
    assert list(tmp_path.iterdir()) == []


def test_a_refused_release_leaves_its_findings_and_no_rows(run: Any, tmp_path: Path) -> None:
    words = ("generate", "people.csv", "-n", 120, "-o", tmp_path / "x", "--policy", "strict")
    refused = run(*words, "--no-keep-report")
    assert refused.code == 3
    assert "manifest/" in refused.err  # strict asks for a signature
    assert refused.out == ""
    assert list(tmp_path.iterdir()) == []
    shown = run(*words, "--json")
    assert shown.document["gate"] == "release"
    assert [p.name for p in tmp_path.iterdir()] == ["x.refused.html"]


def test_verify(run: Any) -> None:
    for words in ((), ("--deep",), ("--trusted-key", "k.pub")):
        verified = run("verify", "out/a", *words)
        assert verified.code == 0, verified.err
        first, second, *_ = verified.out.splitlines()
        assert first.startswith("VERIFIED out/a: ")
        assert second.startswith("SIGNED by ")
    document = run("verify", "out/a", "--json").document
    assert document["verified"] is True
    assert document["manifest"] == Manifest.read("out/a").document()


def test_tampering_does_not_verify(run: Any, tmp_path: Path) -> None:
    assert run("generate", "--model", "models/m", "-n", 50, "-o", tmp_path / "x").code == 0
    (tmp_path / "x" / "extra.txt").write_text("hello")
    broken = run("verify", tmp_path / "x")
    assert broken.code == 4
    assert broken.out == ""
    assert "extra.txt" in broken.err
    told = run("verify", tmp_path / "x", "--json")
    assert told.code == 4
    assert told.document["verified"] is False
    assert any("extra.txt" in p for p in told.document["problems"])


def test_sign_and_a_key_that_nobody_knows(run: Any, tmp_path: Path) -> None:
    assert run("generate", "--model", "models/m", "-n", 50, "-o", tmp_path / "x").code == 0
    assert run("verify", tmp_path / "x").out.splitlines()[1].startswith("UNSIGNED")
    assert run("verify", tmp_path / "x", "--trusted-key", "k.pub").code == 4
    signed = run("sign", tmp_path / "x", "--key", "k")
    assert signed.code == 0
    assert "SIGNED by" in signed.out
    assert run("verify", tmp_path / "x", "--trusted-key", "k.pub").code == 0
    made = run("key", "new", tmp_path / "other")
    assert made.code == 0
    shown = run("key", "show", tmp_path / "other.pub")
    assert shown.out.splitlines()[0] in made.out
    assert "trusted_keys: [MCowBQYDK2VwAyEA" in shown.out
    assert run("verify", tmp_path / "x", "--trusted-key", tmp_path / "other.pub").code == 4


def test_attest(run: Any, tmp_path: Path) -> None:
    people(50).to_csv(tmp_path / "few.csv", index=False)
    attested = run(
        *("attest", tmp_path / "few.csv", "--by", "Ada", "--license", "CC0-1.0"),
        *("--source-uri", "https://example.org", "--expires", "2999-12-31", "--json"),
    )
    assert attested.code == 0
    assert attested.document["attested_by"] == "Ada"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["few.csv", "few.csv.safegen.json"]


def test_inspect_and_lineage(run: Any) -> None:
    known = run("inspect", "people.csv")
    assert known.code == 0
    assert "attested as real by Ada" in known.out
    document = run("inspect", "out/a", "--json").document
    assert document["origin"] == "synthetic"
    assert "lookups" not in document  # keyed, for the ledger only
    drawn = run("lineage", "out/a")
    assert drawn.code == 0
    dataset = Manifest.read("out/a")
    today = dataset.created[:10]
    first, what, amounts, verdict, source, *rest = drawn.out.splitlines()
    assert first == f"out/a [{dataset.dataset_id}]"
    assert what == f"│ synthetic, released by sdv.gaussian_copula on {today}"
    assert amounts == "│ 200 rows, all synthetic, depth 1"
    assert verdict.startswith("│ admitted and released")
    assert verdict.endswith("by policy baseline 1.0.0")
    assert source == f"└── people.csv [{dataset.sources[0].dataset_id}]"
    assert rest == [
        f"      real, attested by Ada on {today}",
        "      300 rows, none synthetic, depth 0",
    ]
    tree = run("lineage", dataset.dataset_id, "--json").document
    assert tree["sources"][0]["origin"] == "real"
    assert [v["gate"] for v in tree["verdicts"]] == ["admission", "release"]
    below = run("lineage", "people.csv").out.partition("made from it:\n")[2]
    assert f"── {dataset.dataset_id}\n" in below
    assert run("lineage", "people.csv", "--json").document["made_from_it"]


# ---- policies, ledger, the rest ------------------------------------------------------------------


def test_policy_commands(run: Any) -> None:
    listed = run("policy", "list", "--json").document
    assert {p["id"] for p in listed} >= {"baseline", "strict", "training", "lab"}
    assert run("policy", "list").code == 0
    assert run("policy", "lint", "baseline").out == "1 policy, no problems\n"
    assert run("policy", "lint", "baseline", "strict").out == "2 policies, no problems\n"
    assert run("policy", "lint", "baseline", "--json").document == []
    assert run("policy", "schema").document["title"] == "safegen policy"
    explained = run("policy", "explain", "baseline", "--rule", "lineage")
    assert "  max_depth = 0.0 models  (" in explained.out
    assert "baseline.yaml:" in explained.out
    rows = run("policy", "explain", "baseline", "--json").document
    assert {r["rule"] for r in rows} >= {"lineage", "support"}


def test_ledger_commands(run: Any) -> None:
    dataset = Manifest.read("out/a").dataset_id
    assert dataset in run("ledger", "list").out
    assert dataset in {m["dataset_id"] for m in run("ledger", "list", "--json").document}
    log = run("ledger", "list", "--log", "--json").document
    assert [e["seq"] for e in log] == list(range(log[0]["seq"], log[0]["seq"] + len(log)))
    assert "allowed at release by baseline" in run("ledger", "list", "--log").out
    assert run("ledger", "show", dataset, "--json").document == Manifest.read("out/a").document()
    assert dataset in run("ledger", "show", dataset).out
    assert run("ledger", "verify").out.startswith("VERIFIED ")
    assert run("ledger", "verify", "--json").document["verified"] is True


def test_backends(run: Any) -> None:
    assert "sdv.gaussian_copula" in run("backends").out
    document = run("backends", "--json").document
    assert document["sdv.gaussian_copula"]["license"] == "BUSL-1.1"


def test_demo_tells_the_story(run: Any, world: World, tmp_path: Path) -> None:
    told = run("demo", "--data", "people.csv", "--out", tmp_path / "demo", "--rows", 100)
    assert told.code == 0
    for part in (
        "1  Attest",
        "2  Generator",
        "3  generate",
        "4  verify",
        "5  Now train",
        "6  Now hide",
    ):
        assert part in told.out
    assert "REFUSED at the admission gate" in told.out
    assert "100 synthetic rows stay out of training" in told.out


def test_help_lists_every_command(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = run("--help").out
    for name in (
        *("generate", "fit", "check", "verify", "sign", "attest", "inspect", "lineage"),
        *("policy", "ledger", "backends", "key", "demo"),
    ):
        assert f" {name} " in text, name
        assert run(name, "--help").code == 0
    assert run().code == 2


def test_debug_counts_wherever_it_stands(run: Any) -> None:
    for words in (("--debug", "check", "none"), ("check", "--debug", "none")):
        failed = run(*words)
        assert failed.code == 2
        assert "Traceback" in failed.err
    assert "Traceback" not in run("check", "none").err
    assert run("policy", "lint", "baseline", "--debug").code == 0


@pytest.mark.parametrize("width", ["60", "80", "120"])
def test_nothing_that_is_printed_has_trailing_spaces_or_runs_wide(
    width: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    for words in (
        ("verify", "out/a"),
        ("inspect", "out/a"),
        ("lineage", "out/a"),
        ("check", "people.csv"),
        ("check", "out/a", "-p", "baseline"),
        ("ledger", "list"),
        ("ledger", "list", "--log"),
        ("policy", "list"),
        ("policy", "explain", "baseline"),
        ("backends",),
    ):
        text = run(*words).out
        assert text.endswith("\n")
        for line in text.splitlines():
            assert line == line.rstrip(), words
            # A line is longer only for one word that must stay whole, such as a digest.
            words_too_long = len(line) > int(width) and len(line.split()) > 3
            assert not words_too_long or words[0] in ("lineage", "policy", "verify"), line


def test_control_characters_in_names_do_not_reach_the_terminal(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2Jb.csv"
    people().to_csv(path, index=False)
    for command in ("inspect", "lineage"):
        assert "\x1b" not in run(command, path).out


# ---- as a process --------------------------------------------------------------------------------


def test_ctrl_c_ends_with_130_and_leaves_nothing(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    words = ("generate", "--model", "models/m", "-n", 50, "-o", tmp_path / "x" / "y")
    monkeypatch.setattr("safegen.engines.local.make_part", interrupted)
    stopped = run(*words)
    assert stopped.code == 130
    assert stopped.err.strip().splitlines()[-1] == "safegen: stopped; nothing was published"
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_on_a_process(world: World, tmp_path: Path) -> None:
    started = subprocess.Popen(
        [SAFEGEN, "generate", "--model", "models/m", "-n", "50000000", "-o", tmp_path / "x"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=world.place,
        env=dict(os.environ),
        text=True,
    )
    for _ in range(300):
        if any(tmp_path.iterdir()):
            break
        assert started.poll() is None, started.communicate()
        time.sleep(0.1)
    time.sleep(0.5)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=30)
    assert started.returncode == 130
    assert out == ""
    assert err.strip().splitlines()[-1] == "safegen: stopped; nothing was published"
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_away_is_no_traceback(world: World) -> None:
    piped = subprocess.run(
        f"'{SAFEGEN}' policy schema | head -1; '{SAFEGEN}' policy explain baseline | true",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert piped.stdout == "{\n"
    assert piped.stderr == ""


def test_a_terminal_without_our_signs_gets_something(world: World) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    checked = subprocess.run(
        [SAFEGEN, "check", "people.csv"], capture_output=True, cwd=world.place, env=env, timeout=60
    )
    assert checked.returncode == 0, checked.stderr
    assert b"ADMITTED" in checked.stdout
    told = subprocess.run(
        [SAFEGEN, "check", "people.csv", "--json"],
        capture_output=True,
        cwd=world.place,
        env=env,
        timeout=60,
    )
    assert json.loads(told.stdout)["allowed"] is True
