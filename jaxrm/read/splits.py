"""A model on named splits: how well its rewards, and its language model, order the responses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from jaxrm.data.comparison import Comparison
from jaxrm.models import heads, transformer
from jaxrm.models.transformer import RewardModel
from jaxrm.models.uncertainty import RewardScale
from jaxrm.read.accuracy import accuracy, loss
from jaxrm.read.packed import Packed
from jaxrm.read.reading import read_batches

HISTOGRAM_BINS = 30


def evaluate(
    model: RewardModel,
    splits: Mapping[str, Packed],
    *,
    mesh: Mesh,
    language: bool = True,
    progress: str = "",
) -> dict[str, dict[str, Any]]:
    """Scores all splits.

    Args:
      splits: packed on the mesh that the model lies on, for `language` with all tokens asked for.
      language: also score with the language-model head, which costs more than the rewards do.
      progress: title of a progress bar; none if empty.

    Returns, by split:
      accuracy, n, standard_error: of the rewards' strict order (absent without a reward head);
      loss: the mean Bradley-Terry loss, in nats;
      rewards: mean, deviation and n of all rewards, and histogram counts of those of best and of
        other responses over shared `edges`;
      language: accuracy, n, standard_error of ordering by summed log-prob under the language-model
        head: what is left of the model's ability to write (absent if not asked for).
    """
    readings = {} if model.reward_head is None else {"rewards": heads.rewards}
    readings |= {"logps": heads.response_logps} if language else {}
    structure, params = transformer.split(model)
    figures: dict[str, dict[str, Any]] = {}
    responses = sum(len(tree.branches) for split in splits.values() for tree in split.trees)
    bar = tqdm(total=responses, desc=progress, unit="response", disable=not progress)
    with jax.set_mesh(mesh), bar:
        for name, split in splits.items():
            values = read_batches(
                structure, params, split.batches, readings, split.trees, bar.update
            )
            figures[name] = {}
            if "rewards" in values:
                figures[name] |= of_rewards(values["rewards"], split.comparisons)
            if "logps" in values:
                likelier = accuracy(values["logps"], split.comparisons)
                figures[name]["language"] = dataclasses.asdict(likelier)
    return figures


def curves(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The figures of `evaluate` that make held-out curves, flat: "eval/<split>/<figure>"."""
    return {
        f"eval/{name}/{figure}": of_split[figure]
        for name, of_split in figures.items()
        for figure in ("accuracy", "loss")
    }


def reward_scale(figures: Mapping[str, Any], reference: str) -> RewardScale:
    """Where a model's rewards lie on a split, from the `figures` that `evaluate` has of it."""
    rewards = figures["rewards"]
    return RewardScale(rewards["mean"], rewards["deviation"], reference, rewards["n"])


def of_rewards(rewards: Sequence[np.ndarray], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The figures that `evaluate` has of rewards, float [K] for each comparison."""
    strict = accuracy(rewards, comparisons)
    is_best = np.concatenate([np.equal(c.ranks, min(c.ranks)) for c in comparisons])
    together = np.concatenate(rewards).astype(np.float64)
    edges = np.histogram_bin_edges(together, HISTOGRAM_BINS)
    histogram = {
        "edges": edges,
        "best": np.histogram(together[is_best], edges)[0],
        "others": np.histogram(together[~is_best], edges)[0],
    }
    return {
        **dataclasses.asdict(strict),
        "loss": loss(rewards, comparisons),
        "rewards": {
            "mean": float(together.mean()),
            "deviation": float(together.std()),
            "n": len(together),
            **{part: values.tolist() for part, values in histogram.items()},
        },
    }
