"""Five hundred broken policy files, through every command that reads one: each ends with an exit
code of the contract, names file and line, and never shows a traceback or takes long."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from safegen.cli import app, main
from safegen.policy import Policy

FILES = 500
PARTS = 10
SECONDS = 10.0  # a command on a file that is not big takes hundredths

BASE = """\
# yaml-language-server: $schema=../docs/policy.schema.json
schema: safegen.policy/v1
id: acme/credit
version: "3.2.0"
description: >-
  For credit data: as baseline,
  but tighter.
contact: governance@acme.example
owner: Head of data governance
report: {real_values: false}

rules:
  lineage:
    severity: enforce
    max_depth: 0.0  # real rows only
    unattested: refuse
    search_share: 1e-2
  manifest: {severity: enforce, signature: optional, in_band: required}
  support:
    severity: warn
    min_real_rows: 30
    inconclusive: warn
  tails:
    severity: audit
    strata: [{column: amount, above: 10000.0}, {column: class, equals: fraud}]
  privacy: {severity: enforce, leaks: warn, held_out: 0.2}

waivers:
  - id: W-2026-014
    rule: support
    scope: "01J8*"
    params: {min_real_rows: 60}
    reason: The rare class has fewer than 200 real rows.
    ticket: GOV-4412
    requested_by: a.lee@acme.example
    approved_by: [j.doe@acme.example]
    expires: 2026-12-31

tests:
  - name: own output is refused
    given: {sources: [{origin: synthetic}]}
    expect: {outcome: refuse, rules: [lineage]}
  - name: a lost level is shown
    given: {findings: {support/levels: unmet}}
    expect: {outcome: warn, rules: [support]}
"""

CHILD = """\
schema: safegen.policy/v1
id: acme/credit/team
version: "1"
extends: {policy: baseline, digest: "DIGEST"}
locked: [support, lineage.max_depth, approvals]
approvals: {signature: required, approvers: [{name: j.doe, key: KEY}]}
rules:
  lineage: {ledger: required}
  support: {min_real_rows: 20}
  anchor:
    severity: warn
waivers:
  - {id: W-1, rule: lineage, params: {ledger: optional}, reason: r, ticket: t, requested_by: a,
     approved_by: [j.doe, b], expires: 2026-12-31, signatures: {b: SIGNATURE}}
tests:
  - name: own output is refused
    given: {sources: [{origin: synthetic}]}
    expect: {outcome: refuse, rules: [lineage]}
"""
CHILD = CHILD.replace("DIGEST", Policy.load("baseline").digest)
CHILD = CHILD.replace("KEY", f"MCowBQYDK2VwAyEA{'A' * 43}=").replace("SIGNATURE", f"{'A' * 86}==")

CASE = "  - {name: n, given: {sources: [{}]}, expect: {outcome: admit}}\n"

Chance = random.Random
Mutation = Callable[[str, Chance], "str | bytes"]

SCALARS = """\
1e-6|1e999|-1e999|.nan|.inf|-.inf|-1|0|1|2.5|010|0o8|0o17|0x1F|0xZZ|1_000|99999999999999999999
9007199254740993|-0.0|+.5|1.|.|null|~|true|no|off|Yes|2026-12-31|2026-02-30|2026-12-31T00:00:00Z
12:30:45|{}|[]|[[]]|{a: {b: 1}}|""|''|" "|"\\ud800"|"\\UFFFFFFFF"|"\\xZZ"|"\\0"|'it''s'|"open|'open
*alias|&anchor x|!!str x|!env X|!!python/object/apply:os.system [id]|!<tag:x> y|<<: *a|? complex
|\n|>|>-|- item|- - - x|{|}|[|]|@at|`tick`|%directive|,|: |#|&|*|!|a: b: c|key: [1, 2|--- |...
refuse|enforce|allow|off|baseline|lineage|../../../../etc/passwd|/dev/zero|safegen.policy/v2"""
VALUES = [v for line in SCALARS.splitlines() for v in line.split("|")] + ["|", "x" * 5000]
KEYS = ["lineage", "severity", "x", "<<", "1", "null", "extends", "locked", "waivers", "tests", "*"]


def _at(text: str, chance: Chance) -> int:
    return chance.randrange(len(text) + 1)


def _with_line(text: str, chance: Chance, change: Callable[[str], list[str]]) -> str:
    lines = text.splitlines()
    at = chance.randrange(len(lines))
    return "\n".join([*lines[:at], *change(lines[at]), *lines[at + 1 :]]) + "\n"


def _value(text: str, chance: Chance) -> str:
    """Another value for some key."""
    found = list(re.finditer(r"(?<=: )[^\n,}\]]+", text))
    spot = chance.choice(found) if found else re.compile("").match(text)
    assert spot is not None
    return text[: spot.start()] + chance.choice(VALUES) + text[spot.end() :]


def _key(text: str, chance: Chance) -> str:
    """Another name for some key: unknown, of another place, or twice."""
    found = list(re.finditer(r"[\w./]+(?=:)", text))
    spot = chance.choice(found) if found else re.compile("").match(text)
    assert spot is not None
    word = spot.group()
    other = chance.choice([*KEYS, word[:-1], word.upper(), word + "s", chance.choice(found).group()]
                          if found else KEYS)  # fmt: skip
    return text[: spot.start()] + other + text[spot.end() :]


def _section(text: str, chance: Chance) -> str:
    """A whole section of another type."""
    name = chance.choice(["rules", "waivers", "tests", "report", "schema", "lineage", "given"])
    return re.sub(
        rf"(?m)^(\s*(?:- )?){name}:.*(\n\1 .*)*",
        lambda m: f"{m[1]}{name}: {chance.choice(VALUES)}",
        text,
    )


def _bytes(text: str, chance: Chance) -> bytes:
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 5)))
            case 1:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 2:
                del data[at : at + chance.randint(1, 60)]
            case 3:
                data[at:at] = chance.choice(
                    [b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x1b[31m",
                     b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc2\x85", b"\r", b"\t", b"\x7f"]
                )  # fmt: skip
    return bytes(data)


def _encoding(text: str, chance: Chance) -> bytes:
    if chance.random() < 0.5:
        return text.replace("\n", chance.choice(["\r\n", "\r", "\n\r", "\u2028"])).encode()
    return chance.choice([b"\xef\xbb\xbf", b""]) + text.encode(
        chance.choice(["utf-8-sig", "utf-16", "utf-32", "latin-1", "utf-7"]), "replace"
    )


def _bomb(text: str, _: Chance) -> str:
    lines = ["x0: &x0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 10)]
    return text + "\n".join(lines) + "\n"


def _deep(text: str, chance: Chance) -> str:
    many = chance.choice([10, 14, 17, 100, 1000])
    nested = chance.choice(
        ["[" * many, "[" * many + "]" * many, "{a: " * many, "- " * many, "? " * many, "!" * many]
    )
    return text + f"owner: {nested}\n"


def _many(text: str, chance: Chance) -> str:
    return text + chance.choice([CASE, "  x: 1\n", "y: 1\n"]) * chance.choice([1, 5, 30])


MUTATIONS: list[Mutation] = [
    _value,
    _value,
    _key,
    _key,
    _section,
    _bytes,
    _encoding,
    _bomb,
    _deep,
    _many,
    lambda t, c: _with_line(t, c, lambda line: [line, line]),
    lambda t, c: _with_line(t, c, lambda line: []),
    lambda t, c: _with_line(t, c, lambda line: [" " * c.randint(1, 5) + line]),
    lambda t, c: _with_line(t, c, lambda line: [line.lstrip()]),
    lambda t, c: _with_line(t, c, lambda line: ["\t" + line]),
    lambda t, c: _with_line(t, c, lambda line: [line.replace(": ", ":\t").replace("  ", "\t")]),
    lambda t, c: _with_line(t, c, lambda line: [line + " " + c.choice(VALUES)]),
    lambda t, c: _with_line(t, c, lambda line: [c.choice(VALUES)]),
    lambda t, c: t[: _at(t, c)],
    lambda t, c: t[_at(t, c) :],
    lambda t, c: t[: (i := _at(t, c))] + c.choice(VALUES) + t[i:],
    lambda t, c: t + c.choice(["---\n", "...\n", "%YAML 1.1\n---\n"]) + t,
    lambda t, c: c.choice(["%YAML 1.1\n---\n", "%TAG ! x\n---\n", "--- ", "!x\n", "&a\n"]) + t,
]


def mutated(number: int, *texts: str) -> bytes:
    """One file of the five hundred: one to three mutations of a policy."""
    chance = random.Random(f"safegen policy fuzz {number}")
    text: str | bytes = chance.choice(texts or [BASE, CHILD])
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        text = chance.choice(MUTATIONS)(text, chance)
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module", autouse=True)
def _built_once() -> Iterator[None]:
    """The tree of all commands takes longer to build than most of them to run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("safegen.cli.app", typer.main.get_command(app))
        yield


def ran(*words: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main([str(w) for w in words])
    assert isinstance(ended.value.code, int)
    return ended.value.code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "base.yaml"
    path.write_text(BASE)
    return path


COMMANDS: dict[str, tuple[Callable[[Path, Path], tuple[object, ...]], set[int]]] = {
    "lint": (lambda path, base: ("policy", "lint", path), {0, 2}),
    "explain": (lambda path, base: ("policy", "explain", path, "--json"), {0, 2}),
    "test": (lambda path, base: ("policy", "test", path), {0, 1, 2}),
    "waivers": (lambda path, base: ("policy", "waivers", path), {0, 2}),
    "diff": (lambda path, base: ("policy", "diff", base, path), {0, 2, 3}),
    "diff back": (lambda path, base: ("policy", "diff", path, base, "--json"), {0, 2, 3}),
}


def check(path: Path, base: Path, *commands: str, whole: bool = False) -> dict[str, int]:
    """The exit code of each command on one file. `whole`: the fault has no line."""
    codes = {}
    for name in commands or COMMANDS:
        words, allowed = COMMANDS[name]
        start = time.perf_counter()
        code, out, err = ran(*words(path, base))
        took = time.perf_counter() - start
        shown = f"{name} {path.name}: {code}\n{out}\n{err}"
        assert code in allowed, shown
        assert "Traceback" not in out + err, shown
        assert "fault of safegen" not in err, shown
        assert took < SECONDS, f"{took:.1f} s: {shown}"
        if code == 2:
            assert out == "", shown
            problems = [p for p in err.splitlines() if str(path) in p]
            assert problems, shown
            named = [re.search(re.escape(str(path)) + r":\d+: ", p) for p in problems]
            assert whole or all(named), shown
        codes[name] = code
    assert len({code == 2 for code in codes.values()}) == 1, codes  # what one reads all read
    return codes


@pytest.mark.parametrize("part", range(PARTS))
def test_no_mutated_policy_ends_in_anything_but_an_answer(
    part: int, tmp_path: Path, base: Path
) -> None:
    """All commands on a file that is still a policy; else `lint`, and each of the others in turn,
    for all of them read a file in the same way."""
    count = FILES // PARTS
    others = [name for name in COMMANDS if name != "lint"]
    codes = []
    for number in range(part * count, (part + 1) * count):
        path = tmp_path / f"{number}.yaml"
        path.write_bytes(mutated(number))
        codes.append(check(path, base, "lint", others[number % len(others)])["lint"])
        if codes[-1] == 0:
            check(path, base)
    assert 0 < codes.count(0) < count // 2  # mutations that leave a policy a policy are few
    assert ran("policy", "schema")[0] == 0


ORGANISATION = f"""\
schema: safegen.org/v1
floor: {{policy: baseline, digest: "{Policy.load("baseline").digest}"}}
ledger: /srv/safegen/ledger.db
trusted_keys: [MCowBQYDK2VwAyEA{"A" * 43}=]
"""


def test_no_mutated_organisation_file_ends_in_anything_but_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "safegen.org.yaml"
    path.write_text(ORGANISATION)
    assert ran("policy", "lint", path)[0] == 0
    for number in range(60):
        path.write_bytes(mutated(number, ORGANISATION))
        code, out, err = ran("policy", "lint", path)
        assert code in (0, 2), err
        assert "Traceback" not in out + err
        assert code == 0 or re.search(re.escape(str(path)) + r":\d+: ", err), err


def test_the_policy_that_is_mutated_is_one(base: Path) -> None:
    assert check(base, base) == dict.fromkeys(COMMANDS, 0)
    assert ran("policy", "test", base)[1] == "2 cases, all as expected\n"


def test_the_child_that_is_mutated_is_one(tmp_path: Path, base: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text(CHILD)
    assert check(child, base)["test"] == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_what_is_no_regular_file_is_never_waited_for(tmp_path: Path, base: Path) -> None:
    """A named pipe without a writer would block, a device never end."""
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    link = tmp_path / "link.yaml"
    link.symlink_to("/dev/zero")
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "secret.yaml").write_text(BASE)
    (tmp_path / "secret.yaml").chmod(0)
    signal.alarm(30)  # SIGALRM ends the tests: better than to wait for ever
    for name in ("pipe", "link", "loop", "folder", "absent", *["secret"] * (os.geteuid() != 0)):
        assert set(check(tmp_path / f"{name}.yaml", base, whole=True).values()) == {2}
    signal.alarm(0)
    honest = tmp_path / "honest.yaml"
    honest.symlink_to(base)
    assert check(honest, base)["lint"] == 0


def test_names_that_are_no_files_are_answered(base: Path) -> None:
    for name in ("", ".", "..", "/", "a\0b.yaml", "x" * 5000 + ".yaml", "ä\udcff.yaml", "-.yaml"):
        for _, (words, _) in COMMANDS.items():
            code, out, err = ran(*words(name, base))  # type: ignore[arg-type]
            assert (code, out) == (2, ""), (name, err)
            assert "Traceback" not in err


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 250_000,
        "a: " + "{" * 100_000,
        "- " * 125_000,
        "a: 'x" + "\n\n" * 120_000,
        "? " * 120_000,
        "&a " * 80_000,
        "a: |\n" + " x\n" * 80_000,
        BASE.replace("governance@acme.example", "x" * 200_000),
        BASE + "x: 1\n" * 30_000,
        BASE + "".join(f"x{i}: 1\n" for i in range(15_000)),
        BASE + "  - x\n" * 30_000,
        BASE + CASE * 201,
        "x" * 300_000,
    ],
    ids=lambda text: repr(text[:8]),
)
def test_a_file_as_big_as_is_read_takes_seconds(text: str, tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_text(text)
    start = time.perf_counter()
    code, _, err = ran("policy", "lint", path)
    assert code == 2
    assert str(path) in err
    assert time.perf_counter() - start < 2 * SECONDS
