"""Contrast Instructions by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxrm.errors import DataError
from jaxrm.evaluate.benchmarks.contrast_instructions import CONTRAST_INSTRUCTIONS, ITEMS
from tests.evaluate.benchmarks.scoring import complete, figures, means, read

OFFICIAL, BOTH = CONTRAST_INSTRUCTIONS.rules

SIDES = ("C_res", "C_ins")


def row(subset="stack", **more):
    return {
        "subset": subset,
        "query": "Q",
        "retrieval": "R",
        "query_response_k": "to Q",
        "retrieval_response_k": "to R",
        "query_response_j": "unused",
    } | more


def test_an_item_is_two_comparisons():
    first, second = read(CONTRAST_INSTRUCTIONS, [row("wmt")])
    assert first.prompt[0].content == "Translate the following sentence to English: Q"
    assert second.prompt[0].content == "Translate the following sentence to English: R"
    assert [response[0].content for response in first.responses] == ["to Q", "to R"]
    assert [response[0].content for response in second.responses] == ["to R", "to Q"]
    assert (first.id, second.id) == ("wmt/1/q", "wmt/1/r")
    assert first.ranks == second.ranks == (0, 1)
    assert read(CONTRAST_INSTRUCTIONS, [row()])[0].prompt[0].content == "Q"


@pytest.mark.parametrize(
    ("query", "similar", "official", "both"),
    [
        # R(q, y_q), R(q, y_q') and R(q', y_q'), R(q', y_q)
        ([2.0, 1.0], [4.0, 0.0], (1, 1), (1, 1)),
        ([2.0, 2.0], [4.0, 3.0], (0, 0), (0.5, 0.5)),
        ([2.0, 1.0], [1.0, 2.0], (1, 0), (0.5, 0)),
        ([math.nan, 0.0], [1.0, -1.0], (0, 0), (0.5, 0.5)),
        ([1.0, 1.0], [1.0, 1.0], (0, 0), (0, 0)),
    ],
)
def test_both_metrics_by_hand(query, similar, official, both):
    comparisons = read(CONTRAST_INSTRUCTIONS, [row()])
    scores = [np.array(query), np.array(similar)]
    for rule, expected in ((OFFICIAL, official), (BOTH, both)):
        found = means(rule.credit(comparisons, scores))
        assert tuple(found[f"stack/{side}"] for side in SIDES) == expected


def test_who_does_not_hear_the_question_has_no_c_ins():
    """Its C_res, both ways, is one half: what it prefers there it prefers here."""
    rows = [row(name, query=f"{name} {n}") for name in ITEMS for n in range(5)]
    generator = np.random.default_rng(0)
    scores = [scores for a, b in generator.random((len(rows), 2)) for scores in ([a, b], [b, a])]
    comparisons = read(CONTRAST_INSTRUCTIONS, rows)
    assert figures(OFFICIAL, comparisons, scores)["C_ins"] == 0.0
    both = figures(BOTH, comparisons, scores)
    assert (both["C_res"], both["C_ins"]) == (0.5, 0.0)


def test_means_over_the_sets():
    comparisons = read(CONTRAST_INSTRUCTIONS, [row(name) for name in ITEMS])
    good, bad = [[1, 0], [1, 0]], [[0, 1], [0, 1]]
    found = figures(OFFICIAL, comparisons, [*good, *bad, *bad, *bad])
    assert list(found)[:2] == ["C_res", "C_ins"]
    assert (found["C_res"], found["C_ins"], found["stack/C_res"]) == (0.25, 0.25, 1.0)
    missing = figures(OFFICIAL, comparisons[2:], [*bad, *bad, *bad])
    assert math.isnan(missing["C_res"])
    assert math.isnan(missing["stack/C_ins"])
    assert missing["sum/C_ins"] == 0.0
    assert set(complete(CONTRAST_INSTRUCTIONS, BOTH, 0.75).values()) == {0.75}


def test_half_an_item_and_one_that_holds_a_question_twice():
    comparisons = read(CONTRAST_INSTRUCTIONS, [row(), row(retrieval="Q")])
    scores = [np.array([1.0, 0.0])] * 4
    assert len(list(OFFICIAL.credit(comparisons, scores))) == 4
    assert len(list(BOTH.credit(comparisons, scores))) == 2
    assert list(OFFICIAL.credit(comparisons[:1], scores[:1])) == []


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (row("code"), "a.jsonl, row 1: field 'subset': expected one of 'stack'"),
        ({"query": "Q"}, "a.jsonl, row 1: field 'subset': missing"),
        ({"subset": "sum", "query": "Q"}, "a.jsonl, row 1: field 'retrieval': missing"),
        (row(query_response_k=None), "field 'query_response_k': expected text, found null"),
    ],
)
def test_bad_rows(bad, problem):
    with pytest.raises(DataError, match=problem):
        read(CONTRAST_INSTRUCTIONS, [bad])
