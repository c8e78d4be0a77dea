"""A method of a study: a way to train on comparisons, and what to score with afterwards.

All methods get the same task: a base and its batches, comparisons, a trial (a learning rate and the
method's one number, its strength), and how much work they may do. Nearly all are `one` model with a
recipe of its own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxrm.data.comparison import Comparison
from jaxrm.models import heads
from jaxrm.models.heads import HeadConfig
from jaxrm.read.packed import Packed
from jaxrm.read.reading import Reading
from jaxrm.study.lab import Fitted, Lab
from jaxrm.study.recipe import Recipe
from jaxrm.train.state import Params

Scores = Callable[[Packed], Float[np.ndarray, "n K"]]
"""The reward of every response."""


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A trained model, and what it cost.

    Attributes:
      flops: useful floating-point operations of its training.
      dropped: comparisons that no row of training holds.
    """

    lab: Lab
    fitted: Fitted
    flops: float
    dropped: int

    def scores(self, reading: Reading = heads.rewards, references: bool = False) -> Scores:
        """What the model reads off every response.

        Args:
          references: whether the reading needs the base's log-probs.
        """

        def score(data: Packed) -> np.ndarray:
            data = referenced(self.lab, data) if references else data
            return self.lab.read(self.fitted.params, data, {"scores": reading})["scores"]

        return score


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What a method is given.

    Attributes:
      lab: the base, its head, and the shape of batches.
      data: to train on.
      validation: labelled as it is, of other prompts.
      rate, strength: the trial.
      epochs, seed: of training.
      flops: how much work the whole training may be; without it, it is all of its epochs.
    """

    lab: Lab
    data: Packed
    validation: Packed
    rate: float
    strength: float | None
    epochs: int
    seed: int
    flops: float | None = None

    def fit(
        self,
        recipe: Recipe,
        comparisons: Sequence[Comparison] | None = None,
        *,
        head: HeadConfig | None = None,
        references: bool = False,
        share: float = 1.0,
        params: Params | None = None,
        rate: float | None = None,
        seed: int | None = None,
    ) -> Model:
        """A model trained on the task's data, or on comparisons made of it.

        Args:
          head: another than the lab's.
          references: whether the loss needs the base's log-probs.
          share: of the work that may be done, what this model may take.
          params: where training begins.
          rate, seed: others than the task's.
        """
        lab = self.lab if head is None else dataclasses.replace(self.lab, head=head)
        if comparisons is None:
            every = referenced(lab, self.data).trees if references else self.data.trees
        elif references:
            every = lab.with_references(lab.pack(comparisons, "all"))
        else:
            every = lab.trees(comparisons)
        trees = lab.fitting(every)
        seed = self.seed if seed is None else seed
        steps = lab.steps(recipe, trees, self.epochs, seed)
        per_step = self.epochs * lab.flops(recipe, trees) / steps
        if self.flops is not None:
            steps = max(1, round(share * self.flops / per_step))
        fitted = lab.fit(
            recipe,
            trees,
            rate=self.rate if rate is None else rate,
            strength=self.strength,
            steps=steps,
            seed=seed,
            params=params,
        )
        return Model(lab, fitted, steps * per_step, len(every) - len(trees))


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """What a method made of a task."""

    scores: Scores
    models: Sequence[Model]


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to train a reward model.

    Attributes:
      train: from a task to scores.
      strengths: what its strength is chosen from; without them, its learning rate is chosen.
    """

    train: Callable[[Task], Trained]
    strengths: tuple[float, ...] = ()


def one(
    recipe: Recipe,
    prepare: Callable[[Task], Sequence[Comparison]] | None = None,
    *,
    reading: Reading = heads.rewards,
    **options: Any,
) -> Callable[[Task], Trained]:
    """One model trained by a recipe.

    Args:
      prepare: what it trains on; the task's data without it.
      reading: what it scores with.
      options: of `Task.fit`; `references` holds for scoring too.
    """

    def train(task: Task) -> Trained:
        model = task.fit(recipe, None if prepare is None else prepare(task), **options)
        return Trained(model.scores(reading, options.get("references", False)), [model])

    return train


@functools.lru_cache(maxsize=32)
def referenced(lab: Lab, data: Packed) -> Packed:
    """The same comparisons with the base's log-probs of every response, and all their targets."""
    trees = lab.with_references(lab.pack_trees(data.comparisons, data.trees, "all"))
    return lab.pack_trees(data.comparisons, trees, "all")
