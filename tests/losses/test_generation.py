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
    # The log-ratio difference is 4 - 2 = 2, so beta times it is 0.2.
    four = CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED
    np.testing.assert_allclose(generation.ipo(*four, 0.1), (2 - 5) ** 2, rtol=1e-6)
    np.testing.assert_allclose(generation.hinge(*four, 0.1), 0.8, rtol=1e-6)
    # -20 / 10 and -24 / 8: a nat per token, so softplus(-2) at beta 2.
    np.testing.assert_allclose(
        generation.mean_logp(CHOSEN, REJECTED, 10, 8, 2.0), 0.126928, atol=1e-6
    )
    np.testing.assert_allclose(generation.implicit_rewards(CHOSEN, REF_CHOSEN, 0.1), 0.1, rtol=1e-6)


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


def test_haf_totals():
    four = CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED
    total = preference.bradley_terry(1.0, 0.0) + 0.2 * generation.dpo(*four, 0.1)
    np.testing.assert_allclose(total, 0.432889, atol=1e-6)
    same = preference.bradley_terry(0.0, 0.0) + 0.2 * generation.dpo(-3.0, -4.0, -3.0, -4.0, 0.1)
    np.testing.assert_allclose(same, 0.831777, atol=1e-6)


def test_forms_with_a_reference_at_the_start_and_at_their_aim():
    logps = jnp.array([-3.0, -300.0]), jnp.array([-9.0, -200.0])
    np.testing.assert_allclose(generation.ipo(*logps, *logps, beta=0.1), [25.0, 25.0], rtol=1e-6)
    np.testing.assert_array_equal(generation.hinge(*logps, *logps, beta=0.1), [1.0, 1.0])
    # IPO is least at 1 / (2 beta) = 5; the hinge is satisfied from 1 / beta = 10 on.
    gains = jnp.array([4.0, 5.0, 6.0, 9.0, 11.0])
    ipo = jax.vmap(jax.grad(lambda z: generation.ipo(z, 0.0, 0.0, 0.0, 0.1)))(gains)
    np.testing.assert_allclose(ipo, [-2.0, 0.0, 2.0, 8.0, 12.0], atol=1e-5)
    hinge = jax.vmap(jax.grad(lambda z: generation.hinge(z, 0.0, 0.0, 0.0, 0.1)))(gains)
    np.testing.assert_allclose(hinge, [-0.1, -0.1, -0.1, -0.1, 0.0], rtol=1e-6)


@pytest.mark.parametrize("form", [generation.dpo, generation.ipo, generation.hinge])
def test_what_a_prompt_adds_to_policy_and_reference_alike_cancels(form):
    rng = np.random.default_rng(0)
    four = rng.normal(-40, 5, (4, 8)).astype(np.float32)
    base = form(*four, 0.1)
    np.testing.assert_allclose(form(*(four - 16), 0.1), base, rtol=1e-4)
    shifted = four + np.array([[3.0], [7.0], [3.0], [7.0]], np.float32)
    np.testing.assert_allclose(form(*shifted, 0.1), base, rtol=1e-4)


def test_dpo_is_bradley_terry_on_the_implicit_rewards():
    chosen, rejected, ref_chosen, ref_rejected = np.random.default_rng(1).normal(-40, 5, (4, 8))
    implicit = generation.implicit_rewards
    np.testing.assert_allclose(
        generation.dpo(chosen, rejected, ref_chosen, ref_rejected, 0.3),
        preference.bradley_terry(
            implicit(chosen, ref_chosen, 0.3), implicit(rejected, ref_rejected, 0.3)
        ),
        rtol=1e-4,
    )
    np.testing.assert_array_equal(implicit(chosen, chosen, 0.3), np.zeros(8))


def test_mean_logp_counts_tokens_and_takes_an_empty_response_for_one_token():
    loss = generation.mean_logp
    np.testing.assert_allclose(loss(-20.0, -24.0, 10, 8, 2.0), loss(-40.0, -48.0, 20, 16, 2.0))
    np.testing.assert_allclose(
        loss(-20.0, -24.0, 1, 1, 0.1), generation.dpo_reference_free(-20.0, -24.0, 0.1)
    )
    np.testing.assert_allclose(loss(0.0, -3.0, 0, 3, 1.0), 0.313262, atol=1e-6)
    gradient = jax.grad(loss, (0, 1))(-20.0, -24.0, 10.0, 8.0, 2.0)
    np.testing.assert_allclose(gradient, np.array([-0.2, 0.25]) / (1 + np.exp(2.0)), rtol=1e-5)


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
    lengths = jnp.array([1000.0, 1.0, 0.0])
    for loss in (
        lambda x: generation.sft(x, 0.1),
        generation.nll,
        lambda x: generation.dpo_reference_free(x, logps[::-1], 0.1),
        lambda x: generation.ipo(x, logps[::-1], logps, logps, 0.1),
        lambda x: generation.hinge(x, logps[::-1], logps, logps, 0.1),
        lambda x: generation.mean_logp(x, logps[::-1], lengths, lengths[::-1], 2.0),
        lambda x: generation.implicit_rewards(x, logps[::-1], 0.1),
    ):
        assert np.isfinite(loss(logps)).all()
        assert np.isfinite(jax.grad(lambda x, loss=loss: loss(x).sum())(logps)).all()


def test_low_precision_is_raised_to_float32():
    assert generation.sft(jnp.array([-20.0], jnp.bfloat16), 0.1).dtype == jnp.float32
    low = jnp.array([-256.0, -20.0], jnp.bfloat16), jnp.array([-255.0, -24.0], jnp.bfloat16)
    lengths = jnp.array([1, 1]), jnp.array([1, 1])
    four = *low, *low[::-1]
    raised = [x.astype(jnp.float32) for x in four]
    for form in (generation.ipo, generation.hinge):
        found = form(*four, 0.1)
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, form(*raised, 0.1))
    assert generation.mean_logp(*low, *lengths, 2.0).dtype == jnp.float32
    np.testing.assert_allclose(generation.implicit_rewards(*low, 1.0), [-1.0, 4.0])


def test_shapes_must_agree():
    three, one = jnp.zeros(3), jnp.zeros(1)
    for call in (
        lambda: generation.dpo_reference_free(three, one, 0.1),
        lambda: generation.ipo(three, three, three, one, 0.1),
        lambda: generation.hinge(three, one, three, three, 0.1),
        lambda: generation.mean_logp(three, three, three, one, 0.1),
        lambda: generation.implicit_rewards(three, one, 0.1),
    ):
        with pytest.raises(ValueError, match="differ"):
            call()


def test_jit_and_vmap_change_nothing():
    four = np.random.default_rng(2).normal(-40, 5, (4, 6)).astype(np.float32)
    for form in (generation.dpo, generation.ipo, generation.hinge, generation.mean_logp):
        expected = form(*four, 0.1)
        np.testing.assert_allclose(jax.jit(form)(*four, 0.1), expected, rtol=1e-5)
        alone = jax.vmap(form, in_axes=(0, 0, 0, 0, None))(*four, 0.1)
        np.testing.assert_allclose(alone, expected, rtol=1e-5)
