"""A linear probe: what a frozen model's hidden states could tell, were they only asked.

Beside the accuracy of a trained reward model it says how much there was to keep, and beside the
language model's own ranking how little of it likelihood shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxrm.data.comparison import Comparison
from jaxrm.data.packing import PackedBatch
from jaxrm.evaluate.accuracy import Accuracy, accuracy
from jaxrm.evaluate.splits import Split
from jaxrm.models.transformer import RewardModel
from jaxrm.reading import read

RIDGE = 1e-2
"""L2 penalty on the probe's weights, for states of unit deviation."""


def probe(model: RewardModel, train: Split, test: Split, **options: Any) -> Accuracy:
    """Accuracy on `test` of a linear reward on the model's frozen states, fitted to `train`.

    The states are those that a reward head reads. The fit is logistic regression on the difference
    of chosen and rejected states (Bradley-Terry with a linear reward), by Newton's method.

    Args:
      train, test: comparisons with ranks that share no prompt.
      options: as for `reading.read`.
    """
    both = [*train.trees, *test.trees]
    states = read(model, both, {"states": final_states}, **options)["states"]
    weights = fit_head(states[: len(train.trees)], train.comparisons)
    scores = [state @ weights for state in states[len(train.trees) :]]
    return accuracy(scores, test.comparisons)


def fit_head(states: Sequence[np.ndarray], comparisons: Sequence[Comparison]) -> np.ndarray:
    """Float64 [d]: the linear reward that orders `comparisons` best, as a probe fits it.

    Args:
      states: float [K, d] for each comparison, in the order of its responses: `final_states`.
      comparisons: the same comparisons, with ranks.
    """
    return _fit(_differences(states, comparisons))


def final_states(
    model: RewardModel, hidden: Float[Array, "rows length d"], batch: PackedBatch
) -> Float[Array, "rows slots d"]:
    """The hidden state that a reward is read from, for each response."""
    return jnp.take_along_axis(hidden, batch.response_end[..., None], axis=1).astype(jnp.float32)


def _differences(states: Sequence[np.ndarray], comparisons: Sequence[Comparison]) -> np.ndarray:
    """Float64 [pairs, d]: better minus worse, of every ordered pair."""
    rows = []
    for state, comparison in zip(states, comparisons, strict=True):
        ranks = np.asarray(comparison.ranks)
        better, worse = np.nonzero(ranks[:, None] < ranks[None, :])
        rows.append(state[better] - state[worse])
    return np.concatenate(rows).astype(np.float64)


def _fit(differences: np.ndarray) -> np.ndarray:
    """Float64 [d]: the weights of the most likely linear reward under the penalty."""
    scale = differences.std(axis=0) + 1e-6
    x = differences / scale
    weights = np.zeros(x.shape[1])
    for _ in range(20):
        wrong = 1 / (1 + np.exp(x @ weights))
        gradient = RIDGE * weights - x.T @ wrong / len(x)
        curvature = (x.T * (wrong * (1 - wrong))) @ x / len(x) + RIDGE * np.eye(len(weights))
        weights -= np.linalg.solve(curvature, gradient)
    return weights / scale
