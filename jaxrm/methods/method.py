"""A method of training reward models: what differs between methods, and nothing else.

Base, data, batches, optimizer and devices are the bench's (`jaxrm.methods.bench`). So a method is
written once, and trains a toy in memory, Gemma with LoRA, or on a pod:

    focal = Method("...", pairwise(lambda chosen, rejected, batch, gamma: ...), (0.5, 1.0, 2.0))

Beside the learning rate a method is tuned by one number, its strength, which is None where it has
none. A procedure of several trainings says in `train` what it does with a task.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import jax
import optax
from jaxtyping import Array, Float

from jaxrm.data.comparison import Comparison
from jaxrm.data.packing import Ask, PackedBatch
from jaxrm.losses import preference
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.read.reading import Reading
from jaxrm.train.state import Trainable
from jaxrm.train.terms import BatchTerm, LossFn, Term, Terms, reward_monitors

if TYPE_CHECKING:
    from jaxrm.methods.task import Task, Trained

PairLoss = Callable[
    [Float[Array, "rows pairs"], Float[Array, "rows pairs"], PackedBatch, float | None],
    Float[Array, "rows pairs"],
]
"""(chosen rewards, rejected rewards, batch, strength) -> one loss per pair."""

Regularize = Callable[[Float[Array, "rows slots"], PackedBatch, float | None], Term | BatchTerm]
"""(rewards, batch, strength) -> what a loss adds to Bradley-Terry."""

Combine = Callable[[Float[Array, "... outputs"]], Float[Array, "..."]]
"""The reward of a head's outputs, linear in them."""


def hidden_states(
    model: RewardModel, batch: PackedBatch, rng: jax.Array
) -> Float[Array, "rows length d"]:
    """`model.hidden` in training: LoRA's dropout, where there is any, has a key of its own."""
    return model.hidden(batch, None if model.lora is None else jax.random.fold_in(rng, 1))


def pair_weights(batch: PackedBatch) -> Float[Array, "rows pairs"]:
    """What a pair counts in a mean over pairs; 0 where there is none."""
    return batch.pair_weight * batch.pair_mask


def pairwise(loss: PairLoss) -> Callable[[float | None], LossFn]:
    """The loss functions, by strength, of a loss on pairs of rewards, which it averages over pairs
    by their weights."""

    def at(strength: float | None) -> LossFn:
        def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
            rewards = heads.rewards(model, hidden_states(model, batch, rng), batch, rng)
            values = loss(*batch.pairs(rewards), batch, strength)
            reward = Term(1.0, values, pair_weights(batch))
            return {"reward": reward, **reward_monitors(rewards, batch)}

        return loss_fn

    return at


def beside(regularize: Regularize) -> Callable[[float | None], LossFn]:
    """The loss functions, by strength, of Bradley-Terry and one term more."""

    def at(strength: float | None) -> LossFn:
        def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
            rewards = heads.rewards(model, hidden_states(model, batch, rng), batch, rng)
            values = preference.bradley_terry(*batch.pairs(rewards))
            return {
                "reward": Term(1.0, values, pair_weights(batch)),
                "regularizer": regularize(rewards, batch, strength),
                **reward_monitors(rewards, batch),
            }

        return loss_fn

    return at


bradley_terry = pairwise(lambda chosen, rejected, *_: preference.bradley_terry(chosen, rejected))
"""The baseline, by strength, which it ignores."""


def everything(path: str) -> bool:
    """All parameters train."""
    return True


def head_alone(path: str) -> bool:
    """The reward head trains."""
    return path.startswith("reward_head")


def first_output(outputs: Float[Array, "... outputs"]) -> Float[Array, ...]:
    """The first of a head's outputs is the reward."""
    return outputs[..., 0]


@dataclasses.dataclass(frozen=True)
class Fill:
    """A column that the base fills in, before training and, where a score needs it, afterwards.

    Attributes:
      name: of the column.
      reading: what it reads off each response: float [rows, slots] or [rows, slots, width].
      ask: whose tokens it needs as targets.
    """

    name: str
    reading: Reading
    ask: Ask = "none"


REFERENCE_LOGPS = Fill("reference_logps", heads.response_logps, "all")
"""The log-probs of DPO's reference, which is the model that training begins from."""


@dataclasses.dataclass(frozen=True)
class Method:
    """How reward models are trained and read. Methods of equal fields share compilations.

    Attributes:
      about: one line, with the paper.
      loss: its loss function at a strength.
      strengths: what the strength is chosen from; without them the learning rate is chosen.
      strength: what the strength is, in words.
      outputs: of the reward head, for each response.
      combine: the reward of those outputs.
      reading: what scores a response, where it is not `combine` of the outputs.
      ask: whose tokens its language model is asked to predict in training.
      columns: what else its loss reads of a batch, which every comparison must bring: columns by
        their names, "attributes", or "steps".
      fills: columns that the base fills in.
      prepare: what it trains on, of a task's comparisons; those themselves without it.
      keeps: comparisons that it has a use for and Bradley-Terry has not (the reasons of
        `jaxrm.data.training`): "tie", "unranked", "single".
      text: whether batches are `WithText`, with text beside the comparisons.
      trains: which parameters.
      pulls: at a strength, what pulls at the weights beside the gradient.
      train: a procedure of several trainings; without it, one model is trained.
      needs: the data that it needs, in words.
    """

    about: str
    loss: Callable[[float | None], LossFn] = bradley_terry
    strengths: tuple[float, ...] = ()
    strength: str = ""
    outputs: int = 1
    combine: Combine = first_output
    reading: Reading | None = None
    ask: Ask = "none"
    columns: tuple[str, ...] = ()
    fills: tuple[Fill, ...] = ()
    prepare: Callable[[Task], Sequence[Comparison]] | None = None
    keeps: tuple[str, ...] = ()
    text: bool = False
    trains: Trainable = everything
    pulls: Callable[[float | None], tuple[optax.GradientTransformation, ...]] = lambda strength: ()
    train: Callable[[Task, Method], Trained] | None = None
    needs: str = "pairs"

    @property
    def default(self) -> float | None:
        """The strength in the middle of those worth trying."""
        return self.strengths[len(self.strengths) // 2] if self.strengths else None
