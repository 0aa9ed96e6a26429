"""The pages in docs/ say what the program does, and their links lead somewhere."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import typer

from safegen import plugins
from safegen.cli import app
from safegen.cli.backends import described
from safegen.manifest.model import GeneratorEntry, Manifest
from safegen.tables.declared import ColumnKind, Role
from safegen.tables.schema import infer_schema, read_declared

TOP = Path(__file__).parents[2]
DOCS = TOP / "docs"
PAGES = sorted([*TOP.glob("*.md"), *DOCS.rglob("*.md")])


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def test_every_command_and_option_is_described() -> None:
    described = {
        command: set(re.findall(r"(?<=[` ])--?[a-z][a-z-]*", options))
        for command, options in re.findall(
            r"^\| `safegen ([a-z ]+)`[^|]*\|[^|]*\|([^|]*)\|$",
            page("command-line.md"),
            re.MULTILINE,
        )
    }
    assert described == dict(_commands(typer.main.get_command(app), ()))


def _commands(command: Any, path: tuple[str, ...]) -> list[tuple[str, set[str]]]:
    inner = getattr(command, "commands", None)
    if inner is not None:
        return [found for n, c in inner.items() for found in _commands(c, (*path, n))]
    named = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    return [(" ".join(path), {o for o in named if o.startswith("-")} - {"--help", "-h"})]


def test_every_manifest_field_is_described() -> None:
    text = page("manifest.md")
    fields = re.findall(r"^\| `([a-z_]+)` \|", text.split("## In the rows")[0], re.MULTILINE)
    assert fields == [f.alias or n for n, f in Manifest.model_fields.items()]
    [generator] = re.findall(r"^\| `generator` \| ([^|]+)", text, re.MULTILINE)
    assert set(GeneratorEntry.model_fields) <= set(re.findall(r"`([a-z_]+)`", generator))


def test_every_backend_is_described() -> None:
    text = page("backends.md")
    shown = dict(re.findall(r"^\| `([a-z_.]+)` \|.*\| ([\d,]+) [a-z]+ \|", text, re.MULTILINE))
    ours = {n: plugins.load(plugins.BACKENDS, n) for n in plugins.names(plugins.BACKENDS)}
    assert {n: int(rows.replace(",", "")) for n, rows in shown.items()} == {
        n: b.block_rows for n, b in ours.items() if b.__module__.startswith("safegen.")
    }
    for word in (*ColumnKind.__args__, *Role.__args__):  # type: ignore[attr-defined]
        assert f"`{word}`" in text


def test_every_option_is_described() -> None:
    script = runpy.run_path(str(DOCS / "options.py"))
    assert page("options.md") == script["page"](), "run `make docs`"
    for name in plugins.names(plugins.BACKENDS):
        for option, (_, _, text) in described(plugins.load(plugins.BACKENDS, name).Options).items():
            assert text.endswith("."), f"{name}: {option} has no description"


def test_the_schema_example_is_read(tmp_path: Path) -> None:
    import pyarrow as pa

    [example] = re.findall(r"```yaml\n(.*?)```", page("backends.md"), re.DOTALL)
    (tmp_path / "roles.yaml").write_text(example, encoding="utf-8")
    declared = read_declared(tmp_path / "roles.yaml")["*"]
    ages = pa.array([30, 40])
    table = pa.table({n: ages if n == "age" else pa.array(["a", "b"]) for n in declared})
    schema = infer_schema(table, declared)
    assert (schema.target, schema.entity) == ("income", "person_id")
    assert schema.column("email").kind == "personal"


def test_the_backend_example_runs() -> None:
    [example] = re.findall(r"```python\n(.*?)```", page("backends.md"), re.DOTALL)
    exec(compile(example, "backends.md", "exec"), {})


def test_every_decision_is_in_the_index_and_complete() -> None:
    index = page("index.md")
    for path in sorted((DOCS / "decisions").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        number = path.name[:4]
        assert f"| [{number}](decisions/{path.name}) |" in index
        assert text.startswith(f"# {number} ")
        for part in ("## Context", "## Decision", "## Alternatives", "## Consequences"):
            assert part in text, f"{path.name} has no {part}"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.relative_to(TOP).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        there = path.parent / file if file else path
        assert there.exists(), f"{path.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {h.lower().replace(" ", "-") for h in headings}
