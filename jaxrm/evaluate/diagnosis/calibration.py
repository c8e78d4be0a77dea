"""Can margins be read as chances? sigmoid(margin) against how often the order is right.

Bradley-Terry says that a response whose reward is higher by m is the better one with chance
sigmoid(m). So of a pair the scorer's confidence in the winner that it picks is sigmoid(|m|), and it
is calibrated if of all pairs with confidence c the share c is right (Guo et al. 2017, On
Calibration of Modern Neural Networks). Labels that are noisy make every scorer look too sure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.optimize
from scipy.special import expit, ndtr

from jaxrm.data.comparison import Comparison
from jaxrm.evaluate.clusters import SHARE, Clustering
from jaxrm.evaluate.diagnosis.margins import margins
from jaxrm.evaluate.estimates import Estimate, estimate, mean, share

BINS = 10
"""Bins of the reliability diagram, if there are pairs enough."""

LEAST = 20
"""Pairs in a bin, at least, where there are several bins."""

SIMULATIONS = 1000
"""How often labels are drawn to see what a calibrated scorer's error would be."""


@dataclasses.dataclass(frozen=True)
class ReliabilityBin:
    """Pairs of about the same confidence: its mean, and the share of them that is right."""

    confidence: float
    right: Estimate


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What confidence is worth. Every figure is over pairs; one with equal rewards has confidence
    1/2 and is not right.

    Attributes:
      bins: of equal mass, the least confident first.
      confidence: mean confidence.
      right: share of pairs that are right.
      excess: `confidence` minus `right`, pair by pair: above 0 the scorer is too sure.
      error: expected calibration error, the mean over bins, by their mass, of |share right -
        confidence|. Noise makes it larger, and its interval is lower by as much as it is expected
        to.
      error_if_calibrated: the mean error that a calibrated scorer with the same confidences would
        show on as many pairs, by chance alone.
      brier: mean squared difference between sigmoid(margin), better over worse, and 1 (Brier 1950);
        .25 for a coin.
      loss, loss_scaled: mean of -log sigmoid(margin), in nats, as it is and at `temperature`; .693
        for a coin.
      temperature: the T whose sigmoid(margin / T) has the least loss. Above 1 the scorer is too
        sure; 0 where every pair is right, infinite (null in JSON, with n above 0) where no T beats
        a coin.
      missing: pairs left out because they have no rewards.
    """

    bins: tuple[ReliabilityBin, ...]
    confidence: Estimate
    right: Estimate
    excess: Estimate
    error: Estimate
    error_if_calibrated: float
    brier: Estimate
    loss: Estimate
    loss_scaled: float
    temperature: Estimate
    missing: int


def calibration(scores: Sequence[np.ndarray], comparisons: Sequence[Comparison]) -> Calibration:
    """The figures of calibration, on rewards as they are.

    Args:
      scores: float [K] for each comparison; NaN where there is none.

    Raises:
      DataError: as `margins`.
    """
    of_pairs = margins(scores, comparisons)
    present = ~np.isnan(of_pairs.values)
    values, prompts = of_pairs.values[present], of_pairs.pair_prompts[present]
    weight = of_pairs.weight[present]
    confidence, right = expit(np.abs(values)), values > 0
    bins = equal_mass(confidence)
    members = [np.flatnonzero(bins == b) for b in range(bins.max() + 1 if bins.size else 0)]
    scaled = temperature(values, weight)
    return Calibration(
        bins=tuple(
            ReliabilityBin(float(confidence[inside].mean()), share(right[inside], prompts[inside]))
            for inside in members
        ),
        confidence=mean(confidence, prompts, (0.5, 1.0)),
        right=share(right, prompts),
        excess=mean(confidence - right, prompts, (-0.5, 1.0)),
        error=_error(confidence, right, bins, prompts),
        error_if_calibrated=_by_chance(confidence, bins),
        brier=mean(expit(-values) ** 2, prompts, SHARE),
        loss=mean(np.logaddexp(0, -values), prompts),
        loss_scaled=_scaled_loss(values, weight, scaled),
        temperature=_temperature(values, weight, prompts),
        missing=int((~present).sum()),
    )


def equal_mass(confidence: np.ndarray) -> np.ndarray:
    """Int [pairs]: which bin each pair is in, of up to `BINS` with as many pairs each as can be.

    Pairs of equal confidence share a bin, so that the order of rows says nothing.
    """
    if not confidence.size:
        return np.zeros(0, int)
    count = int(np.clip(confidence.size // LEAST, 1, BINS))
    places = np.searchsorted(np.sort(confidence), confidence)
    return np.unique(places * count // confidence.size, return_inverse=True)[1]


def calibration_error(
    confidence: np.ndarray, right: np.ndarray, bins: np.ndarray, weight: np.ndarray
) -> float:
    """The expected calibration error: sum over bins of |sum of weight * (right - confidence)|, over
    the sum of all weights."""
    gaps = np.bincount(bins, weight * (right - confidence))
    return float(np.abs(gaps).sum() / weight.sum()) if weight.sum() else np.nan


def temperature(margins: np.ndarray, weight: np.ndarray) -> float:
    """The T >= 0 of least weighted loss -log sigmoid(margin / T): 0 where no margin is against the
    labels, infinite where the margins are no better than a coin at any T.

    Args:
      margins: float [pairs], better minus worse, finite.
      weight: float [pairs], at least 0.
    """
    values, weight = margins[weight > 0], weight[weight > 0]

    def slope(sharpness: float) -> float:
        """Minus the derivative of the loss by 1 / T, which falls with it."""
        return float(weight @ (values * expit(-sharpness * values)))

    if not values.size or slope(0) <= 0:
        return np.inf if values.size else np.nan
    if (values >= 0).all():
        return 0.0
    above = 1 / np.abs(values).max()
    while slope(above) > 0:
        above *= 2
    return 1 / scipy.optimize.brentq(slope, 0, above, rtol=1e-9)


def _scaled_loss(values: np.ndarray, weight: np.ndarray, scale: float) -> float:
    if not values.size:
        return np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where a margin is 0 the chance is 1/2 at every temperature, 0 among them.
        scaled = np.where(values == 0, 0.0, values / scale)
    return float(weight @ np.logaddexp(0, -scaled) / weight.sum())


def _temperature(values: np.ndarray, weight: np.ndarray, prompts: np.ndarray) -> Estimate:
    """The best temperature T, with the interval of 1 / T, which is 0 where no T beats a coin."""

    def sharpness(kept: np.ndarray) -> float:
        best = temperature(values, kept * weight)
        return 1 / best if best else np.inf

    inverse = estimate(sharpness, prompts)
    with np.errstate(divide="ignore"):
        low, high = 1 / np.maximum([inverse.high, inverse.low], 0)
    return dataclasses.replace(
        inverse, value=temperature(values, weight), low=float(low), high=float(high)
    )


def _error(
    confidence: np.ndarray, right: np.ndarray, bins: np.ndarray, prompts: np.ndarray
) -> Estimate:
    gaps = right - confidence
    # Each bin's gap is counted the way in which it lies.
    gap = mean(np.sign(np.bincount(bins, gaps))[bins] * gaps, prompts)
    excess = sum(
        (bins == b).mean() * _excess(gaps[bins == b], prompts[bins == b]) for b in np.unique(bins)
    )
    low, high = np.maximum([gap.low - excess, gap.high - excess], 0).tolist()
    return dataclasses.replace(gap, low=low, high=high)


def _excess(gaps: np.ndarray, prompts: np.ndarray) -> float:
    """By how much noise alone makes the size of a mean gap exceed its true one: the mean of a
    folded normal distribution, less its centre. The square of what was seen is too large by the
    variance."""
    variance = Clustering.of(prompts).spread(gaps).variance
    deviation, size = np.sqrt(variance), np.sqrt(max(gaps.mean() ** 2 - variance, 0.0))
    if deviation == 0:
        return 0.0
    folded = deviation * np.sqrt(2 / np.pi) * np.exp(-((size / deviation) ** 2) / 2)
    return float(folded - 2 * size * ndtr(-size / deviation))


def _by_chance(confidence: np.ndarray, bins: np.ndarray, seed: int = 0) -> float:
    """The mean error of pairs that are right exactly as often as they are confident."""
    if not confidence.size:
        return np.nan
    generator = np.random.default_rng(seed)
    ones = np.ones(confidence.size)
    errors = [
        calibration_error(confidence, generator.random(confidence.size) < confidence, bins, ones)
        for _ in range(SIMULATIONS)
    ]
    return float(np.mean(errors))
