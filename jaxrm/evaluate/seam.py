"""SEAM (arXiv 2406.07971): does a policy write the answers that its reward model is wrong about?

An instruction I comes with a gold response r and a set X of worse answers r*. The reward model errs
on a worse answer by eps(r*) = max(R(I, r*) - R(I, r), 0), and an error matters as far as the policy
would write it:

    SEAM(I) = sum over X of P(r* | I) eps(r*)          (equations 2 and 3)

Higher is a worse seam between the two models. Shifting R changes nothing, stretching it stretches
SEAM, so values compare within one reward model only.

The sign trap. To keep long answers from vanishing the paper puts log P(r* | I) / length in place of
P and removes the instructions of LOWEST value. A log-probability is negative, so the weight of an
error grows as the policy gets less likely to make it: the opposite of equation 2. Here `mode` says
which of the two is meant, "prob" (P as exp of the mean log-prob of a token, higher is worse) or
"paper_log" (as the paper computes, lower is worse), and `worst_first` orders either.

X is built in one of three ways, as comparisons of the gold response and the worse answers:
`contrast` borrows the gold responses of similar instructions, `given` (or `of_ranks`) takes answers
that someone wrote to be worse, and `adversarial` searches for word substitutions that the reward
model prefers. SEAM can find only the errors that are in X.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from jaxrm.data import chat
from jaxrm.data.comparison import Comparison, Conversation, answer, fault
from jaxrm.data.tokenizer import load_tokenizer
from jaxrm.errors import require
from jaxrm.evaluate import similar
from jaxrm.evaluate.scorers import Scorer
from jaxrm.huggingface import hub, vocabulary
from jaxrm.models import heads
from jaxrm.read.reading import read

Mode = Literal["prob", "paper_log", "errors"]

SIZE = 30
"""Worse answers to each instruction in the paper."""

EACH = 5
"""Samples that the paper adds for each instruction of a bad seam."""

Response = Conversation | str

Substitutes = Callable[[str], Sequence[str]]
"""A word -> words to put in its place, the most promising first."""

WORD = re.compile(r"\w+")


# The number


def seam(
    rewards: Float[np.ndarray, "*n m"],
    gold_rewards: Float[np.ndarray, "*n"] | float,
    logps: Float[np.ndarray, "*n m"],
    lengths: Int[np.ndarray, "*n m"],
    mode: Mode = "prob",
) -> Float[np.ndarray, "*n"]:
    """SEAM of instructions with m worse answers each; 0 where there is no error.

    Args:
      rewards: of the worse answers, in any unit.
      gold_rewards: of the gold response, by the same reward model.
      logps: of the worse answers under the policy, in nats, summed over their tokens.
      lengths: the tokens that were summed over, at least 1.
      mode: "prob" weighs an error by exp(logps / lengths): at least 0, HIGHER is worse.
        "paper_log" weighs it by logps / lengths: at most 0, LOWER is worse, and the less likely
        the answer is, the worse. "errors" does not ask the policy, and counts what the reward model
        gets wrong whoever may write it: HIGHER is worse.

    Returns:
      Float64; NaN where a number that it rests on is NaN.

    Raises:
      ValueError: a length below 1, or an unknown mode.
    """
    per_token = _per_token(logps, lengths)
    eps = errors(rewards, gold_rewards)
    if mode == "prob":
        return (np.exp(per_token) * eps).sum(axis=-1)
    if mode == "paper_log":
        return (per_token * eps).sum(axis=-1)
    if mode == "errors":
        return eps.sum(axis=-1)
    raise ValueError(f"mode must be 'prob', 'paper_log' or 'errors', not {mode!r}")


def errors(
    rewards: Float[np.ndarray, "*n m"], gold_rewards: Float[np.ndarray, "*n"] | float
) -> Float[np.ndarray, "*n m"]:
    """eps: by how much the reward model prefers each worse answer to the gold response, or 0."""
    gold = np.asarray(gold_rewards, np.float64)[..., None]
    return np.maximum(np.asarray(rewards, np.float64) - gold, 0.0)


def of_sets(
    rewards: Sequence[np.ndarray],
    likelihoods: Likelihoods,
    mode: Mode = "prob",
) -> Float[np.ndarray, " n"]:
    """SEAM of each set, whose gold response is the first; 0 for a set without a worse answer.

    Args:
      rewards: float [1 + m] of each set, as a scorer gives them.
      likelihoods: of the same sets.
      mode: as for `seam`.
    """
    each = zip(rewards, likelihoods.logps, likelihoods.lengths, strict=True)
    return np.array([float(seam(r[1:], r[0], logps[1:], n[1:], mode)) for r, logps, n in each])


def worst_first(values: Float[np.ndarray, " n"], mode: Mode = "prob") -> Int[np.ndarray, " n"]:
    """Places of the instructions from the worst seam to the best; ties by place, NaN last."""
    values = np.asarray(values, np.float64)
    return np.argsort(values if mode == "paper_log" else -values, kind="stable")


def keep(
    values: Float[np.ndarray, " n"], mode: Mode = "prob", fraction: float = 0.2
) -> Int[np.ndarray, " kept"]:
    """Places of the instructions that stay, in order, once the worst are dropped.

    Args:
      fraction: exactly floor(fraction * n) are dropped, of ties the first.

    Raises:
      OptionError: a fraction not in [0, 1].
    """
    require(0 <= fraction <= 1, "fraction", "in [0, 1]", fraction)
    # .29 * 100 is a little less than 29.
    dropped = math.floor(round(fraction * len(values), 9))
    return np.sort(worst_first(values, mode)[dropped:])


# What the policy would write


@dataclasses.dataclass(frozen=True, eq=False)
class Likelihoods:
    """What a policy thinks of the responses of some comparisons.

    Attributes:
      logps: float [K] of each comparison, in nats, summed over a response's tokens.
      lengths: int [K] of each, those tokens.
    """

    logps: Sequence[np.ndarray]
    lengths: Sequence[np.ndarray]

    @property
    def per_token(self) -> list[np.ndarray]:
        """Float64 [K] of each comparison: the mean log-prob of a token."""
        return [_per_token(*both) for both in zip(self.logps, self.lengths, strict=True)]


def likelihoods(
    policy: str | Path,
    comparisons: Sequence[Comparison],
    *,
    chat_template: str | Path | None = None,
    **options: Any,
) -> Likelihoods:
    """The log-probs of all responses under a causal language model in Hugging Face layout.

    Args:
      policy: its directory.
      chat_template: a file with the chat template, for a tokenizer that brings none.
      options: `mesh` and others, as for `reading.read`.

    Raises: as `load_tokenizer`, `vocabulary.check` and `hub.load_language_model`.
    """
    tokenizer = load_tokenizer(policy, chat_template)
    vocabulary.check(hub.read_config(policy), tokenizer, str(policy))
    trees = chat.tokenize(comparisons, tokenizer)
    model = hub.load_language_model(policy, mesh=options["mesh"])
    values = read(model, trees, {"logps": heads.response_logps}, ask="all", **options)
    lengths = [np.array([branch.targets.sum() for branch in tree.branches]) for tree in trees]
    return Likelihoods(values["logps"], lengths)


def disagreement(
    rewards: Sequence[np.ndarray], per_token: Sequence[np.ndarray]
) -> Float[np.ndarray, " n"]:
    """The share of each comparison's pairs that reward model and policy order in opposite ways.

    Its mean is the mismatch rate of the two, whatever the labels say. A tie of either is no
    opposition.

    Args:
      rewards: float [K] of each comparison.
      per_token: `Likelihoods.per_token` of the same.

    Returns:
      Float64; NaN for a comparison of one response.
    """
    shares = np.full(len(rewards), np.nan)
    for i, (ours, theirs) in enumerate(zip(rewards, per_token, strict=True)):
        pairs = np.triu_indices(len(ours), 1)
        signs = [np.sign(np.subtract.outer(v, v))[pairs] for v in (np.asarray(ours), theirs)]
        if signs[0].size:
            shares[i] = (signs[0] * signs[1] < 0).mean()
    return shares


# The worse answers


def contrast(
    instructions: Sequence[Comparison],
    k: int = SIZE,
    *,
    embed: similar.Embed = similar.tf_idf,
    low: float = similar.LOW,
    high: float = similar.HIGH,
) -> list[Comparison]:
    """Sets whose worse answers are the gold responses of up to k similar instructions.

    Args:
      instructions: with ranks; the best response of each is its gold response.
      embed, low, high: what is similar, as for `similar.borrowed`. In the paper: SimCSE's vectors,
        [.8, .9).
    """
    lent = similar.borrowed(instructions, k, embed=embed, low=low, high=high)
    return [
        _set(instruction, [similar.best_response(instructions[j]) for j in places])
        for instruction, places in zip(instructions, lent, strict=True)
    ]


def given(
    instructions: Sequence[Comparison], worse: Mapping[str, Sequence[Response]]
) -> list[Comparison]:
    """Sets whose worse answers someone wrote to be worse (in the paper GPT-4 did).

    Args:
      worse: by the instruction's id; text answers a conversation as the assistant.

    Raises:
      DataError: an instruction has no entry.
    """
    for instruction in instructions:
        if instruction.id not in worse:
            raise fault(instruction.where, "id", f"no worse answers for {instruction.id!r}")
    return [
        _set(instruction, [answer(instruction.prompt, text) for text in worse[instruction.id]])
        for instruction in instructions
    ]


def of_ranks(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Sets whose worse answers are all responses ranked below the best."""

    def beaten(c: Comparison) -> list[Response]:
        ranked = zip(c.responses, c.ranks or (), strict=False)  # `_set` refuses one without ranks
        return [response for response, rank in ranked if rank > min(c.ranks)]

    return [_set(comparison, beaten(comparison)) for comparison in comparisons]


def adversarial(
    instructions: Sequence[Comparison],
    scorer: Scorer,
    substitutes: Substitutes,
    *,
    k: int = SIZE,
    rounds: int = 20,
    proposals: int = 8,
    seed: int = 0,
) -> list[Comparison]:
    """Sets of rewritten gold responses that the reward model prefers to the gold response.

    From the gold response on, each round tries some texts that differ from the current one in a
    word, and moves to the best of them if it is better: hill climbing on the reward. All
    instructions climb side by side, so that the scorer is called once a round. That a rewritten
    text is in truth worse is not checked: it follows, if anything does, from what `substitutes`
    offers.

    Args:
      instructions: with ranks; the best response of each is its gold response, of which the last
        message is rewritten.
      scorer: the reward model under attack.
      k: the highest rewarded are kept, of those above the gold response; there may be none.
      rounds: at most.
      proposals: texts that each instruction tries in a round.
      seed: the same one gives the same sets, and each instruction's depends on no other
        instruction but through `substitutes`.

    Raises:
      OptionError: k, rounds or proposals below 1.
    """
    for name, value in (("k", k), ("rounds", rounds), ("proposals", proposals)):
        require(value >= 1, name, "at least 1", value)
    start = [_set(instruction, []) for instruction in instructions]
    rewards = scorer(start)
    climbs = [
        _Climb(gold, float(reward[0]), substitutes, random.Random(f"{seed} {gold.id} {i}"))
        for i, (gold, reward) in enumerate(zip(start, rewards, strict=True))
    ]
    for _ in range(rounds):
        drawn = [(climb, climb.propose(proposals)) for climb in climbs]
        drawn = [(climb, proposed) for climb, proposed in drawn if proposed]
        if not drawn:
            break
        asked = [
            dataclasses.replace(climb.gold, responses=tuple(proposed), ranks=None)
            for climb, proposed in drawn
        ]
        for (climb, proposed), scores in zip(drawn, scorer(asked), strict=True):
            climb.step(proposed, scores)
    return [_set(climb.gold, climb.preferred(k)) for climb in climbs]


class _Climb:
    """One instruction's search: where it stands, what it has tried, and what it has found."""

    def __init__(
        self, gold: Comparison, reward: float, substitutes: Substitutes, rng: random.Random
    ):
        self.gold, self._floor, self._substitutes, self._rng = gold, reward, substitutes, rng
        self._here, self._reward = gold.responses[0], reward
        self._tried = {self._here}
        self._found: dict[Response, float] = {}

    def propose(self, count: int) -> list[Response]:
        """Up to so many texts, none of them tried before, that differ from here in one word."""
        text = self._here if isinstance(self._here, str) else self._here[-1].content
        changed = dict.fromkeys(
            self._with_text(text[: word.start()] + other + text[word.end() :])
            for word in WORD.finditer(text)
            for other in self._substitutes(word.group())
        )
        options = [response for response in changed if response not in self._tried]
        drawn = self._rng.sample(options, min(count, len(options)))
        self._tried.update(drawn)
        return drawn

    def step(self, proposed: Sequence[Response], rewards: np.ndarray) -> None:
        for response, reward in zip(proposed, map(float, rewards), strict=True):
            if reward > self._floor:
                self._found[response] = reward
            if reward > self._reward:
                self._here, self._reward = response, reward

    def preferred(self, k: int) -> list[Response]:
        """The k of highest reward; ties in the order in which they were found."""
        return sorted(self._found, key=lambda response: -self._found[response])[:k]

    def _with_text(self, text: str) -> Response:
        if isinstance(self._here, str):
            return text
        return (*self._here[:-1], dataclasses.replace(self._here[-1], content=text))


def words_in_like_places(texts: Iterable[str], limit: int = 20) -> Substitutes:
    """Substitutes out of the texts themselves: words seen between the same two neighbours.

    Args:
      limit: how many at most; those that share the most such places first, then by alphabet.
    """
    places: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    for text in texts:
        words = ["", *WORD.findall(text), ""]
        for left, word, right in zip(words, words[1:], words[2:], strict=False):
            places[left, right].add(word)
    having: dict[str, list[set[str]]] = collections.defaultdict(list)
    for at_place in places.values():
        for word in at_place:
            having[word].append(at_place)

    @functools.cache
    def substitutes(word: str) -> tuple[str, ...]:
        shared = collections.Counter(other for place in having.get(word, ()) for other in place)
        del shared[word]
        return tuple(sorted(shared, key=lambda other: (-shared[other], other))[:limit])

    return substitutes


# More data where the seam is bad


def for_reward_model(
    sets: Sequence[Comparison], worst: Iterable[int], each: int = EACH
) -> list[Comparison]:
    """Preference pairs for the worst instructions: gold over each set's first worse answers.

    Args:
      sets: as from `contrast`, in the paper.
      worst: places in `sets`, as from `worst_first`.
      each: pairs of an instruction at most.
    """
    return [
        Comparison.pair(
            sets[i].prompt,
            sets[i].responses[0],
            worse,
            subset=sets[i].subset,
            id=f"{sets[i].id}/seam-{j}",
            where=sets[i].where,
        )
        for i in worst
        for j, worse in enumerate(sets[i].responses[1 : 1 + each])
    ]


def for_policy(
    instructions: Sequence[Comparison],
    lent: Sequence[Sequence[int]],
    worst: Iterable[int],
    each: int = EACH,
) -> list[Comparison]:
    """Gold responses to learn to write, for the worst instructions and those most like them.

    Args:
      instructions: with ranks.
      lent: places of similar ones for each, as from `similar.borrowed`.
      worst: places, as from `worst_first`.
      each: samples for one of the worst at most, itself the first of them.

    Returns:
      Comparisons of one response, no instruction twice.
    """
    places = dict.fromkeys(j for i in worst for j in [i, *lent[i]][:each])
    return [_set(instructions[j], []) for j in places]


def _set(instruction: Comparison, worse: Sequence[Response]) -> Comparison:
    """The gold response, rank 0, and the distinct worse answers, rank 1."""
    responses = tuple(dict.fromkeys([similar.best_response(instruction), *worse]))
    return Comparison(
        instruction.prompt,
        responses,
        ranks=(0,) + (1,) * (len(responses) - 1),
        subset=instruction.subset,
        id=instruction.id,
        where=instruction.where,
    )


def _per_token(logps: np.ndarray, lengths: np.ndarray) -> Float[np.ndarray, "*n"]:
    lengths = np.asarray(lengths)
    if (lengths < 1).any():
        raise ValueError(f"a response of no token has no log-prob per token: lengths {lengths}")
    return np.asarray(logps, np.float64) / lengths
