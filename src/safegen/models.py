"""A fitted model on disk: a folder whose every file is digested, and read only after the check.

`safegen.model.json` (canonical, self-digested) lists the files under `model/` and says what the
model is. Its digest is what the ledger remembers: a model that the ledger does not know may still
be read when its format carries no code, but what it says about its sources counts for nothing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safegen.contracts import Backend, Model
from safegen.errors import ManifestError, TargetError, VerificationError
from safegen.lineage.facts import SourceFacts
from safegen.manifest.canonical import canonical_bytes, digest_of, parse_canonical
from safegen.release import LOCK, MARK, lock, sweep
from safegen.tables.entries import file_entry

__all__ = ["MODEL_NAME", "ModelFolder", "read_model", "write_model"]

MODEL_NAME = "safegen.model.json"
SCHEMA = "safegen.model/v1"
_FIELDS = (
    "backend",
    "options",
    "seed",
    "schemas",
    "facts",
    "places",
    "doubts",
    "versions",
    "files",
)


@dataclass(frozen=True)
class ModelFolder:
    """A saved model whose files have been checked."""

    folder: Path
    document: Mapping[str, Any]
    digest: str

    def load(self, backend: Backend) -> Model:
        return backend.load(self.folder / "model")


def write_model(folder: Path, model: Model, document: Mapping[str, Any]) -> tuple[Path, str]:
    """Write a model to a new folder, published by one rename. Gives the folder and its digest.

    Raises: TargetError.
    """
    target = Path(os.path.abspath(folder))
    if target.exists():
        raise TargetError(f"{target} exists; a model is never overwritten")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        stage = Path(tempfile.mkdtemp(prefix=f"{MARK}model-", dir=target.parent))
        held = lock(stage / LOCK)
        assert held is not None  # nobody else knows the folder
    except OSError as error:
        raise TargetError(f"{target}: cannot be written ({error.strerror})") from None
    try:
        (stage / "model").mkdir()
        model.save(stage / "model")
        files = [
            file_entry(p, p.relative_to(stage).as_posix()).model_dump(include={"path", "sha256"})
            for p in sorted((stage / "model").rglob("*"))
            if p.is_file()
        ]
        body = {"schema": SCHEMA, **document, "files": files}
        digest = digest_of(body)
        (stage / MODEL_NAME).write_bytes(canonical_bytes({**body, "digest": digest}))
        os.chmod(stage, 0o755)
        (stage / LOCK).unlink()
        os.rename(stage, target)
    except OSError as error:
        raise TargetError(f"{target}: cannot be written ({error.strerror})") from None
    finally:
        os.close(held)
        shutil.rmtree(stage, ignore_errors=True)
    return target, digest


def read_model(folder: Path) -> ModelFolder:
    """Check a model folder; nothing of the model itself is read yet.

    Raises: VerificationError with every problem: missing, changed or extra files, an edited
    description, another schema.
    """
    path = folder / MODEL_NAME
    try:
        data = path.read_bytes()
    except OSError as error:
        raise VerificationError([f"{path}: cannot be read ({error.strerror})"]) from None
    try:
        document = parse_canonical(data, str(path))
    except ManifestError as error:
        raise VerificationError(error.problems) from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise VerificationError([f"{path}: not a model that this version reads ({SCHEMA})"])
    missing = [f for f in _FIELDS if f not in document]
    if missing:
        raise VerificationError([f"{path}: {', '.join(missing)} missing"])
    digest = digest_of({k: v for k, v in document.items() if k != "digest"})
    problems = []
    if digest != document.get("digest"):
        problems.append(f"{path}: edited (its self-digest does not match)")
    try:
        listed = {str(f["path"]): f["sha256"] for f in document["files"]}
        for facts in document["facts"]:
            SourceFacts.from_json(facts)
    except (AttributeError, KeyError, TypeError):
        raise VerificationError([f"{path}: not a description that this version wrote"]) from None
    found = {
        p.relative_to(folder).as_posix(): p
        for p in sorted(folder.rglob("*"))
        if (p.is_symlink() or not p.is_dir()) and p != path
    }
    problems += [f"{name}: missing" for name in listed if name not in found]
    for name, file in found.items():
        if file.is_symlink() or not file.is_file():
            problems.append(f"{name}: not a plain file")
        elif name not in listed:
            problems.append(f"{name}: not in the model's list")
        elif file_entry(file, name).sha256 != listed[name]:
            problems.append(f"{name}: changed")
    if problems:
        raise VerificationError([f"{folder}: {p}" for p in problems])
    return ModelFolder(folder, document, digest)
