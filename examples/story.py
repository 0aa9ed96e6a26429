"""The story of safegen in library calls: attest, fit, generate, verify, check, be refused, derive.

    python examples/story.py [FOLDER]

Works on the Adult table where a package here ships it, else on scikit-learn's breast-cancer table.
All of it, the ledger included, stays in FOLDER (default: a new temporary folder); only the
ledger's key lies in your config folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import safegen
from safegen.demo import place_data

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="safegen-story-"))
ledger = folder / "ledger.db"

real, what = place_data(folder / "real")
print(f"{what}, in {folder}\n")

# A named person states that the table is real. Without this the policy warns, or refuses.
safegen.attest(real, by="Ada Example", source_uri="https://archive.ics.uci.edu", ledger=ledger)

# Fit. The policy's admission gate comes first: AdmissionRefused would carry its decision.
gen = safegen.Generator("sdv.gaussian_copula", policy="baseline", ledger=ledger)
gen.fit(real)
print(gen, "\n")

# Generate. The release gate compares the staged rows with the real ones before they are published.
ds = gen.generate(rows=5_000, out=folder / "synthetic")
print(ds, "\n")

# Verify, anywhere: every byte, and with deep=True every row, against the manifest.
safegen.verify(ds.path, deep=True, ledger=ledger)

# Train on it: `training` admits data that is one model away from reality, and no further.
opened = safegen.open(ds.path, policy="training", ledger=ledger)
rows = opened.to_pandas()  # the _safegen_* columns stay out unless asked for
print(rows.head(3), "\n")

# Feed it to a further generator. `check` answers, `guard` and `fit` raise.
print(safegen.check(rows, policy="baseline", ledger=ledger), "\n")
try:
    safegen.Generator(policy="baseline", ledger=ledger).fit(ds)
except safegen.AdmissionRefused:
    print("Fitting on it is refused.\n")
else:
    raise SystemExit("a generator's own output was admitted")

# A filter, a join, a new column: say what the result was made from. Nothing is washed by it.
derived = safegen.derive(rows[rows.index % 2 == 0], sources=[ds], ledger=ledger)
assert derived.origin == "synthetic"
print(f"the derived table is {derived.origin}, depth {derived.depth}, {derived.rows:,} rows")
