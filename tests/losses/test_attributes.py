"""Losses on grades against hand-computed values, gradients, minimisers and identities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.losses import attributes

HIDDEN = [np.nan, np.inf, -np.inf]
"""What may stand behind a false mask."""


def losses():
    """Each loss as a function of (outputs, labels, mask) of one shape, by name."""
    return {
        "regression": attributes.regression,
        "nll, mean": lambda x, y, m: attributes.gaussian_nll(x, jnp.zeros_like(x), y, m),
        "nll, deviation": lambda x, y, m: attributes.gaussian_nll(jnp.zeros_like(x), x, y, m),
        "sampled, mean": lambda x, y, m: attributes.sampled_regression(
            x, jnp.zeros_like(x), y, m, jnp.ones_like(x)
        ),
        "sampled, deviation": lambda x, y, m: attributes.sampled_regression(
            jnp.zeros_like(x), x, y, m, jnp.ones_like(x)
        ),
        "quantile": lambda x, y, m: attributes.quantile(
            jnp.stack([x, x], axis=-1), y, m, levels=(0.25, 0.75)
        ),
    }


@pytest.fixture(params=losses(), ids=str)
def loss(request):
    return losses()[request.param]


def test_regression_is_the_squared_error_of_what_is_labelled():
    outputs, labels = jnp.array([[1.0, 2.0, 3.0]]), jnp.array([[0.5, np.nan, 5.0]])
    mask = jnp.array([[True, False, True]])
    np.testing.assert_allclose(attributes.regression(outputs, labels, mask), [[0.25, 0.0, 4.0]])
    gradient = jax.grad(lambda x: attributes.regression(x, labels, mask).sum())(outputs)
    np.testing.assert_allclose(gradient, [[1.0, 0.0, -4.0]])


@pytest.mark.parametrize(
    ("mean", "log_deviation", "label", "expected"),
    [
        (0.0, 0.0, 0.0, 0.918939),  # log(2 pi) / 2
        (0.0, 0.0, 2.0, 2.918939),  # and 2^2 / 2
        (1.0, np.log(2.0), 3.0, 2.112086),  # log 2 + log(2 pi) / 2 + 1 / 2
    ],
)
def test_gaussian_nll_by_hand(mean, log_deviation, label, expected):
    value = attributes.gaussian_nll(
        jnp.float32(mean), jnp.float32(log_deviation), jnp.float32(label), jnp.array(True)
    )
    np.testing.assert_allclose(value, expected, atol=1e-6)


def test_the_likeliest_deviation_is_the_distance_and_that_of_samples_is_none():
    distance, mask = jnp.float32(3.0), jnp.array(True)
    of_nll = jax.grad(lambda s: attributes.gaussian_nll(jnp.float32(0), s, distance, mask))
    np.testing.assert_allclose(of_nll(jnp.log(distance)), 0.0, atol=1e-6)
    assert of_nll(jnp.float32(0.9)) < 0 < of_nll(jnp.float32(1.3))
    # Of the samples mean +- deviation the mean loss is distance^2 + deviation^2.
    for log_deviation in (-1.0, 0.0, 1.0):
        log_deviations = jnp.full(2, log_deviation)
        args = jnp.zeros(2), log_deviations, jnp.full(2, distance), jnp.ones(2, bool)
        sampled = attributes.sampled_regression(*args, noise=jnp.array([1.0, -1.0]))
        np.testing.assert_allclose(sampled.mean(), 9 + np.exp(2 * log_deviation), rtol=1e-6)


def test_sampling_without_noise_is_regression():
    mean, labels = jnp.array([0.5, -2.0]), jnp.array([1.0, 1.0])
    mask = jnp.array([True, False])
    sampled = attributes.sampled_regression(mean, jnp.ones(2), labels, mask, jnp.zeros(2))
    np.testing.assert_array_equal(sampled, attributes.regression(mean, labels, mask))


@pytest.mark.parametrize(("short", "expected"), [(1.0, 0.9), (-1.0, 0.1), (0.0, 0.0)])
def test_the_pinball_loss_by_hand(short, expected):
    value = attributes.quantile(
        jnp.zeros((1, 1)), jnp.array([short]), jnp.array([True]), levels=(0.9,)
    )
    np.testing.assert_allclose(value, [expected], atol=1e-7)


def test_the_best_constants_are_the_quantiles_of_the_labels():
    """Of 0 .. 10 the quantiles of levels .25 and .9 are 2 and 9: no other point is as good."""
    labels = jnp.arange(11.0)
    places = jnp.arange(0, 10.5, 0.5)

    def of_constant(place, level):
        outputs = jnp.full((11, 1), place)
        return attributes.quantile(outputs, labels, jnp.ones(11, bool), (level,)).mean()

    for level, expected in ((0.25, 2.0), (0.9, 9.0)):
        values = jax.vmap(lambda place, level=level: of_constant(place, level))(places)
        assert places[jnp.argmin(values)] == expected


def test_nineteen_levels_are_those_of_the_paper():
    np.testing.assert_allclose(attributes.LEVELS, np.linspace(0, 1, 21)[1:-1], atol=1e-12)
    outputs = jnp.broadcast_to(jnp.asarray(attributes.LEVELS), (3, 2, 19))
    labels = jnp.full((3, 2), 0.5)
    # sum of |.5 - t| times t below .5 and 1 - t above, over 19
    below = [(0.5 - t) * t for t in attributes.LEVELS if t < 0.5]
    expected = 2 * sum(below) / 19
    found = attributes.quantile(outputs, labels, jnp.ones((3, 2), bool))
    np.testing.assert_allclose(found, np.full((3, 2), expected), rtol=1e-5)


@pytest.mark.parametrize("hidden", HIDDEN)
def test_what_is_masked_has_neither_value_nor_gradient(loss, hidden):
    x, y = jnp.array([0.5, hidden, 0.5]), jnp.array([1.0, hidden, hidden])
    mask = jnp.array([True, False, False])
    values, gradient = loss(x, y, mask), jax.grad(lambda x: loss(x, y, mask).sum())(x)
    assert values[0] > 0
    assert gradient[0] != 0
    np.testing.assert_array_equal(values[1:], 0.0)
    np.testing.assert_array_equal(gradient[1:], 0.0)


def test_gradients_agree_with_finite_differences(loss):
    y, mask = jnp.array([0.3, -1.0]), jnp.array([True, True])

    def total(x):
        return loss(jnp.asarray(x, jnp.float32), y, mask).sum()

    x = np.array([1.1, 0.4])
    gradient = jax.grad(total)(jnp.asarray(x, jnp.float32))
    for i, step in enumerate(1e-2 * np.eye(2)):
        slope = (total(x + step) - total(x - step)) / 2e-2
        np.testing.assert_allclose(gradient[i], slope, rtol=1e-2)


@pytest.mark.parametrize("extreme", [1000.0, -1000.0])
def test_extreme_outputs_give_finite_values_and_gradients(loss, extreme):
    x, y, mask = jnp.array([extreme]), jnp.array([-extreme]), jnp.array([True])
    assert np.isfinite(loss(x, y, mask)).all()
    assert np.isfinite(jax.grad(lambda x: loss(x, y, mask).sum())(x)).all()


def test_low_precision_is_compared_in_float32(loss):
    x, y = jnp.array([256.0], jnp.bfloat16), jnp.array([255.0], jnp.bfloat16)
    values = loss(x, y, jnp.array([True]))
    assert values.dtype == jnp.float32
    wide = loss(x.astype(jnp.float32), y.astype(jnp.float32), jnp.array([True]))
    np.testing.assert_array_equal(values, wide)


def test_jit_and_vmap_change_nothing(loss):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4, 3)).astype(np.float32)
    mask = rng.random((4, 3)) < 0.7
    plain = loss(jnp.asarray(x), jnp.asarray(y), jnp.asarray(mask))
    np.testing.assert_allclose(jax.jit(loss)(x, y, mask), plain, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(loss)(x, y, mask), plain, rtol=1e-6)


def test_shapes_must_agree():
    two, three = jnp.zeros(2), jnp.zeros(3)
    with pytest.raises(ValueError, match="differ"):
        attributes.regression(two, three, jnp.ones(3, bool))
    with pytest.raises(ValueError, match="differ"):
        attributes.gaussian_nll(two, three, two, jnp.ones(2, bool))
    with pytest.raises(ValueError, match="levels"):
        attributes.quantile(jnp.zeros((2, 3)), two, jnp.ones(2, bool), (0.1, 0.9))
