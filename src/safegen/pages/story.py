"""What a manifest says in words: verdict, what was asked, privacy, licences, how to repeat it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safegen.lineage.descent import Node
from safegen.manifest import Manifest
from safegen.measure.figures import Figures
from safegen.pages.gates import verdict_of
from safegen.pages.given import findings, items, mapping, texts
from safegen.pages.html import (
    SIGNS,
    breaking,
    counted,
    facts,
    number,
    section,
    sign,
    table,
    text,
    wide,
)
from safegen.pages.lineage import licences_behind

__all__ = ["Standing", "asked", "banner", "files", "licences", "privacy", "repeat", "tiles"]

_SHAPING = {"selection": "selection", "tails": "boosted tails", "watermark": "watermark"}


@dataclass(frozen=True)
class Standing:
    """What a page's dataset is worth where the page was written.

    verified: None where nobody has verified it yet, for it was just released.
    """

    verified: bool | None = None
    says: str = (
        "Written when the dataset was released. safegen verify says whether the files are still "
        "those; safegen report does, and writes this page anew."
    )
    problems: tuple[str, ...] = ()


def banner(outcome: str, strong: str, *more: str) -> str:
    """A verdict; `more` is HTML."""
    mark = f'<span class="mark {outcome}" aria-hidden="true">{SIGNS[outcome]}</span>'
    return (
        f'<div class="verdict {outcome}"><strong>{mark}{text(strong)}</strong>{"".join(more)}</div>'
    )


def unverified(standing: Standing) -> str:
    """The loudest thing on a page: the dataset is not what its manifest says."""
    listed = "".join(f"<li>{text(p)}</li>" for p in standing.problems)
    return banner(
        "block",
        "NOT VERIFIED: do not use this dataset",
        f"<p>{text(standing.says)}</p><ul>{listed}</ul>",
    )


def verdict(manifest: Manifest, standing: Standing) -> str:
    """Whether the policy let it out, and with how many warnings."""
    says = "" if standing.verified is False else f"<p>{text(standing.says)}</p>"
    if manifest.statement != "release":
        return banner("audit", f"A {manifest.statement}: a statement about data", says)
    allowed, refused, warned = verdict_of(manifest.decisions)
    policy = f"policy {manifest.policy.get('id')}" if manifest.policy else "no policy"
    if not allowed:
        return banner("block", f"Refused by {policy}: {counted(refused, 'finding')}", says)
    listed = "".join(f"<li>{text(w)}</li>" for w in manifest.warnings)
    if warned or manifest.warnings or manifest.ancestry != "attested":
        what = counted(warned, "warning") if warned else "doubts"
        if manifest.ancestry != "attested":
            what += ", of unproven ancestry"
        says = (f"<ul>{listed}</ul>" if listed else "") + says
        return banner("warn", f"Released by {policy}, with {what}", says)
    return banner("pass", f"Released by {policy}, without a warning", says)


def tiles(manifest: Manifest, standing: Standing) -> str:
    """The facts that come first."""
    depth = f"{manifest.depth}{' or more' if manifest.depth_is_lower_bound else ''}"
    known = {True: "yes", False: "NO", None: "not yet"}[standing.verified]
    found = [
        (f"{manifest.rows:,}", f"{manifest.origin} rows, {manifest.kind}"),
        (str(len(manifest.columns)), "columns"),
        (depth, f"depth; ancestry {manifest.ancestry}"),
        (manifest.generator.backend if manifest.generator else "–", "generator"),
        (known, "verified for this page"),
    ]
    shown = "".join(
        f'<div class="tile"><b>{breaking(big)}</b><span>{text(small)}</span></div>'
        for big, small in found
    )
    return f'<div class="tiles">{shown}</div>'


def asked(manifest: Manifest, figures: Figures | None) -> str:
    """What was asked for, and what came out."""
    rows: list[tuple[str, str]] = []
    if figures is not None:
        rows.append(("asked", f"{figures.asked:,} {text(figures.noun)}"))
    rows.append(("delivered", f"{manifest.rows:,} rows"))
    per_table = mapping(manifest.extra.get("table_rows"))
    if len(per_table) > 1:
        rows.append(("by table", text(", ".join(f"{k} {number(v)}" for k, v in per_table.items()))))
    conditions = texts(manifest.extra.get("conditioned_on"))
    if conditions:
        rows.append(("fixed columns", text(", ".join(conditions)) + ": the same value in each row"))
    for rule, name in _SHAPING.items():
        asked_of = mapping(manifest.safeguards.get(rule))
        if asked_of:
            rows.append((name, text(_done(asked_of.get("done")))))
    for claim in manifest.claims:
        said = f"{claim.get('definition')}: {claim.get('observed')} ({claim.get('test')})"
        rows.append(("claimed", text(said)))
    if manifest.statement == "release" and not manifest.claims:
        rows.append(("claimed", "nothing: the ancestry is not proven, or no test speaks for it"))
    return section("asked", "Asked and delivered", facts(rows))


def _done(done: Any) -> str:
    """What a rule that shapes rows did, in its own facts."""
    if not isinstance(done, Mapping):
        return "asked for, and not done"
    plain = [
        f"{k.replace('_', ' ')} {number(v) if isinstance(v, int | float) else v}"
        for k, v in done.items()
        if isinstance(v, str | int | float) and not isinstance(v, bool)
    ]
    lists = [f"{k.replace('_', ' ')}: {len(items(v))}" for k, v in done.items() if items(v)]
    return "; ".join([*plain, *lists]) or "done"


def privacy(manifest: Manifest) -> str:
    """What was looked for, and what was found; never more than that."""
    found = [
        (sign(str(f.get("outcome"))), name, f)
        for d in manifest.decisions
        for name, f in findings(mapping(d)).items()
        if name.startswith("privacy/")
    ]
    rows = [
        (f"<b>{text(name.partition('/')[2])}</b>{outcome}", text(f.get("observed", "")))
        for outcome, name, f in found
    ]
    dp = manifest.privacy.get("dp")
    said = [
        ("differential privacy", text(json.dumps(dp)) if dp else "none is claimed"),
        ("real rows copied on purpose", number(manifest.privacy.get("real_rows"))),
    ]
    tests = table("", ("looked for", "found"), rows, "passed") if rows else ""
    none = "" if rows else '<p class="note">The policy has not asked for any test of privacy.</p>'
    return section(
        "privacy",
        "Privacy",
        tests,
        none,
        facts(said),
        lead="A test that passes has not found what it looks for, at the size that it states. That "
        "does not make rows anonymous, and nothing here says so.",
    )


def licences(manifest: Manifest, tree: Node | None) -> str:
    """Under which terms the generator, the data and what it came from are."""
    rows = [("this dataset", text(manifest.license or "none is stated"))]
    if manifest.generator is not None:
        g = manifest.generator
        rows.append((f"generator {g.backend}", text(g.license)))
    behind = licences_behind(tree)
    rows += [(name, text(license)) for name, license in dict.fromkeys(behind)]
    if manifest.sources and not behind:
        rows.append(("sources", "nobody has stated a licence, as far as is known here"))
    return section("licences", "Licences", facts(rows))


def repeat(manifest: Manifest, figures: Figures | None) -> str:
    """The command that makes these rows again, and with which versions."""
    g = manifest.generator
    if g is None:
        return ""
    policy = mapping(manifest.policy)
    id_, conditions = str(policy.get("id")), texts(manifest.extra.get("conditioned_on"))
    sources = [shlex.quote(a) for a in _arguments(manifest)]
    set_ = [f"{k}={json.dumps(v)}" for k, v in g.options.items() if v is not None]
    lines = [
        f"safegen generate {' '.join(sources)}",
        f"--backend {shlex.quote(g.backend)} --policy {shlex.quote(id_)}",
        f"--fit-seed {shlex.quote(g.fit_seed)} --seed {shlex.quote(g.seed)}",
        f"--rows {figures.asked if figures is not None else manifest.rows}",
        *(f"--set {shlex.quote(one)}" for one in set_),
        *(f"--condition {shlex.quote(f'{column}=…')}" for column in conditions),
        *(["--images png"] if _as_files(manifest) else []),
        "--out DIR",
    ]
    rows = [
        ("repeats", "exactly, on a CPU" if g.reproducible else "not exactly: nobody promises it"),
        ("versions", f"<code>{text(' '.join(f'{k}=={v}' for k, v in g.versions.items()))}</code>"),
        ("policy", f"{text(id_)} <code>{text(policy.get('digest'))}</code>"),
        *(
            (f"source {s.uri}", f"{s.rows:,} rows, <code>{text(s.logical_digest)}</code>")
            for s in manifest.sources
        ),
    ]
    left = {
        "SOURCE was in memory; its digest is below.": "SOURCE" in " ".join(sources),
        "Values of conditions are not written down.": bool(conditions),
        "The watermark hangs on the ledger's key: only with that ledger do the rows come out the "
        "same.": bool(mapping(mapping(manifest.safeguards.get("watermark")).get("done"))),
        "Column roles that were declared go into --schema; the manifest has all roles.": True,
    }
    notes = " ".join(said for said, needed in left.items() if needed)
    command = " \\\n  ".join(lines)
    return section(
        "repeat",
        "How to make it again",
        f'<pre>{text(command)}</pre><p class="note">{text(notes)}</p>',
        facts(rows),
    )


def _arguments(manifest: Manifest) -> list[str]:
    """The sources as the command line takes them; SOURCE for what was in memory."""
    uris = [s.uri for s in manifest.sources]
    if manifest.kind == "tables":
        uris = [part for uri in uris for part in uri.split(";")]
    return [uri.replace("memory:", "SOURCE") for uri in uris] or ["SOURCE"]


def _as_files(manifest: Manifest) -> bool:
    """Whether images went out as files beside a table of the rest."""
    return any(f.path == "data/metadata.parquet" for f in manifest.files)


def files(manifest: Manifest) -> str:
    """What lies in the folder, by digest."""
    rows = [
        (f"<code>{text(f.path)}</code>", f"{f.bytes:,}", f"<code>{text(f.sha256)}</code>")
        for f in manifest.files[:50]
    ]
    more = len(manifest.files) - len(rows)
    listed = table("", ("file", "bytes", "digest"), rows, "num") if rows else ""
    left = f'<p class="note">and {more:,} more</p>' if more > 0 else ""
    said = facts(
        [
            ("dataset", f"<code>{text(manifest.dataset_id)}</code>"),
            ("created", text(manifest.created)),
            ("logical digest", f"<code>{text(manifest.logical_digest)}</code>"),
        ]
    )
    inside = wide("Files and their digests", listed)
    count = counted(len(manifest.files), "file")
    folded = f"<details><summary>{count}</summary>{inside}{left}</details>"
    return section("digests", "Digests", said, folded if rows else "")
