"""Attention over packed token trees: the reference in plain XLA.

Nothing here goes by a token's index in its row: what a token sees is decided by comparison, branch
and position alone (see `jaxrm.data.packing`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrm.data.packing import PackedBatch
from jaxrm.models.layers import soft_cap, wide_einsum

# Finite, so that a padding token, which sees nothing, gets the mean of all values and not NaN.
_MASKED = -1e30

_QUERIES = 128
"""Queries, or up to twice as many, that a CPU takes at once: their logits stay in its cache."""


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
    mask = tree_mask(batch) if mask is None else mask
    if window is not None:
        distance = batch.positions[:, :, None] - batch.positions[:, None, :]
        mask = mask & (distance < window)
    (rows, length, heads, head_dim), kv_heads = q.shape, k.shape[2]
    group = heads // kv_heads
    blocks = max(1, length // _QUERIES) if jax.default_backend() == "cpu" else 1
    size = -(-length // blocks)

    def in_blocks(per_query: jax.Array) -> jax.Array:
        """[rows, length, ...] -> [blocks, rows, size, ...], filled up at the end."""
        added = [(0, 0)] * per_query.ndim
        added[1] = (0, blocks * size - length)
        full = jnp.pad(per_query, added).reshape(rows, blocks, size, *per_query.shape[2:])
        return jnp.moveaxis(full, 1, 0)

    # One matrix product for each key-value head: all the queries that read it are its rows.
    queries = in_blocks(q).reshape(blocks, rows, size, kv_heads, group, head_dim)
    queries = jnp.transpose(queries, (0, 1, 3, 4, 2, 5))
    queries = queries.reshape(blocks, rows, kv_heads, group * size, head_dim)
    k, v = jnp.moveaxis(k, 2, 1), jnp.moveaxis(v, 2, 1)

    def attend(
        queries: Float[Array, "rows kv_heads group*size head_dim"],
        mask: Bool[Array, "rows size width"],
        k: Float[Array, "rows kv_heads width head_dim"],
        v: Float[Array, "rows kv_heads width head_dim"],
    ) -> Float[Array, "rows kv_heads group*size head_dim"]:
        logits = scale * wide_einsum("rhqd,rhkd->rhqk", queries, k)
        if softcap is not None:
            logits = soft_cap(logits, softcap)
        wide = logits.shape
        logits = logits.reshape(rows, kv_heads, group, size, wide[-1])
        logits = jnp.where(mask[:, None, None], logits, _MASKED)
        highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
        weights = jnp.exp(logits - highest).reshape(wide)
        # Divided after the product with v: the backward pass then sums over head_dim, not keys.
        mixed = jnp.einsum("rhqk,rhkd->rhqd", weights.astype(v.dtype), v)
        return (mixed / jnp.sum(weights, axis=-1, keepdims=True)).astype(q.dtype)

    if blocks == 1:
        mixed = attend(queries[0], mask, k, v)[None]
    else:
        # The backward pass computes a block's logits again, which is faster than to fetch them.
        one = jax.checkpoint(lambda block: _attend_to_what_is_seen(attend, *block, k, v))
        mixed = jax.lax.map(one, (queries, in_blocks(mask)))
    mixed = mixed.reshape(blocks, rows, kv_heads, group, size, head_dim)
    mixed = jnp.transpose(mixed, (1, 0, 4, 2, 3, 5)).reshape(rows, blocks * size, heads, head_dim)
    return mixed[:, :length]


def _attend_to_what_is_seen(
    attend: Callable[..., jax.Array],
    queries: jax.Array,
    mask: Bool[Array, "rows size length"],
    k: Float[Array, "rows kv_heads length head_dim"],
    v: Float[Array, "rows kv_heads length head_dim"],
) -> jax.Array:
    """`attend` to the narrowest of a few stretches of keys that holds all that the queries see.

    A row holds several trees, and a block of its queries sees keys of one or two of them. Which
    keys is read from the mask, so that nothing but speed hangs on where a tree lies.
    """
    length = mask.shape[-1]
    widths = sorted({-(-length // parts) for parts in (4, 2, 1)})
    seen = mask.any(axis=(0, 1))
    first = jnp.argmax(seen)
    span = length - jnp.argmax(seen[::-1]) - first  # all keys, where none is seen

    def within(width: int) -> Callable[[], jax.Array]:
        start = jnp.minimum(first, length - width)
        near = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=width)
        return lambda: attend(queries, near(mask, axis=2), near(k, axis=2), near(v, axis=2))

    narrowest = jnp.searchsorted(jnp.array(widths), span)
    return jax.lax.switch(narrowest, [within(width) for width in widths])
