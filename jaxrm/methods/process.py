"""Process reward models: a label for each step of a response."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float

from jaxrm.data.comparison import Comparison
from jaxrm.data.packing import PackedBatch
from jaxrm.losses import process
from jaxrm.methods.bench import Bench
from jaxrm.methods.method import Method, hidden_states
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.train.state import Params
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


def step_logps(
    bench: Bench, params: Params, comparisons: Sequence[Comparison]
) -> tuple[Float[np.ndarray, "n K steps"], Bool[np.ndarray, "n K steps"]]:
    """The log-probability of each step of being right, and where there are steps.

    Args:
      comparisons: of equally many responses each, with steps of five tokens at least.
    """
    data = bench.pack_trees(comparisons, bench.trees(comparisons), steps=bench.length // 5)
    logits = bench.read(params, data, {"steps": heads.steps_by_response})["steps"]
    counts = np.array([[len(steps) for steps in c.steps] for c in comparisons])
    return np.asarray(jax.nn.log_sigmoid(logits)), np.arange(logits.shape[-1]) < counts[..., None]
