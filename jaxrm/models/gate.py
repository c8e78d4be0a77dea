"""Weights of attributes that depend on the prompt, and the reward that they make of a model's
attributes: what ArmoRM (arXiv 2406.12845) calls gating."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrm.data.packing import PackedBatch
from jaxrm.errors import require
from jaxrm.models import heads
from jaxrm.models.layers import dropout
from jaxrm.models.parameters import Tree
from jaxrm.models.transformer import RewardModel

_EXACT = jax.lax.Precision.HIGHEST


class Gate(Protocol):
    """Weights of attributes that depend on the prompt, or do not."""

    def init(self, key: jax.Array, states: int, attributes: int) -> Tree:
        """Fresh parameters, for prompt states of size `states`."""
        ...

    def __call__(
        self, params: Tree, prompts: Float[Array, "*n d"], key: jax.Array | None = None
    ) -> Float[Array, "*n attributes"]:
        """At least 0, with the sum exp(params["log_scale"]); `key` is for dropout, in training."""
        ...


@dataclasses.dataclass(frozen=True)
class PromptGate:
    """exp(log_scale) softmax(MLP(prompt state) / temperature), by default as published.

    The scale is learned, and positive, so that a higher attribute never lowers the reward.

    Attributes:
      hidden, layers: of the MLP, with ReLU.
      dropout: behind each hidden layer, in training.
      temperature: of the softmax.
      scale: that the sum of weights begins with. It should bring margins to the order of 1: far
        below that Bradley-Terry is linear, and all weight goes to one attribute.

    Raises OptionError for a value out of range.
    """

    hidden: int = 1024
    layers: int = 3
    dropout: float = 0.2
    temperature: float = 10.0
    scale: float = 1.0

    def __post_init__(self):
        require(self.hidden >= 1, "a gate's hidden", "at least 1", self.hidden)
        require(self.layers >= 0, "a gate's layers", "at least 0", self.layers)
        require(0 <= self.dropout < 1, "a gate's dropout", "in [0, 1)", self.dropout)
        require(self.temperature > 0, "a gate's temperature", "above 0", self.temperature)
        require(self.scale > 0, "a gate's scale", "above 0", self.scale)

    def init(self, key: jax.Array, states: int, attributes: int) -> Tree:
        """As `Gate.init`: He's normal matrices, biases 0."""
        sizes = [states] + [self.hidden] * self.layers + [attributes]
        params: Tree = {"log_scale": jnp.log(self.scale)}
        for i, drawn in enumerate(jax.random.split(key, self.layers + 1)):
            shape = (sizes[i], sizes[i + 1])
            params[f"weight_{i}"] = jax.nn.initializers.he_normal()(drawn, shape, jnp.float32)
            params[f"bias_{i}"] = jnp.zeros(sizes[i + 1])
        return params

    def __call__(
        self, params: Tree, prompts: Float[Array, "*n d"], key: jax.Array | None = None
    ) -> Float[Array, "*n attributes"]:
        """As `Gate.__call__`."""
        x = jnp.asarray(prompts, jnp.float32)
        keys = [None] * self.layers if key is None else jax.random.split(key, self.layers + 1)
        for i in range(self.layers + 1):
            x = jnp.matmul(x, params[f"weight_{i}"], precision=_EXACT) + params[f"bias_{i}"]
            if i < self.layers:
                x = jax.nn.relu(x)
                x = x if key is None else dropout(x, self.dropout, keys[i])
        return jnp.exp(params["log_scale"]) * jax.nn.softmax(x / self.temperature, axis=-1)


@dataclasses.dataclass(frozen=True)
class ConstantGate:
    """exp(log_scale) softmax(logits): the same weights for all prompts, the gate's control.

    `scale` is as `PromptGate` has it; raises OptionError where it is not above 0.
    """

    scale: float = 1.0

    def __post_init__(self):
        require(self.scale > 0, "a gate's scale", "above 0", self.scale)

    def init(self, key: jax.Array, states: int, attributes: int) -> Tree:
        """As `Gate.init`: all weights alike."""
        return {"log_scale": jnp.log(self.scale), "logits": jnp.zeros(attributes)}

    def __call__(
        self, params: Tree, prompts: Float[Array, "*n d"], key: jax.Array | None = None
    ) -> Float[Array, "*n attributes"]:
        """As `Gate.__call__`."""
        weights = jnp.exp(params["log_scale"]) * jax.nn.softmax(params["logits"])
        return jnp.broadcast_to(weights, (*prompts.shape[:-1], weights.shape[-1]))


@dataclasses.dataclass(frozen=True, eq=False)
class Gated:
    """One reward of several attributes: a reading (see `jaxrm.read`) of a model whose head gives
    them.

    Attributes:
      gate, params: what weighs the attributes.
    """

    gate: Gate
    params: Tree

    def rewards(
        self, attributes: Float[Array, "*n attributes"], prompts: Float[Array, "*n d"]
    ) -> Float[Array, "*n"]:
        """Float32: g(x) . r(x, y).

        Args:
          attributes: of each response.
          prompts: the state at the end of its prompt.
        """
        weights = self.gate(self.params, jnp.asarray(prompts))
        return jnp.sum(weights * jnp.asarray(attributes, jnp.float32), axis=-1)

    def __call__(
        self, model: RewardModel, hidden: Float[Array, "rows length d"], batch: PackedBatch
    ) -> Float[Array, "rows slots"]:
        """The reward of each response; 0 in empty slots."""
        attributes = heads.outputs(model, hidden, batch)
        return self.rewards(attributes, prompt_states(model, hidden, batch))


def prompt_states(
    model: RewardModel, hidden: Float[Array, "rows length d"], batch: PackedBatch
) -> Float[Array, "rows slots d"]:
    """A reading: the state at the end of each response's prompt, float32.

    It has seen nothing of the response, so it is the same for all responses to a prompt.
    """
    ends = jnp.asarray(batch.prompt_end)[..., None]
    return jnp.take_along_axis(hidden, ends, axis=1).astype(jnp.float32)
