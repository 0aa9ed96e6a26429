"""One real dataset for all attacks, made once, with every folder of the user's kept out of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from forging import World

import safegen
from safegen.demo import place_data

REAL_ROWS = 8_000
RELEASED_ROWS = 3_000


def _real_rows(folder: Path) -> pd.DataFrame:
    place, _ = place_data(folder)
    frame = pd.read_csv(place) if place.suffix == ".csv" else pd.read_parquet(place)
    return frame.sample(min(REAL_ROWS, len(frame)), random_state=1).reset_index(drop=True)


def _live_in(home: Path, patch: pytest.MonkeyPatch) -> None:
    for folder in ("DATA", "CONFIG", "CACHE"):
        patch.setenv(f"XDG_{folder}_HOME", str(home / folder.lower()))


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all attacks: what was released in one test is known in the next."""
    return tmp_path_factory.mktemp("home-of-attacks")


@pytest.fixture(autouse=True)
def _same_home(_home: None, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _live_in(home, monkeypatch)


@pytest.fixture
def own_home(
    _same_home: None, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home of its own, for what other attacks are not to find in their ledger."""
    _live_in(tmp_path_factory.mktemp("home"), monkeypatch)


@pytest.fixture(scope="session")
def world(home: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Attested real rows, a fitted and saved generator, and its release."""
    place = tmp_path_factory.mktemp("world")
    real = place / "real.parquet"
    _real_rows(place / "whole").to_parquet(real)
    with pytest.MonkeyPatch.context() as patch:
        _live_in(home, patch)
        safegen.attest(real, by="an attack test")
        generator = safegen.Generator("sdv.gaussian_copula", policy="baseline").fit(real)
        model = generator.save(place / "model")
        released = generator.generate(RELEASED_ROWS, place / "released")
    return World(real, generator, model, released)


@pytest.fixture(scope="session")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key; its public half is beside it."""
    from safegen.manifest import new_key

    path = tmp_path_factory.mktemp("keys") / "ours"
    new_key(path)
    return path


@pytest.fixture(scope="session")
def other_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody else's private key."""
    from safegen.manifest import new_key

    path = tmp_path_factory.mktemp("keys") / "theirs"
    new_key(path)
    return path


@pytest.fixture
def no_ledger(_same_home: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another machine: nobody's ledger is there."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    return tmp_path / "elsewhere"
