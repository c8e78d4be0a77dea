"""What a loss function returns: named terms to minimise and monitors to watch.

A loss function is `loss_fn(model, batch, rng) -> {name: Term | BatchTerm | Monitor}`, a pure
function of one micro-batch. It never averages: it hands over one value and one weight per example,
and the train step divides by the sum of weights over the whole accumulation window and mesh. So a
window of four small batches trains exactly as one large batch does, however unevenly the examples
fall into them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Term:
    """`coefficient * sum(values * weights) / sum(weights)`, summed over the window and the mesh.

    Attributes:
      coefficient: scalar.
      values: one loss per example (pair, response, token, ...), any shape.
      weights: of the shape of `values`, >= 0, bool or float. They must depend on the batch alone.
        Where a weight is 0 the value counts for nothing, even if it is inf or NaN. A term without
        any weight in the window is 0.
    """

    coefficient: Float[Array, ""] | float
    values: Float[Array, "*examples"]
    weights: Float[Array, "*examples"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BatchTerm:
    """`coefficient * value`, a statistic of the whole batch that no sum over examples expresses.

    The statistic of a window is not the mean of its batches' statistics, so a BatchTerm in a window
    of several micro-batches raises AccumulationError.
    """

    coefficient: Float[Array, ""] | float
    value: Float[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Monitor:
    """A metric without a gradient: the weighted mean of `values`, or an extreme where weights > 0.

    It is 0 in a window without any weight.
    """

    values: Float[Array, "*examples"]
    weights: Float[Array, "*examples"]
    reduce: Literal["mean", "min", "max"] = dataclasses.field(
        default="mean", metadata={"static": True}
    )

    def summary(self) -> Monitor:
        """One value and the weight behind it: a Monitor again, so that summaries can be stacked."""
        total = total_weight(self.weights)
        present = self.weights > 0
        if self.reduce == "mean":
            value = weighted_sum(self.values, self.weights) / jnp.where(total > 0, total, 1.0)
        elif self.reduce == "min":
            value = jnp.min(self.values, where=present, initial=jnp.inf)
        else:
            value = jnp.max(self.values, where=present, initial=-jnp.inf)
        return Monitor(jnp.where(total > 0, value, 0.0), total, self.reduce)


Terms = Mapping[str, Term | BatchTerm | Monitor]
LossFn = Callable[[Any, Any, jax.Array], Terms]


def total_weight(weights: Float[Array, "*examples"]) -> Float[Array, ""]:
    """The sum of weights in float32, without a gradient."""
    return jnp.sum(jax.lax.stop_gradient(jnp.asarray(weights, jnp.float32)))


def weighted_sum(
    values: Float[Array, "*examples"], weights: Float[Array, "*examples"]
) -> Float[Array, ""]:
    """sum(values * weights) in float32, where weight 0 silences inf and NaN too.

    The gradient into a silenced value is exactly 0. If the code that computes that value has an
    infinite derivative there, 0 * inf is NaN all the same: such code must put a harmless input
    in place of a masked one before it computes (jnp.where on the way in as well as here).
    """
    weights = jax.lax.stop_gradient(jnp.asarray(weights, jnp.float32))
    return jnp.sum(jnp.where(weights > 0, values, 0.0) * weights)


def reward_monitors(rewards: Float[Array, "rows slots"], batch: Any) -> dict[str, Monitor]:
    """How well rewards order a PackedBatch's pairs, and their range over its responses.

    "accuracy" is strict (a tie is wrong); it and "margin" (chosen minus rejected) are means over
    pairs with the pairs' weights.
    """
    chosen, rejected = batch.pairs(rewards)
    pairs = batch.pair_weight * batch.pair_mask
    return {
        "accuracy": Monitor((chosen > rejected).astype(jnp.float32), pairs),
        "margin": Monitor(chosen - rejected, pairs),
        "mean_reward": Monitor(rewards, batch.response_mask),
        "min_reward": Monitor(rewards, batch.response_mask, "min"),
        "max_reward": Monitor(rewards, batch.response_mask, "max"),
    }
