"""What the parts of a release are made by, and which of them an interrupted run has made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from safegen.contracts import repeats
from safegen.engines.parts import ImageForm, Recipe
from safegen.errors import UsageError
from safegen.fingerprinting import printings
from safegen.lineage.fingerprints import SEEN
from safegen.measure.drawn import Reservoir
from safegen.targets import interrupted

if TYPE_CHECKING:
    from safegen.ledger import Ledger
    from safegen.measure.profile import TableProfile
    from safegen.places import Place
    from safegen.preparation import Prepared
    from safegen.requests import Request
    from safegen.sampling import Sampling
    from safegen.tables.credentials import ContentSigner

__all__ = ["begun", "recipe_for", "run_of"]

_ROWS_SEEN = 50_000
"""Rows of a release that are measured: enough for a share of 1 % to have an error of 4 %."""
_IMAGES_SEEN = 2_000


def recipe_for(
    dataset_id: str,
    request: Request,
    sampling: Sampling,
    profiles: Mapping[str, TableProfile] | None,
    keys: list[tuple[str, bytes]],
    images: ImageForm,
    signer: ContentSigner | None,
) -> Recipe:
    """What the parts of a release are made by. Raises: what finding the shape raises."""
    prepared = sampling.prepared
    depth = prepared.effective_depth
    looked_at = prepared.schemas if prepared.kind == "images" and keys else ()
    return Recipe(
        backend=sampling.backend.name,
        schemas=prepared.schemas,
        seed=request.seed,
        conditions=request.conditions,
        shape=sampling.shape(request),
        stamp={"dataset_id": dataset_id, "origin": "synthetic", "depth": depth},
        depth=depth,
        images=images,
        signer=signer,
        keys=keys,
        profiles=profiles or {},
        reservoirs=_reservoirs(prepared, request, keys),
        printings=printings(prepared, keys),
        looked_at=dict.fromkeys(looked_at, SEEN),
    )


def _reservoirs(
    prepared: Prepared, request: Request, keys: Sequence[tuple[str, bytes]]
) -> dict[str, Callable[[int], Reservoir]]:
    """What the report and the rules that look at single rows will see.

    Which rows that are hangs on the ledger's key: a model knows the seed of a request, and could
    put its copies where nobody would look.
    """
    most = _IMAGES_SEEN if prepared.kind == "images" else _ROWS_SEEN
    key = keys[-1][1][:64] if keys else b""
    drawn = hashlib.blake2b(
        f"{request.digest} {request.seed}".encode(),
        digest_size=7,
        key=key,
        person=b"safegen-drawn",
    )
    seed = int.from_bytes(drawn.digest(), "little")
    one_each = prepared.kind in ("table", "images")  # else nobody knows how many rows there will be
    make = partial(Reservoir, most, seed, rows=request.rows if one_each else None)
    return dict.fromkeys(prepared.schemas, make)


def run_of(
    request: Request, sampling: Sampling, keys: Sequence[tuple[str, bytes]], saved: str | None
) -> dict[str, Any] | None:
    """What tells a run from others that would make other rows. saved: the digest of the model's
    folder. None where nothing does: for a model that was fitted here, and whose rows hang on more
    than its data, options and seeds."""
    known = repeats(sampling.backend, sampling.model) and not sampling.prepared.doubts
    model = saved or ("fitted" if known else None)
    if model is None:
        return None
    return {"request": request.digest, "model": model, "keys": [key_id for key_id, _ in keys]}


def begun(target: Place, run: Mapping[str, Any] | None, ledger: Ledger | None) -> str | None:
    """The id of the dataset that an interrupted run like this one has begun at a target; None where
    there is none. Raises: UsageError where nobody can go on."""
    if run is None:
        raise UsageError(
            "resume: a fit of this backend does not give the same model again, so that nobody "
            "could go on with its rows: save the model, and generate from it (Generator.load, "
            "--model)"
        )
    found = interrupted(target, run)
    if found is not None and ledger is not None and ledger.get(found) is not None:
        return None  # it was killed between its entry in the ledger and its rename
    return found
