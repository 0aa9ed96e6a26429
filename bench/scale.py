"""What ten thousand million rows on a hundred nodes would come to, reckoned from single costs.

    python bench/scale.py            # simulates, and writes the tables of docs/scale.md anew

Nothing here runs on a cluster. `bench/units.json` has what single things cost on one machine
(bench/units.py measures that), `ASSUMED` what nobody measured here, with a range; bench/cluster.py
plays the events. The same numbers give the same tables.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cluster import Cluster, Work, several

TOP = Path(__file__).parents[1]
PAGE, UNITS = TOP / "docs" / "scale.md", Path(__file__).with_name("units.json")

ROWS = 10**10
BLOCKS = 16  # of a part
MIB, GB = 2**20, 1e9
DOCUMENT, RECORD, ATTACHED, FILES, KEPT = 64 * MIB, 4 * MIB, 512 * MIB, 1_000_000, 1_024
"""What a manifest, a record of the ledger and an attachment may have in bytes, a dataset in files,
a release in fingerprints of a view for routing; a test holds them against the code."""

ASSUMED: dict[str, tuple[float, float, float, str]] = {
    "failures": (
        0.001,
        0.0001,
        1.0,
        "failures of a node in an hour; 1 is a market for spare nodes",
    ),
    "repair": (300.0, 60.0, 1_800.0, "seconds until another node stands in"),
    "spread": (0.15, 0.05, 0.5, "standard deviation of the logarithm of a part's time"),
    "slow": (0.01, 0.0, 0.05, "share of parts that are slow, by a Pareto law of power 2"),
    "network": (1.25, 0.125, 3.1, "GB a second into the driver (10 Gbit/s)"),
    "latency": (0.05, 0.02, 0.3, "seconds until a store answers a put"),
    "stream": (80.0, 40.0, 200.0, "MB a second of one put"),
}
"""What was not measured here: the value, and the ends of what is tried."""

Units = Mapping[str, Mapping[str, float]]
NAMES = {"tags": "tags only", "anchored": "`anchored`"}


def unit(units: Units, name: str) -> float:
    return float(units[name]["median"])


# ---- the work ------------------------------------------------------------------------------------


def work(
    units: Units, kind: str, rows: int, planned: bool, assumed: Mapping[str, float] | None = None
) -> tuple[Cluster, Work]:
    """A release of so many rows by a hundred nodes: as the code is, or as `docs/scale.md` plans.

    As it is, the driver puts each file into the store when it takes its summary, and merges in
    order; a summary carries fingerprints and first rows. As planned, workers put files and sorted
    fingerprints, summaries carry neither, what lies side by side is merged, and late parts are made
    twice.
    """
    a = {name: value for name, (value, *_) in ASSUMED.items()} | dict(assumed or {})
    each = unit(units, f"{kind}.rows")
    put = a["latency"] + unit(units, f"{kind}.file") * each / (a["stream"] * 1e6)
    summary, merge = unit(units, f"{kind}.summary"), unit(units, f"{kind}.merge")
    if planned:
        summary -= unit(units, f"{kind}.summary.printings")
    made = Work(
        parts=-(-rows // round(each)),
        part=unit(units, f"{kind}.row") * each,
        spread=a["spread"],
        slow=a["slow"],
        start=unit(units, "start"),
        put=2 * put if planned else 0.0,  # rows, and fingerprints
        merge=merge if planned else merge + put,
        summary=summary,
        bandwidth=a["network"] * GB,
        copies=planned,
        in_order=not planned,
    )
    return Cluster(failures=a["failures"], repair=a["repair"]), made


def ideal(cluster: Cluster, made: Work) -> float:
    """Seconds were every core busy to the end, with nothing lost."""
    return made.start + made.parts * (made.part + made.put) / (cluster.nodes * cluster.cores)


# ---- tables --------------------------------------------------------------------------------------


def table(head: Sequence[str], lines: Iterator[Sequence[str]]) -> str:
    every = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in every)


def spread(values: Sequence[float], form: str = "{:,.0f}") -> str:
    low, middle, high = (form.format(f(values)) for f in (min, statistics.median, max))
    return middle if low == high else f"{middle} ({low}–{high})"


def costs(units: Units) -> str:
    def short(value: float) -> str:
        return f"{value:,.3g}" if abs(value) < 1_000 else f"{value:,.0f}"

    lines = (
        [f"`{name}`", *(short(told[k]) for k in ("median", "low", "high", "n")), str(told["unit"])]
        for name, told in units.items()
        if isinstance(told, dict)
    )
    return table(["what", "median", "least", "most", "n", "unit"], lines)


def assumptions(units: Units) -> str:
    lines = (
        [f"`{n}`", f"{value:g}", f"{low:g} to {high:g}", what]
        for n, (value, low, high, what) in ASSUMED.items()
    )
    return table(["assumed", "value", "range", "what"], lines)


def runs(units: Units) -> str:
    """The release as it is and as planned."""

    def lines() -> Iterator[list[str]]:
        for kind, name in NAMES.items():
            for how in ("as it is", "planned", "planned, merged by nodes first"):
                cluster, made = work(units, kind, ROWS, how != "as it is")
                if how.endswith("first"):  # of what lies side by side, one summary a node
                    few = cluster.cores
                    made = replace(made, merge=made.merge / few, summary=made.summary / few)
                found = several(cluster, made)
                yield [
                    f"{name}, {how}", f"{made.parts:,}",
                    f"{made.parts * made.part / 3600:,.0f}", f"{ideal(cluster, made):,.0f}",
                    spread([o.seconds for o in found]), spread([o.driver for o in found]),
                    spread([o.waiting * made.summary / GB for o in found], "{:,.1f}"),
                    f"{made.parts * made.summary / GB:,.0f}",
                ]  # fmt: skip

    head = ["", "parts", "core hours", "ideal, s", "simulated, s", "driver busy, s"]
    return table([*head, "held by the driver at most, GB", "through the driver, GB"], lines())


def by_rows(units: Units) -> str:
    def lines() -> Iterator[list[str]]:
        for rows in (10**8, 10**9, 10**10):
            cells = [f"10^{len(str(rows)) - 1}"]
            for kind in NAMES:
                for planned in (False, True):
                    found = several(*work(units, kind, rows, planned))
                    cells.append(spread([o.seconds for o in found]))
            yield cells

    sides = [f"{n}, {w}, s" for n in NAMES.values() for w in ("as it is", "planned")]
    return table(["rows", *sides], lines())


def failing(units: Units) -> str:
    def lines() -> Iterator[list[str]]:
        for rate in (0.0, 0.001, 0.1, 1.0, 10.0):
            cluster, made = work(units, "anchored", ROWS, True, {"failures": rate})
            found = several(cluster, made)
            wasted = [1 - o.useful / o.spent for o in found]
            yield [
                f"{rate:g}", spread([o.lost for o in found]), spread([o.again for o in found]),
                spread([100 * w for w in wasted], "{:.2f}"),
                spread([o.seconds for o in found]),
                f"{sum(o.failed > 0 for o in found)} of {len(found)}",
            ]  # fmt: skip

    head = ["failures of a node in an hour", "nodes lost", "parts lost with them"]
    return table(
        [*head, "core time for nothing, %", "simulated, s", "runs that end, to be resumed"], lines()
    )


def sensitive(units: Units) -> str:
    """What each assumption, and the size of parts, changes; planned, `anchored`."""

    def seconds(assumed: Mapping[str, float], change: Callable[[Work], Work] = lambda w: w) -> str:
        cluster, made = work(units, "anchored", ROWS, True, assumed)
        return spread([o.seconds for o in several(cluster, change(made))])

    def sized(w: Work, by: float) -> Work:
        return replace(w, parts=round(w.parts / by), part=w.part * by, put=w.put * by)

    def lines() -> Iterator[list[str]]:
        yield ["nothing", "", seconds({}), ""]
        for name, (_, low, high, _) in ASSUMED.items():
            yield [f"`{name}`", f"{low:g} … {high:g}", seconds({name: low}), seconds({name: high})]
        yield [
            "rows of a part", "÷ 4 … × 4",
            *(seconds({}, lambda w, by=by: sized(w, by)) for by in (0.25, 4)),
        ]  # fmt: skip
        yield [
            "a summary's merge", "÷ 4 … × 4",
            *(seconds({}, lambda w, by=by: replace(w, merge=w.merge * by)) for by in (0.25, 4)),
        ]  # fmt: skip
        yield [
            "late parts are made twice", "no … yes",
            seconds({}, lambda w: replace(w, copies=False)), seconds({}),
        ]  # fmt: skip

    return table(["what changes", "range", "at the low end, s", "at the high end, s"], lines())


def manifests(units: Units) -> str:
    """How large manifests are, beside what readers and the ledger take."""

    def lines() -> Iterator[list[str]]:
        for rows in (10**7, 10**8, 10**9, 10**10, 10**11):
            cells = [f"10^{len(str(rows)) - 1}"]
            for kind in NAMES:
                size, parts, groups = manifest_bytes(units, kind, rows)
                reading = size / MIB * unit(units, "manifest.read")
                marks = [
                    what for what, most in (("ledger", RECORD), ("reader", DOCUMENT)) if size > most
                ]
                cells += [
                    f"{parts:,}", f"{groups:,}", f"{size / MIB:,.1f}", f"{reading:,.1f}",
                    f"**over: {', '.join(marks)}**" if marks else "fits",
                ]  # fmt: skip
            yield cells

    head = ["rows"]
    for name in NAMES.values():
        head += [f"files, {name}", "row groups", "manifest, MiB", "read, CPU s", "4 and 64 MiB"]
    return table(head, lines())


def manifest_bytes(units: Units, kind: str, rows: int) -> tuple[float, int, int]:
    """Bytes of a manifest, of entries of files and row groups alone; how many of each."""
    each = unit(units, f"{kind}.rows")
    groups = -(-rows // round(each / BLOCKS))
    per_part = min(max(-(-groups // 64), 1), BLOCKS)  # `part_plan`
    parts = -(-groups // per_part)
    size = parts * unit(units, "manifest.file") + groups * unit(units, "manifest.group")
    return size, parts, groups


def fitting(units: Units, kind: str, most: float) -> int:
    """Rows of a release whose manifest has so many bytes."""
    each = unit(units, f"{kind}.rows")
    size = unit(units, "manifest.file") + BLOCKS * unit(units, "manifest.group")
    return int(most / size * each)


def limits(units: Units) -> str:
    """Rows of the largest release that each limit lets through."""

    def lines() -> Iterator[list[str]]:
        for what, most in (("a record of the ledger", RECORD), ("a manifest's readers", DOCUMENT)):
            cells = [f"{fitting(units, kind, most):.1e}" for kind in NAMES]
            yield [f"{what}: {most // MIB} MiB", *cells]
        most = f"{ATTACHED / unit(units, 'search.fingerprint'):.1e}"
        yield [f"an attachment: {ATTACHED // MIB} MiB", most, most]
        yield [
            f"files of a dataset: {FILES:,}",
            *(f"{FILES * unit(units, f'{kind}.rows'):.1e}" for kind in NAMES),
        ]

    return table(["limit", *(f"rows, {n}" for n in NAMES.values())], lines())


def fingerprints(units: Units) -> str:
    """What is kept of a release, and what a check of a million rows against it meets by chance."""

    def lines() -> Iterator[list[str]]:
        for rows in (10**7, 10**8, 10**9, 10**10):
            size = rows * unit(units, "search.fingerprint")
            read = rows * unit(units, "search.read")
            yield [
                f"10^{len(str(rows)) - 1}", f"{size / GB:,.2f}",
                "fits" if size <= ATTACHED else f"**{size / ATTACHED:,.0f} times too large**",
                f"{rows / 2**48:.1e}", f"{1e6 * rows / 2**48:,.2g}", f"{1e6 * rows / 2**63:.1e}",
                f"{read:,.0f}", f"{1e6 * unit(units, 'search.lookup'):.2f}",
            ]  # fmt: skip

    head = ["fingerprints", "GB", "an attachment, 512 MiB", "a row meets one by chance"]
    of = "of a million rows by chance"
    return table(
        [*head, of, f"{of}, 63 bits", "read them all, CPU s", "look a million rows up, CPU s"],
        lines(),
    )


def searches(units: Units, shards: Sequence[int] = (1, 10, 100)) -> str:
    """A check of a million rows against D releases of F fingerprints in all, by ranges of them."""

    def lines() -> Iterator[list[str]]:
        for datasets, prints in ((1_000, 10**7), (1_000, 10**9), (10_000, 10**10)):
            whole = prints * unit(units, "search.read")
            looked = 1e6 * unit(units, "search.lookup")
            size = 8 * prints
            routing = datasets * KEPT * 16 * 16  # of sixteen views, sixteen bytes each
            yield [
                f"{datasets:,}", f"10^{len(str(prints)) - 1}", f"{routing / GB:,.2f}",
                f"{size / GB:,.1f}", f"{whole:,.0f}",
                *(f"{looked / s:.3f}, {size / s / GB:,.1f} GB" for s in shards),
            ]  # fmt: skip

    head = [
        "releases",
        "fingerprints",
        "routing file, GB",
        "sorted index, GB",
        "read as it is, CPU s",
    ]
    return table([*head, *(f"lookup on each of {s}, s" for s in shards)], lines())


def ledgers(units: Units) -> str:
    def lines() -> Iterator[list[str]]:
        for name in ("sqlite", "postgres"):
            if f"{name}.entry" not in units:
                yield [name, *["not measured"] * 5]
                continue
            entry, register = (unit(units, f"{name}.{n}") for n in ("entry", "register"))
            attach = unit(units, f"{name}.attach")
            size = ROWS * unit(units, "search.fingerprint") / MIB
            yield [
                name, f"{1 / entry:,.0f}", f"{1 / register:,.0f}",
                f"{86_400 / (register + 2 * entry) / 1e6:,.1f}",
                f"{attach * 512:,.1f}", f"{attach * size / 60:,.0f}",
            ]  # fmt: skip

    head = ["", "entries a second", "registrations a second", "releases a day, millions"]
    return table([*head, "512 MiB, s", "fingerprints of 10^10 rows, min"], lines())


def puts(units: Units) -> str:
    """What files cost a store: put by the driver, or by the workers."""

    def lines() -> Iterator[list[str]]:
        for latency in ASSUMED["latency"][:3]:
            for kind, name in NAMES.items():
                each = unit(units, f"{kind}.rows")
                parts, size = ROWS / each, unit(units, f"{kind}.file") * each
                put = latency + size / (ASSUMED["stream"][0] * 1e6)
                yield [
                    f"{latency:g}", name, f"{parts:,.0f}", f"{size / 1e6:,.1f}", f"{put:.2f}",
                    f"{parts * put / 60:,.0f}", f"{parts * put / 1_600:,.1f}",
                    f"{ROWS * unit(units, f'{kind}.file') / GB:,.0f}",
                ]  # fmt: skip

    head = ["latency, s", "", "files", "MB each", "a put, s", "one after the other, min"]
    return table([*head, "by 1,600 workers, s", "GB in all"], lines())


TABLES: dict[str, Callable[[Units], str]] = {
    "units": costs,
    "assumed": assumptions,
    "limits": limits,
    "runs": runs,
    "rows": by_rows,
    "failures": failing,
    "sensitivity": sensitive,
    "manifests": manifests,
    "fingerprints": fingerprints,
    "searches": searches,
    "ledgers": ledgers,
    "puts": puts,
}


def written(text: str, units: Units) -> str:
    """The page with its tables as these costs make them."""
    for name, made in TABLES.items():
        mark = f"<!-- table: {name} -->"
        pattern = re.compile(f"{re.escape(mark)}\n.*?<!-- end -->", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"{PAGE}: no place for the table {name}")
        text = pattern.sub(lambda _: f"{mark}\n{made(units)}\n<!-- end -->", text)  # noqa: B023
    load = re.search(r"load ([\d.]+)", units["where"])
    noisy = load is None or float(load[1]) > 0.5
    again = ". **Not a quiet machine: wall seconds are to be measured anew.**" if noisy else ""
    where = f"{units['measured']}; {units['where']}{again}"
    return re.sub(r"(?<=<!-- where -->).*", lambda _: f" {where}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--units", type=Path, default=UNITS)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    units = json.loads(given.units.read_text())
    given.page.write_text(written(given.page.read_text(), units))
    print(given.page)


if __name__ == "__main__":
    main()
