"""LLMBar by hand."""

from __future__ import annotations

import math

import pytest

from jaxrm.data.comparison import Message
from jaxrm.errors import DataError
from jaxrm.evaluate import benchmark
from jaxrm.evaluate.benchmark import Part
from jaxrm.evaluate.benchmarks.llmbar import LLMBAR, ROWS, SPLITS
from tests.evaluate.benchmarks.scoring import complete, figures, read
from tests.shared_data import shared

(OFFICIAL,) = LLMBAR.rules

LABELLED = {"input": "q", "output_1": "one", "output_2": "two", "label": 2}
OURS = {"prompt": "q", "chosen": "a", "rejected": "b"}


def test_rows_as_published():
    part = Part("princeton-nlp/LLMBar", "LLMBar", "GPTInst")
    first, second = read(LLMBAR, [LABELLED, LABELLED | {"label": 1}], part)
    assert first.prompt == (Message("user", "q"),)
    assert first.responses == ((Message("assistant", "one"),), (Message("assistant", "two"),))
    assert (first.ranks, second.ranks) == ((1, 0), (0, 1))
    assert (first.subset, first.id) == ("adversarial_gptinst", "adversarial_gptinst/1")
    assert {SPLITS[part.split] for part in LLMBAR.parts} == ROWS.keys()


def test_means_by_hand():
    comparisons = read(LLMBAR, [OURS | {"subset": name} for name in (*ROWS, "natural")])
    scores = [[1, 0], [1, 0], [1, 1], [0, 1], [math.nan, 0], [0, 1]]
    found = figures(OFFICIAL, comparisons, scores)
    assert found == pytest.approx(
        {"overall": 1.5 / 5, "adversarial": 1 / 4, "natural": 0.5}
        | dict(zip(list(ROWS)[1:], (1, 0, 0, 0), strict=True))
    )
    missing = figures(OFFICIAL, comparisons[1:], [[1, 0]] * 5)
    assert missing["overall"] == 1.0
    alone = figures(OFFICIAL, comparisons[:1], [[1, 0]])
    assert alone["natural"] == 1.0
    assert math.isnan(alone["overall"])
    assert math.isnan(alone["adversarial"])
    assert set(complete(LLMBAR, OFFICIAL, 0.75).values()) == {0.75}


@pytest.mark.parametrize(
    ("bad", "split", "problem"),
    [
        (LABELLED, "train", "a.jsonl, row 1: field 'subset': missing"),
        (OURS | {"subset": "odd"}, "train", "field 'subset': expected one of 'natural'"),
        (LABELLED | {"label": 3}, "Natural", "field 'label': expected one of 1, 2, found 3"),
        ({"input": "q", "output_1": "one"}, "Natural", "field 'output_2': missing"),
        ({"output_1": "one"}, "Natural", "a.jsonl, row 1: field 'input': missing"),
    ],
)
def test_bad_rows(bad, split, problem):
    with pytest.raises(DataError, match=problem):
        read(LLMBAR, [bad], Part("princeton-nlp/LLMBar", "LLMBar", split))


def test_real_rows_are_complete():
    found = benchmark.read(LLMBAR, shared("eval", "llmbar.jsonl.gz"))
    assert len(found) == 419
    assert benchmark.short_of(LLMBAR, found) == {}
