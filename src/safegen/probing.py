"""Between steps 4 and 5: what a refit on the synthetic rows alone would do to them.

Asked where the policy's anchor rule is active and training rows are both real and synthetic. It
costs a fit on the synthetic rows and as many rows again, made as releases under the policy are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from safegen.contracts import Backend, BackendOptions, Model
from safegen.engines.blocks import block_plan, shaped_block
from safegen.errors import BackendError, SafegenError, SourceError, upstream
from safegen.measure.gains import Probe, counted
from safegen.policy import Policy
from safegen.preparation import FEWEST, Prepared
from safegen.sampling import candidates, constrained, seed_of
from safegen.shaping.drawing import thinned
from safegen.shaping.shape import Shape, asked_for, shape_for
from safegen.tables.numbers import taken

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["due", "probed"]

_DRAWN = 7_003  # names the stream of the rows that are made again
_PILOT = 7_004  # and that of those from which constants are found


def due(policy: Policy, prepared: Prepared) -> bool:
    """Whether the policy asks, and there are synthetic rows besides real ones."""
    shares = [f.synthetic_share for f in prepared.facts]
    return "anchor" in policy.at("admission") and any(shares) and not all(shares)


def probed(
    prepared: Prepared,
    backend: Backend,
    options: BackendOptions,
    policy: Policy,
    fit: Callable[..., Model],
) -> Probe:
    """Fit the backend on the synthetic rows alone, by `fit`, and count what becomes of them.

    Nothing is raised for a backend that cannot, or whose rows are then of no use: the probe says
    so, as broken. Raises: UsageError, MissingExtra, as a release would.
    """
    if prepared.kind not in ("table", "images"):
        return Probe(problem="rows of sequences and related tables hang together: not probed")
    assert prepared.parts is not None
    ((name, real),) = prepared.parts.anchor.items()
    made = prepared.parts.made[name]
    if made.num_rows < FEWEST:
        return Probe(problem=f"{made.num_rows:,} synthetic rows are too few to fit on")
    try:
        model = fit({name: made}, prepared.schemas, options, seed=prepared.seed)
        shape = _shape(model, backend, options, prepared, policy, real)
        again = _again(model, backend, prepared, shape, made.num_rows)
        return counted(real, made, again, prepared.schemas[name], selected=asked_for(policy))
    except BackendError as error:
        what = str(error)
    except SourceError as error:
        what = upstream(error)
    except SafegenError:
        raise  # what is to be mended first: an extra that is not installed, a policy's stratum
    except Exception as error:  # rows of other columns or types, or whatever a backend does then
        what = upstream(error)
    return Probe(problem=f"no usable fit on the synthetic rows alone: {what}", broken=True)


def _shape(
    model: Model,
    backend: Backend,
    options: BackendOptions,
    prepared: Prepared,
    policy: Policy,
    real: pa.Table,
) -> Shape | None:
    def draw(rows: int) -> pa.Table:
        return candidates(model, backend, rows, seed_of(prepared, _PILOT))

    if not asked_for(policy) or prepared.kind != "table":
        return None
    (schema,) = prepared.schemas.values()
    bound = constrained(options)
    return shape_for(real, schema, policy, draw, seed=prepared.seed, constrained=bound)


def _again(
    model: Model, backend: Backend, prepared: Prepared, shape: Shape | None, rows: int
) -> pa.Table:
    """Rows of the model as a release would have them; where those have weights, what stands for
    all of them without."""
    import pyarrow as pa

    capacity = backend.block_rows if shape is None else shape.capacity(backend.block_rows)
    seed = seed_of(prepared, _DRAWN)
    tables, weights = [], []
    for block, count in block_plan(rows, capacity):
        made = shaped_block(model, backend, count, seed=seed, block=block, shape=shape)
        ((_, table),) = made.tables.items()
        if table.num_rows != count:
            raise BackendError(f"{backend.name} gave {table.num_rows:,} of {count:,} rows")
        tables.append(table)
        weights.append(np.ones(table.num_rows) if made.weights is None else made.weights)
    found = pa.concat_tables(tables)
    return taken(found, thinned(np.concatenate(weights), seed))
