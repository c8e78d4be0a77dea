"""Estimates leave NaN out, draw prompts, and know when they know nothing."""

import numpy as np
import pytest

from jaxrm.evaluate import statistics
from jaxrm.evaluate.estimates import NOTHING, estimate, mean, share


def test_a_mean_leaves_nan_out_and_draws_prompts():
    values, prompts = np.array([1.0, 3.0, np.nan, 8.0]), np.array([0, 0, 1, 2])
    found = mean(values, prompts)
    assert (found.value, found.n, found.prompts) == (4.0, 3, 2)
    expected = statistics.bootstrap_interval([1.0, 3.0, 8.0], [0, 0, 2])
    assert (found.low, found.high) == expected
    assert expected == (2.0, 8.0)


def test_a_share_of_all_still_has_doubt():
    found = share(np.ones(20, bool), np.arange(20))
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(20 / (20 + 1.959964**2))  # Wilson's, of n out of n


def test_one_prompt_has_no_interval_and_none_no_value():
    single = mean(np.array([1.0, 2.0]), np.array([7, 7]))
    assert single.value == 1.5
    assert np.isnan([single.low, single.high]).all()
    assert mean(np.array([np.nan]), np.array([0])) is NOTHING
    assert estimate(lambda weight: weight.sum(), np.zeros(0, int)) is NOTHING


def test_a_statistic_is_drawn_with_weights_of_whole_prompts():
    values, prompts = np.array([0.0, 0.0, 1.0]), np.array([0, 0, 1])

    def average(weight):
        assert weight[0] == weight[1]
        return float(weight @ values / weight.sum())

    found = estimate(average, prompts)
    # Either prompt may be drawn twice, which happens in a quarter of the draws each.
    assert (found.value, found.low, found.high) == (pytest.approx(1 / 3), 0.0, 1.0)


def test_a_draw_may_be_infinite_or_show_nothing():
    prompts = np.arange(8)
    with np.errstate(divide="ignore"):
        # Infinite where prompt 0 is not drawn, which is so in a third of the draws.
        infinite = estimate(lambda weight: float(1 / weight[0]), prompts)
    assert infinite.value == 1.0
    assert infinite.high == np.inf
    assert np.isfinite(infinite.low)
    hidden = estimate(lambda weight: 5.0 if weight[0] else np.nan, prompts)
    assert (hidden.low, hidden.high) == (5.0, 5.0)
