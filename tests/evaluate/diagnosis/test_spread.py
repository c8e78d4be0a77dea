"""Spread by hand: variance within and between prompts, ties, and what a number format leaves."""

import numpy as np
import pytest

from jaxrm.evaluate.diagnosis.spread import components, spread
from tests.evaluate.planted import pair


def test_components_of_two_prompts():
    # W = (2 + 2) / 2, B = 2 (2^2 + 2^2) / 1 = 16, so the variance between is (16 - 2) / 2.
    within, between = components(np.array([1.0, 3.0, 5.0, 7.0]), np.array([9, 9, 4, 4]))
    assert within == pytest.approx(2**0.5)
    assert between == pytest.approx(7**0.5)


def test_components_of_unequal_prompts():
    # Means 2 and 6, grand 10/3: W = 2 / 1, B = 2 (4/3)^2 + (8/3)^2, usual size (3 - 5/3) / 1.
    within, between = components(np.array([1.0, 3.0, 6.0]), np.array([0, 0, 1]))
    assert within == pytest.approx(2**0.5)
    assert between == pytest.approx(((32 / 9 + 64 / 9 - 2) / (4 / 3)) ** 0.5)


def test_prompts_that_do_not_differ_have_nothing_between():
    assert components(np.array([1.0, 3.0, 1.0, 3.0]), np.array([0, 0, 1, 1])) == (
        pytest.approx(2**0.5),
        0.0,
    )
    assert np.isnan(components(np.array([1.0, 3.0]), np.array([0, 0]))).all()
    assert np.isnan(components(np.array([1.0, 3.0]), np.array([0, 1]))).all()


def test_planted_components_are_found():
    rng = np.random.default_rng(0)
    levels = rng.normal(0, 2, 3000)
    rewards = np.repeat(levels, 2) + rng.normal(0, 0.5, 6000)
    within, between = components(rewards, np.repeat(np.arange(3000), 2))
    assert within == pytest.approx(0.5, rel=0.05)
    assert between == pytest.approx(2, rel=0.05)


def test_a_number_format_ties_what_lies_closer_than_its_numbers():
    # Between 1 and 2, bfloat16 has steps of 1/128 and float32 of 2^-23.
    margins = [1 / 16, 1 / 1024, 0.0, 1.0, 2.0**-30]
    pairs = [pair(f"{i}?", "a", "b") for i in range(4)] + [pair("4?", "a", "b")]
    found = spread([np.array([1 + m, 1.0]) for m in margins], pairs)
    exact, half = found.resolution["float32"], found.resolution["bfloat16"]
    # 1 + 1/16, 1 + 1/1024, 2 and 1; the last pair is 1 and 1 in float32 already.
    assert (exact.distinct, half.distinct) == (4, 3)
    assert exact.tied.value == pytest.approx(2 / 5)
    assert half.tied.value == pytest.approx(3 / 5)
    assert exact.too_close.value == pytest.approx(2 / 5)
    assert half.too_close.value == pytest.approx(3 / 5)
    assert half.tied.n == 5


def test_subsets_are_apart_and_what_is_missing_is_counted():
    pairs = [
        pair("1?", "a", "a", subset="x"),
        pair("2?", "", " b", subset="x"),
        pair("3?", "a", "b", subset=""),
    ]
    scores = [np.array([1.0, 1.0]), np.array([np.nan, 4.0]), np.array([-1.0, -3.0])]
    found = spread(scores, pairs)
    assert (found.same_text, found.empty, found.missing) == (1, 1, 1)
    assert list(found.subsets) == ["x", "(none)"]
    x, rest = found.subsets.values()
    assert (x.n, x.mean, rest.n, rest.mean, rest.deviation) == (3, 2.0, 2, -2.0, 1.0)
    assert rest.quantiles == pytest.approx((-2.9, -2.5, -2.0, -1.5, -1.1))
    assert (found.together.n, found.together.mean) == (5, pytest.approx(0.4))
    # One text twice and a missing reward leave a single pair.
    assert found.resolution["float32"].tied.n == 1
    assert found.resolution["float32"].distinct == 4


def test_one_subset_is_not_shown_twice_and_no_rewards_make_no_figures():
    pairs = [pair("1?", "a", "b", subset="x"), pair("2?", "a", "b", subset="x")]
    found = spread([np.full(2, np.nan)] * 2, pairs)
    assert found.subsets == {}
    assert (found.together.n, found.missing) == (0, 4)
    assert np.isnan([found.together.mean, found.within, *found.together.quantiles]).all()
