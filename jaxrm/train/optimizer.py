"""AdamW with gradient clipping, and the learning rate of each step: a warm-up, then a cosine.

The rate is an input of the train step and no part of the optimizer, so that runs which differ in
their rates or their length share one compilation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from jaxrm.errors import require


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter, arXiv 1711.05101) and its learning-rate schedule.

    Attributes:
      learning_rate: the peak, reached at the end of the warm-up.
      warmup: share of all steps over which the rate rises linearly, in [0, 1].
      floor: share of the peak at which the cosine ends.
      weight_decay: of matrices; norms and biases (by their names) are not decayed.
      b1, b2, eps: Adam's.
      clip: largest global gradient norm; None does not clip.

    Raises OptionError for a value out of range.
    """

    learning_rate: float = 1e-5
    warmup: float = 0.03
    floor: float = 0.0
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip: float | None = 1.0

    def __post_init__(self):
        require(self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate)
        require(0 <= self.warmup <= 1, "warmup", "a share in [0, 1]", self.warmup)
        require(0 <= self.floor <= 1, "floor", "a share in [0, 1]", self.floor)
        require(self.weight_decay >= 0, "weight_decay", "at least 0", self.weight_decay)
        require(self.clip is None or self.clip > 0, "clip", "above 0, or None", self.clip)


AtRate = Callable[[jax.typing.ArrayLike], optax.GradientTransformation]
"""An optimizer at a learning rate, which may be a tracer; its state is the same at all rates."""


def learning_rates(config: OptimizerConfig, steps: int) -> Float[np.ndarray, " steps"]:
    """Float32: the learning rate of each step of a run.

    The first step has a rate already (1/n of the peak in a warm-up of n steps), so none is wasted.
    """
    count, rising = np.arange(steps), round(config.warmup * steps)
    warm = jnp.minimum((count + 1) / max(rising, 1), 1.0)
    done = jnp.clip((count - rising) / max(steps - rising, 1), 0.0, 1.0)
    cosine = config.floor + (1 - config.floor) * 0.5 * (1 + jnp.cos(math.pi * done))
    return np.asarray(config.learning_rate * warm * cosine, np.float32)


def make_optimizer(config: OptimizerConfig, *pulls: optax.GradientTransformation) -> AtRate:
    """Clips, then Adam, decay, and whatever else `pulls` at the weights beside the gradient."""
    parts = [optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)]
    if config.clip is not None:
        parts.insert(0, optax.clip_by_global_norm(config.clip))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, _decayed))

    def at(rate: jax.typing.ArrayLike) -> optax.GradientTransformation:
        return optax.chain(*parts, *pulls, optax.scale_by_learning_rate(rate))

    return at


def _decayed(params: optax.Params) -> optax.Params:
    """True for every leaf that weight decay pulls on."""

    def decays(path: jax.tree_util.KeyPath, _: object) -> bool:
        return not any(word in jax.tree_util.keystr(path) for word in ("norm", "bias"))

    return jax.tree_util.tree_map_with_path(decays, params)
