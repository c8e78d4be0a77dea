"""Figures with their 95 % intervals, which are over prompts: answers to one prompt are alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from jaxrm.evaluate import clusters
from jaxrm.evaluate.clusters import SHARE, UNBOUNDED, Bounds, Spread

WITHHELD = (
    f"Intervals take {clusters.LEAST} prompts or more in each subset that a figure rests on: with "
    "fewer there is none."
)
"""What a page says of a figure without an interval."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure, its 95 % interval, and how much it rests on.

    Attributes:
      value: NaN where nothing could be measured.
      low, high: NaN where the prompts are too few for an interval (`clusters.LEAST`), or where the
        figure has none without some of them.
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


def mean(
    values: Sequence[float] | np.ndarray, prompts: np.ndarray, bounds: Bounds = UNBOUNDED
) -> Estimate:
    """The mean of the values that are not NaN.

    Args:
      values: [n].
      prompts: int [n], which prompt each value is of.
      bounds: what values are known to lie between.
    """
    values = np.asarray(values, np.float64)
    kept = ~np.isnan(values)
    values, prompts = values[kept], np.asarray(prompts)[kept]
    if not values.size:
        return NOTHING
    low, high = clusters.mean_interval(values, prompts, bounds=bounds)
    return _of(values.mean(), low, high, prompts)


def share(holds: Sequence[float] | np.ndarray, prompts: np.ndarray) -> Estimate:
    """The mean of values from 0 to 1, as `mean`."""
    return mean(holds, prompts, SHARE)


def estimate(
    statistic: Callable[[np.ndarray], float],
    prompts: np.ndarray,
    bounds: Bounds = UNBOUNDED,
    parts: int = clusters.PARTS,
) -> Estimate:
    """Any figure of weighted items, with a jackknife's interval.

    Args:
      statistic: float [n] weights of the items -> the figure. An item's weight is 0 where its
        prompt is left out, else 1.
      prompts: int [n], which prompt each item is of.
      bounds: what the figure lies between.
      parts: as for `clusters.jackknife`.
    """
    if not len(prompts):
        return NOTHING
    value = float(statistic(np.ones(len(prompts))))
    spread = clusters.jackknife(statistic, prompts, bounds, parts)
    return of_spread(value, spread, prompts, bounds)


def auc(
    values: Float[np.ndarray, " n"],
    ours: Bool[np.ndarray, " n"],
    theirs: Bool[np.ndarray, " n"],
    groups: np.ndarray,
) -> Callable[[np.ndarray], float]:
    """A statistic for `estimate`: how often one of `ours` has a higher value than one of `theirs`
    of the same group; a tie is half.

    Args:
      groups: [n], which group each item is of.
    """
    difference = values[ours][:, None] - values[theirs]
    meets = groups[ours][:, None] == groups[theirs]
    wins = meets * ((difference > 0) + 0.5 * (difference == 0))

    def statistic(weights: np.ndarray) -> float:
        pairs = weights[ours] @ meets @ weights[theirs]
        return weights[ours] @ wins @ weights[theirs] / pairs if pairs else np.nan

    return statistic


def of_spread(
    value: float, spread: Spread, prompts: np.ndarray, bounds: Bounds = UNBOUNDED
) -> Estimate:
    """A figure of items with these prompts."""
    return _of(value, *clusters.interval(value, spread, bounds), prompts)


def _of(value: float, low: float, high: float, prompts: np.ndarray) -> Estimate:
    if np.isinf(low):
        low = high = np.nan
    return Estimate(float(value), low, high, len(prompts), len(np.unique(prompts)))
