"""A packed row computes what its responses compute alone, whatever stands beside them."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.models import heads
from jaxrm.models.heads import HeadConfig
from jaxrm.models.transformer import Compute, RewardModel, merge, split
from tests.models.support import CONFIG, alone, in_order, packed, random_tree, read_off, unshared

VARIANTS = {
    "gemma": CONFIG,
    # Positions of a branch continue its prompt while its tokens lie anywhere in the row, so that
    # windows and rotations by index would be seen here.
    "windows and caps": dataclasses.replace(
        CONFIG, windows=(4, None), attention_softcap=2.0, logit_softcap=3.0, tie_embeddings=False
    ),
}


@pytest.fixture(scope="module")
def trees():
    rng = np.random.default_rng(3)
    shapes = [(5, (3, 6, 2, 4)), (4, (7,)), (9, (2, 2)), (3, (5, 1, 1))]
    return [random_tree(rng, prompt, branches) for prompt, branches in shapes]


@pytest.fixture(scope="module", params=VARIANTS)
def model(request):
    config = dataclasses.replace(VARIANTS[request.param], initializer_range=0.2)
    return split(RewardModel(config, HeadConfig("mlp", hidden=7), compute=Compute(logp_chunk=4)))


@functools.partial(jax.jit, static_argnums=(0, 3))
def _gradient(structure, params, batch, count):
    def loss_fn(params):
        model = merge(structure, params)
        hidden = model.hidden(batch)
        rewards = in_order(heads.rewards(model, hidden, batch), batch, count)
        logps = in_order(heads.response_logps(model, hidden, batch), batch, count)
        return jnp.sum(jnp.sin(jnp.arange(count) + rewards)) + 0.1 * jnp.sum(logps)

    return jax.grad(loss_fn)(params)


def test_shared_prompts_equal_separate_sequences(model, trees):
    one_each = unshared(trees)
    count = len(one_each)
    together, apart = packed(trees, 32), alone(one_each)
    assert together.tokens.size < apart.tokens.size
    found, expected = (
        [in_order(values, batch, count) for values in read_off(*model, batch)]
        for batch in (together, apart)
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert jnp.std(theirs) > 0.1
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    packed_gradient, separate_gradient = (
        _gradient(*model, batch, count) for batch in (together, apart)
    )
    jax.tree.map(
        lambda ours, theirs: np.testing.assert_allclose(
            ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max()
        ),
        packed_gradient,
        separate_gradient,
    )


def test_row_length_order_and_neighbours_change_nothing(model, trees):
    expected = [in_order(v, alone(trees), 10) for v in read_off(*model, alone(trees))]
    counts = [len(tree.branches) for tree in trees]
    places = np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1])
    for order, length in (((0, 1, 2, 3), 64), ((3, 1, 0, 2), 64), ((2, 3, 1, 0), 24)):
        batch = packed([trees[i] for i in order], length)
        where = np.concatenate([places[i] for i in order])
        for ours, theirs in zip(read_off(*model, batch), expected, strict=True):
            np.testing.assert_allclose(
                in_order(ours, batch, 10), theirs[where], rtol=1e-5, atol=1e-5
            )


def test_a_row_of_padding_alone_is_finite_and_zero_behind_its_masks(model, trees):
    batch = packed(trees[1:2], 16)
    empty = jax.tree.map(np.zeros_like, batch)
    empty = dataclasses.replace(empty, comparison=empty.tokens - 1, branch=empty.tokens - 1)
    both = jax.tree.map(lambda a, b: np.concatenate([a, b]), batch, empty)
    rewards, logps = read_off(*model, both)
    assert (rewards[1] == 0).all()
    assert (logps[1] == 0).all()
    assert (rewards[0] != 0).all()
    gradient = _gradient(*model, both, 1)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
