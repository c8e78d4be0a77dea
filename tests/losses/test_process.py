"""Losses on steps and scores of solutions against hand-computed values, gradients and masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.losses import process

AGGREGATES = (process.product, process.least, process.last, process.mean)
ON_STEPS = (process.step_cross_entropy, process.step_regression)
JUNK = (jnp.nan, jnp.inf)


def logps(*probabilities):
    return jnp.log(jnp.array(probabilities))


@pytest.mark.parametrize(
    ("logit", "label", "expected"),
    [
        (0.0, 1.0, 0.693147),
        (0.0, 0.3, 0.693147),
        (1.0, 1.0, 0.313262),
        (1.0, 0.0, 1.313262),
        (1.0, 0.25, 1.063262),
        (1000.0, 1.0, 0.0),
        (1000.0, 0.0, 1000.0),
        (-1000.0, 0.5, 500.0),
    ],
)
def test_step_cross_entropy_by_hand(logit, label, expected):
    def loss(z):
        return process.step_cross_entropy(z, jnp.float32(label), jnp.array(True))

    value, gradient = jax.value_and_grad(loss)(jnp.float32(logit))
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(gradient, jax.nn.sigmoid(logit) - label, atol=1e-6)


def test_two_classes_are_one_logit_and_three_are_a_softmax():
    mask, labels = jnp.ones(3, bool), jnp.array([0.0, 1.0, 1.0])
    both = jnp.array([[0.3, -0.2], [1.0, 3.0], [-900.0, 100.0]])
    np.testing.assert_allclose(
        process.step_classes(both, labels, mask),
        process.step_cross_entropy(both[:, 1] - both[:, 0], labels, mask),
        rtol=1e-6,
        atol=1e-7,
    )
    three = jnp.log(jnp.array([[0.2, 0.3, 0.5]]))
    for label, p in enumerate((0.2, 0.3, 0.5)):
        found = process.step_classes(three, jnp.array([label]), mask[:1])
        np.testing.assert_allclose(found, [-np.log(p)], rtol=1e-6)


def test_regression_is_zero_at_the_targets_and_square_beside_them():
    targets, mask = jnp.array([0.25, -1.0]), jnp.ones(2, bool)
    np.testing.assert_array_equal(process.step_regression(targets, targets, mask), [0, 0])
    np.testing.assert_array_equal(process.step_regression(targets + 2, targets, mask), [4, 4])


def test_the_outcome_is_asked_at_every_place_that_the_mask_has():
    logits = jnp.array([[1.0, 0.0, jnp.nan], [jnp.nan, jnp.nan, -1.0]])
    mask = jnp.array([[True, True, False], [False, False, True]])
    found = process.outcome(logits, jnp.array([1.0, 0.0]), mask)
    np.testing.assert_allclose(
        found, [[0.313262, 0.693147, 0.0], [0.0, 0.0, 0.313262]], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match="outcomes"):
        process.outcome(logits, jnp.array([1.0]), mask)


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("loss", ON_STEPS)
def test_what_is_masked_adds_nothing_to_a_loss(loss, junk):
    mask = jnp.array([True, False, False])
    scores, labels = jnp.array([2.0, junk, 2.0]), jnp.array([1.0, 1.0, junk])
    value, gradients = jax.value_and_grad(lambda *x: loss(*x, mask).sum(), (0, 1))(scores, labels)
    alone = loss(scores[:1], labels[:1], mask[:1])
    np.testing.assert_array_equal(value, alone[0])
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        assert (gradient[1:] == 0).all()
        assert gradient[0] != 0


@pytest.mark.parametrize("junk", JUNK)
def test_a_masked_step_has_no_class(junk):
    mask, labels = jnp.array([True, False]), jnp.array([1.0, junk])
    logits = jnp.array([[0.0, 1.0], [junk, 0.0]])
    value, gradient = jax.value_and_grad(lambda z: process.step_classes(z, labels, mask).sum())(
        logits
    )
    np.testing.assert_allclose(value, 0.313262, atol=1e-6)
    np.testing.assert_allclose(gradient, [[0.268941, -0.268941], [0, 0]], atol=1e-6)


NO_LABELS = [
    (process.step_cross_entropy, (2,), -1.0, r"in \[0, 1\], and one is -1.0"),
    (process.step_cross_entropy, (2,), 2.0, r"in \[0, 1\], and one is 2.0"),
    (process.step_cross_entropy, (2,), jnp.nan, "and one is nan"),
    (process.step_classes, (2, 3), -1.0, "a whole number from 0 to 2, and one is -1.0"),
    (process.step_classes, (2, 3), 3.0, "and one is 3.0"),
    (process.step_classes, (2, 3), 0.5, "and one is 0.5"),
    (process.outcome, (2, 1), -1.0, "and one is -1.0"),
]


@pytest.mark.parametrize(("loss", "shape", "label", "problem"), NO_LABELS)
def test_a_label_that_a_loss_does_not_take_is_refused_or_makes_the_loss_nan(
    loss, shape, label, problem
):
    logits, labels = jnp.ones(shape), jnp.array([1.0, label])
    masks = [jnp.array([True, other]) for other in (True, False)]
    every, first = (m[:, None] if loss is process.outcome else m for m in masks)
    with pytest.raises(ValueError, match=problem):
        loss(logits, labels, every)
    found = jax.jit(loss)(logits, labels, every).ravel()
    assert np.isfinite(found[0])
    assert np.isnan(found[1])
    if loss is not process.outcome:  # which knows the label of a solution, wherever it is asked
        np.testing.assert_array_equal(loss(logits, labels, first), [found[0], 0.0])
    gradient = jax.jit(jax.grad(lambda z: loss(z, labels, first).sum()))(logits)
    assert np.isfinite(gradient).all()


def test_aggregates_by_hand():
    steps, mask = logps(0.5, 0.9, 0.8), jnp.ones(3, bool)
    found = [jnp.exp(aggregate(steps, mask)) for aggregate in AGGREGATES]
    np.testing.assert_allclose(found, [0.36, 0.5, 0.8, 2.2 / 3], rtol=1e-6)
    found = [jnp.exp(aggregate(steps, jnp.array([True, True, False]))) for aggregate in AGGREGATES]
    np.testing.assert_allclose(found, [0.45, 0.5, 0.9, 0.7], rtol=1e-6)
    found = [jnp.exp(aggregate(steps, jnp.array([True, False, False]))) for aggregate in AGGREGATES]
    np.testing.assert_allclose(found, [0.5] * 4, rtol=1e-6)


def test_aggregates_choose_differently():
    # One bad step among good ones, and steps that are all so-so.
    candidates = logps([0.2, 0.99, 0.99], [0.6, 0.6, 0.6])
    mask = jnp.ones((2, 3), bool)
    chosen = [int(jnp.argmax(aggregate(candidates, mask))) for aggregate in AGGREGATES]
    assert chosen == [1, 1, 0, 0]


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_masked_steps_add_nothing_and_no_steps_are_zero(aggregate, junk):
    steps = jnp.array([[-1.0, junk, -2.0, junk], [junk] * 4])
    mask = jnp.array([[True, False, True, False], [False] * 4])
    value, gradient = jax.value_and_grad(lambda x: aggregate(x, mask).sum())(steps)
    alone, inner = jax.value_and_grad(lambda x: aggregate(x, jnp.ones(2, bool)))(steps[0, ::2])
    np.testing.assert_allclose(value, alone, rtol=1e-6)
    np.testing.assert_allclose(gradient[0, ::2], inner, rtol=1e-6)
    assert (gradient[0, 1::2] == 0).all()
    assert (gradient[1] == 0).all()
    assert aggregate(steps, mask)[1] == 0


def test_a_product_of_tiny_probabilities_keeps_its_order():
    # As probabilities both would be exactly 0 in float32.
    steps = jnp.array([[-1000.0, -1.0, -1.0], [-1000.0, -1.0, -2.0]])
    np.testing.assert_array_equal(process.product(steps, jnp.ones((2, 3), bool)), [-1002, -1003])
    for aggregate in AGGREGATES:
        value, gradient = jax.value_and_grad(lambda x, of=aggregate: of(x, x < 1).sum())(steps)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()


def test_steps_and_solution_by_hand():
    steps, targets = jnp.array([[0.5, 1.0, 9.0], [3.0, 3.0, 3.0]]), jnp.zeros((2, 3))
    mask = jnp.array([[True, True, False], [False] * 3])
    final, wanted = jnp.array([1.0, 0.0]), jnp.array([0.0, 3.0])
    found = process.step_and_final(steps, targets, mask, final, wanted, 2.0, 0.5)
    np.testing.assert_allclose(found, [2 * (0.25 + 1) / 2 + 0.5, 0.5 * 9])
    perfect = process.step_and_final(targets, targets, mask, wanted, wanted)
    np.testing.assert_array_equal(perfect, [0, 0])
    # A probability of exactly 0 is a step like others.
    zero = process.step_and_final(
        jnp.zeros((1, 2)), jnp.ones((1, 2)), mask[:1, :2], *2 * [wanted[:1]]
    )
    np.testing.assert_array_equal(zero, [1])
    with pytest.raises(ValueError, match="of solutions"):
        process.step_and_final(steps, targets, mask, final[:1], wanted[:1])


def test_a_score_of_zero_is_a_step_wherever_it_lies():
    steps = jnp.array([[0.0, -1.0], [-1.0, 0.0]])
    mask = jnp.ones((2, 2), bool)
    np.testing.assert_array_equal(process.last(steps, mask), [-1, 0])
    np.testing.assert_allclose(process.mean(steps, mask), [-0.379885] * 2, rtol=1e-5)


def test_coherence_is_at_most_zero_and_even_odds_where_all_are_alike():
    alike = process.coherence(jnp.full(2, 0.7), jnp.full((2, 4), 0.7), 0.1)
    np.testing.assert_allclose(alike, [-np.log(5)] * 2, rtol=1e-6)
    by_hand = process.coherence(jnp.array(1.0), jnp.array([0.0]), 0.5)
    np.testing.assert_allclose(by_hand, -0.126928, atol=1e-6)
    far = process.coherence(jnp.array([1.0, -1.0]), jnp.array([[-1.0], [1.0]]), 1e-3)
    np.testing.assert_allclose(far, [0, -2000], atol=1e-3)
    with pytest.raises(ValueError, match="negatives"):
        process.coherence(jnp.zeros(2), jnp.zeros(2))


def test_rewards_are_joined_as_reasonflux_has_it():
    np.testing.assert_allclose(process.softmax_weighted(jnp.zeros(3)), 0)
    found = process.softmax_weighted(jnp.array([0.0, jnp.log(3.0)]))
    np.testing.assert_allclose(found, 0.75 * np.log(3), rtol=1e-6)
    mask = jnp.array([True, True, False])
    chosen = process.selection(jnp.array([1.0, 0.0, jnp.nan]), mask, jnp.array(0.8), 0.5)
    np.testing.assert_allclose(chosen, 0.5 + 0.5 * 0.8)
    np.testing.assert_allclose(process.with_outcome(jnp.array(0.4), jnp.array(1.0), 0.75), 0.55)


def test_low_precision_is_raised_to_float32():
    ones = jnp.ones((1, 256), bool)
    halves = jnp.full((1, 256), -1.0078125, jnp.bfloat16)
    found = process.product(halves, ones)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, [-258.0])
    for loss in ON_STEPS:
        assert loss(halves, -halves / 2, ones).dtype == jnp.float32
    for aggregate in AGGREGATES:
        assert aggregate(halves, ones).dtype == jnp.float32


def test_all_run_compiled_and_batched_alike():
    rng = np.random.default_rng(0)
    steps, labels = jnp.asarray(-rng.exponential(size=(2, 6, 4)), jnp.float32)
    mask = jnp.asarray(rng.random((6, 4)) < 0.7)
    final = steps[:, 0]
    calls = [(process.step_and_final, (steps, labels, mask, final, -final))]
    calls += [(process.outcome, (steps, (final < -1).astype(jnp.float32), mask))]
    calls += [(loss, (steps, jnp.exp(labels), mask)) for loss in ON_STEPS]
    calls += [(aggregate, (steps, mask)) for aggregate in AGGREGATES]
    calls += [(process.step_classes, (steps, mask[:, 0].astype(jnp.float32), mask[:, 1]))]
    for function, arrays in calls:
        expected = function(*arrays)
        np.testing.assert_allclose(jax.jit(function)(*arrays), expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(jax.vmap(function)(*arrays), expected, rtol=1e-6, atol=1e-6)


def test_shapes_must_agree():
    for function in (*ON_STEPS,):
        with pytest.raises(ValueError, match="differ"):
            function(jnp.zeros(3), jnp.zeros(3), jnp.ones((3, 1), bool))
    for aggregate in AGGREGATES:
        with pytest.raises(ValueError, match="differ"):
            aggregate(jnp.zeros(3), jnp.ones((1, 3), bool))
    with pytest.raises(ValueError, match="differ"):
        process.step_classes(jnp.zeros((3, 2)), jnp.zeros(2), jnp.ones(2, bool))
