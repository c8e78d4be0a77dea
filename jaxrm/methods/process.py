"""Process reward models: a label for each step of a response."""

from __future__ import annotations

import jax

from jaxrm.data.packing import PackedBatch
from jaxrm.losses import process
from jaxrm.methods.method import Method, hidden_states
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.train.terms import LossFn, Term, Terms


def at_steps(strength: float | None) -> LossFn:
    """Cross-entropy at the steps that have a label."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        logits = heads.step_outputs(model, hidden_states(model, batch, rng), batch, rng)[..., 0]
        values = process.step_cross_entropy(logits, batch.step_label, batch.step_mask)
        return {"steps": Term(1.0, values, batch.step_mask)}

    return loss_fn


PROCESS = Method(
    "a process reward model: cross-entropy of each labelled step (PRM800K, arXiv 2305.20050)",
    at_steps,
    columns=("steps",),
    keeps=("single", "unranked", "tie"),
    needs="responses with labelled steps",
)
"""Its reward of a response is that of its end: how right the last step is."""
