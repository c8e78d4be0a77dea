from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxrm.models.transformer import axes, split
from jaxrm.parallel import MeshShape, ShardingRules, make_mesh
from jaxrm.train.optimizer import OptimizerConfig, make_optimizer
from jaxrm.train.state import abstract_state, create_state, join, partition, shardings_of
from tests.train.toy_problem import Toy

PARAMS = {"trunk": {"a": 1, "norm": {"scale": 2}}, "reward_head": {"weight": 3}, "b": 4}


def test_partition_goes_by_joined_paths_and_join_undoes_it():
    paths = []
    chosen, frozen = partition(PARAMS, lambda path: paths.append(path) or "norm/" in path)
    assert sorted(paths) == ["b", "reward_head/weight", "trunk/a", "trunk/norm/scale"]
    assert chosen == {"trunk": {"norm": {"scale": 2}}}
    assert frozen == {"trunk": {"a": 1}, "reward_head": {"weight": 3}, "b": 4}
    assert join(chosen, frozen) == join(frozen, chosen) == PARAMS


@pytest.mark.parametrize("answer", [True, False])
def test_partition_into_all_and_nothing(answer):
    whole, nothing = partition(PARAMS, lambda path: answer)[:: 1 if answer else -1]
    assert (whole, nothing) == (PARAMS, {})


def make(trainable):
    model = Toy()
    params = split(model)[1]
    optimizer = make_optimizer(OptimizerConfig())
    abstract = abstract_state(
        params,
        axes(model),
        optimizer,
        trainable=trainable,
        mesh=make_mesh(MeshShape(2, 2, 2)),
        rules=ShardingRules(),
    )
    return params, optimizer, abstract


def test_a_state_is_made_in_its_shards_and_moments_follow_their_parameters():
    params, optimizer, abstract = make(lambda path: path != "norm")
    values = jax.tree.map(np.asarray, params)
    state = create_state(params, optimizer, abstract, seed=3)
    assert state.trainable["up"].sharding.spec == PartitionSpec("fsdp", "tensor")
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == shardings_of(abstract)
    jax.tree.map(np.testing.assert_array_equal, join(state.trainable, state.frozen), values)

    moments = [
        leaf for leaf in jax.tree.leaves(state.optimizer) if leaf.shape == params["up"].shape
    ]
    assert [leaf.sharding.spec for leaf in moments] == [PartitionSpec("fsdp", "tensor")] * 2
    assert state.frozen.keys() == {"norm"}
    described = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), abstract)
    assert described == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)


def test_frozen_parameters_have_no_optimizer_state_and_are_not_saved():
    params, optimizer, abstract = make(lambda path: path.startswith("reward_head/"))
    state = create_state(params, optimizer, abstract, seed=0)
    assert state.trainable.keys() == {"reward_head"}
    assert state.frozen.keys() == {"up", "norm"}
    shapes = {leaf.shape for leaf in jax.tree.leaves(state.optimizer)}
    assert params["up"].shape not in shapes
    assert state.saved().keys() == {"step", "trainable", "optimizer", "rng"}


def test_training_nothing_is_a_programming_error():
    with pytest.raises(ValueError, match="no parameter"):
        make(lambda path: False)


def test_the_seed_is_the_key():
    params, optimizer, abstract = make(lambda path: True)
    state = create_state(params, optimizer, abstract, seed=7)
    np.testing.assert_array_equal(state.rng, jax.random.key_data(jax.random.key(7)))
