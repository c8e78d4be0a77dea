"""The losses on pairs of rewards against hand-computed values, gradients and identities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrm.losses import preference

finite = st.floats(-1000, 1000, width=32)

PAIRWISE = {
    "bradley_terry": preference.bradley_terry,
    "label_smoothed": functools.partial(preference.label_smoothed, smoothing=0.1),
    "hinge": preference.hinge,
    "margin_mse": preference.margin_mse,
    "focal": preference.focal,
    "focal_penalty": preference.focal_penalty,
    "scaled": functools.partial(preference.scaled, magnitude=2.0),
    "tempered": functools.partial(preference.tempered, temperature=2.0),
    "normalized": preference.normalized,
    "cross_entropy": preference.cross_entropy,
    "eurus": preference.eurus,
    "prior_constrained": functools.partial(preference.prior_constrained, target=3.0),
}
every_loss = pytest.mark.parametrize("loss", PAIRWISE.values(), ids=PAIRWISE.keys())


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


@every_loss
def test_losses_and_gradients_stay_finite(loss):
    corners = np.array([-1000, -88.8, -17, -1, -1e-20, 0, 1e-30, 0.5, 17, 88.8, 1000], np.float32)
    chosen, rejected = (each.ravel() for each in np.meshgrid(corners, corners))
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1))))(chosen, rejected)
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert np.isfinite(gradients).all()


@every_loss
def test_gradients_are_those_of_finite_differences(loss):
    pairs = np.float32([0.3, -1.7, 2.0, 0.4]), np.float32([-0.2, 0.9, 1.8, 4.1])
    gradients = jax.vmap(jax.grad(loss, (0, 1)))(*pairs)
    for gradient, step in zip(gradients, ((1e-2, 0.0), (0.0, 1e-2)), strict=True):
        ahead = loss(pairs[0] + step[0], pairs[1] + step[1])
        behind = loss(pairs[0] - step[0], pairs[1] - step[1])
        np.testing.assert_allclose(gradient, (ahead - behind) / 2e-2, rtol=5e-3, atol=5e-4)


@every_loss
def test_jit_and_vmap_change_nothing(loss):
    chosen = jnp.array([[0.0, 1.0, -3.0], [40.0, 0.2, -1000.0]])
    rejected = jnp.array([[0.0, 2.0, 1.0], [-40.0, 0.1, 1000.0]])
    expected = loss(chosen, rejected)
    assert expected.shape == (2, 3)
    np.testing.assert_allclose(jax.jit(loss)(chosen, rejected), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(loss)(chosen, rejected), expected, rtol=1e-6)


@every_loss
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_rewards_are_read_as_float32(loss, dtype):
    chosen, rejected = jnp.array([256.0, 1.0], dtype), jnp.array([255.0, -2.0], dtype)
    value = loss(chosen, rejected)
    assert value.dtype == jnp.float32
    exact = loss(chosen.astype(jnp.float32), rejected.astype(jnp.float32))
    np.testing.assert_array_equal(value, exact)


@every_loss
def test_shapes_must_agree(loss):
    with pytest.raises(ValueError, match="differ"):
        loss(jnp.zeros(3), jnp.zeros((3, 1)))


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


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (preference.focal(1.0, 0.0), 0.022658),
        (preference.focal_penalty(1.0, 0.0), 0.090632),
        (preference.hinge(0.25, 0.0), 0.75),
        (preference.hinge(0.25, 0.0, margin=3.0), 2.75),
        (preference.hinge(2.0, 0.0), 0.0),
        (preference.margin_mse(3.0, 0.0), 4.0),
        (preference.margin_mse(3.0, 0.0, margin=5.0), 4.0),
        (preference.scaled(1.0, 0.0, 2.0), 0.626523),
        (preference.tempered(2.0, 0.0, 2.0), 0.313262),
        (preference.cross_entropy(1.0, 0.0), 1.006409),
        (preference.normalized(3.0, 4.0), 0.798139),
        (preference.eurus(1.0, -1.0), 0.753451),
        (preference.prior_constrained(1.0, 0.0, 11.976048), 0.313279),
        (preference.prior_constrained(11.976048 / 2, 0.0, 11.976048), 0.005011),
    ],
)
def test_hand_values(loss, expected):
    np.testing.assert_allclose(loss, expected, atol=1e-6, rtol=1e-6)


def test_the_second_printed_form_is_bradley_terry():
    chosen, rejected = jnp.array([0.0, 1.0, -3.0]), jnp.array([0.5, 0.0, 2.0])
    np.testing.assert_allclose(
        preference.bradley_terry(chosen, rejected),
        jnp.log(1 + jnp.exp(rejected - chosen)),
        rtol=1e-6,
    )


def test_a_hinge_is_content_from_its_margin_on():
    gradient = jax.vmap(jax.grad(preference.hinge), (0, None))(jnp.array([0.99, 1.0, 7.0]), 0.0)
    np.testing.assert_array_equal(gradient, [-1.0, 0.0, 0.0])


def test_a_margin_beyond_the_target_is_pulled_back():
    assert jax.grad(preference.margin_mse)(3.0, 0.0) == 4.0
    assert jax.grad(preference.margin_mse)(0.5, 0.0) == -1.0


@pytest.mark.parametrize("loss", [preference.focal, preference.focal_penalty])
def test_gamma_zero_is_bradley_terry_and_gamma_may_be_traced(loss):
    chosen, rejected = jnp.array([0.0, 1.0, -3.0, 1000.0, -1000.0]), jnp.zeros(5)
    np.testing.assert_allclose(
        jax.jit(loss)(chosen, rejected, 0.0),
        preference.bradley_terry(chosen, rejected),
        rtol=1e-6,
    )
    for gamma in (0.0, 0.5, 2.0):
        slopes = jax.vmap(jax.grad(loss, (0, 1, 2)), (0, 0, None))(chosen, rejected, gamma)
        assert np.isfinite(slopes).all()


def test_focal_forgets_the_ordered_pairs_and_keeps_the_others():
    slope = jax.vmap(jax.grad(preference.focal), (0, None))(jnp.array([5.0, -5.0]), 0.0)
    probability = 1 / (1 + np.exp(5.0))
    # weight p^2 of nls, by the product rule: -2 p^2 (1 - p) nls - p^3.
    nls = np.log1p(np.exp(-5.0))
    expected = -2 * probability**2 * (1 - probability) * nls - probability**3
    np.testing.assert_allclose(slope[0], expected, rtol=1e-4)
    assert -1.2 < slope[1] < -0.9


def test_the_focal_penalty_spares_pairs_in_the_wrong_order():
    chosen = jnp.array([0.0, -0.1, -3.0, -1000.0])
    both = jax.vmap(jax.value_and_grad(preference.focal_penalty), (0, None))(chosen, 0.0)
    plain = jax.vmap(jax.value_and_grad(preference.bradley_terry), (0, None))(chosen, 0.0)
    np.testing.assert_array_equal(both[0], plain[0])
    np.testing.assert_array_equal(both[1], plain[1])
    assert preference.focal_penalty(0.1, 0.0) < preference.bradley_terry(0.1, 0.0)


@given(st.lists(finite, min_size=8, max_size=8), st.floats(0, 4, width=32))
def test_focal_is_below_its_penalty_form_and_that_below_bradley_terry(differences, gamma):
    differences, zeros = jnp.array(differences), jnp.zeros(8)
    focal = preference.focal(differences, zeros, gamma)
    penalty = preference.focal_penalty(differences, zeros, gamma)
    assert (focal <= penalty * (1 + 1e-5)).all()
    assert (penalty <= preference.bradley_terry(differences, zeros) * (1 + 1e-5)).all()


def test_a_magnitude_is_a_weight_where_a_margin_is_a_shift():
    differences, magnitude = jnp.array([-2.0, 0.0, 1.0, 6.0]), jnp.array([1.0, 2.0, 3.0, 3.0])

    def slopes(loss):
        return jax.vmap(jax.grad(loss), (0, None, 0))(differences, 0.0, magnitude)

    plain = jax.vmap(jax.grad(preference.bradley_terry), (0, None))(differences, 0.0)
    np.testing.assert_allclose(slopes(preference.scaled), magnitude * plain, rtol=1e-6)
    np.testing.assert_allclose(
        slopes(preference.bradley_terry), -jax.nn.sigmoid(magnitude - differences), rtol=1e-5
    )


def test_temperature_is_the_unit_of_rewards():
    chosen, rejected = jnp.array([0.0, 1.0, -3.0]), jnp.array([0.5, 0.0, 2.0])
    np.testing.assert_allclose(
        preference.tempered(4 * chosen, 4 * rejected, 4.0),
        preference.bradley_terry(chosen, rejected),
        rtol=1e-6,
    )


def test_numbers_per_pair_fit_the_pairs():
    per_row = preference.scaled(jnp.zeros((3, 2)), jnp.zeros((3, 2)), jnp.ones((3, 1)))
    assert per_row.shape == (3, 2)
    for loss in (preference.scaled, preference.hinge, preference.prior_constrained):
        with pytest.raises(ValueError, match="broadcast"):
            loss(jnp.zeros(3), jnp.zeros(3), jnp.ones((3, 1)))


def test_normalized_knows_no_scale_and_two_bounds():
    chosen, rejected = jnp.array([3.0, 1.0, -2.0]), jnp.array([4.0, -1.0, 2.0])
    loss = preference.normalized(chosen, rejected)
    np.testing.assert_allclose(preference.normalized(7 * chosen, 7 * rejected), loss, rtol=1e-6)
    np.testing.assert_allclose(loss[1:], [0.217622, 1.631835], atol=1e-6)


def test_normalized_is_defined_at_zero_rewards():
    value, gradients = jax.value_and_grad(preference.normalized, (0, 1))(0.0, 0.0)
    np.testing.assert_allclose(value, 0.693147, atol=1e-6)
    np.testing.assert_allclose(gradients, (-500.0, 500.0), rtol=1e-6)
    softer = jax.grad(functools.partial(preference.normalized, epsilon=0.1))(0.0, 0.0)
    np.testing.assert_allclose(softer, -5.0, rtol=1e-6)


def test_absolute_labels_fix_the_level():
    chosen, rejected = jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0])
    both = preference.bradley_terry(chosen, rejected) + preference.cross_entropy(chosen, rejected)
    np.testing.assert_allclose(preference.eurus(chosen, rejected), both, rtol=1e-6)
    for loss in (preference.cross_entropy, preference.eurus):
        assert (loss(chosen + 9, rejected + 9) > loss(chosen, rejected)).all()


def test_a_prior_is_met_at_half_its_target():
    target = jnp.array([0.0, 0.5, 3.0, 11.976048, 6000.0])
    slope = jax.vmap(jax.grad(preference.prior_constrained), (0, None, 0))
    np.testing.assert_allclose(slope(target / 2, 0.0, target), np.zeros(5), atol=1e-6)
    assert (slope(target / 2 - 1, 0.0, target)[:4] < 0).all()
    assert (slope(target / 2 + 1, 0.0, target)[:4] > 0).all()


def test_the_prior_is_a_constant():
    assert jax.grad(preference.prior_constrained, 2)(1.0, 0.0, 3.0) == 0

    def through(embedding):
        return preference.cosine_prior(embedding, jnp.array([1.0, 0.0])).sum()

    for embedding in (jnp.array([1.0, 0.0]), jnp.zeros(2), jnp.array([3.0, 4.0])):
        np.testing.assert_array_equal(jax.grad(through)(embedding), 0.0)


def test_length_prior():
    prior = preference.length_prior(jnp.array([5, 10, 7, 0, 0]), jnp.array([10, 5, 7, 0, 4]))
    np.testing.assert_allclose(prior, [11.976048, 11.976048, 5.994006, 5.994006, 6000], rtol=1e-6)
    np.testing.assert_allclose(preference.length_prior(8, 8, 10, 0.001, -5), 4.990010, rtol=1e-6)


def test_a_prior_never_asks_for_the_wrong_order():
    assert preference.length_prior(8, 8, 20, 0.001, -25) == 0
    assert preference.length_prior(8, 10, 20, 0.001, -25) == 0
    assert preference.length_prior(4, 8, 20, 0.001, -25) > 0


def test_cosine_prior():
    east, north_east = jnp.array([2.0, 0.0]), jnp.array([0.5, 0.75**0.5])
    similarity = functools.partial(preference.cosine_prior, beta1=1.0, beta2=1e-9, beta3=0.0)
    np.testing.assert_allclose(similarity(east, north_east), 1 / 0.666667, rtol=1e-6)
    np.testing.assert_allclose(similarity(east, jnp.array([0.0, 7.0])), 2.0, rtol=1e-6)
    np.testing.assert_allclose(similarity(east, -east), 2.0, rtol=1e-6)
    np.testing.assert_allclose(preference.cosine_prior(east, east), 30 / 1.001 - 25, rtol=1e-5)


def test_cosine_prior_of_equal_and_of_zero_embeddings():
    rows = jax.random.normal(jax.random.key(0), (50, 64)) * 1000
    similarity = jax.jit(
        functools.partial(preference.cosine_prior, beta1=1.0, beta2=0.0, beta3=0.0)
    )
    np.testing.assert_array_equal(similarity(rows, rows), np.ones(50))
    zeros = jnp.zeros((50, 64))
    np.testing.assert_array_equal(similarity(zeros, zeros), np.ones(50))
    np.testing.assert_allclose(similarity(zeros, rows), np.full(50, 2.0), rtol=1e-6)


@pytest.mark.parametrize("prior", [preference.length_prior, preference.cosine_prior])
def test_priors_want_two_of_a_kind_and_jit_and_vmap(prior):
    with pytest.raises(ValueError, match="differ"):
        prior(jnp.ones((3, 2)), jnp.ones((3, 1)))
    first, second = jnp.array([[1.0, 3.0], [9.0, 2.0]]), jnp.array([[2.0, 1.0], [9.0, 2.0]])
    expected = prior(first.astype(jnp.bfloat16), second.astype(jnp.bfloat16))
    assert expected.dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(prior)(first, second), expected, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(prior)(first, second), expected, rtol=1e-6)


def test_positive_regularization_by_hand():
    chosen, rejected = jnp.array([1.0, -1.0]), jnp.array([0.0, 0.0])
    # Mean of .313262 and 1.313262, and a tenth of nls(0).
    loss = preference.positive_regularized(chosen, rejected, jnp.ones(2), 0.1)
    np.testing.assert_allclose(loss, 0.813262 + 0.0693147, atol=1e-6)
    weighted = preference.positive_regularized(chosen, rejected, jnp.array([3.0, 1.0]), 0.1)
    # Three quarters of the first; the mean chosen reward is 1/2, nls(1/2) = .474077.
    np.testing.assert_allclose(weighted, 0.563262 + 0.0474077, atol=1e-6)


def test_positive_regularization_is_a_statistic_of_the_batch():
    chosen, rejected, one = jnp.array([4.0, -4.0]), jnp.zeros(2), jnp.ones(1)
    whole = preference.positive_regularized(chosen, rejected, jnp.ones(2), 1.0)
    parts = [
        preference.positive_regularized(chosen[i : i + 1], rejected[:1], one, 1.0) for i in (0, 1)
    ]
    assert abs(whole - sum(parts) / 2) > 1.0


positive_step = jax.jit(jax.value_and_grad(preference.positive_regularized, (0, 1, 2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1000.0])
def test_positive_regularization_ignores_weight_zero(bad):
    chosen, rejected = np.float32([1, bad, 0.5]), np.float32([0, bad, 2])
    value, gradients = positive_step(chosen, rejected, np.float32([1, 0, 1]), 0.1)
    kept, kept_gradients = positive_step(chosen[::2], rejected[::2], np.ones(2, np.float32), 0.1)
    np.testing.assert_allclose(value, kept, rtol=1e-6)
    for gradient, expected in zip(gradients, kept_gradients, strict=True):
        np.testing.assert_allclose(gradient, np.insert(expected, 1, 0), rtol=1e-6)
    value, gradients = positive_step(chosen, rejected, np.zeros(3, np.float32), 0.1)
    assert value == 0
    np.testing.assert_array_equal(gradients, np.zeros((3, 3)))


def test_positive_regularization_wants_one_weight_per_pair():
    with pytest.raises(ValueError, match="weights"):
        preference.positive_regularized(jnp.zeros(3), jnp.zeros(3), jnp.ones(()), 0.1)
    with pytest.raises(ValueError, match="rejected"):
        preference.positive_regularized(jnp.zeros(3), jnp.zeros(2), jnp.ones(3), 0.1)
