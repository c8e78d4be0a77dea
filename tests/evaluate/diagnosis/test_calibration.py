"""Calibration: planted chances, hand-made bins, and temperatures that are known."""

import numpy as np
import pytest
from scipy.special import expit

from jaxrm.evaluate.diagnosis.calibration import (
    calibration,
    calibration_error,
    equal_mass,
    temperature,
)
from tests.evaluate.planted import pair


def scored(margins):
    """Pairs of different prompts with these margins."""
    pairs = [pair(f"{i}?", "a", "b") for i in range(len(margins))]
    return [np.array([m, 0.0]) for m in margins], pairs


@pytest.fixture(scope="module")
def calibrated():
    """Margins whose winner is the better response with chance sigmoid(|margin|)."""
    rng = np.random.default_rng(0)
    size = np.abs(rng.normal(0, 2, 2000))
    return np.where(rng.random(2000) < expit(size), size, -size)


@pytest.fixture(scope="module")
def at_one(calibrated):
    return calibration(*scored(calibrated))


def test_a_calibrated_scorer_shows_no_more_than_chance(at_one):
    found = at_one
    assert len(found.bins) == 10
    assert {b.right.n for b in found.bins} == {200}
    assert found.error.value < 0.04
    assert found.error.value < 2 * found.error_if_calibrated
    assert 0.015 < found.error_if_calibrated < 0.035
    # What noise adds to the error is taken off its interval, which reaches down to 0.
    assert found.error.low < 0.002 < found.error.high < 0.04
    assert found.confidence.value == pytest.approx(found.right.value, abs=0.02)
    assert found.temperature.low < 1 < found.temperature.high
    assert found.temperature.value == pytest.approx(1, abs=0.1)
    assert found.loss_scaled == pytest.approx(found.loss.value, abs=1e-3)


def test_a_scorer_three_times_too_sure_wants_three_as_temperature(calibrated, at_one):
    found = calibration(*scored(3 * calibrated))
    assert found.temperature.value == pytest.approx(3 * at_one.temperature.value)
    assert found.temperature.low > 2.5
    assert found.confidence.value > found.right.value + 0.1
    # The error is |right - confidence| in every bin, and its interval is around it.
    assert found.error.low <= found.error.value <= found.error.high
    assert found.error.low > 0.1
    assert found.loss_scaled == pytest.approx(at_one.loss_scaled)
    assert found.loss_scaled < found.loss.value


def test_two_margins_have_a_temperature_by_hand():
    # Three pairs of four right at |margin| 2: sigmoid(2 / T) = 3/4, so T = 2 / ln 3.
    assert temperature(np.array([2.0, 2, 2, -2]), np.ones(4)) == pytest.approx(2 / np.log(3))
    weighed = temperature(np.array([2.0, -2]), np.array([3.0, 1.0]))
    assert weighed == pytest.approx(2 / np.log(3))


def test_temperatures_at_the_ends():
    ones = np.ones(2)
    assert temperature(np.array([1.0, 0.0]), ones) == 0.0
    assert temperature(np.array([1.0, -1.0]), ones) == np.inf
    assert temperature(np.array([1.0, -3.0]), ones) == np.inf
    assert np.isnan(temperature(np.zeros(0), np.zeros(0)))
    assert temperature(np.array([1.0, -3.0]), np.array([1.0, 0.0])) == 0.0
    assert temperature(np.array([1e-6, 1e-6, -1e-6]), np.ones(3)) == pytest.approx(1e-6 / np.log(2))


def test_a_temperature_has_no_upper_end_where_no_order_may_be_seen():
    margins = np.array([1.0, -1, 2, -1, 1, -2, 1, 1, -1, 2, 1, -1])
    found = calibration(*scored(margins)).temperature
    assert found.value == temperature(margins, np.ones(12))
    assert 0 < found.low < found.value < found.high == np.inf
    # Where all pairs are right none is best, with or without any of them.
    perfect = calibration(*scored(np.arange(1.0, 9))).temperature
    assert perfect.value == 0
    assert np.isnan([perfect.low, perfect.high]).all()


def test_figures_by_hand():
    # Confidences 3/4, 3/4, 3/4 and 1/2; the last is a tie and not right.
    found = calibration(*scored(np.array([np.log(3), np.log(3), -np.log(3), 0.0])))
    assert found.right.value == 0.5
    assert found.confidence.value == pytest.approx((0.75 * 3 + 0.5) / 4)
    (only,) = found.bins
    assert (only.confidence, only.right.value) == (pytest.approx(0.6875), 0.5)
    assert found.error.value == pytest.approx(0.1875)
    assert found.brier.value == pytest.approx((2 * 0.25**2 + 0.75**2 + 0.5**2) / 4)
    assert found.loss.value == pytest.approx(-np.log([0.75, 0.75, 0.25, 0.5]).mean())
    # Of the three that are not tied 2 of 3 are right: sigmoid(ln 3 / T) = 2/3.
    assert found.temperature.value == pytest.approx(np.log(3) / np.log(2))
    assert found.loss_scaled == pytest.approx(-np.log([2 / 3, 2 / 3, 1 / 3, 0.5]).mean())


def test_the_error_weighs_bins_by_their_mass():
    confidence, right = np.array([0.6, 0.6, 0.9, 0.9]), np.array([True, False, True, True])
    bins = np.array([0, 0, 1, 1])
    # Bins miss by .1 each; bin 0 alone, by .1; with three times the first pair, (1.5 - .1)/3.
    assert calibration_error(confidence, right, bins, np.ones(4)) == pytest.approx(0.1)
    tripled = calibration_error(confidence, right, bins, np.array([3.0, 1, 0, 0]))
    assert tripled == pytest.approx((3 * 0.4 - 0.6) / 4)
    assert np.isnan(calibration_error(confidence, right, bins, np.zeros(4)))


def test_bins_have_equal_mass_and_equal_confidences_stay_together():
    rng = np.random.default_rng(1)
    assert np.bincount(equal_mass(rng.random(200))).tolist() == [20] * 10
    assert np.bincount(equal_mass(rng.random(60))).tolist() == [20] * 3
    assert equal_mass(rng.random(30)).tolist() == [0] * 30
    tied = equal_mass(np.concatenate([np.full(150, 0.5), np.linspace(0.6, 1, 50)]))
    assert set(tied[:150]) == {0}
    assert tied.max() >= 1
    assert equal_mass(np.zeros(0)).size == 0


def test_pairs_without_rewards_are_left_out():
    found = calibration(*scored(np.array([1.0, np.nan, -2.0])))
    assert (found.missing, found.right.n, found.right.value) == (1, 2, 0.5)
    nothing = calibration(*scored(np.array([np.nan, np.nan])))
    assert nothing.bins == ()
    assert np.isnan([nothing.error.value, nothing.temperature.value, nothing.loss_scaled]).all()
    perfect = calibration(*scored(np.array([1.0, 2.0])))
    assert (perfect.temperature.value, perfect.loss_scaled) == (0.0, 0.0)
