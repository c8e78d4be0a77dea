"""InfoRM (arXiv 2402.09345): the reward is read from a noisy code that costs information."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrm.data.packing import PackedBatch
from jaxrm.losses import preference, regularizers
from jaxrm.methods.method import Method, hidden_states, pair_weights
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.train.terms import LossFn, Term, Terms, reward_monitors

CODE = 16
"""Dimensions of the code."""


def bottleneck(strength: float) -> LossFn:
    """Bradley-Terry on a reward that is read from a sample of the code, and the code's information.

    Mean and log-variance of the code are outputs of one head, and the reward is the mean of the
    code's dimensions: what else a linear decoder could learn, the encoder does.
    """

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        outputs = heads.outputs(model, hidden_states(model, batch, rng), batch)
        mean, log_variance = jnp.split(outputs, 2, axis=-1)
        noise = jax.random.normal(rng, mean.shape)
        rewards = jnp.mean(mean + jnp.exp(log_variance / 2) * noise, axis=-1) * CODE**0.5
        information = regularizers.information_bottleneck(mean, log_variance)
        plain = preference.bradley_terry(*batch.pairs(rewards))
        return {
            "reward": Term(1.0, plain, pair_weights(batch)),
            "information": Term(strength, information, batch.response_mask),
            **reward_monitors(rewards, batch),
        }

    return loss_fn


def decoded(outputs: Float[Array, "... outputs"]) -> Float[Array, ...]:
    """The reward of the code's mean, without noise."""
    return jnp.mean(outputs[..., :CODE], axis=-1) * CODE**0.5


INFORM = Method(
    "InfoRM: a reward read from a noisy code that costs information (arXiv 2402.09345)",
    bottleneck,
    (0.001, 0.01, 0.1),
    "the price of information",
    outputs=2 * CODE,
    combine=decoded,
)
