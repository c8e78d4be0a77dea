"""How sure a figure over prompts is: intervals and tests that hold with few of them.

What was measured of one prompt is alike, so the unit is the prompt: a cluster of values. A figure
moves with the prompts that were drawn, and how far is seen from what each of them does to it. Out
of this one variance, with as few degrees of freedom as there are prompts, come an interval
(Student's, or Wilson's of a figure between bounds, as a share is) and the p of a difference, which
says the same as its interval.

Of values between bounds, and of any with about a normal distribution, the intervals hold what they
say from `LEAST` prompts on. Without bounds, few values of a long-tailed distribution show too
little of the tail.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import scipy.special

from jaxrm.statistics import Paired

Bounds = tuple[float, float]
"""What values are known to lie between."""

UNBOUNDED = (-np.inf, np.inf)
SHARE = (0.0, 1.0)

LEAST = 5
"""Clusters in each group that a figure rests on: with fewer its interval is withheld."""

PARTS = 1000
"""Of more clusters than this, `jackknife` leaves out several together."""

ROUNDING = 1e-9
"""Values that differ by less than this of their range are alike."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """How far a figure moves from one draw of clusters to another.

    Attributes:
      variance: of the figure; NaN where something that it rests on is of fewer than `LEAST`
        clusters.
      freedom: degrees of freedom of the variance, at least 1.
      pull: how far four clusters more, at the farther bound of each group whose values are all
        alike, would move the figure; 0 where no group's are.
    """

    variance: float
    freedom: float
    pull: float = 0.0


@dataclasses.dataclass(frozen=True, eq=False)
class Clustering:
    """Which cluster and which group each of n values is of. A cell is where the two meet.

    Attributes:
      group, cell: int [n], of each value.
      cluster_of, group_of: int [cells], of each cell.
      part: float64 [cells], the share of its group's values that a cell holds.
    """

    group: np.ndarray
    cell: np.ndarray
    cluster_of: np.ndarray
    group_of: np.ndarray
    part: np.ndarray

    @classmethod
    def of(cls, clusters: Sequence | np.ndarray, groups: np.ndarray | None = None) -> Clustering:
        """Args: clusters [n], by any names; groups int [n], all of 0 to K - 1, by default one."""
        _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
        group = np.zeros_like(cluster) if groups is None else groups
        count = int(group.max(initial=0)) + 1
        cells, cell = np.unique(cluster * count + group, return_inverse=True)
        cluster_of, group_of = np.divmod(cells, count)
        part = np.bincount(cell) / np.bincount(group)[group_of]
        return cls(group, cell, cluster_of, group_of, part)

    @property
    def cluster(self) -> np.ndarray:
        """Int [n]: the cluster of each value."""
        return self.cluster_of[self.cell]

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return len(np.unique(self.cluster_of))

    def means(self, values: np.ndarray) -> np.ndarray:
        """Float64 [K]: the mean of each group's values, float [n]."""
        return np.bincount(self.group, values) / np.bincount(self.group)

    def spread(
        self,
        values: np.ndarray,
        low: np.ndarray | float = -np.inf,
        high: np.ndarray | float = np.inf,
        weight: np.ndarray | float = 1.0,
    ) -> Spread:
        """The spread of the sum of the groups' means.

        A cluster moves the sum by its values' deviations from the means of their groups. A move is
        made larger by as much as the cluster has drawn the mean its way, so that the sum of their
        squares is the variance without bias (CR2 of Bell and McCaffrey 2002, Bias Reduction in
        Standard Errors). Its degrees of freedom are one less than the number of clusters of one
        size that would know it as well (Satterthwaite 1946): where one of them is most of what
        there is, hardly any.

        Few clusters may be alike by chance, and hide others. So a mean of n clusters between bounds
        has a deviation of at least the width between them, times half a cluster in n + 4. If all
        values are alike it is the distance to the farther bound, times two in n + 4: that of n + 4
        clusters of which four lie there (Agresti and Coull 1998, Approximate Is Better than Exact).

        Args:
          values: float64 [n].
          low, high: float [K], or one for all: what the values of each group lie between.
          weight: float [K] >= 0, or one for all: how much the sum rests on a group. Of a group with
            weight 0 all values are 0.
        """
        means = self.means(values)
        low, high, weight = (np.broadcast_to(part, means.shape) for part in (low, high, weight))
        apart = values - means[self.group]
        moves = np.bincount(self.cell, apart) * self.part / np.bincount(self.cell)
        with np.errstate(invalid="ignore", divide="ignore"):
            moves = np.where(weight[self.group_of] > 0, moves / np.sqrt(1 - self.part), 0.0)
        together = np.bincount(self.cluster_of, moves)
        alone = np.bincount(self.group_of, moves**2)

        # As many clusters of one size would be as sure of a mean whose clusters are alike inside.
        n = 1 / np.bincount(self.group_of, self.part**2)
        least, pull = _unseen(means, low, high, n, self.means(apart**2))
        variance = together @ together + np.maximum(least - alone, 0).sum()
        clusters = np.bincount(self.group_of)[weight > 0]
        enough = clusters.size and clusters.min() >= LEAST
        shares = np.bincount(self.cluster_of, self.part * weight[self.group_of])
        return Spread(float(variance) if enough else np.nan, _freedom(shares), float(pull.sum()))


def jackknife(
    statistic: Callable[[np.ndarray], float],
    clusters: Sequence | np.ndarray,
    bounds: Bounds = UNBOUNDED,
    parts: int = PARTS,
) -> Spread:
    """The spread of any figure of weighted values: how it changes when it lacks a cluster.

    Args:
      statistic: float64 [n] weights, 1 for a value that is there and 0 for one left out -> figure.
      clusters: [n], as for `Clustering.of`.
      bounds: what the figure lies between.
      parts: more clusters than this are put into so many parts at random, which are left out whole.

    Returns:
      Variance NaN where there are fewer than `LEAST` clusters, or the figure is not finite with
      all of them or without some.
    """
    _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(cluster.max()) + 1
    parts = min(parts, count)
    part = (np.random.default_rng(0).permutation(count) % parts)[cluster]
    value = statistic(np.ones(len(part)))
    shares = np.bincount(part) / len(part)
    if parts < LEAST or not np.isfinite(value):
        return Spread(np.nan, _freedom(shares))
    without = np.array([statistic((part != lacking).astype(float)) for lacking in range(parts)])
    with np.errstate(invalid="ignore", over="ignore"):
        variance = ((without - value) ** 2).sum() * (parts - 1) / parts
    least, pull = _unseen(value, *bounds, 1 / (shares @ shares), variance)
    variance = max(variance, least) if np.isfinite(variance) else np.nan
    return Spread(float(variance), _freedom(shares), float(pull))


def interval(
    value: float, spread: Spread, bounds: Bounds = UNBOUNDED, level: float = 0.95
) -> tuple[float, float]:
    """Of a figure: Student's, or between bounds Wilson's with Student's quantile.

    Wilson's interval (1927, Probable Inference) is of every share whose own variance would make the
    one that was seen not too unlikely. It needs the number of independent values of 0 and 1 that
    would have the spread.

    Returns:
      low and high; (-inf, inf) where the variance is NaN.
    """
    if np.isnan(spread.variance):
        return UNBOUNDED
    quantile = scipy.special.stdtrit(spread.freedom, (1 + _between(level)) / 2)
    low, high = bounds
    if not np.isfinite(high - low):
        reach = quantile * np.sqrt(spread.variance)
        return float(value - reach), float(value + reach)
    share, n = _as_share(value, spread, bounds)
    middle = (share + quantile**2 / (2 * n)) / (1 + quantile**2 / n)
    reach = np.sqrt(share * (1 - share) / n + quantile**2 / (4 * n**2)) * quantile
    reach /= 1 + quantile**2 / n
    # The share lies in between, but for rounding at 0 and 1.
    ends = max(0.0, min(middle - reach, share)), min(1.0, max(middle + reach, share))
    return low + (high - low) * float(ends[0]), low + (high - low) * float(ends[1])


def p_of_zero(value: float, spread: Spread, bounds: Bounds = UNBOUNDED) -> float:
    """The two-sided p of a figure of 0, which is at most 1 - level just where `interval` leaves 0
    out; 1 where the variance is NaN.

    Args:
      bounds: on either side of 0.
    """
    if np.isnan(spread.variance) or value == 0:
        return 1.0
    low, high = bounds
    if np.isfinite(high - low):
        share, n = _as_share(value, spread, bounds)
        zero = -low / (high - low)
        distance = abs(share - zero) * np.sqrt(n / (zero * (1 - zero)))
    else:
        distance = abs(value) / np.sqrt(spread.variance) if spread.variance else np.inf
    return float(2 * scipy.special.stdtr(spread.freedom, -distance))


def mean_interval(
    values: Sequence[float] | np.ndarray,
    clusters: Sequence | np.ndarray | None = None,
    level: float = 0.95,
    bounds: Bounds = UNBOUNDED,
) -> tuple[float, float]:
    """The interval of the mean of `values`, over whole clusters of them.

    Args:
      values: [n >= 1], finite and within the bounds.
      clusters: [n] which prompt each value is of; without them each value is a cluster.
      level: of the interval, between 0 and 1.
      bounds: what values are known to lie between, as (0, 1) for shares. Where they are known, say
        so: without them the interval of few values near a bound is too narrow.

    Returns:
      low and high; (-inf, inf) of fewer than `LEAST` clusters.

    Raises:
      ValueError: no values, lengths that differ, a value that is not finite or out of bounds, or a
        level not between 0 and 1.
    """
    values, clustering = _checked(values, clusters, bounds)
    return interval(values.mean(), clustering.spread(values, *bounds), bounds, level)


def paired_items(
    differences: Sequence[float] | np.ndarray,
    clusters: Sequence | np.ndarray | None = None,
    level: float = 0.95,
    bounds: Bounds | None = None,
) -> Paired:
    """The mean difference of two scorers over the same items, with its interval and p.

    Args:
      differences: [n >= 1] one scorer's credit minus the other's, item by item.
      clusters, level: as for `mean_interval`.
      bounds: what differences are known to lie between, as (-1, 1) for those of credits from 0 to
        1; by default the largest that was seen, either way, as under the null hypothesis each could
        as well have had the other sign.

    Returns:
      n is the number of clusters; `low` > 0 or `high` < 0 exactly when p <= 1 - level. Of fewer
      than `LEAST` clusters the interval is (-inf, inf) and p is 1.

    Raises:
      ValueError: as `mean_interval`.
    """
    largest = np.abs(np.asarray(differences, np.float64)).max(initial=0.0)
    bounds = bounds or ((-largest, largest) if largest else UNBOUNDED)
    differences, clustering = _checked(differences, clusters, bounds)
    spread = clustering.spread(differences, *bounds)
    return of_spread(float(differences.mean()), spread, bounds, clustering.count, level)


def of_spread(
    difference: float, spread: Spread, bounds: Bounds, n: int, level: float = 0.95
) -> Paired:
    """A difference over n clusters with its interval and p."""
    low, high = interval(difference, spread, bounds, level)
    return Paired(difference, low, high, p_of_zero(difference, spread, bounds), n)


def _freedom(shares: np.ndarray) -> float:
    """Degrees of freedom of a variance out of clusters that a figure rests on in these shares."""
    if not shares.any():
        return 1.0
    squares = shares**2
    return max(1.0, float(squares.sum() ** 2 / (squares @ squares)) - 1)


def _unseen(
    value: np.ndarray | float,
    low: np.ndarray | float,
    high: np.ndarray | float,
    n: np.ndarray | float,
    squares: np.ndarray | float,
) -> tuple[np.ndarray, np.ndarray]:
    """Of means of n clusters between bounds: the least variance, and the pull of alike ones, whose
    mean square deviation is 0."""
    bounded = np.isfinite(high - low)
    width = np.where(bounded, high - low, 0.0)
    alike = squares <= (ROUNDING * width) ** 2
    far = np.where(bounded, np.where(high - value > value - low, high - value, low - value), 0.0)
    least = np.where(alike, 2 * far, width / 2) / (n + 4)
    return least**2, np.where(alike, 4 * far, 0.0) / (n + 4)


def _as_share(value: float, spread: Spread, bounds: Bounds) -> tuple[float, float]:
    """A figure between bounds as a share of the way from one to the other, and the number of
    independent values of 0 and 1 with its spread."""
    low, high = bounds
    share, pulled = (np.clip((x - low) / (high - low), 0, 1) for x in (value, value + spread.pull))
    return float(share), float(pulled * (1 - pulled) * (high - low) ** 2 / spread.variance)


def _checked(
    values: Sequence[float] | np.ndarray, clusters: Sequence | np.ndarray | None, bounds: Bounds
) -> tuple[np.ndarray, Clustering]:
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
        raise ValueError(f"one row of finite numbers is needed, not {values}")
    if numbers.min() < bounds[0] or numbers.max() > bounds[1]:
        raise ValueError(f"{values} are not all within the bounds {bounds}")
    names = np.arange(numbers.size) if clusters is None else np.asarray(clusters)
    if names.shape != numbers.shape:
        raise ValueError(f"clusters of shape {names.shape} for values of shape {numbers.shape}")
    return numbers, Clustering.of(names)


def _between(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    return level
