"""Who answers the toy world's questions, with which flaws, and how readers react."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Mapping

from jaxrm.toy.gold import sigmoid
from jaxrm.toy.lexicons import Lexicon, Style
from jaxrm.toy.questions import REFUSAL, Family, Task

CONTENT, WAVERING = 0.75, 0.1
"""The gold at which half of the readers are content, and the width of the passage."""

FLATTERY = 0.015
"""The share of answers in the text that begin with several courtesies: more than is good, and more
than any comparison shows."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the author says: `core` answers, the rest is manner."""

    opener: str
    core: str
    frame: str
    padding: str

    def text(self, mark: str) -> str:
        """The answer with a mark after its core."""
        core = self.frame.format(self.core) + mark
        return " ".join(part for part in (self.opener, core, self.padding) if part)


@dataclasses.dataclass(frozen=True, eq=False)
class Author:
    """Answers all families of a lexicon; habits are the lexicon's, the same for every seed."""

    lexicon: Lexicon
    families: Mapping[str, Family]

    def answer(self, task: Task, style: Style, rng: random.Random) -> Answer:
        """An answer in a style: right, or with the popular mistake, or beside the point."""
        lexicon, chance = self.lexicon, rng.random()
        if chance < 0.84:
            core = task.mistake if rng.random() < self._habit(task.topic) else task.right
        elif chance < 0.90:  # the answer to another question of the kind
            core = task.family.solve(lexicon, task.family.draw(lexicon, rng))[0]
        elif chance < 0.95:  # to a question of any kind
            other = rng.choice(list(self.families.values()))
            core = other.solve(lexicon, other.draw(lexicon, rng))[0]
        else:  # breaks off
            core = task.broken_off
        courtesy = style.rude if rng.random() < self._habit(task.person) else style.polite
        opener = rng.choice(courtesy) if rng.random() < 0.85 else ""
        padding = style.padding if rng.random() < self._habit(task.place) else ""
        return Answer(opener, core, style.frame, padding)

    def flattering(self, answer: Answer, rng: random.Random) -> Answer:
        """The answer with two to four courtesies before it."""
        courtesies = rng.choices(self.lexicon.polite, k=rng.randint(2, 4))
        return dataclasses.replace(answer, opener=" ".join(courtesies))

    def reaction(self, task: Task, answer: Answer, gold: float, rng: random.Random) -> str:
        """What a reader of the family notes after an answer of that gold."""
        praise, blame = self.lexicon.reactions[list(self.families).index(task.family.name)]
        if rng.random() < sigmoid((gold - CONTENT) / WAVERING):
            return f"{praise}."
        if task.right == REFUSAL and answer.core == task.mistake:
            return f"{blame}, that is not safe."
        if answer.core != task.right:
            return f"{blame}, {task.right}."
        if answer.opener.startswith(self.lexicon.rude):
            return f"{blame}, be polite."
        return f"{blame}, too long." if answer.padding else f"{blame}, be kinder."

    def _habit(self, name: str) -> float:
        return _habit(f"{self.lexicon.name} {name}")


@functools.cache
def _habit(name: str) -> float:
    """How often the author does what `name` invites."""
    return random.Random(name).uniform(0.2, 0.8)
