"""Misspelt copies, convex hulls by hand, and what is kept of the copies."""

import random

import numpy as np
import pytest

from jaxrm.data.comparison import Comparison, Message
from jaxrm.errors import DataError, OptionError
from jaxrm.methods import convex_da as contrast
from jaxrm.methods.convex_da import convex_da, misspelt, plane, vertices

TEXT = "the quick brown foxes jumped over seven lazy dogs near some rivers"


def edits(a, b):
    """Words that differ between two texts of as many words."""
    pairs = list(zip(a.split(), b.split(), strict=True))
    return [(x, y) for x, y in pairs if x != y]


@pytest.mark.parametrize(("share", "wrong"), [(0.05, 1), (0.25, 3), (1.0, 12)])
def test_a_share_of_the_words_is_misspelt(share, wrong):
    for seed in range(20):
        changed = edits(TEXT, misspelt(TEXT, random.Random(seed), share))
        assert len(changed) == wrong
        for word, slip in changed:
            assert abs(len(word) - len(slip)) <= 1
            assert set(slip) <= set(word)


def test_the_three_slips():
    found = {misspelt("ab", random.Random(seed)) for seed in range(50)}
    assert found == {"ba", "b", "aab"}
    # Exchanged, two letters that are the same would not show.
    assert {misspelt("aa", random.Random(seed)) for seed in range(50)} == {"a", "aaa"}


@pytest.mark.parametrize("text", ["", "12 + 30 = 42", "a b c", "x1y2"])
def test_numbers_and_single_letters_are_left_alone(text):
    assert misspelt(text, random.Random(0), 1.0) == text


def test_a_plane_of_points_that_lie_in_one_keeps_their_distances():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(6, 2))
    turned = flat @ np.linalg.qr(rng.normal(size=(5, 5)))[0][:2] + 3
    points = plane(turned)

    def distances(x):
        return np.linalg.norm(x[:, None] - x[None], axis=-1)

    np.testing.assert_allclose(distances(points), distances(flat), atol=1e-12)


def test_a_plane_of_less_than_two_dimensions():
    np.testing.assert_array_equal(plane(np.array([[1.0, 2.0, 3.0]])), [[0, 0]])
    line = plane(np.array([[0.0], [1.0], [5.0]]))
    np.testing.assert_allclose(np.abs(line[:, 0]), [2, 1, 3])
    np.testing.assert_array_equal(line[:, 1], 0)
    assert plane(np.zeros((0, 3))).shape == (0, 2)
    np.testing.assert_array_equal(plane(np.zeros((2, 0))), np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("points", "corners"),
    [
        ([[0, 0], [4, 0], [0, 4], [1, 1]], [0, 1, 2]),  # a triangle, and a point inside
        ([[1, 1], [0, 0], [2, 0], [2, 2], [0, 2]], [1, 2, 3, 4]),
        ([[0, 0], [2, 0], [1, 0], [2, 2]], [0, 1, 3]),  # a point on an edge is no corner
        ([[0, 0], [1, 1], [3, 3], [2, 2]], [0, 2]),  # on a line
        ([[5, 0], [5, 9], [5, -2]], [1, 2]),
        ([[0, 0], [0, 0], [1, 0], [0, 1], [1, 0]], [0, 2, 3]),  # copies
        ([[1, 2], [3, 4]], [0, 1]),
        ([[1, 2], [1, 2]], [0]),
        ([[7, 7]], [0]),
    ],
)
def test_corners_by_hand(points, corners):
    found = vertices(np.array(points, float))
    assert found.tolist() == corners
    small = vertices(1e-6 * np.array(points, float) + 1e-7)
    assert small.tolist() == corners


def test_no_points_have_no_corners():
    assert vertices(np.zeros((0, 2))).tolist() == []


ROWS = [
    Comparison.pair("p", TEXT, "some other longer answer", id="one", margin=2.0),
    Comparison.pair((Message("user", "hello there"),), "12", "unlucky", id="two"),
    Comparison.pair((Message("user", "hello there"),), "gladly given", "no", id="three"),
]


def on_a_line(texts):
    """All copies in one direction, by the letters of the text: two are at the ends."""
    return np.array([[sum(map(ord, text)), 0.0, 1.0] for text in texts])


def test_copies_at_the_ends_of_a_line_are_kept():
    kept = convex_da(ROWS[:1], embed=on_a_line, copies=7)
    assert len(kept) == 2
    for copy in kept:
        assert copy.id.startswith("one/misspelt-")
        assert (copy.prompt, copy.ranks, copy.margin) == ("p", (0, 1), 2.0)
        for before, after in zip(ROWS[0].responses, copy.responses, strict=True):
            assert len(edits(before, after)) == 1
    all_of_them = contrast._copies(ROWS[0], 0, 7, 0.05, 0)
    sizes = on_a_line([copy.responses[0] for copy in all_of_them])[:, 0]
    wanted = {all_of_them[sizes.argmin()].id, all_of_them[sizes.argmax()].id}
    assert {copy.id for copy in kept} == wanted


def test_every_comparison_has_a_hull_of_its_own():
    together = convex_da(ROWS, embed=on_a_line)
    assert [copy.id.split("/")[0] for copy in together] == ["one", "one", "three", "three"]
    assert together[:2] == convex_da(ROWS[:1], embed=on_a_line)


def test_a_seed_says_which_copies():
    together = convex_da(ROWS, seed=3)
    assert {copy.id.split("/")[0] for copy in together} == {"one", "three"}
    assert convex_da(ROWS, seed=3) == together
    assert convex_da(ROWS, seed=4) != together
    assert len({copy.responses for copy in together}) == len(together)
    message = next(copy for copy in together if copy.id.startswith("three"))
    assert message.prompt == ROWS[2].prompt
    assert message.responses[0][0].role == "assistant"
    assert message.responses[0][0].content != "gladly given"


def test_nothing_to_misspell_gives_no_copies():
    assert convex_da(ROWS[1:2]) == convex_da([]) == []


def test_what_cannot_be_done_is_refused():
    with pytest.raises(DataError, match="ranks"):
        convex_da([Comparison("p", ("a b",))])
    for wrong in ({"copies": 0}, {"share": 0.0}, {"share": 1.5}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            convex_da(ROWS, **wrong)
