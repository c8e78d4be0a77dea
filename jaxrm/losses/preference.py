"""Losses on pairs of rewards: the Bradley-Terry family.

Arrays in, per-example arrays out, all of one shape and float32 whatever comes in; masks, weights
and means belong to the caller. Only reward differences enter, so absolute level is left free.
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


def _difference(chosen: Float[Array, "*n"], rejected: Float[Array, "*n"]) -> Float[Array, "*n"]:
    if jnp.shape(chosen) != jnp.shape(rejected):
        raise ValueError(f"chosen {jnp.shape(chosen)} and rejected {jnp.shape(rejected)} differ")
    return jnp.asarray(chosen, jnp.float32) - jnp.asarray(rejected, jnp.float32)
