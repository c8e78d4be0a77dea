"""How sure a difference between two methods is: intervals, tests, a claim's verdict.

Of a method the unit is the seed (of one model on many items it is the prompt: `clusters`). Both
methods run on the same seeds, and n differences, one for each seed, say which is better. Under the
null hypothesis that neither is, every difference could as well have had the other sign, so the
signs alone give a test (Fisher 1935, The Design of Experiments, section 21) that is exact for a
handful of seeds and assumes no normal distribution. Its interval is every gain that the test does
not reject.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy.special

ENUMERATED = 16
"""Up to this many differences every assignment of signs is tried; of more, a sample."""

DRAWS = 100_000
"""Assignments of signs in that sample."""

ROUNDING = 1e-9
"""A sum this small beside the sum of the absolute differences is 0: ties must stay ties."""


@dataclasses.dataclass(frozen=True)
class Paired:
    """A mean of n paired differences, its interval (`low`, `high`), and the p of a mean of 0."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def paired(differences: Sequence[float] | np.ndarray, level: float = 0.95) -> Paired:
    """The sign-flip test and its interval: `low` > 0 or `high` < 0 exactly when p <= 1 - level.

    Args:
      differences: [n >= 2] one method's metric minus the other's, a number for each seed.
      level: of the interval, between 0 and 1.

    Raises:
      ValueError: as `sign_flip_interval`.
    """
    differences = _finite(differences)
    low, high = sign_flip_interval(differences, level)
    return Paired(float(differences.mean()), low, high, sign_flip(differences), differences.size)


def sign_flip(differences: Sequence[float] | np.ndarray) -> float:
    """The two-sided p of the paired sign-flip test that the differences are symmetric about 0.

    It is the share of the 2^n assignments of signs, the observed one among them, whose sum is at
    least as far from 0 as the observed sum. So it is at least 2 / 2^n, and below 6 differences it
    never reaches .05. Beyond `ENUMERATED` differences the share is that of `DRAWS` random
    assignments and the observed one, always the same for the same differences in the same order;
    this takes about 1 MB for each difference, which is meant for seeds and not for items.

    Args:
      differences: [n >= 2], finite.

    Raises:
      ValueError: fewer than two differences, or one that is not finite.
    """
    differences = _finite(differences)
    smaller, larger = _halves(differences)
    reached = smaller <= 0 if differences.sum() > 0 else larger >= 0
    return float((1 + np.count_nonzero(reached)) / (1 + len(reached)))


def sign_flip_interval(
    differences: Sequence[float] | np.ndarray, level: float = 0.95
) -> tuple[float, float]:
    """The shifts of the differences that `sign_flip` does not reject at 1 - level, ends included.

    Moving the differences down by a shift moves the means of `_halves` with them, so for a shift
    below the mean p counts the smaller means that are at most the shift. That count rises with the
    shift, hence the shifts kept are an interval and its ends are two of those means: no search is
    needed (Hartigan 1969, Using Subsample Values as Typical Values).

    Returns:
      low and high, in the unit of the differences; (-inf, inf) where n is so small that nothing
      could be rejected, at .95 below 6.

    Raises:
      ValueError: as `sign_flip`, or a level not between 0 and 1.
    """
    differences = _finite(differences)
    rejected = 1 - _share(level, "level")
    smaller, larger = _halves(differences)
    place = int(rejected * (1 + len(smaller)))
    if place == 0:
        return -np.inf, np.inf
    return float(np.sort(smaller)[place - 1]), float(np.sort(larger)[-place])


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """P-values adjusted so that the chance of any false rejection among them stays below the level.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none may fall below one
    before it or rise above 1 (Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure).

    Args:
      p_values: [m] in any order.

    Returns:
      Float64 [m], in the same order.

    Raises:
      ValueError: a p-value that is not between 0 and 1.
    """
    numbers = np.asarray(p_values, np.float64)
    if numbers.ndim != 1 or not ((numbers >= 0) & (numbers <= 1)).all():
        raise ValueError(f"p-values are one row of numbers from 0 to 1, not {p_values}")
    order = np.argsort(numbers)
    steps = numbers[order] * np.arange(numbers.size, 0, -1)
    adjusted = np.empty_like(numbers)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def minimum_detectable_effect(
    standard_deviation: float, n: int, level: float = 0.95, power: float = 0.8
) -> float:
    """The mean of n paired differences that a two-sided test at 1 - level finds with this power.

    Computed for the t test of normal differences, whose power the sign-flip test nearly has from 8
    differences on; at 6, where it rejects only if all have one sign, its .8 is really .63. Where n
    is so small that the sign-flip test can reject nothing (at .95 below 6) the effect is infinite.

    Args:
      standard_deviation: of the differences between seeds; the effect has its unit.
      n: differences, at least 2.
      level, power: between 0 and 1, the power above 1 - level.

    Raises:
      ValueError: an argument out of its range.
    """
    rejected = 1 - _share(level, "level")
    if not _share(power, "power") > rejected:
        raise ValueError(f"a power of {power} is no more than chance at level {level}")
    if not (standard_deviation >= 0 and n >= 2):
        raise ValueError(f"a deviation of {standard_deviation} over {n} differences")
    if 2.0 ** (1 - n) > rejected:
        return np.inf
    critical = scipy.special.stdtrit(n - 1, 1 - rejected / 2)
    noncentrality = scipy.special.nctdtrinc(n - 1, 1 - power, critical)
    return float(noncentrality * standard_deviation / np.sqrt(n))


def verdict(gain: Paired, *, worthwhile: float = 0.02) -> Literal["supported", "refuted", "open"]:
    """Whether the claim of a gain holds: supported, refuted, or open.

    Supported if the interval lies above 0, refuted if it lies below what would be worthwhile, open
    otherwise. An interval may do both: the gain is real, and too small to matter. It is then
    supported, because the claim is of a gain and the rule asks for that first; how small it is the
    interval must say, so report the two together.

    Args:
      gain: the method's metric minus that of the best control.
      worthwhile: the least gain that would matter, in the metric's unit.
    """
    if gain.low > 0:
        return "supported"
    return "refuted" if gain.high < worthwhile else "open"


def estimate(values: Sequence[float] | np.ndarray) -> dict[str, float | int | None]:
    """The mean over seeds and its standard error, which a single seed does not have."""
    seeds = np.asarray(values, np.float64)
    error = float(seeds.std(ddof=1) / np.sqrt(seeds.size)) if seeds.size > 1 else None
    return {"mean": float(seeds.mean()), "standard_error": error, "n": seeds.size}


def _halves(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float64 [B] twice: of each way to flip signs, the smaller and larger mean of its two halves.

    The halves are the differences that are flipped and those that are kept, with sums f and k. Say
    k + f is not negative. Then |k - f| >= k + f exactly when k or f is at most 0, so whether a flip
    reaches the observed sum is read from the smaller mean (from the larger one, if the sum is
    negative). Flipping all changes no distance from 0, so the first difference is never flipped,
    and the observed assignment is left out: the test counts it by itself.
    """
    rest = differences.size - 1
    if differences.size <= ENUMERATED:
        flipped = np.arange(1, 2**rest)[:, None] >> np.arange(rest) & 1
    else:
        flipped = np.random.default_rng(0).integers(0, 2, (DRAWS, rest), dtype=np.int8)
        flipped = flipped[flipped.any(axis=1)]
    sums = flipped @ differences[1:]
    counts = flipped.sum(axis=1, dtype=np.int64)
    halves = np.stack([sums, differences.sum() - sums])
    halves[np.abs(halves) <= ROUNDING * np.abs(differences).sum()] = 0
    means = halves / np.stack([counts, differences.size - counts])
    return means.min(axis=0), means.max(axis=0)


def _finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Float64 [n >= 2], or a ValueError."""
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or numbers.size < 2 or not np.isfinite(numbers).all():
        raise ValueError(f"one row of two or more finite numbers is needed, not {values}")
    return numbers


def _share(value: float, name: str) -> float:
    """`value` strictly between 0 and 1, or a ValueError."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, not {value}")
    return value
