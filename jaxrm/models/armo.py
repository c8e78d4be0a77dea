"""ArmoRM (arXiv 2406.12845): attributes read off frozen states, weighed by a gate on the prompt.

The reward is g(x) . r(x, y). The attributes r are linear in the state at the end of the response,
each fitted by ridge regression to its own grades. What they owe to verbosity is taken off. The gate
g is a softmax over the attributes, computed from the state at the end of the prompt, so that all
responses to a prompt are weighed alike; it is fitted to pairs by Bradley-Terry:

    fitted = fit_heads(states, labels, val_states, val_labels, names)
    penalties = verbosity_penalties(states @ fitted.weights, verbosity)
    heads = debiased(fitted.weights, penalties, verbosity)
    params = fit_gate(gate, prompts, chosen_states @ heads, rejected_states @ heads)

and the reward model is the frozen one with these heads as its own, read by `Gated(gate, params)`
(`jaxrm.models.gate`).

The published script differs in two points: the attributes that its gate is trained and tested on
are not the debiased ones, which it computes, and its softmax runs over axis 1, whatever that is.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats
from jaxtyping import Float

from jaxrm.data.comparison import Comparison, fault
from jaxrm.errors import DataError, require
from jaxrm.losses import preference
from jaxrm.models.gate import Gate
from jaxrm.models.parameters import Tree

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-4, 4, 9))
"""What the strength of a ridge regression is chosen from."""

PENALTIES = (0.0, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, *np.arange(20, 100, 5) / 100)
"""How much of the verbosity reward may be taken off an attribute, from little to much."""

_EXACT = jax.lax.Precision.HIGHEST


def labels_of(
    comparisons: Sequence[Comparison], names: Sequence[str]
) -> Float[np.ndarray, "responses attributes"]:
    """Float64: the grades of all responses, one after another, NaN where there is none.

    Args:
      names: of the attributes, in the order in which the comparisons have them.

    Raises:
      DataError: a comparison has no attributes, or another number of them.
    """
    rows = []
    for comparison in comparisons:
        if comparison.attributes is None:
            raise fault(comparison.where, "attributes", "missing")
        if len(comparison.attributes[0]) != len(names):
            problem = f"{len(comparison.attributes[0])} values for {', '.join(names)}"
            raise fault(comparison.where, "attributes", problem)
        rows += comparison.attributes
    return np.asarray(rows, np.float64).reshape(-1, len(names))


# The attributes


@dataclasses.dataclass(frozen=True, eq=False)
class RidgeHeads:
    """Linear heads on frozen states.

    Attributes:
      weights: float64 [d, A].
      alphas: float64 [A], the strength of the regression that gave each head.
      errors: float64 [A], the mean squared error of each on the validation labels.
    """

    weights: np.ndarray
    alphas: np.ndarray
    errors: np.ndarray


def ridge(
    states: Float[np.ndarray, "n d"], labels: Float[np.ndarray, " n"], alpha: float
) -> Float[np.ndarray, " d"]:
    """(X'X + alpha I)^-1 X'y, float64, over the rows that have a label; without an intercept.

    Args:
      states: X.
      labels: y, NaN where there is none.
      alpha: above 0, not divided by n (as scikit-learn's Ridge counts it).
    """
    return _solve(*_moments(states, labels), alpha)


def _moments(states: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    present = ~np.isnan(labels)
    x, y = np.asarray(states, np.float64)[present], np.asarray(labels, np.float64)[present]
    return x.T @ x, x.T @ y


def _solve(gram: np.ndarray, moment: np.ndarray, alpha: float) -> np.ndarray:
    return np.linalg.solve(gram + alpha * np.eye(len(gram)), moment)


def fit_heads(
    states: Float[np.ndarray, "n d"],
    labels: Float[np.ndarray, "n attributes"],
    val_states: Float[np.ndarray, "m d"],
    val_labels: Float[np.ndarray, "m attributes"],
    names: Sequence[str],
    alphas: Sequence[float] = ALPHAS,
) -> RidgeHeads:
    """For each attribute, of the ridge regressions the one that is best on the validation labels.

    Args:
      states: those that a reward would be read from, one for each response.
      labels: their grades, NaN where there is none (`labels_of`).
      val_states, val_labels: of other responses.
      names: of the attributes, for errors.
      alphas: to choose from; of equally good ones the first is taken.

    Raises:
      DataError: an attribute has no label at all, to fit or to choose by.
      ValueError: numbers of columns or rows that do not match.
    """
    for x, y in ((states, labels), (val_states, val_labels)):
        if np.shape(y) != (len(x), len(names)):
            raise ValueError(f"labels {np.shape(y)} for {len(x)} states and {len(names)} names")
    for part, y in (("training", labels), ("validation", val_labels)):
        for a in np.flatnonzero(np.isnan(y).all(axis=0)):
            raise DataError(f"attribute {names[a]!r}: no {part} response has a label")

    def best(a: int) -> tuple[float, float, np.ndarray]:
        gram, moment = _moments(states, labels[:, a])
        tried = []
        for alpha in alphas:
            weights = _solve(gram, moment, alpha)
            error = np.nanmean((val_states @ weights - val_labels[:, a]) ** 2)
            tried.append((error, alpha, weights))
        return min(tried, key=lambda trial: trial[0])

    errors, chosen, weights = zip(*map(best, range(len(names))), strict=True)
    return RidgeHeads(np.stack(weights, axis=-1), np.array(chosen), np.array(errors))


def verbosity_penalties(
    rewards: Float[np.ndarray, "n attributes"],
    verbosity: int,
    limit: float = 0.03,
    grid: Sequence[float] = PENALTIES,
) -> Float[np.ndarray, " attributes"]:
    """For each attribute, the smallest penalty that leaves no love of verbosity in it.

    That is the first of `grid` at which Spearman's correlation of r_i - penalty r_verbosity with
    r_verbosity is at most `limit`. The correlation is signed: an attribute that verbosity lowers is
    left alone. It is 1 where none of the grid suffices, and for verbosity itself, which `debiased`
    so makes 0. A correlation with what never varies counts as 0.

    Args:
      rewards: of reference responses, in the same units for all attributes.
      verbosity: the attribute's place.
      grid: ascending.
    """
    rewards = np.asarray(rewards, np.float64)
    by_verbosity = scipy.stats.rankdata(rewards[:, verbosity])
    penalties = np.ones(rewards.shape[1])
    for i in range(rewards.shape[1]):
        if i == verbosity:
            continue
        for penalty in grid:
            left = rewards[:, i] - penalty * rewards[:, verbosity]
            if _correlation(scipy.stats.rankdata(left), by_verbosity) <= limit:
                penalties[i] = penalty
                break
    return penalties


def debiased(
    values: Float[np.ndarray, "... attributes"],
    penalties: Float[np.ndarray, " attributes"],
    verbosity: int,
) -> Float[np.ndarray, "... attributes"]:
    """r_i - penalty_i r_verbosity for every attribute: of rewards, or of the heads that give them,
    which comes to the same."""
    return values - penalties * values[..., verbosity : verbosity + 1]


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / scale) if scale > 0 else 0.0


# The gate


def fit_gate(
    gate: Gate,
    prompts: Float[np.ndarray, "pairs d"],
    chosen: Float[np.ndarray, "pairs attributes"],
    rejected: Float[np.ndarray, "pairs attributes"],
    *,
    steps: int = 2000,
    batch: int = 1024,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> Tree:
    """The gate's parameters after Bradley-Terry on g(x) . r: AdamW with a cosine to 0.

    Args:
      prompts: the state at the end of each pair's prompt.
      chosen, rejected: the attributes' rewards, debiased or not.
      steps: each on `batch` pairs drawn anew with replacement.
      learning_rate: of the first step.
      seed: of initial values, draws and dropout.

    Raises:
      DataError: no pairs.
      OptionError: steps or batch below 1.
      ValueError: shapes that do not match.
    """
    if np.shape(chosen) != np.shape(rejected) or len(prompts) != len(chosen):
        shapes = f"chosen {np.shape(chosen)}, rejected {np.shape(rejected)}"
        raise ValueError(f"{shapes} and {len(prompts)} prompts do not match")
    if not len(prompts):
        raise DataError("no pair to fit a gate to")
    require(steps >= 1, "a gate's steps", "at least 1", steps)
    require(batch >= 1, "a gate's batch", "at least 1", batch)
    data = [jnp.asarray(values, jnp.float32) for values in (prompts, chosen, rejected)]
    return _fit_gate(gate, steps, batch, *data, learning_rate, weight_decay, seed)


@functools.partial(jax.jit, static_argnames=("gate", "steps", "batch"))
def _fit_gate(gate, steps, batch, prompts, chosen, rejected, learning_rate, weight_decay, seed):
    def loss(params: Tree, key: jax.Array) -> jax.Array:
        draws, drops = jax.random.split(key)
        taken = jax.random.randint(draws, (batch,), 0, len(prompts))
        weights = gate(params, prompts[taken], drops)
        better = jnp.sum(weights * chosen[taken], axis=-1)
        worse = jnp.sum(weights * rejected[taken], axis=-1)
        return jnp.mean(preference.bradley_terry(better, worse))

    def schedule(count: jax.Array) -> jax.Array:
        return learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * count / steps))

    optimizer = optax.adamw(schedule, weight_decay=weight_decay)

    def step(state, key):
        params, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(params, key), moments, params)
        return (optax.apply_updates(params, updates), moments), None

    start, *keys = jax.random.split(jax.random.key(seed), steps + 1)
    params = gate.init(start, prompts.shape[-1], chosen.shape[-1])
    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jnp.stack(keys))
    return params
