"""Labels from roll-outs, what is left out after an error, and what two opinions agree on."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from jaxrm.data.comparison import Comparison, Message, join_steps
from jaxrm.errors import DataError
from jaxrm.evaluate.benchmarks import processbench
from jaxrm.methods import process_labels
from jaxrm.methods.process_labels import NO_ERROR

NAN = math.nan


def solutions(*labels):
    """One comparison of a response for each of these rows of labels."""
    joined = [join_steps(["x"] * len(row), row) for row in labels]
    return Comparison(
        (Message("user", "?"),),
        tuple((Message("assistant", text),) for text, _ in joined),
        steps=tuple(steps for _, steps in joined),
        where="a.jsonl, row 4",
    )


def labels_of(comparison):
    return [[step.label for step in steps] for steps in comparison.steps]


def test_a_step_is_right_if_any_completion_of_it_is():
    outcomes = [[True] * 8, [False] * 7 + [True], [False] * 8, [True, False]]
    np.testing.assert_array_equal(process_labels.any_correct(outcomes), [1, 1, 0, 1])
    np.testing.assert_array_equal(process_labels.share_correct(outcomes), [1, 0.125, 0, 0.5])
    for label in (process_labels.any_correct, process_labels.share_correct):
        with pytest.raises(DataError, match="step 1 has no completions"):
            label([[True], []])


@pytest.mark.parametrize(
    ("labels", "first", "kept"),
    [
        ([1, 1, 1], NO_ERROR, [True, True, True]),
        ([1, 0, 1, 0], 1, [True, True, False, False]),
        ([0, 1], 0, [True, False]),
        ([1, 0], 1, [True, True]),
        ([0.5, 0.49], 1, [True, True]),
        ([NAN, 1], NO_ERROR, [True, True]),
        ([], NO_ERROR, []),
    ],
)
def test_what_comes_after_the_first_error(labels, first, kept):
    assert process_labels.first_error(labels) == first
    np.testing.assert_array_equal(process_labels.until_first_error(labels), kept)
    alone = [label if keep else NAN for label, keep in zip(labels, kept, strict=True)]
    np.testing.assert_array_equal(process_labels.up_to_first_error(labels), alone)


def test_the_threshold_is_the_callers():
    assert process_labels.first_error([0.3, 0.1], threshold=0.2) == 1
    np.testing.assert_array_equal(
        process_labels.until_first_error([0.3, 0.1, 0.9], threshold=0.2), [True, True, False]
    )


def test_the_truth_table_of_the_consensus():
    places = (NO_ERROR, 0, 1)
    table = list(itertools.product(places, places))
    kept = process_labels.consensus(*zip(*table, strict=True))
    assert [both for both, keep in zip(table, kept, strict=True) if keep] == [
        (NO_ERROR, NO_ERROR),
        (0, 0),
        (1, 1),
    ]


def test_a_consensus_on_nothing_is_an_error():
    with pytest.raises(DataError, match="agree on none of 2 solutions"):
        process_labels.consensus([0, NO_ERROR], [NO_ERROR, 1])
    with pytest.raises(ValueError, match="1 solutions judged and 2 estimated"):
        process_labels.consensus([0, 1], [0])


def test_a_comparison_is_labelled_anew():
    known = solutions([0.0, 0.0], [1.0])
    again = process_labels.labelled(known, [[1, 0.5], [NAN]])
    np.testing.assert_array_equal(labels_of(again)[0], [1, 0.5])
    assert math.isnan(labels_of(again)[1][0])
    assert [step.end for step in again.steps[0]] == [1, 3]
    assert again.responses == known.responses


def test_steps_after_an_error_lose_their_label():
    cut = process_labels.without_later(solutions([1.0, 0.0, 1.0], [1.0, 1.0]))
    first, second = labels_of(cut)
    np.testing.assert_array_equal(first, [1, 0, NAN])
    assert second == [1, 1]


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ([[1, 0]], "field 'steps': has 2 entries for labels of 1"),
        ([[1, 0], [1, 1]], r"field 'steps\[1\]': has 1 entries for 2 labels"),
    ],
)
def test_labels_that_do_not_match_the_steps(labels, problem):
    with pytest.raises(DataError, match=r"a\.jsonl, row 4: " + problem):
        process_labels.labelled(solutions([1.0, 1.0], [1.0]), labels)


def test_there_must_be_steps_to_label():
    plain = Comparison("a", ("b",), where="b, row 1")
    with pytest.raises(DataError, match="b, row 1: field 'steps': there are none"):
        process_labels.labelled(plain, [[1]])
    with pytest.raises(DataError, match="there are none"):
        process_labels.without_later(plain)


def test_who_never_sees_an_error_has_no_f1():
    """ProcessBench's measure (`jaxrm.evaluate`) of these labels' first errors."""
    never = [process_labels.first_error([1, 1]) == wrong for wrong in (0, 1)]
    assert processbench.f1(float(np.mean(never)), 1.0) == 0


@pytest.mark.parametrize(
    ("labels", "classes", "problem"),
    [
        ([1, 0.5, NAN, 0], 0, None),
        ([2, 0, NAN], 3, None),
        ([1, -1], 0, r"must be a share in \[0, 1\], found -1"),
        ([0, 1.5], 0, "found 1.5"),
        ([0, -1], 3, "must be a class from 0 to 2, found -1"),
        ([0, 3], 3, "found 3"),
        ([0, 0.5], 3, "found 0.5"),
    ],
)
def test_labels_are_looked_at_before_a_loss_takes_them(labels, classes, problem):
    data = [solutions([1]), solutions([NAN], labels)]
    if problem is None:
        process_labels.check(data, classes)
        return
    with pytest.raises(
        DataError, match=rf"a.jsonl, row 4: field 'steps\[1\]\[1\].label': .*{problem}"
    ):
        process_labels.check(data, classes)


def test_data_without_a_label_teaches_steps_nothing():
    for data in ([], [solutions([NAN, NAN])], [Comparison("p", ("a",))]):
        with pytest.raises(DataError, match="no step of the comparisons has a label"):
            process_labels.check(data)
