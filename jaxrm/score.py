"""Rewards, and whatever else can be read off, for any comparisons: packed, jitted, in input order.

    python -m jaxrm.score --model DIR IN.jsonl OUT.jsonl

writes one row {"id", "rewards": [...]} per comparison of IN, the rewards in the order of its
responses (chosen, then rejected). Everything is scored: empty answers, ties and texts of any
length.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from tqdm import tqdm

from jaxrm import cli, files, parallel
from jaxrm.data import chat, packing, planning, sources
from jaxrm.data.loader import pack_local, prefetch
from jaxrm.data.packing import PackedBatch, TokenTree
from jaxrm.errors import DataError
from jaxrm.models import heads, hub, transformer, vocabulary
from jaxrm.models.parameters import Tree
from jaxrm.models.transformer import RewardModel

Reading = Callable[[RewardModel, jax.Array, PackedBatch], jax.Array]
"""(model, hidden states, batch) -> float [rows, slots, ...]: one value per response."""


def score(model: RewardModel, trees: Sequence[TokenTree], **options: Any) -> list[np.ndarray]:
    """The reward of every response: float32 [K] for each tree.

    Args:
      model: a model with a reward head; its parameters may be sharded over the mesh.
      trees: tokenised comparisons, any K, from `chat.tokenize`.
      options: as for `read`.
    """
    return read(model, trees, {"rewards": heads.rewards}, **options)["rewards"]


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
    counts = [len(tree.branches) for tree in trees]
    structure, params = transformer.split(model)
    # Where a prompt reads differently before a longer response, responses cannot share it.
    shared = not model.config.rope.depends_on_length
    batches = _batches(trees, rows, row_length, ask, mesh, shared)
    with jax.set_mesh(mesh):
        found = read_batches(
            structure, params, batches, readings, responses=sum(counts), progress=progress
        )
    ends = np.cumsum(counts)[:-1]
    return {name: np.split(values, ends) for name, values in found.items()}


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

        def collect(slots: tuple[jax.Array, jax.Array], values: dict[str, jax.Array]) -> None:
            mask, index = jax.device_get(slots)
            for name, value in jax.device_get(values).items():
                if name not in found:
                    found[name] = np.zeros((responses, *value.shape[2:]), np.float32)
                found[name][index[mask]] = value[mask]
            bar.update(int(mask.sum()))

        # One batch is in flight while the one before it is fetched.
        in_flight = None
        for batch in batches:
            following = _read_batch(structure, params, batch, tuple(readings.items()))
            if in_flight is not None:
                collect(*in_flight)
            in_flight = following
        if in_flight is not None:
            collect(*in_flight)
    return found


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


def _batches(
    trees: Sequence[TokenTree],
    rows: int,
    row_length: int,
    ask: packing.Ask,
    mesh: Mesh,
    shared: bool,
) -> Iterator[PackedBatch]:
    """Batches of all trees, the short ones in rows of `row_length`, the long ones in longer
    rows; unless prompts are `shared`, every branch has its own."""
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
        shape = planning.fit_shape(parts, rows=count, length=length, ask=ask, preferences=False)
        sizes = packing.measure(parts, ask=ask, preferences=False)
        plan = planning.plan_rows(sizes, shape.capacity, np.arange(len(parts)))

        def load(first: int, parts=parts, plan=plan, shape=shape, offsets=part_offsets):
            local = pack_local(parts, plan, first, shape, offsets, mesh)
            return parallel.shard_rows(local, mesh)

        yield from prefetch(iter(range(0, len(plan), count)), load, ahead=2)


@dataclasses.dataclass(frozen=True)
class Config:
    """Score a file of comparisons with a reward model."""

    input: tyro.conf.Positional[str]
    """A source of comparisons: a file, a directory, a name on the Hub or in TFDS (see
    jaxrm.data.sources), of pairs or of prompts with any number of responses."""
    output: tyro.conf.Positional[Path]
    """JSONL, one {"id", "rewards"} per comparison, in input order. Written whole or not at all."""
    model: Path
    """A directory in Hugging Face layout that holds a tokenizer and, unless the adapter does, a
    reward head."""
    adapter: Path | None = None
    """A LoRA adapter in PEFT's or GRM's layout beside it, which may bring the reward head."""
    chat_template: Path | None = None
    """A file with the chat template, for a tokenizer that brings none."""
    rows: int = 8
    """Rows per batch."""
    row_length: int = 1024
    """Tokens per row; longer texts get longer rows."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the trunk computes in; heads and rewards are float32 always."""
    mesh: parallel.MeshShape = parallel.MeshShape()
    """How devices are used."""


def main(config: Config) -> None:
    """Reads, scores, writes, and says what it read."""
    parallel.start()
    for name in ("rows", "row_length"):
        if getattr(config, name) < 1:
            option = f"--{name.replace('_', '-')}"
            raise DataError(f"{option} must be at least 1, not {getattr(config, name)}")
    files.check_writable(config.output)
    mesh = parallel.make_mesh(config.mesh)
    comparisons = sources.read(config.input)
    tokenizer = chat.load_tokenizer(config.model, config.chat_template)
    vocabulary.check(hub.read_config(config.model), tokenizer, str(config.model))
    trees = chat.tokenize(comparisons, tokenizer)
    compute = transformer.Compute(dtype=config.dtype)
    model = hub.load(config.model, None, adapter=config.adapter, compute=compute, mesh=mesh)
    scores = score(
        model,
        trees,
        mesh=mesh,
        rows=config.rows,
        row_length=config.row_length,
        progress="scoring",
    )
    if jax.process_index() == 0:
        with files.replacing(config.output) as draft, draft.open("w", encoding="utf-8") as out:
            for comparison, rewards in zip(comparisons, scores, strict=True):
                row = {"id": comparison.id, "rewards": [float(reward) for reward in rewards]}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
    responses = sum(len(comparison.responses) for comparison in comparisons)
    print(f"{config.output}: {len(comparisons)} comparisons, {responses} responses, none left out")


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
