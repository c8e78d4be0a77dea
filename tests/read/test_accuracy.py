"""Strict accuracy, counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxrm.data.comparison import Comparison
from jaxrm.errors import DataError
from jaxrm.read.accuracy import (
    Accuracy,
    accuracy,
    accuracy_by_subset,
    loss,
    macro_accuracy,
    order_of,
    require_order,
)


def pairs(n, subset=""):
    return [Comparison.pair("a", "b", "c", subset=subset) for _ in range(n)]


def test_pairs_by_hand():
    rewards = [np.array(pair, np.float32) for pair in ([2, 1], [1, 2], [0.5, -3], [1, 1])]
    found = accuracy(rewards, pairs(4))
    assert found == Accuracy(0.5, 4, math.sqrt(0.5 * 0.5 / 4))


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf, -math.inf])
def test_a_constant_scorer_wins_nothing(value):
    assert accuracy([np.full(2, value)] * 3, pairs(3)) == Accuracy(0.0, 3, 0.0)


def test_nan_never_wins_against_a_number():
    rewards = [np.array([math.nan, -9.0]), np.array([9.0, math.nan]), np.array([math.inf, 0.0])]
    assert accuracy(rewards, pairs(3)).accuracy == pytest.approx(1 / 3)


def test_ranks_decide_which_response_should_win():
    swapped = Comparison("a", ("b", "c"), ranks=(1, 0))
    assert accuracy([np.array([1.0, 2.0])], [swapped]).accuracy == 1.0


def test_several_responses_count_as_one_comparison():
    ranked = Comparison("a", ("b", "c", "d"), ranks=(0, 2, 1))
    half_tied = Comparison("a", ("b", "c", "d"), ranks=(0, 1, 1))
    rewards = [np.array([3.0, 2.0, 1.0]), np.array([2.0, 1.0, 3.0]), np.array([1.0, 0.0])]
    found = accuracy(rewards, [ranked, half_tied, *pairs(1)])
    shares = np.array([2 / 3, 1 / 2, 1.0])
    assert found.n == 3
    assert found.accuracy == pytest.approx(shares.mean())
    assert found.standard_error == pytest.approx(shares.std() / math.sqrt(3))


def test_ties_of_the_labels_are_not_counted():
    tie = Comparison("a", ("b", "c"), ranks=(0, 0), subset="tied")
    rewards = [np.array([1.0, 0.0])] * 3
    comparisons = [tie, *pairs(2, "won")]
    assert accuracy(rewards, comparisons) == Accuracy(1.0, 2, 0.0)
    assert accuracy_by_subset(rewards, comparisons) == {"won": Accuracy(1.0, 2, 0.0)}


def test_subsets_partition_the_comparisons():
    comparisons = [*pairs(2, "x"), *pairs(1, "y"), *pairs(1, "x")]
    rewards = [np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([1.0, 0.0]), np.array([3, 2])]
    found = accuracy_by_subset(rewards, comparisons)
    assert {name: (a.n, round(a.accuracy, 3)) for name, a in found.items()} == {
        "x": (3, 0.667),
        "y": (1, 1.0),
    }
    assert list(found) == ["x", "y"]
    assert macro_accuracy(rewards, comparisons) == pytest.approx((2 / 3 + 1) / 2)


def test_what_has_no_order_is_an_error():
    unknown = Comparison("a", ("b", "c"), where="x.jsonl, row 2")
    with pytest.raises(DataError, match="x.jsonl, row 2: field 'ranks': missing"):
        accuracy([np.zeros(2)], [unknown])
    with pytest.raises(DataError, match="field 'ranks': neither this nor a later row"):
        accuracy([np.zeros(2)], [Comparison("a", ("b", "c"), ranks=(0, 0))])
    with pytest.raises(DataError, match="field 'ranks': neither this nor a later row"):
        macro_accuracy([np.zeros(2)], [Comparison("a", ("b", "c"), ranks=(0, 0))])
    known = pairs(2)
    require_order(known)
    with pytest.raises(DataError, match="^x.jsonl, row 2: .* 1 of the 3 comparisons .*chosen and"):
        require_order([*known, unknown])
    with pytest.raises(DataError, match="^comparison: field 'ranks': neither this nor a later row"):
        require_order([])
    with pytest.raises(ValueError, match=r"shape \(3,\) for 2 responses"):
        accuracy([np.zeros(3)], pairs(1))


def test_figures_by_hand():
    rewards = np.array([[2.0, 1.0], [0.0, 1.0], [5.0, 1.0]], np.float32)
    losses = [math.log1p(math.exp(-1)), math.log1p(math.exp(1)), math.log1p(math.exp(-4))]
    # Right, wrong, right: both of "even", none of "odd".
    expected = {"macro": 0.5, "accuracy": 2 / 3, "n": 3, "loss": sum(losses) / 3}
    comparisons = [*pairs(1, "even"), *pairs(1, "odd"), *pairs(1, "even")]
    assert order_of(rewards, comparisons) == pytest.approx(expected)


def test_figures_follow_the_ranks_wherever_the_best_stands_and_pass_over_ties():
    rewards = [np.array(row, np.float32) for row in ([1, 2, 4], [5, 1, 1], [0, 9, 9], [3, 1])]
    ranks = [(2, 1, 0), (1, 0, 1), (0, 0, 0), (0, 1)]
    comparisons = [Comparison("", ("a", "b", "c")[: len(each)], ranks=each) for each in ranks]

    def mean(*margins):
        return sum(math.log1p(math.exp(-margin)) for margin in margins) / len(margins)

    # A comparison counts once, however many pairs it orders.
    expected = (mean(1, 2, 3) + mean(-4, 0) + mean(2)) / 3
    assert loss(rewards, comparisons) == pytest.approx(expected)
    figures = {"n": 3, "accuracy": 2 / 3, "macro": 2 / 3, "loss": expected}
    assert order_of(rewards, comparisons) == pytest.approx(figures)
    with pytest.raises(DataError, match="ranks"):
        order_of(rewards[2:3], comparisons[2:3])
