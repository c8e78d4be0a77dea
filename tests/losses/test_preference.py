"""Bradley-Terry losses against hand-computed values, gradients and identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrm.losses import preference

finite = st.floats(-1000, 1000, width=32)


@pytest.mark.parametrize(
    ("difference", "expected"),
    [(0, 0.693147), (1, 0.313262), (-1, 1.313262), (2, 0.126928), (-1000, 1000.0), (1000, 0.0)],
)
def test_bradley_terry_matches_hand_values(difference, expected):
    loss = preference.bradley_terry(jnp.float32(difference), jnp.float32(0))
    np.testing.assert_allclose(loss, expected, atol=1e-6, rtol=1e-6)


def test_bradley_terry_gradient_is_minus_the_probability_of_the_wrong_order():
    gradient = jax.grad(preference.bradley_terry)(1.0, 0.0)
    np.testing.assert_allclose(gradient, -0.268941, atol=1e-6)
    np.testing.assert_allclose(jax.grad(preference.bradley_terry, 1)(1.0, 0.0), 0.268941, atol=1e-6)


def test_a_margin_asks_for_that_much_more():
    with_margin = preference.bradley_terry(jnp.array([3.0]), jnp.array([1.0]), jnp.array([1.0]))
    np.testing.assert_allclose(with_margin, [0.313262], atol=1e-6)


@given(finite, finite)
def test_losses_and_gradients_stay_finite(chosen, rejected):
    for loss in (
        preference.bradley_terry,
        lambda c, r: preference.label_smoothed(c, r, 0.1),
    ):
        value, gradient = jax.value_and_grad(loss)(chosen, rejected)
        assert np.isfinite(value)
        assert np.isfinite(gradient)


def test_label_smoothing_is_the_mixture_of_both_orders():
    chosen, rejected = jnp.array([0.0, 1.0, -3.0]), jnp.array([0.5, 0.0, 2.0])
    mixture = 0.9 * preference.bradley_terry(chosen, rejected) + 0.1 * preference.bradley_terry(
        rejected, chosen
    )
    np.testing.assert_allclose(preference.label_smoothed(chosen, rejected, 0.1), mixture, rtol=1e-6)


def test_label_smoothing_is_least_at_the_log_odds():
    optimum = 2.197225
    gradient = jax.grad(lambda d: preference.label_smoothed(d, 0.0, 0.1))
    np.testing.assert_allclose(gradient(optimum), 0.0, atol=1e-6)
    assert gradient(optimum - 0.1) < 0 < gradient(optimum + 0.1)


def test_zero_smoothing_is_bradley_terry_to_the_bit():
    chosen, rejected = jnp.array([0.0, 1.0, -3.0]), jnp.array([0.5, 0.0, 2.0])
    np.testing.assert_array_equal(
        preference.label_smoothed(chosen, rejected, 0.0),
        preference.bradley_terry(chosen, rejected),
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_rewards_are_compared_in_float32(dtype):
    chosen, rejected = jnp.array([256.0], dtype), jnp.array([255.0], dtype)
    loss = preference.bradley_terry(chosen, rejected)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, [0.313262], atol=1e-6)


def test_shapes_are_kept_and_must_agree():
    assert preference.bradley_terry(jnp.zeros((2, 3)), jnp.zeros((2, 3))).shape == (2, 3)
    with pytest.raises(ValueError, match="differ"):
        preference.bradley_terry(jnp.zeros(3), jnp.zeros((3, 1)))
