"""A dataset's files, where they lie on this machine: whether they verify, and its report."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse

from safegen.console.contents import Contents
from safegen.console.desk import Desk, DeskOf
from safegen.console.entries import DatasetEntry
from safegen.errors import ManifestError, VerificationError
from safegen.ledger import Record
from safegen.manifest import MANIFEST_NAME, Manifest
from safegen.pages.given import items, mapping, texts

__all__ = ["Id", "both", "html", "verified"]

html = APIRouter(include_in_schema=False)

Id = Annotated[str, InPath(pattern=r"^[0-9A-HJKMNP-TV-Z]{26}$", description="A dataset's ULID.")]

_PUBLISHED = re.compile(r"[\d,]+ rows by \S+ for (.+)")
_VERIFYING = threading.Lock()


def both(desk: Desk, now: Contents, dataset_id: str) -> tuple[DatasetEntry, Record]:
    """A dataset's facts and its record. Raises: HTTPException where it is not known."""
    entry = now.datasets.get(dataset_id)
    record = desk.ledger.get(dataset_id) if entry is not None else None
    if entry is None or record is None:
        raise HTTPException(404, "the ledger knows no such dataset")
    return entry, record


def _places(desk: Desk, now: Contents, record: Record) -> list[Path]:
    """Folders of this machine in which it is, or has been, as what is recorded here says. What
    another ledger claims names no path of ours."""
    said: list[str] = []
    records = [record]
    children = now.made_from.get(record.dataset_id, ())[:20]
    records += [r for c in children if (r := desk.ledger.get(c)) is not None]
    for one in (r for r in records if r.imported_from is None):
        for source in map(mapping, items(one.manifest.get("sources"))):
            if source.get("dataset_id") == record.dataset_id:
                said += texts([source.get("uri")])
        if one is record:
            for decision in map(mapping, items(one.manifest.get("decisions"))):
                subject = texts(decision.get("subject"))
                said += [m[1] for s in subject if (m := _PUBLISHED.fullmatch(s)) is not None]
    found = dict.fromkeys(Path(s) for s in said if "://" not in s and "\0" not in s)
    return [path for path in found if _is_it(path, record.dataset_id)]


def _is_it(path: Path, dataset_id: str) -> bool:
    try:
        return (path / MANIFEST_NAME).is_file() and Manifest.read(path).dataset_id == dataset_id
    except (ManifestError, OSError, ValueError):
        return False


def verified(desk: Desk, dataset_id: str) -> dict[str, Any]:
    """Its files held against its manifest, and the manifest against the ledger; one at a time."""
    from safegen.dataset import inspect_folder

    now = desk.index.contents()
    _, record = both(desk, now, dataset_id)
    places = _places(desk, now, record)
    if not places:
        raise HTTPException(
            409,
            "no folder is recorded in which it lies on this machine; run `safegen verify` where "
            "its files are",
        )
    if not _VERIFYING.acquire(blocking=False):
        raise HTTPException(409, "another dataset is being verified; try again when that is done")
    try:
        done = inspect_folder(places[0], ledger=desk.ledger)
        return {"place": str(places[0]), "verified": True, "says": done.standing, "problems": []}
    except VerificationError as error:
        problems = [str(p) for p in error.problems]
        return {"place": str(places[0]), "verified": False, "says": "", "problems": problems}
    finally:
        _VERIFYING.release()


_REPORT_CSP = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"
)


@html.get("/datasets/{dataset_id}/report")
def report_page(desk: DeskOf, dataset_id: Id) -> HTMLResponse:
    """Its report, made anew from the ledger's manifest; no more is drawn than its own report has,
    and nothing where that may quote real values."""
    from safegen.lineage.descent import Descent
    from safegen.pages import Standing, report

    now = desk.index.contents()
    _, record = both(desk, now, dataset_id)
    try:
        manifest = Manifest.model_validate(record.manifest)
    except ValueError:
        raise HTTPException(409, "its manifest is not one that this version reads") from None
    tree = Descent(desk.ledger, [manifest]).ancestors({"dataset_id": dataset_id})
    says = "From the ledger's record: its files were not looked at for this page."
    body = report(
        manifest, _figures(_places(desk, now, record), manifest), tree, Standing(None, says)
    )
    return HTMLResponse(body, headers={"content-security-policy": _REPORT_CSP})


def _figures(places: list[Path], manifest: Manifest) -> Any:
    """What its own report draws, where that is exactly the file that the manifest lists."""
    import hashlib

    from safegen.manifest.model import read_plain
    from safegen.pages import figures_in

    listed = {f.path: f for f in manifest.files}.get("report.html")
    for place in places if listed is not None else ():
        assert listed is not None
        try:
            data = read_plain(place / listed.path, min(listed.bytes, 1 << 25))
        except OSError:
            continue
        if f"sha256:{hashlib.sha256(data).hexdigest()}" == listed.sha256:
            figures = figures_in(data.decode("utf-8", "replace"))
            return None if figures is None or figures.real_values else figures
    return None
