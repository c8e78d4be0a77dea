"""Training drops what teaches nothing, once and under the first reason, and counts it."""

from __future__ import annotations

import numpy as np
import pytest

from jaxrm.data import filters
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.filters import Tally
from jaxrm.data.packing import Branch, TokenTree

ASK = (Message("user", "2 + 2?"),)


def tree(prompt, *branches):
    """A tree whose tokens are the characters of its texts."""

    def ids(text):
        return np.array([ord(character) for character in text], np.int32)

    return TokenTree(ids(prompt), tuple(Branch(ids(b), np.ones(len(b), bool)) for b in branches))


def drop(comparison, tokens):
    kept, tally = filters.for_training([comparison], [tokens], max_length=99, row_length=150)
    assert (len(kept), tally.read, tally.used) == (1 - sum(tally.dropped.values()), 1, len(kept))
    return next(iter(tally.dropped), None)


GOOD = Comparison.pair(ASK, "4", "5")


@pytest.mark.parametrize(
    ("reason", "comparison", "tokens"),
    [
        (None, GOOD, tree("pp", "44", "5")),
        ("over-length", GOOD, tree("pp", "4" * 98, "5")),
        (None, GOOD, tree("pp", "4" * 97, "5" * 51)),
        ("over-row", GOOD, tree("pp", "4" * 97, "5" * 52)),
        ("identical", GOOD, tree("pp", "4", "4")),
        (None, GOOD, tree("pp", "4", "44")),
        ("empty", Comparison.pair(ASK, "4", " \n"), tree("pp", "4", "e")),
        ("empty", Comparison.pair([Message("user", "")], "4", "5"), tree("pp", "4", "5")),
        (None, Comparison.pair([Message("system", ""), *ASK], "4", "5"), tree("pp", "4", "5")),
        (None, Comparison.pair("", "4", "5"), tree("", "4", "5")),
        ("empty", Comparison.pair("2 + 2 =", "4", ""), tree("pp", "4", "e")),
        ("single", Comparison("a", ("b",), ranks=(0,)), tree("a", "b")),
        ("unranked", Comparison("a", ("b", "c")), tree("a", "b", "c")),
        ("tie", Comparison("a", ("b", "c"), ranks=(1, 1)), tree("a", "b", "c")),
        (None, Comparison("a", ("b", "c", "d"), ranks=(1, 1, 0)), tree("a", "b", "c", "d")),
        ("identical", Comparison("a", tuple("bcd"), ranks=(1, 1, 0)), tree("a", "b", "c", "b")),
        ("empty", Comparison.pair("a", "", ""), tree("a", "e" * 200, "e" * 200)),
    ],
)
def test_the_first_reason_counts(reason, comparison, tokens):
    assert drop(comparison, tokens) == reason


def test_the_tally_adds_up_and_prints_on_one_line():
    rows = [GOOD, GOOD, Comparison("a", ("b",)), GOOD]
    trees = [tree("p", "4", "5"), tree("p", "4", "4"), tree("a", "b"), tree("p", "4" * 9, "5")]
    rows, trees = [*rows, GOOD], [*trees, trees[1]]
    kept, tally = filters.for_training(rows, trees, max_length=9, row_length=20)
    assert kept == [0]
    assert tally == Tally(5, 1, {"identical": 2, "single": 1, "over-length": 1})
    line = "read 5, used 1, dropped 4: 2 identical, 1 single, 1 over-length"
    assert str(tally) == line
    assert str(Tally(3, 3, {})) == "read 3, used 3, dropped 0"


def test_rows_and_trees_must_be_the_same():
    with pytest.raises(ValueError, match="shorter"):
        filters.for_training([GOOD], [], max_length=9, row_length=20)
