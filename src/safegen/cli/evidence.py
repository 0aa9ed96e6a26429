"""`safegen evidence`: a folder for auditors, written and checked."""

from __future__ import annotations

from typing import Annotated

import typer

from safegen.cli.output import (
    JsonOption,
    KeyOption,
    LedgerOption,
    TrustedKeysOption,
    say,
    show,
    show_json,
    table,
)
from safegen.errors import UsageError, VerificationError


def add_to(app: typer.Typer) -> None:
    app.command()(evidence)


def evidence(
    dataset: Annotated[
        str | None,
        typer.Argument(help="A dataset's folder or id; with --verify, the folder to check."),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="All from this day on (UTC): 2026-12-01.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", help="With --since: the last day.")
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="The folder to write; none may be there.")
    ] = None,
    ledger: LedgerOption = None,
    key: KeyOption = None,
    look_in: Annotated[
        list[str] | None,
        typer.Option(
            "--look-in",
            help="A folder below which signatures and reports of datasets lie. Repeatable.",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check such a folder: exit code 0, or 4.")
    ] = False,
    trusted_key: TrustedKeysOption = None,
    as_json: JsonOption = False,
) -> int:
    """Collect what a ledger knows of a dataset, or of a time, for auditors; or check it."""
    if verify:
        if dataset is None or since or until or out or key or look_in:
            raise UsageError("--verify takes the folder to check, --trusted-key and --ledger only")
        return _verify(dataset, ledger, trusted_key, as_json)
    if (dataset is None) == (since is None) or (until is not None and since is None):
        raise UsageError(
            "name a dataset, or a time: --since DATE, and --until DATE if it has ended"
        )
    if out is None:
        raise UsageError("--out names the folder to write")
    if trusted_key:
        raise UsageError("--trusted-key is for --verify")
    from safegen.evidence.gathering import gather
    from safegen.evidence.selecting import Period
    from safegen.ledger import open_ledger
    from safegen.manifest import SigningKey

    index = gather(
        open_ledger(ledger, create=False),
        out,
        dataset=dataset,
        period=None if since is None else Period.of(since, until),
        key=SigningKey(key) if key else None,
        look_in=look_in or (),
    )
    if as_json:
        show_json(index.model_dump(mode="json", by_alias=True))
    else:
        told = index.ledger
        table(
            [
                ("evidence", f"{out}/index.html"),
                ("datasets", f"{len(index.datasets):,}, sources included"),
                ("decisions", f"{told.decisions:,}, {told.refused:,} of them refusals"),
                ("log", f"{told.entries:,} entries, up to {told.log_entries:,}"),
                ("signed by", index.signed_by or "nobody: UNSIGNED (--key KEY signs)"),
                *(("missing", one) for one in index.missing[:10]),
            ]
        )
        if len(index.missing) > 10:
            say(f"safegen: and {len(index.missing) - 10:,} more remarks, in {out}/index.html")
    for one in index.real_values:
        say(f"safegen: REAL VALUES may be in it: {one}")
    return 0


def _verify(folder: str, ledger: str | None, trusted_key: list[str] | None, as_json: bool) -> int:
    from safegen.dataset import existing_ledger
    from safegen.evidence.checking import check_evidence
    from safegen.manifest.sign import PublicKey, read_keys
    from safegen.policy.organisation import pins

    pinned = pins()
    keys = read_keys(trusted_key) if trusted_key else None
    pinned.check_keys([k.text for k in keys or ()])
    known = [PublicKey.of(text) for text in (pinned.keys or ((), ""))[0]]
    checked = check_evidence(folder, keys, existing_ledger(ledger), known=known)
    if as_json:
        show_json(
            {
                "verified": not checked.problems,
                "problems": checked.problems,
                "signed_by": [k.id for k in checked.signers],
                "compared_with_ledger": checked.compared,
            }
        )
    if checked.problems:
        raise VerificationError([f"{folder}: {p}" for p in checked.problems])
    if not as_json and checked.index is not None:
        index = checked.index
        show(f"VERIFIED {folder}: {len(index.files):,} files, {index.ledger.entries:,} log entries")
        show(checked.standing)
    return 0
