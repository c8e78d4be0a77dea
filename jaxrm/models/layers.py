"""The decoder's building blocks as pure functions.

Elementwise work is done on flat [tokens, features] arrays: XLA's CPU backend runs the backward pass
of an MLP about twice as fast on them as on [rows, length, features].
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrm.models.config import Activation

ACTIVATIONS: dict[Activation, Callable[[jax.Array], jax.Array]] = {
    "gelu_pytorch_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
}

# Elementwise work is cheaper to do again in the backward pass than its insides are to keep. Layers
# run in a scan, where the compiler cannot undo that, so it need not be kept from trying.
_recomputed = functools.partial(jax.checkpoint, prevent_cse=False)


@_recomputed
def rms_norm(
    x: Float[Array, "*shape d"], weight: Float[Array, " d"], *, eps: float, offset: float
) -> Float[Array, "*shape d"]:
    """x / rms(x) * (offset + weight), computed in float32, in x's dtype (arXiv 1910.07467)."""
    wide = x.astype(jnp.float32)
    inverse = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return (wide * inverse * (offset + weight.astype(jnp.float32))).astype(x.dtype)


@functools.partial(_recomputed, static_argnums=0)
def gated(
    activation: Callable[[jax.Array], jax.Array],
    gate: Float[Array, "tokens hidden"],
    up: Float[Array, "tokens hidden"],
) -> Float[Array, "tokens hidden"]:
    """activation(gate) * up, the inside of a gated MLP (arXiv 2002.05202)."""
    return activation(gate) * up


def project(x: Float[Array, "tokens ..."], weight: Float[Array, ...]) -> Float[Array, "tokens ..."]:
    """The product over all axes of x but the first, which are the first of the weight's."""
    return jnp.tensordot(x, weight, axes=x.ndim - 1)


def dropout(x: Float[Array, "*shape"], rate: float, rng: jax.Array) -> Float[Array, "*shape"]:
    """Each value 0 with probability `rate`, else scaled up so that the mean stays."""
    if not rate:
        return x
    return jnp.where(jax.random.bernoulli(rng, 1.0 - rate, x.shape), x / (1.0 - rate), 0.0)


def soft_cap(x: Float[Array, "*shape"], cap: float) -> Float[Array, "*shape"]:
    """Squashes x smoothly into (-cap, cap)."""
    return cap * jnp.tanh(x / cap)


def wide_einsum(
    subscripts: str,
    left: jax.Array,
    right: jax.Array,
    precision: jax.lax.Precision | None = None,
) -> jax.Array:
    """An einsum of two arrays with float32 sums and a float32 result, whatever the factors are."""
    if jax.default_backend() == "cpu":
        # Up to jax 0.7 the CPU has no bfloat16 product with a float32 result; widened factors give
        # the same one.
        left, right = left.astype(jnp.float32), right.astype(jnp.float32)
    return jnp.einsum(
        subscripts, left, right, precision=precision, preferred_element_type=jnp.float32
    )
