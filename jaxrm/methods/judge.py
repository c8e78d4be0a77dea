"""Judges, which say what they think: verdicts as words, and rewards after a critique."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrm.data.packing import PackedBatch
from jaxrm.losses import generation, judge, preference
from jaxrm.methods.method import Method, hidden_states, pair_weights
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.train.terms import LossFn, Term, Terms


def verdict(strength: float | None) -> LossFn:
    """The cross-entropy of the verdict, of two, that is ranked first."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        logps = heads.response_logps(model, hidden_states(model, batch, rng), batch)
        right, wrong = batch.pairs(logps)
        return {"verdict": Term(1.0, judge.verdict(right, wrong, 1.0), pair_weights(batch))}

    return loss_fn


def after_notes(
    rewards: Float[Array, "*n notes"], logps: Float[Array, "*n notes"]
) -> Float[Array, "*n"]:
    """An answer's rewards after notes as a mean over the notes that the model would write; the
    notes learn nothing from it."""
    return jnp.sum(jax.nn.softmax(jax.lax.stop_gradient(logps)) * rewards, axis=-1)


def critique(strength: float | None) -> LossFn:
    """Bradley-Terry on the reward after the model's own notes + the notes' log-likelihood."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        hidden = hidden_states(model, batch, rng)
        rewards = batch.groups(heads.rewards(model, hidden, batch, rng))
        logps = batch.groups(heads.response_logps(model, hidden, batch))
        chosen = after_notes(rewards[..., :2], logps[..., :2])
        rejected = after_notes(rewards[..., 2:], logps[..., 2:])
        praise, blame = logps[..., 0], logps[..., 3]  # of the chosen, and of the rejected
        real = batch.group_mask[..., 0]
        return {
            "reward": Term(1.0, preference.bradley_terry(chosen, rejected), real),
            "note": Term(1.0, generation.nll(praise) + generation.nll(blame), real),
        }

    return loss_fn


JUDGE = Method(
    "a judge: cross-entropy of the verdict (RM-R1, arXiv 2505.02387, without its reasoning)",
    verdict,
    ask="all",
    needs="prompts that show two answers, whose responses are the right verdict and the wrong one",
)

CRITIC = Method(
    "critique-out-loud: a reward after the model's own critique (arXiv 2408.11791)",
    critique,
    ask="all",
    needs="answers of a pair, the better one first, each with praise and then with blame after it",
)
