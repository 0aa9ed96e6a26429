"""A pipeline's files: what may be in its folder, its digest, and opening it without a network."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from safegen.backends.undisturbed import failing
from safegen.errors import UsageError

__all__ = ["arguments", "folder_digest", "opened_pipeline"]

_INDEX = "model_index.json"
_CODE = (
    ".bin",
    ".ckpt",
    ".pt",
    ".pth",
    ".pkl",
    ".pickle",
    ".npy",
    ".npz",
    ".h5",
    ".msgpack",
    ".py",
)
_LIBRARIES = ("diffusers", "transformers")

MAX_FILES = 10_000
MAX_BYTES = 1 << 40
"""Of a pipeline: the largest have a thousandth of the files and a tenth of the bytes."""


def folder_digest(place: Path) -> str:
    """SHA-256 over the names and contents of all files of a pipeline's folder, or of one file.

    Raises: UsageError when it is not there, is no pipeline, has more than `MAX_FILES` files or
    `MAX_BYTES`, or holds what can run code: pickles and Python.
    """
    if place.is_file():
        files, root = [place], place.parent
    elif not place.exists():
        raise UsageError(f"{place}: no such file or folder")
    elif not (place / _INDEX).is_file():
        raise UsageError(f"{place}: not a diffusers pipeline (no {_INDEX} in it)")
    else:
        below = list(islice(place.rglob("*"), MAX_FILES + 1))
        if len(below) > MAX_FILES:
            raise UsageError(f"{place}: not a diffusers pipeline (more than {MAX_FILES:,} files)")
        files, root = sorted(p for p in below if p.is_file()), place
    if sum(p.stat().st_size for p in files) > MAX_BYTES:
        raise UsageError(f"{place}: more than {MAX_BYTES >> 30:,} GiB, and a pipeline has less")
    unsafe = [p.name for p in files if p.name.lower().endswith(_CODE)]
    if unsafe:
        raise UsageError(
            f"{place}: {len(unsafe):,} files are code or pickles ({', '.join(unsafe[:3])}), which "
            "can do anything when they are read: keep the .safetensors only"
        )
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").digest()
        digest.update(path.relative_to(root).as_posix().encode() + b"\x00" + content)
    return "sha256:" + digest.hexdigest()


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Inside, Hugging Face's libraries ask no server for anything."""
    from huggingface_hub import constants

    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "DISABLE_TELEMETRY")
    before = {name: os.environ.get(name) for name in names}
    offline = constants.HF_HUB_OFFLINE
    os.environ.update(dict.fromkeys(names, "1"))
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def opened_pipeline(folder: Path) -> Any:
    """The pipeline in a folder: classes of diffusers and transformers only, weights of safetensors.

    Raises: UsageError for a folder that is none; BackendError when diffusers cannot open it.
    """
    import diffusers

    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        family = index["_class_name"]
        parts = {k: v for k, v in index.items() if not k.startswith("_") and isinstance(v, list)}
        libraries = {str(library) for library, _ in parts.values() if library is not None}
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{folder}: not a diffusers pipeline ({_INDEX} cannot be read)") from None
    if not isinstance(family, str) or not hasattr(diffusers, family):
        raise UsageError(f"{folder}: its pipeline class is not one of diffusers'")
    foreign = sorted(n for n in libraries - set(_LIBRARIES) if not hasattr(diffusers.pipelines, n))
    if foreign:
        raise UsageError(f"{folder}: parts of it are code of others ({', '.join(foreign)})")
    library: Any = diffusers
    with failing("opening the pipeline", "diffusers"), _offline():
        pipe = getattr(library, family).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def arguments(pipe: Any, wanted: dict[str, Any], prompted: bool) -> dict[str, Any]:
    """The arguments of a call that were asked for. Raises: UsageError for a pipeline that takes
    no such argument, needs others, or is told prompts that it does not take."""
    known = inspect.signature(type(pipe).__call__).parameters
    family = type(pipe).__name__
    if prompted != ("prompt" in known):
        hint = "leave prompt_column out" if prompted else "say which prompt_column"
        raise UsageError(f"{family} takes {'no ' if prompted else ''}prompts: {hint}")
    given = {name: value for name, value in wanted.items() if value is not None}
    unknown = [name for name in given if name not in known]
    needed = [
        p.name
        for p in known.values()
        if p.default is p.empty
        and p.name not in ("self", "prompt")
        and p.kind == p.POSITIONAL_OR_KEYWORD
    ]
    if unknown or needed:
        raise UsageError(
            f"{family} takes no {', '.join(unknown)}"
            if unknown
            else f"{family} needs {', '.join(needed)}: text-to-image and unconditional ones only"
        )
    return given
