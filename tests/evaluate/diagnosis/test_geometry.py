"""Effective rank and norms by hand, and intervals that move with the prompts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrm.evaluate.diagnosis.geometry import effective_rank, geometry, rank_of
from tests.evaluate.planted import pair


@pytest.mark.parametrize(
    ("values", "expected"), [([1, 1], 2.0), ([1, 0], 1.0), ([3, 1], 1.754765), ([5] * 7, 7.0)]
)
def test_effective_rank_by_hand(values, expected):
    assert effective_rank(np.array(values)) == pytest.approx(expected, abs=1e-6)
    assert effective_rank(10 * np.array(values)) == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=9))
def test_effective_rank_lies_between_one_and_their_number(values):
    found = effective_rank(np.array(values))
    if sum(values) == 0:
        assert np.isnan(found)
    else:
        assert 1 - 1e-9 <= found <= sum(v > 0 for v in values) + 1e-9


@pytest.mark.parametrize("shape", [(5, 12), (12, 5)])
def test_the_rank_is_of_the_singular_values(shape):
    rows = np.random.default_rng(0).normal(size=shape) + 3
    for centre in (False, True):
        kept = rows - rows.mean(axis=0) if centre else rows
        expected = effective_rank(np.linalg.svd(kept, compute_uv=False))
        assert rank_of(rows, centre) == pytest.approx(expected, rel=1e-6)


def test_states_in_one_direction_have_rank_one():
    direction = np.random.default_rng(1).normal(size=50)
    assert rank_of(np.outer(np.arange(1.0, 30), direction), centre=False) == pytest.approx(1)


def test_states_of_hand():
    states = [np.array([[3.0, 0.0], [0.0, 5.0]])] * 6
    found = geometry(states, [pair(f"{i}?", "a", "b") for i in range(6)])
    assert (found.size, found.rank.n, found.rank.prompts) == (2, 12, 6)
    # Norms 3 and 5 of each prompt; singular values 3 and 5 times the root of 6.
    assert (found.norm.value, found.dispersion.value) == (4.0, 0.25)
    assert (found.dispersion.low, found.dispersion.high) == (0.25, 0.25)
    shares = np.array([3, 5]) / 8
    assert found.rank.value == pytest.approx(np.exp(-(shares @ np.log(shares))))
    # Without any prompt the states have the same rank.
    assert found.rank.low == pytest.approx(found.rank.high)
    assert found.centred_rank.value == pytest.approx(1.0)


def test_the_interval_of_a_rank_covers_that_of_more_states():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(200, 2, 6)) * np.array([4, 2, 1, 0.5, 0.2, 0.1])
    pairs = [pair(f"{i}?", "a", "b") for i in range(200)]
    few = geometry(list(rows[:60]), pairs[:60])
    many = geometry(list(rows), pairs)
    assert few.rank.low < many.rank.value < few.rank.high
    assert few.rank.high - few.rank.low > many.rank.high - many.rank.low > 0


def test_states_that_are_not_finite_are_left_out():
    states = [np.array([[3.0, 4.0], [np.nan, 0.0]]), np.array([[3.0, 4.0], [np.inf, 0.0]])]
    found = geometry(states, [pair("1?", "a", "b"), pair("1?", "a", "b")])
    assert (found.norm.value, found.norm.n) == (5.0, 2)
    assert np.isnan(found.rank.low)
