"""How well rewards order responses by their ranks, whichever of them is the best.

Accuracy is strict: a tie of rewards is no win, so a model that gives every response the same reward
scores 0, not 1/2 or 1; neither is a comparison with NaN.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxrm.data.comparison import Comparison, fault
from jaxrm.data.ordering import ordered_pairs, shares


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """A share of comparisons got right, over `n` of them, with its standard error."""

    accuracy: float
    n: int
    standard_error: float


def require_order(comparisons: Sequence[Comparison]) -> None:
    """Checks that there is an order to get right, which every figure here and every diagnosis asks
    for. Called as soon as the comparisons are read, it costs nothing to find out.

    Raises DataError, naming the first row at fault, where a comparison has no ranks, or none of
    them prefers any response to another.
    """
    unknown = [comparison for comparison in comparisons if comparison.ranks is None]
    if unknown:
        problem = (
            f"missing, as in {len(unknown):,} of the {len(comparisons):,} comparisons read here: "
            "what is measured is whether the better response gets the higher reward. Give rows "
            "that say which is better (chosen and rejected, or responses with ranks), or leave "
            "these out"
        )
        raise fault(unknown[0].where, "ranks", problem)
    if not any(len(set(comparison.ranks)) > 1 for comparison in comparisons):
        where = comparisons[0].where if comparisons else ""
        problem = (
            "neither this nor a later row prefers any response: all tie, or stand alone. Give rows "
            "in which one response is better than another"
        )
        raise fault(where, "ranks", problem)


def accuracy(rewards: Sequence[np.ndarray], comparisons: Sequence[Comparison]) -> Accuracy:
    """The mean over comparisons of the share of their ordered pairs that `rewards` order alike.

    Of a pair that share is 0 or 1. Comparisons all of whose responses tie have no order to get
    right and are not counted in n.

    Args:
        rewards: [K] floats for each comparison, in the order of its responses.
        comparisons: the same comparisons, with ranks.

    Returns:
        accuracy; n, the comparisons counted; and the standard error of their mean, which for pairs
        is sqrt(p (1 - p) / n).

    Raises:
        DataError: as `require_order`.
    """
    return _mean(strict_shares(rewards, comparisons))


def accuracy_by_subset(
    rewards: Sequence[np.ndarray], comparisons: Sequence[Comparison]
) -> dict[str, Accuracy]:
    """`accuracy` of each subset by itself, in order of appearance; ties alone make no subset."""
    right = strict_shares(rewards, comparisons)
    groups: dict[str, list[int]] = {}
    for i, comparison in enumerate(comparisons):
        if not np.isnan(right[i]):
            groups.setdefault(comparison.subset, []).append(i)
    return {subset: _mean(right[places]) for subset, places in groups.items()}


def macro_accuracy(rewards: Sequence[np.ndarray], comparisons: Sequence[Comparison]) -> float:
    """The mean of the accuracies of the subsets, each counting alike however large it is.

    Args:
        rewards, comparisons: as for `accuracy`.

    Raises:
        DataError: as `require_order`.
    """
    subsets = accuracy_by_subset(rewards, comparisons)
    return float(np.mean([subset.accuracy for subset in subsets.values()]))


def loss(rewards: Sequence[np.ndarray], comparisons: Sequence[Comparison]) -> float:
    """The mean over comparisons of their ordered pairs' mean Bradley-Terry loss, in nats.

    Args:
        rewards, comparisons: as for `accuracy`.
    """
    pairs, flat = ordered_pairs(comparisons), np.concatenate(rewards).astype(np.float64)
    losses = np.logaddexp(0.0, flat[pairs.worse] - flat[pairs.better])
    return float(np.average(losses, weights=1 / pairs.counts[pairs.owner]))


def order_of(rewards: Sequence[np.ndarray], comparisons: Sequence[Comparison]) -> dict[str, float]:
    """Macro and plain accuracy, n, the comparisons counted, and loss.

    Args, Raises: as for `accuracy`.
    """
    strict = accuracy(rewards, comparisons)
    return {
        "macro": macro_accuracy(rewards, comparisons),
        "accuracy": strict.accuracy,
        "n": strict.n,
        "loss": loss(rewards, comparisons),
    }


def strict_shares(rewards: Sequence[np.ndarray], comparisons: Sequence[Comparison]) -> np.ndarray:
    """Float64 [comparisons]: the share of each one's ordered pairs got right, NaN without any.

    Args, Raises: as for `accuracy`.
    """
    require_order(comparisons)
    for of_comparison, comparison in zip(rewards, comparisons, strict=True):
        if np.shape(of_comparison) != (len(comparison.ranks),):
            shape = np.shape(of_comparison)
            raise ValueError(f"rewards of shape {shape} for {len(comparison.ranks)} responses")
    pairs, flat = ordered_pairs(comparisons), np.concatenate([np.zeros(0), *rewards])
    return shares(flat[pairs.better] > flat[pairs.worse], pairs)


def _mean(shares: np.ndarray) -> Accuracy:
    counted = shares[~np.isnan(shares)]
    error = counted.std() / np.sqrt(counted.size)
    return Accuracy(float(counted.mean()), int(counted.size), float(error))
