"""LoRA (arXiv 2106.09685): a trained low-rank update beside chosen projections of a frozen trunk.

The update lives in arrays of its own, `<projection>_a` [layers, *inputs, rank] and `<projection>_b`
[layers, rank, *outputs], float32 whatever the trunk's parameters are. So the frozen model is the
same weights without them, which makes it the reference policy for nothing.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrm.errors import require
from jaxrm.models.layers import dropout, project
from jaxrm.models.parameters import Parameter, Tree, constant, uniform

Projection = Literal["query", "key", "value", "output", "gate", "up", "down"]

INPUT_AXES: dict[Projection, int] = {
    "query": 1,
    "key": 1,
    "value": 1,
    "output": 2,
    "gate": 1,
    "up": 1,
    "down": 1,
}
"""How many axes of each projection's weight are inputs: attention's output takes [heads, head_dim].
"""


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Which projections are updated, and how; the values are GRM's (arXiv 2406.10216).

    Attributes:
      rank: of every update.
      alpha: the update is multiplied by alpha / rank.
      dropout: on the update's input, in training.
      targets: the projections that have one.
      rank_stabilised: multiply by alpha / sqrt(rank) instead (arXiv 2312.03732).

    Raises OptionError for a value out of range.
    """

    rank: int = 32
    alpha: float = 64.0
    dropout: float = 0.05
    targets: tuple[Projection, ...] = ("query", "key", "value", "output")
    rank_stabilised: bool = False

    def __post_init__(self):
        require(self.rank >= 1, "LoRA's rank", "at least 1", self.rank)
        require(0 < self.alpha < math.inf, "LoRA's alpha", "a number above 0", self.alpha)
        require(0 <= self.dropout < 1, "LoRA's dropout", "in [0, 1)", self.dropout)
        once = 0 < len(self.targets) == len(set(self.targets))
        require(once, "LoRA's targets", "projections, each once, at least one", self.targets)

    @property
    def scale(self) -> float:
        """The factor on every update."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilised else self.rank)


def declare_update(lora: LoraConfig, layers: Tree) -> Tree:
    """The update's parameters beside the stacked weights `layers`.

    As in PEFT `a` is uniform in +-1/sqrt(inputs) and `b` is 0, so that a fresh update changes
    nothing.
    """
    declared: Tree = {}
    for name in lora.targets:
        shape, axes = layers[name].shape, layers[name].axes
        cut = 1 + INPUT_AXES[name]
        inputs = math.prod(shape[1:cut])
        declared[f"{name}_a"] = Parameter(
            (*shape[:cut], lora.rank), (*axes[:cut], "rank"), uniform(inputs**-0.5)
        )
        declared[f"{name}_b"] = Parameter(
            (shape[0], lora.rank, *shape[cut:]), (axes[0], "rank", *axes[cut:]), constant(0.0)
        )
    return declared


def apply_update(
    lora: LoraConfig,
    weights: dict[str, jax.Array],
    name: str,
    x: Float[Array, "tokens ..."],
    rng: jax.Array | None,
) -> Float[Array, "tokens ..."] | float:
    """What one layer's update adds to the projection `name` of x: 0 where it has none.

    Args:
      weights: the layer's `<projection>_a` and `<projection>_b`, cast to x's dtype at their use.
      rng: the layer's key for dropout, in training.
    """
    if name not in lora.targets:
        return 0.0
    if rng is not None:
        x = dropout(x, lora.dropout, jax.random.fold_in(rng, lora.targets.index(name)))
    low = project(x, weights[f"{name}_a"].astype(x.dtype))
    return lora.scale * project(low, weights[f"{name}_b"].astype(x.dtype))


def merge_update(lora: LoraConfig, weights: Tree, layers: Tree) -> Tree:
    """Those of the stacked weights `layers` that have an update, with it added, in their dtype."""

    def add(parts: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        weight, a, b = parts
        # Exactly, once: what is exported should not depend on the accelerator's fast products.
        change = jnp.tensordot(a, b, axes=1, precision=jax.lax.Precision.HIGHEST)
        return (weight.astype(jnp.float32) + lora.scale * change).astype(weight.dtype)

    return {
        # One layer at a time: the sum in float32 of a whole stack would be the peak of a run.
        name: jax.lax.map(add, (layers[name], weights[f"{name}_a"], weights[f"{name}_b"]))
        for name in lora.targets
    }
