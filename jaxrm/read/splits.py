"""A model on named splits: how well its rewards, and its language model, order the responses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxrm.data.comparison import Comparison
from jaxrm.data.packing import TokenTree
from jaxrm.models import heads
from jaxrm.models.transformer import RewardModel
from jaxrm.models.uncertainty import RewardScale
from jaxrm.read.accuracy import accuracy
from jaxrm.read.reading import read

HISTOGRAM_BINS = 30


@dataclasses.dataclass(frozen=True)
class Split:
    """Held-out comparisons under one name, tokenised once."""

    comparisons: Sequence[Comparison]
    trees: Sequence[TokenTree]

    def head(self, n: int) -> Split:
        """The first n comparisons."""
        return Split(self.comparisons[:n], self.trees[:n])


def evaluate(
    model: RewardModel,
    splits: Mapping[str, Split],
    *,
    mesh: Mesh,
    rows: int,
    row_length: int,
    language: bool = True,
    progress: str = "",
) -> dict[str, dict[str, Any]]:
    """Scores all splits in one pass.

    Args:
      language: also score with the language-model head, which costs more than the rewards do.

    Returns, by split:
      accuracy, n, standard_error: of the rewards' strict order (absent without a reward head);
      loss: the mean Bradley-Terry loss, in nats;
      rewards: mean, deviation and n of all rewards, and histogram counts of those of best and of
        other responses over shared `edges`;
      language: accuracy, n, standard_error of ordering by summed log-prob under the language-model
        head: what is left of the model's ability to write (absent if not asked for).
    """
    trees = [tree for split in splits.values() for tree in split.trees]
    readings = {} if model.reward_head is None else {"rewards": heads.rewards}
    readings |= {"logps": heads.response_logps} if language else {}
    found = read(
        model,
        trees,
        readings,
        mesh=mesh,
        rows=rows,
        row_length=row_length,
        ask="all" if language else "none",
        progress=progress,
    )
    ends = np.cumsum([len(split.trees) for split in splits.values()])
    figures: dict[str, dict[str, Any]] = {}
    for (name, split), end in zip(splits.items(), ends, strict=True):
        here = slice(int(end) - len(split.trees), int(end))
        figures[name] = {}
        if "rewards" in found:
            figures[name] |= _of_rewards(found["rewards"][here], split.comparisons)
        if "logps" in found:
            likelier = accuracy(found["logps"][here], split.comparisons)
            figures[name]["language"] = dataclasses.asdict(likelier)
    return figures


def by_split(
    rewards: Sequence[np.ndarray], splits: Mapping[str, Split]
) -> dict[str, dict[str, Any]]:
    """The figures of `evaluate`, of rewards [K] for all comparisons of all splits in turn."""
    figures, start = {}, 0
    for name, split in splits.items():
        part = rewards[start : start + len(split.trees)]
        figures[name] = _of_rewards(part, split.comparisons)
        start += len(split.trees)
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


def _of_rewards(rewards: Sequence[np.ndarray], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    # First, because it is what refuses comparisons without ranks by their file and row.
    strict = accuracy(rewards, comparisons)
    losses, best, others = [], [], []
    for values, comparison in zip(rewards, comparisons, strict=True):
        ranks = np.asarray(comparison.ranks)
        better = ranks[:, None] < ranks[None, :]
        if better.any():
            difference = (values[:, None] - values[None, :])[better].astype(np.float64)
            losses.append(np.logaddexp(0.0, -difference).mean())
        best.append(values[ranks == ranks.min()])
        others.append(values[ranks > ranks.min()])
    together = np.concatenate(rewards).astype(np.float64)
    edges = np.histogram_bin_edges(together, HISTOGRAM_BINS)
    histogram = {
        "edges": edges,
        "best": np.histogram(np.concatenate(best), edges)[0],
        "others": np.histogram(np.concatenate(others), edges)[0],
    }
    return {
        **dataclasses.asdict(strict),
        "loss": float(np.mean(losses)),
        "rewards": {
            "mean": float(together.mean()),
            "deviation": float(together.std()),
            "n": len(together),
            **{part: values.tolist() for part, values in histogram.items()},
        },
    }
