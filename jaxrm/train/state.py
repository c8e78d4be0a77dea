"""Everything that a training run changes, as one sharded pytree."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxrm import parallel
from jaxrm.parallel import ShardingRules
from jaxrm.train.optimizer import AtRate

Params = dict[str, Any]
"""Nested dictionaries of arrays; a leaf's path is its keys joined by "/"."""

Trainable = Callable[[str], bool]
"""Whether the parameter at a path trains."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """A run after `step` optimizer steps. Only `trainable` has gradients and optimizer state.

    `frozen` never changes: it is carried so that the step takes one donated argument, and left out
    of checkpoints because the base model brings it again. `rng` is a key's data (uint32), which
    files hold and jit caches more plainly than a typed key.
    """

    step: jax.Array
    trainable: Params
    frozen: Params
    optimizer: optax.OptState
    rng: jax.Array

    def saved(self) -> dict[str, Any]:
        """The parts that a checkpoint holds, by field name."""
        fields = (field.name for field in dataclasses.fields(self) if field.name != "frozen")
        return {name: getattr(self, name) for name in fields}


def partition(params: Params, trainable: Trainable, prefix: str = "") -> tuple[Params, Params]:
    """Split a nested dictionary in two by a predicate on "/"-joined paths: (trainable, frozen)."""
    chosen: Params = {}
    frozen: Params = {}
    for key, value in params.items():
        if isinstance(value, dict):
            for half, part in zip(
                (chosen, frozen), partition(value, trainable, f"{prefix}{key}/"), strict=True
            ):
                if part:
                    half[key] = part
        else:
            (chosen if trainable(f"{prefix}{key}") else frozen)[key] = value
    return chosen, frozen


def join(first: Params, second: Params) -> Params:
    """The inverse of partition."""
    joined = dict(first)
    for key, value in second.items():
        joined[key] = join(first[key], value) if key in first else value
    return joined


def abstract_state(
    params: Params,
    axes: Params,
    optimizer: AtRate,
    *,
    trainable: Trainable,
    mesh: Mesh,
    rules: ShardingRules,
) -> TrainState:
    """The shapes, dtypes and shardings of a TrainState (leaves are ShapeDtypeStructs).

    Parameters follow `rules` by their logical `axes`, moments follow the parameter they belong to,
    and counters are replicated.

    Raises ValueError when the predicate chooses no parameter.
    """

    def describe(leaf: Any, sharding: jax.sharding.NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    shardings = parallel.shardings(axes, params, mesh, rules)
    chosen, frozen = partition(jax.tree.map(describe, params, shardings), trainable)
    if not chosen:
        raise ValueError("the trainable predicate chooses no parameter")
    everywhere = parallel.replicated(mesh)
    optimizer_state = optax.tree_map_params(
        optimizer(0.0),
        lambda leaf, param: describe(leaf, param.sharding),
        jax.eval_shape(optimizer(0.0).init, chosen),
        chosen,
        transform_non_params=lambda leaf: describe(leaf, everywhere),
    )
    return TrainState(
        step=jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere),
        trainable=chosen,
        frozen=frozen,
        optimizer=optimizer_state,
        rng=describe(jax.eval_shape(_key_data, 0), everywhere),
    )


def create_state(
    params: Params, optimizer: AtRate, abstract: TrainState, *, seed: int
) -> TrainState:
    """The state before the first step, every leaf made in the place where `abstract` has it.

    Parameters that lie there already are not copied, so donating the state consumes `params`.
    """
    shardings = shardings_of(abstract)
    chosen = place(params, abstract.trainable)
    return TrainState(
        step=jax.device_put(jnp.int32(0), shardings.step),
        trainable=chosen,
        frozen=place(params, abstract.frozen),
        optimizer=jax.jit(optimizer(0.0).init, out_shardings=shardings.optimizer)(chosen),
        rng=jax.device_put(_key_data(seed), shardings.rng),
    )


def _key_data(seed: int) -> jax.Array:
    return jax.random.key_data(jax.random.key(seed))


def place(params: Params, like: Params) -> Params:
    """Those of `params` that `like` (ShapeDtypeStructs) has, with its shardings."""
    return {
        key: place(params[key], leaf)
        if isinstance(leaf, dict)
        else jax.device_put(params[key], leaf.sharding)
        for key, leaf in like.items()
    }


def shardings_of(state: TrainState) -> TrainState:
    """The sharding of every leaf of a state, abstract or not."""
    return jax.tree.map(lambda leaf: leaf.sharding, state)
