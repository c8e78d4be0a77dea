"""Credit for ordered responses and means of means, counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxrm.data.comparison import Comparison, Message
from jaxrm.evaluate.benchmark import Credit
from jaxrm.evaluate.benchmarks import rules

NAN = math.nan


def pair(prompt="q", subset="s", **known):
    return Comparison.pair(prompt, "good", "bad", subset=subset, **known)


def values(credit, comparisons, scores):
    return [c.value for c in credit(comparisons, [np.array(given) for given in scores])]


def test_only_a_strictly_higher_score_wins():
    scores = [[2.0, 1.0], [1.0, 1.0], [1.0, 2.0], [NAN, 1.0], [1.0, NAN], [NAN, NAN]]
    assert values(rules.strict, [pair()] * 6, scores) == [1, 0, 0, 0, 0, 0]
    assert values(rules.half_for_ties, [pair()] * 6, scores) == [1, 0.5, 0, 0, 0, 0]


def test_of_ranked_responses_the_share_of_ordered_pairs():
    ranked = Comparison("q", ("a", "b", "c"), ranks=(1, 0, 1))  # b over a, b over c
    tied = Comparison("q", ("a", "b"), ranks=(0, 0))
    single = Comparison("q", ("a",), ranks=(0,))
    comparisons, scores = [tied, ranked, single], [[1.0, 0.0], [1.0, 1.0, 0.0], [3.0]]
    assert values(rules.strict, comparisons, scores) == [0.5]
    assert values(rules.half_for_ties, comparisons, scores) == [0.75]
    assert values(rules.strict, [], []) == []


def test_credit_goes_to_the_subset_and_the_prompt():
    turns = (Message("user", "one"), Message("assistant", "two"), Message("user", "three"))
    (plain, spoken, other) = rules.strict(
        [pair("one", "x"), pair(turns[:1], "y"), pair(turns, "y")], [np.array([1.0, 0.0])] * 3
    )
    assert (plain.group, spoken.group, other.group) == ("x", "y", "y")
    assert plain.cluster == spoken.cluster != other.cluster
    assert len(plain.cluster) == 16


def test_overall_is_one_more_group():
    credits = [Credit("x", "p", 1.0), Credit("", "q", 0.0)]
    assert list(rules.with_overall(credits)) == [
        Credit("overall", "p", 1.0),
        Credit("x", "p", 1.0),
        Credit("overall", "q", 0.0),
    ]


def test_means_hand_nan_on():
    assert rules.mean([0.0, 1.0, 0.5]) == 0.5
    assert math.isnan(rules.mean([0.0, NAN]))
    assert rules.weighted({"a": 1.0, "b": 0.0}, {"a": 1, "b": 3}) == 0.25
    assert math.isnan(rules.weighted({"a": 1.0, "b": NAN}, {"a": 1, "b": 3}))


@pytest.mark.parametrize(("above", "below"), [(1.0, 0.0), (NAN, 1.0), (1.0, NAN), (0.0, 0.0)])
def test_a_ratio_without_a_value(above, below):
    assert math.isnan(rules.ratio(above, below))
    assert rules.ratio(1.0, 4.0) == 0.25
