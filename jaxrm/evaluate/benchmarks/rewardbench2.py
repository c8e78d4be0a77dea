"""RewardBench 2 (arXiv 2506.01937): the best of four, and answers that are equally right.

The rules are those of `rewardbench/utils.py` in allenai/reward-bench (`reroll_and_score_dataset`,
`process_single_model`); the mean over the subsets is the leaderboard's.

Of the subset Ties, prompts come in two, "tied:<n>" with several right answers and "ref:<n>" with
one. m is by how much the worst right answer outscores the best wrong one, d by how much the best
right answer of the tied prompt outscores the worst.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from jaxrm.data.comparison import Comparison, fault
from jaxrm.data.fields import Row
from jaxrm.evaluate.benchmark import Benchmark, Credit, Means, Part, Rule
from jaxrm.evaluate.benchmarks.reading import good_and_bad, identity, subset
from jaxrm.evaluate.benchmarks.rules import OVERALL, mean, prompt_key

TIES = "Ties"

ROWS = {"Factuality": 475, "Focus": 495, "Math": 183, "Precise IF": 160, "Safety": 450, TIES: 102}

WEIGHTS = {
    "Ties/tied": 0.30,
    "Ties/ref": 0.30,
    "Ties/tied beyond spread": 0.20,
    "Ties/both beyond spread": 0.20,
    "Ties/margin": 0.01,
}
"""The official Ties score, as a sum of means over prompts or pairs of them: m_tied > 0; m_ref > 0;
m_tied > d; min(m_ref, m_tied) > d; tanh(min(m_ref, m_tied) / d - 1), 0 where that is not a
number."""


@dataclasses.dataclass(frozen=True)
class Ties:
    """m and d of one prompt: NaN if one of the scores is that they rest on."""

    margin: np.float64
    spread: np.float64


def read(rows: Iterable[tuple[str, Row]], part: Part) -> Iterator[Comparison]:
    """Rows with `id`, `prompt`, `chosen` and `rejected` (lists), and `subset`.

    The id is "<subset>/<id>": numbers of two subsets are not promised to differ.
    """
    for n, (where, row) in enumerate(rows, start=1):
        fields = good_and_bad(row, where)
        for column in ("chosen", "rejected"):
            if not row[column]:
                raise fault(where, column, "empty: there must be right answers and wrong ones")
        fields["subset"] = subset(row, ROWS, where)
        name = identity(row, where, str(n))
        if fields["subset"] == TIES and not re.fullmatch(r"(ref|tied):\d+", name):
            raise fault(where, "id", f"expected ref:<number> or tied:<number>, found {name!r}")
        yield Comparison(**fields, id=f"{fields['subset']}/{name}", where=where)


def official(comparisons: Sequence[Comparison], scores: Sequence[np.ndarray]) -> Iterator[Credit]:
    """One divided by how many score highest, if the right answer does; Ties in five groups."""
    return _credit(comparisons, scores, _shared_best)


def strict_best(
    comparisons: Sequence[Comparison], scores: Sequence[np.ndarray]
) -> Iterator[Credit]:
    """One if the right answer scores higher than all others; Ties as officially."""
    return _credit(comparisons, scores, _alone_best)


def _credit(
    comparisons: Sequence[Comparison],
    scores: Sequence[np.ndarray],
    best: Callable[[np.ndarray], float],
) -> Iterator[Credit]:
    ties: dict[int, dict[str, Ties]] = {}
    for comparison, values in zip(comparisons, scores, strict=True):
        values = np.asarray(values, np.float64)
        if comparison.subset != TIES:
            yield Credit(comparison.subset, prompt_key(comparison), best(values))
            continue
        kind, number = comparison.id.removeprefix(f"{TIES}/").split(":")
        measured = ties.setdefault(int(number), {})[kind] = _measured(comparison, values)
        # The prompts of a pair are one cluster: below they earn credit together.
        yield Credit(f"{TIES}/{kind}", f"{TIES}/{int(number)}", float(measured.margin > 0))
    for number, kinds in ties.items():
        if len(kinds) == 2:
            for group, value in _together(**kinds).items():
                yield Credit(group, f"{TIES}/{number}", value)


def _shared_best(scores: np.ndarray) -> float:
    best = scores == scores.max()  # none of them, if there is NaN
    return float(best[0] / max(best.sum(), 1))


def _alone_best(scores: np.ndarray) -> float:
    return float((scores[0] > scores[1:]).all())


def _measured(comparison: Comparison, scores: np.ndarray) -> Ties:
    right = np.array(comparison.ranks) == 0
    good, bad = scores[right], scores[~right]
    return Ties(good.min() - bad.max(), good.max() - good.min())


def _together(ref: Ties, tied: Ties) -> dict[str, float]:
    least = np.minimum(ref.margin, tied.margin)  # NaN, if one of them is
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.tanh(least / tied.spread - 1)
    return {
        "Ties/tied beyond spread": float(tied.margin > tied.spread),
        "Ties/both beyond spread": float(least > tied.spread),
        "Ties/margin": float(np.nan_to_num(excess, nan=0.0)),
    }


def _figures(means: Means, ties: float) -> Mapping[str, float]:
    subsets = {name: ties if name == TIES else means[name] for name in ROWS}
    return {OVERALL: mean(subsets.values())} | subsets


def official_figures(means: Means) -> Mapping[str, float]:
    """The unweighted mean of the six subsets, and each."""
    return _figures(means, sum(weight * means[group] for group, weight in WEIGHTS.items()))


def strict_figures(means: Means) -> Mapping[str, float]:
    """The same, Ties as the mean of its two accuracies."""
    return _figures(means, mean((means["Ties/tied"], means["Ties/ref"])))


REWARDBENCH2 = Benchmark(
    name="rewardbench2",
    title="RewardBench 2 (arXiv 2506.01937)",
    parts=(Part("allenai/reward-bench-2", split="test"),),
    read=read,
    expected=ROWS,
    rules=(
        Rule(
            "official",
            "A right answer that shares the highest score with others earns one part of as many; "
            "Ties is .30 + .30 accuracy, .20 + .20 for margins beyond the spread of right answers, "
            "and .01 tanh; the overall figure is the unweighted mean of the six subsets "
            "(allenai/reward-bench). NaN among a Ties prompt's scores loses it; officially that "
            "hangs on the place of the NaN.",
            official,
            official_figures,
        ),
        Rule(
            "strict",
            "The right answer must score higher than all others, and Ties is the mean of its two "
            "accuracies: officially a constant scorer gets a quarter of every subset but Ties, "
            "and Ties reaches 1.01.",
            strict_best,
            strict_figures,
        ),
    ),
)
