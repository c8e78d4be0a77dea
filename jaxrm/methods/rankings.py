"""Losses on rankings of K responses, read whole, and their control, which tears them into pairs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import jax
from jaxtyping import Array, Bool, Float, Int

from jaxrm.data.comparison import Comparison
from jaxrm.data.packing import PackedBatch
from jaxrm.losses import ranking
from jaxrm.methods.method import Method, bradley_terry, hidden_states
from jaxrm.methods.task import Task
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.train.terms import LossFn, Term, Terms, reward_monitors

GroupLoss = Callable[
    [Float[Array, "*n K"], Int[Array, "*n K"], Bool[Array, "*n K"]], Float[Array, "*n"]
]
"""(rewards, ranks, mask) -> one value for each prompt."""


def of_groups(loss: GroupLoss) -> Callable[[float | None], LossFn]:
    """The loss functions, by strength, which they ignore, of a loss on rankings."""

    def at(strength: float | None) -> LossFn:
        def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
            rewards = heads.rewards(model, hidden_states(model, batch, rng), batch, rng)
            ranks = batch.groups(batch.response_rank)
            values = loss(batch.groups(rewards), ranks, batch.group_mask)
            reward = Term(1.0, values, batch.group_mask[..., 0])
            return {"reward": reward, **reward_monitors(rewards, batch)}

        return loss_fn

    return at


def apart(task: Task) -> list[Comparison]:
    """Every ordered pair of every ranking as a comparison of its own."""
    return [
        dataclasses.replace(
            ranking,
            responses=(ranking.responses[better], ranking.responses[worse]),
            ranks=(0, 1),
            scores=None,
            attributes=None,
            steps=None,
            columns={},
            id=f"{ranking.id}-{better}-{worse}",
        )
        for ranking in task.data.comparisons
        for better, worse in itertools.permutations(range(len(ranking.responses)), 2)
        if ranking.ranks[better] < ranking.ranks[worse]
    ]


RANKED = "rankings of several responses"

RANKINGS: dict[str, Method] = {
    "shuffled": Method(
        "Bradley-Terry on rankings torn into pairs (InstructGPT's control, arXiv 2203.02155)",
        bradley_terry,
        prepare=apart,
        needs=RANKED,
    ),
    "kwise": Method(
        "K-wise: all pairs of a ranking in one batch (InstructGPT, arXiv 2203.02155)",
        of_groups(ranking.kwise),
        needs=RANKED,
    ),
    "plackett_luce": Method(
        "Plackett-Luce on whole rankings (arXiv 2301.11270)",
        of_groups(ranking.plackett_luce),
        needs=RANKED,
    ),
}
"""The first, which tears rankings into pairs, is the baseline of the others."""
