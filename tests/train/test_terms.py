from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.train.terms import Monitor, reward_monitors, weighted_sum


def test_a_silenced_value_counts_for_nothing_in_value_and_gradient():
    weights = jnp.array([2.0, 0.0, 0.0, 1.0])
    values = jnp.array([1.0, jnp.nan, jnp.inf, 3.0])
    total, gradient = jax.value_and_grad(weighted_sum)(values, weights)
    assert total == 5.0
    np.testing.assert_array_equal(gradient, [2.0, 0.0, 0.0, 1.0])


def test_weights_have_no_gradient():
    gradient = jax.grad(weighted_sum, argnums=1)(jnp.ones(2), jnp.ones(2))
    np.testing.assert_array_equal(gradient, [0.0, 0.0])


VALUES = jnp.array([4.0, -jnp.inf, 1.0, jnp.nan])
WEIGHTS = jnp.array([1.0, 0.0, 3.0, 0.0])


@pytest.mark.parametrize(("reduce", "expected"), [("mean", 1.75), ("min", 1.0), ("max", 4.0)])
def test_a_monitor_sums_up_what_has_weight(reduce, expected):
    summary = Monitor(VALUES, WEIGHTS, reduce).summary()
    assert (summary.values, summary.weights, summary.reduce) == (expected, 4.0, reduce)
    assert Monitor(VALUES, WEIGHTS > 0, reduce).summary().weights == 2.0


@pytest.mark.parametrize("reduce", ["mean", "min", "max"])
def test_summaries_can_be_summed_up_again_and_weightless_ones_do_not_count(reduce):
    values = jnp.array([[5.0, 6.0, 7.0], [-9.0, 9.0, 0.0], [1.0, 2.0, 3.0]])
    weights = jnp.array([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    parts = jax.vmap(Monitor.summary)(Monitor(values, weights, reduce))
    whole = Monitor(values, weights, reduce).summary()
    np.testing.assert_allclose(parts.summary().values, whole.values, rtol=1e-6)
    assert parts.values[1] == 0.0


@dataclasses.dataclass
class Pairs:
    """The part of a PackedBatch that reward_monitors reads: slot 0 against slots 1 and 2."""

    pair_weight: jax.Array
    pair_mask: jax.Array
    response_mask: jax.Array

    def pairs(self, values):
        return values[:, [0, 0]], values[:, 1:3]


def test_reward_monitors_by_hand():
    rewards = jnp.array([[1.0, 1.0, -1.0, 99.0], [0.0, -3.0, -50.0, -99.0]])
    batch = Pairs(
        pair_weight=jnp.array([[0.5, 0.5], [1.0, 1.0]]),
        pair_mask=jnp.array([[True, True], [True, False]]),
        response_mask=jnp.array([[True, True, True, False], [True, True, False, False]]),
    )
    seen = {name: float(m.summary().values) for name, m in reward_monitors(rewards, batch).items()}
    # Pairs: a tie (wrong) and 2 apart at weight 1/2 each, 3 apart at weight 1.
    assert seen == {
        "accuracy": 0.75,
        "margin": 2.0,
        "mean_reward": pytest.approx(-0.4),
        "min_reward": -3.0,
        "max_reward": 1.0,
    }
