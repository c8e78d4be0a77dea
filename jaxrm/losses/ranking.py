"""Losses on rankings: all responses to a prompt at once, ordered from the best to the worst.

Arrays [..., prompts, K] in, one float32 loss per prompt out. Ranks count from 0, the best, and only
their order enters; of a packed batch they come as

    values = ranking.kwise(
        batch.groups(rewards), batch.groups(batch.response_rank), batch.group_mask
    )

Responses of the same rank have no order, so neither loss compares them with each other; nor does it
look at what stands behind a false mask, be it inf or NaN. A prompt without any order (one response,
all tied, none at all) has a loss of exactly 0 and no gradient: whether it counts in a mean is the
caller's weight to say.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num


def kwise(
    rewards: Float[Array, "*prompts K"],
    ranks: Num[Array, "*prompts K"],
    mask: Bool[Array, "*prompts K"],
) -> Float[Array, "*prompts"]:
    """1/C(K, 2) times the sum of -log sigmoid(better - worse) over a prompt's ordered pairs.

    InstructGPT (arXiv 2203.02155, eq. 1). K counts the responses under the mask, so prompts of few
    and of many responses weigh alike. Tied pairs are in C(K, 2) all the same: a prompt with ties
    says less and weighs less, and the sum over prompts is exactly that of
    `preference.bradley_terry` over the pairs of a PackedBatch with their `pair_weight`.

    Args:
      rewards: of the responses, in any order.
      ranks: 0 is the best, ties share a rank; integers or floats.
      mask: which responses there are.

    Returns:
      Per-prompt loss.

    Raises:
      ValueError: shapes that differ.
    """
    rewards, ranks, mask = _responses(rewards, ranks, mask)
    both = mask[..., :, None] & mask[..., None, :]
    ordered = both & (ranks[..., :, None] < ranks[..., None, :])
    losses = jax.nn.softplus(rewards[..., None, :] - rewards[..., :, None])
    count = mask.sum(axis=-1)
    pairs = jnp.maximum(count * (count - 1) // 2, 1)
    return jnp.sum(jnp.where(ordered, losses, 0.0), axis=(-2, -1)) / pairs


def plackett_luce(
    rewards: Float[Array, "*prompts K"],
    ranks: Num[Array, "*prompts K"],
    mask: Bool[Array, "*prompts K"],
) -> Float[Array, "*prompts"]:
    """-log probability of the ranking: the best is drawn by softmax, then the best of the rest.

    Luce (1959) and Plackett (1975); for reward models Zhu et al. (arXiv 2301.11270). Of two
    responses it is Bradley-Terry.

    With ties every response is drawn from itself and all that are strictly worse. That is the exact
    probability of the order that is known, summed over all ways to break the ties, where only the
    worst responses tie (so for "this one is best"); where better ones tie it is a lower bound of
    that probability, whose exact sum has exponentially many terms. (Breslow's and Efron's rules for
    tied times of events keep tied ones among those that each is drawn from, and so pull their
    rewards together.)

    Args, Returns, Raises: as for `kwise`.
    """
    rewards, ranks, mask = _responses(rewards, ranks, mask)
    # What is masked goes last, and adds nothing to the sums of what is worse.
    keys = jnp.where(mask, ranks, jnp.inf)
    best_first = jnp.argsort(keys, axis=-1)
    keys = jnp.take_along_axis(keys, best_first, axis=-1)
    ordered = jnp.take_along_axis(jnp.where(mask, rewards, -jnp.inf), best_first, axis=-1)
    from_here = jax.lax.cumlogsumexp(ordered, axis=ordered.ndim - 1, reverse=True)
    first_worse = _after(keys, keys)
    has_worse = first_worse < mask.sum(axis=-1, keepdims=True)
    worse = jnp.take_along_axis(from_here, jnp.where(has_worse, first_worse, 0), axis=-1)
    # Drawn from itself and what is worse: a Bradley-Terry pair with the worse ones' logsumexp.
    behind = jnp.where(has_worse, worse - jnp.where(has_worse, ordered, 0.0), 0.0)
    return jnp.sum(jnp.where(has_worse, jax.nn.softplus(behind), 0.0), axis=-1)


@functools.partial(jnp.vectorize, signature="(k),(k)->(k)")
def _after(sorted_keys: Num[Array, " K"], keys: Num[Array, " K"]) -> Int[Array, " K"]:
    """How many of `sorted_keys` are at most each key: the place of the first greater one."""
    return jnp.searchsorted(sorted_keys, keys, side="right")


def _responses(
    rewards: Float[Array, "*prompts K"],
    ranks: Num[Array, "*prompts K"],
    mask: Bool[Array, "*prompts K"],
) -> tuple[Float[Array, "*prompts K"], Float[Array, "*prompts K"], Bool[Array, "*prompts K"]]:
    """Float32 rewards and ranks, 0 behind a false mask, and the mask as bool."""
    shapes = [jnp.shape(x) for x in (rewards, ranks, mask)]
    if len(set(shapes)) > 1 or not shapes[0]:
        problem = "rewards {}, ranks {} and mask {} must be of one shape [..., K]"
        raise ValueError(problem.format(*shapes))
    mask = jnp.asarray(mask, bool)
    rewards, ranks = (jnp.where(mask, jnp.asarray(x, jnp.float32), 0.0) for x in (rewards, ranks))
    return rewards, ranks, mask
