"""ODIN (arXiv 2402.07319): a reward for quality and one for length, of which quality is used."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrm.data.packing import PackedBatch
from jaxrm.losses import preference, regularizers
from jaxrm.methods.method import Method, hidden_states, pair_weights
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.train.terms import BatchTerm, LossFn, Term, Terms, reward_monitors


def odin(strength: float) -> LossFn:
    """Bradley-Terry on the sum of both rewards, which are to correlate with length and not."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        both = heads.outputs(model, hidden_states(model, batch, rng), batch, rng)
        quality, length = both[..., 0], both[..., 1]
        plain = preference.bradley_terry(*batch.pairs(quality + length))
        lengths, mask = batch.response_length, batch.response_mask
        apart = 1 - regularizers.length_correlation(length, lengths, mask)
        apart += jnp.abs(regularizers.length_correlation(quality, lengths, mask))
        weight = heads.last_weight(model)
        return {
            "reward": Term(1.0, plain, pair_weights(batch)),
            "length": BatchTerm(strength, apart),
            "orthogonal": Term(strength, regularizers.orthogonality(weight), jnp.ones(())),
            **reward_monitors(quality, batch),
        }

    return loss_fn


ODIN = Method(
    "ODIN: quality and length as two rewards, of which quality is used (arXiv 2402.07319)",
    odin,
    (0.1, 0.3, 1.0),
    "the coefficient of both terms",
    outputs=2,
)
