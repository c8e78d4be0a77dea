"""Attention over packed token trees: the reference in plain XLA.

Nothing here goes by a token's index in its row: what a token sees is decided by comparison, branch
and position alone (see `jaxrm.data.packing`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrm.data.packing import PackedBatch
from jaxrm.models.layers import soft_cap, wide_einsum

# Finite, so that a padding token, which sees nothing, gets the mean of all values and not NaN.
_MASKED = -1e30


def tree_mask(batch: PackedBatch) -> Bool[Array, "rows queries keys"]:
    """Which tokens see which: own comparison, prompt or own branch, no later position."""
    comparison, branch, position = (
        jnp.asarray(part) for part in (batch.comparison, batch.branch, batch.positions)
    )
    query, key = (slice(None), slice(None), None), (slice(None), None, slice(None))
    same_tree = (comparison[query] == comparison[key]) & (comparison[key] >= 0)
    visible = (branch[key] == 0) | (branch[key] == branch[query])
    return same_tree & visible & (position[key] <= position[query])


def tree_attention(
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    v: Float[Array, "rows length kv_heads head_dim"],
    batch: PackedBatch,
    *,
    scale: float,
    window: int | Int[Array, ""] | None = None,
    softcap: float | None = None,
    mask: Bool[Array, "rows queries keys"] | None = None,
) -> Float[Array, "rows length heads head_dim"]:
    """Softmax attention of each token over what it sees in its tree.

    Args:
      q, k, v: after rotary embedding. Query head h reads key-value head h // (heads / kv_heads).
      batch: says who sees whom.
      scale: factor on the query-key products.
      window: how many positions back a token sees, itself included; may be traced.
      softcap: bound of the scaled products, before masking.
      mask: `tree_mask(batch)`, where the caller has it already.

    Returns:
      In q's dtype; products and softmax are float32. Finite for padding, but without meaning.
    """
    rows, length, heads, head_dim = q.shape
    kv_heads = k.shape[2]
    mask = tree_mask(batch) if mask is None else mask
    if window is not None:
        distance = batch.positions[:, :, None] - batch.positions[:, None, :]
        mask = mask & (distance < window)
    grouped = q.reshape(rows, length, kv_heads, heads // kv_heads, head_dim)
    logits = scale * wide_einsum("rqhgd,rkhd->rhgqk", grouped, k)
    if softcap is not None:
        logits = soft_cap(logits, softcap)
    logits = jnp.where(mask[:, None, None], logits, _MASKED)
    highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.exp(logits - highest)
    # Divided after the product with v: the backward pass then sums over head_dim, not over keys.
    mixed = jnp.einsum("rhgqk,rkhd->rqhgd", weights.astype(v.dtype), v)
    total = jnp.moveaxis(jnp.sum(weights, axis=-1, keepdims=True), 3, 1)
    return (mixed / total).astype(q.dtype).reshape(rows, length, heads, head_dim)
