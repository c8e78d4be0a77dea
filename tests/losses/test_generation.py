"""Text-generation losses against hand-computed values, gradients and identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.losses import generation, preference

CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED = -20.0, -24.0, -21.0, -23.0


def test_hand_values():
    np.testing.assert_allclose(generation.sft(CHOSEN, 0.1), 2.126928, atol=1e-6)
    np.testing.assert_allclose(generation.nll(CHOSEN), 20.0)
    np.testing.assert_allclose(
        generation.dpo_reference_free(CHOSEN, REJECTED, 0.1), 0.513015, atol=1e-6
    )
    np.testing.assert_allclose(
        generation.dpo(CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED, 0.1), 0.598139, atol=1e-6
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (generation.sft(CHOSEN, 0.1), 0.331398),
        (generation.dpo_reference_free(CHOSEN, REJECTED, 0.1), 0.315259),
        (generation.dpo(CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED, 0.1), 0.316110),
    ],
)
def test_grm_totals(text, expected):
    reward = preference.bradley_terry(1.0, 0.0)
    np.testing.assert_allclose(0.99 * reward + 0.01 * text, expected, atol=1e-6)


def test_dpo_is_log_two_while_policy_and_reference_agree():
    logps = jnp.array([-3.0, -300.0, -3000.0]), jnp.array([-9.0, -200.0, -3500.0])
    loss = generation.dpo(*logps, *logps, beta=0.1)
    np.testing.assert_array_equal(loss, np.full(3, np.float32(np.log(2))))


def test_sft_is_beta_times_nll_for_responses_of_any_length():
    logps = jnp.array([-150.0, -400.0, -2000.0])
    np.testing.assert_allclose(generation.sft(logps, 0.1), 0.1 * generation.nll(logps), rtol=1e-6)


def test_gradients():
    np.testing.assert_allclose(
        jax.grad(generation.sft)(CHOSEN, 0.1), -0.1 / (1 + np.exp(-2.0)), rtol=1e-6
    )
    np.testing.assert_allclose(
        jax.grad(generation.dpo_reference_free)(CHOSEN, REJECTED, 0.1),
        -0.1 / (1 + np.exp(0.4)),
        rtol=1e-6,
    )
    chosen, rejected, ref_chosen, ref_rejected = jax.grad(generation.dpo, (0, 1, 2, 3))(
        CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED, 0.1
    )
    np.testing.assert_allclose(
        [chosen, rejected, ref_chosen, ref_rejected],
        np.array([-1, 1, 1, -1]) * 0.1 / (1 + np.exp(0.2)),
        rtol=1e-6,
    )


def test_extreme_log_probs_give_finite_values_and_gradients():
    logps = jnp.array([-1e5, -1e-6, 0.0])
    for loss in (
        lambda x: generation.sft(x, 0.1),
        generation.nll,
        lambda x: generation.dpo_reference_free(x, logps[::-1], 0.1),
    ):
        assert np.isfinite(loss(logps)).all()
        assert np.isfinite(jax.grad(lambda x, loss=loss: loss(x).sum())(logps)).all()


def test_low_precision_is_raised_to_float32():
    assert generation.sft(jnp.array([-20.0], jnp.bfloat16), 0.1).dtype == jnp.float32
    with pytest.raises(ValueError, match="differ"):
        generation.dpo_reference_free(jnp.zeros(3), jnp.zeros(1), 0.1)
