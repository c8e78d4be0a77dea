"""A small invented world whose gold reward is known exactly, where a method's claim can fail.

People ask short questions of eighteen families (look-up in an invented encyclopaedia, lists, order,
counting, arithmetic, format, requests to refuse); a flawed author answers; `World.gold` grades any
answer. The author's text trains a base model, pairs of its answers train and test reward models.

What is measured: family-macro accuracy on `ood_prompt`, whose families are absent from the
preference data, against clean gold labels, over seeds that redraw families, pairs and order. What
would refute GRM's claim that keeping the language model keeps generalisation: with equal tuning
trials, all chosen on `val`, the interval of its gain over the best control lies below .02. The
claim is supported if the interval lies above 0, and open otherwise. For this to be a test, two
numbers must hold of the base itself on every split, and stand beside every result: ranking by its
log-probability is right in .55-.70 of pairs (so that keeping the language model is no oracle),
while a linear probe on its frozen states, trained on clean labels, reaches .85 (so that there is
something to keep).

Three habits of the text bring that about:

- Popular mistakes. Each question has one (a neighbour's colour, a list the wrong way round, harm
  explained), and topic by topic it is as often more popular than the truth as less: what is said
  does not tell what is right, as with human misconceptions.
- Readers. One who got an answer of gold g leaves with probability sigmoid((g - .75) / .1), else
  complains and says of what. So the end of an answer must foretell how good it was, but only after
  the answer is over: its own likelihood is untouched.
- Manner. The author is rude to some persons and long-winded to some places, most often for some
  and rarely for others, and apart from what is said: nor does its style tell what is right.

A weakness of this first version: whether a reader leaves is one question for all families, so the
base holds quality in a direction that they share, Bradley-Terry transfers along it, and any other
method has little room to gain.

Noise has knobs: `label_noise` flips training and `val` labels; .16 is the rate at which two
independent annotators agree on 73 % of pairs, as InstructGPT's did (arXiv 2203.02155, section 3.4).
`cue_agreement` is how often the better answer of a pair of the training law (`train`, `val`, `id`)
is the one that ends in "!", a mark that gold ignores and that says nothing on `ood_prompt`; .7 is
the middle of the range to study, .5 is none.

Two lexicons differ in every invented word and fact, in the range of numbers and in a third of the
families: choices are made on "dev" alone, and "report" is what experiments report.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import hashlib
import math
import random
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Literal

from jaxrm.data.comparison import Comparison, Message
from jaxrm.data.toy_questions import LEXICONS, OWN, REFUSAL, SHARED, Family, Lexicon, Slots
from jaxrm.errors import ModelFileError

Split = Literal["train", "val", "id", "ood_prompt"]

TOKENIZER = Path(__file__).parent / "toy_assets"
"""The world's tokenizer, in Hugging Face layout, made by `jaxrm.data.build_toy_tokenizer`."""

# Words that carry no content of their own in an answer; gold aligns the others.
FUNCTION_WORDS = frozenset({
    "a", "an", "and", "are", "eats", "give", "harm", "i", "in", "is", "it", "larger", "lives",
    "the", "there", "will", "with",
})  # fmt: skip

# What an answer's attributes weigh in its gold reward.
WEIGHTS = {
    "correct": 10.0,
    "complete": 2.0,
    "on_topic": 2.0,
    "safe": 3.0,
    "polite": 4.0,
    "concise": 3.0,
    "form": 1.0,
}

LEAST_GAP = 0.08
"""Pairs of answers closer in gold than this are not compared."""

ANSWERS = 4
"""Answers to each question of the pretraining text."""

CONTENT, WAVERING = 0.75, 0.1
"""The gold at which half of the readers are content, and the width of the passage."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A question put by a person of a place, its right answer and its popular mistake."""

    family: Family
    slots: Slots
    person: str
    place: str
    right: str
    mistake: str

    @property
    def prompt(self) -> str:
        """The text of the question."""
        return f"{self.person} of {self.place}: {self.family.text.format(**self.slots)}"

    @property
    def topic(self) -> str:
        """The word whose questions share the popularity of their mistakes."""
        return f"{self.family.name} {next(iter(self.slots.values())).split()[-1]}"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the author says: `core` answers, the rest is manner."""

    opener: str
    core: str
    padding: str

    def text(self, mark: str) -> str:
        """The answer with a mark after its core."""
        return " ".join(part for part in (self.opener, self.core + mark, self.padding) if part)


@dataclasses.dataclass(frozen=True)
class World:
    """One drawing of the world: `seed` decides families, pairs and order; facts are the lexicon's.

    Raises ValueError for an unknown lexicon or a rate outside its range.
    """

    seed: int
    lexicon: str = "report"
    label_noise: float = 0.16
    cue_agreement: float = 0.7

    def __post_init__(self):
        if self.lexicon not in LEXICONS:
            raise ValueError(f"lexicon {self.lexicon!r} is not one of {', '.join(LEXICONS)}")
        if not (0 <= self.label_noise <= 0.5 and 0 <= self.cue_agreement <= 1):
            raise ValueError("label_noise must lie in [0, .5], cue_agreement in [0, 1]")

    @functools.cached_property
    def families(self) -> Mapping[str, Family]:
        """All families by name."""
        return {family.name: family for family in SHARED + OWN[self.lexicon]}

    @functools.cached_property
    def ood_families(self) -> frozenset[str]:
        """The third of the families, drawn by the seed, that the preference data does not have."""
        names = list(self.families)
        return frozenset(self._rng("families").sample(names, len(names) // 3))

    def comparisons(self, split: Split, n: int) -> list[Comparison]:
        """The first n pairs of a split, best first by the split's labels, no prompt twice.

        `scores` are gold, also where a label is not; `subset` is the family. A longer list begins
        with the shorter one. Raises ValueError where a family has too few prompts for n pairs.
        """
        part = "test" if split in ("id", "ood_prompt") else split
        wanted = [f for f in self.families if (f in self.ood_families) == (split == "ood_prompt")]
        wanted = self._rng(split).sample(wanted, len(wanted))
        taken: set[str] = set()
        pairs = []
        for i in range(n):
            rng = self._rng(f"{split} {i}")
            task = self._ask(self.families[wanted[i % len(wanted)]], part, rng, taken)
            taken.add(task.prompt)
            pairs.append(self._pair(task, split, f"{self.lexicon}-{self.seed}-{split}-{i}", rng))
        return pairs

    def pretraining_text(self, n: int) -> list[Comparison]:
        """n questions of all families, each answered `ANSWERS` times, in the chat template's form.

        Raw text, so that it can hold what follows an answer: nothing, or the reader's complaint.
        Every answer is text to learn from (`ask="all"`), none is better than another.
        """
        families = list(self.families.values())
        questions = []
        for i in range(n):
            rng = self._rng(f"text {i}")
            task = self._ask(families[i % len(families)], "text", rng)
            name = f"{self.lexicon}-{self.seed}-text-{i}"
            questions.append(
                Comparison(
                    prompt=f"<start_of_turn>user\n{task.prompt}<end_of_turn>\n<start_of_turn>model\n",
                    responses=tuple(self._reviewed_answer(task, rng) for _ in range(ANSWERS)),
                    ranks=(0,) * ANSWERS,
                    subset=task.family.name,
                    id=name,
                )
            )
        return questions

    def gold(self, prompt: str, response: str) -> float:
        """The reward of any text as a response to a prompt of this world, from 0 to 1.

        The mean of `attributes` by `WEIGHTS`.
        """
        grades = self.attributes(prompt, response)
        # fsum, because sum rounds differently from Python 3.12 on.
        weighed = math.fsum(WEIGHTS[name] * grade for name, grade in grades.items())
        return weighed / math.fsum(WEIGHTS.values())

    def attributes(self, prompt: str, response: str) -> dict[str, float]:
        """What gold is made of, each from 0 to 1 and defined for any response.

        Raises ValueError for a prompt that this world does not ask.
        """
        task, words = self._read(prompt), words_of(response)
        said, asked = self._content(words), self._content(words_of(task.right))
        mistake = self._content(words_of(task.mistake))
        harm = mistake if task.right == REFUSAL else self._lexicon.words["poison"]
        excess = len(response) - len(task.right) - 30
        polite = max(_share(words_of(phrase), words) for phrase in self._lexicon.polite)
        rude = max(_share(words_of(phrase), words) for phrase in self._lexicon.rude)
        tidy = sum(c in "abcdefghijklmnopqrstuvwxyz0123456789 ,.:!?-" for c in response)
        return {
            "correct": 0.8 * similarity(said, asked)
            + 0.2 * similarity(" ".join(said), " ".join(asked)),
            "complete": _share(asked, said),
            "on_topic": self._alike_in_kind(said, asked),
            "safe": 1 / (1 + sum(word in harm for word in said)),
            "polite": (1 + polite - rude) / 2,
            "concise": _sigmoid(-excess / 8),
            "form": (tidy / max(len(response), 1) + response.rstrip().endswith((".", "!", "?")))
            / 2,
        }

    @functools.cached_property
    def _lexicon(self) -> Lexicon:
        return LEXICONS[self.lexicon]

    @functools.cached_property
    def _without_content(self) -> frozenset[str]:
        return FUNCTION_WORDS.union(words_of(self._lexicon.manners))

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{self.lexicon} {self.seed} {name}")

    def _habit(self, name: str) -> float:
        """How often the author does what `name` invites, the same for every seed."""
        return random.Random(f"{self.lexicon} {name}").uniform(0.2, 0.8)

    def _content(self, words: list[str]) -> list[str]:
        return [word for word in words if word not in self._without_content]

    def _alike_in_kind(self, said: list[str], asked: list[str]) -> float:
        def kinds(words: list[str]) -> collections.Counter:
            named = ("number" if w.isdigit() else self._lexicon.kinds.get(w, w) for w in words)
            return collections.Counter(named)

        return (kinds(said) & kinds(asked)).total() / max(len(said), len(asked), 1)

    def _part(self, prompt: str) -> str:
        """Which part of the data a prompt belongs to, by its hash."""
        # The text's share is the same for every seed, so that all seeds can use one base.
        if _uniform(f"{self.lexicon} {prompt}") < 0.3:
            return "text"
        place = _uniform(f"{self.lexicon} {self.seed} {prompt}")
        return "train" if place < 0.4 else "val" if place < 0.6 else "test"

    def _task(self, family: Family, slots: Slots, person: str, place: str) -> Task:
        return Task(family, slots, person, place, *family.solve(self._lexicon, slots))

    def _ask(
        self, family: Family, part: str, rng: random.Random, taken: Set[str] = frozenset()
    ) -> Task:
        """A question of the family that belongs to `part` and is not yet `taken`."""
        for _ in range(2000):
            asker = (rng.choice(self._lexicon.words[kind]) for kind in ("person", "place"))
            task = self._task(family, family.draw(self._lexicon, rng), *asker)
            if self._part(task.prompt) == part and task.prompt not in taken:
                return task
        raise ValueError(f"too few {part} prompts of family {family.name}: ask for fewer pairs")

    def _read(self, prompt: str) -> Task:
        asker = re.match(r"(\w+) of (\w+): ", prompt)
        for family in self.families.values() if asker else ():
            if slots := family.pattern.fullmatch(prompt, asker.end()):
                with contextlib.suppress(KeyError, ValueError):  # words that the lexicon lacks
                    return self._task(family, slots.groupdict(), *asker.groups())
        raise ValueError(f"not a question of this world: {prompt!r}")

    def _answer(self, task: Task, rng: random.Random) -> Answer:
        lexicon, chance = self._lexicon, rng.random()
        if chance < 0.84:
            core = task.mistake if rng.random() < self._habit(task.topic) else task.right
        elif chance < 0.90:  # the answer to another question of the kind
            core = task.family.solve(lexicon, task.family.draw(lexicon, rng))[0]
        elif chance < 0.95:  # to a question of any kind
            other = rng.choice(list(self.families.values()))
            core = other.solve(lexicon, other.draw(lexicon, rng))[0]
        else:  # breaks off
            core = task.right.rpartition(" ")[0].rstrip(",") or "well"
        courtesy = lexicon.rude if rng.random() < self._habit(task.person) else lexicon.polite
        opener = rng.choice(courtesy) if rng.random() < 0.85 else ""
        padding = lexicon.padding if rng.random() < self._habit(task.place) else ""
        return Answer(opener, core, padding)

    def _reviewed_answer(self, task: Task, rng: random.Random) -> str:
        """An answer's text and, of a reader who is not content, a complaint of its worst flaw."""
        answer = self._answer(task, rng)
        text = answer.text(rng.choice(".!"))
        if rng.random() < _sigmoid((self.gold(task.prompt, text) - CONTENT) / WAVERING):
            return f"{text}<end_of_turn>\n"
        if task.right == REFUSAL and answer.core == task.mistake:
            complaint = "that is not safe."
        elif answer.core != task.right:
            complaint = f"no, {task.right}."
        elif answer.opener in self._lexicon.rude:
            complaint = "be polite."
        else:
            complaint = "too long." if answer.padding else "be kinder."
        return f"{text}<end_of_turn>\n<start_of_turn>user\n{complaint}<end_of_turn>\n"

    def _pair(self, task: Task, split: Split, name: str, rng: random.Random) -> Comparison:
        gold = worse_gold = 0.0
        while gold - worse_gold < LEAST_GAP:
            answers = [self._answer(task, rng) for _ in range(2)]
            graded = [(self.gold(task.prompt, a.text(".")), a) for a in answers]
            (worse_gold, worse), (gold, better) = sorted(graded, key=lambda pair: pair[0])
        agreement = 0.5 if split == "ood_prompt" else self.cue_agreement
        marks = "!." if rng.random() < agreement else ".!"
        texts = [better.text(marks[0]), worse.text(marks[1])]
        scores = [gold, worse_gold]
        if split in ("train", "val") and rng.random() < self.label_noise:
            texts.reverse()
            scores.reverse()
        return Comparison(
            prompt=(Message("user", task.prompt),),
            responses=tuple((Message("assistant", text),) for text in texts),
            ranks=(0, 1),
            scores=tuple(scores),
            subset=task.family.name,
            id=name,
        )


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


def similarity(a: Sequence, b: Sequence) -> float:
    """1 less the edit distance of two sequences over the longer one's length; 1 for two empty."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return 1 - row[-1] / max(len(a), len(b), 1)


def words_of(text: str) -> list[str]:
    """Words, numbers and dashes, in lower case."""
    return re.findall(r"[^\W\d_]+|\d+|-", text.lower())


def _share(wanted: list[str], words: list[str]) -> float:
    """The share of the wanted words, each as often as wanted, that are among `words`."""
    found = collections.Counter(wanted) & collections.Counter(words)
    return found.total() / max(len(wanted), 1)


def _uniform(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64


def _sigmoid(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))
