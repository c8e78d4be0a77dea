"""AdamW with warm-up, cosine decay and gradient clipping."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax

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


def make_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate as a function of how many of `steps` steps are done.

    The first step has a rate already (1/n of the peak in a warm-up of n steps), so none is wasted.
    """
    rising = round(config.warmup * steps)

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        warm = jnp.minimum((count + 1) / max(rising, 1), 1.0)
        done = jnp.clip((count - rising) / max(steps - rising, 1), 0.0, 1.0)
        cosine = config.floor + (1 - config.floor) * 0.5 * (1 + jnp.cos(math.pi * done))
        return config.learning_rate * warm * cosine

    return schedule


def _decayed(params: optax.Params) -> optax.Params:
    """True for every leaf that weight decay pulls on."""

    def decays(path: jax.tree_util.KeyPath, _: object) -> bool:
        return not any(word in jax.tree_util.keystr(path) for word in ("norm", "bias"))

    return jax.tree_util.tree_map_with_path(decays, params)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip, Adam, decay and schedule, over a run of `steps` steps."""
    adamw = optax.adamw(
        make_schedule(config, steps),
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=_decayed,
    )
    return (
        adamw if config.clip is None else optax.chain(optax.clip_by_global_norm(config.clip), adamw)
    )
