"""Labels for the steps of solutions: from roll-outs, and which of them to trust.

Which steps are right is rarely known; whether an answer is right often is. So a step is judged by
where it leads: a policy completes the solution from there, several times, and the outcomes label
the step (Math-Shepherd, arXiv 2312.08935). A right answer by a wrong way spoils such labels, which
a second opinion finds out (arXiv 2501.07301). Labels of one solution are a sequence of numbers, one
for each step: 1 right, 0 wrong, a share between, NaN unknown.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from jaxrm.data.comparison import Comparison, fault
from jaxrm.errors import DataError

NO_ERROR = -1
"""The place of the first error in a solution without one."""

Labels = Float[np.ndarray, " steps"]


def any_correct(outcomes: Sequence[Sequence[bool]]) -> Labels:
    """1 for a step from which one completion came out right, 0 for others: hard labels.

    arXiv 2501.07301 takes 8 completions of each step and finds this threshold, 0, the best.

    Args:
      outcomes: for each step, whether completions of the solution up to and with it came out right;
        as many as were drawn.

    Raises:
      DataError: a step without completions.
    """
    return (share_correct(outcomes) > 0).astype(np.float64)


def share_correct(outcomes: Sequence[Sequence[bool]]) -> Labels:
    """The share of completions that came out right: soft labels; arguments as for `any_correct`."""
    for t, drawn in enumerate(outcomes):
        if not len(drawn):
            raise DataError(f"step {t} has no completions to be labelled by")
    return np.array([np.mean(drawn) for drawn in outcomes], np.float64)


def first_error(labels: Sequence[float] | Labels, threshold: float = 0.5) -> int:
    """The first step labelled below `threshold`, from 0, or `NO_ERROR`; NaN is no error."""
    wrong = np.flatnonzero(np.asarray(labels, np.float64) < threshold)
    return int(wrong[0]) if len(wrong) else NO_ERROR


def until_first_error(
    labels: Sequence[float] | Labels, threshold: float = 0.5
) -> Bool[np.ndarray, " steps"]:
    """The steps up to and with the first error, all of them where there is none.

    What follows an error is neither right nor wrong in a way that models agree on, and
    arXiv 2501.07301 leaves it out of training.
    """
    first = first_error(labels, threshold)
    count = len(labels)
    return np.arange(count) <= (count if first == NO_ERROR else first)


def up_to_first_error(labels: Sequence[float] | Labels, threshold: float = 0.5) -> Labels:
    """The labels that `until_first_error` keeps, NaN for the others."""
    kept = until_first_error(labels, threshold)
    return np.where(kept, np.asarray(labels, np.float64), math.nan)


def consensus(
    estimated: Sequence[int] | np.ndarray, judged: Sequence[int] | np.ndarray
) -> Bool[np.ndarray, " n"]:
    """Which solutions to keep: roll-outs and a judge see the first error at the same step, or
    neither sees one (arXiv 2501.07301, which keeps about 40 %).

    Args:
      estimated, judged: [n] places of the first error, `NO_ERROR` for none.

    Raises:
      DataError: none is left.
      ValueError: not as many are judged as estimated.
    """
    if len(estimated) != len(judged):
        raise ValueError(f"{len(judged)} solutions judged and {len(estimated)} estimated")
    kept = np.asarray(estimated) == np.asarray(judged)
    if not kept.any():
        raise DataError(f"roll-outs and judge agree on none of {len(kept)} solutions")
    return kept


def labelled(comparison: Comparison, labels: Sequence[Sequence[float] | Labels]) -> Comparison:
    """The comparison with these labels on its steps.

    Args:
      comparison: with steps, whose own labels go.
      labels: for each response, a number or NaN for each step.

    Raises:
      DataError: labels that do not match the steps, naming the row.
    """
    if comparison.steps is None:
        raise fault(comparison.where, "steps", "there are none to label")
    if len(labels) != len(comparison.steps):
        problem = f"has {len(comparison.steps)} entries for labels of {len(labels)}"
        raise fault(comparison.where, "steps", problem)
    relabelled = []
    for k, (steps, step_labels) in enumerate(zip(comparison.steps, labels, strict=True)):
        if len(step_labels) != len(steps):
            problem = f"has {len(steps)} entries for {len(step_labels)} labels"
            raise fault(comparison.where, f"steps[{k}]", problem)
        pairs = zip(steps, step_labels, strict=True)
        relabelled.append(tuple(step._replace(label=float(label)) for step, label in pairs))
    return dataclasses.replace(comparison, steps=tuple(relabelled))


def check(comparisons: Iterable[Comparison], classes: int = 0) -> int:
    """Looks at step labels before a loss does, which takes shares or classes and no other numbers,
    and returns how many there are.

    Args:
      classes: how many there are, for `losses.process.step_classes`; without them labels are to be
        shares in [0, 1], as `step_cross_entropy` takes them.

    Raises:
      DataError: a label is another number, naming row and step, or no step has a label at all.
    """
    words = f"a class from 0 to {classes - 1}" if classes else "a share in [0, 1]"
    labels = 0
    for comparison in comparisons:
        for k, steps in enumerate(comparison.steps or ()):
            for t, step in enumerate(steps):
                label = step.label
                labels += not math.isnan(label)
                fits = label in range(classes) if classes else 0 <= label <= 1
                if not (fits or math.isnan(label)):
                    problem = f"must be {words}, found {label}: relabel the data for this loss"
                    raise fault(comparison.where, f"steps[{k}][{t}].label", problem)
    if not labels:
        raise DataError("no step of the comparisons has a label to learn from")
    return labels


def without_later(comparison: Comparison, threshold: float = 0.5) -> Comparison:
    """The comparison whose steps after the first error of a response have no label."""
    rows = ([step.label for step in steps] for steps in comparison.steps or ())
    return labelled(comparison, [up_to_first_error(row, threshold) for row in rows])
