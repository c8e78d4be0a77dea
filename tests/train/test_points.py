"""Short runs of a model of one weight, whose steps are computed by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxrm import parallel
from jaxrm.models import transformer
from jaxrm.parallel import ShardingRules
from jaxrm.train.loop import Trainer, points
from jaxrm.train.terms import Term


class Model(nnx.Module):
    def __init__(self):
        self.weight = nnx.Param(jnp.ones((1,)), axes=(None,))
        self.other = nnx.Param(jnp.full((1,), 7.0), axes=(None,))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    slope: Any  # float [rows]
    noise: Any  # float [rows]
    comparison: Any  # int [rows]


def loss_fn(model, batch, rng):
    """Its gradient is the mean slope, and noise of the step's own key."""
    slope = batch.slope + batch.noise * jax.random.normal(rng)
    loss = model.weight[...] * slope + 0 * model.other[...]
    return {"loss": Term(1.0, loss, jnp.ones_like(batch.slope))}


def batch(slope=0.0, noise=0.0):
    """Two rows of slopes around `slope`, one token to be counted between them."""
    return Batch(
        np.array([slope - 1, slope + 1], np.float32),
        np.full(2, noise, np.float32),
        np.array([0, -1], np.int32),
    )


@pytest.fixture(scope="module")
def mesh():
    return parallel.make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def start():
    return jax.tree.map(np.array, transformer.split(Model())[1])


@pytest.fixture(scope="module")
def trainer(start, mesh):
    model = Model()
    structure, axes = transformer.split(model)[0], transformer.axes(model)
    return Trainer(
        structure,
        axes,
        start,
        loss_fn,
        optax.sgd,
        mesh=mesh,
        rules=ShardingRules(),
        trainable=lambda path: path == "weight",
    )


def run(trainer, start, mesh, batches, rates, count, seed=0):
    """(step, weight) at each point, and the last point."""
    placed = (
        parallel.shard_rows(jax.tree.map(lambda leaf: leaf[None], one), mesh, leading=1)
        for one in batches
    )
    rates, seen = np.asarray(rates, np.float32), []
    with jax.set_mesh(mesh):
        for point in points(trainer, start, placed, rates, count=count, seed=seed):
            seen.append((point.step, float(point.params["weight"][0])))
    return seen, point


def test_each_step_has_its_own_rate(trainer, start, mesh):
    slopes = [1.0, 2.0, -1.0, 4.0]
    seen, last = run(trainer, start, mesh, map(batch, slopes), [0.1, 0.2, 0.5, 0.25], count=2)
    # 1 - .1 x 1 - .2 x 2 = .5, and .5 + .5 x 1 - .25 x 4 = 0.
    assert seen == [(2, pytest.approx(0.5)), (4, pytest.approx(0.0, abs=1e-6))]
    assert (last.steps, last.tokens) == (4, 4)
    assert last.seconds > 0
    assert start["weight"] == 1.0
    assert last.params["other"] == 7.0


def test_points_are_as_equal_as_steps_allow(trainer, start, mesh):
    for steps, count, expected in ((7, 3, [2, 5, 7]), (2, 5, [1, 2]), (3, 1, [3])):
        seen, _ = run(trainer, start, mesh, [batch()] * steps, [0.1] * steps, count)
        assert [step for step, _ in seen] == expected


def test_the_seed_is_that_of_the_noise(trainer, start, mesh):
    first, again, other = (
        run(trainer, start, mesh, [batch(noise=1.0)], [1.0], count=1, seed=seed)[0]
        for seed in (0, 0, 1)
    )
    assert first == again != other
