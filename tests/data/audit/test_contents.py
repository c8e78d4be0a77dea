"""What is counted of a data set is what is in it."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxrm.data.audit import contents
from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.packing import Branch, TokenTree

ASK = (Message("user", "2 + 2?"),)
AGAIN = (*ASK, Message("assistant", "4"), Message("user", "Sure?"))
PAIR = Comparison.pair(ASK, "4", "5", subset="sums")


def ranked(prompt, **ranks):
    """Raw text responses by name, each with its rank."""
    return Comparison(prompt, tuple(ranks), ranks=tuple(ranks.values()))


def test_every_kind_is_counted():
    rows = [
        PAIR,
        Comparison.pair([Message("system", ""), *ASK], "4", " "),
        Comparison.pair(AGAIN, "yes", "yes"),
        Comparison.pair([Message("user", "\n")], "4", "5"),
        Comparison("raw", ("a",)),
        Comparison("raw", ("a", "b", "c")),
        ranked("raw", a=1, b=1),
        ranked("", a=1, b=1, c=0),
    ]
    assert contents.count(rows) == {
        "comparisons": 8,
        "prompts": 6,
        "raw_text": 4,
        "system": 1,
        "multi_turn": 1,
        "unranked": 2,
        "single": 1,
        "tie": 1,
        "identical_responses": 1,
        "empty_responses": 1,
        "empty_prompts": 1,
        "duplicates": 0,
    }
    assert contents.histograms(rows) == {
        "responses": {"1": 1, "2": 5, "3": 2},
        "subsets": {"sums": 1, "": 7},
    }


def test_a_duplicate_says_the_same_of_the_same_responses_in_any_order():
    first = ranked("p", a=0, b=1, c=1)
    same = [ranked("p", c=7, a=2, b=7), first]
    other = [ranked("q", a=0, b=1, c=1), ranked("p", a=0, b=1, c=2), ranked("p", a=1, b=0, c=0)]
    other += [Comparison("p", ("a", "b", "c")), ranked("p", a=0, b=1)]
    assert contents.count([first, *same, *other])["duplicates"] == 2


def test_a_pair_labelled_both_ways_is_a_contradiction():
    rows = [
        ranked("p", a=0, b=1),
        ranked("p", b=0, a=1),
        ranked("p", a=0, b=1),
        ranked("q", b=0, a=1),
    ]
    rows += [Comparison.pair("p", "same", "same"), ranked("p", a=0, c=0)]
    assert contents.consistency(rows) == {
        "pairs": 2,
        "contradicted_pairs": 1,
        "in_contradiction": 3,
        "triples": 0,
        "intransitive_triples": 0,
        "intransitive_prompts": 0,
    }


def test_circles_are_counted_within_a_prompt():
    circle = [ranked("p", a=0, b=1), ranked("p", b=0, c=1), ranked("p", c=0, a=1)]
    found = contents.consistency([*circle, ranked("p", a=0, d=1, e=2)])
    assert (found["triples"], found["intransitive_triples"], found["intransitive_prompts"]) == (
        2,
        1,
        1,
    )
    apart = [ranked("p", a=0, b=1), ranked("p", b=0, c=1), ranked("q", c=0, a=1)]
    assert contents.consistency(apart)["triples"] == 0
    # A majority turns the last pair round, and a balance leaves it without a direction.
    balanced = contents.consistency([*circle, ranked("p", a=0, c=1)])
    assert (balanced["triples"], balanced["contradicted_pairs"]) == (0, 1)
    turned = contents.consistency([*circle, ranked("p", a=0, c=1), ranked("p", a=0, c=1)])
    assert (turned["triples"], turned["intransitive_triples"]) == (1, 0)


@given(st.lists(st.permutations("abcde").map(lambda order: order[:3]), min_size=1, max_size=8))
def test_triples_are_those_that_brute_force_finds(orders):
    rows = [Comparison("p", tuple(order), ranks=(0, 1, 2)) for order in orders]
    votes = {
        (a, b): sum(a in o and b in o and o.index(a) < o.index(b) for o in orders)
        for a, b in itertools.permutations("abcde", 2)
    }
    triples = circles = 0
    for three in itertools.combinations("abcde", 3):
        wins = [a for a, b in itertools.permutations(three, 2) if votes[a, b] > votes[b, a]]
        triples += len(wins) == 3
        circles += len(wins) == 3 and len(set(wins)) == 3
    found = contents.consistency(rows)
    assert (found["triples"], found["intransitive_triples"]) == (triples, circles)


def test_lengths_are_quantiles_of_what_occurs():
    pairs = [Comparison.pair("p" * n, "c" * 2 * n, "r") for n in range(1, 101)]
    found = contents.characters(pairs)
    assert list(found) == ["prompt", "best", "others", "prompt + response"]
    assert found["prompt"] == {
        "n": 100, "5%": 5, "25%": 25, "50%": 50, "75%": 75, "95%": 95, "99%": 99, "max": 100,
    }  # fmt: skip
    assert (found["best"]["50%"], found["others"]["max"]) == (100, 1)
    assert (found["prompt + response"]["n"], found["prompt + response"]["max"]) == (200, 300)


def test_responses_without_an_order_are_neither_best_nor_others():
    rows = [
        ranked("p", a=0, bb=0, ccc=1),
        ranked("p", dddd=1, eeeee=1),
        Comparison("p", ("f" * 6,)),
    ]
    found = contents.characters([*rows, Comparison.pair(AGAIN, "g", "h")])
    sizes = {part: (of_part["n"], of_part["max"]) for part, of_part in found.items()}
    assert sizes == {
        "prompt": (4, len("2 + 2?4Sure?")),
        "best": (3, 2),
        "others": (2, 3),
        "unordered": (3, 6),
        "prompt + response": (8, 13),
    }


def test_tokens_and_what_is_too_long_come_from_the_trees():
    def tree(prompt, *branches):
        return TokenTree(
            np.zeros(prompt, np.int32),
            tuple(Branch(np.zeros(n, np.int32), np.ones(n, bool)) for n in branches),
        )

    trees = [tree(4, 6, 2), tree(4, 7, 2), tree(0, 10, 10), tree(0, 10, 9), tree(9, 9, 9)]
    found = contents.tokens([PAIR] * 5, trees)
    assert (found["prompt"]["max"], found["best"]["max"], found["others"]["50%"]) == (9, 10, 9)
    assert found["prompt + response"]["max"] == 18
    # prompt + branch: 10, 11, 10, 10, 18; whole trees: 12, 13, 20, 19, 27.
    dropped = contents.too_long(trees, max_length=10, row_length=19)
    assert dropped == {"over-length": [1, 4], "over-row": [2]}


def test_other_tools_make_another_question():
    def pair(tools):
        return Comparison.pair(ASK, "4", "5", tools=tools)

    rows = [pair(None), pair([{"name": "sum"}]), pair([{"name": "sum"}]), pair([{"name": "mean"}])]
    assert contents.count(rows)["duplicates"] == 1
    other = Comparison.pair(ASK, "5", "4", tools=[{"name": "mean"}])
    assert contents.consistency([*rows[:3], other])["contradicted_pairs"] == 0
    assert contents.consistency([*rows, other])["contradicted_pairs"] == 1
