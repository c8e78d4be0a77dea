"""A packed row computes what its responses compute alone, whatever stands beside them."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.data.packing import PackShape
from jaxrm.models import heads
from jaxrm.models.heads import HeadConfig
from jaxrm.models.transformer import merge, split
from tests.models.support import CONFIG, alone, in_order, packed, random_tree, read_off, small_model

VARIANTS = {
    "gemma": CONFIG,
    # Positions of a branch continue its prompt while its tokens lie anywhere in the row, so that
    # windows and rotations by index would be seen here.
    "windows and caps": dataclasses.replace(
        CONFIG, windows=(4, None), attention_softcap=2.0, logit_softcap=3.0, tie_embeddings=False
    ),
}


SHAPE = PackShape(rows=10, length=24, slots=5, targets=24, ask="all")
COUNT = 10


@pytest.fixture(scope="module")
def trees():
    rng = np.random.default_rng(3)
    shapes = [(5, (3, 6, 2, 4)), (4, (7,)), (9, (2, 2)), (3, (5, 1, 1))]
    return [random_tree(rng, prompt, branches) for prompt, branches in shapes]


@pytest.fixture(scope="module", params=VARIANTS)
def model(request):
    head = HeadConfig("mlp", hidden=7)
    return split(small_model(VARIANTS[request.param], head, logp_chunk=16))


@functools.partial(jax.jit, static_argnums=0)
def _gradient(structure, params, batch):
    def loss_fn(params):
        model = merge(structure, params)
        hidden = model.hidden(batch)
        rewards = in_order(heads.rewards(model, hidden, batch), batch, COUNT)
        logps = in_order(heads.response_logps(model, hidden, batch), batch, COUNT)
        return jnp.sum(jnp.sin(jnp.arange(COUNT) + rewards)) + 0.1 * jnp.sum(logps)

    return jax.grad(loss_fn)(params)


def test_shared_prompts_equal_separate_sequences(model, trees):
    together, apart = packed(trees, SHAPE), alone(trees, SHAPE)
    assert (together.comparison >= 0).sum() < (apart.comparison >= 0).sum()
    assert (together.comparison < 0).all(axis=1).any(), "a row of padding alone belongs to the test"
    found, expected = read_off(*model, together), read_off(*model, apart)
    for ours, theirs in zip(found, expected, strict=True):
        theirs = in_order(theirs, apart, COUNT)
        assert jnp.std(theirs) > 0.1
        np.testing.assert_allclose(in_order(ours, together, COUNT), theirs, rtol=1e-5, atol=1e-5)
        assert (np.asarray(ours)[~together.response_mask] == 0).all()

    def close(ours, theirs):
        assert np.abs(theirs).max() > 1e-3
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())

    jax.tree.map(close, _gradient(*model, together), _gradient(*model, apart))


def test_row_length_order_and_neighbours_change_nothing(model, trees):
    batch = alone(trees, SHAPE)
    expected = [in_order(values, batch, COUNT) for values in read_off(*model, batch)]
    starts = np.cumsum([0] + [len(tree.branches) for tree in trees])
    for order, shape in (
        ((3, 1, 0, 2), SHAPE),
        ((2, 3, 0, 1), dataclasses.replace(SHAPE, rows=1, length=64, slots=10, targets=50)),
    ):
        batch = packed([trees[i] for i in order], shape)
        where = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in order])
        for ours, theirs in zip(read_off(*model, batch), expected, strict=True):
            ours = in_order(ours, batch, COUNT)
            np.testing.assert_allclose(ours, theirs[where], rtol=1e-5, atol=1e-5)
