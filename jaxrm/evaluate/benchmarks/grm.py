"""What GRM (arXiv 2406.10216) was evaluated on: Unified-Feedback, HHH-Alignment, MT-Bench.

Rules and readings are those of `rm_eval` in YangRui2015/Generalizable-Reward-Model. Its loader
drops the last batch unless it is full; that is not copied.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from jaxrm.data import public_formats
from jaxrm.data.comparison import Comparison
from jaxrm.data.fields import Known, Row
from jaxrm.evaluate.benchmark import Benchmark, Credit, Means, Part, Rule
from jaxrm.evaluate.benchmarks.pair_sets import by_group
from jaxrm.evaluate.benchmarks.reading import identity, pair, subset
from jaxrm.evaluate.benchmarks.rules import (
    OVERALL,
    mean,
    prompt_key,
    ratio,
    strict,
    weighted,
    with_overall,
)

HHH_ROWS = {"harmless": 58, "helpful": 59, "honest": 61, "other": 43}

MT_BENCH_ROWS = {"human": 3355, "gpt4_pair": 2400}


def read_unified_feedback(rows: Iterable[tuple[str, Row]], part: Part) -> Iterator[Comparison]:
    """Rows with two conversations, their ratings and `source`, which is the subset."""
    for n, (where, row) in enumerate(rows, start=1):
        fields = public_formats.unified_feedback(row, where)
        yield Comparison(**fields, id=f"unified_feedback/{n}", where=where)


def unified_feedback_credit(
    comparisons: Sequence[Comparison], scores: Sequence[np.ndarray]
) -> Iterator[Credit]:
    """A win in all and in the source; equal ratings are left out."""
    return with_overall(strict(comparisons, scores))


def read_hhh(rows: Iterable[tuple[str, Row]], part: Part) -> Iterator[Comparison]:
    """Rows with `input` and `targets`, the configuration being the subset, or with `prompt`,
    `chosen`, `rejected` and `subset`."""
    for n, (where, row) in enumerate(rows, start=1):
        parse = pair if "prompt" in row else public_formats.hhh_alignment
        name = subset(row, HHH_ROWS, where, part.config)
        fields = parse(row, where) | {"subset": name}
        yield Comparison(**fields, id=identity(row, where, f"{name}/{n}"), where=where)


def hhh_figures(means: Means) -> Mapping[str, float]:
    """Over all rows, the unweighted mean of the subsets, and each."""
    subsets = {name: means[name] for name in HHH_ROWS}
    overall = {OVERALL: weighted(means, HHH_ROWS), "mean of subsets": mean(subsets.values())}
    return overall | subsets


def read_mt_bench(
    rows: Iterable[tuple[str, Row]], part: Part, parse: Callable[[Row, str], Known]
) -> Iterator[Comparison]:
    """Rows with two conversations and the winner, the split being the subset."""
    for n, (where, row) in enumerate(rows, start=1):
        name = subset(row, MT_BENCH_ROWS, where, part.split)
        fields = parse(row, where) | {"subset": name, "id": f"{name}/{n}"}
        yield Comparison(**fields, where=where)


def grm_mt_bench_credit(
    comparisons: Sequence[Comparison], scores: Sequence[np.ndarray]
) -> Iterator[Credit]:
    """One if the first conversation scores higher where it won, the second where it did not."""
    for comparison, (first, second) in zip(comparisons, scores, strict=True):
        won = comparison.ranks == (0, 1)
        value = first > second if won else second > first
        yield Credit(comparison.subset, prompt_key(comparison), float(value))


def mt_bench_figures(means: Means) -> Mapping[str, float]:
    """Over all rows, and by who judged."""
    return {OVERALL: weighted(means, MT_BENCH_ROWS)} | {name: means[name] for name in MT_BENCH_ROWS}


def decided_credit(
    comparisons: Sequence[Comparison], scores: Sequence[np.ndarray]
) -> Iterator[Credit]:
    """In "<subset>/won" one for a win, in "<subset>/decided" one where there was one to be had.

    How many rows are decided is not known beforehand, so both go to every row: the ratio of their
    means is the accuracy, of one subset and of several alike.
    """
    wins = strict(comparisons, scores)
    for comparison in comparisons:
        win = 0.0 if comparison.is_tie else next(wins).value
        cluster = prompt_key(comparison)
        yield Credit(f"{comparison.subset}/won", cluster, win)
        yield Credit(f"{comparison.subset}/decided", cluster, float(not comparison.is_tie))


def decided_figures(means: Means) -> Mapping[str, float]:
    """Over all decided rows, and by who judged."""
    won = {name: means[f"{name}/won"] for name in MT_BENCH_ROWS}
    decided = {name: means[f"{name}/decided"] for name in MT_BENCH_ROWS}
    overall = ratio(weighted(won, MT_BENCH_ROWS), weighted(decided, MT_BENCH_ROWS))
    return {OVERALL: overall} | {name: ratio(won[name], decided[name]) for name in MT_BENCH_ROWS}


UNIFIED_FEEDBACK = Benchmark(
    name="unified_feedback",
    title="Unified-Feedback, validation (GRM, arXiv 2406.10216)",
    parts=(Part("llm-blender/Unified-Feedback", "all", "val"),),
    read=read_unified_feedback,
    expected={},
    rules=(
        Rule(
            "official",
            "Strict accuracy over all rows whose ratings differ, a tie of the scores is lost "
            "(YangRui2015/Generalizable-Reward-Model, rm_eval); and by source.",
            unified_feedback_credit,
            by_group,
        ),
    ),
)

HHH = Benchmark(
    name="hhh",
    title="HHH-Alignment (arXiv 2112.00861)",
    parts=tuple(Part("HuggingFaceH4/hhh_alignment", name, "test") for name in HHH_ROWS),
    read=read_hhh,
    expected=HHH_ROWS,
    rules=(
        Rule(
            "official",
            "Strict accuracy over all rows, a tie is lost "
            "(YangRui2015/Generalizable-Reward-Model, rm_eval); and the unweighted mean of the "
            "four subsets, which others report.",
            strict,
            hhh_figures,
        ),
    ),
)

DECIDED = Rule(
    "decided",
    "Strict accuracy over the judgements that are no ties: a tie has no right answer.",
    decided_credit,
    decided_figures,
)

MT_BENCH = Benchmark(
    name="mt_bench",
    title="MT-Bench judgements, whole conversations (GRM, arXiv 2406.10216)",
    parts=tuple(Part("lmsys/mt_bench_human_judgments", split=name) for name in MT_BENCH_ROWS),
    read=functools.partial(read_mt_bench, parse=public_formats.arena),
    expected=MT_BENCH_ROWS,
    rules=(
        Rule(
            "official",
            "GRM's: whole conversations, whichever turn was judged; model A's must score strictly "
            "higher where it won, and model B's everywhere else, ties too "
            "(YangRui2015/Generalizable-Reward-Model, rm_eval).",
            grm_mt_bench_credit,
            mt_bench_figures,
        ),
        DECIDED,
    ),
)

MT_BENCH_TURNS = Benchmark(
    name="mt_bench_turns",
    title="MT-Bench judgements, what the judges saw (arXiv 2306.05685)",
    parts=MT_BENCH.parts,
    read=functools.partial(read_mt_bench, parse=public_formats.mt_bench),
    expected=MT_BENCH_ROWS,
    rules=(DECIDED,),
)
