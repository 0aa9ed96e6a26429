"""What loops of a Gaussian generator do, exactly, after any number of fits.

Reality is N(0, 1); a fit is the maximum-likelihood mean and variance of its training rows; fit
number 1 sees n real rows. Everything here is an expectation over chains at a finite step, derived
and not approximated; `gaussian.py` simulates the same loops, and the laboratory holds one against
the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice
from typing import Any

__all__ = [
    "Moments",
    "accumulate",
    "anchored",
    "fresh",
    "real_only",
    "replace",
    "spread",
    "survival",
]


@dataclass(frozen=True)
class Moments:
    """Of one fit: the expected variance, and the variance of the mean over chains."""

    variance: float
    of_mean: float


def real_only(n: int, steps: int) -> list[Moments]:
    """The control: the same n real rows at each step."""
    return [Moments(1 - 1 / n, 1 / n)] * steps


def replace(n: int, steps: int) -> list[Moments]:
    """Each fit sees n rows of the one before: E s²ₜ = (1 − 1/n)ᵗ, and what the variance loses the
    mean gains (Shumailov et al. 2024, supplement; Alemohammad et al. 2024)."""
    kept = [(1 - 1 / n) ** t for t in range(1, steps + 1)]
    return [Moments(k, 1 - k) for k in kept]


def spread(n: int, t: int) -> float:
    """The coefficient of variation of a replace loop's variance after t fits."""
    return float((((n + 1) / (n - 1)) ** t - 1) ** 0.5)


def accumulate(n: int, steps: int) -> list[Moments]:
    """Each fit sees all rows so far: E s²ₜ = ∏ᵢ (1 − 1/(n i²)), above sin(π/√n)/(π/√n)
    (Gerstgrasser et al. 2024; Kazdan et al. 2025)."""
    found, kept = [], 1.0
    for i in range(1, steps + 1):
        kept *= 1 - 1 / (n * i * i)
        found.append(Moments(kept, 1 - kept))
    return found


def anchored(n: int, rho: float, steps: int) -> list[Moments]:
    """All n real rows stay, beside the ρ n newest synthetic ones.

    The mean of fit t is the real rows' X̄ plus δₜ, and δₜ₊₁ = (1 − w)(δₜ + εₜ), where w = 1/(1 + ρ)
    and εₜ is the noise of the synthetic rows' mean, of variance s²ₜ/(ρ n). Its variance tends to
    ρ/(1 + 2ρ) of the control's: below one half, for any ρ.
    """

    def walk() -> Iterator[Moments]:
        made, total = rho * n, n * (1 + rho)
        drift, variance = 0.0, 1 - 1 / n
        yield Moments(variance, 1 / n)
        while True:
            gap = drift + variance / made  # E (S̄ − X̄)²
            squares = (n - 1) + (made - 1) * variance + n * made / total * gap
            drift = (made / total) ** 2 * gap
            variance = squares / total
            yield Moments(variance, 1 / n + drift)

    return list(islice(walk(), steps))


def fresh(n: int, share: float, steps: int) -> list[Moments]:
    """Of n rows each time, `share` are new real ones and the rest are the last fit's.

    With a = share: E′ = (1 − 1/n)(a + (1 − a) E) + a (1 − a) v and v′ = (a + (1 − a) E)/n +
    (1 − a)² v for the variance E and the mean's variance v. `share` times n is whole.
    """

    def walk() -> Iterator[Moments]:
        found = Moments(1 - 1 / n, 1 / n)
        for _ in count():
            yield found
            mixed = share + (1 - share) * found.variance
            found = Moments(
                (1 - 1 / n) * mixed + share * (1 - share) * found.of_mean,
                mixed / n + (1 - share) ** 2 * found.of_mean,
            )

    return list(islice(walk(), steps))


def survival(n: int, share: float, steps: int, copies: int | None = None) -> list[float]:
    """How likely a level of that true share is among the n training rows of each fit of a replace
    loop; with `copies`, of a level that so many of the first n rows have.

    Exact, by the binomial chain of its count (Wright and Fisher). For large n it is near
    1 − f_tᵏ with f₁ = 0 and f_{t+1} = exp(f_t − 1), the branching process of k copies.
    """
    import numpy as np
    from scipy.stats import binom

    counts, moves = np.arange(n + 1), _moves(n)
    now = binom.pmf(counts, n, share) if copies is None else (counts == copies).astype(float)
    found = []
    for _ in range(steps):
        found.append(float(1 - now[0]))
        now = now @ moves
    return found


@lru_cache(maxsize=1)
def _moves(n: int) -> Any:
    """Row i: how likely i of n rows become 0, 1, …, n. A level that has gone stays away."""
    import numpy as np
    from scipy.stats import binom

    counts = np.arange(n + 1)
    return binom.pmf(counts[None, :], n, counts[:, None] / n)
