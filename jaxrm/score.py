"""Rewards, and response log-probs, for any list of comparisons: packed, jitted, in input order.

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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from jax.sharding import Mesh, PartitionSpec
from tqdm import tqdm

from jaxrm import cli, files, parallel
from jaxrm.data import chat, packing, sources
from jaxrm.data.loader import pack_local, prefetch
from jaxrm.data.packing import PackedBatch, PackShape, TokenTree
from jaxrm.models import heads, hub, transformer
from jaxrm.models.transformer import RewardModel


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a model says of each comparison: float32 arrays [K], in the order of its responses.

    Attributes:
      rewards: None where the model has no reward head.
      logps: log-probs summed over each response's tokens, in nats; None where not asked for.
    """

    rewards: list[np.ndarray] | None
    logps: list[np.ndarray] | None


def score(
    model: RewardModel,
    trees: Sequence[TokenTree],
    *,
    mesh: Mesh,
    rows: int = 8,
    row_length: int = 1024,
    logps: bool = False,
    progress: str = "",
) -> Scores:
    """Scores every response of every tree.

    Args:
      model: its parameters may be sharded over `mesh`.
      trees: tokenised comparisons, any K, from `chat.tokenize`.
      mesh: the mesh that the model lies on.
      rows: rows per batch, rounded up to a multiple of the devices that share them.
      row_length: tokens per row. A tree that needs more is split over rows, its prompt repeated; a
        single text that is longer gets rows of the next power of two, and is never truncated.
      logps: also compute response log-probs with the language-model head.
      progress: title of a progress bar; none if empty.
    """
    count = sum(len(tree.branches) for tree in trees)
    structure, params = transformer.split(model)
    wanted = {"rewards": model.reward_head is not None, "logps": logps}
    found = {name: np.zeros(count, np.float32) for name, wants in wanted.items() if wants}
    ways = mesh.shape["data"] * mesh.shape["fsdp"]
    rows = -(-rows // ways) * ways
    ends = np.cumsum([len(tree.branches) for tree in trees])[:-1]
    with tqdm(total=count, desc=progress, unit="response", disable=not progress) as bar:

        def collect(scored: dict[str, jax.Array]) -> None:
            scored = jax.device_get(scored)
            mask, index = scored["response_mask"], scored["response_index"]
            for name, values in found.items():
                values[index[mask]] = scored[name][mask]
            bar.update(int(mask.sum()))

        # One batch is in flight while the one before it is fetched.
        in_flight: dict[str, jax.Array] | None = None
        for batch in _batches(trees, rows, row_length, "all" if logps else "none", mesh):
            with jax.set_mesh(mesh):
                following = _score_batch(structure, params, batch, tuple(found))
            if in_flight is not None:
                collect(in_flight)
            in_flight = following
        if in_flight is not None:
            collect(in_flight)
    by_tree = {name: np.split(values, ends) for name, values in found.items()}
    return Scores(by_tree.get("rewards"), by_tree.get("logps"))


@functools.partial(jax.jit, static_argnames=("structure", "wanted"))
def _score_batch(
    structure: Any, params: Any, batch: PackedBatch, wanted: tuple[str, ...]
) -> dict[str, jax.Array]:
    model = transformer.merge(structure, params)
    hidden = model.hidden(batch)
    compute = {"rewards": heads.rewards, "logps": heads.response_logps}
    scored = {name: compute[name](model, hidden, batch) for name in wanted}
    scored |= {"response_mask": batch.response_mask, "response_index": batch.response_index}
    # Every process reads every score.
    return jax.lax.with_sharding_constraint(scored, PartitionSpec())


def _batches(
    trees: Sequence[TokenTree], rows: int, row_length: int, ask: packing.Ask, mesh: Mesh
) -> Iterator[PackedBatch]:
    """Batches of all trees, the short ones in rows of `row_length`, the long ones in longer
    rows."""
    offsets = packing.response_offsets(trees)
    buckets: dict[int, list[tuple[TokenTree, int]]] = collections.defaultdict(list)
    for tree, offset in zip(trees, offsets, strict=True):
        need = packing.longest_branch(tree)
        length = row_length if need <= row_length else 1 << (need - 1).bit_length()
        for part in packing.split(tree, length):
            buckets[length].append((part, offset))
            offset += len(part.branches)
    for length, bucket in sorted(buckets.items()):
        parts = [part for part, _ in bucket]
        part_offsets = np.array([offset for _, offset in bucket])
        shape = PackShape.fit(parts, rows=rows, length=length, ask=ask, preferences=False)
        sizes = packing.measure(parts, ask=ask, preferences=False)
        plan = packing.plan_rows(sizes, shape.capacity, np.arange(len(parts)))

        def load(first: int, parts=parts, plan=plan, shape=shape, offsets=part_offsets):
            local = pack_local(parts, plan, first, shape, offsets)
            return parallel.shard_rows(local, mesh)

        yield from prefetch(iter(range(0, len(plan), rows)), load, ahead=2)


@dataclasses.dataclass(frozen=True)
class Config:
    """Score a file of comparisons with a reward model."""

    input: tyro.conf.Positional[Path]
    """JSONL (.gz) or Parquet: pairs, or a prompt with any number of responses."""
    output: tyro.conf.Positional[Path]
    """JSONL, one {"id", "rewards"} per comparison, in input order. Written whole or not at all."""
    model: Path
    """A directory in Hugging Face layout that holds a reward head and a tokenizer."""
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
    mesh = parallel.make_mesh(config.mesh)
    comparisons = sources.read(config.input)
    tokenizer = chat.load_tokenizer(config.model)
    trees = chat.tokenize(comparisons, tokenizer)
    compute = transformer.Compute(dtype=config.dtype)
    model = hub.load(config.model, None, compute=compute, mesh=mesh)
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
            for comparison, rewards in zip(comparisons, scores.rewards, strict=True):
                row = {"id": comparison.id, "rewards": [float(reward) for reward in rewards]}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
    responses = sum(len(comparison.responses) for comparison in comparisons)
    print(f"{config.output}: {len(comparisons)} comparisons, {responses} responses, none left out")


if __name__ == "__main__":
    cli.run(main, Config, __doc__)
