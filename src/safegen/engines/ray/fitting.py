"""Fitting on Ray: on a GPU of a cluster that is there already, where the backend trains on one."""

from __future__ import annotations

import logging
import pickle
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from safegen.contracts import trains_on_gpus
from safegen.engines.ray.bench import Failure
from safegen.engines.ray.cluster import cluster, is_there
from safegen.engines.ray.hiring import engaged, let_go, lost, terms
from safegen.engines.ray.luggage import unpacked
from safegen.errors import BackendError, SafegenError

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.contracts import Backend, BackendOptions, Model
    from safegen.tables.schema import TableSchema

__all__ = ["fitted"]

_LOG = logging.getLogger("safegen")


def fitted(
    backend: Backend,
    tables: Mapping[str, pa.Table],
    schemas: Mapping[str, TableSchema],
    options: BackendOptions,
    *,
    seed: int,
) -> Model:
    """What `backend.fit` gives. Where the backend trains on a GPU and a cluster that is there has
    one, it is fitted on that, and comes back as a saved model; else in this process.

    Raises: what `backend.fit` raises; BackendError when the worker is lost.
    """
    if not trains_on_gpus(options) or not is_there():
        return backend.fit(tables, schemas, options, seed=seed)
    with ExitStack() as stack:
        ray = stack.enter_context(cluster(None))
        if ray.cluster_resources().get("GPU", 0) < 1:
            return backend.fit(tables, schemas, options, seed=seed)
        _LOG.info("fitting on a GPU of the Ray cluster")
        worker = engaged(ray, {"num_cpus": 1, "num_gpus": 1})
        stack.callback(let_go, ray, [worker])
        try:
            if found := ray.get(worker.begin.remote(terms(backend, gpus=True))):
                raise BackendError(f"{found}, which this process has")
            task = ray.put(pickle.dumps((dict(schemas), options)))
            model = ray.get(worker.train.remote(backend.name, seed, task, ray.put(dict(tables))))
            if isinstance(model, Failure):
                raise model.error()
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="safegen-model-"))
            unpacked(model, Path(name), ray.get)
        except (SafegenError, OSError):
            raise
        except Exception as error:
            why = lost(ray, error)
            raise BackendError(f"the Ray worker that fitted was lost ({why}): fit again") from None
        return backend.load(Path(name))
