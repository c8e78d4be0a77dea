"""Attention over packed token trees, in the form that suits the machine.

    dense   plain XLA over all of a row under a mask: the reference, and the form for accelerators
    split   in small blocks, of which only those are computed that a tree sees
            (`jaxrm.models.split_attention`): the form for long rows on a CPU

Both compute the same, up to rounding, and so do their gradients.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrm.data.packing import PackedBatch
from jaxrm.models import split_attention
from jaxrm.models.layers import soft_cap, wide_einsum
from jaxrm.models.sight import MASKED, Tokens

Form = Literal["dense", "split"]

Attention = Callable[..., Float[Array, "rows length heads head_dim"]]
"""`tree_attention` of one batch: (q, k, v, *, scale, window, softcap)."""


def tree_mask(batch: PackedBatch) -> Bool[Array, "rows queries keys"]:
    """Which tokens see which: own comparison, prompt or own branch, no later position."""
    tokens = Tokens.of(batch)
    return tokens.see(tokens)


def tree_attention(
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    v: Float[Array, "rows length kv_heads head_dim"],
    batch: PackedBatch,
    *,
    scale: float,
    window: int | Int[Array, ""] | None = None,
    softcap: float | None = None,
    form: Form | None = None,
) -> Float[Array, "rows length heads head_dim"]:
    """Softmax attention of each token over what it sees in its tree.

    Args:
      q, k, v: after rotary embedding. Query head h reads key-value head h // (heads / kv_heads).
      batch: says who sees whom.
      scale: factor on the query-key products.
      window: how many positions back a token sees, itself included; may be traced.
      softcap: bound of the scaled products, before masking.
      form: in place of the one that suits the machine.

    Returns:
      In q's dtype; products and softmax are float32. Finite for padding, but without meaning.
    """
    return over(batch, form)(q, k, v, scale=scale, window=window, softcap=softcap)


def over(batch: PackedBatch, form: Form | None = None) -> Attention:
    """`tree_attention` of this batch, for many layers: what they share is computed once."""
    if (form or suited(batch.tokens.shape[1])) == "split":
        return functools.partial(split_attention.attention, blocks=split_attention.cut(batch))
    return functools.partial(_dense, positions=jnp.asarray(batch.positions), mask=tree_mask(batch))


def suited(length: int) -> Form:
    """The form for rows of so many tokens on the devices of the mesh in context."""
    one_device = jax.sharding.get_abstract_mesh().size <= 1  # else blocks would cross devices
    long = length >= 4 * split_attention.BLOCK
    return "split" if jax.default_backend() == "cpu" and one_device and long else "dense"


def _dense(
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    v: Float[Array, "rows length kv_heads head_dim"],
    *,
    positions: Int[Array, "rows length"],
    mask: Bool[Array, "rows queries keys"],
    scale: float,
    window: int | Int[Array, ""] | None = None,
    softcap: float | None = None,
) -> Float[Array, "rows length heads head_dim"]:
    if window is not None:
        mask = mask & (positions[:, :, None] - positions[:, None, :] < window)
    (rows, length, heads, head_dim), kv_heads = q.shape, k.shape[2]
    group = heads // kv_heads
    # One matrix product for each key-value head: all the queries that read it are its rows.
    queries = jnp.transpose(q.reshape(rows, length, kv_heads, group, head_dim), (0, 2, 3, 1, 4))
    queries = queries.reshape(rows, kv_heads, group * length, head_dim)
    k, v = jnp.moveaxis(k, 2, 1), jnp.moveaxis(v, 2, 1)
    logits = scale * wide_einsum("rhqd,rhkd->rhqk", queries, k)
    if softcap is not None:
        logits = soft_cap(logits, softcap)
    wide = logits.shape
    logits = logits.reshape(rows, kv_heads, group, length, length)
    logits = jnp.where(mask[:, None, None], logits, MASKED)
    highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.exp(logits - highest).reshape(wide)
    # Divided after the product with v: the backward pass then sums over head_dim, not keys.
    mixed = jnp.einsum("rhqk,rhkd->rhqd", weights.astype(v.dtype), v)
    mixed = (mixed / jnp.sum(weights, axis=-1, keepdims=True)).astype(q.dtype)
    mixed = mixed.reshape(rows, kv_heads, group, length, head_dim)
    return jnp.transpose(mixed, (0, 3, 1, 2, 4)).reshape(rows, length, heads, head_dim)
