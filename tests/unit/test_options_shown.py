"""What a backend lets you set is shown in words, with limits and defaults as `--set` takes them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from safegen.cli.backends import described
from safegen.contracts import BackendOptions


class Options(BackendOptions):
    epochs: int = Field(300, ge=1, le=9_999, description="Passes over the rows.")
    rate: float = Field(2e-4, gt=0, description="Of learning.")
    widths: tuple[int, ...] = Field((256, 256), description="Of the layers.")
    sampler: Literal["ddim", "ddpm"] = "ddim"
    folder: str = Field(description="Where it is.")
    column: str | None = Field(None, description="Of prompts.")
    by_name: dict[str, float] = Field(default_factory=dict, description="A number each.")


def test_options_are_shown_in_words() -> None:
    assert described(Options) == {
        "epochs": ("whole number, ≥ 1, ≤ 9999", "300", "Passes over the rows."),
        "rate": ("number, > 0", "0.0002", "Of learning."),
        "widths": ("list of whole number", "[256, 256]", "Of the layers."),
        "sampler": ("ddim or ddpm", '"ddim"', ""),
        "folder": ("text", "needed", "Where it is."),
        "column": ("text or null", "null", "Of prompts."),
        "by_name": ("mapping of text to number", "{}", "A number each."),
    }
