"""Whatever can be read off a model's states, for any responses: packed, jitted, in input order.

A reading is a function of a batch's hidden states: rewards, log-probs, the states themselves. One
forward pass serves several. Trees are packed into batches whose shapes follow from rows, row length
and what is asked, and not from the trees, so that all sets of them, and all models of one
structure, share a compilation. Values come back in the order of the responses.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from tqdm import tqdm

from jaxrm import parallel
from jaxrm.data import packing, planning
from jaxrm.data.carried import SCORE, Census
from jaxrm.data.loader import pack_local, prefetch
from jaxrm.data.packing import PackedBatch, PackShape, TokenTree
from jaxrm.models import transformer
from jaxrm.models.config import ModelConfig
from jaxrm.models.parameters import Tree
from jaxrm.models.transformer import RewardModel

Reading = Callable[[RewardModel, jax.Array, PackedBatch], jax.Array]
"""(model, hidden states, batch) -> float [rows, slots, ...]: one value per response."""


def read(
    model: RewardModel,
    trees: Sequence[TokenTree],
    readings: Mapping[str, Reading],
    *,
    mesh: Mesh,
    progress: str = "",
    **options: Any,
) -> dict[str, list[np.ndarray]]:
    """What each of `readings` says of every response, from one forward pass.

    Args:
      readings: named functions of a batch's hidden states. They must be functions of a module:
        each is compiled once.
      mesh: the mesh that the model lies on.
      progress: title of a progress bar; none if empty.
      options: rows, row_length, ask and steps, as for `pack_batches`.

    Returns:
      For each reading, float32 [K, ...] for each tree, in the order of its responses.
    """
    batches = pack_batches(trees, model.config, mesh=mesh, **options)
    responses = sum(len(tree.branches) for tree in trees)
    bar = tqdm(total=responses, desc=progress, unit="response", disable=not progress)
    with jax.set_mesh(mesh), bar:
        return read_batches(*transformer.split(model), batches, readings, trees, bar.update)


def read_batches(
    structure: nnx.GraphDef,
    params: Tree,
    batches: Iterable[PackedBatch],
    readings: Mapping[str, Reading],
    trees: Sequence[TokenTree],
    advance: Callable[[int], Any] = int,
) -> dict[str, list[np.ndarray]]:
    """`read` of batches that are packed already, each shape of them compiled once.

    A mesh must be in context (`jax.set_mesh`).

    Args:
      structure, params: of the model, as `transformer.split` gives them.
      batches: those of `trees`, from `pack_batches`.
      readings: as for `read`.
      advance: is told of how many more responses values are there.
    """
    counts = [len(tree.branches) for tree in trees]
    read: dict[str, np.ndarray] = {}
    for index, values in _in_turn(structure, params, batches, readings):
        for name, value in values.items():
            if name not in read:
                read[name] = np.zeros((sum(counts), *value.shape[1:]), np.float32)
            read[name][index] = value
        advance(len(index))
    return {name: np.split(value, np.cumsum(counts)[:-1]) for name, value in read.items()}


def _in_turn(
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


def pack_batches(
    trees: Sequence[TokenTree],
    config: ModelConfig,
    *,
    mesh: Mesh,
    rows: int = 8,
    row_length: int = 1024,
    ask: packing.Ask = "none",
    steps: int = 0,
) -> Iterator[PackedBatch]:
    """Batches of all trees on the mesh, packed in a thread: short texts in rows of `row_length`,
    longer ones in longer rows.

    Columns of responses come along where all trees have them, for readings that compare with them
    (the reference's log-probs); labels do not.

    Args:
      trees: tokenised comparisons, any K.
      config: of the models that read them. Where a prompt reads differently before a longer
        response, every response gets a prompt of its own.
      mesh: the mesh that the models lie on.
      rows: rows per batch, rounded up to a multiple of the devices that share them.
      row_length: tokens per row. A tree that needs more is split over rows, its prompt repeated; a
        single text that is longer gets rows of the next power of two, fewer of them per batch, and
        is never truncated.
      ask: whose tokens are language-model targets, where a reading needs log-probs.
      steps: steps that a row holds, whatever its length, where a reading needs them.

    Raises:
      ValueError: a response has more steps than a row holds.
    """
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    shares = not config.rope.depends_on_length
    columns = Census(trees).columns()
    carried = tuple(c for c in columns if c.per == "response" and c != SCORE)

    @functools.cache
    def shape_of(length: int) -> PackShape:
        # As many tokens as in a batch of short rows, for attention takes their length squared.
        count = -(-max(1, rows * row_length // length) // ways) * ways
        shape = planning.reading_shape(count, length, ask)
        return dataclasses.replace(shape, steps=steps, columns=carried)

    parts: dict[PackShape, list[tuple[TokenTree, int]]] = collections.defaultdict(list)
    offset = 0
    for tree in trees:
        need = packing.longest_branch(tree)
        shape = shape_of(row_length if need <= row_length else 1 << (need - 1).bit_length())
        capacity = {"slots": shape.slots, "steps": shape.steps or packing.UNLIMITED}
        for part in packing.split(tree, shape.length if shares else 0, **capacity):
            parts[shape].append((part, offset))
            offset += len(part.branches)
    for shape in sorted(parts, key=lambda shape: shape.length):
        yield from _of_shape(*zip(*parts[shape], strict=True), shape, mesh)


def _of_shape(
    trees: Sequence[TokenTree], offsets: Sequence[int], shape: PackShape, mesh: Mesh
) -> Iterator[PackedBatch]:
    """Batches of trees that rows of one shape hold, in as few rows as they need."""
    sizes, first_responses = (
        packing.measure(trees, ask=shape.ask, preferences=False),
        np.array(offsets),
    )
    plan = planning.plan_rows(sizes, shape.capacity, np.arange(len(trees)))

    def load(first: int) -> PackedBatch:
        local = pack_local(trees, plan, first, shape, first_responses, mesh)
        return parallel.shard_rows(local, mesh)

    return prefetch(iter(range(0, len(plan), shape.rows)), load, ahead=2)
