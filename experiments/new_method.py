"""A new method is one file like this one: focal Bradley-Terry that stays near the base's states.

    python -m experiments.new_method                              # the toy world, on a laptop
    python -m experiments.new_method --base DIR --data SOURCE --eval SOURCE --run-dir RUN

The focal loss (arXiv 1708.02002) on pairs of rewards, plus `strength` times the squared distance
between the state that a reward is read from and what the base has there, in units of the base's.
The base's states are a column that the base fills in before training. Everything else (LoRA, the
mesh, checkpoints, resuming, evaluation, the export) comes with the command.

It is an example, and no claim is made for it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrm.data.packing import PackedBatch
from jaxrm.evaluate.probe import final_states
from jaxrm.losses import preference
from jaxrm.methods.method import Fill, Method, hidden_states, pair_weights
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.study import command
from jaxrm.train.terms import LossFn, Term, Terms, reward_monitors

GAMMA = 2.0


def near_base(strength: float) -> LossFn:
    """Focal Bradley-Terry + strength x the relative squared distance of states to the base's."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        hidden = hidden_states(model, batch, rng)
        rewards = heads.rewards(model, hidden, batch, rng)
        base = batch.column("base_state")
        moved = jnp.sum((final_states(model, hidden, batch) - base) ** 2, axis=-1)
        size = jnp.where(batch.response_mask, jnp.sum(base**2, axis=-1), 1.0)
        values = preference.focal(*batch.pairs(rewards), GAMMA)
        return {
            "reward": Term(1.0, values, pair_weights(batch)),
            "distance": Term(strength, moved / size, batch.response_mask),
            **reward_monitors(rewards, batch),
        }

    return loss_fn


FOCAL_NEAR_BASE = Method(
    "focal Bradley-Terry whose states stay near the base's",
    near_base,
    (0.1, 1.0, 10.0),
    "the coefficient of the states' distance",
    fills=(Fill("base_state", final_states),),
)

if __name__ == "__main__":
    command.run({"focal_near_base": FOCAL_NEAR_BASE}, __doc__)
