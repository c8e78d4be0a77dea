from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxrm import parallel
from jaxrm.errors import AccumulationError
from jaxrm.models.transformer import axes, split
from jaxrm.parallel import MeshShape, ShardingRules, make_mesh
from jaxrm.train.optimizer import OptimizerConfig, learning_rates, make_optimizer
from jaxrm.train.state import abstract_state, create_state, shardings_of
from jaxrm.train.step import make_train_step
from jaxrm.train.terms import BatchTerm, Monitor, Term
from tests.train.toy_problem import Toy, ToyBatch, loss_fn, noiseless, window

CUBE = make_mesh(MeshShape(2, 2, 2))
SINGLE = make_mesh(MeshShape(1, 1, 1), jax.devices()[:1])


def everything(path):
    return True


class Run:
    """A state and its step on one mesh, as `fit` puts them together."""

    def __init__(self, mesh, loss, *, model=None, trainable=everything, config=None):
        model = Toy() if model is None else model
        self.structure, params = split(model)
        config = config or OptimizerConfig(learning_rate=1e-2)
        optimizer, self.rates = make_optimizer(config), iter(learning_rates(config, 100))
        abstract = abstract_state(
            params, axes(model), optimizer, trainable=trainable, mesh=mesh, rules=ShardingRules()
        )
        self.mesh = mesh
        self.state = create_state(params, optimizer, abstract, seed=0)
        self.step = make_train_step(loss, self.structure, optimizer, shardings_of(abstract))

    def __call__(self, batches):
        with jax.set_mesh(self.mesh):
            batches = parallel.shard_rows(batches, self.mesh, leading=1)
            self.state, metrics = self.step(self.state, batches, next(self.rates))
        return jax.device_get(metrics)

    def values(self):
        return jax.device_get(self.state.saved())["trainable"]


def close(left, right, tolerance):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=0, atol=tolerance), left, right)


def test_eight_devices_equal_one():
    split_up, whole = Run(CUBE, loss_fn), Run(SINGLE, loss_fn)
    for number in range(3):
        close(split_up(window(number)), whole(window(number)), 1e-5)
    close(split_up.values(), whole.values(), 1e-5)
    shards = split_up.state.trainable["up"].addressable_shards
    assert {shard.data.shape for shard in shards} == {(4, 8)}


def test_the_step_compiles_once_and_consumes_its_state():
    run = Run(CUBE, loss_fn)
    given = run.state
    for number in range(50):
        run(window(number))
    assert run.step._cache_size() == 1
    assert int(run.state.step) == 50
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given.trainable))


def test_four_small_batches_equal_one_large_one():
    small = window(0, micro_batches=4)
    assert len({int(part) for part in small.pairs.sum((1, 2))}) > 1, "unequal on purpose"
    large = jax.tree.map(lambda leaf: leaf.reshape(1, -1, *leaf.shape[2:]), small)
    accumulated, at_once = Run(SINGLE, noiseless), Run(SINGLE, noiseless)
    close(accumulated(small), at_once(large), 1e-6)
    close(accumulated.values(), at_once.values(), 1e-6)


class Scalar(nnx.Module):
    """One parameter w = 3."""

    def __init__(self):
        self.w = nnx.Param(jnp.array(3.0), axes=())


def scalar_batch(values, weights):
    """Windows of single-row micro-batches: `values` and `weights` are [M][n]."""
    return {
        "x": np.asarray(values, np.float32)[:, None],
        "weight": np.asarray(weights, np.float32)[:, None],
    }


SGD_LIKE = OptimizerConfig(clip=None)


def test_denominators_span_the_window():
    def loss(model, batch, rng):
        return {
            "a": Term(0.5, model.w[...] * batch["x"], batch["weight"]),
            "b": Term(2.0, model.w[...] * batch["x"] ** 2, batch["weight"] > 0),
        }

    # Micro-batches of 3 and 1 weighted examples: means of means would be 0.5 * 3 * (2 + 10) / 2.
    batch = scalar_batch([[1, 2, 3], [10, 7, 7]], [[1, 1, 1], [2, 0, 0]])
    metrics = Run(SINGLE, loss, model=Scalar(), config=SGD_LIKE)(batch)
    a = 0.5 * (1 + 2 + 3 + 20) / 5
    b = 2.0 * (1 + 4 + 9 + 100) / 4
    assert metrics["loss/a"] == pytest.approx(3 * a)
    assert metrics["loss/b"] == pytest.approx(3 * b)
    assert metrics["loss"] == pytest.approx(3 * (a + b))
    assert metrics["grad_norm"] == pytest.approx(a + b)
    assert metrics["param_norm"] == pytest.approx(3.0)


def test_a_term_without_weight_is_nothing_and_masked_infinities_stay_out():
    def loss(model, batch, rng):
        # The second where keeps the masked input out of the logarithm's derivative.
        x = jnp.where(batch["weight"] > 0, batch["x"], 1.0)
        return {
            "log": Term(1.0, model.w[...] * jnp.log(x), batch["weight"]),
            "raw": Term(1.0, model.w[...] + jnp.log(batch["x"]), batch["weight"]),
            "empty": Term(1.0, model.w[...] / x, jnp.zeros_like(x)),
            "seen": Monitor(jnp.log(batch["x"]), batch["weight"]),
        }

    batch = scalar_batch([[1, 0, -1], [np.e, 0, np.nan]], [[1, 0, 0], [1, 0, 0]])
    metrics = Run(SINGLE, loss, model=Scalar(), config=SGD_LIKE)(batch)
    assert metrics["loss/empty"] == 0.0
    assert metrics["loss/log"] == pytest.approx(1.5)
    assert metrics["loss/raw"] == pytest.approx(3.5)
    assert metrics["seen"] == pytest.approx(0.5)
    assert metrics["grad_norm"] == pytest.approx(0.5 + 1.0)


def test_a_batch_without_any_weight_changes_nothing():
    run = Run(SINGLE, loss_fn, config=OptimizerConfig(weight_decay=0.0))
    before = run.values()
    batch = window(0)
    metrics = run(
        ToyBatch(batch.x, batch.y, batch.pairs & False, batch.texts * 0, batch.comparison)
    )
    assert metrics["loss"] == metrics["grad_norm"] == metrics["lowest"] == 0.0
    close(run.values(), before, 0.0)


def test_monitors_and_tokens_cover_the_window():
    run, batch = Run(SINGLE, noiseless), window(4)
    predicted = np.asarray(jax.jit(Toy().__call__)(batch.x))
    metrics = run(batch)
    kept = predicted[batch.pairs]
    right = (predicted > 0) == (batch.y > 0)
    assert metrics["accuracy"] == pytest.approx(right[batch.pairs].mean())
    assert metrics["lowest"] == pytest.approx(kept.min(), abs=1e-5)
    assert metrics["highest"] == pytest.approx(kept.max(), abs=1e-5)
    assert metrics["tokens"] == (batch.comparison >= 0).sum()


def test_frozen_parameters_stay_and_the_rest_move():
    run = Run(SINGLE, loss_fn, trainable=lambda path: path.startswith("reward_head/"))
    before = jax.device_get((run.state.trainable, run.state.frozen))
    metrics = run(window(0))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(run.state.frozen), before[1])
    moved = jax.tree.map(lambda new, old: new - old, run.values(), before[0])
    norm = np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(moved)))
    assert norm == pytest.approx(metrics["update_norm"], rel=1e-3)
    assert norm > 0


def test_every_step_and_micro_batch_has_a_key_of_its_own():
    def loss(model, batch, rng):
        key = jax.random.key_data(rng)[-1].astype(jnp.float32)
        return {
            "w": Term(0.0, model.w[...] * batch["x"], batch["weight"]),
            "first": Monitor(jnp.broadcast_to(key, batch["x"].shape), batch["x"] == 0),
            "second": Monitor(jnp.broadcast_to(key, batch["x"].shape), batch["x"] == 1),
        }

    run = Run(SINGLE, loss, model=Scalar())
    batch = scalar_batch([[0, 0], [1, 1]], [[1, 1], [1, 1]])
    keys = [
        float(metrics[name]) for metrics in (run(batch), run(batch)) for name in ("first", "second")
    ]
    assert len(set(keys)) == 4
    again = Run(SINGLE, loss, model=Scalar())(batch)
    assert [float(again["first"]), float(again["second"])] == keys[:2]


def test_a_batch_statistic_is_refused_under_accumulation_only():
    def loss(model, batch, rng):
        return {"spread": BatchTerm(2.0, model.w[...] * jnp.var(batch["x"]))}

    batch = scalar_batch([[1, 3]], [[1, 1]])
    metrics = Run(SINGLE, loss, model=Scalar())(batch)
    assert metrics["loss"] == metrics["loss/spread"] == pytest.approx(2.0 * 3.0 * 1.0)
    window_of_two = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), batch)
    with pytest.raises(AccumulationError, match='"spread" .* 2 micro-batches'):
        Run(SINGLE, loss, model=Scalar())(window_of_two)


class Wide(nnx.Module):
    """Matrix products alone, so that operations count them."""

    def __init__(self, width=256):
        self.up = nnx.Param(jnp.zeros((width, width)), axes=("embed", "mlp"))
        self.down = nnx.Param(jnp.zeros((width, width)), axes=("mlp", "embed"))


def wide_loss(model, batch, rng):
    values = jax.nn.relu(batch["x"] @ model.up[...]) @ model.down[...]
    return {"loss": Term(1.0, values.sum(-1), batch["weight"])}


def test_asking_for_the_weights_does_not_run_the_model():
    batch = {"x": np.zeros((2, 512, 256), np.float32), "weight": np.ones((2, 512), np.float32)}
    run = Run(SINGLE, wide_loss, model=Wide(), config=SGD_LIKE)
    with jax.set_mesh(SINGLE):
        operations = run.step.lower(run.state, batch, 0.0).compile().cost_analysis()["flops"]
    product = 2 * 512 * 256 * 256
    # Loops count once. Forward 2 products, backward 3; the first pass's forward would be 2 more.
    assert 5 * product < operations < 5.5 * product
