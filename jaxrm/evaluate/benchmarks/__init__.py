"""Public benchmarks of reward models, and any pairs at hand: how each is read, and its rules."""

from __future__ import annotations

from jaxrm.evaluate.benchmark import Benchmark
from jaxrm.evaluate.benchmarks.contrast_instructions import CONTRAST_INSTRUCTIONS, PREFIX, contrasts
from jaxrm.evaluate.benchmarks.grm import HHH, MT_BENCH, MT_BENCH_TURNS, UNIFIED_FEEDBACK
from jaxrm.evaluate.benchmarks.llmbar import LLMBAR
from jaxrm.evaluate.benchmarks.pair_sets import pairs
from jaxrm.evaluate.benchmarks.processbench import PROCESSBENCH
from jaxrm.evaluate.benchmarks.rewardbench import PRIOR_SETS, REWARDBENCH, REWARDBENCH_LEGACY
from jaxrm.evaluate.benchmarks.rewardbench2 import REWARDBENCH2
from jaxrm.evaluate.benchmarks.rm_bench import RM_BENCH

__all__ = ["BENCHMARKS", "contrasts", "named", "pairs"]

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        REWARDBENCH,
        REWARDBENCH2,
        RM_BENCH,
        UNIFIED_FEEDBACK,
        HHH,
        MT_BENCH,
        MT_BENCH_TURNS,
        LLMBAR,
        PROCESSBENCH,
        CONTRAST_INSTRUCTIONS,
        PRIOR_SETS,
        REWARDBENCH_LEGACY,
    )
}
"""By name."""


def named(name: str, title: str) -> Benchmark:
    """The benchmark whose results are kept under a name, with a title that tells a published one
    from a source that is called alike; any other source's is one of pairs."""
    if name in BENCHMARKS and BENCHMARKS[name].title == title:
        return BENCHMARKS[name]
    if name.startswith(PREFIX):
        return contrasts(name.removeprefix(PREFIX))
    return pairs(name)
