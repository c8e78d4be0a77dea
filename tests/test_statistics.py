"""Tests and intervals counted by hand, against enumeration, and against their promised coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrm import statistics
from jaxrm.statistics import Paired, paired, sign_flip, sign_flip_interval, verdict

# Tenths, so that sums which are equal on paper differ by rounding: 0.1 + 0.2 is not 0.3.
TENTHS = st.lists(st.integers(-5, 5), min_size=2, max_size=8)


def enumerated(numbers):
    """The p of whole numbers, by its definition."""
    signs = itertools.product((-1, 1), repeat=len(numbers))
    sums = [sum(s * x for s, x in zip(sign, numbers, strict=True)) for sign in signs]
    return sum(abs(total) >= abs(sum(numbers)) for total in sums) / len(sums)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1, 2, 3], 2 / 8),  # only +++ and --- reach 6
        ([3, -1, 2], 4 / 8),  # 4 is reached by 3 - 1 + 2, 3 + 1 + 2 and their opposites
        ([-3, 1, -2], 4 / 8),
        ([1, -1, 0], 1.0),
        ([0.0] * 6, 1.0),
        ([1.0] * 16, 2 / 2**16),
    ],
)
def test_sign_flip_by_hand(differences, p):
    assert sign_flip(differences) == p


@given(TENTHS)
def test_sign_flip_is_the_share_of_signs_that_reach_the_sum(tenths):
    assert sign_flip(np.array(tenths) / 10) == enumerated(tenths)


@given(TENTHS, st.randoms(), st.sampled_from([1e-6, 0.3, 1e6]))
def test_sign_flip_ignores_sign_order_and_scale(tenths, random, scale):
    shuffled = random.sample(tenths, len(tenths))
    p = sign_flip(tenths)
    assert sign_flip(shuffled) == p
    assert sign_flip(-np.array(tenths)) == p
    assert sign_flip(scale * np.array(tenths)) == p


def test_many_differences_are_sampled():
    """Of equal sizes the test is the sign test: 17 differences, at most 4 of them negative."""
    exact = 2 * sum(math.comb(17, k) for k in range(5)) / 2**17
    differences = [1.0] * 13 + [-1.0] * 4
    assert sign_flip(differences) == pytest.approx(exact, abs=0.003)
    assert sign_flip(differences) == sign_flip(differences)
    assert sign_flip([1.0] * 60) == 1 / 100_001


def test_interval_by_hand():
    # Halves of 1, 2, 3 with means: 2 | 2, 3 | 1.5, 2.5 | 1. Each has a p of 1/4.
    assert sign_flip_interval([1, 2, 3], level=0.75) == (1, 3)
    assert sign_flip_interval([1, 2, 3], level=0.5) == (1.5, 2.5)
    assert sign_flip_interval([3, 1, 4, 1, 5, 9]) == (1, 9)
    assert sign_flip_interval([3, 1, 4, 1, 5]) == (-math.inf, math.inf)
    assert sign_flip_interval([1, 2, 3], level=0.76) == (-math.inf, math.inf)


@given(TENTHS, st.sampled_from([0.5, 0.7, 0.9, 0.95]))
def test_the_interval_is_what_the_test_keeps(numbers, level):
    low, high = sign_flip_interval(numbers, level)
    mean = np.mean(numbers)
    assert low <= mean + 1e-12
    assert mean - 1e-12 <= high
    if math.isinf(low):
        assert 2 / 2 ** len(numbers) > 1 - level
        return
    # Means of at most eight whole numbers lie further apart than this.
    step = 1e-3
    for inside in (low, high, mean):
        assert sign_flip(np.array(numbers) - inside) > 1 - level
    for outside in (low - step, high + step):
        assert sign_flip(np.array(numbers) - outside) <= 1 - level


@pytest.mark.parametrize(("n", "student"), [(17, 2.120), (20, 2.093)])  # t of n - 1, at .975
def test_the_interval_of_many_is_what_the_test_keeps(n, student):
    differences = np.random.default_rng(3).normal(0.5, 1, size=n)
    low, high = sign_flip_interval(differences)
    for inside in (low, high):
        assert sign_flip(differences - inside) > 0.05
    for outside in (low - 1e-6, high + 1e-6):
        assert sign_flip(differences - outside) <= 0.05
    deviation = differences.std(ddof=1) / math.sqrt(n)
    assert (high - low) / 2 == pytest.approx(student * deviation, rel=0.1)


@given(TENTHS, st.integers(-3, 3), st.sampled_from([0.1, 2.0]))
def test_the_interval_moves_and_stretches_with_the_differences(numbers, shift, scale):
    low, high = sign_flip_interval(numbers, 0.5)
    moved = sign_flip_interval(scale * (np.array(numbers) + shift), 0.5)
    assert moved == pytest.approx((scale * (low + shift), scale * (high + shift)))
    opposite = sign_flip_interval(-np.array(numbers), 0.5)
    assert opposite == pytest.approx((-high, -low))
    assert sign_flip_interval(sorted(numbers), 0.5) == pytest.approx((low, high))


def test_the_interval_covers_as_often_as_it_says():
    """25 of 512 halves are cut from each end: 1 - 25 / 512 = .951 on paper."""
    sets = np.random.default_rng(0).normal(0.3, 1, size=(400, 10))
    intervals = np.array([sign_flip_interval(differences) for differences in sets])
    covered = (intervals[:, 0] <= 0.3) & (intervals[:, 1] >= 0.3)
    assert 0.92 <= covered.mean() <= 0.98


@given(TENTHS)
def test_paired_says_one_thing(tenths):
    differences = np.array(tenths) / 10
    found = paired(differences, level=0.8)
    assert found.mean == pytest.approx(sum(tenths) / 10 / len(tenths))
    assert (found.p, found.n) == (enumerated(tenths), len(tenths))
    assert (found.low > 0 or found.high < 0) == (found.p <= 1 - 0.8)


def test_holm_by_hand():
    # .005 x 4, .01 x 3, .03 x 2, and .04 x 1, which may not fall below the one before.
    found = statistics.holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(found, [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(statistics.holm([0.6, 0.5, 0.001]), [1, 1, 0.003])
    np.testing.assert_allclose(statistics.holm([0.3]), [0.3])
    assert statistics.holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.randoms())
def test_holm_keeps_order_and_never_lowers(p_values, random):
    found = statistics.holm(p_values)
    assert (found >= p_values).all()
    assert (found <= 1).all()
    assert (np.diff(found[np.argsort(p_values)]) >= 0).all()
    places = random.sample(range(len(p_values)), len(p_values))
    np.testing.assert_array_equal(statistics.holm(np.array(p_values)[places]), found[places])


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_detectable_effects_of_the_power_tables(effect, n):
    """The n that Cohen's small, medium and large effects need at power .8, two-sided at .05."""
    assert statistics.minimum_detectable_effect(1.0, n) <= effect
    assert statistics.minimum_detectable_effect(1.0, n - 1) > effect
    assert statistics.minimum_detectable_effect(0.1, n) <= effect / 10


def test_the_sign_flip_test_detects_the_detectable_effect():
    effect = statistics.minimum_detectable_effect(1.0, 10)
    sets = np.random.default_rng(0).normal(effect, 1, size=(400, 10))
    assert np.mean([sign_flip(differences) <= 0.05 for differences in sets]) == pytest.approx(
        0.8, abs=0.06
    )
    assert statistics.minimum_detectable_effect(1.0, 5) == math.inf
    assert statistics.minimum_detectable_effect(1.0, 6) < math.inf


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.001, 0.05, "supported"),
        (0.001, 0.01, "supported"),  # real and small: above 0 is asked first
        (0.0, 0.05, "open"),
        (-0.01, 0.02, "open"),
        (-0.01, 0.019, "refuted"),
        (-0.05, -0.01, "refuted"),
        (-math.inf, math.inf, "open"),
    ],
)
def test_verdicts(low, high, says):
    assert verdict(Paired(0.005, low, high, 0.5, 12)) == says


def test_what_is_worthwhile_is_the_callers_to_say():
    assert verdict(Paired(0.0, -0.01, 0.03, 0.5, 12), worthwhile=0.04) == "refuted"


@pytest.mark.parametrize("values", [[1.0], [], [1.0, math.nan], [1.0, math.inf], [[1.0, 2.0]]])
@pytest.mark.parametrize("function", [sign_flip, sign_flip_interval, paired])
def test_too_few_or_broken_values_are_refused(function, values):
    with pytest.raises(ValueError, match="two or more finite numbers"):
        function(values)


@pytest.mark.parametrize(
    "call",
    [
        lambda: sign_flip_interval([1, 2], level=95),
        lambda: statistics.holm([0.5, 1.1]),
        lambda: statistics.holm([0.5, math.nan]),
        lambda: statistics.minimum_detectable_effect(1.0, 1),
        lambda: statistics.minimum_detectable_effect(math.nan, 12),
        lambda: statistics.minimum_detectable_effect(1.0, 12, power=0.05),
    ],
)
def test_arguments_out_of_range_are_refused(call):
    with pytest.raises(ValueError, match=r"must be between|p-values|deviation|chance"):
        call()
