"""Averages of weights: of several models at their end (WARM), and of one model as it trains (EMA).

An average of weights is one model, at the cost of one model when it is used. It computes nearly
what an ensemble of its members would if they lie in one valley of the loss, which models have that
were fine-tuned from the same weights. Two things tell whether they do: `cosines` of their reward
heads, and the barrier on a `line` between two of them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jaxrm.errors import ModelFileError, require
from jaxrm.models import transformer
from jaxrm.models.parameters import Tree
from jaxrm.models.transformer import RewardModel


def average(members: Iterable[Tree], weights: Sequence[float] | None = None) -> Tree:
    """The mean of several models' parameters (WARM, Rame et al., arXiv 2401.12187).

    Members must have been trained from the same weights, the reward head among them: heads that
    were drawn apart point in unrelated directions, and their mean in none. So fit one head to the
    frozen base first and start all members there (LP-FT, arXiv 2202.10054); `cosines` shows
    whether that was done. LoRA's two factors are not to be averaged, since the mean of products is
    not the product of means: merge them first, as `average_models` does.

    Args:
      members: trees of numpy or JAX arrays, read one after another, so that an iterator which
        loads them needs the memory of two.
      weights: of the members, finite and at least 0, not all 0; equal without them.

    Returns:
      A tree as the first member's, in its dtypes and of its kind of array. Half precision is
      averaged in float32. What is not floating point must agree and stays as it is. Copies of one
      member give that member exactly.

    Raises:
      ModelFileError: no members, or they differ in structure, shape, dtype or in numbers that are
        not floating point; the message names the member and the parameter.
      OptionError: weights out of range.
      ValueError: not as many weights as members.
    """
    if weights is not None:
        usable = all(0 <= w < math.inf for w in weights) and any(weights)
        require(usable, "weights of members", "finite, at least 0, not all 0", list(weights))
    each = itertools.repeat(1.0) if weights is None else weights
    total, structure, first, means = 0.0, None, {}, {}
    for m, (member, weight) in enumerate(zip(members, each, strict=weights is not None)):
        leaves = _named(member)
        total += float(weight)
        if m == 0:
            structure, first = jax.tree.structure(member), leaves
            means = {name: _wide(leaf) for name, leaf in leaves.items() if _averaged(leaf)}
            continue
        _check_alike(first, leaves, m)
        share = float(weight) / total if total else 0.0
        means = {name: mean + share * (_wide(leaves[name]) - mean) for name, mean in means.items()}
    if structure is None:
        raise ModelFileError("no models to average")
    result = (means[n].astype(x.dtype) if n in means else x for n, x in first.items())
    return jax.tree.unflatten(structure, result)


def average_models(
    models: Iterable[RewardModel], weights: Sequence[float] | None = None
) -> RewardModel:
    """`average` of whole models, LoRA merged into their weights first.

    Args:
      models: however they were loaded, read one after another.

    Raises: as `average`, and ModelFileError for models of different configurations.
    """
    kept: list[RewardModel] = []

    def params() -> Iterable[Tree]:
        for m, model in enumerate(models):
            merged = model.merged()
            kept[:] = kept or [merged]
            for part in ("config", "head_config"):
                if getattr(merged, part) != getattr(kept[0], part):
                    raise ModelFileError(f"member {m} differs from the first in its {part}")
            yield transformer.split(merged)[1]

    averaged = average(params(), weights)
    first = kept[0]
    return RewardModel(first.config, first.head_config, compute=first.compute, params=averaged)


def cosines(members: Sequence[Tree]) -> Float[np.ndarray, "members members"]:
    """Float64 cosines between parameters, each member's as one vector; 0 with a vector of zeros.

    Asked of reward heads, as `cosines([params["reward_head"] for params in members])`: linear heads
    that were drawn apart have a cosine of 0 give or take 1/sqrt(d), heads that began together and
    moved a little one near 1. Only the latter may be averaged.

    Raises:
      ModelFileError: members of different structure, shapes or dtypes.
    """
    named = [_named(member) for member in members]
    for m, leaves in enumerate(named[1:], 1):
        _check_alike(named[0], leaves, m)
    vectors = np.stack(
        [
            np.concatenate([np.asarray(x, np.float64).ravel() for x in leaves.values()])
            for leaves in named
        ]
    )
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = vectors / np.where(norms > 0, norms, 1.0)
    return directions @ directions.T


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """The loss on the way from one model to another.

    Attributes:
      shares: float64 [points], 0 at the first model and 1 at the second.
      losses: float64 [points].
    """

    shares: Float[np.ndarray, " points"]
    losses: Float[np.ndarray, " points"]

    @property
    def barrier(self) -> float:
        """How far the curve rises above the straight line between its ends, at least 0: 0 says
        that nothing in between is worse than its share of the two (arXiv 2110.06296)."""
        chord = (1 - self.shares) * self.losses[0] + self.shares * self.losses[-1]
        return float((self.losses - chord).max())


def line(loss: Callable[[Tree], float], first: Tree, second: Tree, points: int = 11) -> Line:
    """The loss of what lies between two models' weights (Frankle et al., arXiv 1912.05671).

    Args:
      loss: of parameters, the smaller the better.
      points: equally spaced, both ends among them; at least 3.

    Raises: as `average`, and OptionError for fewer points.
    """
    require(points >= 3, "points of a line", "at least 3", points)
    shares = np.linspace(0, 1, points)
    losses = [float(loss(average([first, second], [1 - s, s]))) for s in shares.tolist()]
    return Line(shares, np.array(losses))


class EmaState(NamedTuple):
    """What `ema` keeps: how many steps it has seen, and the mean of their parameters."""

    seen: Int[Array, ""]
    parameter_average: Tree


def ema(decay: float) -> optax.GradientTransformation:
    """Keeps an exponential moving average of the parameters; updates pass as they are.

    The last of a chain, because the parameters after a step are those before it and the updates:

        optimizer = optax.chain(optax.adamw(1e-5), average.ema(0.999))
        ...
        params = average.ema_params(state.optimizer, state.trainable)

    `optax.ema` is another thing: it averages the updates. As `optax.ema` does by default, this one
    takes the start's share out: after t steps the parameters after step i have weight
    (1 - decay) decay^(t - i) / (1 - decay^t), so that short runs are not averaged with the base.
    The average is float32 where parameters are of half precision, and lies on the devices as they
    do.

    Args:
      decay: in [0, 1); about 1 / (1 - decay) steps are averaged. 0 keeps the last parameters.

    Raises OptionError for a decay out of range.
    """
    require(0 <= decay < 1, "an EMA's decay", "in [0, 1)", decay)

    def init(params: optax.Params) -> EmaState:
        return EmaState(jnp.zeros((), jnp.int32), jax.tree.map(_wide_copy, params))

    def update(
        updates: optax.Updates, state: EmaState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, EmaState]:
        if params is None:
            raise ValueError("an average of parameters needs them: update(updates, state, params)")
        seen = state.seen + 1
        stepped = optax.apply_updates(params, updates)
        return updates, EmaState(seen, ema_step(state.parameter_average, stepped, seen, decay))

    return optax.GradientTransformation(init, update)


def ema_step(
    mean: Tree, params: Tree, step: Int[Array, ""] | int, decay: float | Float[Array, ""]
) -> Tree:
    """The moving average with the parameters after one more step, as `ema` defines it.

    Args:
      mean: of the steps before, float32 or wider; what it holds at step 1 does not matter.
      params: after this step.
      step: counted from 1.
      decay: in [0, 1).
    """
    # 1 - decay^step of a decay near 1, which in float32 would have few digits left.
    fresh = 1 - decay
    weight = fresh / -jnp.expm1(step * jnp.log1p(-fresh))
    return jax.tree.map(lambda old, new: old + weight * (_wide(new) - old), mean, params)


def ema_params(state: optax.OptState, params: Tree) -> Tree:
    """The parameters' average out of an optimizer's state, in their dtypes.

    Args:
      state: of an optimizer with one `ema` in its chain, wherever it is; as the train state holds
        it, `state.optimizer`.
      params: those that train, for their dtypes: `state.trainable`.

    Raises:
      ValueError: the optimizer keeps no average.
    """
    averaged = optax.tree_utils.tree_get(state, "parameter_average")
    if averaged is None:
        raise ValueError("this optimizer keeps no average: put average.ema(...) last in its chain")
    return optax.tree_utils.tree_cast_like(averaged, params)


def _named(tree: Tree) -> dict[str, Any]:
    """The leaves by their "/"-joined paths, in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _averaged(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def _wide(leaf: Any) -> Any:
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def _wide_copy(leaf: Array) -> Array:
    # A copy also where nothing is widened: a train step donates parameters and state apart.
    return jnp.array(leaf, jnp.promote_types(leaf.dtype, jnp.float32))


def _check_alike(first: dict[str, Any], other: dict[str, Any], m: int) -> None:
    """Raises ModelFileError where member m cannot be averaged with the first."""
    if alone := sorted(first.keys() ^ other.keys()):
        owner = f"member {m}" if alone[0] in other else "the first member"
        raise ModelFileError(f"member {m} and the first differ: only {owner} has {alone[0]}")
    for name, leaf in first.items():
        own, expected = ((x.shape, x.dtype.name) for x in (other[name], leaf))
        if own != expected:
            raise ModelFileError(f"member {m} has {name} {own}, the first member {expected}")
        if not _averaged(leaf) and not np.array_equal(leaf, other[name]):
            raise ModelFileError(f"member {m} has another {name}, which is no floating point")
