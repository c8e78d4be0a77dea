"""Losses on several grades of one response: regression, and distributions instead of points.

Arrays in, one float32 loss per response and attribute out; weights and means belong to the caller.
Responses are rarely graded on everything, so each loss takes a mask: where it is false the loss and
its gradients are exactly 0, whatever output and label hold there, NaN included.

Bradley-Terry on pairs and `regression` on grades, both on one trunk, is SMORM (arXiv 2507.07375):
of a head with 1 + A outputs the first is the reward, and two terms train it,

    "reward": Term(1.0, preference.bradley_terry(*batch.pairs(outputs[..., 0])), pair_weights)
    "attributes": Term(c, regression(outputs[..., 1:], batch.attributes, mask), mask)

The first output (SMORM-F), the mean of the others (SMORM-L) or both (SMORM-M) then rank.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LEVELS = tuple(i / 20 for i in range(1, 20))
"""The quantiles of QRM (arXiv 2409.10164): .05, .10, ... .95."""

LIMIT = 10.0
"""Log-deviations are held between -LIMIT and LIMIT, where squares still fit float32."""


def regression(
    outputs: Float[Array, "*n a"], labels: Float[Array, "*n a"], mask: Bool[Array, "*n a"]
) -> Float[Array, "*n a"]:
    """(output - label)^2, as HelpSteer2 (arXiv 2410.01257) and ArmoRM (arXiv 2406.12845) fit.

    Args:
      outputs: one for each response and attribute, any shape.
      labels: grades, same shape.
      mask: where there is a grade, same shape.
    """
    outputs, labels = _graded(mask, outputs, labels)
    return jnp.square(outputs - labels)


def gaussian_nll(
    mean: Float[Array, "*n a"],
    log_deviation: Float[Array, "*n a"],
    labels: Float[Array, "*n a"],
    mask: Bool[Array, "*n a"],
) -> Float[Array, "*n a"]:
    """-log N(label; mean, exp(log_deviation)^2), in nats: URM's likelihood form
    (arXiv 2410.00847).

    log_deviation + log(2 pi) / 2 + ((label - mean) / deviation)^2 / 2. It is least where the
    deviation is the distance from mean to label, so that deviations learn how uncertain a grade is.

    Args:
      mean, log_deviation: of each response and attribute. Beyond `LIMIT` a log-deviation counts as
        `LIMIT`, without a gradient.
      labels, mask: as for `regression`.
    """
    mean, log_deviation, labels = _graded(mask, mean, log_deviation, labels)
    log_deviation = jnp.clip(log_deviation, -LIMIT, LIMIT)
    distance = (labels - mean) * jnp.exp(-log_deviation)
    values = log_deviation + 0.5 * math.log(2 * math.pi) + 0.5 * jnp.square(distance)
    return jnp.where(mask, values, 0.0)


def sampled_regression(
    mean: Float[Array, "*n a"],
    log_deviation: Float[Array, "*n a"],
    labels: Float[Array, "*n a"],
    mask: Bool[Array, "*n a"],
    noise: Float[Array, "*n a"],
) -> Float[Array, "*n a"]:
    """(mean + deviation * noise - label)^2: URM (arXiv 2410.00847) as published.

    Its expectation is (mean - label)^2 + deviation^2, which is least at deviation 0: a deviation
    that is trained this way shrinks and says nothing of uncertainty. `gaussian_nll` does.

    Args:
      mean, log_deviation, labels, mask: as for `gaussian_nll`.
      noise: standard normal, drawn anew for each step.
    """
    mean, log_deviation, labels, noise = _graded(mask, mean, log_deviation, labels, noise)
    sample = mean + jnp.exp(jnp.clip(log_deviation, -LIMIT, LIMIT)) * noise
    return jnp.square(sample - labels)


def quantile(
    outputs: Float[Array, "*n a q"],
    labels: Float[Array, "*n a"],
    mask: Bool[Array, "*n a"],
    levels: Float[Array, " q"] | tuple[float, ...] = LEVELS,
) -> Float[Array, "*n a"]:
    """The pinball loss, its mean over quantiles: QRM (arXiv 2409.10164).

    u (t - [u < 0]) with u = label - output, for the quantile of level t; the constant that makes it
    least is that quantile of the labels. The mean of the outputs estimates the mean grade.

    Args:
      outputs: for each response and attribute, one for each level.
      labels, mask: as for `regression`, without the last axis.
      levels: between 0 and 1.
    """
    levels = jnp.asarray(levels, jnp.float32)
    if jnp.shape(outputs) != (*jnp.shape(labels), *levels.shape):
        shapes = f"{jnp.shape(outputs)} for labels {jnp.shape(labels)}"
        raise ValueError(f"outputs {shapes} and {levels.size} levels")
    every = jnp.broadcast_to(jnp.asarray(mask)[..., None], jnp.shape(outputs))
    labels = jnp.broadcast_to(jnp.asarray(labels)[..., None], jnp.shape(outputs))
    outputs, labels = _graded(every, outputs, labels)
    short = labels - outputs
    return jnp.mean(jnp.maximum(levels * short, (levels - 1) * short), axis=-1)


def _graded(mask: Bool[Array, "*n"], *values: Float[Array, "*n"]) -> list[Float[Array, "*n"]]:
    """The values in float32, and 0 where the mask is false."""
    for value in values:
        if jnp.shape(value) != jnp.shape(mask):
            raise ValueError(f"an array {jnp.shape(value)} and the mask {jnp.shape(mask)} differ")
    return [jnp.where(mask, jnp.asarray(value, jnp.float32), 0.0) for value in values]
