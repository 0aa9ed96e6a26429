"""A long step shows how far it is, how fast, and how long the rest takes."""

from __future__ import annotations

import io
import logging
import sys
from types import SimpleNamespace

import pytest

from safegen import progress as module
from safegen.backends.undisturbed import undisturbed
from safegen.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_the_step_the_rate_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with progress("training", 10, "epochs") as advance, undisturbed():
        for _ in range(10):
            advance(1)
    text = screen.getvalue()
    assert "training: 10 of 10 epochs" in text
    assert "epochs/s" in text
    assert "0:00 left" in text


def test_elsewhere_there_is_a_log_line_every_half_minute_also_while_libraries_are_silenced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now)
    with (
        caplog.at_level(logging.INFO, "safegen"),
        progress("training", 100, "epochs") as advance,
        undisturbed(),
    ):
        for _ in range(100):
            clock.now += 1.0
            advance(1)
        logging.getLogger("upstream").critical("what a library says")
    said = [r.getMessage() for r in caplog.records]
    assert said == [
        "training: 30 of 100 epochs, 1 epochs/s, 1:10 left",
        "training: 60 of 100 epochs, 1 epochs/s, 0:40 left",
        "training: 90 of 100 epochs, 1 epochs/s, 0:10 left",
    ]


def test_the_command_line_prints_these_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safegen.cli import _Say

    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock.now)
    log = logging.getLogger("safegen")
    monkeypatch.setattr(log, "handlers", [_Say()])
    monkeypatch.setattr(log, "level", logging.INFO)
    with progress("training", 40, "epochs") as advance, undisturbed():
        clock.now = 30.0
        advance(20)
    assert capsys.readouterr().err == "safegen: training: 20 of 40 epochs, 2 s each, 0:30 left\n"


@pytest.mark.parametrize(
    ("done", "seconds", "text"),
    [
        (0, 0.0, "x: 0 of 8 epochs"),
        (2, 400.0, "x: 2 of 8 epochs, 200 s each, 20:00 left"),
        (2, 4000.0, "x: 2 of 8 epochs, 2,000 s each, 3:20:00 left"),
        (4, 0.001, "x: 4 of 8 epochs, 4,000 epochs/s, 0:00 left"),
    ],
)
def test_rates_and_times_read_well(done: int, seconds: float, text: str) -> None:
    assert module._text("x", done, 8, "epochs", seconds) == text
