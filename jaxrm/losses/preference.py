"""Losses on pairs of rewards: the Bradley-Terry family.

Arrays in, per-example arrays out, all of one shape and float32 whatever comes in; masks, weights
and means belong to the caller (the one exception, `positive_regularized`, says so). Most of these
losses see reward differences alone and leave the absolute level free; `normalized`, `eurus`,
`cross_entropy` and `positive_regularized` do not.

Write d for chosen - rejected and nls(x) for -log sigmoid(x) = log(1 + exp(-x)). A number that
shapes a loss (a margin, a temperature, ...) may be a scalar or one per pair, and may be traced.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def bradley_terry(
    chosen: Float[Array, "*n"],
    rejected: Float[Array, "*n"],
    margin: Float[Array, "*n"] | float = 0.0,
) -> Float[Array, "*n"]:
    """-log sigmoid(chosen - rejected - margin), the negative log-likelihood of the preference.

    Bradley and Terry (1952); with a margin, Llama 2 (arXiv 2307.09288) and TRL's RewardTrainer.
    The second form in which it is printed, log(1 + exp(rejected - chosen)), is this same function:
    the chosen reward carries the minus sign there.

    Args:
      chosen: rewards of the preferred responses, any shape.
      rejected: rewards of the others, same shape.
      margin: by how much the chosen reward should at least win, in reward units.

    Returns:
      Per-pair loss, float32, finite for any finite difference.
    """
    difference = _difference(chosen, rejected)
    return jax.nn.softplus(jnp.asarray(margin, jnp.float32) - difference)


def label_smoothed(
    chosen: Float[Array, "*n"], rejected: Float[Array, "*n"], smoothing: Float[Array, "*n"] | float
) -> Float[Array, "*n"]:
    """Bradley-Terry when a share `smoothing` of the labels is believed to be the wrong way round.

    (1 - smoothing) * -log sigmoid(d) + smoothing * -log sigmoid(-d), with d = chosen - rejected: a
    baseline of GRM (arXiv 2406.10216). It is least at d = log((1 - smoothing) / smoothing).

    Args:
      chosen: rewards of the preferred responses, any shape.
      rejected: rewards of the others, same shape.
      smoothing: in [0, 0.5); 0 is `bradley_terry`.

    Returns:
      Per-pair loss, float32.
    """
    difference = _difference(chosen, rejected)
    # The two softplus terms differ by the difference itself: softplus(d) = softplus(-d) + d.
    return jax.nn.softplus(-difference) + jnp.asarray(smoothing, jnp.float32) * difference


def hinge(
    chosen: Float[Array, "*n"],
    rejected: Float[Array, "*n"],
    margin: Float[Array, "*n"] | float = 1.0,
) -> Float[Array, "*n"]:
    """max(0, margin - d): a pair that wins by the margin teaches nothing more (arXiv 2410.18451).

    Args:
      chosen: rewards of the preferred responses, any shape.
      rejected: rewards of the others, same shape.
      margin: in reward units, > 0; at 0 two equal rewards are already content.

    Returns:
      Per-pair loss, float32; its gradient is exactly 0 from d = margin on.
    """
    difference = _difference(chosen, rejected)
    return jax.nn.relu(_per_pair(margin, difference) - difference)


def margin_mse(
    chosen: Float[Array, "*n"],
    rejected: Float[Array, "*n"],
    margin: Float[Array, "*n"] | float = 1.0,
) -> Float[Array, "*n"]:
    """(d - margin)^2: regression of the difference on its target (MarginMSE, arXiv 2410.18451).

    A pair that wins by more than the margin is pulled back.

    Args:
      chosen: rewards of the preferred responses, any shape.
      rejected: rewards of the others, same shape.
      margin: the difference wanted, in reward units.

    Returns:
      Per-pair loss, float32.
    """
    difference = _difference(chosen, rejected)
    return jnp.square(difference - _per_pair(margin, difference))


def focal(
    chosen: Float[Array, "*n"],
    rejected: Float[Array, "*n"],
    gamma: Float[Array, "*n"] | float = 2.0,
) -> Float[Array, "*n"]:
    """(1 - sigmoid(d))^gamma * nls(d): Bradley-Terry that loses interest in pairs already ordered.

    The focal loss (Lin et al., arXiv 1708.02002) on preferences, as Skywork-Reward compares it
    (arXiv 2410.18451).

    Args:
      chosen: rewards of the preferred responses, any shape.
      rejected: rewards of the others, same shape.
      gamma: >= 0; 0 is `bradley_terry`.

    Returns:
      Per-pair loss, float32.
    """
    difference = _difference(chosen, rejected)
    # log(1 - sigmoid(d)) = -softplus(d): a power of a probability that may be 0 is taken in logs.
    log_weight = -_per_pair(gamma, difference) * jax.nn.softplus(difference)
    return jnp.exp(log_weight) * jax.nn.softplus(-difference)


def focal_penalty(
    chosen: Float[Array, "*n"],
    rejected: Float[Array, "*n"],
    gamma: Float[Array, "*n"] | float = 2.0,
) -> Float[Array, "*n"]:
    """(1 - 2 max(0, sigmoid(d) - 1/2))^gamma * nls(d): `focal` for the ordered pairs alone.

    A pair in the wrong order, or tied, keeps the full weight of Bradley-Terry (InternLM2, arXiv
    2403.17297).

    Args:
      chosen: rewards of the preferred responses, any shape.
      rejected: rewards of the others, same shape.
      gamma: >= 0; 0 is `bradley_terry`.

    Returns:
      Per-pair loss, float32; for d <= 0 it and its gradient are those of `bradley_terry`.
    """
    difference = _difference(chosen, rejected)
    # For d > 0 the weight's base is 2 (1 - sigmoid(d)).
    log_base = jnp.where(difference > 0, jnp.log(2.0) - jax.nn.softplus(difference), 0.0)
    return jnp.exp(_per_pair(gamma, difference) * log_base) * jax.nn.softplus(-difference)


def scaled(
    chosen: Float[Array, "*n"], rejected: Float[Array, "*n"], magnitude: Float[Array, "*n"] | float
) -> Float[Array, "*n"]:
    """magnitude * nls(d): a clear preference counts as several slight ones.

    HelpSteer2-Preference (arXiv 2410.01257). The magnitude is a sample weight that no sum of
    weights divides; a margin of that size, by contrast, moves the point where the loss lets go.

    Args:
      chosen: rewards of the preferred responses, any shape.
      rejected: rewards of the others, same shape.
      magnitude: how strong each preference is: 1, 2 or 3 in the paper; 1 is `bradley_terry`.

    Returns:
      Per-pair loss, float32.
    """
    difference = _difference(chosen, rejected)
    return _per_pair(magnitude, difference) * jax.nn.softplus(-difference)


def tempered(
    chosen: Float[Array, "*n"],
    rejected: Float[Array, "*n"],
    temperature: Float[Array, "*n"] | float,
) -> Float[Array, "*n"]:
    """nls(d / temperature): Bradley-Terry on rewards in another unit (arXiv 2410.18451).

    Args:
      chosen: rewards of the preferred responses, any shape.
      rejected: rewards of the others, same shape.
      temperature: > 0; 1 is `bradley_terry`. Above 1 the rewards must differ by more before a pair
        lets go, and the gradient of an undecided pair is smaller.

    Returns:
      Per-pair loss, float32.
    """
    difference = _difference(chosen, rejected)
    return jax.nn.softplus(-difference / _per_pair(temperature, difference))


def normalized(
    chosen: Float[Array, "*n"], rejected: Float[Array, "*n"], epsilon: float = 1e-3
) -> Float[Array, "*n"]:
    """nls(d / sqrt(chosen^2 + rejected^2 + epsilon^2)): BT-Norm, which a scale cannot satisfy.

    A baseline of BSR (arXiv 2505.07271). Without epsilon two rewards of 0, as a zero-initialised
    head gives, are 0/0. The fraction never exceeds sqrt 2, so the loss lies between nls(sqrt 2) =
    .2176 and nls(-sqrt 2) = 1.6318, and its gradient shrinks as rewards grow.

    Args:
      chosen: rewards of the preferred responses, any shape.
      rejected: rewards of the others, same shape.
      epsilon: in reward units, > 0. The gradient at two rewards of 0 is 1 / (2 epsilon).

    Returns:
      Per-pair loss, float32.
    """
    chosen, rejected = _aligned(chosen, rejected)
    size = jnp.sqrt(chosen**2 + rejected**2 + epsilon**2)
    return jax.nn.softplus((rejected - chosen) / size)


def cross_entropy(chosen: Float[Array, "*n"], rejected: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """nls(chosen) + nls(-rejected): each response is classified as good or bad by itself.

    The labels are absolute here: two responses to one prompt are no longer compared, and rewards
    are log-odds around 0 (arXiv 2410.18451, where it is the weakest).

    Args:
      chosen: rewards of the preferred responses, any shape.
      rejected: rewards of the others, same shape.

    Returns:
      Per-pair loss, float32.
    """
    chosen, rejected = _aligned(chosen, rejected)
    return jax.nn.softplus(-chosen) + jax.nn.softplus(rejected)


def eurus(chosen: Float[Array, "*n"], rejected: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """nls(d) + nls(chosen) + nls(-rejected): `bradley_terry` plus `cross_entropy`.

    Eurus (arXiv 2404.02078), called BT-DR in BSR: it pushes chosen rewards above 0 and rejected
    ones below.

    Args:
      chosen: rewards of the preferred responses, any shape.
      rejected: rewards of the others, same shape.

    Returns:
      Per-pair loss, float32.
    """
    return bradley_terry(chosen, rejected) + cross_entropy(chosen, rejected)


def prior_constrained(
    chosen: Float[Array, "*n"], rejected: Float[Array, "*n"], target: Float[Array, "*n"] | float
) -> Float[Array, "*n"]:
    """nls(d) + nls(target - d): a pair's margin is held near what a prior expects of it.

    PCRM (arXiv 2404.00978), once per pair of rewards; the authors' code averages it over token
    positions. It is least at d = target / 2, where it is 2 nls(target / 2): the target is twice
    the margin that the prior wants.

    Args:
      chosen: rewards of the preferred responses, any shape.
      rejected: rewards of the others, same shape.
      target: >= 0, a constant to the gradient: `length_prior`, `cosine_prior`, or one number (3 in
        the authors' code). Below 0 it would ask for the wrong order.

    Returns:
      Per-pair loss, float32.
    """
    difference = _difference(chosen, rejected)
    target = jax.lax.stop_gradient(_per_pair(target, difference))
    return jax.nn.softplus(-difference) + jax.nn.softplus(difference - target)


def length_prior(
    chosen_length: Float[Array, "*n"],
    rejected_length: Float[Array, "*n"],
    beta1: float = 6.0,
    beta2: float = 0.001,
    beta3: float = 0.0,
) -> Float[Array, "*n"]:
    """PCRM's target for pairs of these lengths: the more alike the lengths, the smaller the margin.

    beta1 / (similarity + beta2) + beta3, with the shorter length over the longer as similarity,
    where a value below 0 becomes 0. Two empty responses are alike (similarity 1). The defaults are
    the authors'; their scripts use (10, .001, -5) for TL;DR and (20, .001, -13 to -19) for Alpaca.

    Args:
      chosen_length: tokens of the preferred responses, >= 0, any shape. The paper counts from the
        first token in which the two responses differ.
      rejected_length: of the others, same shape.
      beta1: the target's slope; beta2: > 0, bounds it by beta1 / beta2 + beta3 (6,000 by default,
        for an empty response beside another); beta3: its offset.

    Returns:
      `target` of `prior_constrained`, float32, >= 0, a constant to the gradient.
    """
    lengths = jax.lax.stop_gradient(_aligned(chosen_length, rejected_length))
    shorter, longer = jnp.minimum(*lengths), jnp.maximum(*lengths)
    similarity = jnp.where(longer > 0, shorter / jnp.where(longer > 0, longer, 1.0), 1.0)
    return _prior(similarity, beta1, beta2, beta3)


def cosine_prior(
    chosen_embedding: Float[Array, "*n d"],
    rejected_embedding: Float[Array, "*n d"],
    beta1: float = 30.0,
    beta2: float = 0.001,
    beta3: float = -25.0,
) -> Float[Array, "*n"]:
    """PCRM's target for pairs of these embeddings: the more alike, the smaller the margin.

    As `length_prior`, with similarity 1 - angle / pi, where an obtuse angle counts as a right one
    (similarity .5). Equal embeddings have similarity 1, even when both are zero; zero beside
    another is at a right angle. The defaults are those of the authors' script.

    Args:
      chosen_embedding: of the preferred responses by any text encoder (BERT's CLS in the paper).
      rejected_embedding: of the others, same shape.
      beta1: the target's slope; beta2: > 0; beta3: its offset.

    Returns:
      `target` of `prior_constrained`, float32, >= 0, a constant to the gradient.
    """
    embeddings = jax.lax.stop_gradient(_aligned(chosen_embedding, rejected_embedding))
    first, second = (_unit(vectors) for vectors in embeddings)
    # Half the angle from the rhombus of two unit vectors: exact near 0, where arccos is not.
    across = jnp.linalg.norm(first - second, axis=-1)
    along = jnp.linalg.norm(first + second, axis=-1)
    angle = jnp.minimum(2.0 * jnp.arctan2(across, along), jnp.pi / 2)
    return _prior(1.0 - angle / jnp.pi, beta1, beta2, beta3)


def positive_regularized(
    chosen: Float[Array, "*n"],
    rejected: Float[Array, "*n"],
    weights: Float[Array, "*n"],
    strength: float,
) -> Float[Array, ""]:
    """mean nls(d) + strength * nls(mean chosen): chosen rewards are to be positive on average.

    A baseline of the GRM repository (arXiv 2406.10216). The mean is inside the second nls, so this
    is a statistic of the batch: `BatchTerm(1.0, positive_regularized(...))`, alone, in place of the
    Bradley-Terry term. It is not additive over micro-batches. Under jit the means run over all rows
    of the batch, wherever they lie.

    Args:
      chosen: rewards of the preferred responses, any shape.
      rejected: rewards of the others, same shape.
      weights: of the pairs, same shape, >= 0, bool or float. A pair of weight 0 contributes nothing
        to value or gradient, even if its rewards are inf or NaN.
      strength: of the second part, 0.1 in the repository.

    Returns:
      The loss, float32; 0 if all weights are.
    """
    chosen, rejected = _aligned(chosen, rejected)
    if jnp.shape(weights) != chosen.shape:
        raise ValueError(f"chosen {chosen.shape} and weights {jnp.shape(weights)} differ")
    weights = jax.lax.stop_gradient(jnp.asarray(weights, jnp.float32))
    total = jnp.sum(weights)
    shares = weights / jnp.where(total > 0, total, 1.0)
    chosen, rejected = (jnp.where(weights > 0, r, 0.0) for r in (chosen, rejected))
    preference = jnp.sum(shares * bradley_terry(chosen, rejected))
    positive = jax.nn.softplus(-jnp.sum(shares * chosen))
    return jnp.where(total > 0, preference + strength * positive, 0.0)


def _difference(chosen: Float[Array, "*n"], rejected: Float[Array, "*n"]) -> Float[Array, "*n"]:
    chosen, rejected = _aligned(chosen, rejected)
    return chosen - rejected


def _aligned(
    chosen: Float[Array, "*n"], rejected: Float[Array, "*n"]
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    if jnp.shape(chosen) != jnp.shape(rejected):
        raise ValueError(f"chosen {jnp.shape(chosen)} and rejected {jnp.shape(rejected)} differ")
    return jnp.asarray(chosen, jnp.float32), jnp.asarray(rejected, jnp.float32)


def _per_pair(value: Float[Array, "*m"] | float, like: Float[Array, "*n"]) -> Float[Array, "*n"]:
    return jnp.broadcast_to(jnp.asarray(value, jnp.float32), like.shape)


def _prior(
    similarity: Float[Array, "*n"], beta1: float, beta2: float, beta3: float
) -> Float[Array, "*n"]:
    return jnp.maximum(beta1 / (similarity + beta2) + beta3, 0.0)


def _unit(vectors: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
    norms = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / jnp.where(norms > 0, norms, 1.0)
