"""Does the reward follow length?

Length is counted in characters, because every scorer and every tokenizer agree on them: slopes of
two models can be compared. Differences are log ratios, in doublings, so that little hangs on the
unit. An empty answer has no ratio to another one, and is left out and counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxrm.data.audit.floors import longer, response_texts
from jaxrm.data.comparison import Comparison
from jaxrm.evaluate.diagnosis.margins import flat, margins, response_prompts
from jaxrm.evaluate.estimates import Estimate, estimate, share

EDGES = (1 / 4, 1 / 2, 4 / 5, 5 / 4, 2, 4)
"""Between the bins: the better response's length over the worse one's."""

PRIOR = 10.0
"""Standard deviation of the Gaussian prior on the logistic regression's two coefficients: too wide
to matter, but for pairs that length settles without exception, whose likeliest slope is infinite.
"""


@dataclasses.dataclass(frozen=True)
class Bin:
    """Pairs of about the same length ratio, better over worse, from `low` up to below `high`.

    Attributes:
      doublings: their mean log2 ratio; NaN for an empty bin.
      accuracy: strict, over pairs.
    """

    low: float
    high: float
    doublings: float
    accuracy: Estimate


@dataclasses.dataclass(frozen=True)
class Length:
    """How much a scorer's order has to do with length.

    Attributes:
      bins: accuracy by length ratio, one for each gap of `EDGES`.
      log_odds: slope of a logistic regression, with intercept, of "the better response has the
        higher reward" on doublings by which it is longer. 0 where length plays no part.
      margin: slope of a linear regression, with intercept, of the margin on the same: rewards per
        doubling between a better and a worse response.
      within_prompt: slope of reward on log2 length inside prompts, whatever the labels: rewards per
        doubling.
      prefers_longer: of the pairs that differ in length, how many the scorer settles for the
        longer response.
      labels_prefer_longer: how many of the same pairs the labels do.
      empty: pairs left out for an empty response.
      missing: pairs without both rewards; they count as not right in `bins` and `log_odds`.
    """

    bins: tuple[Bin, ...]
    log_odds: Estimate
    margin: Estimate
    within_prompt: Estimate
    prefers_longer: Estimate
    labels_prefer_longer: Estimate
    empty: int
    missing: int


def length(scores: Sequence[np.ndarray], comparisons: Sequence[Comparison]) -> Length:
    """The figures of length; rewards are in the unit of `scores`.

    Args:
      scores: float [K] for each comparison; NaN where there is none.

    Raises:
      DataError: as `margins`.
    """
    of_pairs = margins(scores, comparisons)
    characters = longer(response_texts(comparisons))
    better, worse = characters[of_pairs.pairs.better], characters[of_pairs.pairs.worse]
    measured = (better > 0) & (worse > 0)
    doublings = np.log2(better[measured] / worse[measured])
    values, prompts = of_pairs.values[measured], of_pairs.pair_prompts[measured]
    weight, right = of_pairs.weight[measured], of_pairs.values[measured] > 0

    finite, uneven = ~np.isnan(values), doublings != 0
    decided = uneven & finite
    prefers = np.sign(values) == np.sign(doublings)
    return Length(
        bins=_bins(doublings, right, prompts),
        log_odds=estimate(lambda drawn: _log_odds(doublings, right, drawn * weight), prompts),
        margin=estimate(
            lambda drawn: _line(doublings[finite], values[finite], drawn * weight[finite]),
            prompts[finite],
        ),
        within_prompt=_within_prompt(scores, comparisons),
        prefers_longer=share(prefers[decided], prompts[decided]),
        labels_prefer_longer=share(doublings[decided] > 0, prompts[decided]),
        empty=int((~measured).sum()),
        missing=int(np.isnan(of_pairs.values).sum()),
    )


def logistic(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Float [2]: intercept and slope of a weighted logistic regression, by Newton's method.

    Args:
      x: float [n].
      y: bool [n].
      weight: float [n], at least 0.
    """
    design = np.stack([np.ones_like(x), x])
    coefficients = np.zeros(2)
    for _ in range(50):
        chance = 1 / (1 + np.exp(-np.clip(coefficients @ design, -500, 500)))
        gradient = design @ (weight * (y - chance)) - coefficients / PRIOR**2
        curvature = (design * (weight * chance * (1 - chance))) @ design.T + np.eye(2) / PRIOR**2
        step = np.linalg.solve(curvature, gradient)
        # Where pairs are nearly separated a whole step can leap far beyond the maximum.
        coefficients += step / max(1.0, np.abs(step).max())
        if np.abs(step).max() < 1e-8:
            break
    return coefficients


def _log_odds(doublings: np.ndarray, right: np.ndarray, weight: np.ndarray) -> float:
    """The slope of `logistic`. It is 0 where all pairs with a weight are right, or none is: the
    prior would give them one, and they are right as often at every length."""
    drawn = right[weight > 0]
    if drawn.all() or not drawn.any():
        return 0.0
    return float(logistic(doublings, right, weight)[1])


def _bins(doublings: np.ndarray, right: np.ndarray, prompts: np.ndarray) -> tuple[Bin, ...]:
    # Rounded, so that a ratio of exactly 5 / 4 does not fall below its edge.
    place = np.digitize(np.round(doublings, 9), np.round(np.log2(EDGES), 9))
    ends = (0.0, *EDGES, np.inf)
    bins = []
    for i in range(len(EDGES) + 1):
        inside = place == i
        centre = float(doublings[inside].mean()) if inside.any() else np.nan
        bins.append(Bin(ends[i], ends[i + 1], centre, share(right[inside], prompts[inside])))
    return tuple(bins)


def _within_prompt(scores: Sequence[np.ndarray], comparisons: Sequence[Comparison]) -> Estimate:
    rewards, characters = flat(scores), longer(response_texts(comparisons))
    prompts = response_prompts(comparisons)
    kept = ~np.isnan(rewards) & (characters > 0)
    prompts = prompts[kept]
    reward = centred(rewards[kept], prompts)
    doublings = centred(np.log2(characters[kept]), prompts)

    def slope(weight: np.ndarray) -> float:
        return _ratio(weight @ (doublings * reward), weight @ doublings**2)

    return estimate(slope, prompts)


def centred(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Float [n]: each value minus the mean of its group, int [n]."""
    _, member = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(member, values), np.bincount(member)
    return values - (sums / np.maximum(counts, 1))[member]


def _line(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """The slope of a weighted linear regression with intercept; NaN where x never differs."""
    total = weight.sum()
    if not total:
        return np.nan
    apart = x - weight @ x / total
    return _ratio(weight @ (apart * y), weight @ apart**2)


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below > 1e-12 else np.nan
