"""How rewards lie: by subset, within and between prompts, and how finely they are told apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike

from jaxrm.data.audit.floors import UNNAMED, response_texts
from jaxrm.data.comparison import Comparison
from jaxrm.evaluate.clusters import SHARE
from jaxrm.evaluate.diagnosis.margins import Margins, flat, margins, response_prompts
from jaxrm.evaluate.estimates import Estimate, estimate, share

QUANTILES = (5, 25, 50, 75, 95)

FORMATS: Mapping[str, DTypeLike] = {"float32": np.float32, "bfloat16": jnp.bfloat16}
"""What servers of reward models hand rewards out in."""


@dataclasses.dataclass(frozen=True)
class Distribution:
    """Rewards of `n` responses: mean, standard deviation, and percentiles at `QUANTILES`."""

    n: int
    mean: float
    deviation: float
    quantiles: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Resolution:
    """What is left of the rewards in a number format.

    Attributes:
      distinct: different rewards.
      tied: share of pairs of different texts whose rewards are equal in it.
      too_close: share of the same pairs whose margin is below the spacing of the format's numbers
        at the larger of the two rewards, so that their order hangs on rounding.
    """

    distinct: int
    tied: Estimate
    too_close: Estimate


@dataclasses.dataclass(frozen=True)
class Spread:
    """How rewards lie.

    Attributes:
      together: the distribution of all rewards.
      subsets: that of each subset, where there are several.
      within: standard deviation of rewards within a prompt, pooled over prompts; NaN where no
        prompt has two.
      between: standard deviation of the prompts' own levels, without the part of it that comes of
        the spread within (one-way analysis of variance, method of moments); NaN likewise.
      share_within: the part of both variances that lies within prompts; NaN likewise, and where
        all rewards are alike.
      resolution: by number format.
      same_text: pairs of one text twice, which are in no figure of `resolution`.
      empty: responses that are white space alone; they are scored and counted like others.
      missing: responses without a reward.
    """

    together: Distribution
    subsets: Mapping[str, Distribution]
    within: float
    between: float
    share_within: Estimate
    resolution: Mapping[str, Resolution]
    same_text: int
    empty: int
    missing: int


def spread(scores: Sequence[np.ndarray], comparisons: Sequence[Comparison]) -> Spread:
    """The figures of the rewards as they are.

    Args:
      scores: float [K] for each comparison; NaN where there is none.

    Raises:
      DataError: as `margins`.
    """
    of_pairs = margins(scores, comparisons)
    present = ~np.isnan(of_pairs.rewards)
    rewards, prompts = of_pairs.rewards[present], response_prompts(comparisons)[present]
    within, between = components(rewards, prompts)
    texts = response_texts(comparisons)
    ends = zip(of_pairs.pairs.better, of_pairs.pairs.worse, strict=True)
    differ = np.array([texts[better] != texts[worse] for better, worse in ends])
    return Spread(
        together=distribution(of_pairs.rewards),
        subsets=_by_subset(scores, comparisons),
        within=within,
        between=between,
        share_within=estimate(
            lambda kept: _share_within(rewards[kept > 0], prompts[kept > 0]), prompts, SHARE
        ),
        resolution={name: _resolution(of_pairs, differ, kind) for name, kind in FORMATS.items()},
        same_text=int((~differ).sum()),
        empty=sum(not text.strip() for text in texts),
        missing=int((~present).sum()),
    )


def distribution(rewards: np.ndarray) -> Distribution:
    """Of the rewards, float [n], that are not NaN."""
    present = rewards[~np.isnan(rewards)]
    if not present.size:
        return Distribution(0, np.nan, np.nan, (np.nan,) * len(QUANTILES))
    quantiles = tuple(float(value) for value in np.percentile(present, QUANTILES))
    return Distribution(present.size, float(present.mean()), float(present.std()), quantiles)


def components(rewards: np.ndarray, prompts: np.ndarray) -> tuple[float, float]:
    """Standard deviations within and between prompts.

    With n rewards of p prompts, the mean square within is W = SSW / (n - p) and between
    B = SSB / (p - 1). B exceeds the variance between by W / m, where m is the prompts' usual size,
    (n - sum of squared sizes / n) / (p - 1) (Snedecor and Cochran, Statistical Methods, one-way
    random effects).

    Args:
      rewards: float [n], finite.
      prompts: int [n], which prompt each is of.
    """
    _, member = np.unique(prompts, return_inverse=True)
    sizes = np.bincount(member)
    if len(sizes) < 2 or len(rewards) == len(sizes):
        return np.nan, np.nan
    levels = np.bincount(member, rewards) / sizes
    inside = float(((rewards - levels[member]) ** 2).sum()) / (len(rewards) - len(sizes))
    across = float(sizes @ (levels - rewards.mean()) ** 2) / (len(sizes) - 1)
    usual = (len(rewards) - float(sizes @ sizes) / len(rewards)) / (len(sizes) - 1)
    return inside**0.5, max(0.0, (across - inside) / usual) ** 0.5


def _share_within(rewards: np.ndarray, prompts: np.ndarray) -> float:
    within, between = components(rewards, prompts)
    total = within**2 + between**2
    return within**2 / total if total else np.nan


def _resolution(of_pairs: Margins, differ: np.ndarray, kind: DTypeLike) -> Resolution:
    rewards = of_pairs.rewards.astype(kind)
    asked = differ & ~np.isnan(of_pairs.values)
    better, worse = of_pairs.pairs.better[asked], of_pairs.pairs.worse[asked]
    prompts = of_pairs.pair_prompts[asked]
    size = np.maximum(np.abs(of_pairs.rewards[better]), np.abs(of_pairs.rewards[worse]))
    gap = np.spacing(size.astype(kind)).astype(np.float64)
    return Resolution(
        distinct=len(np.unique(rewards[~np.isnan(of_pairs.rewards)].astype(np.float64))),
        tied=share(rewards[better] == rewards[worse], prompts),
        too_close=share(np.abs(of_pairs.values[asked]) < gap, prompts),
    )


def _by_subset(
    scores: Sequence[np.ndarray], comparisons: Sequence[Comparison]
) -> dict[str, Distribution]:
    members: dict[str, list[np.ndarray]] = {}
    for values, comparison in zip(scores, comparisons, strict=True):
        members.setdefault(comparison.subset or UNNAMED, []).append(values)
    if len(members) < 2:
        return {}
    return {name: distribution(flat(values)) for name, values in members.items()}
