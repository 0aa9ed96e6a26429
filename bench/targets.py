"""Figures of `make bench` as numbers, ratios and spreads, and what was asked for beside them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from benchmarks import Size, engines
from measuring import Figure, Results, median

__all__ = [
    "busy", "least", "mib", "of", "rate", "ratio", "ratios", "registering", "seconds", "spread",
    "targets",
]  # fmt: skip

Value = Callable[[Figure], float | None]


def seconds(figure: Figure) -> float:
    return figure.seconds


# ---- numbers -------------------------------------------------------------------------------------


def spread(values: Sequence[float], form: str) -> str:
    """A median, and the range of several."""
    if not values:
        return "–"
    low, middle, high = (form.format(f(values)) for f in (min, statistics.median, max))
    return middle if low == high else f"{middle} ({low}–{high})"


def of(results: Results, key: str, form: str = "{:.2f}", value: Value = seconds) -> str:
    """The cell of a step; what failed is said."""
    found = [v for f in results.of(key) if (v := value(f)) is not None]
    if not found and (failed := results.failed(key)):
        return f"failed: {failed[-1].error.split(':')[0].rpartition('.')[2]}"
    return spread(found, form)


def ratios(results: Results, over: str, under: str, value: Value = seconds) -> list[float]:
    """A step's over another's, of the same turn."""
    other = {f.turn: value(f) for f in results.of(under)}
    pairs = [(value(f), other.get(f.turn)) for f in results.of(over)]
    return [a / b for a, b in pairs if a is not None and b]


def ratio(results: Results, over: str, under: str, value: Value = seconds) -> str:
    return spread(ratios(results, over, under, value), "{:.2f}")


def least(results: Results, key: str, value: Value = seconds) -> float | None:
    """The median of a step's runs."""
    return median(v for f in results.of(key) if (v := value(f)) is not None)


def busy(results: Results) -> float | None:
    """Cores that other programs kept busy meanwhile, the median over steps."""
    ours = (
        f for f in results.figures if "/ray" not in f.key
    )  # Ray's workers are nobody's children
    return median(f.told["others"] for f in ours if "others" in f.told)


# ---- targets -------------------------------------------------------------------------------------


def targets(results: Results, size: Size) -> Iterator[tuple[str, str, bool | None]]:
    """What was asked for, what was measured, and whether that meets it; None: not measured."""
    one, ten = f"generate {size.rows}", f"generate {10 * size.rows}"

    def at_most(
        what: str, found: float | None, most: float, unit: str
    ) -> tuple[str, str, bool | None]:
        if found is None:
            return what, "not measured", None
        return what, f"{found:,.2f} {unit}".strip(), found <= most

    raw = f"{one}/raw"
    for side, most in (("tags", 0.7), ("anchored", 3.0)):
        found = median(ratios(results, f"{one}/{side}", raw))
        yield at_most(
            f"generate {size.rows:,} rows, {side}: ≤ {most:g} × raw SDV", found, most, "×"
        )
    memory = [
        m
        for r in (one, ten)
        for s in ("tags", "anchored")
        if (m := least(results, f"{r}/{s}", mib))
    ]
    yield at_most(
        "memory of all processes (PSS): ≤ 1.8 GB",
        max(memory) / 953.7 if memory else None,
        1.8,
        "GB",
    )
    for side in ("tags", "anchored"):
        small, large = (least(results, f"{r}/{side}", mib) for r in (one, ten))
        grown = None if small is None or large is None else abs(large / small - 1) * 100
        rows = f"{size.rows:,} and {10 * size.rows:,} rows, {side}"
        yield at_most(f"memory of {rows}: the same within 5 %", grown, 5, "%")
        small, large = (least(results, f"{r}/{side}") for r in (one, ten))
        grown = None if small is None or large is None else (large / 10 / small - 1) * 100
        yield at_most(f"time per row of {rows}: within 10 %", grown, 10, "% more")
    if "ray" in engines():
        gain = rate(results, size, "ray 2"), rate(results, size, "ray 1")
        met = None if None in gain else gain[0] / gain[1]
        what = "two Ray workers: ≥ 1.8 × the rate of one"
        yield what, "not measured" if met is None else f"{met:.2f} ×", met and met >= 1.8
    else:
        yield "two Ray workers: ≥ 1.8 × the rate of one", "not measured: no Ray here", None
    digests = {
        f.told["digest"]
        for s in (*(f"{e} {w}" for e in engines() for w in (1, 2)), "tags")
        for f in results.of(f"{one}/{s}")
        if "digest" in f.told
    }
    names = ", ".join(f"{e} 1, {e} 2" for e in engines())
    yield f"one digest: {names}", f"{len(digests)}", None if not digests else len(digests) == 1
    rows = f"check {size.rows:,} rows against {10 * size.rows:,} fingerprints"
    for side, most in (("sampled, 1 %", 1.0), ("digests, whole rows", 3.0), ("all rings", 8.0)):
        yield at_most(f"{rows}, {side}: ≤ {most:g} s", least(results, f"check/{side}"), most, "s")
    most_ = least(results, "check/all rings", mib)
    yield at_most(f"{rows}: ≤ 1 GB", None if most_ is None else most_ / 953.7, 1, "GB")
    yield at_most(f"register {size.rows:,} rows: ≤ 8 s", median(registering(results, size)), 8, "s")
    for name, most in (("import safegen", 0.15), ("safegen --help", 0.4)):
        yield at_most(f"`{name}`: ≤ {most:g} s", least(results, f"start/{name}"), most, "s")


def mib(figure: Figure) -> float | None:
    return figure.mib


def registering(results: Results, size: Size) -> list[float]:
    """Seconds that a release takes with a ledger and not without, of each turn."""
    one = f"generate {size.rows}"
    without = {f.turn: f.seconds for f in results.of(f"{one}/without a ledger")}
    both = [f for f in results.of(f"{one}/tags") if f.turn in without]
    return [f.seconds - without[f.turn] for f in both]


def rate(results: Results, size: Size, side: str) -> float | None:
    """Rows a second between two releases, so that what each begins with is left out."""
    few, many = (least(results, f"generate {n * size.rows}/{side}") for n in (1, 3))
    return None if few is None or many is None else 2 * size.rows / (many - few)
