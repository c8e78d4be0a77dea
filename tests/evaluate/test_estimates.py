"""Estimates leave NaN out, count prompts, and know when they know nothing."""

import numpy as np
import pytest

from jaxrm.evaluate.clusters import SHARE, mean_interval
from jaxrm.evaluate.estimates import NOTHING, auc, estimate, mean, share

PROMPTS = np.array([0, 0, 1, 2, 3, 4, 5])


def test_a_mean_leaves_nan_out_and_counts_prompts():
    values = np.array([1.0, 3.0, np.nan, 8.0, 2.0, 4.0, 6.0])
    found = mean(values, PROMPTS)
    assert (found.value, found.n, found.prompts) == (4.0, 6, 5)
    assert (found.low, found.high) == mean_interval([1, 3, 8, 2, 4, 6], [0, 0, 2, 3, 4, 5])
    bounded = mean(values, PROMPTS, (0.0, 8.0))
    assert 0 <= bounded.low < bounded.value < bounded.high <= 8


def test_a_share_of_all_still_has_doubt():
    found = share(np.ones(20, bool), np.arange(20))
    assert (found.value, found.high) == (1.0, 1.0)
    # Wilson's of n out of n, with Student's quantile.
    assert found.low == pytest.approx(20 / (20 + 2.093024**2))


def test_few_prompts_have_no_interval_and_none_no_value():
    few = mean(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([7, 7, 8, 9, 10]))
    assert few.value == 3.0
    assert np.isnan([few.low, few.high]).all()
    assert np.isnan(share(np.ones(3), np.arange(3)).low)
    assert mean(np.array([np.nan]), np.array([0])) is NOTHING
    assert estimate(lambda weight: weight.sum(), np.zeros(0, int)) is NOTHING


def test_a_statistic_lacks_a_whole_prompt_at_a_time():
    values = np.array([0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    left_out = []

    def average(weight):
        assert weight[0] == weight[1]
        left_out.append(PROMPTS[weight == 0].tolist())
        return float(weight @ values / weight.sum())

    found = estimate(average, PROMPTS, SHARE)
    assert found.value == pytest.approx(4 / 7)
    assert 0 < found.low < found.value < found.high < 1
    assert sorted(each for each in left_out if each) == [[0, 0], [1], [2], [3], [4], [5]]


def test_a_figure_that_hangs_on_one_prompt_has_no_interval():
    hidden = estimate(lambda weight: 5.0 if weight[0] else np.nan, np.arange(8))
    assert hidden.value == 5.0
    assert np.isnan([hidden.low, hidden.high]).all()
    infinite = estimate(lambda weight: 1.0 if weight[0] else np.inf, np.arange(8))
    assert np.isnan([infinite.low, infinite.high]).all()


def test_the_auc_counts_pairs_of_one_group():
    """3 beats 1 and 2, 2 beats 1 and ties 2: 3.5 of 4; the second group has 0 of 1."""
    values, groups = np.array([3, 2, 1, 2, 0, 9.0]), np.array([0, 0, 0, 0, 1, 1])
    ours = np.array([1, 1, 0, 0, 1, 0], bool)
    figure = auc(values, ours, ~ours, groups)
    assert figure(np.ones(6)) == 3.5 / 5
    # A weight of 2 on the first item doubles both of its pairs.
    assert figure(np.array([2, 1, 1, 1, 1, 1.0])) == 5.5 / 7
    assert np.isnan(figure(np.array([0, 0, 1, 1, 0, 1.0])))
    fourth = np.array([0, 0, 0, 1, 0, 0], bool)
    assert auc(values, ours, fourth, groups)(np.ones(6)) == 1.5 / 2
