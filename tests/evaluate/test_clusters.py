"""Intervals and tests over prompts: by hand, and by how often they hold with few prompts.

The simulations draw prompts of unequal size whose values are more or less alike, and count how
often an interval of 95 % holds the truth, and a test at .05 rejects what is true. A percentile
bootstrap over prompts falls short of both, and of credits so does Wilson's interval with a normal
quantile.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrm.evaluate.clusters import (
    LEAST,
    SHARE,
    UNBOUNDED,
    Clustering,
    interval,
    jackknife,
    mean_interval,
    p_of_zero,
    paired_items,
)

STUDENT = {4: 2.776445, 5: 2.570582, 9: 2.262157, 27: 2.051831}
"""Quantiles of Student's t at .975, by degrees of freedom."""

CREDITS = (-1.0, 1.0)
"""What the difference of two credits from 0 to 1 lies between."""


# By hand


def test_without_bounds_the_interval_is_student_s():
    # Mean 3, variance 10 / 4 = 2.5, and so a standard error of sqrt(2.5 / 5).
    reach = STUDENT[4] * math.sqrt(0.5)
    assert mean_interval([1, 2, 3, 4, 5]) == pytest.approx((3 - reach, 3 + reach), abs=1e-5)
    # Each value three times says no more than once.
    again = mean_interval(np.repeat([1, 2, 3, 4, 5], 3), np.repeat(list("abcde"), 3))
    assert again == pytest.approx((3 - reach, 3 + reach), abs=1e-5)


def test_a_share_s_interval_is_wilson_s_with_student_s_quantile():
    # 8 of 10 vary by .16 / 9, as 9 independent values would: n of Wilson's formula, at t(9)^2.
    square = STUDENT[9] ** 2
    middle = (0.8 + square / 18) / (1 + square / 9)
    reach = STUDENT[9] * math.sqrt(0.16 / 9 + square / (4 * 81)) / (1 + square / 9)
    found = mean_interval([1] * 8 + [0] * 2, bounds=SHARE)
    assert found == pytest.approx((middle - reach, middle + reach), abs=1e-5)
    mirrored = mean_interval([0] * 8 + [1] * 2, bounds=SHARE)
    assert mirrored == pytest.approx((1 - found[1], 1 - found[0]))


def test_a_share_of_1_has_its_doubt():
    # Wilson's lower end at p = 1 is n / (n + t^2).
    low, high = mean_interval([1] * 28, bounds=SHARE)
    assert (low, high) == (pytest.approx(28 / (28 + STUDENT[27] ** 2), abs=1e-5), 1)
    # Four copies of each of 28 prompts say no more.
    copies = mean_interval([1] * 112, np.repeat(np.arange(28), 4), bounds=SHARE)
    assert copies == pytest.approx((low, high))
    assert mean_interval([0] * 28, bounds=SHARE) == pytest.approx((0, 1 - low))


def test_clusters_of_unequal_size_by_hand():
    # Sizes 1, 1, 1, 1, 4 and a mean of 1/2: deviations -1/2 and +1/2 of the small ones, 0 of the
    # large one. A small one moves the mean by 1/2 * 1/8, made larger by 1 / sqrt(1 - 1/8).
    spread = Clustering.of([0, 1, 2, 3, 4, 4, 4, 4]).spread(np.array([0, 0, 1, 1, 0, 1, 0, 1.0]))
    assert spread.variance == pytest.approx(4 * (1 / 16) ** 2 * 8 / 7)
    # Squared shares 1/64 (four times) and 1/4: (20 / 64)^2 / (4 / 64^2 + 1 / 16) = 20^2 / 260.
    assert spread.freedom == 1.0  # 1.54 - 1, and never below 1
    even = Clustering.of([0, 1, 2, 3, 4, 5]).spread(np.arange(6.0))
    assert even.freedom == pytest.approx(5)


def test_a_sum_over_groups_by_hand():
    # Two groups of six prompts each: variances of means 1.5 / 6 (values 0..4, by hand below) add.
    clusters, groups = np.arange(12), np.repeat([0, 1], 6)
    values = np.array([0, 0, 2, 2, 1, 1, 5, 5, 5, 5, 6, 4.0])
    found = Clustering.of(clusters, groups).spread(values)
    assert found.variance == pytest.approx((4 / 5 / 6) + (2 / 5 / 6))
    assert found.freedom == pytest.approx(11)
    # Of the same prompts in both groups, deviations add before they are squared.
    shared = Clustering.of(np.tile(np.arange(6), 2), groups).spread(np.tile(values[:6], 2))
    assert shared.variance == pytest.approx(4 * 4 / 5 / 6)
    assert shared.freedom == pytest.approx(5)


def test_a_group_that_counts_for_nothing_takes_nothing_away():
    clusters, groups = np.array([0, 1, 2, 3, 4, 5]), np.array([0, 0, 0, 0, 0, 1])
    values = np.array([1.0, 2, 3, 4, 5, 0])
    clustering = Clustering.of(clusters, groups)
    found = clustering.spread(values, weight=np.array([1.0, 0.0]))
    assert found.variance == pytest.approx(0.5)
    assert found.freedom == pytest.approx(4)
    assert np.isnan(clustering.spread(values).variance)  # the second group is of one prompt


def test_fewer_than_the_least_number_of_prompts_have_no_interval():
    values, prompts = np.arange(2.0 * LEAST), np.repeat(np.arange(LEAST), 2)
    assert np.isfinite(mean_interval(values, prompts)).all()
    few = values[:-2], prompts[:-2]
    assert mean_interval(*few) == UNBOUNDED
    assert mean_interval(few[0] / 20, few[1], bounds=SHARE) == UNBOUNDED
    found = paired_items(*few)
    assert (found.low, found.high, found.p, found.n) == (-math.inf, math.inf, 1.0, LEAST - 1)


def test_the_jackknife_of_a_mean_is_its_spread():
    values = np.random.default_rng(0).normal(size=40)
    prompts = np.repeat(np.arange(10), 4)
    found = jackknife(lambda kept: float(kept @ values / kept.sum()), prompts)
    expected = Clustering.of(prompts).spread(values)
    assert found.variance == pytest.approx(expected.variance)
    assert found.freedom == pytest.approx(expected.freedom)


def test_many_clusters_are_left_out_in_parts():
    values = np.random.default_rng(0).normal(size=600)
    asked = []

    def mean(kept):
        asked.append(kept.sum())
        return float(kept @ values / kept.sum())

    found = jackknife(mean, np.arange(600), parts=50)
    assert asked == [600] + [588] * 50
    assert found.freedom == pytest.approx(49)
    assert found.variance == pytest.approx(values.var() / 600, rel=0.5)


def test_a_figure_without_which_there_is_none_has_no_spread():
    assert np.isnan(jackknife(lambda kept: float(kept[0]) or np.nan, np.arange(9)).variance)
    assert np.isnan(jackknife(lambda kept: np.inf, np.arange(9)).variance)
    with np.errstate(divide="ignore"):
        assert np.isnan(jackknife(lambda kept: float(1 / kept[0]), np.arange(9)).variance)
    # A share that every part agrees on has the doubt of one that is alike: Wilson's, of 9 of 9.
    sure = jackknife(lambda kept: 1.0, np.arange(9), SHARE)
    assert interval(1.0, sure, SHARE) == pytest.approx(mean_interval([1] * 9, bounds=SHARE))


def test_paired_items_by_hand():
    # Mean 1, standard error 1 / sqrt(5) * sqrt(2.5): t = sqrt(2), whose p at 4 is .23.
    found = paired_items([-1, 0, 1, 2, 3], bounds=UNBOUNDED)
    assert (found.mean, found.n) == (1, 5)
    assert found.p == pytest.approx(0.2302, abs=1e-3)
    assert paired_items([0, 0, 0, 0, 0]).p == 1
    # Differences that all have one sign are no proof before the seventh: t(6) is 2.45 < sqrt(7).
    assert paired_items([1] * 6).p > 0.05 > paired_items([1] * 7).p
    assert paired_items([0] * 10, bounds=CREDITS).high > 0.2


@given(
    st.lists(st.integers(-3, 3), min_size=5, max_size=14),
    st.integers(1, 3),
    st.sampled_from([0.5, 0.9, 0.95]),
    st.sampled_from([None, (-1.0, 1.0), UNBOUNDED]),
)
def test_p_and_the_interval_say_one_thing(thirds, copies, level, bounds):
    differences = np.repeat(np.array(thirds) / 3, copies)
    found = paired_items(differences, np.arange(len(differences)) // 2, level, bounds)
    assert (found.low > 0 or found.high < 0) == (found.p <= 1 - level)
    assert found.low <= found.mean + 1e-12
    assert found.mean - 1e-12 <= found.high
    mirrored = paired_items(-differences, np.arange(len(differences)) // 2, level, bounds)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    assert mirrored.p == pytest.approx(found.p)


@given(st.lists(st.floats(0, 1), min_size=5, max_size=12), st.sampled_from([0.5, 0.95]))
def test_a_share_s_interval_holds_the_share_and_stays_between_0_and_1(values, level):
    low, high = mean_interval(values, level=level, bounds=SHARE)
    assert 0 <= low <= np.mean(values) + 1e-12
    assert np.mean(values) - 1e-12 <= high <= 1


@given(st.lists(st.floats(-5, 5), min_size=5, max_size=12), st.randoms())
def test_the_order_and_the_names_of_prompts_say_nothing(values, random):
    prompts = [f"prompt {i // 2}" for i in range(len(values))]
    places = random.sample(range(len(values)), len(values))
    shuffled = mean_interval([values[i] for i in places], [prompts[i] for i in places])
    assert shuffled == pytest.approx(mean_interval(values, prompts))


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [1.0, math.inf], [[1.0, 2.0]]])
def test_broken_values_are_refused(values):
    with pytest.raises(ValueError, match="one row of finite numbers"):
        mean_interval(values)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_interval([1, 2, 3, 4, 5], level=1.0),
        lambda: mean_interval([1, 2], ["a"]),
        lambda: mean_interval([0.5, 1.5], bounds=SHARE),
        lambda: paired_items([0.5, -1.5], bounds=CREDITS),
    ],
)
def test_arguments_out_of_range_are_refused(call):
    with pytest.raises(ValueError, match=r"must be between|clusters|bounds"):
        call()


# How often they hold

SIZES = {
    "equal": lambda count: np.full(count, 4),
    "rising": lambda count: np.round(np.linspace(1, 10, count)).astype(int),
    "single": lambda count: np.ones(count, int),
}
"""How many values each of so many prompts has."""


def credits(generator, sizes, mean, alike):
    """0 or 1; within a prompt as alike as their intra-cluster correlation says, 0 to 1."""
    chance = np.full(len(sizes), mean)
    if alike == 1:
        chance = (generator.random(len(sizes)) < mean).astype(float)
    elif alike > 0:
        chance = generator.beta(mean * (1 / alike - 1), (1 - mean) * (1 / alike - 1), len(sizes))
    return (generator.random(sizes.sum()) < np.repeat(chance, sizes)).astype(float)


def mixed(draw):
    """Values that are their prompt's own with chance sqrt(alike): that is how alike they are."""

    def values(generator, sizes, mean, alike):
        shared = np.repeat(draw(generator, mean, len(sizes)), sizes)
        own = draw(generator, mean, sizes.sum())
        return np.where(generator.random(sizes.sum()) < math.sqrt(alike), shared, own)

    return values


grades = mixed(lambda generator, mean, n: generator.beta(4 * mean, 4 * (1 - mean), n))
"""From 0 to 1, skewed towards 0 where their mean is near 1."""

rewards = mixed(lambda generator, mean, n: generator.normal(mean, 1, n))


def drawn(values, count, sizes, mean, alike, repeats):
    """The clustering of so many prompts, and so many draws of their values."""
    generator, sizes = np.random.default_rng(0), SIZES[sizes](count)
    clustering = Clustering.of(np.repeat(np.arange(count), sizes))
    return clustering, [values(generator, sizes, mean, alike) for _ in range(repeats)]


def coverage(values, bounds, *setting, repeats):
    """How often the interval of the mean holds it."""
    *_, mean, _alike = setting
    clustering, draws = drawn(values, *setting, repeats)
    intervals = [interval(x.mean(), clustering.spread(x, *bounds), bounds) for x in draws]
    return np.mean([low <= mean <= high for low, high in intervals])


def level(values, bounds, *setting, repeats):
    """How often the test tells two scorers of one law apart."""
    clustering, draws = drawn(values, *setting, 2 * repeats)
    gains = [ours - theirs for ours, theirs in zip(draws[::2], draws[1::2], strict=True)]
    p = [p_of_zero(x.mean(), clustering.spread(x, *bounds), bounds) for x in gains]
    return np.mean(np.array(p) <= 0.05)


LAWS = {
    "credits": (credits, SHARE, CREDITS, (0.5, 0.8, 0.9)),
    "grades": (grades, SHARE, CREDITS, (0.5, 0.8, 0.9)),
    "rewards": (rewards, UNBOUNDED, UNBOUNDED, (0.5,)),
}
"""By name: values, the bounds of their mean and of a difference, and means to try."""


def settings(count, means):
    return [
        (count, sizes, mean, alike)
        for sizes in SIZES
        for mean in means
        # Prompts of a single value are alike in any case.
        for alike in ((1.0,) if sizes == "single" else (0.0, 0.3, 1.0))
    ]


@pytest.mark.parametrize("count", [5, 10, 20])
@pytest.mark.parametrize("law", list(LAWS))
def test_with_few_prompts_intervals_cover_and_tests_reject_as_they_say(law, count):
    """300 draws of a chance of .95 show .91 or more, and of .05 .09 or less, but once in 1,000."""
    values, bounds, of_gains, means = LAWS[law]
    for setting in settings(count, means):
        assert coverage(values, bounds, *setting, repeats=300) >= 0.91, setting
        assert level(values, of_gains, *setting, repeats=300) <= 0.09, setting


@pytest.mark.slow
def test_coverage_and_level_in_every_setting():
    """The same with draws enough to tell .93 from .95; prints the table."""
    print("\nlaw      prompts  sizes   mean  alike  coverage  level")
    for law, (values, bounds, of_gains, means) in LAWS.items():
        for setting in (s for count in (5, 10, 20) for s in settings(count, means)):
            held = coverage(values, bounds, *setting, repeats=3000)
            wrong = level(values, of_gains, *setting, repeats=3000)
            count, sizes, mean, alike = setting
            row = f"{law:8s} {count:7d}  {sizes:6s}  {mean:.2f}  {alike:5.1f}"
            print(f"{row}  {held:8.3f}  {wrong:.3f}")
            assert held >= 0.93, (law, setting)
            assert wrong <= 0.06, (law, setting)
