"""Answers that are worse on purpose, and a grader with another truth."""

from __future__ import annotations

import numpy as np
import pytest

from jaxrm.toy import World, worse
from jaxrm.toy.samples import answers, question


@pytest.fixture(scope="module")
def world():
    return World(0)


@pytest.fixture(scope="module")
def asked(world):
    return world.comparisons("id", 20)


def test_every_written_answer_is_worse_than_the_polite_right_one(world, asked):
    for instruction in worse.instructions(asked, world):
        prompt, (right,) = question(instruction), answers(instruction)
        assert right == worse.polite_answer(world, prompt)
        written = worse.written_worse(world, prompt, 6)
        assert len(set(written)) == 6
        assert max(world.gold(prompt, text) for text in written) < world.gold(prompt, right)


def test_another_answer_is_neither_right_nor_the_mistake(world, asked):
    for prompt in map(question, asked):
        task = world.task(prompt)
        assert worse.other_answer(world, prompt) not in (task.right, task.mistake)
        assert task.broken_off != task.right


def test_who_believes_a_mistake_prefers_it(world, asked):
    prompt, other = map(question, asked[:2])
    task = world.task(prompt)
    both = task.right, task.mistake
    right, mistake = (world.gold(prompt, text) for text in both)
    believed = [world.gold(prompt, text, truth=task.mistake) for text in both]
    assert right > mistake
    assert believed[0] < believed[1]
    scorer = worse.mistaken(world, {prompt: task.mistake}, noise=0.0)
    spoilt, honest = scorer(asked[:2])
    graded = [world.gold(prompt, text, task.mistake) for text in answers(asked[0])]
    np.testing.assert_allclose(spoilt, graded)
    np.testing.assert_allclose(honest, [world.gold(other, text) for text in answers(asked[1])])
    noisy = worse.mistaken(world, {}, noise=0.2)
    np.testing.assert_array_equal(noisy(asked[:2]), noisy(asked[:2]))
    assert abs(noisy(asked[1:2])[0] - honest).min() > 0
