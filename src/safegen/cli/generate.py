"""`safegen generate` and `safegen fit`."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from safegen.cli.given import json_or_text, options, pairs
from safegen.cli.output import (
    JsonOption,
    KeyOption,
    LedgerOption,
    PolicyOption,
    parse_sources,
    say,
    show,
    show_json,
    table,
)
from safegen.errors import TargetError, UsageError
from safegen.places import local

if TYPE_CHECKING:
    from safegen.decision import Decision
    from safegen.engines.named import EngineName

BackendOption = Annotated[
    str | None,
    typer.Option("--backend", "-b", help="The generator family. Default: sdv.gaussian_copula."),
]
FitSeedOption = Annotated[
    int | None, typer.Option("--fit-seed", help="Same seed, same model. Default: 7.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="A backend option as NAME=VALUE; values as JSON. Repeatable."),
]
SchemaOption = Annotated[
    str | None, typer.Option("--schema", help="YAML with column roles; the rest is inferred.")
]
EngineOption = Annotated[
    str,
    typer.Option("--engine", help="local, or ray: $RAY_ADDRESS, or a cluster of its own here."),
]

_BACKEND = "sdv.gaussian_copula"  # as in the library


def add_to(app: typer.Typer) -> None:
    app.command()(generate)
    app.command()(fit)


def _seeded(fit_seed: int | None) -> dict[str, int]:
    """The library's own default where nothing was said."""
    return {} if fit_seed is None else {"seed": fit_seed}


def _conditions(gen: Any, given: list[str] | None) -> dict[str, Any]:
    """Condition values read as their column's kind asks: text stays text."""
    from safegen.tables.schema import nearest

    kinds = {name: kind for s in gen.schemas.values() for name, kind in s.kinds.items()}
    conditions: dict[str, Any] = {}
    for name, value in pairs(given, "--condition").items():
        if name not in kinds:
            raise UsageError(f"--condition: no column {name!r}{nearest(name, list(kinds))}")
        text = value.lower() if kinds[name] == "boolean" else value
        conditions[name] = json_or_text(text) if kinds[name] in ("numeric", "boolean") else value
    return conditions


def generate(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Data files or folders; NAME=PATH for related tables."),
    ] = None,
    out: Annotated[str | None, typer.Option("--out", "-o", help="The dataset's folder.")] = None,
    rows: Annotated[int | None, typer.Option("--rows", "-n", help="How many rows.")] = None,
    backend: BackendOption = None,
    policy: PolicyOption = "baseline",
    model: Annotated[
        str | None, typer.Option("--model", help="A saved model instead of fitting one.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", "-s", help="Same seed, same rows.")] = 11,
    fit_seed: FitSeedOption = None,
    set_: SetOption = None,
    condition: Annotated[
        list[str] | None, typer.Option("--condition", help="COLUMN=VALUE for every row.")
    ] = None,
    schema: SchemaOption = None,
    ledger: LedgerOption = None,
    key: KeyOption = None,
    if_exists: Annotated[
        str, typer.Option("--if-exists", help="error, same (keep it if identical), or version.")
    ] = "error",
    workers: Annotated[
        int | None,
        typer.Option("--workers", "-w", help="Sampling processes. Default: a core each."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with what an interrupted run of the same has done."),
    ] = False,
    images: Annotated[
        str, typer.Option("--images", help="How images go out: parquet, or png files.")
    ] = "parquet",
    engine: EngineOption = "local",
    keep_report: Annotated[
        bool, typer.Option(help="Leave a page with the findings when a release is refused.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Admission, roles, time and power; no rows.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Make a synthetic dataset with its manifest from real data (or from a saved model)."""
    from safegen.generator import Generator
    from safegen.planning import plan
    from safegen.requests import MAX_ROWS
    from safegen.targets import destination

    where = _engine(engine)
    if rows is None or (out is None and not dry_run):
        raise UsageError("say how many rows (--rows N) and where they go (--out DIR)")
    if not sources and model is None:
        raise UsageError("name the data to learn from, or a fitted model (--model DIR)")
    if not 1 <= rows <= MAX_ROWS:
        raise UsageError(f"--rows is a whole number from 1 to {MAX_ROWS:,}")
    if if_exists not in ("error", "same", "version"):
        raise UsageError("--if-exists is error, same or version")
    if images not in ("parquet", "png"):
        raise UsageError("--images is parquet or png")
    form = cast(Literal["parquet", "png"], images)
    if workers is not None and workers < 1:
        raise UsageError("--workers is a whole number from 1 on")
    if model is not None and dry_run:
        raise UsageError("--dry-run forecasts a fit; a saved model (--model) is fitted already")
    fitting = {"--backend": backend, "--set": set_, "--schema": schema, "--fit-seed": fit_seed}
    said = [flag for flag, value in fitting.items() if value is not None]
    if model is not None and said:
        raise UsageError(f"{', '.join(said)}: about a fit, and a saved model (--model) is fitted")
    exists = cast(Literal["error", "same", "version"], if_exists)
    if out is not None:
        destination(out, exists, form)  # before hours of work
    found = None
    if model is not None:
        given = parse_sources(sources) if sources else None
        gen = Generator.load(model, policy=policy, source=given, ledger=ledger, key=key)
        _say_warnings(gen.decision)
    else:
        gen = Generator(backend or _BACKEND, policy, options=options(set_), ledger=ledger, key=key)
        read = parse_sources(sources or [])
        decision = gen.prepare(*read, schema=schema, **_seeded(fit_seed))
        _say_warnings(decision)
        _say_roles(gen)
        conditions = _conditions(gen, condition)
        # before hours of fitting
        gen.check_request(rows, seed=seed, conditions=conditions, images=form)
        if dry_run:
            forecast = plan(gen, rows)
            if as_json:
                show_json(dict(forecast))
            else:
                table(forecast)
            return 0
        if out is not None and if_exists == "same":
            found = gen.existing(rows, out, seed=seed, conditions=conditions or None, images=form)
        if found is None:
            gen.train(engine=where)
            _say_warnings(gen.decision, decision)  # a fit may show more: an unstable loop
    if found is None:
        with redirect_stdout(sys.stderr):  # where Ray says that it has lost a worker
            found = gen.generate(
                rows,
                cast(str, out),
                seed=seed,
                conditions=_conditions(gen, condition) or None,
                if_exists=exists,
                workers=workers,
                engine=where,
                resume=resume,
                keep_report=keep_report,
                images=form,
            )
    if as_json:
        show_json(found.manifest.document())
    else:
        show(str(found.path))
        table(found.manifest.facts())
    return 0


def fit(
    sources: Annotated[list[str], typer.Argument(help="Data files or folders.")],
    save: Annotated[str, typer.Option("--save", help="The model's folder.")],
    backend: BackendOption = None,
    policy: PolicyOption = "baseline",
    fit_seed: FitSeedOption = None,
    set_: SetOption = None,
    schema: SchemaOption = None,
    ledger: LedgerOption = None,
    engine: EngineOption = "local",
    as_json: JsonOption = False,
) -> int:
    """Admit data under a policy, fit a backend on it, and save the model."""
    from safegen.generator import Generator

    where = _engine(engine)
    if local(save, "a model").exists():
        raise TargetError(f"{save} exists; a model is never overwritten")
    gen = Generator(backend or _BACKEND, policy, options=options(set_), ledger=ledger)
    decision = gen.prepare(*parse_sources(sources), schema=schema, **_seeded(fit_seed))
    _say_warnings(decision)
    _say_roles(gen)
    path = gen.train(engine=where).save(save)
    _say_warnings(gen.decision, decision)
    if as_json:
        show_json({"model": str(path), "decision": (gen.decision or decision).to_json()})
    else:
        show(str(path))
    return 0


def _engine(name: str) -> EngineName:
    """An engine that can be used, known before hours of work."""
    from safegen.engines.named import check_engine

    check_engine(name)
    return cast("EngineName", name)


def _say_warnings(decision: Decision | None, before: Decision | None = None) -> None:
    """Say what a decision warns of, but for what was said of the one `before`."""
    said = [] if before is None else [r.finding for r in before.warnings]
    for reason in () if decision is None else decision.warnings:
        if reason.finding in said:
            continue
        say(f"warning: {reason.finding.observed}")
        if reason.finding.next_step:
            say(f"  next: {reason.finding.next_step}")


def _say_roles(gen: Any) -> None:
    """Say which columns are treated as something else than their values: ids, personal data."""
    for name, schema in gen.schemas.items():
        for column in schema.columns:
            if column.kind in ("id", "personal") or (column.inferred and column.note):
                where = column.name if len(gen.schemas) == 1 else f"{name}.{column.name}"
                how = "inferred" if column.inferred else "declared"
                note = f": {column.note}" if column.note else ""
                say(f"column {where}: {column.kind}, {column.role} ({how}){note}")
    if offered := [c.model_dump(exclude_none=True) for c in gen.offered()]:
        say("every row of the source obeys these constraints; to have every new row obey them, add")
        say(f"  --set 'constraints={json.dumps(offered)}'")
