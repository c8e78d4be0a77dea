"""Any pairs or ranked responses that `jaxrm.data.sources` can read, as a benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from jaxrm.data import formats
from jaxrm.data.comparison import Comparison, fault
from jaxrm.data.fields import Row
from jaxrm.data.sources import Source
from jaxrm.errors import require
from jaxrm.evaluate.benchmark import Benchmark, Credit, Means, Part, Rule
from jaxrm.evaluate.benchmarks.rules import OVERALL, half_for_ties, strict, with_overall


def pairs(source: str) -> Benchmark:
    """The comparisons of a source, all of them, with strict accuracy over all and by subset.

    Nothing is promised of their number, so nothing is missing either.

    Args:
      source: as `Source.parse` takes it: "LOCATION?config=..&split=..&label=..&name=..".

    Raises:
      DataError: the name cannot be read; later, as `jaxrm.data.formats.comparisons`, and for a
        subset that is called "overall".
      OptionError: `every` or `weight` is set, which choose what to train on.
    """
    named = Source.parse(source)
    require(named.every == 1, "every", "1 in an evaluation, which takes all there is", named.every)
    require(named.weight == 1, "weight", "1 in an evaluation", named.weight)

    def read(rows: Iterable[tuple[str, Row]], part: Part) -> Iterator[Comparison]:
        for comparison in formats.comparisons(rows, stem=named.name, **named.reading):
            if comparison.subset == OVERALL:
                raise fault(comparison.where, "subset", f"{OVERALL!r} is the name of all of them")
            yield comparison

    return Benchmark(
        name=named.name,
        title=source,
        parts=(Part(named.location, named.config, named.split),),
        read=read,
        expected={},
        rules=(STRICT, HALF),
    )


def by_group(means: Means) -> Mapping[str, float]:
    """What `with_overall` gives credit in: over all, then each subset."""
    return {OVERALL: means[OVERALL], **means}


def _strict(comparisons: Sequence[Comparison], scores: Sequence[np.ndarray]) -> Iterator[Credit]:
    return with_overall(strict(comparisons, scores))


def _half(comparisons: Sequence[Comparison], scores: Sequence[np.ndarray]) -> Iterator[Credit]:
    return with_overall(half_for_ties(comparisons, scores))


STRICT = Rule(
    "strict",
    "Strict accuracy: the better response must score higher. Of several ranked responses, the "
    "share of their ordered pairs; rows whose responses all tie are left out.",
    _strict,
    by_group,
)

HALF = Rule(
    "half for ties",
    "As strict, but equal scores of an ordered pair are half a win: what tossing a coin for them "
    "would give on average.",
    _half,
    by_group,
)
