from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.models.layers import ACTIVATIONS, dropout, project, rms_norm, soft_cap


def test_rms_norm_by_hand():
    x, weight = jnp.array([[3.0, 4.0]]), jnp.array([0.5, -0.25])
    rms = np.sqrt(12.5)
    plain = rms_norm(x, weight, eps=0.0, offset=0.0)
    shifted = rms_norm(x, weight, eps=0.0, offset=1.0)
    np.testing.assert_allclose(plain, [[1.5 / rms, -1.0 / rms]], rtol=1e-6)
    np.testing.assert_allclose(shifted, [[4.5 / rms, 3.0 / rms]], rtol=1e-6)


def test_rms_norm_rounds_to_bfloat16_once_at_the_end():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((16, 64)), jnp.bfloat16)
    weight = jnp.asarray(rng.standard_normal(64), jnp.float32)
    found = rms_norm(x, weight, eps=1e-6, offset=1.0)
    exact = np.asarray(x, np.float64)
    exact = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + 1e-6) * (1 + np.asarray(weight))
    assert found.dtype == jnp.bfloat16
    assert (found == jnp.asarray(exact, jnp.bfloat16)).mean() > 0.99


@pytest.mark.parametrize(
    ("name", "at_one"), [("gelu_pytorch_tanh", 0.841192), ("gelu", 0.841345), ("silu", 0.731059)]
)
def test_activations_are_those_that_their_names_say(name, at_one):
    assert float(ACTIVATIONS[name](jnp.float32(1.0))) == pytest.approx(at_one, abs=1e-6)


def test_projections_contract_all_axes_but_the_first():
    x = jnp.arange(12.0).reshape(2, 2, 3)
    weight = jnp.arange(24.0).reshape(2, 3, 4)
    expected = x.reshape(2, 6) @ weight.reshape(6, 4)
    np.testing.assert_allclose(project(x, weight), expected)
    np.testing.assert_allclose(project(x[:, 0], weight[0]), x[:, 0] @ weight[0])


def test_dropout_keeps_the_mean_and_without_a_rate_everything():
    x = jnp.full((200, 200), 3.0)
    dropped = dropout(x, 0.25, jax.random.key(0))
    assert set(np.unique(dropped)) == {0.0, 4.0}
    assert float(dropped.mean()) == pytest.approx(3.0, abs=0.05)
    assert dropout(x, 0.0, jax.random.key(0)) is x


def test_soft_cap_is_the_identity_near_zero_and_bounded_far_out():
    found = soft_cap(jnp.array([1e-3, 1e3, -1e3]), 30.0)
    np.testing.assert_allclose(found, [1e-3, 30.0, -30.0], rtol=1e-5)
