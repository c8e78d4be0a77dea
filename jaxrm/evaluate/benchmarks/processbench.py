"""ProcessBench (arXiv 2412.06559): where does a solution go wrong?

A solution of T steps is one comparison of T responses, the t-th of them the first t steps, so that
any reward model can be asked: a step passes if the solution as far as it scores above a threshold,
and what does not pass first is where the model sees the error. The rule is that of `code/` in
QwenLM/ProcessBench, the thresholds those of the paper's section 4.1.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from jaxrm.data.comparison import Comparison, fault
from jaxrm.data.fields import Row, choice, get, items, response, text, user
from jaxrm.evaluate.benchmark import Benchmark, Credit, Means, Part, Rule
from jaxrm.evaluate.benchmarks.reading import identity, subset
from jaxrm.evaluate.benchmarks.rules import OVERALL, mean, prompt_key, ratio

ROWS = {"gsm8k": 400, "math": 1000, "olympiadbench": 1000, "omnimath": 1000}

TUNED_ON = "gsm8k"

BETWEEN_STEPS = "\n\n"
"""What the benchmark's authors split solutions at."""


def read(rows: Iterable[tuple[str, Row]], part: Part) -> Iterator[Comparison]:
    """Rows with `id`, `problem`, `steps` and `label`, the first wrong step from 0 or -1 for none;
    the split is the subset. Steps before that have rank 0, it and those after it rank 1."""
    for n, (where, row) in enumerate(rows, start=1):
        prompt = user(row, "problem", where)
        numbered = enumerate(items(get(row, "steps", where), "steps", where))
        steps = [text(step, f"steps[{t}]", where) for t, step in numbered]
        if not steps:
            raise fault(where, "steps", "empty")
        label = choice(get(row, "label", where), "label", range(-1, len(steps)), where)
        before = len(steps) if label < 0 else label
        name = subset(row, ROWS, where, part.split)
        yield Comparison(
            prompt,
            tuple(
                response(prompt, BETWEEN_STEPS.join(steps[:t]), "steps", where)
                for t in range(1, len(steps) + 1)
            ),
            ranks=(0,) * before + (1,) * (len(steps) - before),
            subset=name,
            id=identity(row, where, f"{name}/{n}"),
            where=where,
        )


@dataclasses.dataclass(frozen=True)
class Found:
    """The thresholds with which a model finds what is to be found: low <= threshold < high.

    The first wrong step must not pass, all before it must; in a right solution, all must.
    """

    low: float
    high: float

    @classmethod
    def of(cls, comparison: Comparison, scores: np.ndarray) -> Found:
        """Args: scores float [T] of a solution's beginnings; NaN never passes."""
        return cls.at(-1 if is_right(comparison) else comparison.ranks.index(1), scores)

    @classmethod
    def at(cls, wrong: int, scores: np.ndarray) -> Found:
        """`of` a solution by its first wrong step, -1 for none."""
        passing = np.where(np.isnan(scores), -math.inf, scores).tolist()
        if wrong < 0:
            return cls(-math.inf, min(passing))
        return cls(passing[wrong], min(passing[:wrong], default=math.inf))


def is_right(comparison: Comparison) -> bool:
    """Whether no step of the solution is wrong."""
    return 1 not in comparison.ranks


def fixed(
    comparisons: Sequence[Comparison], scores: Sequence[np.ndarray], threshold: float
) -> Iterator[Credit]:
    """One for each solution whose first wrong step, or whose being right, is found."""
    for comparison, values in zip(comparisons, scores, strict=True):
        span = Found.of(comparison, values)
        kind = "correct" if is_right(comparison) else "error"
        value = float(span.low <= threshold < span.high)
        yield Credit(f"{comparison.subset}/{kind}", prompt_key(comparison), value)


def tuned(comparisons: Sequence[Comparison], scores: Sequence[np.ndarray]) -> Iterator[Credit]:
    """`fixed` with the threshold that is best on GSM8K, the lowest of several; without GSM8K there
    is none, and no credit."""
    pairs = zip(comparisons, scores, strict=True)
    tuning = [(is_right(c), Found.of(c, values)) for c, values in pairs if c.subset == TUNED_ON]
    if tuning:
        yield from fixed(comparisons, scores, best_threshold(*zip(*tuning, strict=True)))


def best_threshold(right: Sequence[bool], spans: Sequence[Found]) -> float:
    """The lowest threshold with the highest F1 over these solutions."""
    # Between two of the lows a higher threshold finds nothing that the lower does not.
    candidates = np.unique([one.low for one in spans])
    return float(candidates[np.argmax(np.nan_to_num(_f1_at(candidates, right, spans)))])


Steps = tuple[Sequence[int], Sequence[np.ndarray]]
"""Of solutions: the first wrong step, from 0 or -1 for none, and a score for each step."""


def step_f1(tuning: Steps, asked: Steps) -> float:
    """The F1 over the solutions `asked` of a model that scores steps, at the threshold that is best
    on `tuning`; NaN where all or none of them are right."""

    def thresholds(steps: Steps) -> tuple[list[bool], list[Found]]:
        return [wrong < 0 for wrong in steps[0]], list(map(Found.at, *steps))

    return float(_f1_at([best_threshold(*thresholds(tuning))], *thresholds(asked))[0])


def _f1_at(
    thresholds: Sequence[float], right: Sequence[bool], spans: Sequence[Found]
) -> Float[np.ndarray, " thresholds"]:
    """The F1 over these solutions at each threshold."""
    right, thresholds = np.array(right), np.asarray(thresholds)[:, None]
    low, high = (np.array([getattr(one, end) for one in spans]) for end in ("low", "high"))
    finds = (low <= thresholds) & (thresholds < high)
    accuracies = (
        finds[:, kind].mean(1).tolist() if kind.any() else [math.nan] * len(thresholds)
        for kind in (~right, right)
    )
    return np.array([f1(*pair) for pair in zip(*accuracies, strict=True)])


def f1(error: float, correct: float) -> float:
    """The harmonic mean of two accuracies; 0 if both are, where the official code has no number."""
    return 0.0 if error == correct == 0 else ratio(2 * error * correct, error + correct)


def figures(means: Means) -> Mapping[str, float]:
    """The unweighted mean of the subsets' F1, and each."""
    subsets = {name: f1(means[f"{name}/error"], means[f"{name}/correct"]) for name in ROWS}
    return {OVERALL: mean(subsets.values())} | subsets


PROCESSBENCH = Benchmark(
    name="processbench",
    title="ProcessBench (arXiv 2412.06559)",
    parts=tuple(Part("Qwen/ProcessBench", split=name) for name in ROWS),
    read=read,
    expected=ROWS,
    rules=(
        Rule(
            "official",
            "F1 of each subset: the harmonic mean of the accuracies on wrong and on right "
            "solutions, of finding the first wrong step or that there is none; the overall figure "
            "is the mean of the four. A step passes above the threshold that gives the highest F1 "
            "on GSM8K, as the paper has it for scalar scores, so the figure of GSM8K is the best "
            "that any threshold gives. Two accuracies of 0 make an F1 of 0, officially NaN.",
            tuned,
            figures,
        ),
        Rule(
            "logit 0",
            "As official, but a step passes above 0, a probability of one half for models trained "
            "to classify steps: nothing is tuned on the benchmark. Bradley-Terry leaves the zero "
            "of a reward free, so it says little of reward models that compare.",
            functools.partial(fixed, threshold=0.0),
            figures,
        ),
    ),
)
