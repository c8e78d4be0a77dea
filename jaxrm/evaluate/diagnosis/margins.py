"""What a scorer says of every ordered pair: the better response's reward minus the worse one's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxrm.data.comparison import Comparison
from jaxrm.data.ordering import OrderedPairs, ordered_pairs, shares
from jaxrm.read.accuracy import require_order


@dataclasses.dataclass(frozen=True, eq=False)
class Margins:
    """The ordered pairs of a list of comparisons under one scorer.

    Attributes:
      values: float64 [pairs], the margins; NaN where either response has no reward.
      rewards: float64 [responses], those of one comparison together.
      pairs: which responses each pair is of, and from which comparison.
      prompts: int [comparisons], which prompt each is of: the same number, the same prompt.
    """

    values: np.ndarray
    rewards: np.ndarray
    pairs: OrderedPairs
    prompts: np.ndarray

    @property
    def pair_prompts(self) -> np.ndarray:
        """Int [pairs]: which prompt each pair is of."""
        return self.prompts[self.pairs.owner]

    @property
    def weight(self) -> np.ndarray:
        """Float64 [pairs]: one over the pairs of its comparison: comparisons count alike."""
        return 1 / self.pairs.counts[self.pairs.owner]

    def share(self, holds: np.ndarray) -> np.ndarray:
        """Float [comparisons]: of how much of each one's ordered pairs `holds`, bool [pairs], is
        true; NaN where a comparison orders nothing."""
        return shares(holds, self.pairs)


def margins(scores: Sequence[np.ndarray], comparisons: Sequence[Comparison]) -> Margins:
    """Margins of every ordered pair of every comparison.

    Args:
      scores: float [K] for each comparison, as a Scorer gives them; NaN where there is none.

    Raises:
      DataError: as `require_order`.
      ValueError: scores of another shape than the comparisons.
    """
    require_order(comparisons)
    for row, comparison in zip(scores, comparisons, strict=True):
        if np.shape(row) != (len(comparison.responses),):
            raise ValueError(f"{np.shape(row)} scores for {len(comparison.responses)} responses")
    pairs = ordered_pairs(comparisons)
    rewards = flat(scores)
    values = rewards[pairs.better] - rewards[pairs.worse]
    return Margins(values, rewards, pairs, prompt_numbers(comparisons))


def flat(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Float64 [responses]: the scores of all comparisons in order. What is not finite is NaN."""
    rewards = np.concatenate([np.zeros(0), *scores]).astype(np.float64)
    return np.where(np.isfinite(rewards), rewards, np.nan)


def prompt_numbers(comparisons: Sequence[Comparison]) -> np.ndarray:
    """Int [comparisons]: prompts numbered by first appearance, equal ones alike."""
    numbers: dict[object, int] = {}
    numbered = [numbers.setdefault(comparison.prompt, len(numbers)) for comparison in comparisons]
    return np.array(numbered, int)


def response_prompts(comparisons: Sequence[Comparison]) -> np.ndarray:
    """Int [responses]: which prompt each response is of."""
    return np.repeat(prompt_numbers(comparisons), [len(c.responses) for c in comparisons])
