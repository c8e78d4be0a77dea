from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.errors import OptionError
from jaxrm.train.optimizer import OptimizerConfig, learning_rates, make_optimizer


def test_the_schedule_by_hand():
    config = OptimizerConfig(learning_rate=2.0, warmup=0.2, floor=0.1)
    cosine = [0.1 + 0.45 * (1 + np.cos(np.pi * done / 8)) for done in range(8)]
    expected = [1.0, 2.0, *(2 * value for value in cosine)]
    np.testing.assert_allclose(learning_rates(config, 10), expected, rtol=1e-6)


def test_without_warm_up_the_first_step_has_the_peak():
    assert learning_rates(OptimizerConfig(learning_rate=3.0, warmup=0.0), 5)[0] == 3.0


def first_update(config, gradient):
    params = {"dense": jnp.ones(2), "final_norm": jnp.ones(2), "bias": jnp.ones(2)}
    optimizer = make_optimizer(config)(learning_rates(config, 10)[0])
    gradients = jax.tree.map(lambda _: jnp.asarray(gradient), params)
    return optimizer.update(gradients, optimizer.init(params), params)[0]


def test_adams_first_step_and_decay_without_norms_and_biases():
    config = OptimizerConfig(learning_rate=0.5, warmup=0.0, weight_decay=0.1, clip=None)
    updates = first_update(config, [3.0, -4.0])
    # Bias-corrected, Adam's first step is the gradient's sign; decay adds 0.1 * 1 to it.
    np.testing.assert_allclose(updates["dense"], [-0.55, 0.45], rtol=1e-5)
    np.testing.assert_allclose(updates["final_norm"], [-0.5, 0.5], rtol=1e-5)
    np.testing.assert_allclose(updates["bias"], [-0.5, 0.5], rtol=1e-5)


def test_clipping_scales_the_gradient_to_the_norm():
    # With a large eps Adam's step is proportional to the gradient, so that its scale shows.
    free = OptimizerConfig(learning_rate=1.0, warmup=0.0, eps=1e6, clip=None)
    clipped = OptimizerConfig(learning_rate=1.0, warmup=0.0, eps=1e6, clip=1.0)
    norm = np.sqrt(3 * 25.0)
    np.testing.assert_allclose(
        first_update(clipped, [3.0, 4.0])["dense"] * norm,
        first_update(free, [3.0, 4.0])["dense"],
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    "wrong", [{"learning_rate": 0.0}, {"warmup": 1.1}, {"floor": -0.1}, {"clip": 0.0}]
)
def test_values_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(OptionError, match=f"{name} must be"):
        OptimizerConfig(**wrong)
