"""A study's numbers in Markdown tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from jaxrm.report.markdown import table
from jaxrm.statistics import Paired
from jaxrm.study.claims import Claim
from jaxrm.study.records import (
    SPLITS,
    VARIANTS,
    Choices,
    Runs,
    Trial,
    common,
    macro,
    scores,
    standard_error,
)

Form = tuple[int, str]
"""What a number in a table is multiplied by, and its format."""
PERCENT: Form = (100, ".1f")
POINTS: Form = (100, "+.2f")
SHARE: Form = (1, ".3f")


def cell(scores: np.ndarray, form: Form) -> str:
    """Mean ± standard error of scores [seeds]; "missing" where any of them is."""
    if not scores.size or np.isnan(scores).any():
        return "missing"
    scale, digits = form
    mean = format(scale * scores.mean(), digits)
    if scores.size == 1:
        return mean
    return f"{mean} ± {format(scale * standard_error(scores), digits.lstrip('+'))}"


def comparison(cells: Mapping[str, Runs], what: str, planned: Collection[int] | None = None) -> str:
    """A table of accuracies, a line for each cell and a column for each split.

    Args:
      cells: runs by the name of their line; all are shown over the seeds they have in common.
      what: the sentence before the one on seeds.
      planned: the seeds that a cell is to have; those of any cell without it.
    """
    seeds, sentence = common(cells, planned)
    rows = [
        [name, *(cell(scores(runs, seeds, macro(split)), PERCENT) for split in SPLITS)]
        for name, runs in cells.items()
    ]
    return f"{what} {sentence}\n\n{table(['method', *SPLITS], rows, left=1)}"


def verdict_table(by_condition: Mapping[str, Sequence[Claim]]) -> str:
    """A line for each condition and variant, "missing" where there is no claim."""
    head = ["condition", "variant", "against", "n", "gain", "95 % interval", "p", "Holm p"]
    rows = []
    for condition, made in by_condition.items():
        by_variant = {claim.variant: claim for claim in made}
        for variant in VARIANTS:
            if (claim := by_variant.get(variant)) is None:
                rows.append([condition, variant, *["missing"] * 7])
                continue
            found = claim.gain
            cells = [claim.control, found.n, f"{100 * found.mean:+.2f}", _interval(found)]
            cells += [f"{found.p:.4f}", f"{claim.adjusted:.4f}", f"**{claim.verdict}**"]
            rows.append([condition, variant, *cells])
    return table([*head, "verdict"], rows, left=3)


def _interval(gain: Paired) -> str:
    low, high = (f"{100 * end:+.2f}".replace("inf", "∞") for end in (gain.low, gain.high))
    return f"{low} to {high}"


def trials_table(choices: Choices) -> str:
    """Every trial of every method with its accuracy on `val`, the chosen ones marked."""
    rows = []
    for method, choice in choices.items():
        for tried in choice["trials"]:
            error = tried["standard_error"]
            spread = "" if error is None else f" ± {100 * error:.1f}"
            chosen = "chosen" if Trial.of(tried) == Trial.of(choice) else ""
            rows.append([method, Trial.of(tried), f"{100 * tried['mean']:.1f}{spread}", chosen])
    return table(["method", "trial", "val", ""], rows, left=2)
