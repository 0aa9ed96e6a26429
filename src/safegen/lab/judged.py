"""What the release gate holds against rows, whoever made them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from safegen.manifest.sign import key_id
from safegen.policy import Policy
from safegen.tables.sources import TABLE

if TYPE_CHECKING:
    from safegen.decision import Decision
    from safegen.tables.schema import TableSchema

__all__ = ["against", "faults"]


def faults(
    real: pa.Table, held: pa.Table, schema: TableSchema, made: pa.Table, weights: np.ndarray
) -> str:
    """The checks of the policy `anchored` that refuse rows which claim to be of these real ones, by
    name, as for a first release; "" for none. held: as for `against`."""
    decision = against(Policy.load("anchored"), real, held, schema, made, weights)
    return ", ".join(r.finding.name for r in decision.judged if r.outcome == "block")


def against(
    policy: Policy,
    real: pa.Table,
    held: pa.Table,
    schema: TableSchema,
    made: pa.Table,
    weights: np.ndarray,
) -> Decision:
    """What a policy's release gate decides on rows which claim to be of these real ones.

    held: real rows that no fit has seen, of which as many are used as the policy would have held
    out.
    """
    from safegen import gates
    from safegen.measure.drawn import Drawn
    from safegen.measure.profile import TableTally, profiles

    signature: Any = policy.rule("manifest")  # nothing is signed here, and nothing leaves
    share = gates.held_out(policy)
    few = held.slice(0, round(real.num_rows * share / (1 - share)))
    schemas = {TABLE: schema}
    profile = profiles({TABLE: real}, schemas)[TABLE]
    tally = TableTally(profile)
    tally.update(made.replace_schema_metadata(None))
    context = gates.Release(
        rows=made.num_rows,
        units=made.num_rows,
        conditions={},
        schemas=schemas,
        real={TABLE: profile},
        staged={TABLE: tally},
        anchor={TABLE: real},
        held={TABLE: few},
        made={TABLE: Drawn(made, weights.astype(np.float64))},
        in_band={TABLE: {"synthetic": made.num_rows}},
        signer=next(map(key_id, signature.trusted_keys), "the laboratory"),
    )
    return gates.release(policy, context, gates.Books(None, {"datasets": 0}), [], [])
