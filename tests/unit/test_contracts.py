"""What backends and models may have beyond what they must: read in one place, and checked."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import safegen
from safegen.contracts import adds_images, curves_of, doubts_of, identity_of, repeats
from safegen.errors import BackendError
from safegen.testing import example_table


def test_what_is_not_there_has_a_default() -> None:
    plain: Any = SimpleNamespace(reproducible=True)
    assert not adds_images(plain)
    assert (curves_of(plain), doubts_of(plain), identity_of(plain, plain)) == ({}, (), {})
    assert repeats(plain, SimpleNamespace())  # type: ignore[arg-type]
    assert not repeats(plain, SimpleNamespace(reproducible=False))  # type: ignore[arg-type]
    assert not repeats(SimpleNamespace(reproducible=False), plain)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("curves", "sound"),
    [
        ({"loss": [1.0, 0.5], "held_out.loss": [2]}, True),
        ({"loss": [float("nan")]}, False),
        ({"loss": [float("inf")]}, False),
        ({"loss": [0.0] * 1_000}, True),
        ({"loss": [0.0] * 1_001}, False),
        ({"x" * 41: [1.0]}, False),
        ({"<script>": [1.0]}, False),
        ({"loss of Jane Doe": [1.0]}, False),
        ({"loss\n": [1.0]}, False),
        ({"": [1.0]}, False),
        ({3: [1.0]}, False),
        ({"loss": ["Jane Doe"]}, False),
        ({"loss": 3}, False),
        ([1.0], False),
    ],
    ids=lambda v: str(v)[:25],
)
def test_a_manifest_takes_no_curve_that_is_none(curves: Any, sound: bool, tmp_path: Path) -> None:
    gen = safegen.Generator(ledger=tmp_path / "l.db")
    fit = type(gen._backend).fit

    def fitted(*given: Any, **more: Any) -> Any:
        model = fit(gen._backend, *given, **more)
        object.__setattr__(model, "curves", curves)
        return model

    gen._backend = SimpleNamespace(  # type: ignore[assignment]
        **{n: getattr(gen._backend, n) for n in dir(gen._backend) if n[0] != "_"} | {"fit": fitted}
    )
    if not sound:
        with pytest.raises(BackendError, match="training curves") as refused:
            gen.fit(example_table(60))
        assert "Jane" not in str(refused.value)
        return
    made = gen.fit(example_table(300)).generate(300, tmp_path / "out").manifest
    entries = [m for m in made.measurements if m["name"].startswith("training.")]
    assert {m["name"][9:]: m["values"] for m in entries} == curves
    assert all(m["method"] and m["n"] == len(m["values"]) for m in entries)
    assert "null" not in json.dumps(entries)
