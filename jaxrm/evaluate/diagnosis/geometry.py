"""The hidden states that a reward is read from: how many directions they use, how long they are.

Rewards of a linear head are |w| |h| cos(w, h), so that states of very different length make rewards
of very different size whatever they mean: Hong et al. 2025 (arXiv 2505.07271) find this dispersion,
and states that collapse into few directions, where a reward model over-optimises.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxrm.data.comparison import Comparison
from jaxrm.evaluate.diagnosis.margins import response_prompts
from jaxrm.evaluate.estimates import Estimate, estimate

GROUPS = 10
"""Parts of the prompts that are left out in turn for the interval of an effective rank."""


@dataclasses.dataclass(frozen=True)
class Geometry:
    """The states of some responses.

    Attributes:
      size: dimensions of a state.
      rank: effective rank of the states, one a row.
      centred_rank: the same of the states minus their mean.
      norm: mean Euclidean norm.
      dispersion: standard deviation of the norms over their mean.
    """

    size: int
    rank: Estimate
    centred_rank: Estimate
    norm: Estimate
    dispersion: Estimate


def geometry(states: Sequence[np.ndarray], comparisons: Sequence[Comparison]) -> Geometry:
    """The figures of the states, whose rank is at most the number of responses.

    Args:
      states: float [K, d] for each comparison: `probe.final_states`. Rows that are not finite are
        left out.
    """
    rows, prompts = np.concatenate(states).astype(np.float64), response_prompts(comparisons)
    finite = np.isfinite(rows).all(axis=1)
    rows, prompts = rows[finite], prompts[finite]
    norms = np.linalg.norm(rows, axis=1)

    def norm(weight: np.ndarray) -> float:
        return float(weight @ norms / weight.sum())

    def dispersion(weight: np.ndarray) -> float:
        level = norm(weight)
        return float(np.sqrt(weight @ (norms - level) ** 2 / weight.sum()) / level)

    return Geometry(
        size=rows.shape[1],
        rank=_rank(rows, prompts, centre=False),
        centred_rank=_rank(rows, prompts, centre=True),
        norm=estimate(norm, prompts),
        dispersion=estimate(dispersion, prompts),
    )


def effective_rank(singular_values: np.ndarray) -> float:
    """exp(entropy of the singular values over their sum): from 1 to their number (Roy and
    Vetterli 2007, The Effective Rank). NaN where all are 0."""
    values = np.asarray(singular_values, np.float64)
    if not values.sum() > 0:
        return np.nan
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares @ np.log(shares))))


def rank_of(rows: np.ndarray, centre: bool) -> float:
    """The effective rank of float [n, d], by the eigenvalues of the smaller of its two products."""
    rows = rows - rows.mean(axis=0) if centre else rows
    product = rows @ rows.T if len(rows) < rows.shape[1] else rows.T @ rows
    squares = np.linalg.eigvalsh(product)
    # Below this an eigenvalue is rounding of 0, and its square root would not be small.
    squares[squares < squares.max(initial=0) * len(product) * np.finfo(np.float64).eps] = 0
    return effective_rank(np.sqrt(squares))


def _rank(rows: np.ndarray, prompts: np.ndarray, centre: bool) -> Estimate:
    """The effective rank. Its interval is of prompts left out by `GROUPS`, because each takes a
    decomposition."""
    return estimate(lambda kept: rank_of(rows[kept > 0], centre), prompts, parts=GROUPS)
