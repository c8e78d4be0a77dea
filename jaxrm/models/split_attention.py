"""Tree attention in small blocks, whose work is what the trees see: the form for a CPU.

A row is cut into blocks of `BLOCK` tokens. Of all pairs of a block of queries and a block of keys
only those are computed in which some query sees some key: a comparison's prompt once, its branches
against prompt and own, nothing of siblings and neighbours but what shares a block with them. Which
pairs these are is read from the batch, so that nothing but speed hangs on where a tree lies, and no
mask of a whole row exists. Softmax runs over a block of queries' keys as they come (Milakov and
Gimelshein, arXiv 1805.02867), and the backward pass computes weights again (FlashAttention, arXiv
2205.14135).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxrm.data.packing import PackedBatch
from jaxrm.models.layers import soft_cap, wide_einsum
from jaxrm.models.sight import MASKED, Tokens

BLOCK = 64
"""Tokens: of 32, 64, 96, 128 and 256 the fastest on two cores, or nearly so, whatever the data."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Blocks:
    """A batch in blocks.

    Attributes:
      tokens: int [rows * blocks, BLOCK].
      seen: whether a block of queries sees anything in a block of keys of its row.
    """

    tokens: Tokens
    seen: Bool[Array, "rows blocks blocks"]


def cut(batch: PackedBatch) -> Blocks:
    """The blocks of a batch's rows, each filled up with padding."""
    rows, length = batch.tokens.shape
    blocks = -(-length // BLOCK)

    def whole(values: Int[Array, "rows length"], fill: int) -> Int[Array, "rows blocks*BLOCK"]:
        added = ((0, 0), (0, blocks * BLOCK - length))
        return jnp.pad(jnp.asarray(values), added, constant_values=fill)

    tokens = Tokens(*map(whole, Tokens.of(batch), (-1, -1, 0)))
    seen = tokens.see(tokens).reshape(rows, blocks, BLOCK, blocks, BLOCK).any(axis=(2, 4))
    return Blocks(jax.tree.map(lambda part: part.reshape(-1, BLOCK), tokens), seen)


def attention(
    q: Float[Array, "rows length heads head_dim"],
    k: Float[Array, "rows length kv_heads head_dim"],
    v: Float[Array, "rows length kv_heads head_dim"],
    blocks: Blocks,
    *,
    scale: float,
    window: int | Int[Array, ""] | None = None,
    softcap: float | None = None,
) -> Float[Array, "rows length heads head_dim"]:
    """As `jaxrm.models.attention.tree_attention`; padding's result is 0."""
    (rows, length, heads, head_dim), kv_heads = q.shape, k.shape[2]
    group, count = heads // kv_heads, blocks.seen.shape[1]

    def in_blocks(x: Float[Array, "rows length *n"]) -> Float[Array, "rows*blocks BLOCK *n"]:
        full = jnp.pad(x, [(0, 0), (0, count * BLOCK - length)] + [(0, 0)] * (x.ndim - 2))
        return full.reshape(rows * count, BLOCK, *x.shape[2:])

    # One matrix product for each key-value head: all the queries that read it are its rows.
    queries = in_blocks(q.reshape(rows, length, kv_heads, group, head_dim))
    queries = jnp.transpose(queries, (0, 2, 3, 1, 4))
    queries = queries.reshape(rows * count, kv_heads, group * BLOCK, head_dim)
    keys, values = (jnp.transpose(in_blocks(x), (0, 2, 1, 3)) for x in (k, v))
    pairs = _pairs(blocks, window)
    mixed = _attend(scale, softcap, queries, keys, values, blocks.tokens, pairs, window)
    mixed = mixed.astype(q.dtype).reshape(rows, count, kv_heads, group, BLOCK, head_dim)
    mixed = jnp.transpose(mixed, (0, 1, 4, 2, 3, 5)).reshape(rows, count * BLOCK, heads, head_dim)
    return mixed[:, :length]


class _Pairs(NamedTuple):
    """Pairs of a block of queries and a block of keys, of which the first `count` are computed."""

    queries: Int[Array, " pairs"]
    keys: Int[Array, " pairs"]
    count: Int[Array, ""]


def _pairs(blocks: Blocks, window: int | Int[Array, ""] | None) -> _Pairs:
    seen = blocks.seen
    rows, count, _ = seen.shape
    if window is not None:
        position = blocks.tokens.position.reshape(rows, count, BLOCK)
        nearest = position.min(axis=2)[:, :, None] - position.max(axis=2)[:, None, :]
        seen = seen & (nearest < window)
    order = jnp.argsort(~seen.ravel(), stable=True).astype(jnp.int32)
    queries = order // count
    keys = queries // count * count + order % count
    return _Pairs(queries, keys, jnp.sum(seen, dtype=jnp.int32))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attend(
    scale: float,
    softcap: float | None,
    q: Float[Array, "blocks kv_heads group*BLOCK head_dim"],
    k: Float[Array, "blocks kv_heads BLOCK head_dim"],
    v: Float[Array, "blocks kv_heads BLOCK head_dim"],
    tokens: Tokens,
    pairs: _Pairs,
    window: int | Int[Array, ""] | None,
) -> Float[Array, "blocks kv_heads group*BLOCK head_dim"]:
    """Float32: every block of queries' mean of the values that it sees."""
    return _forward(scale, softcap, q, k, v, tokens, pairs, window)[0]


def _forward(scale, softcap, q, k, v, tokens, pairs, window):
    def step(i: jax.Array, so_far: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        highest, total, mixed = so_far
        query, key = pairs.queries[i], pairs.keys[i]
        mask = _mask(tokens, query, key, window, q)
        logits = jnp.where(mask, _logits(scale, softcap, q[query], k[key]), MASKED)
        before = highest[query]
        now = jnp.maximum(before, logits.max(axis=-1))
        weights = jnp.where(mask, jnp.exp(logits - now[..., None]), 0.0)
        kept = jnp.exp(before - now)
        added = wide_einsum("hqk,hkd->hqd", weights.astype(v.dtype), v[key])
        return (
            highest.at[query].set(now),
            total.at[query].set(kept * total[query] + weights.sum(axis=-1)),
            mixed.at[query].set(kept[..., None] * mixed[query] + added),
        )

    of_queries, wide = q.shape[:-1], jnp.float32
    start = (
        jnp.full(of_queries, MASKED, wide),
        jnp.zeros(of_queries, wide),
        jnp.zeros(q.shape, wide),
    )
    highest, total, mixed = jax.lax.fori_loop(0, pairs.count, step, start)
    total = jnp.where(total > 0, total, 1.0)  # padding has seen nothing
    mixed = mixed / total[..., None]
    return mixed, (q, k, v, tokens, pairs, window, mixed, highest + jnp.log(total))


def _backward(scale, softcap, kept, gradient):
    q, k, v, tokens, pairs, window, mixed, log_total = kept
    along = jnp.sum(gradient * mixed, axis=-1)

    def step(i: jax.Array, so_far: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        to_q, to_k, to_v = so_far
        query, key = pairs.queries[i], pairs.keys[i]
        mask = _mask(tokens, query, key, window, q)
        logits = _logits(scale, softcap, q[query], k[key])
        weights = jnp.where(mask, jnp.exp(logits - log_total[query][..., None]), 0.0)
        to_mixed = gradient[query].astype(v.dtype)
        to_weights = wide_einsum("hqd,hkd->hqk", to_mixed, v[key])
        to_logits = weights * (to_weights - along[query][..., None])
        if softcap is not None:
            to_logits = to_logits * (1 - jnp.square(logits / softcap))
        to_logits = (scale * to_logits).astype(q.dtype)
        return (
            to_q.at[query].add(wide_einsum("hqk,hkd->hqd", to_logits, k[key])),
            to_k.at[key].add(wide_einsum("hqk,hqd->hkd", to_logits, q[query])),
            to_v.at[key].add(wide_einsum("hqk,hqd->hkd", weights.astype(v.dtype), to_mixed)),
        )

    start = tuple(jnp.zeros(x.shape, jnp.float32) for x in (q, k, v))
    found = jax.lax.fori_loop(0, pairs.count, step, start)
    to_q, to_k, to_v = (x.astype(of.dtype) for x, of in zip(found, (q, k, v), strict=True))
    return to_q, to_k, to_v, None, None, None


_attend.defvjp(_forward, _backward)


def _logits(
    scale: float,
    softcap: float | None,
    q: Float[Array, "kv_heads group*BLOCK head_dim"],
    k: Float[Array, "kv_heads BLOCK head_dim"],
) -> Float[Array, "kv_heads group*BLOCK BLOCK"]:
    logits = scale * wide_einsum("hqd,hkd->hqk", q, k)
    return logits if softcap is None else soft_cap(logits, softcap)


def _mask(
    tokens: Tokens,
    query: Int[Array, ""],
    key: Int[Array, ""],
    window: int | Int[Array, ""] | None,
    q: jax.Array,
) -> Bool[Array, "1 group*BLOCK BLOCK"]:
    """Which of a block's queries see which of a block's keys, once for each query of a group."""
    of_queries, of_keys = (Tokens(*(part[block] for part in tokens)) for block in (query, key))
    return jnp.tile(of_queries.see(of_keys, window), (q.shape[2] // BLOCK, 1))[None]
