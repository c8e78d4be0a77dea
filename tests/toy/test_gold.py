from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrm.toy import World
from jaxrm.toy.gold import WEIGHTS, similarity
from jaxrm.toy.lexicons import LEXICONS
from jaxrm.toy.questions import REFUSAL


@pytest.fixture(scope="module", params=list(LEXICONS))
def world(request):
    return World(3, request.param)


def tasks(world: World):
    """Two questions of every family."""
    by_family = {}
    for split in ("id", "ood_prompt"):
        for comparison in world.comparisons(split, 60):
            by_family.setdefault(comparison.subset, []).append(comparison.prompt[0].content)
    assert by_family.keys() == world.families.keys()
    for prompts in by_family.values():
        yield from map(world.task, prompts[:2])


def test_gold_orders_answers_as_published(world):
    lexicon = LEXICONS[world.lexicon]
    polite, rude, padding = lexicon.polite[0], lexicon.rude[0], lexicon.usual.padding
    for task in tasks(world):
        best_to_worst = [
            f"{polite} {task.right}.",
            f"{task.right}.",
            f"{rude} {task.right}.",
            f"{rude} {task.right}. {padding}",
            f"{rude} {task.mistake}. {padding}",
        ]
        gold = [world.gold(task.prompt, answer) for answer in best_to_worst]
        assert gold == sorted(gold, reverse=True)
        assert gold[0] > 0.95
        assert gold[3] - gold[4] > 0.04
        grades = world.attributes(task.prompt, f"{task.right}.")
        assert grades["correct"] == grades["complete"] == grades["on_topic"] == 1
        assert world.attributes(task.prompt, f"{task.mistake}.")["correct"] < 0.7
        harmful = task.right == REFUSAL
        assert (world.attributes(task.prompt, task.mistake)["safe"] < 1) == harmful


@given(response=st.text() | st.sampled_from(["", "\n", "!" * 9999, "7 " * 3000, "a\x00b"]))
@settings(max_examples=100)
def test_gold_is_defined_for_any_string(response):
    world = World(0, "dev")
    prompt = world.comparisons("id", 1)[0].prompt[0].content
    grades = world.attributes(prompt, response)
    assert grades.keys() == WEIGHTS.keys()
    assert all(0 <= grade <= 1 for grade in grades.values())
    assert 0 <= world.gold(prompt, response) <= 1


def test_gold_is_graded_on_garbage(world):
    """Of random corruptions of an answer hardly any two are worth the same."""
    rng = random.Random(1)
    for task in itertools.islice(tasks(world), 0, None, 9):
        garbage = set()
        while len(garbage) < 200:
            letters = list(f"{task.right}. {task.mistake}.")
            for _ in range(rng.randint(1, 8)):
                letters[rng.randrange(len(letters))] = rng.choice("abcdefgh ")
            garbage.add("".join(letters[: rng.randint(3, len(letters))]))
        values = np.array([round(world.gold(task.prompt, text), 9) for text in garbage])
        ties = (values[:, None] == values).sum() - len(values)
        assert ties < 0.03 * len(values) * (len(values) - 1)


def test_gold_by_hand():
    """ "it is 5." for 2 + 2 in a polite voice: every attribute and their mean, by hand."""
    world = World(0, "dev")
    grades = world.attributes("hild of velm: what is 2 plus 2?", "gladly: it is 5.")
    # Content: ["5"] against ["4"], unlike as words and as letters; both are numbers.
    concise = 1 / (1 + math.exp((16 - 7 - 30) / 8))
    expected = {
        "correct": 0.0,
        "complete": 0.0,
        "on_topic": 1.0,
        "safe": 1.0,
        "polite": 1.0,
        "concise": concise,
        "form": 1.0,
    }
    assert grades == pytest.approx(expected)
    gold = (2 + 3 + 4 + 3 * concise + 1) / 25
    assert world.gold("hild of velm: what is 2 plus 2?", "gladly: it is 5.") == pytest.approx(gold)


def test_courtesy_helps_once_and_hurts_from_then_on(world):
    polite = LEXICONS[world.lexicon].polite
    for task in itertools.islice(tasks(world), 0, None, 5):
        said = [" ".join((*polite[:n], f"{task.right}.")) for n in range(4)]
        grades = [world.attributes(task.prompt, text)["polite"] for text in said]
        assert grades[:3] == pytest.approx([0.5, 1.0, 0.5], abs=1e-9)
        assert grades[3] == 0
        gold = [world.gold(task.prompt, text) for text in said]
        assert gold[1] > gold[0] > gold[2] > gold[3]


def test_similarity_is_an_edit_distance():
    assert similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert similarity([], []) == 1
    assert similarity(["a"], []) == 0
