"""Whatever can be read off a model's states, for any responses: packed, jitted, in input order.

A reading is a function of a batch's hidden states: rewards, log-probs, the states themselves. One
forward pass serves several. Trees are packed into batches of a few static shapes, and values come
back in the order of the responses, whatever lies where.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from tqdm import tqdm

from jaxrm import parallel
from jaxrm.data import packing, planning
from jaxrm.data.loader import pack_local, prefetch
from jaxrm.data.packing import PackedBatch, PackShape, TokenTree
from jaxrm.models import transformer
from jaxrm.models.parameters import Tree
from jaxrm.models.transformer import RewardModel

Reading = Callable[[RewardModel, jax.Array, PackedBatch], jax.Array]
"""(model, hidden states, batch) -> float [rows, slots, ...]: one value per response."""

Fit = Callable[[Sequence[TokenTree], int, int], PackShape]
"""(trees, rows, length of a row) -> the shape of their batches, which holds each of the trees."""


def read(
    model: RewardModel,
    trees: Sequence[TokenTree],
    readings: Mapping[str, Reading],
    *,
    mesh: Mesh,
    rows: int = 8,
    row_length: int = 1024,
    ask: packing.Ask = "none",
    progress: str = "",
) -> dict[str, list[np.ndarray]]:
    """What each of `readings` says of every response, from one forward pass.

    Args:
      readings: named functions of a batch's hidden states. They must be functions of a module:
        each is compiled once.
      mesh: the mesh that the model lies on.
      rows: rows per batch, rounded up to a multiple of the devices that share them.
      row_length: tokens per row. A tree that needs more is split over rows, its prompt repeated; a
        single text that is longer gets rows of the next power of two, fewer of them per batch, and
        is never truncated.
      ask: whose tokens are language-model targets, where a reading needs log-probs.
      progress: title of a progress bar; none if empty.

    Returns:
      For each reading, float32 [K, ...] for each tree, in the order of its responses.
    """
    structure, params = transformer.split(model)

    def fit(parts: Sequence[TokenTree], rows: int, length: int) -> PackShape:
        return planning.fit_shape(parts, rows=rows, length=length, ask=ask, preferences=False)

    batches = pack_batches(trees, rows, row_length, fit, mesh, shared=shares_prompts(model))
    responses = sum(len(tree.branches) for tree in trees)
    with jax.set_mesh(mesh):
        found = read_batches(
            structure, params, batches, readings, responses=responses, progress=progress
        )
    return {name: by_tree(values, trees) for name, values in found.items()}


def read_batches(
    structure: nnx.GraphDef,
    params: Tree,
    batches: Iterable[PackedBatch],
    readings: Mapping[str, Reading],
    *,
    responses: int,
    progress: str = "",
) -> dict[str, np.ndarray]:
    """`read` of batches that are packed already, each shape of them compiled once.

    A mesh must be in context (`jax.set_mesh`).

    Args:
      structure, params: of the model, as `transformer.split` gives them.
      batches: in any order, on the devices or, in a single process, as numpy arrays.
      readings, progress: as for `read`.
      responses: how many all batches together hold.

    Returns:
      For each reading, float32 [responses, ...] in the order of `response_index`.
    """
    found: dict[str, np.ndarray] = {}
    with tqdm(total=responses, desc=progress, unit="response", disable=not progress) as bar:
        for index, values in in_turn(structure, params, batches, readings):
            for name, value in values.items():
                if name not in found:
                    found[name] = np.zeros((responses, *value.shape[1:]), np.float32)
                found[name][index] = value
            bar.update(len(index))
    return found


def in_turn(
    structure: nnx.GraphDef,
    params: Tree,
    batches: Iterable[PackedBatch],
    readings: Mapping[str, Reading],
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """`response_index` and the values, [n, ...] each, of the n responses of every batch."""

    def fetch(slots: tuple[jax.Array, jax.Array], values: dict[str, jax.Array]):
        mask, index = jax.device_get(slots)
        return index[mask], {name: value[mask] for name, value in jax.device_get(values).items()}

    # One batch is in flight while the one before it is fetched.
    in_flight = None
    for batch in batches:
        following = _read_batch(structure, params, batch, tuple(readings.items()))
        if in_flight is not None:
            yield fetch(*in_flight)
        in_flight = following
    if in_flight is not None:
        yield fetch(*in_flight)


@functools.partial(jax.jit, static_argnames=("structure", "readings"))
def _read_batch(
    structure: nnx.GraphDef,
    params: Tree,
    batch: PackedBatch,
    readings: tuple[tuple[str, Reading], ...],
) -> tuple[tuple[jax.Array, jax.Array], dict[str, jax.Array]]:
    model = transformer.merge(structure, params)
    hidden = model.hidden(batch)
    values = {name: reading(model, hidden, batch) for name, reading in readings}
    slots = batch.response_mask, batch.response_index
    # Every process reads every score.
    return jax.lax.with_sharding_constraint((slots, values), PartitionSpec())


def shares_prompts(model: RewardModel) -> bool:
    """False where a prompt reads differently before a longer response."""
    return not model.config.rope.depends_on_length


def pack_batches(
    trees: Sequence[TokenTree],
    rows: int,
    row_length: int,
    fit: Fit,
    mesh: Mesh,
    *,
    shared: bool,
) -> Iterator[PackedBatch]:
    """Batches of all trees on the mesh, packed in a thread: short trees in rows of `row_length`,
    long ones in longer rows.

    Args:
      trees, rows, row_length, mesh: as for `read`.
      fit: what shape the trees of one row length get.
      shared: as `shares_prompts` has it; if not, every branch gets a prompt of its own.
    """
    offsets = packing.response_offsets(trees)
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    buckets: dict[int, list[tuple[TokenTree, int]]] = collections.defaultdict(list)
    for tree, offset in zip(trees, offsets, strict=True):
        need = packing.longest_branch(tree)
        length = row_length if need <= row_length else 1 << (need - 1).bit_length()
        for part in packing.split(tree, length if shared else 0):
            buckets[length].append((part, offset))
            offset += len(part.branches)
    for length, bucket in sorted(buckets.items()):
        parts = [part for part, _ in bucket]
        part_offsets = np.array([offset for _, offset in bucket])
        # As many tokens as in a batch of short rows, for attention takes their length squared.
        count = -(-max(1, rows * row_length // length) // ways) * ways
        shape = fit(parts, count, length)
        sizes = packing.measure(parts, ask=shape.ask, preferences=False)
        plan = planning.plan_rows(sizes, shape.capacity, np.arange(len(parts)))

        def load(first: int, parts=parts, plan=plan, shape=shape, offsets=part_offsets):
            local = pack_local(parts, plan, first, shape, offsets, mesh)
            return parallel.shard_rows(local, mesh)

        yield from prefetch(iter(range(0, len(plan), count)), load, ahead=2)


def by_tree(values: np.ndarray, trees: Sequence[TokenTree]) -> list[np.ndarray]:
    """Values [responses, ...] of all trees as [K, ...] of each."""
    return np.split(values, np.cumsum([len(tree.branches) for tree in trees])[:-1])
