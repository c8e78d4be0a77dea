"""Terms beside a preference loss: on the level of rewards, on what they correlate with, on a code.

Arrays in, float32 out. A per-example function gives one value for each pair or response, whose
masks, weights and means belong to the caller. A function with a `mask` is a statistic of the whole
batch: a scalar for `BatchTerm`, not additive over micro-batches (the statistic of a window is not
the mean of its micro-batches' statistics). Under jit it sees all rows of the batch, wherever on the
mesh they lie, and what lies behind a false mask contributes nothing to value or gradient, even if
it is inf or NaN.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_STEEPEST = 30.0
"""The log-variance above which `information_bottleneck` follows the exponential's tangent."""


def centering(first: Float[Array, "*n"], second: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """(first + second)^2: each pair's rewards are to lie around 0.

    Eisenstein et al. (arXiv 2312.09244), with coefficient .01; `center_rewards_coefficient` in TRL.

    Args:
      first: rewards of one response of each pair, any shape.
      second: rewards of the other, same shape. Their order makes no difference.

    Returns:
      Per-pair loss, float32.
    """
    first, second = _aligned("first", first, "second", second)
    return jnp.square(first + second)


def score_l2(rewards: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """reward^2 of each response: Coste et al. (arXiv 2310.02743), with coefficient .001.

    Args:
      rewards: any shape.

    Returns:
      Per-response loss, float32.
    """
    return jnp.square(jnp.asarray(rewards, jnp.float32))


def neutral(first: Float[Array, "*n"], second: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """-1/2 log sigmoid(d) - 1/2 log sigmoid(-d), with d = first - second: a tie between the two.

    RRM (arXiv 2409.13156) labels so two responses that belong to other prompts. It is least, log 2,
    at equal rewards.

    Args:
      first: rewards of one response of each pair, any shape.
      second: rewards of the other, same shape. Their order makes no difference.

    Returns:
      Per-pair loss, float32.
    """
    first, second = _aligned("first", first, "second", second)
    return 0.5 * (jax.nn.softplus(first - second) + jax.nn.softplus(second - first))


def information_bottleneck(
    mean: Float[Array, "*n d"], log_variance: Float[Array, "*n d"]
) -> Float[Array, "*n"]:
    """KL(N(mean, exp(log_variance)) || N(0, 1)), summed over the d dimensions of a response's code.

    InfoRM (arXiv 2402.09345): the reward is read from a sample of this code while training. The
    authors' code averages mean and log-variance over the dimensions before the KL, which is
    another, smaller quantity; this is the KL, in nats.

    Args:
      mean: of the code, d dimensions last.
      log_variance: of the code, same shape. Above 30 its exponential is continued by the tangent, a
        straight line, so that value and gradient stay finite.

    Returns:
      Per-response loss, float32, >= 0.
    """
    mean, log_variance = _aligned("mean", mean, "log_variance", log_variance)
    growth = jnp.expm1(jnp.minimum(log_variance, _STEEPEST))
    growth += jnp.exp(_STEEPEST) * jnp.maximum(log_variance - _STEEPEST, 0.0)
    return 0.5 * jnp.sum(jnp.square(mean) + growth - log_variance, axis=-1)


def sum_to_zero(rewards: Float[Array, "*n"], mask: Bool[Array, "*n"]) -> Float[Array, ""]:
    """The square of the mean reward of the batch: BSR (arXiv 2505.07271). A batch term.

    The mean runs over all responses, chosen and rejected, of all devices; the authors' code takes
    it per device and multiplies the square by the device's batch size, so that their coefficient
    1e-3 is about 1.6e-2 here. Every response gets the same gradient, 2 mean / (number of them).

    Args:
      rewards: any shape.
      mask: the responses there are, same shape.

    Returns:
      Scalar, float32; 0 without any response.
    """
    rewards, mask = _masked("rewards", rewards, mask)
    return jnp.square(_mean(rewards, mask))


def length_correlation(
    rewards: Float[Array, "*n"], lengths: Float[Array, "*n"], mask: Bool[Array, "*n"]
) -> Float[Array, ""]:
    """Pearson's correlation of rewards with response lengths over the batch. A batch term.

    ODIN (arXiv 2402.07319) has two rewards, `preference` on their sum, and adds
    `(1 - length_correlation(length_reward, ...)) + abs(length_correlation(quality_reward, ...))`;
    only the quality reward is used afterwards. The authors' ranking loss also sums over the batch
    inside the log-sigmoid, which no pair of responses asks for.

    Args:
      rewards: any shape.
      lengths: in tokens or any other unit, same shape, integers or floats.
      mask: the responses there are, same shape.

    Returns:
      Scalar in [-1, 1], float32. It is 0, with gradient 0, where rewards or lengths are all the
      same, or without any response.
    """
    rewards, mask = _masked("rewards", rewards, mask)
    lengths, _ = _masked("lengths", lengths, mask)
    rewards, lengths = (_centred(values, mask) for values in (rewards, lengths))
    squares = jnp.sum(jnp.square(rewards)) * jnp.sum(jnp.square(lengths))
    varied = squares > 0
    correlation = jnp.sum(rewards * lengths) / jnp.sqrt(jnp.where(varied, squares, 1.0))
    return jnp.where(varied, correlation, 0.0)


def orthogonality(weights: Float[Array, "d outputs"]) -> Float[Array, ""]:
    """The sum over pairs of a head's outputs of |cosine of their weight columns|.

    ODIN's |W_Q W_L^T| for its quality and length outputs (arXiv 2402.07319), on columns of unit
    length: without that the product also falls when the weights merely shrink. It is a function of
    parameters alone, so `Term(coefficient, orthogonality(weights), jnp.ones(()))` is exact under
    accumulation too.

    Args:
      weights: the last matrix of a reward head with several outputs, one column for each.

    Returns:
      Scalar, float32, between 0 and the number of pairs; 0 for one output. A column of zeros is
      orthogonal to everything and gets no gradient.
    """
    weights = jnp.asarray(weights, jnp.float32)
    squares = jnp.sum(jnp.square(weights), axis=0)
    # A column too short to square in float32 counts as zeros.
    present = squares > 1e-30
    columns = jnp.where(present, weights, 0.0) / jnp.sqrt(jnp.where(present, squares, 1.0))
    cosines = jnp.einsum("di,dj->ij", columns, columns, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(jnp.abs(jnp.triu(cosines, k=1)))


def _aligned(
    name: str, values: Float[Array, "*n"], other: str, others: Float[Array, "*n"]
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    if jnp.shape(values) != jnp.shape(others):
        raise ValueError(f"{name} {jnp.shape(values)} and {other} {jnp.shape(others)} differ")
    return jnp.asarray(values, jnp.float32), jnp.asarray(others, jnp.float32)


def _masked(
    name: str, values: Float[Array, "*n"], mask: Bool[Array, "*n"]
) -> tuple[Float[Array, "*n"], Bool[Array, "*n"]]:
    values, mask = _aligned(name, values, "mask", mask)
    return values, mask > 0


def _mean(values: Float[Array, "*n"], mask: Bool[Array, "*n"]) -> Float[Array, ""]:
    return jnp.sum(values, where=mask) / jnp.maximum(jnp.sum(mask), 1)


def _centred(values: Float[Array, "*n"], mask: Bool[Array, "*n"]) -> Float[Array, "*n"]:
    """Values in units of their range, less their mean; 0 behind the mask, and where all are equal.

    A correlation knows neither offset nor unit, so both are constants to its gradient. Equal values
    are told by their range, since a float32 mean of them may differ from each; the largest is taken
    off first because that is exact where an offset dwarfs the range.
    """
    highest = jax.lax.stop_gradient(jnp.max(values, where=mask, initial=-jnp.inf))
    lowest = jax.lax.stop_gradient(jnp.min(values, where=mask, initial=jnp.inf))
    extent = highest - lowest
    differ = extent > jnp.finfo(jnp.float32).tiny  # below that its reciprocal overflows
    scaled = jnp.where(mask & differ, values - highest, 0.0) / jnp.where(differ, extent, 1.0)
    return jnp.where(mask & differ, scaled - _mean(scaled, mask), 0.0)
