"""Length: slopes that are known by construction, bins by hand, and what has no length."""

import numpy as np
import pytest

from jaxrm.evaluate.diagnosis.length import centred, length, logistic
from tests.evaluate.planted import by_text, pair

HALVES = [("a" * 20, "b" * 10), ("a" * 10, "b" * 20)]
"""Answers of which the better one is twice as long, and half as long."""


def comparisons(*counts):
    """So many pairs of each of HALVES, all of different prompts."""
    each = [texts for texts, count in zip(HALVES, counts, strict=True) for _ in range(count)]
    return [pair(f"question {i}?", *texts) for i, texts in enumerate(each)]


def test_a_scorer_of_log_length_gains_one_per_doubling():
    pairs = comparisons(30, 10)
    found = length(by_text(lambda text: np.log2(len(text)))(pairs), pairs)
    for slope in (found.within_prompt, found.margin):
        assert (slope.value, slope.low, slope.high) == pytest.approx((1, 1, 1))
    assert found.within_prompt.n == 80
    assert found.margin.n == 40
    assert found.prefers_longer.value == 1.0
    assert found.labels_prefer_longer.value == 0.75
    # Right in all pairs of one kind and none of the other: only the prior keeps this finite.
    assert 5 < found.log_odds.value < 40
    assert found.log_odds.low > 0
    half, twice = found.bins[2], found.bins[5]
    assert (half.low, half.high, half.doublings) == (1 / 2, 4 / 5, -1.0)
    assert (half.accuracy.value, half.accuracy.n) == (0.0, 10)
    assert (twice.low, twice.high, twice.doublings) == (2, 4, 1.0)
    assert (twice.accuracy.value, twice.accuracy.n) == (1.0, 30)
    assert sum(b.accuracy.n for b in found.bins) == 40


def test_a_scorer_of_quality_alone_has_no_slope_at_the_same_label():
    pairs = comparisons(30, 10)
    found = length(by_text(lambda text: 3.0 * text.startswith("a"))(pairs), pairs)
    assert found.margin.value == pytest.approx(0, abs=1e-9)
    # Inside prompts the labels' own lean to length remains: (30 - 10) / 40 of 3 for a doubling.
    assert found.within_prompt.value == pytest.approx(1.5)
    assert found.prefers_longer.value == found.labels_prefer_longer.value == 0.75
    # Right throughout, it is right as often at every length.
    assert (found.log_odds.value, found.log_odds.low, found.log_odds.high) == (0, 0, 0)


def test_the_logistic_slope_is_the_difference_of_log_odds():
    # 3 of 4 right one doubling above, 1 of 4 below: log-odds +ln 3 and -ln 3.
    doublings = np.repeat([1.0, -1.0], 400)
    right = np.concatenate([np.arange(400) < 300, np.arange(400) < 100])
    intercept, slope = logistic(doublings, right, np.ones(800))
    assert intercept == pytest.approx(0, abs=1e-9)
    assert slope == pytest.approx(np.log(3), abs=1e-3)
    weighed = logistic(doublings, right, np.where(doublings > 0, 5.0, 1.0))
    np.testing.assert_allclose(weighed, [0, np.log(3)], atol=1e-3)


def test_one_mistake_is_no_evidence_of_a_slope():
    pairs = comparisons(30, 10)
    scores = [np.array([1.0, 0.0])] * 39 + [np.array([0.0, 1.0])]
    found = length(scores, pairs)
    assert found.log_odds.value > 1
    assert found.log_odds.low < 0


def test_separated_pairs_have_a_finite_fit():
    doublings = np.array([1.0, -1.0, 2.0])
    intercept, slope = logistic(doublings, np.ones(3, bool), np.ones(3))
    assert np.isfinite([intercept, slope]).all()
    assert intercept > 2


def test_empty_answers_and_missing_rewards_are_counted():
    pairs = [
        pair("1?", "", "bb"),
        pair("2?", "aaaa", "bb"),
        pair("3?", "aaaa", "bb"),
        pair("4?", "aa", "bb"),
    ]
    scores = [np.array(s) for s in ([1.0, 0], [2.0, 0], [np.nan, 0], [1.0, 0])]
    found = length(scores, pairs)
    assert (found.empty, found.missing) == (1, 1)
    twice, alike = found.bins[5], found.bins[3]
    assert (twice.accuracy.value, twice.accuracy.n) == (0.5, 2)
    assert (alike.accuracy.value, alike.accuracy.n) == (1.0, 1)
    assert (found.prefers_longer.value, found.prefers_longer.n) == (1.0, 1)
    # Rewards 2 and 0 one doubling apart; the prompts with one reward or one length add nothing.
    assert found.within_prompt.value == 2.0


def test_equal_lengths_have_no_slope():
    pairs = [pair(f"{i}?", "aa", "bb") for i in range(3)]
    found = length(by_text(lambda text: float(text == "aa"))(pairs), pairs)
    assert np.isnan([found.within_prompt.value, found.margin.value]).all()
    assert found.prefers_longer.n == 0
    assert found.bins[3].accuracy.value == 1.0


def test_values_are_centred_in_their_groups():
    np.testing.assert_allclose(centred(np.array([1.0, 10.0, 3.0]), np.array([4, 2, 4])), [-1, 0, 1])
