"""Runs are found by what they are, and what is missing or contradicts itself is named."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from jaxrm.errors import DataError
from jaxrm.study.records import common, drift, macro, scores, standard_error, stopped
from tests.study.toy_records import A, main_part, record, study


def test_only_the_chosen_trial_counts():
    other = record("bt", 100, 0.1, learning_rate=3e-4)
    assert study([other]).chosen("bt", A) == {}
    assert list(study([other, record("bt", 100)]).chosen("bt", A)) == [100]


def test_common_seeds_and_what_is_missing():
    cells = {"a": {1: {}, 2: {}, 3: {}}, "b": {2: {}, 3: {}}, "c": {3: {}}, "d": {}}
    seeds, sentence = common(cells)
    assert seeds == [3]
    assert sentence == (
        "n = 1 seeds, those that all with runs have. "
        "Missing: b (seed 1); c (seeds 1, 2); d (all seeds)."
    )
    assert common({"a": cells["a"], "b": cells["b"]}, planned=(2, 3)) == ([2, 3], "n = 2 seeds.")
    assert common({}) == ([], "n = 0 seeds.")


def test_scores_of_seeds_and_their_standard_error():
    runs = {100: record("bt", 100, 0.8), 101: record("bt", 101, 0.82)}
    accuracy = scores(runs, (100, 101), macro("ood_prompt"))
    assert accuracy.tolist() == [0.8, 0.82]
    # The standard deviation of the two is .02 / sqrt(2), and that over sqrt(2) is .01.
    assert standard_error(accuracy) == pytest.approx(0.01)
    assert math.isnan(standard_error(accuracy[:1]))
    assert scores(runs, (100,), stopped) == 0.75
    assert np.isnan(scores(runs, (100, 102), drift("id"))).all()


def test_records_that_contradict_each_other_are_named():
    with pytest.raises(DataError, match="two records of seed 100"):
        study([record("bt", 100), record("bt", 100, part="sizes")])
    with pytest.raises(DataError, match="unknown method 'dpo'"):
        study([record("bt", 100) | {"method": "dpo"}])
    odd = dataclasses.replace(A, pairs=7)
    with pytest.raises(DataError, match="part main has none of its conditions: 7 pairs"):
        study([record("bt", 100, condition=odd)])
    head = {"kind": "mlp", "layers": 1}
    with pytest.raises(DataError, match="heads differ outside the part heads"):
        study([record("bt", 100), record("bt", 101, part="sizes", head=head)])


def test_a_head_of_the_part_heads_leaves_the_study_its_own():
    deep = record("bt", 100, 0.9, part="heads", head={"kind": "mlp", "layers": 2})
    given = study([*main_part({}), deep])
    assert given.head == ("linear", 1)
    assert given.chosen("bt", A)[100]["splits"]["ood_prompt"]["macro"] == 0.8
    assert given.seeds("heads") == {100}
