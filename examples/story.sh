#!/usr/bin/env bash
# The story of safegen on the command line: attest, fit, generate, verify, check, be refused.
#
#     examples/story.sh [FOLDER]
#
# Works on the Adult table where a package here ships it, else on scikit-learn's breast-cancer
# table. All of it, the ledger included, stays in FOLDER (default: a new temporary folder); only the
# ledger's key lies in your config folder.
set -euo pipefail

folder=${1:-$(mktemp -d -t safegen-story-XXXXXX)}
cd "$folder"
export SAFEGEN_LEDGER=$PWD/ledger.db

real=$(python -c 'from safegen.demo import place_data; print(place_data("real")[0])')

# Run a command that must end with the exit code given first.
expect() {
    local wanted=$1 code=0
    shift
    echo "\$ $*"
    "$@" || code=$?
    if [ "$code" != "$wanted" ]; then
        echo "exit code $code where $wanted was expected" >&2
        exit 1
    fi
}

expect 0 safegen attest "$real" --by "Ada Example"
expect 0 safegen fit "$real" --save model
expect 0 safegen generate --model model --rows 5000 --out synthetic
expect 0 safegen verify synthetic --deep
expect 0 safegen check synthetic --policy training
expect 3 safegen check synthetic --policy baseline

# A copy without its manifest is known by its stamp, its columns and the ledger.
cp synthetic/data/part-00000.parquet copy.parquet
expect 3 safegen generate copy.parquet --rows 5000 --out again
test ! -e again
expect 0 safegen lineage synthetic

# One changed byte, and the dataset does not verify any more.
printf 'x' >> synthetic/README.md
expect 4 safegen verify synthetic
