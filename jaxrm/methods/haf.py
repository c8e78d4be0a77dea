"""A policy beside the reward, or in its place: HaF-RM (arXiv 2407.04185) and DPO."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float

from jaxrm.data.packing import PackedBatch
from jaxrm.losses import generation, preference
from jaxrm.methods.method import REFERENCE_LOGPS, Method, hidden_states, pair_weights
from jaxrm.methods.task import Part, Task, Trained
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.train.terms import LossFn, Term, Terms, reward_monitors

BETA = 0.1
"""DPO's in HaF, as in the paper; as a factor of scores it changes no order."""


def haf(ratio: float) -> LossFn:
    """Bradley-Terry + `ratio` DPO, on one trunk."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        hidden = hidden_states(model, batch, rng)
        rewards = heads.rewards(model, hidden, batch, rng)
        reward = preference.bradley_terry(*batch.pairs(rewards))
        policy = policy_loss(model, hidden, batch, BETA)
        per_pair = pair_weights(batch)
        terms = {"reward": Term(1.0, reward, per_pair), "policy": Term(ratio, policy, per_pair)}
        return terms | reward_monitors(rewards, batch)

    return loss_fn


def dpo(beta: float) -> LossFn:
    """DPO alone (arXiv 2305.18290)."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        policy = policy_loss(model, hidden_states(model, batch, rng), batch, beta)
        return {"policy": Term(1.0, policy, pair_weights(batch))}

    return loss_fn


def policy_loss(
    model: RewardModel, hidden: Float[Array, "rows length d"], batch: PackedBatch, beta: float
) -> Float[Array, "rows pairs"]:
    """DPO of each pair, with the reference's log-probs that the batch brings."""
    logps = heads.response_logps(model, hidden, batch)
    reference = batch.pairs(batch.column("reference_logps"))
    return generation.dpo(*batch.pairs(logps), *reference, beta)


def implicit_rewards(
    model: RewardModel, hidden: Float[Array, "rows length d"], batch: PackedBatch
) -> Float[Array, "rows slots"]:
    """The policy as a reward model: beta (log pi - log pi_ref)."""
    logps = heads.response_logps(model, hidden, batch)
    return generation.implicit_rewards(logps, batch.column("reference_logps"), BETA)


def policy(task: Task, method: Method) -> Trained:
    """A policy, whose reward is its log-probs less those of the model that it began from."""
    model, bench = task.fit(method), task.bench
    parts = [
        Part(lambda: model.whole().language_model(), "logps", BETA),
        Part(lambda: bench.load(task.seed).without_lora().language_model(), "logps", -BETA),
    ]
    return Trained(model.scores, [model], parts)


POLICIES: dict[str, Method] = {
    "haf": Method(
        "HaF-RM: Bradley-Terry and DPO on one trunk (arXiv 2407.04185)",
        haf,
        (0.1, 0.2, 0.4),
        "DPO's coefficient",
        ask="all",
        fills=(REFERENCE_LOGPS,),
    ),
    "dpo": Method(
        "DPO's policy as a reward model (arXiv 2305.18290)",
        dpo,
        (0.03, 0.1, 0.3),
        "beta",
        reading=implicit_rewards,
        ask="all",
        fills=(REFERENCE_LOGPS,),
        train=policy,
    ),
}
