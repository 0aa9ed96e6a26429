"""`safegen report`: a dataset as a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli.output import LedgerOption, TrustedKeysOption, say, show
from safegen.errors import ManifestError, TargetError, UsageError, VerificationError
from safegen.places import Place, place_of

if TYPE_CHECKING:
    from safegen.manifest import Manifest
    from safegen.measure.figures import Figures

PAGE = "report.html"
_MOST = 1 << 25  # bytes of it that are read


def add_to(app: typer.Typer) -> None:
    app.command()(report)


def report(
    folder: Annotated[str, typer.Argument(help="A dataset's folder.")],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", help="The page's file. Default: FOLDER.report.html beside it."),
    ] = None,
    trusted_key: TrustedKeysOption = None,
    ledger: LedgerOption = None,
) -> int:
    """Verify a dataset and write a page about it: exit code 0, or 4 where it does not verify."""
    from safegen.dataset import existing_ledger, inspect_folder
    from safegen.lineage.descent import Descent
    from safegen.manifest import Manifest
    from safegen.pages import Standing, report, unreadable_report

    place = place_of(folder).resolve()
    target = place_of(out).resolve() if out else place.with_name(f"{place.name}.report.html")
    _check(place, target)
    books = existing_ledger(ledger)
    problems: list[str] = []
    try:
        verified = inspect_folder(place, trusted_key or None, ledger=books)
        manifest, standing = verified.manifest, Standing(True, verified.standing)
    except VerificationError as error:
        problems = [str(p) for p in error.problems]
        says = "Its files are not those that its manifest speaks of, or nobody known vouches for it"
        standing = Standing(False, f"{says}. What follows is what they claim.", tuple(problems))
        try:
            manifest = Manifest.read(place)
        except ManifestError:
            _write(target, unreadable_report(place.name, problems))
            return _said(target, problems)
    tree = Descent(books, [manifest]).ancestors({"dataset_id": manifest.dataset_id})
    _write(target, report(manifest, _figures(place, manifest), tree, standing))
    return _said(target, problems)


def _check(place: Any, target: Any) -> None:
    """Raises: UsageError for what is no folder, or for a page that would spoil one."""
    if not place.is_dir():
        raise UsageError(f"{place} is no folder; name the dataset's")
    if type(target) is type(place) and target.is_relative_to(place):
        raise UsageError("--out: a file more in its folder, and the dataset would not verify")
    if target.is_dir():
        raise UsageError(f"--out: {target} is a folder; name the page's file")


def _figures(place: Place, manifest: Manifest) -> Figures | None:
    """What the dataset's own report draws, of which everything is checked that is read."""
    from safegen.manifest.model import read_plain
    from safegen.pages import figures_in

    own = (PAGE, f"{manifest.dataset_id}/{PAGE}")  # as in a folder, and as in a store
    path, size = next(((f.path, f.bytes) for f in manifest.files if f.path in own), (PAGE, 0))
    try:
        data = read_plain(place / path, min(size, _MOST))
    except OSError:
        return None
    return figures_in(data.decode("utf-8", "replace"))


def _write(target: Place, page: str) -> None:
    from safegen.manifest.model import write_whole

    try:
        if isinstance(target, Path):
            target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, page.encode("utf-8"))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise TargetError(f"{target}: cannot be written ({reason}); choose another --out") from None


def _said(target: Place, problems: list[str]) -> int:
    show(str(target))
    for problem in problems:
        say(f"safegen: NOT VERIFIED: {problem}")
    return VerificationError.exit_code if problems else 0
