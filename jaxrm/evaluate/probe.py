"""A linear probe: what a frozen model's hidden states could tell, were they only asked.

Beside the accuracy of a trained reward model it says how much there was to keep, and beside the
language model's own ranking how little of it likelihood shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float
from scipy.special import expit

from jaxrm.data import chat
from jaxrm.data.comparison import Comparison
from jaxrm.data.ordering import ordered_pairs
from jaxrm.data.packing import PackedBatch
from jaxrm.data.tokenizer import ChatTokenizer
from jaxrm.evaluate.scorers import Scorer
from jaxrm.models import transformer
from jaxrm.models.transformer import RewardModel
from jaxrm.read.accuracy import Accuracy, accuracy, require_order
from jaxrm.read.packed import Packed
from jaxrm.read.reading import read, read_batches

RIDGE = 1e-2
"""L2 penalty on the probe's weights, for differences whose root mean square is 1."""


def probe(model: RewardModel, train: Packed, test: Packed, *, mesh: Mesh) -> Accuracy:
    """Accuracy on `test` of a linear reward on the model's frozen states, fitted to `train`.

    The states are those that a reward head reads. The fit is logistic regression on the difference
    of chosen and rejected states (Bradley-Terry with a linear reward), by Newton's method.

    Args:
      train, test: comparisons with ranks that share no prompt, packed on the mesh of the model.

    Raises:
      DataError: as `fit_head`, of either split.
    """
    for split in (train, test):
        require_order(split.comparisons)

    def states(split: Packed) -> list[np.ndarray]:
        readings = {"states": final_states}
        with jax.set_mesh(mesh):
            parts = transformer.split(model)
            return read_batches(*parts, split.batches, readings, split.trees)["states"]

    weights = fit_head(states(train), train.comparisons)
    return accuracy([state @ weights for state in states(test)], test.comparisons)


def as_scorer(
    model: RewardModel, tokenizer: ChatTokenizer, train: Sequence[Comparison], **options: Any
) -> Scorer:
    """The linear reward on the model's frozen states that orders `train` best.

    Args:
      options: as for `reading.read`.

    Raises:
      DataError: as `fit_head`.
    """

    def states(comparisons: Sequence[Comparison]) -> list[np.ndarray]:
        trees = chat.tokenize(comparisons, tokenizer)
        return read(model, trees, {"states": final_states}, **options)["states"]

    weights = fit_head(states(train), train)
    return lambda comparisons: [of_responses @ weights for of_responses in states(comparisons)]


def fit_head(states: Sequence[np.ndarray], comparisons: Sequence[Comparison]) -> np.ndarray:
    """Float64 [d]: the linear reward that orders `comparisons` best, as a probe fits it.

    Args:
      states: float [K, d] for each comparison, in the order of its responses: `final_states`.
      comparisons: the same comparisons, with ranks.

    Raises:
      DataError: as `require_order`.
    """
    require_order(comparisons)
    pairs, rows = ordered_pairs(comparisons), np.concatenate(states).astype(np.float64)
    return _fit(rows[pairs.better] - rows[pairs.worse])


def final_states(
    model: RewardModel, hidden: Float[Array, "rows length d"], batch: PackedBatch
) -> Float[Array, "rows slots d"]:
    """The hidden state that a reward is read from, for each response."""
    return jnp.take_along_axis(hidden, batch.response_end[..., None], axis=1).astype(jnp.float32)


def _fit(differences: np.ndarray) -> np.ndarray:
    """Float64 [d]: the weights of the most likely linear reward under the penalty.

    Args:
      differences: float64 [pairs >= 1, d], better minus worse.
    """
    scale = np.sqrt((differences**2).mean(axis=0))
    # A direction in which no pair differs says nothing, and its weight stays 0.
    scale[scale == 0] = 1
    x = differences / scale
    weights = np.zeros(x.shape[1])
    for _ in range(20):
        wrong = expit(-x @ weights)
        gradient = RIDGE * weights - x.T @ wrong / len(x)
        curvature = (x.T * (wrong * (1 - wrong))) @ x / len(x) + RIDGE * np.eye(len(weights))
        weights -= np.linalg.solve(curvature, gradient)
    return weights / scale
