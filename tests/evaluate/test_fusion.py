"""Rewards averaged over similar prompts, by hand."""

import numpy as np
import pytest

from jaxrm.data.comparison import Comparison, Message
from jaxrm.errors import DataError, OptionError
from jaxrm.evaluate.fusion import fused
from jaxrm.evaluate.similar import tf_idf

ANGLES = {"q": 0.0, "near": 20.0, "nearer": 10.0, "far": 60.0, "copy": 0.0, "none": 180.0}


def embed(texts):
    """Directions in a plane, in degrees, and of any length."""
    angles = np.deg2rad([ANGLES[text] for text in texts])
    return 3 * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def scorer(comparisons):
    """10 for each letter of the prompt, and 1 for each of the response."""
    return [
        np.array([10 * len(c.prompt) + len(r) for r in c.responses], float) for c in comparisons
    ]


ROW = Comparison("q", ("a", "bbb"), ranks=(0, 1), id="row")
COSINE = {name: np.cos(np.deg2rad(angle)) for name, angle in ANGLES.items()}


def test_a_weighted_mean_by_hand():
    (found,) = fused(scorer, ["far", "near", "nearer"], embed=embed)([ROW])
    weights = np.array([1, COSINE["nearer"], COSINE["near"]])
    mean = (weights * [10, 60, 40]).sum() / weights.sum()
    np.testing.assert_allclose(found, [mean + 1, mean + 3], rtol=1e-12)


def test_only_the_k_most_similar_count():
    (found,) = fused(scorer, ["near", "nearer"], embed=embed, k=1)([ROW])
    mean = (10 + COSINE["nearer"] * 60) / (1 + COSINE["nearer"])
    np.testing.assert_allclose(found, [mean + 1, mean + 3], rtol=1e-12)


@pytest.mark.parametrize("pool", [[], ["far"], ["q", "q"], ["none"]])
def test_without_neighbours_it_is_the_reward_itself(pool):
    (found,) = fused(scorer, pool, embed=embed)([ROW])
    assert found.tolist() == [11, 13]


def test_the_threshold_counts_itself_and_copies_count_once():
    pool = ["copy", "copy", "far"]
    (found,) = fused(scorer, pool, embed=embed, threshold=1.0)([ROW])
    assert found.tolist() == [(10 + 40) / 2 + 1, (10 + 40) / 2 + 3]


def test_a_score_depends_on_nothing_scored_beside_it():
    pool = ["what colour is the sea", "what colour is the sky now", "who sings"]
    rows = [Comparison(p, ("a", "bb")) for p in ("what colour is the sky", "who sings", "a song")]
    score = fused(scorer, pool, threshold=0.5)
    together = score(rows)
    for row, given in zip(rows, together, strict=True):
        np.testing.assert_array_equal(score([row])[0], given)
    assert together[0][0] > scorer(rows)[0][0]
    assert score([]) == []


def test_words_that_no_prompt_shares_make_no_neighbours():
    vectors = tf_idf(["", "one two"])
    assert vectors.shape[0] == 2
    (found,) = fused(scorer, ["one two"], threshold=0.01)([Comparison("", ("a",))])
    assert found.tolist() == [1]


def test_any_number_of_responses_and_one_question_to_the_scorer():
    asked = []

    def counted(comparisons):
        asked.append(len(comparisons))
        return scorer(comparisons)

    rows = [ROW, Comparison("far", ("a",)), Comparison("near", ("a", "b", "cc"))]
    found = fused(counted, ["q", "near"], embed=embed)(rows)
    assert [given.shape for given in found] == [(2,), (1,), (3,)]
    assert asked == [5]


def test_what_does_not_fit_is_refused():
    messages = Comparison((Message("user", "q"),), ((Message("assistant", "a"),),), where="rows:1")
    with pytest.raises(DataError, match="rows:1"):
        fused(scorer, ["copy"], embed=embed)([messages])
    for wrong in ({"k": 0}, {"threshold": 0.0}, {"threshold": 1.1}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            fused(scorer, [], **wrong)
