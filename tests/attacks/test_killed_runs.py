"""Way round without meaning it: the process dies, the disk fills, the folder cannot be written."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forging import World, cli, finish, start

import safegen
from safegen.release import sweep


def _staged(folder: Path) -> list[Path]:
    return sorted(folder.glob(".safegen-staging-*"))


def _killed(world: World, out: Path, when: Callable[[Path], bool], rows: int = 3_000_000) -> None:
    """Start a long generation, and kill it without warning once `when` its staging is so far."""
    process = start("generate", "--model", world.model, "--rows", rows, "--out", out)
    try:
        end = time.monotonic() + 60
        while not any(when(p) for p in _staged(out.parent)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_a_killed_run_leaves_nothing_that_looks_like_a_dataset(
    world: World, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    _killed(world, out, lambda p: (p / "data" / "part-00000.parquet").exists())
    assert not out.exists()
    assert len(_staged(tmp_path)) == 1
    # Not found as a source, nor as a dataset.
    assert cli("check", tmp_path, "--policy", "baseline").code == 2
    assert cli("verify", _staged(tmp_path)[0]).code == 4
    # The next run beside it sweeps it and is not disturbed.
    made = world.generator.generate(200, out)
    assert _staged(tmp_path) == []
    assert cli("verify", made.path, "--deep").code == 0


def test_a_killed_run_is_gone_on_with(world: World, tmp_path: Path) -> None:
    """It ends in the dataset that was asked for, and its finished parts are not made again."""
    out = tmp_path / "out"
    _killed(world, out, lambda p: (p / "data" / "part-00003.parquet").exists(), 600_000)
    (kept,) = _staged(tmp_path)
    finished = {p.name: p.stat().st_mtime_ns for p in (kept / "data").iterdir()}
    # Another run beside it leaves it alone.
    world.generator.generate(200, tmp_path / "beside")
    assert _staged(tmp_path) == [kept]
    arguments = ("generate", "--model", world.model, "--rows", 600_000, "--out", out)
    ran = cli(*arguments, "--resume", "--workers", 2)
    assert ran.code == 0, ran.err
    made = safegen.Manifest.read(out)
    assert made.dataset_id == kept.name[-26:]
    assert made.rows == 600_000
    same = [n for n, at in finished.items() if (out / "data" / n).stat().st_mtime_ns == at]
    assert len(same) >= 3
    assert cli("verify", out, "--deep").code == 0
    assert _staged(tmp_path) == []
    assert cli(*arguments[:-1], tmp_path / "new").code == 0
    assert safegen.Manifest.read(tmp_path / "new").logical_digest == made.logical_digest


def test_a_running_neighbour_is_not_swept(world: World, tmp_path: Path) -> None:
    process = start(
        "generate", "--model", world.model, "--rows", 50_000_000, "--out", tmp_path / "a"
    )
    try:
        while not _staged(tmp_path):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        world.generator.generate(200, tmp_path / "b")
        sweep(tmp_path)
        assert _staged(tmp_path) or (tmp_path / "a").exists()
        process.send_signal(signal.SIGINT)
        ran = finish(process)
    finally:
        process.kill()
    assert ran.code == 130
    assert "nothing was published" in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "a").exists()
    if _staged(tmp_path):  # a part was finished
        assert "--resume" in ran.err
    sweep(tmp_path, "a")
    assert _staged(tmp_path) == []


def _limited(size: int) -> Callable[[], None]:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_a_file_that_cannot_grow(
    world: World, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The limit is met while rows are staged; a ledger of its own stays under it."""
    ledger = tmp_path_factory.mktemp("ledger") / "ledger.db"
    arguments = ("generate", "--model", world.model, "--rows", 600_000, "--out", tmp_path / "out")
    ran = finish(start(*arguments, "--ledger", ledger, preexec_fn=_limited(200_000)))
    assert ran.code == 1, ran.err
    assert str(tmp_path / "out") in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "out").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of half a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine mounts no disks")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(world: World, small_disk: Path) -> None:
    with pytest.raises(safegen.TargetError, match="the disk is full; nothing was published"):
        world.generator.generate(300_000, small_disk / "out")
    assert list(small_disk.iterdir()) == []
    assert world.generator.generate(500, small_disk / "out")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that not even root can write to."""
    place = tmp_path / "read-only"
    place.mkdir(mode=0o555)
    if os.geteuid() == 0:
        mount = ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "none", str(place)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("root can write everywhere here, and this machine mounts no disks")
    yield place
    if os.geteuid() == 0:
        subprocess.run(["umount", str(place)], check=True)


def test_a_folder_that_cannot_be_written(world: World, read_only: Path, tmp_path: Path) -> None:
    for out in (read_only / "out", read_only / "deep" / "down" / "out"):
        ran = cli("generate", "--model", world.model, "--rows", 100, "--out", out)
        assert ran.code == 1
        assert str(out) in ran.err
        assert "no permission" in ran.err
    assert cli("fit", world.real, "--save", read_only / "model").code == 1
    assert world.generator.generate(100, tmp_path / "out")


def test_data_that_cannot_have_a_sidecar_is_attested_in_the_ledger(
    world: World, small_disk: Path
) -> None:
    rows = small_disk / "rows.csv"
    world.rows(500, 51).to_csv(rows, index=False)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert cli("attest", rows, "--by", "an attack test").code == 0
    assert cli("check", rows, "--policy", "strict").code == 0


def test_a_fault_in_the_last_step_leaves_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safegen import release

    def fails(*paths: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch, contextlib.suppress(safegen.TargetError):
        patch.setattr(release.os, "rename", fails)
        world.generator.generate(100, tmp_path / "out")
        raise AssertionError("published")
    assert list(tmp_path.iterdir()) == []
    assert world.generator.generate(100, tmp_path / "out")
