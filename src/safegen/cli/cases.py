"""`safegen policy test`: the cases that policy files hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli.output import JsonOption, printable, say, show, show_json
from safegen.errors import PolicyError, Problem

if TYPE_CHECKING:
    from safegen.trials import Trial

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    app.command("test")(run_cases)


def run_cases(
    files: Annotated[list[str], typer.Argument(help="Policy files, or shipped names.")],
    as_json: JsonOption = False,
) -> int:
    """Run the cases (`tests:`) in policy files: exit code 0, or 1 where a policy says otherwise."""
    from safegen.trials import trials

    done: list[Trial] = []
    wrong: list[Problem] = []
    for file in files:
        try:
            found = trials(file)
        except PolicyError as error:
            wrong += error.problems
            continue
        done += found
        if not found and not as_json:
            say(f"{file}: it has no cases (tests)")
    if wrong:
        raise PolicyError(wrong)
    failed = [trial for trial in done if trial.problem is not None]
    if as_json:
        show_json([_document(trial) for trial in done])
        return 1 if failed else 0
    for trial in failed:
        placed = trial.placed
        show(printable(f"{placed.file}:{placed.expects}: {placed.case.name}: {trial.problem}"))
        for reason in trial.decision.reasons:
            finding = reason.finding
            told = f"observed {finding.observed}; required {finding.required}"
            show(printable(f"    {finding.name} ({reason.severity}, {finding.status}): {told}"))
    cases = f"{len(done)} {'case' if len(done) == 1 else 'cases'}"
    show(f"{cases}, {len(failed)} failed" if failed else f"{cases}, all as expected")
    return 1 if failed else 0


def _document(trial: Trial) -> dict[str, Any]:
    placed = trial.placed
    expect = placed.case.expect
    return {
        "file": placed.file,
        "line": placed.line,
        "name": placed.case.name,
        "passed": trial.problem is None,
        "problem": trial.problem,
        "expected": {"outcome": expect.outcome, "rules": list(expect.rules or ())},
        "got": {"outcome": trial.got, "rules": list(trial.rules)},
    }
