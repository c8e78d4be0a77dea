"""Rotary position embedding (arXiv 2104.09864), and its stretching beyond a model's first length.

A pair of features turns by its frequency with each position. The scalings below slow frequencies
down, so that texts longer than those of pretraining turn no further than those did. Formulas and
names are those of transformers' `modeling_rope_utils`, which checkpoints are made for.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Frequencies = Float[Array, "*shape half"]
Angles = tuple[Float[Array, "rows length half"], Float[Array, "rows length half"]]


class Scaling(Protocol):
    """How frequencies are slowed down."""

    def __call__(
        self, theta: float, head_dim: int, lengths: Int[Array, "rows length"]
    ) -> Frequencies:
        """The frequencies, the same everywhere or of each token.

        Args:
          lengths: of the whole text that each token belongs to.
        """


@dataclasses.dataclass(frozen=True)
class Linear:
    """All frequencies divided by one factor: positions interpolated (arXiv 2306.15595)."""

    factor: float

    def __call__(self, theta: float, head_dim: int, lengths: jax.Array) -> Frequencies:
        """[half]"""
        return _frequencies(theta, head_dim) / self.factor


@dataclasses.dataclass(frozen=True)
class Dynamic:
    """A larger theta for texts beyond `original_length`, by their own length ("dynamic NTK").

    So tokens turn differently in a longer text, and branches of a comparison cannot share their
    prompt and each have their own length: a comparison takes the length of its longest branch.
    `jaxrm.score` therefore lays every response out alone.
    """

    factor: float
    original_length: int

    def __call__(self, theta: float, head_dim: int, lengths: jax.Array) -> Frequencies:
        """[rows, length, half]"""
        beyond = jnp.maximum(lengths, self.original_length) / self.original_length
        stretch = self.factor * beyond - (self.factor - 1.0)
        longer_theta = theta * stretch ** (head_dim / (head_dim - 2))
        return _frequencies(longer_theta[..., None], head_dim)


@dataclasses.dataclass(frozen=True)
class Llama3:
    """Slow frequencies divided by `factor`, fast ones kept, those between interpolated (Llama 3.1).

    A frequency is slow if it makes fewer than `low_freq_factor` turns within `original_length`, and
    fast if it makes more than `high_freq_factor`.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_length: int

    def __call__(self, theta: float, head_dim: int, lengths: jax.Array) -> Frequencies:
        """[half]"""
        frequencies = _frequencies(theta, head_dim)
        turns = self.original_length * frequencies / (2 * math.pi)
        kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept = jnp.clip(kept, 0.0, 1.0)
        return kept * frequencies + (1.0 - kept) * frequencies / self.factor


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary embedding's frequencies: theta ** (-2i / head_dim), scaled."""

    theta: float = 10_000.0
    scaling: Linear | Dynamic | Llama3 | None = None

    @property
    def depends_on_length(self) -> bool:
        """Whether a token turns differently in a longer text."""
        return isinstance(self.scaling, Dynamic)

    def angles(
        self,
        positions: Int[Array, "rows length"],
        lengths: Int[Array, "rows length"],
        head_dim: int,
    ) -> Angles:
        """Float32 (cos, sin) of each position's turn at each of head_dim / 2 frequencies.

        Args:
          lengths: of the whole text that each token belongs to.
        """
        if self.scaling is None:
            frequencies = _frequencies(self.theta, head_dim)
        else:
            frequencies = self.scaling(self.theta, head_dim, lengths)
        angles = positions[..., None].astype(jnp.float32) * frequencies
        return jnp.cos(angles), jnp.sin(angles)


def turn(
    x: Float[Array, "rows length heads head_dim"], angles: Angles
) -> Float[Array, "rows length heads head_dim"]:
    """x with its features turned by `angles`, computed in float32, in x's dtype.

    Feature i is turned with feature i + head_dim / 2, which is how Hugging Face stores weights.
    """
    cos, sin = (part[:, :, None, :] for part in angles)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)


def _frequencies(theta: float | jax.Array, head_dim: int) -> Frequencies:
    return theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
