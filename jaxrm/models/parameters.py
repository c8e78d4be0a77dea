"""Declaring parameters: each one's shape, logical axes and initialiser, said once.

Models declare a nested dict of `Parameter`; values, shapes for compilation and shardings all follow
from it.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = dict[str, Any]
"""A nested dict; its leaves are declarations, arrays or tuples of axes, as the context says."""

Initialiser = Callable[[jax.Array, tuple[int, ...]], jax.Array]
"""(key, shape) -> float32 values."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One array of a model: `axes` are the logical names that sharding rules speak of."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    init: Initialiser


def normal(deviation: float) -> Initialiser:
    """Independent normal values with mean 0."""
    return lambda key, shape: deviation * jax.random.normal(key, shape, jnp.float32)


def uniform(bound: float) -> Initialiser:
    """Independent values, uniform between -bound and bound."""
    return lambda key, shape: jax.random.uniform(key, shape, jnp.float32, -bound, bound)


def constant(value: float) -> Initialiser:
    """The same value everywhere."""
    return lambda key, shape: jnp.full(shape, value, jnp.float32)


def initialise(declared: Tree, seed: int | jax.Array) -> Tree:
    """Float32 values for a tree of `Parameter`.

    A parameter's values depend on the seed and its own path alone, so that they stay the same
    whatever is declared beside it and however it is sharded.
    """
    root = jax.random.key(seed)

    def value(path: tuple[jax.tree_util.DictKey, ...], parameter: Parameter) -> jax.Array:
        name = "/".join(key.key for key in path)
        key = jax.random.fold_in(root, zlib.crc32(name.encode()))
        return parameter.init(key, parameter.shape)

    return jax.tree_util.tree_map_with_path(value, declared)


def shapes(tree: Tree) -> Tree:
    """The shape of every leaf, of declarations as of arrays: equal trees fit each other."""
    return jax.tree.map(lambda leaf: tuple(leaf.shape), tree)
