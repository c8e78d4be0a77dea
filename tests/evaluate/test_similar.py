"""Which texts are alike, by hand: cosines, their order, and who may lend whom an answer."""

import math

import numpy as np
import pytest
import scipy.sparse

from jaxrm.data.comparison import Comparison, Message
from jaxrm.errors import DataError
from jaxrm.evaluate import similar


def test_words_weigh_by_how_rare_they_are():
    """Two texts: "a" is in both, weight log(3/3) + 1 = 1; "b" and "c" in one, log(3/2) + 1."""
    rare = math.log(3 / 2) + 1
    found = similar.tf_idf(["a a b", "A c!", "?"][:2]).toarray()
    np.testing.assert_allclose(found, [[2, rare, 0], [1, 0, rare]])
    assert similar.tf_idf(["?", "a"]).toarray()[0].tolist() == [0]


@pytest.mark.parametrize("make", [np.array, scipy.sparse.csr_array])
def test_neighbours_come_most_similar_first_and_ties_by_place(make):
    """Directions at 0, 90, 60, 60 (twice as long) and 0 degrees: cosines 0, .5, .5 and 1 to 0."""
    half, height = 0.5, math.sqrt(0.75)
    vectors = make([[1, 0], [0, 3], [half, height], [2 * half, 2 * height], [2, 0]])
    first = similar.neighbours(vectors, 4)[0]
    assert first.indices.tolist() == [2, 3, 1]  # the copy has a cosine of 1, which is not below 1
    np.testing.assert_allclose(first.cosines, [0.5, 0.5, 0], atol=1e-12)
    assert similar.neighbours(vectors, 1)[0].indices.tolist() == [2]
    assert similar.neighbours(vectors, 4, 0.5, 0.8)[0].indices.tolist() == [2, 3]
    assert similar.neighbours(vectors, 4, 0.1, 0.5)[0].indices.tolist() == []
    assert similar.neighbours(vectors, 4, 0.9, 1.1)[2].indices.tolist() == [3]


def test_blocks_change_nothing(monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(23, 5))
    whole = similar.neighbours(vectors, 5)
    monkeypatch.setattr(similar, "CELLS", 50)  # two rows at a time
    for a, b in zip(whole, similar.neighbours(vectors, 5), strict=True):
        assert a.indices.tolist() == b.indices.tolist()
        assert a.cosines.tolist() == b.cosines.tolist()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(23)
    assert [n.indices[0] for n in whole] == cosines.argmax(axis=1).tolist()


def test_a_vector_of_zeros_is_like_nothing():
    assert similar.neighbours(np.array([[0.0, 0.0], [1.0, 0.0]]), 1, 0.1)[0].indices.size == 0


def pair(prompt, best, **known):
    return Comparison.pair((Message("user", prompt),), best, "worse", **known)


def test_an_answer_is_borrowed_from_another_question_and_says_something_else():
    rows = [
        pair("what colour is the sky", "blue"),
        pair("what colour is the sky", "azure"),  # the same prompt
        pair("what colour is the sea", "blue"),  # the same answer as the first
        pair("what colour is the grass", "green"),
        pair("what colour is the leaf", "green"),  # lends what another lends
        pair("sing a song", "la"),  # nothing like the first
    ]
    lent = similar.borrowed(rows, 3, low=0.1, high=0.99)
    assert lent[0] == [3]
    assert lent[1] == [2, 3]
    assert similar.borrowed(rows, 1, low=0.1, high=0.99)[1] == [2]
    assert lent[5] == []


def test_given_vectors_take_the_place_of_words():
    rows = [pair("one", "a"), pair("two", "b"), pair("three", "c")]
    angles = np.radians([0, 50, 40])

    def embed(texts):
        assert texts == ["one", "two", "three"]
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    assert similar.borrowed(rows, 2, embed=embed, low=0.7, high=1.0) == [[2], [2], [1, 0]]


def test_the_best_response_is_the_first_of_the_lowest_rank():
    row = Comparison("q", ("a", "b", "c"), ranks=(2, 1, 1))
    assert similar.best_response(row) == "b"
    unranked = Comparison("q", ("a",), where="x.jsonl, row 3")
    with pytest.raises(DataError, match="x.jsonl, row 3: field 'ranks'"):
        similar.borrowed([unranked], 1)


def test_messages_and_raw_text_do_not_mix():
    rows = [pair("one", "a"), Comparison.pair("two", "b", "c", where="x.jsonl, row 2")]
    with pytest.raises(DataError, match="x.jsonl, row 2: field 'prompt'"):
        similar.borrowed(rows, 1)
