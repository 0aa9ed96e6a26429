"""Ray: the same dataset as on one machine, whatever happens to workers and to the driver.

One cluster, which the tests have joined as a user would have, is for all of them but one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import safegen
from safegen import plugins
from safegen.cli import main
from safegen.engines.ray import bench, crew, hiring
from safegen.engines.ray.fitting import fitted
from safegen.engines.ray.luggage import packed, unpacked
from safegen.errors import BackendError, MissingExtra, SourceError, UsageError, WorkersLost
from safegen.tables.schema import infer_schema
from safegen.testing import example_table

PARTS = 7
ROWS = (
    PARTS - 1
) * 1024 + 100  # of the backend below, under a policy that makes no more to choose from

# A backend as a package of its own, which tests tell what to do through files.
PACKAGE = '''
import os, signal, time
from pathlib import Path
from safegen.contracts import BackendOptions
from safegen.errors import SourceError
from safegen.testing.rows import Rows, RowsModel

TOLD = Path(os.environ["TOLD"])

def met(name):
    """Say which process was where; wait there while a test wants it to."""
    with open(TOLD / f"at-{name}", "a") as said:
        said.write(f"{os.getpid()}\\n")
    while (TOLD / f"hold-{name}").exists():
        time.sleep(0.02)
    if (TOLD / f"die-{name}").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    if (TOLD / f"fail-{name}").exists():
        raise ValueError("the value 4711 of a real row")

class Options(BackendOptions):
    device: str = "auto"

class Told(Rows):
    name = "told.rows"
    Options = Options

    def fit(self, tables, schemas, options, *, seed):
        met("fit")
        if (TOLD / "unusable").exists():
            raise SourceError("column job: unusable")
        return ToldModel(dict(tables), dict(schemas))

    def load(self, folder):
        found = super().load(folder)
        return ToldModel(found.tables, found.schemas)

class ToldModel(RowsModel):
    def sample(self, rows, *, seed, block, conditions=None):
        if seed == 11:  # not for decoys
            met(block)
        return super().sample(rows, seed=seed, block=block)
'''

# What a user runs: fits and generates, and says when it is interrupted how the process then is.
SCRIPT = """
import logging, os, signal, sys
sys.path[:0] = [{package!r}]
import safegen
from safegen.testing import example_table
logging.basicConfig(level=logging.INFO)
before = signal.getsignal(signal.SIGTERM), {{k: v for k, v in os.environ.items() if "RAY" not in k}}
gen = safegen.Generator("told.rows", "lab", ledger={ledger!r}).fit(example_table(600))
try:
    gen.generate({rows}, {out!r}, engine="ray", workers=2)
except KeyboardInterrupt:
    import ray
    assert not ray.is_initialized()
    after = {{k: v for k, v in os.environ.items() if "RAY" not in k}}
    assert before == (signal.getsignal(signal.SIGTERM), after)
    print("interrupted")
"""


class World:
    """The files that tell the backend what to do, and that say what it did."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.package, self.told = folder / "package", folder / "told"
        # One of the tests' libraries compiles a grammar for a second in each of Ray's processes.
        self.quick = folder / "quick"

    def path(self, *more: str) -> str:
        """A search path for Ray's processes."""
        return os.pathsep.join([str(self.quick), *more, os.environ.get("PYTHONPATH", "")])

    def tell(self, name: str) -> Path:
        path = self.told / name
        path.touch()
        return path

    def at(self, name: object) -> list[int]:
        """The processes that were at a block, in order."""
        said = self.told / f"at-{name}"
        return [int(line) for line in said.read_text().split()] if said.exists() else []

    def forget(self) -> None:
        for path in self.told.iterdir():
            path.unlink()

    def script(self, out: Path) -> list[str]:
        text = SCRIPT.format(
            package=str(self.package), ledger=str(out.parent / "l.db"), rows=ROWS, out=str(out)
        )
        return [sys.executable, "-W", "error", "-c", text]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("told"))
    info = made.package / "told-1.dist-info"
    info.mkdir(parents=True)
    made.told.mkdir()
    made.quick.mkdir()
    (made.quick / "rfc3987_syntax.py").write_text("raise ImportError")
    (made.package / "told_rows.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: told\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[safegen.backends]\ntold.rows = told_rows:Told\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(made.package))
        patch.setenv("TOLD", str(made.told))
        yield made


@pytest.fixture(scope="module")
def ray(world: World) -> Iterator[Any]:
    """A cluster that the caller has started: two CPUs, and a GPU that is none."""
    import ray

    def start() -> None:
        ray.init(
            "local",
            num_cpus=2,
            num_gpus=1,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=100 << 20,
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", world.path(str(world.package), *sys.path))
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            start()
        except Exception:  # Ray gives up after half a minute, on a machine with much to do
            start()
    yield ray
    ray.shutdown(wait_for_processes=True)


@pytest.fixture(autouse=True)
def _told_nothing(world: World) -> Iterator[None]:
    yield
    world.forget()


@pytest.fixture
def gen(ray: Any, world: World, tmp_path: Path) -> safegen.Generator:
    made = safegen.Generator("told.rows", "lab", ledger=tmp_path / "l.db").fit(example_table(600))
    world.forget()
    return made


@contextmanager
def meanwhile(do: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=do)
    thread.start()
    yield
    thread.join()


def until(there: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := there()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
    return found


def _counted(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each part that comes from Ray, whether its files come too."""
    taken, came = crew._taken, []

    def counted(answer: bench.Answer, folder: Path) -> Any:
        came.append(bool(answer.files))
        return taken(answer, folder)

    monkeypatch.setattr(crew, "_taken", counted)
    return came


def test_two_processes_and_two_ray_workers_make_the_dataset_of_one(
    ray: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = _counted(monkeypatch)
    # Under a policy that selects, marks, and prints.
    gen = safegen.Generator("told.rows", "baseline", ledger=tmp_path / "l.db")
    gen.fit(example_table(600))
    before = dict(os.environ), signal.getsignal(signal.SIGTERM), ray.nodes()
    one = gen.generate(ROWS, tmp_path / "one", workers=1)
    for number, (engine, workers) in enumerate([("local", 2), ("ray", 1), ("ray", 2)]):
        made = gen.generate(ROWS, tmp_path / f"{number}", engine=engine, workers=workers)  # type: ignore[arg-type]
        assert made.manifest.logical_digest == one.manifest.logical_digest
        assert made.manifest.measurements == one.manifest.measurements
        assert [f.rows for f in made.manifest.files] == [f.rows for f in one.manifest.files]
        assert made.to_arrow().equals(one.to_arrow())
    assert came
    assert not any(came), "files came back that could be written where they belong"
    # The cluster is its owner's, and so is this process.
    assert (dict(os.environ), signal.getsignal(signal.SIGTERM), ray.nodes()) == before
    assert ray.is_initialized()


def test_a_killed_worker_costs_its_parts_and_no_more(
    gen: safegen.Generator, world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "safegen")
    whole = gen.generate(ROWS, tmp_path / "whole", workers=1)
    world.forget()
    hold = world.tell("hold-3")

    def kill() -> None:
        # All the others are done by now but one, which waits at the worker that is held.
        until(lambda: sum(bool(world.at(block)) for block in range(PARTS)) == PARTS - 1)
        [pid] = world.at(3)
        hold.unlink()
        os.kill(pid, signal.SIGKILL)

    with meanwhile(kill):
        made = gen.generate(ROWS, tmp_path / "made", engine="ray", workers=2)
    assert made.manifest.logical_digest == whole.manifest.logical_digest
    assert [len(world.at(block)) for block in range(PARTS)] == [1, 1, 1, 2, 1, 1, 1]
    assert len(set(world.at(3))) == 2
    assert "a Ray worker was lost" in caplog.text


def test_a_part_that_kills_every_worker_ends_the_run_and_resume_goes_on(
    gen: safegen.Generator, world: World, tmp_path: Path
) -> None:
    whole = gen.generate(ROWS, tmp_path / "whole", workers=1)
    world.forget()
    die = world.tell("die-5")
    with pytest.raises(WorkersLost, match="lost 3 times"):
        gen.generate(ROWS, tmp_path / "made", engine="ray", workers=1)
    assert len(world.at(5)) == 3
    assert not (tmp_path / "made").exists()
    die.unlink()
    made = gen.generate(ROWS, tmp_path / "made", engine="ray", workers=1, resume=True)
    assert made.manifest.logical_digest == whole.manifest.logical_digest
    assert [len(world.at(block)) for block in range(6)] == [1, 1, 1, 1, 1, 4]


def test_resume_after_the_driver_was_killed(
    ray: Any, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gen = safegen.Generator("told.rows", "lab", ledger=tmp_path / "l.db").fit(example_table(600))
    whole = gen.generate(ROWS, tmp_path / "whole", workers=1)
    world.forget()
    world.tell("hold-4")
    address = ray.get_runtime_context().gcs_address
    env = {**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "token"}
    env["PYTHONPATH"] = world.path()
    driver = subprocess.Popen(world.script(tmp_path / "made"), env=env)
    [pid] = until(lambda: driver.poll() is not None or world.at(4))
    driver.kill()
    driver.wait()
    until(lambda: not Path(f"/proc/{pid}").exists())  # Ray ends a lost driver's workers
    assert not (tmp_path / "made").exists()
    world.forget()
    made = gen.generate(ROWS, tmp_path / "made", engine="ray", workers=1, resume=True)
    assert made.manifest.logical_digest == whole.manifest.logical_digest
    assert world.at(4)
    assert sum(bool(world.at(block)) for block in range(PARTS)) < PARTS


def test_ctrl_c_ends_a_cluster_of_our_own_and_leaves_the_process_as_it_was(
    world: World, tmp_path: Path
) -> None:
    world.tell("hold-4")
    mark = os.urandom(8).hex()
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY")}
    env |= {"MARK": mark, "PYTHONPATH": world.path()}
    driver = subprocess.Popen(
        world.script(tmp_path / "made"),
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: driver.poll() is not None or world.at(4))
    driver.send_signal(signal.SIGINT)
    said, errors = driver.communicate()
    assert said == "interrupted\n"
    kept = "finished parts are kept beside it"
    assert [line for line in errors.splitlines() if kept not in line] == []
    until(lambda: not _marked(mark))
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == ["l.db"]


def _marked(mark: str) -> list[str]:
    """The processes that have inherited an environment with a mark."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


def test_an_error_in_a_worker_comes_back_without_values(
    gen: safegen.Generator, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.tell("fail-2")
    with pytest.raises(BackendError, match=r"builtins\.ValueError in told_rows\.py") as caught:
        gen.generate(ROWS, tmp_path / "made", engine="ray", workers=1)
    assert "4711" not in str(caught.value)
    assert caught.value.__cause__ is None
    monkeypatch.setenv("SAFEGEN_DEBUG", "1")
    with pytest.raises(BackendError, match="4711"):
        gen.generate(ROWS, tmp_path / "made", engine="ray", workers=1)
    assert not (tmp_path / "made").exists()


def test_files_come_back_from_where_the_folder_is_not_seen(
    gen: safegen.Generator, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, came = hiring.seen, _counted(monkeypatch)

    @contextmanager
    def other(folder: Path) -> Iterator[dict[str, str]]:
        with seen(folder) as told:
            yield {**told, "text": "that of another folder of this name"}

    whole = gen.generate(ROWS, tmp_path / "whole", workers=1)
    monkeypatch.setattr(crew, "seen", other)
    made = gen.generate(ROWS, tmp_path / "made", engine="ray", workers=1)
    assert sum(came) == PARTS
    assert made.manifest.logical_digest == whole.manifest.logical_digest
    assert safegen.verify(made.path, deep=True).rows == ROWS
    # A part that is finished is not made again, though its worker cannot see that it is.
    world.forget()
    die = world.tell("die-5")
    monkeypatch.setattr(crew, "TRIES", 1)
    with pytest.raises(WorkersLost):
        gen.generate(ROWS, tmp_path / "other", engine="ray", workers=1)
    die.unlink()
    gen.generate(ROWS, tmp_path / "other", engine="ray", workers=1, resume=True)
    assert [len(world.at(block)) for block in range(6)] == [1, 1, 1, 1, 1, 2]


def test_a_worker_with_another_safegen_is_not_used(
    gen: safegen.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = plugins.version("safegen")
    versions = plugins.versions
    monkeypatch.setattr(
        hiring.plugins, "versions", lambda names: {**versions(names), "safegen": "9.9"}
    )
    with pytest.raises(BackendError, match=rf"has safegen {here} instead of 9\.9"):
        gen.generate(ROWS, tmp_path / "made", engine="ray", workers=1)


def test_json_stays_json_when_a_worker_is_lost(
    ray: Any, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow.parquet as pq

    pq.write_table(example_table(600), tmp_path / "real.parquet")
    hold = world.tell("hold-3")

    def kill() -> None:
        [pid] = until(lambda: world.at(3))
        hold.unlink()
        os.kill(pid, signal.SIGKILL)

    words = [
        "--backend",
        "told.rows",
        "--policy",
        "lab",
        "--rows",
        str(ROWS),
        "--out",
        str(tmp_path / "made"),
    ]
    words += ["--engine", "ray", "--workers", "2", "--ledger", str(tmp_path / "l.db"), "--json"]
    with meanwhile(kill), pytest.raises(SystemExit) as ended:
        main(["generate", str(tmp_path / "real.parquet"), *words])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out)["rows"] == ROWS


def test_a_fit_on_a_gpu_of_the_cluster_gives_the_model_of_a_fit_here(
    ray: Any, world: World, tmp_path: Path
) -> None:
    backend = plugins.load(plugins.BACKENDS, "told.rows")()
    tables = {"table": example_table(600)}
    schemas = {"table": infer_schema(tables["table"])}

    def saved(name: str, device: str) -> dict[str, bytes]:
        model = fitted(backend, tables, schemas, backend.Options(device=device), seed=3)
        (tmp_path / name).mkdir()
        model.save(tmp_path / name)
        return {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}

    there, here = saved("there", "auto"), saved("here", "cpu")
    assert there == here
    [elsewhere, mine] = world.at("fit")
    assert elsewhere != os.getpid() == mine

    world.tell("unusable")
    with pytest.raises(SourceError, match="column job: unusable"):
        saved("none", "auto")
    world.tell("fail-fit")
    with pytest.raises(BackendError, match="ValueError") as caught:
        saved("nothing", "auto")
    assert "4711" not in str(caught.value)


def test_a_model_that_did_not_arrive_whole_is_not_read(tmp_path: Path) -> None:
    sent, there, other = tmp_path / "sent", tmp_path / "there", tmp_path / "other"
    (sent / "deep").mkdir(parents=True)
    (sent / "deep" / "model").write_bytes(b"weights")
    (sent / "empty").write_bytes(b"")
    files = packed(sent, lambda piece: piece)
    unpacked(files, there, lambda piece: piece)
    assert (there / "deep" / "model").read_bytes() == b"weights"
    assert (there / "empty").read_bytes() == b""
    with pytest.raises(BackendError, match="deep/model did not arrive"):
        unpacked(files, other, lambda piece: piece.replace(b"w", b"W"))


def test_the_folder_of_a_killed_worker_is_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.tempfile, "tempdir", str(tmp_path))
    mine, lock = bench._own_folder()
    killed = "from safegen.engines.ray import bench; bench._own_folder()"
    subprocess.run(
        [sys.executable, "-c", killed], check=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert len(list(tmp_path.iterdir())) == 2
    other, held = bench._own_folder()
    assert sorted(tmp_path.iterdir()) == sorted([mine, other])
    for descriptor in (lock, held):
        os.close(descriptor)


def test_what_is_no_engine_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    gen = safegen.Generator("sdv.gaussian_copula")
    with pytest.raises(UsageError, match=r"local or ray, not .spark."):
        gen.fit("nowhere.csv", engine="spark")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'safegen\[ray\]'"):
        gen.fit("nowhere.csv", engine="ray")
