"""Workers on Ray's nodes as the driver sees them: engaged, found fit, lost, let go."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen import plugins
from safegen.engines.writing import PARTS
from safegen.errors import BackendError, debugging, hidden, upstream

if TYPE_CHECKING:
    from safegen.contracts import Backend

__all__ = ["engaged", "let_go", "lost", "seen", "terms"]

_ROWS_HANG_ON = ("safegen", "numpy", "scipy", "pandas", "pyarrow")  # and on the backend's
_LEAVING = 5.0  # seconds that workers have to tidy up


@contextmanager
def seen(folder: Path) -> Iterator[dict[str, str]]:
    """What tells a worker whether its machine sees this very folder: a file in it, and its text."""
    (folder / PARTS).mkdir(exist_ok=True)
    mark, text = folder / PARTS / f"seen-{secrets.token_hex(8)}", secrets.token_hex(16)
    mark.write_text(text)
    try:
        yield {"folder": str(folder.resolve()), "mark": f"{PARTS}/{mark.name}", "text": text}
    finally:
        mark.unlink(missing_ok=True)


def terms(
    backend: Backend, folder: Mapping[str, str] | None = None, *, gpus: bool
) -> dict[str, Any]:
    """What a worker must know, and must be, before it is given anything of ours to read.

    folder: what `seen` gives of the one to write to. gpus: whether it is to see any that is there.
    """
    return {
        "versions": plugins.versions(dict.fromkeys((*_ROWS_HANG_ON, *backend.packages))),
        "python": sys.executable,
        "path": [p for p in sys.path if p],
        "debugging": debugging(),
        "seen": folder,
        "gpus": gpus,
    }


def engaged(ray: Any, resources: Mapping[str, float]) -> Any:
    """A worker somewhere on the cluster, as soon as there is room. What its methods need of ours is
    given after `begin`, which says why it cannot be used, or nothing."""

    class SafegenWorker:
        # Here, not in a module: Ray then sends it whole, also to where safegen is not.

        def begin(self, terms: Any) -> str:
            import os
            import socket
            import sys
            import warnings
            from importlib import metadata

            def version(package: str) -> str:
                try:
                    return metadata.version(package)
                except metadata.PackageNotFoundError:
                    return "not installed"

            warnings.simplefilter("ignore")  # they may quote values, and Ray keeps logs
            if terms["debugging"]:
                os.environ["SAFEGEN_DEBUG"] = "1"
            if not terms["gpus"]:  # as Ray has it in this version, and not in the next
                os.environ["CUDA_VISIBLE_DEVICES"] = ""
            self.folder = None
            if (seen := terms["seen"]) is not None:
                folder = seen["folder"]
                try:
                    with open(os.path.join(folder, seen["mark"])) as mark:
                        if mark.read() == seen["text"] and os.access(folder, os.W_OK):
                            self.folder = folder
                except OSError:
                    pass
            if self.folder and sys.executable == terms["python"]:
                sys.path[:0] = terms["path"]  # then a source checkout is there too
            others = [
                f"{package} {found} instead of {wanted}"
                for package, wanted in terms["versions"].items()
                if (found := version(package)) != wanted
            ]
            where = f"the Ray worker on {socket.gethostname()}"
            return f"{where} has {', '.join(others)}" if others else ""

        def settle(self, *needed: Any) -> Any:
            from safegen.engines.ray import bench

            try:
                self.bench = bench.Bench(self.folder, *needed)
            except Exception as error:
                return bench.failure(error)
            return self.folder is not None

        def make(self, *task: Any) -> Any:
            return self.bench.make(*task)

        def train(self, *task: Any) -> Any:
            from safegen.engines.ray import bench

            return bench.train(*task)

        def close(self) -> None:
            if hasattr(self, "bench"):
                self.bench.close()

    options = {"max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
    return ray.remote(SafegenWorker).options(**options, **resources).remote()


def lost(ray: Any, error: Exception) -> str:
    """How a worker was lost that gives this error instead of an answer.

    Raises: BackendError for what is no loss.
    """
    loss = isinstance(error, ray.exceptions.RayError)
    if not loss or isinstance(error, ray.exceptions.RayTaskError):
        cause = getattr(error, "cause", None) or error
        raise BackendError(f"a Ray worker failed ({upstream(cause)})") from hidden(error)
    return upstream(error) if debugging() else type(error).__name__


def let_go(ray: Any, begun: Sequence[Any], others: Sequence[Any] = ()) -> None:
    """End workers, those that have begun once they have tidied up, if they have the time."""
    with suppress(ray.exceptions.RayError):
        closing = [worker.close.remote() for worker in begun]
        if closing:
            ray.wait(closing, num_returns=len(closing), timeout=_LEAVING)
    for worker in (*begun, *others):
        with suppress(ray.exceptions.RayError):
            ray.kill(worker)
