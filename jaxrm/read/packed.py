"""Comparisons that are packed once and read by many models, however often."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Float

from jaxrm.data.comparison import Comparison
from jaxrm.data.packing import PackedBatch, TokenTree
from jaxrm.models.config import ModelConfig
from jaxrm.models.parameters import Tree
from jaxrm.read.reading import Reading, pack_batches, read_batches


@dataclasses.dataclass(frozen=True, eq=False)
class Packed:
    """Comparisons, their trees, and batches of them all on a mesh."""

    comparisons: Sequence[Comparison]
    trees: Sequence[TokenTree]
    batches: Sequence[PackedBatch]


def pack(
    comparisons: Sequence[Comparison],
    trees: Sequence[TokenTree],
    config: ModelConfig,
    **options: Any,
) -> Packed:
    """Comparisons of any K to be read by models of `config`.

    Args:
      trees: the comparisons, tokenised.
      config, options: as for `jaxrm.read.reading.pack_batches`.
    """
    return Packed(comparisons, trees, list(pack_batches(trees, config, **options)))


def read(
    structure: nnx.GraphDef, params: Tree, data: Packed, readings: Mapping[str, Reading]
) -> dict[str, Float[np.ndarray, "n K ..."]]:
    """Float32 [n, K, ...] for each reading: what it says of every response, in order.

    The mesh that `data` lies on must be in context (`jax.set_mesh`).

    Args:
      structure, params: of the model, as `transformer.split` gives them.
      data: comparisons of K responses each.
      readings: as for `jaxrm.read.reading.read`.

    Raises:
      ValueError: the comparisons differ in their number of responses.
    """
    if len({len(tree.branches) for tree in data.trees}) > 1:
        raise ValueError("comparisons of different numbers of responses")
    values = read_batches(structure, jax.device_put(params), data.batches, readings, data.trees)
    return {name: np.stack(of_trees) for name, of_trees in values.items()}


def cosine_distance(before: Float[np.ndarray, "... d"], after: Float[np.ndarray, "... d"]) -> float:
    """1 - cosine of two arrays' last axis, in [0, 2], the mean over all others."""
    norms = np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
    return float(np.mean(1 - (before * after).sum(-1) / norms))
