"""Every kind of scorer by hand: one number per response, in order, or a typed error."""

import json

import jax
import numpy as np
import pytest

from jaxrm import parallel, toy
from jaxrm.data import chat
from jaxrm.data.comparison import Comparison
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import DataError
from jaxrm.evaluate import scorers
from jaxrm.huggingface import hub
from jaxrm.models.heads import HeadConfig
from jaxrm.score import score

ROWS = [
    Comparison("p", ("aa", "b"), ranks=(0, 1), id="two"),
    Comparison("q", ("", "ccc", "dd"), id="three"),
    Comparison("r", ("e",), id="one"),
]


def lists(scores):
    return [given.tolist() for given in scores]


def test_longer_counts_characters():
    assert lists(scorers.longer(ROWS)) == [[2, 1], [0, 3, 2], [1]]
    assert scorers.longer([]) == []


def test_a_bag_of_words_has_learnt_which_word_is_better():
    train = [Comparison.pair("p", f"good {i}", f"bad {i}") for i in range(200)]
    (found,) = scorers.bag_of_words(train)([Comparison("p", ("bad", "other", "good"))])
    assert found[0] < found[1] == 0 < found[2]
    with pytest.raises(DataError, match="nothing to learn"):
        scorers.bag_of_words(ROWS[1:])


def test_a_model_s_scores_are_its_rewards():
    directory, mesh = toy.shipped_base(), parallel.make_mesh(devices=jax.devices()[:1])
    model = hub.load(directory, HeadConfig(), mesh=mesh)
    tokenizer, options = load_tokenizer(directory), {"mesh": mesh, "row_length": 64}
    found = scorers.of_model(model, tokenizer, **options)(ROWS)
    wanted = score(model, chat.tokenize(ROWS, tokenizer), **options)
    assert lists(found) == lists(wanted)
    assert [len(given) for given in found] == [2, 3, 1]


def test_an_ensemble_is_the_mean_or_what_else_is_asked():
    def square(comparisons):
        return [given**2 for given in scorers.longer(comparisons)]

    members = [scorers.longer, square]
    assert lists(scorers.ensemble(members)(ROWS)) == [[3, 1], [0, 6, 3], [1]]
    worst = scorers.ensemble(members, lambda each: each.min(axis=0))
    assert lists(worst(ROWS)) == [[2, 1], [0, 3, 2], [1]]


def test_standardized_scores_by_hand():
    assert lists(scorers.standardized(scorers.longer, 1.0, 2.0)(ROWS[:1])) == [[0.5, 0]]


def test_a_judge_that_likes_the_first_place_is_asked_both_ways():
    asked = []

    def judge(pairs):
        asked.extend(pair.responses for pair in pairs)
        longer = (len(pair.responses[0]) > len(pair.responses[1]) for pair in pairs)
        return [0.9 if first else 0.3 for first in longer]

    found = scorers.of_judge(judge)(ROWS)
    # Of a better and a worse response: (.9 + 1 - .3) / 2 = .8 and .2.
    np.testing.assert_allclose(found[0], [0.8, 0.2])
    np.testing.assert_allclose(found[1], [0.2, 0.8, 0.5])
    assert np.isnan(found[2]).all()
    assert asked[:2] == [("aa", "b"), ("b", "aa")]
    assert len(asked) == 2 + 6


def test_recorded_scores_are_found_by_id(tmp_path):
    path = tmp_path / "scores.jsonl"
    rows = [{"id": "three", "rewards": [1, None, 3]}, {"id": "two", "rewards": [0.5, 0.25]}]
    path.write_text("\n".join(map(json.dumps, rows)))
    scorer = scorers.recorded(path)
    np.testing.assert_equal(lists(scorer(ROWS[:2])), [[0.5, 0.25], [1, np.nan, 3]])
    with pytest.raises(DataError, match=r"no scores for the 1 responses to 'one'"):
        scorer(ROWS)
    other = Comparison("p", ("a", "b", "c"), id="two", where="x.jsonl, row 7")
    with pytest.raises(DataError, match=r"2 scores for the 3 responses to 'two' .x.jsonl, row 7"):
        scorer([other])


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"id": "two", "rewards": [1, 2]}, "row 2: field 'id': 'two' has been read before"),
        ({"id": "x"}, "row 2: field 'rewards'"),
        ({"id": "x", "rewards": ["a"]}, "row 2: field 'rewards': expected numbers"),
    ],
)
def test_a_bad_row_of_recorded_scores_is_named(tmp_path, row, problem):
    path = tmp_path / "scores.jsonl"
    path.write_text("\n".join(map(json.dumps, [{"id": "two", "rewards": [1, 2]}, row])))
    with pytest.raises(DataError, match=problem):
        scorers.recorded(path)
