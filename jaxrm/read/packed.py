"""Comparisons in batches of one shape for all sets of them, packed once and read by many models.

`jaxrm.read.splits` fits a batch's shape to the comparisons at hand, and so compiles for each
set of them. Where hundreds of small models meet many small sets, that would be most of the time.
Here a shape follows from a row's length alone, so that all sets, and all models of one structure,
share a compilation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from jaxrm.data import packing, planning
from jaxrm.data.carried import REFERENCE, lack
from jaxrm.data.comparison import Comparison
from jaxrm.data.ordering import ordered_pairs
from jaxrm.data.packing import Ask, PackedBatch, PackShape, TokenTree
from jaxrm.models import heads
from jaxrm.models.parameters import Tree
from jaxrm.read.accuracy import accuracy, macro_accuracy
from jaxrm.read.reading import Reading, read_batches


@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
    """Comparisons of K responses each, their trees, and batches of them all as numpy arrays."""

    comparisons: Sequence[Comparison]
    trees: Sequence[TokenTree]
    batches: Sequence[PackedBatch]


def pair_shape(rows: int, length: int, ask: Ask, responses: int = 2) -> PackShape:
    """A shape to train on comparisons in, set by the row's length and not fitted to data.

    A row is full of tokens before it is full of targets, and before its slots are taken where texts
    have far more than the 8 tokens that a slot takes here. So what a batch holds does not depend on
    `ask`, and losses that ask differently see the same pairs in the same batches. The price is
    logits at masked targets.

    Args:
      rows, length: of a batch, and tokens of a row.
      ask: whose tokens are language-model targets.
      responses: of a comparison, at most.
    """
    slots = length // 8
    # Comparisons of K have (K - 1) / 2 pairs for each of their responses, smaller ones fewer.
    capacities = {"slots": slots, "pairs": slots * (responses - 1) // 2, "groups": slots // 2}
    targets = 0 if ask == "none" else length
    return PackShape(rows, length, **capacities, targets=targets, group_size=responses, ask=ask)


def reading_shape(rows: int, length: int, ask: Ask) -> PackShape:
    """`pair_shape` without preferences, for what no preference loss is taken of."""
    return dataclasses.replace(pair_shape(rows, length, ask), pairs=0, groups=0, group_size=0)


def pack_alike(
    comparisons: Sequence[Comparison], trees: Sequence[TokenTree], shape: PackShape
) -> Packed:
    """Comparisons in as few rows of `shape` as they need, the last batch filled with empty rows.

    A comparison that is too long for a row gets rows of twice the length, or twice that, fewer of
    them in a batch. Reference log-probs come along where all trees have them, for readings that
    compare with them; labels do not.

    Args:
      comparisons: of equally many responses each.
      trees: the same, tokenised.
      shape: as from `reading_shape`.

    Raises:
      ValueError: trees differ in their number of branches.
    """
    if len({len(tree.branches) for tree in trees}) > 1:
        raise ValueError("comparisons of different numbers of responses")
    if not any(lack(tree, REFERENCE) for tree in trees):
        shape = dataclasses.replace(shape, columns=(REFERENCE,))
    sizes = packing.measure(trees, ask=shape.ask, preferences=False)
    offsets = packing.response_offsets(trees)
    batches, left = [], np.arange(len(trees))
    while left.size:
        fits = (sizes[left] <= shape.capacity).all(axis=1)
        plan = planning.plan_rows(sizes, shape.capacity, left[fits])
        rows = range(0, len(plan), shape.rows)
        batches += [packing.pack(trees, plan[i : i + shape.rows], shape, offsets) for i in rows]
        left = left[~fits]
        wider = reading_shape(max(1, shape.rows // 2), 2 * shape.length, shape.ask)
        shape = dataclasses.replace(wider, steps=2 * shape.steps, columns=shape.columns)
    return Packed(comparisons, trees, batches)


def read(
    structure: nnx.GraphDef, params: Tree, data: Packed, readings: Mapping[str, Reading]
) -> dict[str, Float[np.ndarray, "n K ..."]]:
    """Float32 [n, K, ...] for each reading: what it says of every response, in order.

    A mesh must be in context (`jax.set_mesh`).

    Args:
      structure, params: of the model, as `transformer.split` gives them.
      readings: named functions of a module, as for `jaxrm.read.reading.read`.
    """
    responses = sum(len(tree.branches) for tree in data.trees)
    found = read_batches(
        structure, jax.device_put(params), data.batches, readings, responses=responses
    )
    count = len(data.trees)
    return {name: value.reshape(count, -1, *value.shape[1:]) for name, value in found.items()}


def of_rewards(structure: nnx.GraphDef, params: Tree, data: Packed) -> dict[str, float]:
    """`order_of` the model's rewards.

    Args:
      structure, params: as for `read`.
    """
    rewards = read(structure, params, data, {"rewards": heads.rewards})["rewards"]
    return order_of(rewards, data.comparisons)


def order_of(
    rewards: Float[np.ndarray, "n K"], comparisons: Sequence[Comparison]
) -> dict[str, float]:
    """How well rewards order responses by their ranks, whichever of them is the best.

    Returns:
      macro, accuracy: strict, the mean over subsets and plain; n, the comparisons counted; and
      loss, in nats, the mean over comparisons of their ordered pairs' mean Bradley-Terry loss.

    Raises:
      DataError: a comparison has no ranks, or none of them has an order.
    """
    rewards = rewards.astype(np.float64)
    pairs, flat = ordered_pairs(comparisons), rewards.ravel()
    strict = accuracy(list(rewards), comparisons)
    losses = np.logaddexp(0.0, flat[pairs.worse] - flat[pairs.better])
    return {
        "macro": macro_accuracy(list(rewards), comparisons),
        "accuracy": strict.accuracy,
        "n": strict.n,
        "loss": float(np.average(losses, weights=1 / pairs.counts[pairs.owner])),
    }


def cosine_distance(before: Float[np.ndarray, "... d"], after: Float[np.ndarray, "... d"]) -> float:
    """1 - cosine of two arrays' last axis, in [0, 2], the mean over all others."""
    norms = np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
    return float(np.mean(1 - (before * after).sum(-1) / norms))
