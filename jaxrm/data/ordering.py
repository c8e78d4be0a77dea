"""Which responses are better than which, over a whole list of comparisons at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxrm.data.comparison import Comparison


@dataclass(frozen=True, eq=False)
class OrderedPairs:
    """Every pair of responses that the ranks of its comparison order.

    Attributes:
        better, worse: int [pairs], places in the responses of all comparisons, one after another.
        owner: int [pairs], the comparison that each pair is of.
        counts: int [comparisons], how many pairs each has.
    """

    better: np.ndarray
    worse: np.ndarray
    owner: np.ndarray
    counts: np.ndarray


def ordered_pairs(comparisons: Sequence[Comparison]) -> OrderedPairs:
    """Every ordered pair of every comparison; none of one whose ranks are missing or all tie."""
    better, worse, counts, first = [np.zeros(0, int)], [np.zeros(0, int)], [], 0
    for comparison in comparisons:
        ranks = np.array(comparison.ranks or [0] * len(comparison.responses))
        above, below = np.nonzero(ranks[:, None] < ranks[None, :])
        better.append(first + above)
        worse.append(first + below)
        counts.append(len(above))
        first += len(ranks)
    owner = np.repeat(np.arange(len(counts)), counts)
    return OrderedPairs(np.concatenate(better), np.concatenate(worse), owner, np.array(counts, int))


def shares(holds: np.ndarray, pairs: OrderedPairs) -> np.ndarray:
    """Float64 [comparisons]: of how much of each one's ordered pairs something holds (bool
    [pairs]); NaN where there are none."""
    held = np.bincount(pairs.owner, holds, len(pairs.counts))
    return np.where(pairs.counts > 0, held / np.maximum(pairs.counts, 1), np.nan)
