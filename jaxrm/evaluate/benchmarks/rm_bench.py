"""RM-Bench (arXiv 2410.16184): right and wrong answers in three styles each.

The rule is that of `scripts/utils.py` in THU-KEG/RM-Bench. Styles come in the order concise,
detailed, detailed with markdown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from jaxrm.data.comparison import Comparison, fault
from jaxrm.data.fields import Row, choice, get
from jaxrm.evaluate.benchmark import Benchmark, Credit, Means, Part, Rule
from jaxrm.evaluate.benchmarks.reading import good_and_bad, identity
from jaxrm.evaluate.benchmarks.rules import OVERALL, mean, prompt_key

ROWS = {"chat": 129, "math": 529, "code": 228, "safety": 441}

DOMAINS = ("chat", "math", "code", "safety-refuse", "safety-response")

STYLES = 3

LEVELS = {
    "easy": np.tril_indices(STYLES, -1),
    "normal": np.diag_indices(STYLES),
    "hard": np.triu_indices(STYLES, 1),
}
"""Cells of the matrix [chosen style, rejected style]: in easy ones the right answer is the more
elaborate one, in hard ones the wrong answer is."""


def read(rows: Iterable[tuple[str, Row]], part: Part) -> Iterator[Comparison]:
    """Rows with `id`, `prompt`, `chosen` and `rejected` (three each), and `domain` (or `subset`).

    Refusals and responses of the domain safety are one subset. The id is "<domain>/<id>", since
    the numbers of two domains may be the same.
    """
    for n, (where, row) in enumerate(rows, start=1):
        fields = good_and_bad(row, where)
        for column in ("chosen", "rejected"):
            if len(row[column]) != STYLES:
                raise fault(where, column, f"expected {STYLES} styles, found {len(row[column])}")
        column = "domain" if "domain" in row or "subset" not in row else "subset"
        domain = choice(get(row, column, where), column, DOMAINS, where)
        fields["subset"] = domain.partition("-")[0]
        yield Comparison(**fields, id=f"{domain}/{identity(row, where, str(n))}", where=where)


def credit(comparisons: Sequence[Comparison], scores: Sequence[np.ndarray]) -> Iterator[Credit]:
    """Of each level, the share of its cells in which the right answer scores strictly higher."""
    for comparison, values in zip(comparisons, scores, strict=True):
        wins = values[:STYLES, None] > values[None, STYLES:]
        for level, cells in LEVELS.items():
            value = float(wins[cells].mean())
            yield Credit(f"{comparison.subset}/{level}", prompt_key(comparison), value)


def figures(means: Means) -> Mapping[str, float]:
    """The mean of the domains; each domain, the mean of its levels; each level over domains."""
    domains = {domain: mean(means[f"{domain}/{level}"] for level in LEVELS) for domain in ROWS}
    levels = {level: mean(means[f"{domain}/{level}"] for domain in ROWS) for level in LEVELS}
    return {OVERALL: mean(domains.values())} | domains | levels


RM_BENCH = Benchmark(
    name="rm_bench",
    title="RM-Bench (arXiv 2410.16184)",
    parts=(Part("THU-KEG/RM-Bench"),),
    read=read,
    expected=ROWS,
    rules=(
        Rule(
            "official",
            "Strict accuracy of every style of the right answer against every style of the wrong "
            "one, as a matrix for each domain: easy below its diagonal, normal on it, hard above; "
            "a domain is the mean of its three levels, the overall figure the mean of the four "
            "domains (THU-KEG/RM-Bench, scripts/utils.py).",
            credit,
            figures,
        ),
    ),
)
