"""Does the scorer read the prompt? Its accuracy when every prompt is another comparison's.

A response that was better for its own prompt is seldom so for another one, except in what any
prompt rewards: manners, length, markup, fluency. A scorer that is as often right with the wrong
prompt reads the answer alone.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from jaxrm.data.comparison import Comparison
from jaxrm.errors import DataError
from jaxrm.evaluate.diagnosis.margins import margins
from jaxrm.evaluate.estimates import Estimate, mean, share


@dataclasses.dataclass(frozen=True)
class Blind:
    """Strict accuracy with the own prompt and with another one, over the same comparisons.

    Attributes:
      own, swapped: shares of comparisons; of a comparison, the share of its ordered pairs.
      lost: own minus swapped, comparison by comparison.
      same_order: the share of pairs that both readings put in the same order.
      left_out: comparisons for which there was no other prompt of their kind.
      missing: pairs without both rewards in either reading; they are not right, and not among
        those of `same_order`.
    """

    own: Estimate
    swapped: Estimate
    lost: Estimate
    same_order: Estimate
    left_out: int
    missing: int


def swap_prompts(
    comparisons: Sequence[Comparison], seed: int = 0
) -> tuple[np.ndarray, list[Comparison]]:
    """Comparisons under other comparisons' prompts, never under an equal one.

    Distinct prompts are put in a random circle and each passes to the next, so that comparisons of
    one prompt stay together. Raw text passes to raw text, and a conversation to one that ends with
    a turn of the same role, or its template could refuse what follows.

    Returns:
      int [m], which comparisons have another prompt, in order; and those m comparisons.

    Raises:
      DataError: fewer than two distinct prompts of any one kind.
    """
    kinds: dict[str, dict] = defaultdict(dict)
    for comparison in comparisons:
        kinds[_kind(comparison)].setdefault(comparison.prompt)
    generator = np.random.default_rng(seed)
    other = {}
    for prompts in kinds.values():
        circle = list(prompts)
        if len(circle) < 2:
            continue
        order = generator.permutation(len(circle))
        for taker, giver in zip(order, np.roll(order, -1), strict=True):
            other[circle[taker]] = circle[giver]
    places = [i for i, comparison in enumerate(comparisons) if comparison.prompt in other]
    if not places:
        where = comparisons[0].where if comparisons else ""
        problem = "to swap prompts there must be two or more distinct ones of a kind"
        raise DataError(f"{where or 'comparisons'}: field 'prompt': {problem}")
    swapped = [
        dataclasses.replace(comparisons[i], prompt=other[comparisons[i].prompt]) for i in places
    ]
    return np.array(places), swapped


def blind(
    scores: Sequence[np.ndarray],
    swapped_scores: Sequence[np.ndarray],
    comparisons: Sequence[Comparison],
    places: np.ndarray,
) -> Blind:
    """The figures of both readings.

    Args:
      scores: float [K] for each of `comparisons`.
      swapped_scores: float [K] for each comparison that `swap_prompts` made.
      places: int [m], which of `comparisons` those are.

    Raises:
      DataError: as `margins`.
    """
    kept = [comparisons[i] for i in places]
    own = margins([scores[i] for i in places], kept)
    swapped = margins(swapped_scores, kept)
    first, second = own.share(own.values > 0), swapped.share(swapped.values > 0)
    both = ~np.isnan(own.values + swapped.values)
    same = np.sign(own.values) == np.sign(swapped.values)
    return Blind(
        own=share(first, own.prompts),
        swapped=share(second, own.prompts),
        lost=mean(first - second, own.prompts, (-1.0, 1.0)),
        same_order=share(same[both], own.pair_prompts[both]),
        left_out=len(comparisons) - len(places),
        missing=int((~both).sum()),
    )


def _kind(comparison: Comparison) -> str:
    return "" if isinstance(comparison.prompt, str) else comparison.prompt[-1].role
