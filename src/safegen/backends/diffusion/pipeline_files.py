"""A pipeline's files: what may be in its folder, its digest, and opening it without a network."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safegen.backends.undisturbed import failing
from safegen.errors import UsageError

__all__ = [
    "SCHEDULERS",
    "arguments",
    "check_noise",
    "digests_of",
    "folder_digest",
    "offline",
    "opened_pipeline",
    "reschedule",
]

_INDEX = "model_index.json"
_PLAIN = (".safetensors", ".json", ".txt", ".model", ".md", ".png", ".jpg")
_NAMES = ("license", "readme", "notice", ".gitattributes")
_LIBRARIES = ("diffusers", "transformers")

MAX_FILES = 10_000
MAX_BYTES = 1 << 40
"""Of a pipeline's folder, 1 TiB: more is no pipeline, and hashing it takes hours."""


def digests_of(folder: str, lora: str | None) -> dict[str, str]:
    """The digest of a pipeline's folder, and of the adapter's file where there is one.

    Raises: UsageError.
    """
    if not Path(folder, _INDEX).is_file():
        what = "not a diffusers pipeline" if Path(folder).exists() else "no such file or folder"
        raise UsageError(f"{folder}: {what} (it has no {_INDEX})")
    digests = {"folder": folder_digest(Path(folder))}
    if lora is not None:
        if not Path(lora).is_file() or not lora.endswith(".safetensors"):
            raise UsageError(f"lora: {lora}: not a .safetensors file")
        digests["lora"] = folder_digest(Path(lora))
    return digests


def folder_digest(place: Path) -> str:
    """SHA-256 over the names and contents of all files of a pipeline's folder, or of one file.

    Raises: UsageError when it is not there, holds what could run code (anything but safetensors,
    settings, texts and pictures), or links to other places.
    """
    try:
        files = [place] if place.is_file() else _files(place)
        if not files:
            raise UsageError(f"{place}: nothing is in it")
        unsafe = [
            path.name
            for path in files
            if path.suffix.lower() not in _PLAIN and path.name.lower() not in _NAMES
        ]
        if unsafe:
            raise UsageError(
                f"{place}: {len(unsafe):,} files may be code or pickles ({', '.join(unsafe[:3])}), "
                "which can do anything when they are read: keep the .safetensors and the settings "
                "only"
            )
        if sum(path.stat().st_size for path in files) > MAX_BYTES:
            raise UsageError(f"{place}: more than {MAX_BYTES:,} bytes")
        root = place.parent if place.is_file() else place
        digest = hashlib.sha256()
        for path in files:
            with path.open("rb") as stream:
                content = hashlib.file_digest(stream, "sha256").digest()
            digest.update(path.relative_to(root).as_posix().encode() + b"\x00" + content)
    except OSError as error:
        raise UsageError(f"{place}: cannot be read ({type(error).__name__})") from None
    return "sha256:" + digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    """All files of a folder, sorted: what diffusers could open, it could open through links too.

    Raises: UsageError for links to folders, links out of the folder, what is no file, too many.
    """
    files: list[Path] = []
    root = folder.resolve()

    def failed(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=failed, followlinks=False):
        for path in (Path(place, name) for name in folders):
            if path.is_symlink():
                raise UsageError(f"{folder}: {path.name} is a link to a folder: copy what is there")
        for path in (Path(place, name) for name in names):
            if not path.resolve().is_relative_to(root):
                raise UsageError(
                    f"{folder}: {path.name} is a link out of it: copy with the links followed, as "
                    "`cp -rL` does"
                )
            if not path.is_file():
                raise UsageError(f"{folder}: {path.name} is no file")
            files.append(path)
        if len(files) > MAX_FILES:
            raise UsageError(f"{folder}: more than {MAX_FILES:,} files: give the pipeline's own")
    return sorted(files)


@contextlib.contextmanager
def offline() -> Iterator[None]:
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


def opened_pipeline(folder: Path, **more: Any) -> Any:
    """The pipeline in a folder: classes of diffusers and transformers only, weights of safetensors.

    more: `torch_dtype` and `variant` of diffusers' `from_pretrained`.

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
    kind = getattr(diffusers, family, None) if isinstance(family, str) else None
    base: Any = diffusers.DiffusionPipeline
    if not isinstance(kind, type) or not issubclass(kind, base) or kind is base:
        raise UsageError(f"{folder}: its pipeline class is not one of diffusers'")
    foreign = sorted(n for n in libraries - set(_LIBRARIES) if not hasattr(diffusers.pipelines, n))
    if foreign:
        raise UsageError(f"{folder}: parts of it are code of others ({', '.join(foreign)})")
    library: Any = kind
    with failing("opening the pipeline", "diffusers"), offline():
        pipe = library.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, **more
        )
        pipe.set_progress_bar_config(disable=True)
    return pipe


SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "dpm++": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}


def reschedule(pipe: Any, name: str) -> None:
    """Give a pipeline another scheduler. Raises: UsageError when it does not fit the pipeline's."""
    import diffusers

    with failing("asking which schedulers fit", "diffusers"):
        fitting = {kind.__name__ for kind in pipe.scheduler.compatibles}
    if SCHEDULERS[name] not in fitting:
        known = [n for n, kind in SCHEDULERS.items() if kind in fitting]
        raise UsageError(
            f"scheduler: {name} does not fit the pipeline's {type(pipe.scheduler).__name__} "
            + (f"(these do: {', '.join(known)})" if known else "(none does): leave it out")
        )
    with failing("changing the scheduler", "diffusers"):
        pipe.scheduler = getattr(diffusers, SCHEDULERS[name]).from_config(pipe.scheduler.config)


def check_noise(pipe: Any) -> None:
    """Raises: UsageError when the pipeline's scheduler takes no `eta`: it would do nothing."""
    if "eta" not in inspect.signature(pipe.scheduler.step).parameters:
        raise UsageError(
            f"eta does nothing with the pipeline's {type(pipe.scheduler).__name__}: say "
            "scheduler=ddim, or leave it out"
        )


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
