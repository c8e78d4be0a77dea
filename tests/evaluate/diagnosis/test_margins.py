"""Margins of every ordered pair, and what has no order or no reward."""

import numpy as np
import pytest

from jaxrm.data.comparison import Comparison
from jaxrm.errors import DataError
from jaxrm.evaluate.diagnosis.margins import flat, margins, prompt_numbers, response_prompts
from tests.evaluate.planted import pair

RANKED = Comparison("p", ("a", "b", "c"), ranks=(1, 0, 1))
PAIR = pair("q", "good", "bad")


def test_every_ordered_pair_has_a_margin():
    found = margins([np.array([1.0, 3.0, np.nan]), np.array([0.5, 2.0])], [RANKED, PAIR])
    np.testing.assert_array_equal(found.values, [2.0, np.nan, -1.5])
    np.testing.assert_array_equal(found.weight, [0.5, 0.5, 1.0])
    np.testing.assert_array_equal(found.pair_prompts, [0, 0, 1])
    np.testing.assert_array_equal(found.share(found.values > 0), [0.5, 0.0])


def test_prompts_are_told_apart_by_what_they_say():
    same = [PAIR, RANKED, pair("q", "x", "y")]
    assert prompt_numbers(same).tolist() == [0, 1, 0]
    assert response_prompts(same).tolist() == [0, 0, 1, 1, 1, 0, 0]


def test_what_is_not_finite_is_no_reward():
    np.testing.assert_array_equal(flat([np.array([1.0, np.inf]), np.array([-np.inf])]),
                                  [1.0, np.nan, np.nan])  # fmt: skip


def test_a_row_without_an_order_is_named():
    unranked = Comparison("p", ("a", "b"), where="in.jsonl, row 3")
    with pytest.raises(DataError, match="in.jsonl, row 3: field 'ranks': missing"):
        margins([np.zeros(2), np.zeros(2)], [PAIR, unranked])
    tied = Comparison("p", ("a", "b"), ranks=(0, 0), where="in.jsonl, row 1")
    with pytest.raises(DataError, match="in.jsonl, row 1: field 'ranks': neither"):
        margins([np.zeros(2)], [tied])
    with pytest.raises(DataError, match="comparison: field 'ranks'"):
        margins([], [])


def test_scores_belong_to_responses():
    with pytest.raises(ValueError, match=r"\(3,\) scores for 2 responses"):
        margins([np.zeros(3)], [PAIR])
