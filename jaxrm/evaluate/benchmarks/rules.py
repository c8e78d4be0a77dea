"""What the rules of benchmarks have in common: credit for ordered responses, means of means."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from jaxrm.data.comparison import Comparison, plain_text
from jaxrm.data.ordering import ordered_pairs, shares
from jaxrm.evaluate.benchmark import Credit, Means

OVERALL = "overall"
"""The headline of most rules, and the group of `with_overall`."""


def prompt_key(comparison: Comparison) -> str:
    """The cluster of a comparison: 16 hexadecimal digits that its prompt's text alone decides."""
    return hashlib.sha256(plain_text(comparison.prompt).encode()).hexdigest()[:16]


def strict(comparisons: Sequence[Comparison], scores: Sequence[np.ndarray]) -> Iterator[Credit]:
    """To each subset, the share of ordered pairs in which the better response scores higher.

    Of a pair of responses that is 0 or 1. Comparisons all of whose responses tie are left out.

    Args:
      comparisons: with ranks.
      scores: float [K] for each; a tie is no win, nor is NaN.
    """
    pairs, scores = ordered_pairs(comparisons), np.concatenate([np.zeros(0), *scores])
    return _credits(comparisons, shares(scores[pairs.better] > scores[pairs.worse], pairs))


def half_for_ties(
    comparisons: Sequence[Comparison], scores: Sequence[np.ndarray]
) -> Iterator[Credit]:
    """As `strict`, but equal scores of an ordered pair count as half a win."""
    pairs, scores = ordered_pairs(comparisons), np.concatenate([np.zeros(0), *scores])
    wins = shares(scores[pairs.better] > scores[pairs.worse], pairs)
    ties = shares(scores[pairs.better] == scores[pairs.worse], pairs)
    return _credits(comparisons, wins + ties / 2)


def with_overall(credits: Iterable[Credit]) -> Iterator[Credit]:
    """Each credit in the group `OVERALL`, and again in its own if that has a name."""
    for credit in credits:
        yield dataclasses.replace(credit, group=OVERALL)
        if credit.group:
            yield credit


def mean(values: Iterable[float]) -> float:
    """The unweighted mean; NaN if one of them is."""
    values = list(values)
    return sum(values) / len(values)


def weighted(means: Means, weights: Mapping[str, float]) -> float:
    """The mean of the groups that `weights` names; NaN if one of theirs is."""
    return sum(means[group] * weight for group, weight in weights.items()) / sum(weights.values())


def ratio(above: float, below: float) -> float:
    """above / below; NaN if one of them is, or if there is nothing to divide by."""
    return above / below if below else math.nan


def _credits(comparisons: Sequence[Comparison], values: np.ndarray) -> Iterator[Credit]:
    for comparison, value in zip(comparisons, values.tolist(), strict=True):
        if value == value:
            yield Credit(comparison.subset, prompt_key(comparison), value)
