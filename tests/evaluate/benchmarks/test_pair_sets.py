"""Any file of comparisons as a benchmark."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from jaxrm.errors import DataError, OptionError
from jaxrm.evaluate import benchmark
from jaxrm.evaluate.benchmarks import pairs
from jaxrm.evaluate.scorers import longer
from tests.evaluate.benchmarks.scoring import figures, rule_of
from tests.shared_data import shared

ASK = [{"role": "user", "content": "2 + 2?"}]


def pair(**more):
    return {"prompt": ASK, "chosen": "4", "rejected": "5"} | more


def source(tmp_path, *rows):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_over_all_and_by_subset(tmp_path):
    rows = [pair(subset="x"), pair(subset="x"), pair(subset="y"), pair(), pair(subset="y")]
    found = pairs(source(tmp_path, *rows))
    comparisons = benchmark.read(found)
    assert [c.id for c in comparisons] == ["a/1", "a/2", "a/3", "a/4", "a/5"]
    scores = [[1, 0], [1, 1], [0, 1], [1, 0], [math.nan, 0]]
    assert figures(found.rules[0], comparisons, scores) == {"overall": 0.4, "x": 0.5, "y": 0.0}
    half = rule_of(found, "half for ties")
    assert figures(half, comparisons, scores) == {"overall": 0.5, "x": 0.75, "y": 0.0}


def test_ranked_responses_and_ties_of_labels(tmp_path):
    answers = [[{"role": "assistant", "content": text}] for text in "abc"]
    ranked = {"prompt": ASK, "responses": answers, "ranks": [0, 1, 2]}
    found = pairs(source(tmp_path, ranked, ranked | {"ranks": [0, 0, 0]}))
    scores = [[2, 1, 1], [0, 1, 2]]
    assert figures(found.rules[0], benchmark.read(found), scores) == {"overall": 2 / 3}
    half = figures(found.rules[1], benchmark.read(found), scores)
    assert half == {"overall": pytest.approx(2.5 / 3)}


def test_without_any_order_there_is_nothing_to_evaluate(tmp_path):
    one = {"prompt": ASK, "responses": [[{"role": "assistant", "content": "4"}]], "ranks": [0]}
    with pytest.raises(DataError, match="a.jsonl, row 1: field 'ranks': neither this nor a later"):
        benchmark.read(pairs(source(tmp_path, one)))


def test_options_of_a_source(tmp_path):
    labelled = {
        "prompt": "2 + 2?",
        "response_0": "4",
        "response_1": "5",
        "better_response_id": 0,
        "safer_response_id": 1,
    }
    path = source(tmp_path, labelled)
    safer = pairs(f"{path}?label=safer&name=mine")
    (comparison,) = benchmark.read(safer)
    assert (safer.name, comparison.id, comparison.ranks) == ("mine", "mine/1", (1, 0))
    assert pairs("owner/name?config=c&split=test").parts == (
        benchmark.Part("owner/name", "c", "test"),
    )


def test_what_cannot_be_evaluated(tmp_path):
    with pytest.raises(OptionError, match="every must be 1"):
        pairs("a.jsonl?every=2")
    with pytest.raises(OptionError, match="weight must be 1"):
        pairs("a.jsonl?weight=2")
    unordered = {"prompt": ASK, "responses": [[{"role": "assistant", "content": "4"}]]}
    with pytest.raises(DataError, match="a.jsonl, row 2: field 'ranks': missing"):
        benchmark.read(pairs(source(tmp_path, unordered | {"ranks": [0]}, unordered)))
    with pytest.raises(DataError, match="a.jsonl, row 1: field 'subset': 'overall' is the name"):
        benchmark.read(pairs(source(tmp_path, pair(subset="overall"))))
    with pytest.raises(DataError, match="a.jsonl, row 2: field 'rejected': missing"):
        benchmark.read(pairs(source(tmp_path, pair(subset="x"), {"prompt": ASK, "chosen": "4"})))


def test_real_pairs_by_length():
    """Against figures that were computed without this code when the data was collected."""
    found = pairs(str(shared("eval", "llmbar.jsonl.gz")))
    comparisons = benchmark.read(found)
    by_length = figures(rule_of(found, "half for ties"), comparisons, longer(comparisons))
    assert {name: round(value, 3) for name, value in by_length.items()} == {
        "overall": 0.272,
        "natural": 0.565,
        "adversarial_neighbor": 0.119,
        "adversarial_gptinst": 0.130,
        "adversarial_gptout": 0.447,
        "adversarial_manual": 0.185,
    }
    assert all(np.shape(given) == (2,) for given in longer(comparisons))
