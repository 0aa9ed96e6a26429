"""A sampling process: `python -m safegen.engines.worker BACKEND FOLDER`, fed by `engines.local`.

Reads the length (64-bit) and the pickle of a recipe and a folder on standard input, which only the
process that started it can write to; then parts as JSON lines. Says on standard output, each with
its kind (8 bytes, padded) and its length (64-bit): `units` that were made, then of each part what
was `written`, as a pickle, or an `error` text. Ends when its input ends.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from safegen import plugins
from safegen.engines.parts import Part, make_part
from safegen.errors import BackendError, SafegenError, upstream

if TYPE_CHECKING:
    from safegen.contracts import Backend, Model


def main(backend: str, saved: str) -> None:
    # Whatever a library prints must not end up between the frames.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def say(kind: bytes, data: bytes) -> None:
        out.write(struct.pack("<8sq", kind.ljust(8), len(data)) + data)
        out.flush()

    import pyarrow as pa

    pa.set_cpu_count(1)  # a worker is for one core
    (size,) = struct.unpack("<q", sys.stdin.buffer.read(8))
    recipe, folder = pickle.loads(sys.stdin.buffer.read(size))
    family, model = plugins.load(plugins.BACKENDS, backend)(), None
    for line in sys.stdin.buffer:
        number, first, blocks = json.loads(line)
        part = Part(number, first, tuple((block, units) for block, units in blocks))
        try:
            model = model or _loaded(family, saved)
            written = make_part(
                recipe,
                model,
                family,
                part,
                folder,
                lambda units: say(b"units", struct.pack("<q", units)),
            )
            data = pickle.dumps(written)
        except BrokenPipeError:
            return  # nobody listens any more
        except Exception as error:
            if (number := system_number(error)) is not None:
                say(b"system", struct.pack("<q", number))
            else:
                text = str(error) if isinstance(error, SafegenError) else upstream(error)
                say(b"error", text.encode())
        else:
            say(b"written", data)


def _loaded(family: Backend, saved: str) -> Model:
    try:
        return family.load(Path(saved))
    except OSError as error:
        raise BackendError(upstream(error)) from None


def system_number(error: Exception) -> int | None:
    """What the system said when a file could not be written; None for all else."""
    if "No space left" in str(error):  # Arrow has errors of its own
        return errno.ENOSPC
    return error.errno if isinstance(error, OSError) else None


if __name__ == "__main__":
    main(*sys.argv[1:])
