"""Reward models that label their own training data: SSRM, SER, and Mutual-Taught's two steps.

A model that was trained on few labels reads a pool of comparisons without any; where it is sure,
its order becomes a label, a pseudo-label; and a model is trained on both. What it is sure of is
decided by

- `confident` (SSRM, arXiv 2409.06903), from the probability that the first response is better;
- `separated` (SER, arXiv 2411.00418), from a score between 0 and 1 of each response.

Both are pure functions, and conserve the pool: what is not kept remains, as it was. A comparison
whose second response wins is kept with that order. (SSRM's published conf_threshold.py keeps the
original order there, and so trains on labels that the model is sure are wrong.)

Mutual-Taught (arXiv 2506.06292) trains policy and reward model by turns, each on what the other
makes. What needs a sampler is the caller's; here are the pairs for either (`best_and_worst`,
`newer_over_older`), the filter of the second (`not_refuted`) and when to stop (`keeps_winning`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import scipy.special
from jaxtyping import Bool, Float

from jaxrm.data.comparison import Comparison, fault
from jaxrm.errors import DataError, require
from jaxrm.methods.method import Method
from jaxrm.methods.task import Part, Task, Trained

Scorer = Callable[[Sequence[Comparison]], Sequence[np.ndarray]]
"""Comparisons -> float [K] for each, in the order of its responses, higher is better."""


ROUNDS = 2
"""Of labelling, at most."""


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """A pool, parted.

    Attributes:
      kept: labelled, (0, 1) where the first response is better and (1, 0) where the second is.
      remaining: as they came.
      flipped: of those kept, how many prefer the second response.
    """

    kept: list[Comparison]
    remaining: list[Comparison]
    flipped: int


Select = Callable[[Sequence[Comparison], Float[np.ndarray, "n 2"]], Selection]
"""A pool of pairs and the rewards of their responses -> what is labelled by them."""


# What a model is sure of


def of_rewards(rewards: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    """How likely the first response is the better one by a scalar reward: sigmoid(first - second),
    float64.

    Both orders of a pair add up to 1 by themselves; of a judge, who prefers places,
    `jaxrm.losses.judge.first_better` is the same.
    """
    first, second = np.asarray(rewards, np.float64).T
    return scipy.special.expit(first - second)


def confident(
    comparisons: Sequence[Comparison],
    probabilities: Float[np.ndarray, " n"],
    threshold: float = 0.8,
) -> Selection:
    """SSRM: pairs with max(p, 1 - p) > `threshold`, by `p` = how likely the first is better.

    Args:
      comparisons: n pairs. Their ranks, if they have any, are not looked at.
      probabilities: from 0 to 1.
      threshold: in [1/2, 1); a probability of 1/2 is never kept.

    Raises:
      DataError: a comparison of other than two responses, or a probability that is not from 0 to 1
        (NaN is not), by name.
      OptionError: a threshold out of its range.
    """
    require(0.5 <= threshold < 1, "threshold", "in [0.5, 1)", threshold)
    p = _checked(comparisons, probabilities, "probabilities", (len(comparisons),), share=True)
    return _select(comparisons, p > threshold, 1 - p > threshold)


def separated(
    comparisons: Sequence[Comparison],
    scores: Float[np.ndarray, "n 2"],
    high: float = 0.55,
    low: float = 0.45,
    gap: float = 0.3,
) -> Selection:
    """SER: pairs whose scores lie on two sides, or far apart.

    The first is better if its score is > `high` and the other's < `low`, or if it is more than
    `gap` above the other's; the second is better if the same holds with both exchanged. All
    inequalities are strict, and float64. Of a reward, sigmoid(reward) is such a score, whose place
    between `low` and `high` depends on an offset that Bradley-Terry leaves free: centre rewards
    before.

    Args:
      comparisons: n pairs. Their ranks, if they have any, are not looked at.
      scores: from 0 to 1.
      high, low, gap: the published code's.

    Raises:
      DataError: as `confident`, of scores.
      OptionError: not 0 <= low <= high <= 1, or a gap below 0.
    """
    require(0 <= low <= high <= 1, "low and high", "0 <= low <= high <= 1", (low, high))
    require(gap >= 0, "gap", "at least 0", gap)
    scores = _checked(comparisons, scores, "scores", (len(comparisons), 2), share=True)

    def wins(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return ((one > high) & (other < low)) | (one - other > gap)

    first, second = scores.T
    return _select(comparisons, wins(first, second), wins(second, first))


# The loop


@dataclasses.dataclass(frozen=True, eq=False)
class Round:
    """What one round did to the pool.

    Attributes:
      kept: the comparisons that it labelled.
      flipped: how many of them have the second response ahead.
      pool, remaining: how many there were before it, and after it.
      trained: how many the next model was trained on; 0 where no model followed.
    """

    kept: list[Comparison]
    flipped: int
    pool: int
    remaining: int
    trained: int

    @property
    def counts(self) -> dict[str, int]:
        """All of it as numbers; pool = kept + remaining."""
        return {
            "pool": self.pool,
            "kept": len(self.kept),
            "flipped": self.flipped,
            "remaining": self.remaining,
            "trained": self.trained,
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Evolved:
    """The end of self-training.

    Attributes:
      scorer: the last model.
      training: what it was trained on: the labelled comparisons, then the pseudo-labelled ones.
      pool: what no round was sure of.
      rounds: in order.
    """

    scorer: Scorer
    training: list[Comparison]
    pool: list[Comparison]
    rounds: list[Round]


def self_train(
    labelled: Sequence[Comparison],
    pool: Sequence[Comparison],
    train: Callable[[Sequence[Comparison]], Scorer],
    select: Select,
    rounds: int,
) -> Evolved:
    """Trains on the labelled comparisons; then, round by round, labels, and trains on all labels.

    What is labelled leaves the pool and keeps its label. It ends before its last round where there
    is nothing more to do, which is a result and no error: the pool is empty, or nothing of it was
    kept, so that the next model would be the same as the last. The last of `rounds` says which.

    Args:
      labelled: the seed set, with ranks.
      pool: pairs, whose ranks, if they have any, are not looked at.
      train: a fresh model's scorer from comparisons with ranks.
      select: for SSRM `lambda pairs, rewards: confident(pairs, of_rewards(rewards))`, for SER
        `lambda pairs, rewards: separated(pairs, expit(rewards))`.
      rounds: at most, at least 1.

    Raises:
      DataError: nothing labelled to begin with, an empty pool, or one with other than pairs; as
        `select`.
      OptionError: no rounds.
    """
    require(rounds >= 1, "rounds", "at least 1", rounds)
    if not labelled:
        raise DataError("self-training needs labelled comparisons to begin with, and has none")
    if not pool:
        raise DataError("self-training needs a pool of comparisons to label, and it is empty")
    for comparison in pool:
        _check_pair(comparison)
    training, waiting, done = list(labelled), list(pool), []
    scorer = train(training)
    while len(done) < rounds and waiting:
        parts = select(waiting, np.stack([np.asarray(r) for r in scorer(waiting)]))
        training += parts.kept
        trained = len(training) if parts.kept else 0
        done.append(Round(parts.kept, parts.flipped, len(waiting), len(parts.remaining), trained))
        if not parts.kept:
            break
        waiting = parts.remaining
        scorer = train(training)
    return Evolved(scorer, training, waiting, done)


@dataclasses.dataclass(frozen=True, eq=False)
class SelfTrained(Trained):
    """What the last model makes of a task, and what each round did to the pool before it."""

    rounds: Sequence[Round] = ()


def rounds_of(select: Select, rounds: int = ROUNDS) -> Callable[[Task, Method], Trained]:
    """The procedure: trains on the pairs that have an order, and labels those that have none."""

    def train(task: Task, method: Method) -> Trained:
        pairs, models = task.data.comparisons, []

        def fit(comparisons: Sequence[Comparison]) -> Scorer:
            models.append(task.fit(method, comparisons, name=f"round_{len(models)}"))
            model = models[-1]
            return lambda asked: model.scores(task.bench.pack(asked))

        labelled = [pair for pair in pairs if pair.ranks is not None]
        pool = [pair for pair in pairs if pair.ranks is None]
        evolved, last = self_train(labelled, pool, fit, select, rounds), models[-1]
        return SelfTrained(last.scores, models, [Part(last.reward_model)], rounds=evolved.rounds)

    return train


def ssrm(pool: Sequence[Comparison], rewards: Float[np.ndarray, "n 2"]) -> Selection:
    """What is more likely than .8 to be so."""
    return confident(pool, of_rewards(rewards))


def ser(pool: Sequence[Comparison], rewards: Float[np.ndarray, "n 2"]) -> Selection:
    """What lies on two sides of 1/2, or far apart, by sigmoid(reward - mean reward of the pool):
    SER's bounds are for scores around 1/2, and Bradley-Terry leaves the level of rewards free."""
    return separated(pool, scipy.special.expit(rewards - rewards.mean(dtype=np.float64)))


POOLED = "pairs with an order, and others without one"

SELF_TRAINED: dict[str, Method] = {
    "ssrm": Method(
        "SSRM: Bradley-Terry on its own labels, where it is confident (arXiv 2409.06903)",
        train=rounds_of(ssrm),
        needs=POOLED,
    ),
    "ser": Method(
        "SER: Bradley-Terry on its own labels, where scores lie apart (arXiv 2411.00418)",
        train=rounds_of(ser),
        needs=POOLED,
    ),
}


# Mutual-Taught


def best_and_worst(
    samples: Sequence[Comparison], rewards: Sequence[Float[np.ndarray, " K"]]
) -> list[Comparison]:
    """The pairs that a policy learns from (E-step): its best sample over its worst, by the reward.

    Args:
      samples: K >= 2 responses of the policy to each of n prompts.
      rewards: of the reward model, in the order of the responses.

    Returns:
      A pair for each prompt whose rewards are not all the same, the better one first, in order.

    Raises:
      DataError: fewer than two responses, or a reward that is not finite, by name.
    """
    pairs = []
    for comparison, values in zip(samples, rewards, strict=True):
        values = np.asarray(values, np.float64)
        if len(comparison.responses) < 2:
            raise fault(_where(comparison), "responses", "two samples are needed, and here is one")
        if values.shape != (len(comparison.responses),):
            raise ValueError(f"rewards {values.shape} for {len(comparison.responses)} responses")
        if not np.isfinite(values).all():
            raise fault(_where(comparison), "rewards", "must be finite")
        best, worst = int(values.argmax()), int(values.argmin())
        if values[best] > values[worst]:
            responses = comparison.responses[best], comparison.responses[worst]
            pairs.append(_pair_of(comparison, responses))
    return pairs


def newer_over_older(newer: Sequence[Comparison], older: Sequence[Comparison]) -> list[Comparison]:
    """The pairs that a reward model learns from (M-step): the policy's sample after its update over
    its sample before.

    No reward has a say in these labels. Where the update did nothing they are noise, on which
    Bradley-Terry's loss is least at indifference, log 2.

    Args:
      newer, older: one response to each of the same n prompts.

    Raises:
      DataError: the prompts differ, or there is more than one response, by name.
    """
    pairs = []
    for after, before in zip(newer, older, strict=True):
        if after.prompt != before.prompt:
            raise fault(_where(after), "prompt", "not that of the older policy's sample")
        if len(after.responses) != 1 or len(before.responses) != 1:
            raise fault(_where(after), "responses", "one sample of each policy is needed")
        pairs.append(_pair_of(after, after.responses + before.responses))
    return pairs


def not_refuted(
    pairs: Sequence[Comparison], rewards: Float[np.ndarray, "n 2"], tolerance: float
) -> tuple[list[Comparison], list[Comparison]]:
    """The pairs that the last reward model does not hold for clearly wrong, and the dropped ones.

    A pair is dropped if reward(newer) - reward(older) <= -tolerance.

    Args:
      pairs: as from `newer_over_older`.
      rewards: finite, of the reward model before the step.
      tolerance: at least 0, in units of the reward. The paper adapts it to the variance of the
        rewards in each round: pass a multiple of the differences' deviation.

    Returns:
      kept and dropped, each in order; together they are all.

    Raises:
      DataError: a pair of other than two responses, or a reward that is not finite, by name.
      OptionError: a tolerance below 0.
    """
    require(tolerance >= 0, "tolerance", "at least 0", tolerance)
    rewards = _checked(pairs, rewards, "rewards", (len(pairs), 2), share=False)
    dropped = rewards[:, 0] - rewards[:, 1] <= -tolerance
    return _parted(pairs, ~dropped)


def keeps_winning(rewards: Float[np.ndarray, "n 2"], least: float) -> bool:
    """Whether the newer policy still wins often enough over the older one to go on.

    Args:
      rewards: n >= 1 rows (newer, older), finite; a tie is half a win.
      least: the win rate, from 0 to 1, below which to stop.

    Raises:
      DataError: no rows, or a reward that is not finite.
      OptionError: a rate out of its range.
    """
    require(0 <= least <= 1, "least", "in [0, 1]", least)
    newer, older = np.asarray(rewards, np.float64).reshape(-1, 2).T
    if not newer.size or not np.isfinite([newer, older]).all():
        raise DataError("a win rate needs at least one pair of finite rewards")
    return bool(((newer > older) + (newer == older) / 2).mean() >= least)


def _checked(
    comparisons: Sequence[Comparison],
    values: np.ndarray,
    field: str,
    shape: tuple[int, ...],
    *,
    share: bool,
) -> np.ndarray:
    """Float64 of `shape`, finite and, if a `share`, from 0 to 1; comparisons are pairs."""
    values = np.asarray(values, np.float64)
    if values.shape != shape:
        raise ValueError(f"{field} of shape {values.shape} for {len(comparisons)} comparisons")
    for comparison, row in zip(comparisons, values, strict=True):
        _check_pair(comparison)
        if share and not ((row >= 0) & (row <= 1)).all():
            raise fault(_where(comparison), field, f"must be from 0 to 1, found {row}")
        if not np.isfinite(row).all():
            raise fault(_where(comparison), field, f"must be finite, found {row}")
    return values


def _check_pair(comparison: Comparison) -> None:
    if len(comparison.responses) != 2:
        count = len(comparison.responses)
        raise fault(_where(comparison), "responses", f"a pair is needed, and here are {count}")


def _select(
    comparisons: Sequence[Comparison],
    first: Bool[np.ndarray, " n"],
    second: Bool[np.ndarray, " n"],
) -> Selection:
    """Those whose first or second response wins are kept; none may have both win."""
    kept, remaining = _parted(comparisons, first | second)
    order = second[first | second]
    labelled = [
        dataclasses.replace(comparison, ranks=(1, 0) if flipped else (0, 1), margin=None)
        for comparison, flipped in zip(kept, order, strict=True)
    ]
    return Selection(labelled, remaining, int(order.sum()))


def _parted(
    comparisons: Sequence[Comparison], keep: Bool[np.ndarray, " n"]
) -> tuple[list[Comparison], list[Comparison]]:
    parts: tuple[list[Comparison], list[Comparison]] = ([], [])
    for comparison, kept in zip(comparisons, keep, strict=True):
        parts[not kept].append(comparison)
    return parts


def _pair_of(comparison: Comparison, responses: tuple) -> Comparison:
    """A comparison's prompt and names, with these two responses, the better one first."""
    return Comparison(
        comparison.prompt,
        responses,
        ranks=(0, 1),
        subset=comparison.subset,
        id=comparison.id,
        where=comparison.where,
    )


def _where(comparison: Comparison) -> str:
    return comparison.where or comparison.id
