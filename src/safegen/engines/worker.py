"""A sampling process: `python -m safegen.engines.worker BACKEND FOLDER`, fed by `engines.local`.

Reads the length (64-bit) and the pickle of a shape, or of None, on standard input, which only the
process that started it can write to; then tasks as JSON lines. Answers each on standard output with
the number of tables (64-bit), then per table the sizes of name and stream, the name, and an Arrow
stream; weights come as a further table. A negative number is the length of an error text. Ends when
its input ends.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
from pathlib import Path

from safegen import plugins
from safegen.engines.blocks import shaped_block
from safegen.errors import SafegenError, upstream
from safegen.tables.batches import WEIGHT_COLUMN


def main(backend: str, folder: str) -> None:
    # Whatever a library prints must not end up between the frames.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    import pyarrow as pa

    model = None
    family = plugins.load(plugins.BACKENDS, backend)()
    (size,) = struct.unpack("<q", sys.stdin.buffer.read(8))
    shape = pickle.loads(sys.stdin.buffer.read(size))
    for line in sys.stdin.buffer:
        task = json.loads(line)
        try:
            model = model or family.load(Path(folder))
            made = shaped_block(
                model,
                family,
                task["rows"],
                seed=task["seed"],
                block=task["block"],
                conditions=task["conditions"],
                shape=shape,
            )
            tables = made.tables
            if made.weights is not None:
                tables = {**tables, WEIGHT_COLUMN: pa.table({"weight": made.weights})}
        except Exception as error:
            text = str(error) if isinstance(error, SafegenError) else upstream(error)
            data = text.encode()
            out.write(struct.pack("<q", -len(data)) + data)
        else:
            out.write(struct.pack("<q", len(tables)))
            for name, table in tables.items():
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, table.schema) as writer:
                    writer.write_table(table)
                stream = sink.getvalue()
                encoded = name.encode()
                out.write(struct.pack("<qq", len(encoded), stream.size) + encoded)
                out.write(stream)
        out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
