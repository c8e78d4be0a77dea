"""ArmoRM: ridge regression by hand, debiasing that is used, a gate that learns what counts."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrm.data.comparison import Comparison
from jaxrm.errors import DataError, OptionError
from jaxrm.models import armo
from jaxrm.models.gate import ConstantGate, PromptGate

NAMES = ("correct", "verbosity")
SMALL = PromptGate(hidden=8, layers=2, dropout=0.0, temperature=1.0)


# The attributes


def test_ridge_by_hand():
    """X'X + I = [[3, 1], [1, 3]], X'y = [4, 4]: w = [1, 1]. The row without a label is not there,
    and there is no intercept: labels at 0 get weight 0."""
    states = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [9.0, -9.0]])
    labels = np.array([3.0, 1.0, 1.0, np.nan])
    np.testing.assert_allclose(armo.ridge(states, labels, alpha=1.0), [1.0, 1.0])
    np.testing.assert_allclose(armo.ridge(states, labels + 0.5, alpha=1.0), [1.25, 1.25])


def random_labels(n, d=5, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    weights = np.random.default_rng(9).normal(size=(d, 2))
    states = rng.normal(size=(n, d))
    labels = states @ weights + noise * rng.normal(size=(n, 2))
    labels[rng.random((n, 2)) < 0.3] = np.nan
    return states, labels, weights


def test_ridge_is_scikit_learns():
    linear_model = pytest.importorskip("sklearn.linear_model")
    states, labels, _ = random_labels(40)
    known = ~np.isnan(labels[:, 0])
    theirs = linear_model.Ridge(alpha=3.0, fit_intercept=False).fit(states[known], labels[known, 0])
    np.testing.assert_allclose(armo.ridge(states, labels[:, 0], 3.0), theirs.coef_, rtol=1e-8)


def test_every_attribute_gets_the_strength_that_suits_its_validation_labels():
    states, labels, weights = random_labels(60, noise=0.01)
    val_states, val_labels, _ = random_labels(30, noise=0.01, seed=1)
    rng = np.random.default_rng(2)
    labels[:, 1], val_labels[:, 1] = rng.normal(size=60), rng.normal(size=30)  # mere noise
    fitted = armo.fit_heads(states, labels, val_states, val_labels, NAMES)
    np.testing.assert_allclose(fitted.weights[:, 0], weights[:, 0], atol=0.02)
    assert fitted.alphas[0] <= 0.1 < 100 <= fitted.alphas[1]
    for a in range(2):
        chosen = armo.ridge(states, labels[:, a], fitted.alphas[a])
        np.testing.assert_array_equal(fitted.weights[:, a], chosen)
        error = np.nanmean((val_states @ chosen - val_labels[:, a]) ** 2)
        np.testing.assert_allclose(fitted.errors[a], error)


def test_an_attribute_without_labels_is_named():
    states, labels, _ = random_labels(10)
    empty = labels.copy()
    empty[:, 1] = np.nan
    with pytest.raises(DataError, match="'verbosity': no training response"):
        armo.fit_heads(states, empty, states, labels, NAMES)
    with pytest.raises(DataError, match="'verbosity': no validation response"):
        armo.fit_heads(states, labels, states, empty, NAMES)
    with pytest.raises(ValueError, match="names"):
        armo.fit_heads(states, labels, states, labels, ("correct",))


def rated(*rows, where="data.jsonl:3"):
    return Comparison("q", ("a",) * len(rows), attributes=rows, where=where)


def test_grades_become_one_row_for_each_response():
    found = armo.labels_of([rated((1.0, np.nan), (0.5, 2.0)), rated((3.0, 4.0))], NAMES)
    np.testing.assert_array_equal(found, [[1.0, np.nan], [0.5, 2.0], [3.0, 4.0]])


def test_bad_grades_are_errors_that_name_the_row():
    with pytest.raises(DataError, match="data.jsonl:3.*'attributes'.*3 values"):
        armo.labels_of([rated((1.0, 2.0)), rated((1.0, 2.0, 3.0))], NAMES)
    with pytest.raises(DataError, match="data.jsonl:4.*missing"):
        armo.labels_of([Comparison("q", ("a",), where="data.jsonl:4")], NAMES)


# Verbosity


def test_the_penalty_is_the_smallest_that_suffices():
    """Of the five below, verbosity is the first. The second is .12 of it and something that does
    not go with it: .1 leaves a correlation, .125 none. The third falls with it. The fourth is twice
    it, more than the grid can take off. The fifth never varies."""
    verbosity = np.arange(1.0, 2002.0)
    other = 60.0 * np.sin(np.arange(2001) * 2.0)
    same = np.ones(2001)
    rewards = np.stack(
        [verbosity, 0.12 * verbosity + other, -verbosity, 2 * verbosity, same], axis=-1
    )
    penalties = armo.verbosity_penalties(rewards, verbosity=0)
    np.testing.assert_allclose(penalties, [1.0, 0.125, 0.0, 1.0, 0.0])
    left = armo.debiased(rewards, penalties, verbosity=0)
    np.testing.assert_array_equal(left[:, 0], 0.0)
    np.testing.assert_allclose(left[:, 1], rewards[:, 1] - 0.125 * verbosity)
    np.testing.assert_array_equal(left[:, 2], rewards[:, 2])


def test_the_limit_is_that_of_spearmans_signed_correlation():
    verbosity = np.arange(5.0)
    swapped = np.array([1.0, 0.0, 2.0, 3.0, 4.0]) / 1e4  # Spearman 1 - 6 * 2 / (5 * 24) = .9
    rewards = np.stack([verbosity, swapped], axis=-1)
    assert armo.verbosity_penalties(rewards, 0, limit=0.9)[1] == 0.0
    assert armo.verbosity_penalties(rewards, 0, limit=0.89)[1] == 0.01
    assert armo.verbosity_penalties(-rewards, 0, limit=0.89)[1] == 0.01


def test_a_verbosity_that_never_varies_costs_nothing():
    rewards = np.stack([np.ones(4), np.arange(4.0)], axis=-1)
    np.testing.assert_array_equal(armo.verbosity_penalties(rewards, 0), [1.0, 0.0])


def test_debiased_heads_give_the_debiased_rewards():
    rng = np.random.default_rng(0)
    states, heads, penalties = rng.normal(size=(7, 4)), rng.normal(size=(4, 3)), [0.2, 1.0, 0.5]
    np.testing.assert_allclose(
        states @ armo.debiased(heads, np.array(penalties), 1),
        armo.debiased(states @ heads, np.array(penalties), 1),
        atol=1e-12,
    )


def test_the_grid_is_the_published_one():
    assert armo.PENALTIES[:9] == (0.0, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2)
    assert armo.PENALTIES[-1] == 0.95
    assert len(armo.PENALTIES) == 24
    assert armo.ALPHAS[0] == 1e-4
    assert armo.ALPHAS[-1] == 1e4


# The gate's fit


def pairs_of_two_kinds(n=400):
    """The first attribute is right for prompts of the first kind, the second for the others."""
    rng = np.random.default_rng(0)
    kind = rng.integers(2, size=n)
    prompts = np.eye(2)[kind]
    difference = np.where(np.arange(2) == kind[:, None], 1.0, -1.0)
    return prompts, difference / 2, -difference / 2


def test_a_gate_learns_what_counts_for_which_prompt_and_constant_weights_cannot():
    prompts, chosen, rejected = pairs_of_two_kinds()
    options = {"steps": 200, "batch": 64, "learning_rate": 0.05}
    params = armo.fit_gate(SMALL, prompts, chosen, rejected, **options)
    weights = SMALL(params, jnp.eye(2))
    assert (jnp.diag(weights) > 0.9 * weights.sum(-1)).all()
    assert weights[0].sum() > 1.5  # the scale grows where the order is certain
    constant = ConstantGate()
    params = armo.fit_gate(constant, prompts, chosen, rejected, **options)
    of_constant = constant(params, jnp.eye(2))
    np.testing.assert_array_equal(of_constant[0], of_constant[1])


def test_constant_weights_find_the_attribute_that_counts():
    _, chosen, rejected = pairs_of_two_kinds()
    chosen, rejected = np.abs(chosen) * [1, 0], -np.abs(rejected) * [1, 0]
    params = armo.fit_gate(
        ConstantGate(), np.zeros((400, 1)), chosen, rejected, steps=200, learning_rate=0.05
    )
    weights = ConstantGate()(params, np.zeros((1, 1)))[0]
    assert weights[0] > 10 * weights[1]


def test_equal_seeds_give_equal_gates_and_bad_options_are_named():
    prompts, chosen, rejected = pairs_of_two_kinds(20)
    options = {"steps": 3, "batch": 8}
    first, again, other = (
        armo.fit_gate(PromptGate(8, 1), prompts, chosen, rejected, seed=seed, **options)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first["weight_0"], again["weight_0"])
    assert (first["weight_0"] != other["weight_0"]).any()
    with pytest.raises(OptionError, match="steps must be at least 1"):
        armo.fit_gate(SMALL, prompts, chosen, rejected, steps=0)
    with pytest.raises(OptionError, match="temperature must be above 0"):
        PromptGate(temperature=0.0)
    with pytest.raises(DataError, match="no pair"):
        armo.fit_gate(SMALL, prompts[:0], chosen[:0], rejected[:0])
    with pytest.raises(ValueError, match="match"):
        armo.fit_gate(SMALL, prompts, chosen, rejected[:, :1])
