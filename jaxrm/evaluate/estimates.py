"""Figures with their 95 % intervals, which draw whole prompts: answers to one prompt are alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from jaxrm.evaluate import statistics

DRAWS = 1000
"""How often the prompts are drawn anew for a figure that is no mean."""

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % interval, and how much it rests on.

    Attributes:
      value: NaN where nothing could be measured.
      low, high: NaN where fewer than two prompts are left.
      n: what was averaged or fitted: pairs, responses or comparisons, as the figure says.
      prompts: how many prompts they are of.
    """

    value: float
    low: float
    high: float
    n: int
    prompts: int


NOTHING = Estimate(np.nan, np.nan, np.nan, 0, 0)
"""Of no items at all."""


def mean(values: Sequence[float] | np.ndarray, prompts: np.ndarray) -> Estimate:
    """The mean of the values that are not NaN, with a bootstrap's interval.

    Args:
      values: [n].
      prompts: int [n], which prompt each value is of.
    """
    return _of(values, prompts, statistics.bootstrap_interval)


def share(holds: Sequence[float] | np.ndarray, prompts: np.ndarray) -> Estimate:
    """The mean of values from 0 to 1, as `mean`, with Wilson's interval, which knows doubt even
    where all of them are alike."""
    return _of(holds, prompts, statistics.share_interval)


def estimate(statistic: Callable[[np.ndarray], float], prompts: np.ndarray) -> Estimate:
    """Any figure of weighted items, with a bootstrap's interval.

    Args:
      statistic: float [n] weights of the items -> the figure. In a draw an item's weight is how
        often its prompt was drawn. It may be infinite; NaN is a draw that shows nothing.
      prompts: int [n], which prompt each item is of.
    """
    count = len(np.unique(prompts))
    if not count:
        return NOTHING
    low = high = np.nan
    if count > 1:
        draws = [statistic(weight) for weight in statistics.resamples(prompts, DRAWS)]
        drawn = np.array(draws)[~np.isnan(draws)]
        if drawn.size:
            # No interpolation: between a number and infinity there is nothing to interpolate.
            tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
            low, high = np.quantile(drawn, tails, method="inverted_cdf").tolist()
    return Estimate(float(statistic(np.ones(len(prompts)))), low, high, len(prompts), count)


def _of(
    values: Sequence[float] | np.ndarray,
    prompts: np.ndarray,
    interval: Callable[[np.ndarray, np.ndarray, float], tuple[float, float]],
) -> Estimate:
    given = np.asarray(values, np.float64)
    kept = ~np.isnan(given)
    given, prompts = given[kept], np.asarray(prompts)[kept]
    count = len(np.unique(prompts))
    if not count:
        return NOTHING
    low, high = interval(given, prompts, LEVEL) if count > 1 else (np.nan, np.nan)
    return Estimate(float(given.mean()), low, high, given.size, count)
