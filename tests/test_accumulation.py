"""A window of small batches trains as one large batch does, however unevenly examples fall."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrm import parallel
from jaxrm.data import packing, planning
from jaxrm.errors import AccumulationError
from jaxrm.methods.grm import grm
from jaxrm.methods.method import bradley_terry
from jaxrm.models.heads import HeadConfig
from jaxrm.models.lora import LoraConfig
from jaxrm.models.transformer import RewardModel, axes, declare, split
from jaxrm.train import state
from jaxrm.train.step import make_train_step
from jaxrm.train.terms import BatchTerm
from tests.models.support import CONFIG, random_tree

# One comparison of 2, one of 3, two of 2 and one of 4 responses: 1, 3, 2 and 6 pairs in four rows.
SHAPES = [[(5, (3, 4))], [(2, (9, 2, 5))], [(4, (2, 2)), (3, (1, 6))], [(2, (7, 3, 4, 5))]]
MESH = parallel.make_mesh(devices=jax.devices()[:1])


def windows():
    """The same four rows as (four micro-batches of one row, one micro-batch of four)."""
    rng = np.random.default_rng(3)
    trees, plan = [], []
    for row in SHAPES:
        plan.append(list(range(len(trees), len(trees) + len(row))))
        for prompt, branches in row:
            tree = random_tree(rng, prompt, branches)
            columns = {"reference_logps": -rng.uniform(5, 30, len(branches))}
            columns["margin"] = rng.uniform(0, 2)
            trees.append(dataclasses.replace(tree, columns=columns))
    shape = planning.fit_shape(trees, rows=4, length=28, ask="all")
    large = packing.pack(trees, plan, shape)
    return (
        jax.tree.map(lambda leaf: jnp.asarray(leaf)[:, None], large),
        jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], large),
    )


def stepped(loss_fn, window, trainable):
    """Parameters and metrics after one step of gradient descent."""
    rng = np.random.default_rng(4)
    lora = LoraConfig(rank=2, dropout=0.0, targets=("query", "down"))
    declared = declare(CONFIG, HeadConfig(), lora)
    # Small, so that no softmax blows up the rounding of sums over other numbers of rows.
    params = jax.tree.map(
        lambda p: jnp.asarray(0.1 * rng.standard_normal(p.shape), jnp.float32), declared
    )
    model = RewardModel(CONFIG, HeadConfig(), lora, params=params)
    structure, params = split(model)
    optimizer = optax.sgd
    abstract = state.abstract_state(
        params,
        axes(model),
        optimizer,
        trainable=trainable,
        mesh=MESH,
        rules=parallel.ShardingRules(),
    )
    step = make_train_step(loss_fn, structure, optimizer, state.shardings_of(abstract))
    created = state.create_state(params, optimizer, abstract, seed=0)
    before = jax.tree.map(np.asarray, created.trainable)
    with jax.set_mesh(MESH):
        after, metrics = step(created, window, 1.0)
    gradient = jax.tree.map(lambda old, new: old - np.asarray(new), before, after.trainable)
    return gradient, metrics


@pytest.mark.parametrize("regularizer", ["sft", "dpo"])
def test_four_micro_batches_are_one_large_batch(regularizer):
    loss_fn = grm(0.3, regularizer=regularizer)

    def trainable(path):
        return path.startswith(("lora", "reward_head", "embedding"))

    small, large = windows()
    counts = [int(m.sum()) for m in small.pair_mask], [int(m.sum()) for m in small.target_mask]
    assert all(len(set(of)) > 2 for of in counts), "the micro-batches must differ in size"
    (gradient, metrics), (expected, of_large) = (
        stepped(loss_fn, window, trainable) for window in (small, large)
    )
    for name, value in of_large.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-6, atol=1e-6, err_msg=name)
    for ours, theirs in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        scale = np.abs(theirs).max()
        assert scale > 0
        np.testing.assert_allclose(ours / scale, theirs / scale, rtol=1e-6, atol=1e-6)


def test_a_batch_statistic_is_refused_over_several_micro_batches():
    def loss_fn(model, batch, rng):
        terms = bradley_terry(None)(model, batch, rng)
        return {**terms, "spread": BatchTerm(0.1, jnp.var(terms["reward"].values))}

    small, large = windows()
    with pytest.raises(AccumulationError, match='"spread".*4 micro-batches'):
        stepped(loss_fn, small, lambda path: True)
    _, metrics = stepped(loss_fn, large, lambda path: path.startswith("reward_head"))
    assert metrics["loss/spread"] > 0
