"""The drawing of a toy world: prompts, splits, comparisons, ratings, and text to pretrain on."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Literal, get_args

from jaxrm.data.comparison import Comparison, Message
from jaxrm.errors import ModelFileError
from jaxrm.toy import gold as grading
from jaxrm.toy import steps
from jaxrm.toy.author import FLATTERY, Answer, Author
from jaxrm.toy.gold import WEIGHTS
from jaxrm.toy.lexicons import LEXICONS, Lexicon
from jaxrm.toy.questions import OWN, SHARED, Family, Task

Split = Literal["train", "val", "id", "ood_prompt", "ood_response", "spurious"]

SPLITS: tuple[Split, ...] = get_args(Split)

TOKENIZER = Path(__file__).with_name("assets")
"""The world's tokenizer, in Hugging Face layout, made by `jaxrm.toy.tokenizer`."""

LEAST_GAP = 0.08
"""Pairs of answers closer in gold than this are not compared."""

ANSWERS = 4
"""Answers to each question of the pretraining text."""


@dataclasses.dataclass(frozen=True)
class World:
    """One drawing of the world: `seed` decides families, pairs and order; facts are the lexicon's.

    Attributes:
      lexicon: whose words and facts.
      label_noise: the share of comparisons of `train` and `val` with two places of their order
        exchanged; .16 is the rate at which two independent annotators agree on 73 % of pairs, as
        InstructGPT's did (arXiv 2203.02155, section 3.4).
      temperature: of the annotators of those splits, in gold's units: they order by gold with
        Gumbel noise of this scale (Bradley-Terry for pairs, Plackett-Luce for more).
      cue_bias: what a "!" is worth to them, in gold's units.
      cue_agreement: how often, in a pair of the training law, the better answer by gold is the one
        that ends in "!", a mark that gold ignores. None is .5.
      weighting: whether attributes weigh alike in all families.

    Raises ValueError for an unknown name or a rate outside its range.
    """

    seed: int
    lexicon: str = "report"
    label_noise: float = 0.16
    temperature: float = 0.0
    cue_bias: float = 0.0
    cue_agreement: float = 0.7
    weighting: Literal["constant", "by_family"] = "constant"

    def __post_init__(self):
        if self.lexicon not in LEXICONS:
            raise ValueError(f"lexicon {self.lexicon!r} is not one of {', '.join(LEXICONS)}")
        if not (0 <= self.label_noise <= 0.5 and 0 <= self.cue_agreement <= 1):
            raise ValueError("label_noise must lie in [0, .5], cue_agreement in [0, 1]")
        if not 0 <= self.temperature < math.inf or not math.isfinite(self.cue_bias):
            raise ValueError("temperature must be finite and at least 0, cue_bias finite")
        if self.weighting not in ("constant", "by_family"):
            raise ValueError(f"weighting {self.weighting!r} is not constant or by_family")

    @functools.cached_property
    def families(self) -> Mapping[str, Family]:
        """All families by name."""
        return {family.name: family for family in SHARED + OWN[self.lexicon]}

    @functools.cached_property
    def ood_families(self) -> frozenset[str]:
        """The third of the families, drawn by the seed, that the preference data does not have."""
        names = list(self.families)
        return frozenset(self._rng("families").sample(names, len(names) // 3))

    def comparisons(self, split: Split, n: int, k: int = 2) -> list[Comparison]:
        """The first n comparisons of a split, best first by its labels, no prompt twice.

        - `train`, `val`: the training law, labelled by annotators.
        - `id`: the same law, new prompts, true order; so are the labels of the splits that follow.
        - `ood_prompt`: families that training lacks; the mark says nothing.
        - `ood_response`: the families of training, answers in another style, longer; the mark says
          nothing.
        - `spurious`: as `id`, but the mark always goes to the worse of the two.

        Args:
          k: responses to each prompt. Of more than two, one has the mark: in every two of them it
            is the better one as often as in a pair.

        Returns:
          `scores` are gold, also where a label is not; `subset` is the family. A longer list begins
          with the shorter one.

        Raises:
          ValueError: k < 2, or a family has too few prompts.
        """
        if k < 2:
            raise ValueError(f"a comparison takes at least 2 responses, not {k}")
        part = split if split in ("train", "val") else "test"
        wanted = [f for f in self.families if (f in self.ood_families) == (split == "ood_prompt")]
        wanted = self._rng(split).sample(wanted, len(wanted))
        taken: set[str] = set()
        drawn = []
        for i in range(n):
            rng = self._rng(f"{split} {i}")
            task = self._ask(self.families[wanted[i % len(wanted)]], part, rng, taken)
            taken.add(task.prompt)
            name = f"{self.lexicon}-{self.seed}-{split}-{i}"
            drawn.append(self._comparison(task, split, k, name, rng))
        return drawn

    def rated(self, comparisons: Sequence[Comparison]) -> list[Comparison]:
        """The comparisons with the attributes of `WEIGHTS`, in its order, as a rater gives them.

        Raters err by .1 (a standard deviation), leave out 30 % (NaN), and give long answers up to
        .2 more of everything than they deserve.
        """
        return [self._rate(comparison) for comparison in comparisons]

    def solutions(
        self, split: Literal["train", "val", "test"], n: int
    ) -> list[tuple[str, steps.Solution]]:
        """n sums with a worked solution each, right or wrong, step by step.

        Questions may come twice, with other solutions.
        """
        family, drawn = self.families["sum"], []
        for i in range(n):
            rng = self._rng(f"solution {split} {i}")
            task = self._ask(family, split, rng)
            count = len(steps.solution(task.slots["sum"]).steps)
            slips = steps.draw_slips(count, rng)
            drawn.append((task.prompt, steps.solution(task.slots["sum"], slips)))
        return drawn

    def pretraining_text(self, n: int) -> list[Comparison]:
        """n questions of all families, each answered `ANSWERS` times, in the chat template's form.

        Raw text, so that it can hold what follows an answer: a reader's note. Every answer is text
        to learn from (`ask="all"`), none is better than another.
        """
        families = list(self.families.values())
        questions = []
        for i in range(n):
            rng = self._rng(f"text {i}")
            task = self._ask(families[i % len(families)], "text", rng)
            questions.append(
                Comparison(
                    prompt=f"<start_of_turn>user\n{task.prompt}<end_of_turn>\n<start_of_turn>model\n",
                    responses=tuple(self._reviewed_answer(task, rng) for _ in range(ANSWERS)),
                    ranks=(0,) * ANSWERS,
                    subset=task.family.name,
                    id=f"{self.lexicon}-{self.seed}-text-{i}",
                )
            )
        return questions

    def gold(self, prompt: str, response: str, truth: str | None = None) -> float:
        """The reward of any text as a response to a prompt of this world, from 0 to 1.

        Args:
          truth: what is taken for the right answer, which then is the popular mistake.
        """
        task = self.task(prompt)
        if truth is not None:
            task = dataclasses.replace(task, right=truth, mistake=task.right)
        return self._grade(task, response)

    def attributes(self, prompt: str, response: str) -> dict[str, float]:
        """What gold is made of (`jaxrm.toy.gold`), each from 0 to 1, for any response."""
        return grading.attributes(self._lexicon, self.task(prompt), response)

    def task(self, prompt: str) -> Task:
        """The question that a prompt asks. Raises ValueError for a prompt not of this world."""
        asker = re.match(r"(\w+) of (\w+): ", prompt)
        for family in self.families.values() if asker else ():
            if slots := family.pattern.fullmatch(prompt, asker.end()):
                with contextlib.suppress(KeyError, ValueError):  # words that the lexicon lacks
                    return Task.of(self._lexicon, family, slots.groupdict(), *asker.groups())
        raise ValueError(f"not a question of this world: {prompt!r}")

    @functools.cached_property
    def _lexicon(self) -> Lexicon:
        return LEXICONS[self.lexicon]

    @functools.cached_property
    def _author(self) -> Author:
        return Author(self._lexicon, self.families)

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{self.lexicon} {self.seed} {name}")

    def _grade(self, task: Task, response: str) -> float:
        constant = self.weighting == "constant"
        weights = WEIGHTS if constant else grading.weights_of(task.family.name)
        return grading.gold(grading.attributes(self._lexicon, task, response), weights)

    def _part(self, prompt: str) -> str:
        """Which part of the data a prompt belongs to, by its hash."""
        # The text's share is the same for every seed, so that all seeds can use one base.
        if _uniform(f"{self.lexicon} {prompt}") < 0.3:
            return "text"
        place = _uniform(f"{self.lexicon} {self.seed} {prompt}")
        return "train" if place < 0.4 else "val" if place < 0.6 else "test"

    def _ask(
        self, family: Family, part: str, rng: random.Random, taken: Set[str] = frozenset()
    ) -> Task:
        """A question of the family that belongs to `part` and is not yet `taken`."""
        for _ in range(2000):
            asker = (rng.choice(self._lexicon.words[kind]) for kind in ("person", "place"))
            task = Task.of(self._lexicon, family, family.draw(self._lexicon, rng), *asker)
            if self._part(task.prompt) == part and task.prompt not in taken:
                return task
        raise ValueError(f"too few {part} prompts of family {family.name}: ask for fewer pairs")

    def _comparison(
        self, task: Task, split: Split, k: int, name: str, rng: random.Random
    ) -> Comparison:
        style = self._lexicon.other if split == "ood_response" else self._lexicon.usual
        gap, scores = LEAST_GAP / (k - 1), [0.0] * k
        while min(a - b for a, b in itertools.pairwise(scores)) < gap:
            answers = [self._author.answer(task, style, rng) for _ in range(k)]
            graded = [(self._grade(task, a.text(".")), a) for a in answers]
            graded.sort(key=lambda pair: -pair[0])
            scores = [score for score, _ in graded]
        agreement = {"ood_prompt": 0.5, "ood_response": 0.5, "spurious": 0.0}
        better, worse = sorted(rng.sample(range(k), 2))
        marked = better if rng.random() < agreement.get(split, self.cue_agreement) else worse
        texts = [answer.text("!" if i == marked else ".") for i, (_, answer) in enumerate(graded)]
        order = list(range(k))
        if split in ("train", "val"):
            order = self._annotate(scores, marked, rng)
        return Comparison(
            prompt=(Message("user", task.prompt),),
            responses=tuple((Message("assistant", texts[i]),) for i in order),
            ranks=tuple(range(k)),
            scores=tuple(scores[i] for i in order),
            subset=task.family.name,
            id=name,
        )

    def _annotate(self, scores: Sequence[float], marked: int, rng: random.Random) -> list[int]:
        """The order in which annotators put responses of these scores, best first."""

        def perceived(i: int) -> float:
            gumbel = -math.log(-math.log(rng.random() or 0.5))
            return scores[i] + self.cue_bias * (i == marked) + self.temperature * gumbel

        worth = [perceived(i) for i in range(len(scores))]
        order = sorted(range(len(scores)), key=lambda i: -worth[i])
        if rng.random() < self.label_noise:
            a, b = rng.sample(range(len(order)), 2)
            order[a], order[b] = order[b], order[a]
        return order

    def _rate(self, comparison: Comparison) -> Comparison:
        rng = self._rng(f"ratings {comparison.id}")
        prompt = comparison.prompt[0].content

        def rating(grade: float, length: int) -> float:
            error, missing = rng.gauss(0, 0.1), rng.random() < 0.3
            return math.nan if missing else grade + error + 0.2 * min(length / 80, 1)

        def ratings(text: str) -> tuple[float, ...]:
            grades = self.attributes(prompt, text)
            return tuple(rating(grades[name], len(text)) for name in WEIGHTS)

        rows = tuple(ratings(response[-1].content) for response in comparison.responses)
        return dataclasses.replace(comparison, attributes=rows)

    def _reviewed_answer(self, task: Task, rng: random.Random) -> str:
        """An answer's text and its reader's note."""
        style = self._lexicon.other if rng.random() < 0.3 else self._lexicon.usual
        answer: Answer = self._author.answer(task, style, rng)
        if rng.random() < FLATTERY:
            answer = self._author.flattering(answer, rng)
        text = answer.text(rng.choice(".!"))
        note = self._author.reaction(task, answer, self._grade(task, text), rng)
        return f"{text}<end_of_turn>\n{note}"


def shipped_base() -> Path:
    """The directory of the base that ships with the world, made of the "report" lexicon's text.

    Raises ModelFileError where its weights are missing, or not the ones that were shipped.
    """
    weights, recorded = TOKENIZER / "model.safetensors", TOKENIZER / "model.sha256"
    if not weights.is_file():
        raise ModelFileError(f"{weights}: missing; make the base with --pretrain")
    if hashlib.sha256(weights.read_bytes()).hexdigest() != recorded.read_text().strip():
        raise ModelFileError(f"{weights}: not the file that {recorded.name} names; install again")
    return TOKENIZER


def _uniform(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64
