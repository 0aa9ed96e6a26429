"""What is said about a mistake in a policy: nearest names, and pydantic's errors in our words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

__all__ = ["dotted", "did_you_mean", "said"]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A clause that names the nearest known word, or all of them where none is near."""
    words = list(known)
    # Case is the commonest slip, and difflib counts every capital as a different letter.
    near = get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(words)}"


def dotted(path: Iterable[str | int]) -> str:
    """A path as people write it: `waivers[0].expires`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def said(error: ErrorDetails, model: type[BaseModel]) -> str:
    """One pydantic error about a `model` in the words of a policy file, without its path."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        *above, key = error["loc"]
        return f"unknown key {key!r}, {did_you_mean(str(key), _fields(model, above))}"
    if kind == "missing":
        *above, key = error["loc"]
        field = _fields(model, above).get(str(key))
        return f"is missing{f': {field.description}' if field and field.description else ''}"
    if kind == "string_type" and isinstance(value, int | float):
        return f"has to be text: put it in quotes, {str(value)!r}"
    if kind == "string_pattern_mismatch" and not str(value).strip():
        return "may not be empty"
    if kind == "literal_error":
        return f"has to be {context['expected']}, not {_short(value)}"
    text = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{text[:1].lower()}{text[1:]} (it is {_short(value)})"


def _fields(model: type[BaseModel], path: Iterable[str | int]) -> Mapping[str, FieldInfo]:
    """The fields of the model at a path inside another."""
    for part in path:
        if not isinstance(part, int):  # the models of a list are those of its field
            model = _inner(model.model_fields[part].annotation) or model
    return model.model_fields


def _inner(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation names, in a list or an option of it, too."""
    if hasattr(annotation, "model_fields"):
        return annotation  # type: ignore[no-any-return]
    return next((m for a in get_args(annotation) if (m := _inner(a)) is not None), None)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
