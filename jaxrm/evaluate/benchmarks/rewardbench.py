"""RewardBench (arXiv 2403.13787), with and without the prior sets of its first leaderboard.

Rules and counts are those of `rewardbench/constants.py`, `rewardbench/utils.py` and
`analysis/get_benchmark_results.py` in allenai/reward-bench.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping

from jaxrm.data.comparison import Comparison
from jaxrm.data.fields import Row
from jaxrm.evaluate.benchmark import Benchmark, Means, Part, Rule
from jaxrm.evaluate.benchmarks.reading import identity, pair, subset
from jaxrm.evaluate.benchmarks.rules import OVERALL, mean, strict, weighted

SECTIONS = {
    "Chat": {
        "alpacaeval-easy": 100,
        "alpacaeval-length": 95,
        "alpacaeval-hard": 95,
        "mt-bench-easy": 28,
        "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37,
        "llmbar-natural": 100,
        "llmbar-adver-neighbor": 134,
        "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47,
        "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100,
        "refusals-offensive": 100,
        "xstest-should-refuse": 154,
        "xstest-should-respond": 250,
        "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 447,
        "hep-cpp": 164,
        "hep-go": 164,
        "hep-java": 164,
        "hep-js": 164,
        "hep-python": 164,
        "hep-rust": 164,
    },
}
"""The subsets of each section, and how many rows they have."""

ROWS = {name: count for rows in SECTIONS.values() for name, count in rows.items()}

WEIGHTS = ROWS | {"math-prm": 984}
"""Officially mathematics weighs as much as all the code, which is six times 164 rows."""

PRIOR = {"anthropic_helpful": 6192, "anthropic_hhh": 221, "shp": 1741, "summarize": 9000}
"""The test sets of earlier data that the first leaderboard counted, and how many rows they have."""

PRIOR_SETS_HOME = "allenai/pref-test-sets"


def read(rows: Iterable[tuple[str, Row]], part: Part) -> Iterator[Comparison]:
    """Rows with `prompt`, `chosen`, `rejected` and `subset`; an `id` each, else their number."""
    for n, (where, row) in enumerate(rows, start=1):
        fields = pair(row, where)
        fields["subset"] = subset(row, ROWS, where)
        yield Comparison(**fields, id=identity(row, where, f"rewardbench/{n}"), where=where)


def read_prior(rows: Iterable[tuple[str, Row]], part: Part) -> Iterator[Comparison]:
    """Rows with `prompt`, `chosen` and `rejected`; the split is the subset, whatever the column of
    that name says, and the ids of two splits may be the same."""
    for n, (where, row) in enumerate(rows, start=1):
        name = subset({}, PRIOR, where, part.split)
        yield Comparison(**pair(row, where), subset=name, id=f"{name}/{n}", where=where)


def read_legacy(rows: Iterable[tuple[str, Row]], part: Part) -> Iterator[Comparison]:
    """`read` or `read_prior`, as the part asks."""
    return (read_prior if part.location == PRIOR_SETS_HOME else read)(rows, part)


def section_figures(means: Means, weights: Mapping[str, int]) -> Mapping[str, float]:
    """The mean of the sections, and each section: its subsets with their weights."""
    sections = {
        section: weighted(means, {name: weights[name] for name in names})
        for section, names in SECTIONS.items()
    }
    return {OVERALL: mean(sections.values())} | sections


def prior_figures(means: Means) -> Mapping[str, float]:
    """The unweighted mean of the prior sets, and each of them."""
    return {OVERALL: mean(means[name] for name in PRIOR)} | {name: means[name] for name in PRIOR}


def legacy_figures(means: Means) -> Mapping[str, float]:
    """Sections count twice, the prior sets once."""
    figures = section_figures(means, WEIGHTS)
    sections = {section: figures[section] for section in SECTIONS}
    prior = prior_figures(means)[OVERALL]
    overall = (2 * sum(sections.values()) + prior) / (2 * len(sections) + 1)
    return {OVERALL: overall} | sections | {"Prior Sets": prior}


REWARDBENCH = Benchmark(
    name="rewardbench",
    title="RewardBench (arXiv 2403.13787)",
    parts=(Part("allenai/reward-bench", split="filtered"),),
    read=read,
    expected=ROWS,
    rules=(
        Rule(
            "official",
            "Strict accuracy of each subset, a tie is lost; a section weighs its subsets by their "
            "rows, math-prm as 984 and not 447; the overall figure is the mean of the "
            "four sections (allenai/reward-bench). The official code leaves out subsets without "
            "rows; here a section without all its rows has no figure.",
            strict,
            functools.partial(section_figures, weights=WEIGHTS),
        ),
        Rule(
            "by rows",
            "As official, but math-prm weighs as the 447 rows that it has: weighed up, each of "
            "them moves Reasoning twice as far as a row of code does.",
            strict,
            functools.partial(section_figures, weights=ROWS),
        ),
    ),
)

PRIOR_SETS = Benchmark(
    name="prior_sets",
    title="Prior sets of RewardBench (arXiv 2403.13787)",
    parts=tuple(Part(PRIOR_SETS_HOME, split=name) for name in PRIOR),
    read=read_prior,
    expected=PRIOR,
    rules=(
        Rule(
            "official",
            "Strict accuracy of each set, a tie is lost; the overall figure is their unweighted "
            "mean (allenai/reward-bench, analysis/get_benchmark_results.py).",
            strict,
            prior_figures,
        ),
    ),
)

REWARDBENCH_LEGACY = Benchmark(
    name="rewardbench_legacy",
    title="RewardBench with its prior sets (arXiv 2403.13787)",
    parts=REWARDBENCH.parts + PRIOR_SETS.parts,
    read=read_legacy,
    expected=ROWS | PRIOR,
    rules=(
        Rule(
            "official",
            "The first leaderboard's score: the four sections of RewardBench and the mean of the "
            "prior sets, weighted 2, 2, 2, 2 and 1 (allenai/reward-bench, "
            "analysis/get_benchmark_results.py). The official code averages over what there is; "
            "here a missing set takes the figure away.",
            strict,
            legacy_figures,
        ),
    ),
)
