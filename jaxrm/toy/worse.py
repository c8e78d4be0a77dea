"""Answers that are worse than the best one on purpose, and graders who do not see it."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxrm.data.comparison import Comparison, Message
from jaxrm.toy.author import Answer
from jaxrm.toy.lexicons import LEXICONS
from jaxrm.toy.samples import answers, question
from jaxrm.toy.world import LEAST_GAP, World


def polite_answer(world: World, prompt: str) -> str:
    """The right answer, with one courtesy: as good as an answer can be."""
    style = LEXICONS[world.lexicon].usual
    return Answer(style.polite[0], world.task(prompt).right, style.frame, "").text(".")


def instructions(comparisons: Sequence[Comparison], world: World) -> list[Comparison]:
    """What is asked in comparisons of a world, with the polite right answer as the only one."""
    polite = (polite_answer(world, question(comparison)) for comparison in comparisons)
    return [
        dataclasses.replace(c, responses=((Message("assistant", text),),), ranks=(0,), scores=None)
        for c, text in zip(comparisons, polite, strict=True)
    ]


def other_answer(world: World, prompt: str) -> str:
    """The right answer to another question, of the same family if that has any, which here is
    neither right nor the popular mistake."""
    task, lexicon = world.task(prompt), LEXICONS[world.lexicon]
    rng = random.Random(f"other {prompt}")
    for family in itertools.chain([task.family] * 20, world.families.values()):
        core = family.solve(lexicon, family.draw(lexicon, rng))[0]
        if core not in (task.right, task.mistake):
            return core
    raise ValueError(f"no other answer to {prompt!r}")


def manners(world: World, core: str) -> list[str]:
    """An answer in every manner of the usual style but the long-winded one."""
    style = LEXICONS[world.lexicon].usual
    openers = itertools.product((*style.polite, *style.rude, ""), ".!")
    return [Answer(opener, core, style.frame, "").text(mark) for opener, mark in openers]


def written_worse(world: World, prompt: str, size: int) -> list[str]:
    """Up to `size` answers that gold puts below the polite right one: by turns the popular mistake,
    another answer and a broken-off one, in all manners."""
    task, rng = world.task(prompt), random.Random(f"written {prompt}")
    below = world.gold(prompt, polite_answer(world, prompt)) - LEAST_GAP
    by_core = []
    for core in (task.mistake, other_answer(world, prompt), task.broken_off):
        texts = manners(world, core)
        rng.shuffle(texts)
        by_core.append([text for text in texts if world.gold(prompt, text) < below])
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*by_core))
    return [text for text in in_turn if text is not None][:size]


def mistaken(
    world: World, believed: Mapping[str, str], noise: float
) -> Callable[[Sequence[Comparison]], list[np.ndarray]]:
    """A scorer: gold of one who takes other answers for the truth, and errs.

    Args:
      believed: what is taken for the right answer, by prompt; the right answer to all others.
      noise: the deviation of the error, the same for a text whenever it is scored.
    """

    def reward(prompt: str, text: str) -> float:
        error = random.Random(f"{world.seed} {prompt} {text}").gauss(0, noise)
        return world.gold(prompt, text, believed.get(prompt)) + error

    return lambda comparisons: [
        np.array([reward(question(c), text) for text in answers(c)]) for c in comparisons
    ]
