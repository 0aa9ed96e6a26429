"""`safegen ledger list|show|withdraw|descendants|export|import|copy|head|verify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli.output import (
    JsonOption,
    KeyOption,
    LedgerOption,
    TrustedKeysOption,
    group,
    say,
    show,
    show_json,
    table,
)
from safegen.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from safegen.ledger import Record

app = group("What was attested, released and decided.")


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
    _list(records)
    return 0


def _list(records: Sequence[Record]) -> None:
    table(
        (
            r.dataset_id,
            f"{r.created[:16]}  {r.statement}: {r.origin}, {r.ancestry}, depth "
            f"{r.effective_depth:.3g}, {r.rows:,} rows{_from(r)}",
        )
        for r in records
    )


def _from(record: Record) -> str:
    if record.imported_from is None:
        return ""
    return f", {'a claim of' if record.claimed else 'from'} ledger {record.imported_from[:8]}"


def _what(payload: dict[str, object]) -> str:
    if "allowed" in payload:
        policy = payload.get("policy")
        name = policy.get("id") if isinstance(policy, dict) else ""
        return (
            f"{'allowed' if payload['allowed'] else 'REFUSED'} at {payload.get('gate')} by {name}"
        )
    if "head" in payload:
        return f"{payload.get('new')} datasets of ledger {str(payload.get('ledger_id'))[:8]}"
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
def withdraw(
    dataset_id: Annotated[str, typer.Argument(help="A dataset's id.")],
    reason: Annotated[str, typer.Option("--reason", help="Why it is not to be used any more.")],
    by: Annotated[str, typer.Option("--by", help="Who withdraws it.")],
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> int:
    """Withdraw a dataset, and with it all that descends from it: verify, open and check refuse."""
    from safegen.ledger import open_ledger
    from safegen.lineage.withdrawals import descendants
    from safegen.lineage.withdrawals import withdraw as withdraw_

    books = open_ledger(ledger, create=False)
    one = withdraw_(books, dataset_id, by=by, reason=reason)
    after = descendants(dataset_id, books)
    if as_json:
        show_json({**vars(one), "descendants": [r.dataset_id for r in after]})
    else:
        show(f"withdrawn: {dataset_id}, and {len(after):,} that descend from it")
        _list(after)
    return 0


@app.command("descendants")
def descendants_(
    dataset_id: Annotated[str, typer.Argument(help="A dataset's id.")],
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> int:
    """List what was made from a dataset, and from that, as far as the ledger knows."""
    from safegen.ledger import open_ledger
    from safegen.lineage.withdrawals import descendants

    books = open_ledger(ledger, create=False)
    if books.get(dataset_id) is None:
        raise UsageError(f"the ledger knows no dataset {dataset_id!r}")
    after = descendants(dataset_id, books)
    if as_json:
        show_json([r.manifest for r in after])
    elif not after:
        say(f"nothing in {books.url} descends from {dataset_id}")
    _list([] if as_json else after)
    return 0


@app.command()
def export(
    file: Annotated[str, typer.Argument(help="The file to write; none may be there.")],
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="Only this one and what it was made from. Repeatable."),
    ] = None,
    ledger: LedgerOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> int:
    """Write what the ledger knows into a file that another ledger can import; no key is in it."""
    from safegen.ledger import open_ledger
    from safegen.ledger.exporting import export as export_
    from safegen.manifest import SigningKey

    books = open_ledger(ledger, create=False)
    done = export_(books, file, dataset or (), SigningKey(key) if key else None)
    if as_json:
        show_json(
            {
                "ledger_id": books.ledger_id,
                "datasets": done.datasets,
                "sha256": done.sha256,
                "key_files": [str(p) for p in done.key_files],
            }
        )
        return 0
    rows = [
        ("exported", file),
        ("sha256", done.sha256),
        ("ledger", books.ledger_id),
        ("datasets", f"{done.datasets:,}"),
    ]
    rows += [
        ("its keys", f"{p} (not in the file; without it, copies are not found)")
        for p in done.key_files
    ]
    table(rows)
    return 0


@app.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="What `safegen ledger export` wrote.")],
    trust: Annotated[
        str | None,
        typer.Option(
            "--trust",
            help="The public key that must have signed it: what it signs counts as stated here.",
        ),
    ] = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> int:
    """Take in what another ledger knows, all or nothing: as claims, unless its key is trusted."""
    from safegen.ledger import open_ledger
    from safegen.ledger.keys import key_file
    from safegen.lineage.receiving import receive
    from safegen.manifest import PublicKey

    books = open_ledger(ledger)
    sender, taken = receive(books, file, PublicKey.read(trust) if trust else None)
    missing = books.state()["imported_keys_missing"]
    files = sorted({str(key_file(i)) for k, i in missing.items() if k in sender.keys})
    if as_json:
        show_json({**vars(sender), **vars(taken), "key_files_missing": files})
        return 0
    claims = f"{taken.claims:,} of these: what they say is real is not, without --trust KEY.pub"
    rows = [
        ("imported", file),
        ("sha256", sender.file),
        ("ledger", f"{sender.ledger_id}, up to its entry {sender.head[:16]}…"),
        ("signed by", sender.signed_by or "nobody"),
        ("datasets", f"{taken.new:,} new here, {taken.known:,} known already"),
        ("claims", claims if taken.claims else "0 of these"),
        ("withdrawals", f"{taken.withdrawals:,} new here"),
    ]
    rows += [("missing", f"{f}: without it, copies are not found") for f in files]
    table(rows)
    return 0


@app.command()
def copy(
    to: Annotated[str, typer.Argument(help="A path or URL where no ledger is yet.")],
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> int:
    """Copy the whole ledger into another database: the same id, keys and log."""
    from safegen.ledger import open_ledger
    from safegen.ledger.copying import copy_ledger

    copied = copy_ledger(open_ledger(ledger, create=False), to)
    state = copied.state()
    if as_json:
        show_json(state)
        return 0
    table(
        [
            ("copied to", copied.url),
            ("datasets", f"{state['datasets']:,}"),
            ("head", f"entry {state['log_entries']:,} of the log, {state['head'][:16]}…"),
            ("next", "write to one of the two only: move the other one away"),
        ]
    )
    return 0


@app.command()
def head(
    file: Annotated[str, typer.Argument(help="The file to write; an older one is replaced.")],
    key: Annotated[str, typer.Option("--key", help="The private key to sign with.")],
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> int:
    """Write the log's head and what was withdrawn, signed: for machines without the ledger."""
    from safegen.ledger import open_ledger
    from safegen.lineage.heads import write_head
    from safegen.manifest import SigningKey

    done = write_head(file, open_ledger(ledger, create=False), SigningKey(key))
    if as_json:
        show_json(done.model_dump(mode="json"))
        return 0
    table(
        [
            ("signed", file),
            ("head", f"entry {done.log_entries:,} of the log, {done.head[:16]}…"),
            ("withdrawn", f"{len(done.withdrawn):,}, what descends from them included"),
        ]
    )
    return 0


@app.command()
def verify(
    ledger: LedgerOption = None,
    signed: Annotated[
        str | None,
        typer.Option("--head", help="A signed head, from which the log has to go on."),
    ] = None,
    trusted_key: TrustedKeysOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check the log's hash chain and every record against it: exit code 0, or 4."""
    from safegen.ledger import open_ledger
    from safegen.lineage.heads import head_problems
    from safegen.manifest.sign import read_keys
    from safegen.policy.organisation import pins

    keys = read_keys(trusted_key or [])
    pins().check_keys([k.text for k in keys])
    books = open_ledger(ledger, create=False)
    problems = books.verify()
    if signed is not None:
        problems += head_problems(books, signed, keys)
    if as_json:
        show_json({"verified": not problems, "problems": problems, **books.state()})
    if problems:
        raise VerificationError([f"{books.url}: {p}" for p in problems])
    if not as_json:
        state = books.state()
        show(f"VERIFIED {books.url}: {state['log_entries']:,} entries, head {state['head'][:16]}…")
    return 0
