"""Ensembles of scores and the Bayesian head, by hand and by what must not change them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.errors import DataError, OptionError
from jaxrm.models import uncertainty
from jaxrm.models.uncertainty import RewardScale

SCORES = np.array([[1.0, 1.2], [2.0, 1.8], [3.0, 3.4]])
"""Three members on two responses: means 2 and 6.4 / 3."""

COMBINED = [uncertainty.mean, uncertainty.median, uncertainty.wco, uncertainty.uwo, uncertainty.lcb]


def test_every_way_to_combine_by_hand():
    np.testing.assert_allclose(uncertainty.mean(SCORES), [2, 6.4 / 3])
    np.testing.assert_allclose(uncertainty.median(SCORES), [2, 1.8])
    np.testing.assert_allclose(uncertainty.wco(SCORES), [1, 1.2])
    # Variances, ddof 0: 2/3, and (1.44 + 3.24 + 11.56) / 3 - (6.4 / 3)^2 = .862222.
    np.testing.assert_allclose(uncertainty.uwo(SCORES), [1.666667, 1.702222], rtol=1e-6)
    np.testing.assert_allclose(uncertainty.uwo(SCORES, 0.1), [1.933333, 2.047111], rtol=1e-6)
    np.testing.assert_allclose(uncertainty.lcb(SCORES), [1.183503, 1.204774], rtol=1e-6)
    np.testing.assert_allclose(uncertainty.lcb(SCORES, 2.0), [0.367007, 0.276215], rtol=1e-5)


def test_without_penalty_it_is_the_mean_and_the_worst_is_no_better():
    scores = np.random.default_rng(0).standard_normal((4, 3, 5))
    mean = uncertainty.mean(scores)
    np.testing.assert_array_equal(uncertainty.uwo(scores, 0.0), mean)
    np.testing.assert_array_equal(uncertainty.lcb(scores, 0.0), mean)
    assert (uncertainty.wco(scores) <= mean).all()
    for combine in COMBINED:
        np.testing.assert_allclose(combine(np.stack([scores[0]] * 3)), scores[0], atol=1e-12)


@pytest.mark.parametrize("combine", COMBINED)
def test_jax_arrays_jit_vmap_and_half_precision(combine):
    scores = jnp.asarray(np.random.default_rng(1).standard_normal((3, 4, 2)), jnp.float32)
    expected = combine(np.asarray(scores))
    np.testing.assert_allclose(jax.jit(combine)(scores), expected, rtol=1e-5, atol=1e-6)
    mapped = jax.vmap(combine, in_axes=1)(scores)
    np.testing.assert_allclose(mapped, expected, rtol=1e-5, atol=1e-6)
    half = combine(scores.astype(jnp.bfloat16))
    assert half.dtype == jnp.float32
    rounded = np.asarray(scores.astype(jnp.bfloat16).astype(jnp.float32))
    np.testing.assert_allclose(half, combine(rounded), rtol=1e-5, atol=1e-6)


def test_members_are_missing():
    for scores in (np.zeros((0, 3)), np.float32(1)):
        with pytest.raises(ValueError, match=r"\[members, ...\]"):
            uncertainty.mean(scores)


def test_the_worst_member_depends_on_offsets_until_they_are_standardised():
    def winner(scores):
        return int(uncertainty.wco(scores).argmax())

    # Each member by itself has its own favourite; the first prefers response 0 by much.
    scores = np.array([[3.0, 1.0, 0.0], [0.5, 1.5, -1.0]])
    moved = scores + np.array([[0.0], [5.0]])
    assert (winner(scores), winner(moved)) == (1, 0)
    standard, standard_moved = (
        uncertainty.standardise(s, [uncertainty.scale_of(member, "val") for member in s])
        for s in (scores, moved * np.array([[1.0], [3.0]]))
    )
    np.testing.assert_allclose(standard, standard_moved)
    np.testing.assert_allclose(standard.mean(axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(standard.std(axis=1), 1)


def test_a_scale_is_of_all_responses_alike():
    scale = uncertainty.scale_of([np.array([1.0, 3.0]), np.array([5.0])], "val")
    # Mean 3, deviation sqrt(8 / 3).
    assert scale == RewardScale(3.0, np.sqrt(8 / 3), "val", 3)
    assert scale == uncertainty.scale_of(np.array([[1.0, 3.0, 5.0]], np.float32), "val")
    for wrong in ([], np.full((2, 2), 0.1, np.float32), [np.array([1.0, np.nan])]):
        with pytest.raises(OptionError, match="reward"):
            uncertainty.scale_of(wrong, "val")
    with pytest.raises(ValueError, match="1 scales for 3 members"):
        uncertainty.standardise(SCORES, [scale])


def test_of_a_centred_pair_the_penalties_change_no_order():
    scores = uncertainty.centre(np.random.default_rng(2).standard_normal((4, 50, 2)))
    np.testing.assert_allclose(scores.sum(axis=-1), 0, atol=1e-12)
    order = np.sign(np.diff(uncertainty.mean(scores)))
    for combine in (functools.partial(uncertainty.uwo, penalty=9.0), uncertainty.lcb):
        np.testing.assert_array_equal(np.sign(np.diff(combine(scores))), order)


# The Bayesian head


def test_the_deviation_by_hand():
    weighted, unweighted = (
        uncertainty.laplace_covariance(np.zeros(2), np.eye(2), 1.0, weighted)
        for weighted in (True, False)
    )
    for covariance, expected in ((weighted, 0.894427), (unweighted, 0.707107)):
        head = uncertainty.BayesianHead(np.zeros(2), covariance)
        assert head.deviation(np.array([1.0, 0.0])) == pytest.approx(expected, rel=1e-6)
    # Of the direction (1, 1) the variances of two independent weights add up.
    head = uncertainty.BayesianHead(np.zeros(2), weighted)
    np.testing.assert_allclose(head.deviation(np.array([[1.0, 1.0]])), [np.sqrt(1.6)])


def test_the_fit_is_where_the_posterior_is_flat():
    rng = np.random.default_rng(3)
    z = rng.standard_normal((80, 4)) + 0.3
    head = uncertainty.fit_bayesian_head(z, precision=0.5)
    sure = 1 / (1 + np.exp(-z @ head.weights))
    np.testing.assert_allclose(0.5 * head.weights - z.T @ (1 - sure), 0, atol=1e-5)
    hessian = (z.T * (sure * (1 - sure))) @ z + 0.5 * np.eye(4)
    np.testing.assert_allclose(head.covariance @ hessian, np.eye(4), atol=1e-9)
    flat = uncertainty.fit_bayesian_head(z, precision=0.5, weighted=False)
    np.testing.assert_array_equal(flat.weights, head.weights)
    assert (flat.deviation(z) < head.deviation(z)).all()


def test_one_contradicted_pair_by_hand():
    # The same pair labelled both ways: the weight is 0, and H = 1 + 2 / 4.
    head = uncertainty.fit_bayesian_head(np.array([[1.0], [-1.0]]), precision=1.0)
    assert head.weights[0] == pytest.approx(0, abs=1e-12)
    assert head.covariance[0, 0] == pytest.approx(1 / 1.5)


def test_separable_pairs_and_tiny_precision_stay_finite():
    z = np.random.default_rng(4).standard_normal((30, 3)) * 50
    z *= np.sign(z[:, :1])
    head = uncertainty.fit_bayesian_head(z)
    assert np.isfinite(head.weights).all()
    assert np.isfinite(head.covariance).all()
    assert (head.reward(z) > 0).all()


def test_no_pairs_give_the_prior():
    head = uncertainty.fit_bayesian_head(np.zeros((0, 2)), precision=4.0)
    np.testing.assert_array_equal(head.weights, 0)
    np.testing.assert_allclose(head.deviation(np.array([[0.0, 6.0]])), [3.0])


def test_what_is_seen_often_is_surer_and_a_shift_of_all_states_changes_nothing():
    rng = np.random.default_rng(5)
    chosen, rejected = rng.standard_normal((2, 60, 3))
    shift = np.array([9.0, -4.0, 2.0])
    head = uncertainty.fit_bayesian_head(chosen - rejected, precision=0.1)
    moved = uncertainty.fit_bayesian_head((chosen + shift) - (rejected + shift), precision=0.1)
    z = chosen - rejected
    np.testing.assert_allclose(moved.deviation(z), head.deviation(z), rtol=1e-6)
    twice = uncertainty.laplace_covariance(head.weights, np.concatenate([z, z]), 0.1)
    surer = uncertainty.BayesianHead(head.weights, twice)
    assert (surer.deviation(z) < head.deviation(z)).all()


def test_the_deviation_of_jax_arrays():
    head = uncertainty.BayesianHead(np.ones(2), np.diag([4.0, 9.0]))
    z = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    np.testing.assert_allclose(jax.jit(head.deviation)(z), [2.0, 6.0])
    np.testing.assert_allclose(head.reward(z), [1.0, 2.0])


def test_what_cannot_be_fitted():
    with pytest.raises(OptionError, match="precision"):
        uncertainty.fit_bayesian_head(np.zeros((1, 1)), precision=0.0)
    with pytest.raises(ValueError, match=r"\[pairs, d\]"):
        uncertainty.fit_bayesian_head(np.zeros(3))
    with pytest.raises(DataError, match="not finite"):
        uncertainty.fit_bayesian_head(np.array([[np.nan]]))
