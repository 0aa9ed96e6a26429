"""Commands about data that is there: check, verify, sign, attest, inspect, lineage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from safegen.cli.output import (
    JsonOption,
    KeyOption,
    LedgerOption,
    PolicyOption,
    SourcesArgument,
    TrustedKeysOption,
    parse_sources,
    printable,
    say,
    show,
    show_decision,
    show_json,
    table,
)
from safegen.errors import UsageError, VerificationError

SourceArgument = Annotated[str, typer.Argument(help="A data file or folder.")]
FolderArgument = Annotated[str, typer.Argument(help="A dataset's folder.")]


def add_to(app: typer.Typer) -> None:
    for command in (check, verify, sign, attest, inspect, scan, lineage, export):
        app.command()(command)


def check(
    sources: SourcesArgument,
    policy: PolicyOption = "training",
    ledger: LedgerOption = None,
    power: Annotated[
        float | None,
        typer.Option(
            help="Look at random rows only: enough to find such a share of released rows (0.001: "
            "one in a thousand) with a chance of 99.9 %. Attestations are then not looked up."
        ),
    ] = None,
    format: Annotated[
        str, typer.Option("--format", help="text, json, junit or sarif, on stdout.")
    ] = "text",
    fail_on: Annotated[
        str, typer.Option("--fail-on", help="block, or warn: exit code 3 for warnings, too.")
    ] = "block",
    as_json: JsonOption = False,
) -> int:
    """Say whether a policy admits data for training: exit code 0, or 3 when it does not."""
    from safegen.access import check as check_
    from safegen.exports.decisions import VERDICTS, verdict

    if fail_on not in ("block", "warn"):
        raise UsageError(f"--fail-on is block or warn, not {fail_on!r}")
    known = ("text", "json", *VERDICTS)
    if format not in known:
        raise UsageError(f"--format is one of {', '.join(known)}, not {format!r}")
    decision = check_(*parse_sources(sources), policy=policy, ledger=ledger, power=power)
    if format in VERDICTS:
        show(verdict(decision, format, fail_on=fail_on))
    else:
        show_decision(decision, as_json or format == "json")
    return 3 if not decision.allowed or (fail_on == "warn" and decision.warnings) else 0


def verify(
    folder: FolderArgument,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also Merkle proofs, the rows' digest and counts.")
    ] = False,
    trusted_key: TrustedKeysOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check every file of a dataset against its manifest: exit code 0, or 4."""
    from safegen.dataset import existing_ledger, inspect_folder

    try:
        verified = inspect_folder(
            folder, trusted_key or None, deep=deep, ledger=existing_ledger(ledger)
        )
    except VerificationError as error:
        if as_json:
            show_json({"verified": False, "problems": [str(p) for p in error.problems]})
        raise
    if as_json:
        show_json(
            {
                "verified": True,
                "signed_by": [k.id for k in verified.signed_by],
                "in_ledger": verified.in_ledger,
                "credentials": verified.credentials,
                "manifest": verified.manifest.document(),
            }
        )
        return 0
    files = len(verified.manifest.files)
    depth = "every byte, row and proof" if deep else "every byte"
    show(f"VERIFIED {folder}: {files} files, {depth} as the manifest says")
    show(verified.standing)
    if verified.credentials:
        show(verified.credentials)
    table(verified.manifest.facts())
    return 0


def sign(
    folder: FolderArgument,
    key: Annotated[str, typer.Option("--key", help="An Ed25519 private key.")],
    ledger: LedgerOption = None,
) -> int:
    """Sign a dataset that verifies (in-toto statement in a DSSE envelope, Ed25519)."""
    from safegen.dataset import sign as sign_

    verified = sign_(folder, key, ledger=ledger)
    show(f"{folder}: {verified.standing}")
    return 0


def attest(
    source: SourceArgument,
    by: Annotated[str, typer.Option("--by", help="The person who states it.")],
    origin: Annotated[str, typer.Option("--origin", help="real, synthetic or mixed.")] = "real",
    tool: Annotated[
        str | None, typer.Option("--tool", help="What made rows that are synthetic.")
    ] = None,
    decoys: Annotated[
        str | None,
        typer.Option(
            "--decoys",
            help="Other rows of the tool's same model that nobody was given: with them parts and "
            "edited rows of its output are known again.",
        ),
    ] = None,
    source_uri: Annotated[
        str | None, typer.Option("--source-uri", help="Where the data came from.")
    ] = None,
    license: Annotated[str | None, typer.Option("--license", help="SPDX id or name.")] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", help="Last day that it counts, 2027-12-31.")
    ] = None,
    ledger: LedgerOption = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> int:
    """State where data comes from, under your name, in the ledger and beside the file."""
    from typing import cast

    from safegen.manifest.model import Origin
    from safegen.statements import attest as attest_

    if origin not in ("real", "synthetic", "mixed"):
        raise UsageError("--origin is real, synthetic or mixed")
    manifest = attest_(
        source,
        cast(Origin, origin),
        by=by,
        tool=tool,
        decoys=decoys,
        source_uri=source_uri,
        license=license,
        expires=expires,
        ledger=ledger,
        key=key,
    )
    if as_json:
        show_json(manifest.document())
    else:
        table(manifest.facts())
    return 0


def inspect(
    source: SourceArgument, ledger: LedgerOption = None, as_json: JsonOption = False
) -> int:
    """Show what is known about data: digests, origin, depth and every piece of evidence."""
    from safegen.dataset import existing_ledger
    from safegen.lineage.evidence import resolve
    from safegen.tables.sources import read_source

    opened = read_source(source)
    facts = resolve(opened, existing_ledger(ledger))
    if as_json:
        document = facts.to_json()
        for keyed in ("lookups", "parts"):  # nobody's business outside the ledger
            document.pop(keyed)
        show_json(document)
        return 0
    rows: list[tuple[str, str]] = [
        ("source", facts.uri),
        (
            "tables",
            "; ".join(f"{n}: {len(b.schema.names)} columns" for n, b in opened.tables.items()),
        ),
        ("rows", f"{facts.rows:,}"),
        ("origin", f"{facts.origin}, ancestry {facts.ancestry}"),
        (
            "depth",
            f"{facts.depth}{' or more' if facts.depth_is_lower_bound else ''} "
            f"(effective {facts.effective_depth:.3g}); {facts.synthetic_share:.1%} synthetic",
        ),
        ("logical digest", facts.logical_digest),
    ]
    rows += [("evidence", f"{e.ring}: {e.text}") for e in facts.evidence]
    if not facts.evidence:
        rows.append(("evidence", "none found, which does not make it real"))
    rows += [("problem", p) for p in facts.problems]
    if facts.search is not None:
        least, known = facts.search["least"], facts.search["datasets"]
        share = "none has columns like these" if least is None else f"from {least:.2%} of rows on"
        rows.append(("searched", f"{known:,} registered release{'s' * (known != 1)}: {share}"))
    table(rows)
    return 0


def scan(
    folder: Annotated[str, typer.Argument(help="A folder; everything below it is looked at.")],
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> int:
    """List every data file and dataset below a folder, and what is known of each."""
    from safegen.dataset import existing_ledger
    from safegen.lineage.scanning import scan as scan_

    found: list[dict[str, Any]] = []
    for one in scan_(folder, existing_ledger(ledger)):
        facts = one.facts
        if not as_json:
            show(f"{printable(one.path)}  {printable(one.said)}")
        found.append(
            {
                "path": one.path,
                "problem": one.problem,
                **(
                    {}
                    if facts is None
                    else {
                        "origin": facts.origin,
                        "ancestry": facts.ancestry,
                        "rows": facts.rows,
                        "synthetic_share": facts.synthetic_share,
                        "effective_depth": facts.effective_depth,
                        "dataset_id": facts.dataset_id,
                        "evidence": [e.to_json() for e in facts.evidence],
                        "problems": list(facts.problems),
                    }
                ),
            }
        )
    if as_json:
        show_json(found)
    elif not found:
        say(f"{folder}: no data file that safegen reads")
    return 0


def lineage(
    source: SourceArgument, ledger: LedgerOption = None, as_json: JsonOption = False
) -> int:
    """Draw what a dataset was made from and what was made from it, as far as anything knows."""
    from safegen.cli.tree import branches, draw
    from safegen.dataset import existing_ledger
    from safegen.lineage.descent import Descent
    from safegen.lineage.documents import statements_at
    from safegen.lineage.evidence import resolve
    from safegen.tables.sources import read_source

    books = existing_ledger(ledger)
    record = books.get(source) if books is not None and not Path(source).exists() else None
    if record is not None:
        descent = Descent(books)
        tree = descent.ancestors({"dataset_id": record.dataset_id})
    else:
        opened = read_source(source)
        descent = Descent(books, statements_at(opened))
        tree = descent.ancestors_of(resolve(opened, books))
    made = descent.descendants(tree)
    if as_json:
        name = "made_from_it"
        show_json({**tree.to_json("sources"), name: made.to_json(name)[name]})
        return 0
    draw(tree)
    if made.nodes:
        show("\nmade from it:")
        branches(made)
    return 0


def export(
    folder: FolderArgument,
    format: Annotated[
        str, typer.Option("--format", help="croissant, openlineage, cyclonedx or card.")
    ],
    trusted_key: Annotated[
        list[str] | None,
        typer.Option("--trusted-key", help="A public key that must have signed it. Repeatable."),
    ] = None,
    ledger: LedgerOption = None,
) -> int:
    """Print a verified dataset's manifest in the words of another standard."""
    from safegen.dataset import existing_ledger, inspect_folder
    from safegen.exports import exported

    verified = inspect_folder(folder, trusted_key or None, ledger=existing_ledger(ledger))
    show(exported(verified.manifest, format).rstrip("\n"))
    return 0
