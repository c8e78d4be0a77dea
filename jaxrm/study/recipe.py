"""How a small model of a study is trained: its loss, its optimizer, and what trains.

A method of a study differs from the others in its recipe alone; model, data and batches are the
laboratory's (`jaxrm.study.lab`). Beside the learning rate a recipe is tuned by one number, its
strength, which is None where it has none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxrm.data.carried import Column
from jaxrm.data.packing import Ask, PackedBatch
from jaxrm.losses import preference
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.train.state import Trainable
from jaxrm.train.terms import BatchTerm, LossFn, Term, Terms, reward_monitors

CLIP = 5.0
"""Largest norm of a gradient."""

PairLoss = Callable[
    [Float[Array, "rows pairs"], Float[Array, "rows pairs"], PackedBatch, float | None],
    Float[Array, "rows pairs"],
]
"""(chosen rewards, rejected rewards, batch, strength) -> one loss per pair."""

Regularize = Callable[[Float[Array, "rows slots"], PackedBatch, float | None], Term | BatchTerm]
"""(rewards, batch, strength) -> what a loss adds to Bradley-Terry."""


def adam(
    learning_rate: float, strength: float | None, *pulls: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Adam with clipping, and what pulls beside the gradient, at one constant rate."""
    return optax.chain(
        optax.clip_by_global_norm(CLIP),
        optax.scale_by_adam(),
        *pulls,
        optax.scale_by_learning_rate(learning_rate),
    )


def everything(path: str) -> bool:
    """All parameters train."""
    return True


def head_alone(path: str) -> bool:
    """The reward head trains."""
    return path.startswith("reward_head")


def pairwise(loss: PairLoss) -> Callable[[float | None], LossFn]:
    """The loss functions, by strength, of a loss on pairs of rewards, which it averages over pairs
    by their weights."""

    def at(strength: float | None) -> LossFn:
        def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
            rewards = heads.rewards(model, model.hidden(batch), batch, rng)
            values = loss(*batch.pairs(rewards), batch, strength)
            reward = Term(1.0, values, batch.pair_weight * batch.pair_mask)
            return {"reward": reward, **reward_monitors(rewards, batch)}

        return loss_fn

    return at


def beside(regularize: Regularize) -> Callable[[float | None], LossFn]:
    """The loss functions, by strength, of Bradley-Terry and one term more."""

    def at(strength: float | None) -> LossFn:
        def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
            rewards = heads.rewards(model, model.hidden(batch), batch, rng)
            values = preference.bradley_terry(*batch.pairs(rewards))
            return {
                "reward": Term(1.0, values, batch.pair_weight * batch.pair_mask),
                "regularizer": regularize(rewards, batch, strength),
                **reward_monitors(rewards, batch),
            }

        return loss_fn

    return at


bradley_terry = pairwise(lambda chosen, rejected, *_: preference.bradley_terry(chosen, rejected))
"""The baseline, by strength, which it ignores."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is compiled for a method: equal recipes share a compilation at equal strengths.

    Attributes:
      loss: its loss function at a strength.
      optimizer: at a learning rate and a strength.
      trains: which parameters.
      ask: whose tokens its language model is asked to predict.
      responses: of a comparison, at most.
      attributes: numbers that a response is labelled with.
      steps: labelled steps of a row.
      columns: those that the loss reads: all comparisons must have them.
      text: whether batches are `WithText`, with text beside the comparisons.
    """

    loss: Callable[[float | None], LossFn] = bradley_terry
    optimizer: Callable[[float, float | None], optax.GradientTransformation] = adam
    trains: Trainable = everything
    ask: Ask = "none"
    responses: int = 2
    attributes: int = 0
    steps: int = 0
    columns: tuple[Column, ...] = ()
    text: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WithText:
    """Comparisons, and text beside them."""

    pairs: PackedBatch
    text: PackedBatch

    @property
    def comparison(self) -> jax.Array:
        """Of all tokens, -1 on padding: what the train step counts."""
        return jnp.concatenate([self.pairs.comparison.ravel(), self.text.comparison.ravel()])
