"""Losses and scores of solutions in steps: process and outcome reward models.

Arrays in, arrays out, float32 whatever comes in. Steps lie along the last axis under a mask, which
is all that says where they are: a score of exactly 0 is a score. What lies behind a false mask adds
nothing to value or gradient, even if it is inf or NaN, and where nothing is left the value is 0.
Weights and means over solutions belong to the caller.

Data sets label steps in more ways than one, -1 among them. A label that a loss does not take is a
ValueError where values are at hand; a compiled step cannot raise, and there the loss is NaN. Data
is checked, naming the row, by `jaxrm.methods.process_labels.check`.

A process model is trained by `step_cross_entropy` on labels of steps, an outcome model by `outcome`
on one label for a solution; a solution of several steps is scored by `product`, `least`, `last` or
`mean` of its steps' log-probabilities of being right (`jax.nn.log_sigmoid` of the logits).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def step_cross_entropy(
    logits: Float[Array, "*n"], labels: Float[Array, "*n"], mask: Bool[Array, "*n"]
) -> Float[Array, "*n"]:
    """-y log sigmoid(z) - (1 - y) log(1 - sigmoid(z)), for each step.

    The loss of process reward models since PRM800K (arXiv 2305.20050), at a step's last token.

    Args:
      logits: scores of the steps.
      labels: in [0, 1]: right or wrong, or the share of roll-outs that came out right.
      mask: which steps have a label.

    Returns:
      Per-step loss, 0 where there is no label.

    Raises ValueError for a label out of range.
    """
    logits, labels = _masked(mask, logits=logits, labels=labels)
    wrong = _refused(labels, mask, (labels >= 0) & (labels <= 1), "in [0, 1]")
    values = jnp.where(wrong, jnp.nan, _cross_entropy(logits, labels))
    return jnp.where(mask, values, 0.0)


def step_classes(
    logits: Float[Array, "*n classes"], labels: Int[Array, "*n"], mask: Bool[Array, "*n"]
) -> Float[Array, "*n"]:
    """-log softmax(z)[y], for each step: right, neutral and wrong, as PRM800K labels them.

    Of two classes it is `step_cross_entropy` of the difference of the two logits.

    Args:
      logits: a score for each class.
      labels: the class, from 0, as an integer or a whole float, which is how batches hold it.
      mask: which steps have a label.

    Returns:
      Per-step loss, 0 where there is no label.

    Raises ValueError for a label that is no class.
    """
    if jnp.shape(logits)[:-1] != jnp.shape(labels) or jnp.shape(labels) != jnp.shape(mask):
        shapes = f"labels {jnp.shape(labels)} and mask {jnp.shape(mask)}"
        raise ValueError(f"logits {jnp.shape(logits)} of {shapes} differ")
    mask = jnp.asarray(mask)
    logits = jnp.where(mask[..., None], jnp.asarray(logits, jnp.float32), 0.0)
    labels, count = jnp.where(mask, labels, 0), logits.shape[-1]
    fits = (labels >= 0) & (labels < count) & (labels == jnp.floor(labels))
    wrong = _refused(labels, mask, fits, f"a whole number from 0 to {count - 1}")
    classes = jnp.where(wrong, 0, labels).astype(jnp.int32)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), classes[..., None], axis=-1)[..., 0]
    return jnp.where(mask, jnp.where(wrong, jnp.nan, -chosen), 0.0)


def step_regression(
    scores: Float[Array, "*n"], targets: Float[Array, "*n"], mask: Bool[Array, "*n"]
) -> Float[Array, "*n"]:
    """(score - target)^2, for each step.

    Args:
      scores: of the steps.
      targets: a value for each, such as the share of roll-outs that came out right.
      mask: which steps have a target.

    Returns:
      Per-step loss, 0 where there is no target.
    """
    scores, targets = _masked(mask, scores=scores, targets=targets)
    return jnp.square(scores - targets)


def outcome(
    logits: Float[Array, "*n places"],
    correct: Float[Array, "*n"],
    mask: Bool[Array, "*n places"],
) -> Float[Array, "*n places"]:
    """Cross-entropy with the solution's outcome at each of its places: the outcome reward model.

    Places are a solution's tokens (Cobbe et al., arXiv 2110.14168), its steps, or its last token
    alone, as the mask has it. Their mean is the solution's loss.

    Args:
      logits: scores at the places.
      correct: whether the solution's answer is right, 0 or 1.
      mask: at which places it is asked.

    Returns:
      Loss at each place, 0 behind the mask.
    """
    if jnp.shape(correct) != jnp.shape(logits)[:-1]:
        raise ValueError(f"logits {jnp.shape(logits)} of outcomes {jnp.shape(correct)}")
    labels = jnp.broadcast_to(jnp.asarray(correct, jnp.float32)[..., None], jnp.shape(logits))
    return step_cross_entropy(logits, labels, mask)


def step_and_final(
    step_scores: Float[Array, "*n steps"],
    step_targets: Float[Array, "*n steps"],
    mask: Bool[Array, "*n steps"],
    final_scores: Float[Array, "*n"],
    final_targets: Float[Array, "*n"],
    step_weight: float = 1.0,
    final_weight: float = 1.0,
) -> Float[Array, "*n"]:
    """Mean squared error over a solution's steps, and that of the solution: ReasonFlux-PRM.

    arXiv 2506.18896, section 3. The published code finds the steps by "!= 0" among probabilities,
    which loses a step whose probability underflows; here the mask alone says where they are.

    Args:
      step_scores, step_targets: of the steps.
      mask: which steps there are.
      final_scores, final_targets: of the whole solution.

    Returns:
      Per-solution loss; the steps' part is 0 for a solution without any.
    """
    if jnp.shape(final_scores) != jnp.shape(step_scores)[:-1]:
        raise ValueError(f"{jnp.shape(step_scores)} steps of solutions {jnp.shape(final_scores)}")
    steps = _mean(step_regression(step_scores, step_targets, mask), mask)
    final = step_regression(final_scores, final_targets, jnp.ones_like(final_scores, bool))
    return step_weight * steps + final_weight * final


def coherence(
    similarity: Float[Array, "*n"],
    negatives: Float[Array, "*n others"],
    temperature: float = 1.0,
) -> Float[Array, "*n"]:
    """How much likelier a step follows the one before it than other steps do: r_coh of ReasonFlux.

    log of exp(s / t) / (exp(s / t) + sum over others of exp(s' / t)), at most 0. arXiv 2506.18896
    writes the sum over the others alone, which has no upper end; with the step itself in it, it is
    the contrastive estimate (arXiv 1807.03748) that it is after.

    Args:
      similarity: of the step before and the step, of their embeddings.
      negatives: of the step before and each of other steps.
      temperature: above 0.

    Returns:
      Per-step reward, -log(others + 1) where all are alike.
    """
    if jnp.shape(negatives)[:-1] != jnp.shape(similarity):
        raise ValueError(f"negatives {jnp.shape(negatives)} of steps {jnp.shape(similarity)}")
    own = jnp.asarray(similarity, jnp.float32)[..., None]
    together = jnp.concatenate([own, jnp.asarray(negatives, jnp.float32)], axis=-1)
    return jax.nn.log_softmax(together / temperature)[..., 0]


def softmax_weighted(parts: Float[Array, "*n parts"]) -> Float[Array, "*n"]:
    """Sum of softmax(parts) * parts: how ReasonFlux joins alignment, quality and coherence."""
    parts = jnp.asarray(parts, jnp.float32)
    return jnp.sum(jax.nn.softmax(parts) * parts, axis=-1)


def selection(
    step_rewards: Float[Array, "*n steps"],
    mask: Bool[Array, "*n steps"],
    final_rewards: Float[Array, "*n"],
    alpha: float,
) -> Float[Array, "*n"]:
    """Mean of the steps' rewards + alpha * the final one: by what ReasonFlux selects solutions."""
    (steps,) = _masked(mask, step_rewards=step_rewards)
    return _mean(steps, mask) + alpha * jnp.asarray(final_rewards, jnp.float32)


def with_outcome(
    process: Float[Array, "*n"], correct: Float[Array, "*n"], beta: float
) -> Float[Array, "*n"]:
    """(1 - beta) * outcome + beta * process reward: ReasonFlux's reward for a policy."""
    process, correct = (jnp.asarray(value, jnp.float32) for value in (process, correct))
    return (1 - beta) * correct + beta * process


def product(logps: Float[Array, "*n steps"], mask: Bool[Array, "*n steps"]) -> Float[Array, "*n"]:
    """Log of the product of the steps' probabilities of being right: that all of them are.

    Args:
      logps: log-probability of each step being right, at most 0.
      mask: which steps there are.

    Returns:
      A log-probability for each solution, as `least`, `last` and `mean` give it; 0 without steps.
    """
    return jnp.sum(_masked(mask, logps=logps)[0], axis=-1)


def least(logps: Float[Array, "*n steps"], mask: Bool[Array, "*n steps"]) -> Float[Array, "*n"]:
    """The lowest of the steps' log-probabilities of being right; arguments as for `product`."""
    (logps,) = _masked(mask, logps=logps)
    lowest = jnp.min(logps, axis=-1, where=mask, initial=jnp.inf)
    return jnp.where(jnp.any(mask, axis=-1), lowest, 0.0)


def last(logps: Float[Array, "*n steps"], mask: Bool[Array, "*n steps"]) -> Float[Array, "*n"]:
    """The last step's log-probability of being right; arguments as for `product`."""
    (logps,) = _masked(mask, logps=logps)
    place = jnp.max(jnp.where(mask, jnp.arange(logps.shape[-1]), 0), axis=-1, keepdims=True)
    return jnp.take_along_axis(logps, place, axis=-1)[..., 0]


def mean(logps: Float[Array, "*n steps"], mask: Bool[Array, "*n steps"]) -> Float[Array, "*n"]:
    """Log of the mean of the steps' probabilities of being right; arguments as for `product`."""
    (logps,) = _masked(mask, logps=logps)
    count = jnp.maximum(jnp.sum(mask, axis=-1), 1)
    total = jax.nn.logsumexp(logps, axis=-1, where=mask)
    return jnp.where(jnp.any(mask, axis=-1), total - jnp.log(count), 0.0)


AGGREGATES = {"product": product, "min": least, "last": last, "mean": mean}
"""The scores of solutions by the name of what they make of the steps'."""


def _refused(
    labels: jax.Array, mask: Bool[Array, "*n"], fits: jax.Array, words: str
) -> Bool[Array, "*n"]:
    """Which labels are none that a loss takes; raises ValueError where they are known by now."""
    wrong = jnp.asarray(mask) & ~fits
    if not isinstance(wrong, jax.core.Tracer) and wrong.any():
        raise ValueError(f"a step's label must be {words}, and one is {labels[wrong][0]}")
    return wrong


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jax.nn.softplus(logits) - labels * logits


def _mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Over the last axis, of values that are 0 behind the mask."""
    return jnp.sum(values, axis=-1) / jnp.maximum(jnp.sum(mask, axis=-1), 1)


def _masked(mask: Bool[Array, "*n"], **arrays: Float[Array, "*n"]) -> list[Float[Array, "*n"]]:
    """The arrays in float32, 0 behind the mask. Raises ValueError where shapes differ."""
    for name, array in arrays.items():
        if jnp.shape(array) != jnp.shape(mask):
            raise ValueError(f"{name} {jnp.shape(array)} and mask {jnp.shape(mask)} differ")
    return [jnp.where(mask, jnp.asarray(array, jnp.float32), 0.0) for array in arrays.values()]
