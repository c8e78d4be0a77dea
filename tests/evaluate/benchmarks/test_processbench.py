"""ProcessBench by hand, and its threshold against trying every one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jaxrm.data.comparison import Message
from jaxrm.errors import DataError
from jaxrm.evaluate.benchmark import Part
from jaxrm.evaluate.benchmarks.processbench import PROCESSBENCH, ROWS, Found, best_threshold, f1
from tests.evaluate.benchmarks.scoring import complete, figures, means, read

OFFICIAL, ZERO = PROCESSBENCH.rules
NAN = math.nan


def row(label, steps=3, **more):
    return {"problem": "q", "steps": ["a", "b", "c"][:steps], "label": label} | more


def solutions(rows, split="gsm8k"):
    return read(PROCESSBENCH, rows, Part("Qwen/ProcessBench", split=split))


def test_a_solution_is_its_beginnings():
    first, right, wrong = solutions([row(1, id="gsm8k-0"), row(-1), row(0, steps=1)])
    assert first.prompt == (Message("user", "q"),)
    said = [response[0].content for response in first.responses]
    assert said == ["a", "a\n\nb", "a\n\nb\n\nc"]
    assert (first.ranks, right.ranks, wrong.ranks) == ((0, 1, 1), (0, 0, 0), (1,))
    assert [c.id for c in (first, right, wrong)] == ["gsm8k-0", "gsm8k/2", "gsm8k/3"]


@pytest.mark.parametrize(
    ("label", "scores", "found"),
    [
        (1, [1.0, -1.0, 1.0], 1),
        (1, [1.0, 0.0, 1.0], 1),  # a step passes above the threshold only
        (1, [1.0, 1.0, -1.0], 0),  # seen too late
        (1, [-1.0, -1.0, 1.0], 0),  # seen too early
        (1, [1.0, NAN, 1.0], 1),
        (1, [NAN, -1.0, 1.0], 0),
        (0, [-1.0, 5.0, 5.0], 1),
        (2, [1.0, 1.0, -1.0], 1),
        (-1, [1.0, 2.0, 3.0], 1),
        (-1, [1.0, 0.0, 3.0], 0),
        (-1, [1.0, NAN, 3.0], 0),
    ],
)
def test_what_is_found_at_zero(label, scores, found):
    group = "gsm8k/correct" if label < 0 else "gsm8k/error"
    assert means(ZERO.credit(solutions([row(label)]), [np.array(scores)])) == {group: found}


def test_f1_by_hand():
    found = complete(PROCESSBENCH, ZERO, 0.5)
    assert set(found.values()) == {0.5}
    comparisons, scores = [], []
    for split, passes in zip(ROWS, (1, 1, 1, 0), strict=True):
        comparisons += solutions([row(0, 1), row(0, 1), row(-1, 1)], split)
        scores += [[-1.0], [1.0], [1.0 if passes else -1.0]]
    half = 2 * 0.5 * 1 / 1.5
    expected = {"gsm8k": half, "math": half, "olympiadbench": half, "omnimath": 0.0}
    assert figures(ZERO, comparisons, scores) == pytest.approx({"overall": 3 * half / 4} | expected)
    only = figures(ZERO, comparisons[:2], scores[:2])
    assert all(math.isnan(value) for value in only.values())


def test_one_who_never_sees_an_error_and_one_who_sees_nothing():
    assert f1(0.0, 1.0) == f1(1.0, 0.0) == f1(0.0, 0.0) == 0.0
    assert math.isnan(f1(NAN, 0.0))
    assert math.isnan(f1(0.0, NAN))


def test_the_threshold_is_gsm8ks():
    # On GSM8K 5 must fail and 6 must pass; with threshold 5 MATH's 5.5 passes and 4.5 does not.
    comparisons = solutions([row(0, 1), row(-1, 1)])
    comparisons += solutions([row(0, 1), row(-1, 1)], "math")
    scores = [[5.0], [6.0], [5.5], [5.5]]
    found = figures(OFFICIAL, comparisons, scores)
    assert (found["gsm8k"], found["math"]) == (1.0, 0.0)
    shifted = figures(OFFICIAL, comparisons, np.array(scores) - 100)
    assert shifted["gsm8k"] == 1.0
    assert figures(ZERO, comparisons, scores)["gsm8k"] == 0.0
    assert list(OFFICIAL.credit(comparisons[2:], [np.zeros(1)] * 2)) == []


def test_the_best_threshold_against_trying_every_one():
    generator = np.random.default_rng(0)
    for _ in range(200):
        labels = generator.integers(-1, 3, generator.integers(1, 12)).tolist()
        comparisons = solutions([row(label) for label in labels])
        scores = [generator.integers(-3, 4, 3).astype(float) for _ in labels]
        scores[0][generator.integers(3)] = NAN
        right = [label < 0 for label in labels]
        found = list(map(Found.of, comparisons, scores))

        def value(threshold, labels=labels, right=right, scores=scores):
            hits = []
            for label, given in zip(labels, scores, strict=True):
                stops = [t for t, s in enumerate(given) if not s > threshold]
                hits.append((stops[0] if stops else -1) == label)
            kinds = [[hit for hit, r in zip(hits, right, strict=True) if r == k] for k in (0, 1)]
            return f1(*(sum(kind) / len(kind) if kind else 0.0 for kind in kinds))

        best = max(map(value, [-math.inf, *np.arange(-4, 5)]))
        assert value(best_threshold(right, found)) == pytest.approx(best)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (row(3), "a.jsonl, row 1: field 'label': expected one of -1, 0, 1, 2, found 3"),
        (row("1"), "a.jsonl, row 1: field 'label': expected one of"),
        (row(-1, steps=0), "a.jsonl, row 1: field 'steps': empty"),
        (row(-1) | {"steps": ["a", 2]}, "field 'steps\\[1\\]': expected text"),
        ({"problem": "q", "steps": ["a"]}, "a.jsonl, row 1: field 'label': missing"),
        ({"steps": ["a"], "label": 0}, "a.jsonl, row 1: field 'problem': missing"),
    ],
)
def test_bad_rows(bad, problem):
    with pytest.raises(DataError, match=problem):
        solutions([bad])


def test_an_unknown_subset():
    with pytest.raises(DataError, match="field 'subset': expected one of 'gsm8k', 'math'"):
        solutions([row(0)], "train")
