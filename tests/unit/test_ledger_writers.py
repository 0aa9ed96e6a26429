"""Many write at once, some fork, some die: one ledger, one chain, no entry lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from test_ledger import _own_home, finished, path, python

from safegen.ledger import open_ledger

__all__ = ["_own_home", "path"]  # fixtures
pytestmark = pytest.mark.usefixtures("_own_home")

WRITE_FIFTY = """
import sys
from pathlib import Path
from safegen.ledger import open_ledger
ledger = open_ledger(sys.argv[1])
for i in range(50):
    ledger.record("decision", {"writer": sys.argv[2], "i": i})
print(ledger.ledger_id, ledger.key_epochs()[0][1].hex())
"""


def test_four_processes_found_one_ledger_and_lose_no_entry(address: str) -> None:
    writers = [python(WRITE_FIFTY, address, n) for n in range(4)]
    assert len({finished(writer) for writer in writers}) == 1  # one id, one key
    ledger = open_ledger(address)
    assert ledger.state()["log_entries"] == 200
    assert ledger.verify() == []


def test_threads_share_one_ledger_object_and_lose_no_entry(address: str) -> None:
    ledger = open_ledger(address)

    def write() -> None:
        for _ in range(10):
            ledger.record("decision", {})

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.state()["log_entries"] == 40
    assert ledger.verify() == []


def test_child_forked_while_threads_write_can_write_too(address: str) -> None:
    """A child that inherits SQLite's note of another thread's lock would wait for it for ever."""
    ledger = open_ledger(address)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            ledger.record("decision", {})

    threads = [threading.Thread(target=write, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            child = os.fork()
            if child == 0:
                signal.alarm(10)
                try:
                    ledger.record("child", {})
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert sum(entry.kind == "child" for entry in ledger.log()) == 10
    assert ledger.verify() == []


REGISTER_FOR_EVER = """
import sys, itertools
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from ledger_records import a_record, digest
from safegen.ledger import open_ledger
ledger = open_ledger(sys.argv[1])
[(key, _)] = ledger.key_epochs()
for i in itertools.count():
    ledger.register(a_record(i, manifest={"x": "a" * 50_000}), {key: [digest(i)]})
"""


def test_killed_writer_leaves_a_sound_ledger(path: Path) -> None:
    ledger = open_ledger(path)
    for delay in (0.0, 0.003, 0.007):
        path.unlink()
        ledger = open_ledger(path)
        writer = python(REGISTER_FOR_EVER, path, Path(__file__).parents[1])
        while ledger.state()["log_entries"] < 5:
            assert writer.poll() is None
            time.sleep(0.005)
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert ledger.verify() == []
        state = ledger.state()
        assert state["datasets"] == state["log_entries"] >= 5
        ledger.record("decision", {})
