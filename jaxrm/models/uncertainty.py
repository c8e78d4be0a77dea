"""Rewards that say how sure they are: several models' as one, and a linear head's with its doubt.

A policy finds what a reward model overrates. Where members of an ensemble disagree, or a head has
seen nothing alike, the reward may be held for less.

Members' scores are [members, ...] of numpy or JAX arrays, and so is what comes out. Bradley-Terry
leaves the offset and the scale of each member free, and all but their mean of differences depends
on both: `standardise` members first by where their rewards lie on validation data, and for
best-of-n `centre` them within the prompt. Of a pair, centred scores are one number and its
negative, members vary alike on both, and `uwo` and `lcb` order it as the mean does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Float

from jaxrm.errors import DataError, require

Scores = Float[Any, "members *scores"]
"""Numpy or JAX arrays."""


@dataclasses.dataclass(frozen=True)
class RewardScale:
    """Where the rewards of a model lie: (reward - offset) / scale is standardised on `reference`.

    Attributes:
      offset, scale: mean and standard deviation of the rewards there.
      reference: what set of responses that is.
      responses: how many.

    Raises OptionError for a value out of range.
    """

    offset: float
    scale: float
    reference: str
    responses: int

    def __post_init__(self):
        require(math.isfinite(self.offset), "a reward offset", "finite", self.offset)
        require(0 < self.scale < math.inf, "a reward scale", "a number above 0", self.scale)


def scale_of(rewards: Iterable[Any], reference: str) -> RewardScale:
    """Where a member's rewards lie: mean and deviation (ddof 0), all responses counting alike.

    Args:
      rewards: of validation data, an array or one array for each comparison.
      reference: what data that is.

    Raises OptionError where they have no spread, or are not finite.
    """
    values = np.concatenate([np.zeros(0), *(np.ravel(part) for part in rewards)])
    require(values.size > 0, f"rewards on {reference}", "at least one", values.size)
    spread = float(values.std() if values.min() < values.max() else 0.0)
    return RewardScale(float(values.mean()), spread, reference, values.size)


def standardise(scores: Scores, scales: Sequence[RewardScale]) -> Scores:
    """(score - offset) / scale, by each member's own scale; the shape stays.

    Raises ValueError where there are not as many scales as members.
    """
    if len(scores) != len(scales):
        raise ValueError(f"{len(scales)} scales for {len(scores)} members")
    scores = _checked(scores)
    column = (-1,) + (1,) * (scores.ndim - 1)
    offsets, deviations = (
        np.array([getattr(scale, name) for scale in scales], scores.dtype).reshape(column)
        for name in ("offset", "scale")
    )
    return (scores - offsets) / deviations


def centre(scores: Float[Any, "*others responses"]) -> Float[Any, "*others responses"]:
    """Scores less their mean over the last axis, the responses of a prompt."""
    return scores - scores.mean(axis=-1, keepdims=True)


def mean(scores: Scores) -> Float[Any, "*scores"]:
    """The mean over members."""
    return _checked(scores).mean(axis=0)


def median(scores: Scores) -> Float[Any, "*scores"]:
    """The median over members, of an even number the mean of the middle two."""
    checked = _checked(scores)
    return (jnp if isinstance(checked, jax.Array) else np).median(checked, axis=0)


def wco(scores: Scores) -> Float[Any, "*scores"]:
    """The least over members: worst-case optimisation (Coste et al., arXiv 2310.02743)."""
    return _checked(scores).min(axis=0)


def uwo(scores: Scores, penalty: float = 0.5) -> Float[Any, "*scores"]:
    """Mean - penalty * variance over members: uncertainty-weighted optimisation (arXiv 2310.02743).

    The variance is that of the members at hand (ddof 0), as in the authors' best-of-n; their PPO
    takes ddof 1. Theirs is .5 for best-of-n and .1 for PPO.
    """
    checked = _checked(scores)
    return checked.mean(axis=0) - penalty * checked.var(axis=0)


def lcb(scores: Scores, beta: float = 1.0) -> Float[Any, "*scores"]:
    """Mean - beta * deviation over members: a lower confidence bound (as in rewarduq).

    With ddof 0 as `uwo`; rewarduq's ddof 1 is a beta larger by sqrt(M / (M - 1)).
    """
    checked = _checked(scores)
    return checked.mean(axis=0) - beta * checked.std(axis=0)


@dataclasses.dataclass(frozen=True, eq=False)
class BayesianHead:
    """A linear reward on frozen states, and how far the data leave it undecided.

    What preferences decide are differences. The deviation of one response's own reward changes
    when a constant is added to all states, so ask it of the difference of two responses, or of
    responses less their prompt's mean: `reward(z) - beta * deviation(z)` is then a lower bound.

    Attributes:
      weights: float64 [d], the most likely ones.
      covariance: float64 [d, d], by Laplace's approximation around them.
    """

    weights: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]

    def reward(self, states: Float[Any, "*n d"]) -> Float[Any, "*n"]:
        """weights . state."""
        return states @ self.weights

    def deviation(self, differences: Float[Any, "*n d"]) -> Float[Any, "*n"]:
        """sqrt(z' covariance z) for each z, without making the [n, n] matrix of them all."""
        variance = ((differences @ self.covariance) * differences).sum(axis=-1)
        return variance.clip(0) ** 0.5


def fit_bayesian_head(
    differences: Float[Any, "pairs d"], *, precision: float = 1e-5, weighted: bool = True
) -> BayesianHead:
    """The most likely linear Bradley-Terry reward, and its `laplace_covariance`.

    The method is rewarduq's Bayesian linear head. The prior is normal with mean 0 and variance
    1 / precision for each weight; the fit minimises the sum over pairs of -log sigmoid(w . z) and
    precision / 2 |w|^2, by Newton's method.

    Args:
      differences: the state of each pair's chosen response less that of the rejected one
        (`probe.final_states` reads them). Without any, the prior comes back.
      precision: above 0. The default of the public code hardly binds; it is worth tuning.
      weighted: as for `laplace_covariance`.

    Raises:
      OptionError: precision.
      DataError: states that are not finite.
    """
    require(0 < precision < np.inf, "a head's prior precision", "above 0", precision)
    z = np.asarray(differences, np.float64)
    if z.ndim != 2:
        raise ValueError(f"differences are [pairs, d], not of shape {z.shape}")
    if not np.isfinite(z).all():
        raise DataError("differences of states that are not finite cannot be fitted")

    def loss(weights: np.ndarray) -> float:
        return np.logaddexp(0, -z @ weights).sum() + precision / 2 * weights @ weights

    weights = np.zeros(z.shape[1])
    for _ in range(100):
        gradient = precision * weights - z.T @ scipy.special.expit(-z @ weights)
        step = laplace_covariance(weights, z, precision) @ gradient
        # Twice what the step gains if the loss is a parabola; where it is none, half a step may do.
        decrease, now, size = gradient @ step, loss(weights), 1.0
        if decrease <= 1e-12 * (1 + now):
            break
        while size > 1e-9 and loss(weights - size * step) > now - size * decrease / 4:
            size /= 2
        weights -= size * step
    return BayesianHead(weights, laplace_covariance(weights, z, precision, weighted))


def laplace_covariance(
    weights: Float[np.ndarray, " d"],
    differences: Float[np.ndarray, "pairs d"],
    precision: float,
    weighted: bool = True,
) -> Float[np.ndarray, "d d"]:
    """Float64 inverse of H = precision I + sum over pairs of c z z'.

    Args:
      weighted: c = s(1 - s) with s = sigmoid(weights . z), the curvature of the Bradley-Terry loss.
        Otherwise c = 1, as if every pair were a measured reward: it forgets the weights, and is the
        smaller one.
    """
    z = np.asarray(differences, np.float64)
    sure = scipy.special.expit(z @ weights)
    curvature = sure * (1 - sure) if weighted else np.ones(len(z))
    return np.linalg.inv((z.T * curvature) @ z + precision * np.eye(z.shape[1]))


def _checked(scores: Scores) -> Scores:
    """Float32 or wider, with at least one member, or a ValueError."""
    if scores.ndim == 0 or len(scores) == 0:
        raise ValueError(f"scores of members are [members, ...], not of shape {scores.shape}")
    return scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
