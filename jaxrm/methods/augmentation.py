"""RRM's augmentation: comparisons in which manners alone win nothing (arXiv 2409.13156).

Where all answers are to the point, a reward model may learn what good answers look like in place of
what answers the question. So each comparison i borrows the four responses of two others, j and k,
whose prompts are different ones, and its own prompt is answered anew, 14 times:

- non-contextual, 8: each of its own two responses is better than each of the four borrowed ones;
- neutral, 6: of any two borrowed ones neither is better, a tie.

A borrowed response may win over an own one in manners and loses all the same; and two borrowed ones
with different manners are worth the same. Where the responses lie in a comparison says nothing: a
scalar reward sees one of them at a time, so that the paper's random order of "A" and "B", which its
pairwise model needs, has no counterpart here. The published code (pair-pm/RRM of
RLHFlow/RLHF-Reward-Modeling) shuffles rows, so that a comparison may borrow from itself or from
another one of the same prompt, whose responses do answer it: here this cannot happen.

In training a tie makes no pair in a PackedBatch, but it is a group, two of whose slots have one
rank, of which the loss takes `jaxrm.losses.regularizers.neutral`. Where ties are dropped, half of
Bradley-Terry's loss on either order of a tie (`both_orders`, at weight .5) is the same.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Hashable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Float, Int

from jaxrm.data.comparison import Comparison, Conversation, fault
from jaxrm.data.packing import PackedBatch
from jaxrm.errors import DataError, require
from jaxrm.losses import preference, regularizers
from jaxrm.methods.method import Method, hidden_states, pair_weights
from jaxrm.methods.task import Task
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.train.terms import LossFn, Term, Terms, reward_monitors

NON_CONTEXTUAL, NEUTRAL = "rrm-non-contextual", "rrm-neutral"
"""The subsets of the comparisons that are made."""

FOLD = 14
"""Comparisons that are made of one."""


def augment(comparisons: Sequence[Comparison], seed: int) -> list[Comparison]:
    """The comparisons that are made of each: 8 non-contextual ones, then 6 neutral ones.

    Args:
      comparisons: n pairs, each with one better response; at least three different prompts.
      seed: of who borrows from whom.

    Returns:
      14 n comparisons, those of a row together, without the rows themselves; a function of the
      arguments alone. Non-contextual ones have the own response first and ranks (0, 1), neutral
      ones ranks (0, 0). `subset` is `NON_CONTEXTUAL` or `NEUTRAL`, and `id` says of which rows, by
      their ids (or, without one, by their places), and which of their responses (+ the better one,
      - the other): "7+ 12-" for the better response of 7 before the worse one of 12, with the
      prompt of 7, "7: 12- 30+" for two borrowed ones. Scores and attributes, which graded
      responses as answers to their own prompts, are left out.

    Raises:
      DataError: a comparison of other than two responses, or without a better one, by name; fewer
        than three different prompts; or a response that cannot follow another prompt (a prompt of
        messages and a response of raw text).
    """
    for comparison in comparisons:
        _check_pair(comparison)
    borrowed = partners([comparison.prompt for comparison in comparisons], seed)
    own = [_responses(comparison, i) for i, comparison in enumerate(comparisons)]
    return [
        made
        for i, (j, k) in enumerate(borrowed)
        for made in _made_of(comparisons[i], own[i], own[j] + own[k], i)
    ]


def partners(prompts: Sequence[Hashable], seed: int) -> Int[np.ndarray, "n 2"]:
    """For each of n rows two others, so that the three have three different prompts.

    The rows stand in a ring in random order, and each borrows from the next one with another
    prompt, and from the next after that with yet another one. Where no prompt comes twice, both
    columns are derangements: every row lends as often as it borrows.

    Args:
      prompts: [n] compared by equality.
      seed: of the order.

    Raises:
      DataError: fewer than three different prompts.
    """
    different = len(set(prompts))
    if different < 3:
        raise DataError(f"RRM needs comparisons of at least 3 different prompts, found {different}")
    ring = np.random.default_rng(seed).permutation(len(prompts))
    chosen = np.empty((len(prompts), 2), np.int64)
    for place, i in enumerate(ring):
        following = itertools.chain(ring[place + 1 :], ring[:place])
        j = next(row for row in following if prompts[row] != prompts[i])
        k = next(row for row in following if prompts[row] not in (prompts[i], prompts[j]))
        chosen[i] = j, k
    return chosen


def both_orders(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Each tie as two comparisons, of which the one prefers what the other rejects.

    Args:
      comparisons: of two responses; their ranks are not looked at.

    Returns:
      2 n comparisons, the two of a tie together; their ids end in " >" and " <".
    """
    return [
        dataclasses.replace(comparison, ranks=ranks, id=f"{comparison.id} {sign}")
        for comparison in comparisons
        for ranks, sign in (((0, 1), ">"), ((1, 0), "<"))
    ]


def confidently_wrong(
    comparisons: Sequence[Comparison],
    rewards: Float[np.ndarray, "n 2"],
    threshold: float = 0.2,
) -> tuple[list[Comparison], list[Comparison]]:
    """The comparisons whose label surprises a model, and the rest.

    A label says how likely the first response is to be the better one: 1, 0, or 1/2 for a tie. The
    model says sigmoid(reward of the first - reward of the second), and a comparison is kept where
    the two differ by `threshold` or more. With the rewards of a model that was trained on the
    original comparisons this thins what was made of them; the originals are to be kept anyway.

    Args:
      comparisons: n pairs with ranks.
      rewards: finite, of the model at hand, in the order of the responses.
      threshold: in (0, 1). A tie differs by less than 1/2: from there on none is kept.

    Returns:
      kept and remaining, each in order; together they are all.

    Raises:
      DataError: a comparison of other than two responses, without ranks, or whose rewards are not
        finite, by name.
      OptionError: a threshold out of its range.
    """
    require(0 < threshold < 1, "threshold", "in (0, 1)", threshold)
    rewards = np.asarray(rewards, np.float64)
    if rewards.shape != (len(comparisons), 2):
        raise ValueError(f"rewards of shape {rewards.shape} for {len(comparisons)} pairs")
    kept, remaining = [], []
    for comparison, (first, second) in zip(comparisons, rewards, strict=True):
        if comparison.ranks is None or len(comparison.ranks) != 2:
            raise fault(comparison.where or comparison.id, "ranks", "two ranks are needed")
        if not (np.isfinite(first) and np.isfinite(second)):
            raise fault(comparison.where or comparison.id, "rewards", "must be finite")
        target = (1 + np.sign(comparison.ranks[1] - comparison.ranks[0])) / 2
        surprise = abs(scipy.special.expit(first - second) - target)
        (kept if surprise >= threshold else remaining).append(comparison)
    return kept, remaining


@dataclasses.dataclass(frozen=True)
class _Response:
    """A response, and its name in an id."""

    text: Conversation | str
    name: str


def _check_pair(comparison: Comparison) -> None:
    where = comparison.where or comparison.id
    if len(comparison.responses) != 2:
        count = len(comparison.responses)
        raise fault(where, "responses", f"RRM augments pairs, and here are {count}")
    if comparison.ranks is None or comparison.is_tie:
        raise fault(where, "ranks", "RRM augments pairs with one better response")


def _responses(comparison: Comparison, place: int) -> tuple[_Response, _Response]:
    """The better response and the other."""
    better = int(comparison.ranks[1] < comparison.ranks[0])
    name = _name(comparison, place)
    return (
        _Response(comparison.responses[better], f"{name}+"),
        _Response(comparison.responses[1 - better], f"{name}-"),
    )


def _made_of(
    comparison: Comparison,
    own: tuple[_Response, _Response],
    borrowed: tuple[_Response, ...],
    place: int,
) -> list[Comparison]:
    def made(first: _Response, second: _Response, ranks: tuple[int, int], subset: str, id: str):
        return Comparison(
            comparison.prompt,
            (first.text, second.text),
            ranks=ranks,
            subset=subset,
            id=id,
            where=comparison.where,
        )

    return [
        made(mine, theirs, (0, 1), NON_CONTEXTUAL, f"{mine.name} {theirs.name}")
        for mine, theirs in itertools.product(own, borrowed)
    ] + [
        made(a, b, (0, 0), NEUTRAL, f"{_name(comparison, place)}: {a.name} {b.name}")
        for a, b in itertools.combinations(borrowed, 2)
    ]


def _name(comparison: Comparison, place: int) -> str:
    return comparison.id or str(place)


def rrm_loss(strength: float | None) -> LossFn:
    """Bradley-Terry on pairs, indifference on ties; a tie weighs as much as a pair."""

    def loss_fn(model: RewardModel, batch: PackedBatch, rng: jax.Array) -> Terms:
        rewards = heads.rewards(model, hidden_states(model, batch, rng), batch, rng)
        grouped, ranks = batch.groups(rewards), batch.groups(batch.response_rank)
        ties = batch.group_mask.all(-1) & (ranks[..., 0] == ranks[..., 1])
        losses = (
            preference.bradley_terry(*batch.pairs(rewards)),
            regularizers.neutral(grouped[..., 0], grouped[..., 1]),
        )
        weights = pair_weights(batch), ties.astype(jnp.float32)
        reward = Term(1.0, jnp.concatenate(losses, 1), jnp.concatenate(weights, 1))
        return {"reward": reward, **reward_monitors(rewards, batch)}

    return loss_fn


def augmented(task: Task) -> list[Comparison]:
    """Every pair, and fourteen made of it and of two others."""
    return [*task.data.comparisons, *augment(task.data.comparisons, task.seed)]


RRM = Method(
    "RRM: Bradley-Terry and indifference on pairs that borrow others' responses (arXiv 2409.13156)",
    rrm_loss,
    prepare=augmented,
    keeps=("tie",),
    needs="pairs of at least three prompts",
)
