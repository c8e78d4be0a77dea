"""Ordered pairs by hand: what ranks order, whose pair it is, and shares of each one's pairs."""

import numpy as np

from jaxrm.data.comparison import Comparison
from jaxrm.data.ordering import ordered_pairs, shares

ROWS = [
    Comparison("p", ("a", "b", "c"), ranks=(0, 1, 2)),
    Comparison("p", ("a", "b")),
    Comparison("p", ("a", "b", "c"), ranks=(1, 1, 0)),
    Comparison("p", ("a",), ranks=(0,)),
]


def test_pairs_point_into_the_responses_of_all_comparisons():
    pairs = ordered_pairs(ROWS)
    assert pairs.better.tolist() == [0, 0, 1, 7, 7]
    assert pairs.worse.tolist() == [1, 2, 2, 5, 6]
    assert pairs.owner.tolist() == [0, 0, 0, 2, 2]
    assert pairs.counts.tolist() == [3, 0, 2, 0]


def test_a_share_is_of_a_comparison_s_own_pairs():
    found = shares(np.array([True, True, True, True, False]), ordered_pairs(ROWS))
    np.testing.assert_array_equal(found, [1.0, np.nan, 0.5, np.nan])


def test_no_comparisons_have_no_pairs():
    assert shares(np.zeros(0, bool), ordered_pairs([])).tolist() == []
