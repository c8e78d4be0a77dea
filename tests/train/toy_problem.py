"""A two-layer regression with a packed batch's manners, small enough to compile in a second."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from jaxrm import parallel
from jaxrm.train.terms import Monitor, Term, Terms

FEATURES, HIDDEN = 8, 16


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ToyBatch:
    """Two kinds of examples per row, each with its own mask; padding has comparison -1."""

    x: Any  # [R, 6, FEATURES]
    y: Any  # [R, 6]
    pairs: Any  # bool [R, 6]
    texts: Any  # float [R, 6]
    comparison: Any  # int [R, 6]


class Head(nnx.Module):
    def __init__(self, key: jax.Array):
        self.weight = nnx.Param(jax.random.normal(key, (HIDDEN,)) / 4, axes=("mlp",))
        self.bias = nnx.Param(jnp.zeros(()), axes=())


class Toy(nnx.Module):
    def __init__(self, seed: int = 0):
        first, second = jax.random.split(jax.random.key(seed))
        self.up = nnx.Param(jax.random.normal(first, (FEATURES, HIDDEN)) / 3, axes=("embed", "mlp"))
        self.norm = nnx.Param(jnp.ones((HIDDEN,)), axes=("mlp",))
        self.reward_head = Head(second)

    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = jnp.tanh(x @ self.up[...]) * self.norm[...]
        return hidden @ self.reward_head.weight[...] + self.reward_head.bias[...]


def loss_fn(model: Toy, batch: ToyBatch, rng: jax.Array) -> Terms:
    predicted = model(batch.x)
    noise = 0.1 * jax.random.normal(rng)
    return {
        "pairs": Term(0.7, (predicted - batch.y + noise) ** 2, batch.pairs),
        "texts": Term(0.3, jnp.abs(predicted), batch.texts),
        "accuracy": Monitor((predicted > 0) == (batch.y > 0), batch.pairs),
        "lowest": Monitor(predicted, batch.pairs, "min"),
        "highest": Monitor(predicted, batch.pairs, "max"),
    }


def noiseless(model: Toy, batch: ToyBatch, rng: jax.Array) -> Terms:
    """`loss_fn` without its noise, where windows of different lengths must agree."""
    predicted = model(batch.x)
    terms = loss_fn(model, batch, rng)
    return {**terms, "pairs": Term(0.7, (predicted - batch.y) ** 2, batch.pairs)}


def window(number: int, micro_batches: int = 2, rows: int = 8) -> ToyBatch:
    """Window `number` of an endless sequence, numpy leaves [micro_batches, rows, ...]."""
    rng = np.random.default_rng(number)
    shape = (micro_batches, rows, 6)
    x = rng.normal(size=(*shape, FEATURES)).astype(np.float32)
    pairs = rng.random(shape) < rng.random((micro_batches, 1, 1))
    return ToyBatch(
        x=x,
        y=np.where(pairs, x.sum(-1), 0.0).astype(np.float32),
        pairs=pairs,
        texts=np.where(rng.random(shape) < 0.3, rng.random(shape), 0.0).astype(np.float32),
        comparison=np.where(rng.random(shape) < 0.8, 0, -1).astype(np.int32),
    )


@dataclasses.dataclass
class ToyLoader:
    mesh: Mesh
    micro_batches: int = 2
    rows: int = 8

    def batches(self, start: int) -> Iterator[ToyBatch]:
        while True:
            batch = window(start, self.micro_batches, self.rows)
            yield parallel.shard_rows(batch, self.mesh, leading=1)
            start += 1
