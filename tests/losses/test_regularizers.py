"""Regularisers against hand-computed values, gradients, identities and a mesh of eight devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrm import parallel
from jaxrm.losses import preference, regularizers
from jaxrm.parallel import MeshShape

finite = st.floats(-1000, 1000, width=32)
lengths = jnp.array([3, 10, 4, 25, 8, 8], jnp.int32)
everyone = np.ones(6, bool)


def correlation_with_lengths(rewards, mask):
    return regularizers.length_correlation(rewards, lengths, mask)


BATCH_TERMS = {
    "sum_to_zero": regularizers.sum_to_zero,
    "length_correlation": correlation_with_lengths,
}
STEPS = {term: jax.jit(jax.value_and_grad(term)) for term in BATCH_TERMS.values()}
every_batch_term = pytest.mark.parametrize("term", BATCH_TERMS.values(), ids=BATCH_TERMS.keys())


def test_the_published_example():
    chosen, rejected = jnp.array([1.0, 2.0]), jnp.array([0.0, -1.0])
    squared_mean = regularizers.sum_to_zero(jnp.stack([chosen, rejected]), np.ones((2, 2), bool))
    assert squared_mean == 0.25
    np.testing.assert_array_equal(regularizers.centering(chosen, rejected), [1.0, 1.0])
    np.testing.assert_array_equal(regularizers.score_l2(rejected), [0.0, 1.0])
    # The authors' coefficient 1e-3 is multiplied by their batch of two pairs.
    total = preference.bradley_terry(chosen, rejected).mean() + 2e-3 * squared_mean
    np.testing.assert_allclose(total, 0.181425, atol=1e-6)


def test_only_the_level_moves_sum_to_zero():
    rewards = jnp.array([1.0, 0.0, 2.0, -1.0])
    for shift in (-0.5, 3.0):
        moved = regularizers.sum_to_zero(rewards + shift, np.ones(4, bool))
        np.testing.assert_allclose(moved, (0.5 + shift) ** 2, atol=1e-6)
    spread = regularizers.sum_to_zero(10 * (rewards - 0.5) + 0.5, np.ones(4, bool))
    np.testing.assert_allclose(spread, 0.25, rtol=1e-6)


def test_every_response_is_pulled_alike_by_sum_to_zero():
    gradient = jax.grad(regularizers.sum_to_zero)(
        jnp.array([1.0, 0.0, 2.0, -1.0]), np.ones(4, bool)
    )
    np.testing.assert_allclose(gradient, np.full(4, 2 * 0.5 / 4))


def test_batch_terms_are_not_the_mean_of_their_parts():
    rewards, whole = jnp.array([1.0, 1.0, 1.0, -1.0, -1.0, -1.0]), everyone
    halves = [regularizers.sum_to_zero(rewards, np.arange(6) // 3 == half) for half in (0, 1)]
    assert regularizers.sum_to_zero(rewards, whole) == 0
    np.testing.assert_allclose(halves, [1.0, 1.0])
    np.testing.assert_allclose(
        [correlation_with_lengths(rewards, np.arange(6) // 3 == half) for half in (0, 1)], 0.0
    )
    assert abs(correlation_with_lengths(rewards, whole)) > 0.5


@every_batch_term
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1000.0])
def test_masked_responses_count_for_nothing(term, bad):
    rewards = np.float32([1.0, bad, 0.5, -2.0, bad, 3.0])
    mask = np.array([1, 0, 1, 1, 0, 1], bool)
    value, gradient = STEPS[term](rewards, mask)
    expected, expected_gradient = STEPS[term](np.where(mask, rewards, np.float32(7)), mask)
    assert np.isfinite(value)
    assert np.abs(gradient).max() > 0
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(gradient, expected_gradient)
    np.testing.assert_array_equal(gradient[~mask], 0.0)


@every_batch_term
@pytest.mark.parametrize("bad", [np.nan, 5.0])
def test_without_any_response_batch_terms_are_zero(term, bad):
    value, gradient = STEPS[term](np.full(6, bad, np.float32), ~everyone)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros(6))


@every_batch_term
def test_batch_terms_under_jit_and_vmap(term):
    rewards = jax.random.normal(jax.random.key(1), (3, 6)).astype(jnp.bfloat16)
    masks = np.array([[1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 1, 1], [0, 0, 0, 0, 0, 0]], bool)
    expected = [
        term(row.astype(jnp.float32), mask) for row, mask in zip(rewards, masks, strict=True)
    ]
    many = jax.jit(jax.vmap(term))(rewards, masks)
    assert many.dtype == jnp.float32
    np.testing.assert_allclose(many, expected, rtol=1e-5, atol=1e-7)


@every_batch_term
def test_gradients_of_batch_terms_are_those_of_finite_differences(term):
    rewards, mask = jnp.array([1.0, 0.3, 0.5, -2.0, 1.5, 3.0]), np.array([1, 1, 0, 1, 1, 1], bool)
    steps = 1e-2 * jnp.eye(6)
    both = jax.jit(jax.vmap(term, (0, None)))
    slopes = (both(rewards + steps, mask) - both(rewards - steps, mask)) / 2e-2
    np.testing.assert_allclose(STEPS[term](rewards, mask)[1], slopes, atol=2e-4)


def correlation_with_longer_rows(rewards, mask):
    row = jnp.arange(16)[:, None]
    return regularizers.length_correlation(rewards, row * jnp.ones((1, 6)), mask)


@pytest.mark.parametrize("term", [regularizers.sum_to_zero, correlation_with_longer_rows])
def test_rows_over_eight_devices_give_the_statistic_of_all(term):
    mesh = parallel.make_mesh(MeshShape(4, 2, 1))
    rows = np.arange(16)[:, None]
    rewards = (np.random.default_rng(0).normal(0.2 * rows, 1.0, (16, 6))).astype(np.float32)
    # Devices hold unequal numbers of responses: the mean of their own means is another number.
    mask = np.random.default_rng(1).random((16, 6)) < (rows + 2) / 18
    step = jax.jit(jax.value_and_grad(term))
    one, one_gradient = step(rewards, mask)
    spread = parallel.shard_rows({"rewards": rewards, "mask": mask}, mesh)
    assert spread["rewards"].sharding.shard_shape((16, 6)) == (2, 6)
    with jax.set_mesh(mesh):
        eight, eight_gradient = step(spread["rewards"], spread["mask"])
    np.testing.assert_allclose(eight, one, rtol=1e-6)
    np.testing.assert_allclose(eight_gradient, one_gradient, rtol=1e-5, atol=1e-8)
    by_device = [term(rewards, mask & (rows // 2 == device)) for device in range(8)]
    assert abs(np.mean(by_device) - one) > 0.05


def test_length_correlation_is_pearsons():
    rewards = jnp.array([1.0, 0.3, 0.5, -2.0, 1.5, 3.0])
    expected = np.corrcoef(rewards, lengths)[0, 1]
    np.testing.assert_allclose(correlation_with_lengths(rewards, everyone), expected, rtol=1e-5)
    # Eighths beside a million are exact in float32, and so is the correlation.
    eighths = jnp.round(rewards * 8) / 8
    np.testing.assert_allclose(
        correlation_with_lengths(eighths + 2.0**20, everyone),
        correlation_with_lengths(eighths, everyone),
        rtol=1e-6,
    )
    three, long = jnp.array([1.0, 2.0, 4.0]), jnp.array([100, 200, 300])
    # Deviations (-4/3, -1/3, 5/3) and (-1, 0, 1): 3 / sqrt(14/3 * 2).
    np.testing.assert_allclose(
        regularizers.length_correlation(three, long, np.ones(3, bool)), 0.981981, atol=1e-6
    )


@given(st.lists(finite, min_size=6, max_size=6), st.integers(0, 63))
def test_length_correlation_is_always_a_correlation(rewards, bits):
    mask = np.array([bits >> i & 1 for i in range(6)], bool)
    value, gradient = STEPS[correlation_with_lengths](np.float32(rewards), mask)
    assert abs(value) <= 1 + 1e-5
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("reward", [0.0, 0.1, -1000.0, 1e-30])
def test_equal_rewards_correlate_with_nothing(reward):
    # A mean of equal floats can differ from each of them in the last digit: that is no variance.
    rewards = np.full(6, reward, np.float32)
    value, gradient = STEPS[correlation_with_lengths](rewards, everyone)
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros(6))


def test_rewards_correlate_with_nothing_where_all_lengths_are_equal():
    value, gradient = jax.value_and_grad(regularizers.length_correlation)(
        np.arange(6, dtype=np.float32), np.full(6, 7), everyone
    )
    assert value == 0
    np.testing.assert_array_equal(gradient, np.zeros(6))


def test_batch_terms_want_one_mask_per_reward():
    for term in (regularizers.sum_to_zero, correlation_with_lengths):
        with pytest.raises(ValueError, match="mask"):
            term(jnp.zeros(6), np.ones((6, 1), bool))
    with pytest.raises(ValueError, match="lengths"):
        regularizers.length_correlation(jnp.zeros(5), lengths, np.ones(5, bool))


PAIRS = jnp.array([1.0, -3.0, 1000.0, -1000.0]), jnp.array([1.0, 4.0, -1000.0, 1000.0])


@pytest.mark.parametrize("loss", [regularizers.centering, regularizers.neutral])
def test_pair_regularizers(loss):
    first, second = PAIRS
    expected = loss(first, second)
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(loss(second, first), expected)
    np.testing.assert_array_equal(jax.jit(loss)(first, second), expected)
    np.testing.assert_array_equal(jax.vmap(loss)(first, second), expected)
    assert loss(first.astype(jnp.bfloat16), second).dtype == jnp.float32
    slopes = jax.vmap(jax.grad(loss, (0, 1)))(first, second)
    assert np.isfinite(slopes).all()
    with pytest.raises(ValueError, match="differ"):
        loss(jnp.zeros(3), jnp.zeros((3, 1)))


def test_centering_and_score_l2_by_hand():
    first, second = PAIRS
    np.testing.assert_array_equal(regularizers.centering(first, second), [4.0, 1.0, 0.0, 0.0])
    assert jax.grad(regularizers.centering)(-3.0, 4.0) == 2.0
    np.testing.assert_array_equal(regularizers.score_l2(first), [1.0, 9.0, 1e6, 1e6])
    assert jax.grad(regularizers.score_l2)(-3.0) == -6.0
    low = regularizers.score_l2(jnp.bfloat16(1.0078125))
    assert low == 1.0078125**2  # squared in bfloat16 it would round


def test_neutral_is_least_at_a_tie():
    np.testing.assert_allclose(regularizers.neutral(5.0, 5.0), 0.693147, atol=1e-6)
    np.testing.assert_allclose(regularizers.neutral(1.0, 0.0), 0.813262, atol=1e-6)
    assert jax.grad(regularizers.neutral)(5.0, 5.0) == 0
    # Half of sigmoid(d) - sigmoid(-d).
    np.testing.assert_allclose(jax.grad(regularizers.neutral)(1.0, 0.0), 0.231059, atol=1e-6)
    first, second = PAIRS
    np.testing.assert_allclose(
        regularizers.neutral(first, second),
        preference.label_smoothed(first, second, 0.5),
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("mean", "log_variance", "expected"),
    [(0, 0, 0), (1, 0, 0.5), (0, 1, 0.359141), (0, -1, 0.183940), (2, 0.5, 2.074361)],
)
def test_the_information_bottleneck_per_dimension(mean, log_variance, expected):
    code = jnp.full((2, 7), mean), jnp.full((2, 7), log_variance)
    loss = regularizers.information_bottleneck(*code)
    np.testing.assert_allclose(loss, np.full(2, 7 * expected), rtol=1e-5, atol=1e-6)


def test_the_information_bottleneck_is_a_sum_over_dimensions_not_a_mean():
    mean, log_variance = jnp.array([[1.0, -1.0]]), jnp.array([[1.0, -1.0]])
    # Their averages are 0, where a KL after averaging would see nothing.
    expected = 0.5 + 0.5 + 0.359141 + 0.183940
    loss = regularizers.information_bottleneck(mean, log_variance)
    np.testing.assert_allclose(loss, [expected], atol=1e-6)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(regularizers.information_bottleneck))(mean, log_variance), loss, rtol=1e-6
    )
    low = regularizers.information_bottleneck(mean.astype(jnp.bfloat16), log_variance)
    assert low.dtype == jnp.float32


def test_the_information_bottlenecks_gradient():
    code = jnp.array([0.5, -2.0, 0.0]), jnp.array([0.0, 1.5, -0.7])
    towards_mean, towards_spread = jax.grad(regularizers.information_bottleneck, (0, 1))(*code)
    np.testing.assert_allclose(towards_mean, code[0])
    np.testing.assert_allclose(towards_spread, 0.5 * (np.exp(code[1]) - 1), rtol=1e-5, atol=1e-7)


@given(finite, finite)
def test_the_information_bottleneck_stays_finite_and_keeps_its_direction(mean, log_variance):
    value, gradient = jitted_bottleneck(jnp.full(512, mean), jnp.full(512, log_variance))
    assert np.isfinite(value)
    assert value >= 0
    assert np.isfinite(gradient).all()
    assert abs(log_variance) < 1e-6 or (gradient[1] * log_variance > 0).all()


jitted_bottleneck = jax.jit(jax.value_and_grad(regularizers.information_bottleneck, (0, 1)))


def test_the_information_bottleneck_wants_two_of_a_kind():
    with pytest.raises(ValueError, match="log_variance"):
        regularizers.information_bottleneck(jnp.zeros((2, 3)), jnp.zeros(3))


def test_orthogonality_is_the_cosine_of_two_columns():
    weights = jnp.array([[3.0, 1.0], [4.0, 0.0]])
    np.testing.assert_allclose(regularizers.orthogonality(weights), 0.6, rtol=1e-6)
    np.testing.assert_allclose(
        regularizers.orthogonality(weights * jnp.array([1.0, -100.0])), 0.6, rtol=1e-6
    )
    assert regularizers.orthogonality(jnp.eye(5, 3)) == 0
    np.testing.assert_allclose(regularizers.orthogonality(jnp.ones((4, 3))), 3.0, rtol=1e-6)
    assert regularizers.orthogonality(jnp.ones((4, 1))) == 0
    half = regularizers.orthogonality(weights.astype(jnp.bfloat16))
    assert half.dtype == jnp.float32


orthogonality_step = jax.jit(jax.value_and_grad(regularizers.orthogonality))


def test_orthogonality_turns_columns_and_leaves_their_length():
    weights = jnp.array([[3.0, 1.0], [4.0, 0.0], [0.0, -2.0]])
    value, gradient = orthogonality_step(weights)
    np.testing.assert_allclose((gradient * weights).sum(axis=0), np.zeros(2), atol=1e-6)
    assert regularizers.orthogonality(weights - 0.1 * gradient) < value


@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-12, 1000.0])
def test_orthogonality_of_a_column_of_any_size_is_defined(size):
    weights = np.stack([np.full(8, size), np.ones(8)], axis=1, dtype=np.float32)
    value, gradient = orthogonality_step(weights)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(value, 1.0 if size >= 1e-12 else 0.0, atol=1e-6)
    if size == 0:
        np.testing.assert_array_equal(gradient, np.zeros((8, 2)))
