"""`safegen ledger list|show|verify`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from safegen.cli.output import JsonOption, LedgerOption, say, show, show_json, table
from safegen.errors import UsageError, VerificationError

app = typer.Typer(help="What was attested, released and decided.", no_args_is_help=True)


@app.command("list")
def list_(
    ledger: LedgerOption = None,
    decisions: Annotated[
        bool, typer.Option("--log", help="The log's entries instead of the datasets.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """List the datasets that the ledger knows, or the entries of its log."""
    from safegen.ledger import open_ledger

    books = open_ledger(ledger, create=False)
    if decisions:
        entries: list[dict[str, Any]] = [
            {"seq": e.seq, "time": e.time, "kind": e.kind, "what": _what(e.payload)}
            for e in books.log()
        ]
        if as_json:
            show_json(entries)
        else:
            table(
                (str(e["seq"]), f"{e['time'][:19]}  {e['kind']:<11} {e['what']}") for e in entries
            )
        return 0
    records = list(books.records())
    if as_json:
        show_json([r.manifest for r in records])
        return 0
    if not records:
        say(f"{books.url}: no datasets yet")
    table(
        (
            r.dataset_id,
            f"{r.created[:16]}  {r.statement}: {r.origin}, {r.ancestry}, depth "
            f"{r.effective_depth:.3g}, {r.rows:,} rows",
        )
        for r in records
    )
    return 0


def _what(payload: dict[str, object]) -> str:
    if "allowed" in payload:
        policy = payload.get("policy")
        name = policy.get("id") if isinstance(policy, dict) else ""
        return (
            f"{'allowed' if payload['allowed'] else 'REFUSED'} at {payload.get('gate')} by {name}"
        )
    return str(payload.get("dataset_id") or payload.get("digest") or "")


@app.command("show")
def show_(
    dataset_id: Annotated[str, typer.Argument(help="A dataset's id.")],
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show the manifest that the ledger keeps of a dataset."""
    from safegen.ledger import open_ledger
    from safegen.manifest import Manifest, canonical_bytes

    record = open_ledger(ledger, create=False).get(dataset_id)
    if record is None:
        raise UsageError(f"the ledger knows no dataset {dataset_id!r}")
    if as_json:
        show_json(record.manifest)
    else:
        table(Manifest.from_bytes(canonical_bytes(record.manifest), "the record").facts())
    return 0


@app.command()
def verify(ledger: LedgerOption = None, as_json: JsonOption = False) -> int:
    """Check the log's hash chain and every record against it: exit code 0, or 4."""
    from safegen.ledger import open_ledger

    books = open_ledger(ledger, create=False)
    problems = books.verify()
    if as_json:
        show_json({"verified": not problems, "problems": problems, **books.state()})
    if problems:
        raise VerificationError([f"{books.url}: {p}" for p in problems])
    if not as_json:
        state = books.state()
        show(f"VERIFIED {books.url}: {state['log_entries']:,} entries, head {state['head'][:16]}…")
    return 0
