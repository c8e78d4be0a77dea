"""What a benchmark is: rows that are read, and rules by which scores become figures.

Every published rule comes down to the same two steps. Each item earns credit in one or more groups
(a subset, a cell of a matrix, a part of a formula), and the figures are a function of the groups'
means. Kept apart like this, what each prompt does to the means gives every figure its interval,
whatever the formula; a group that is short of rows takes the figures that rest on it away, and no
others.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxrm.data import rows
from jaxrm.data.comparison import Comparison, fault
from jaxrm.data.fields import Row
from jaxrm.errors import DataError
from jaxrm.read.accuracy import require_order


@dataclasses.dataclass(frozen=True)
class Credit:
    """What one item earned in one group.

    Attributes:
      group: a subset of the benchmark, or "<subset>/<part>".
      cluster: which prompt it is of: credits of one prompt are drawn together.
      value: usually 0 or 1; never NaN.
    """

    group: str
    cluster: str
    value: float


OWN_ROWS = "name their file under --sets in place of --benchmarks"
"""How to evaluate rows that are not all of a published benchmark's."""

Means = Mapping[str, float]
"""The mean credit of each group; NaN for one that is absent or short of rows, which it hands on to
whatever is computed from it."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One way to turn scores into figures.

    Attributes:
      name: "official" for the benchmark's own.
      says: it in a sentence, with its source.
      credit: what scores float [K] of each comparison earn; one credit or several per comparison,
        and none for one that the rule leaves out. NaN is never a win.
      figures: named figures out of the groups' means, the headline first.
    """

    name: str
    says: str
    credit: Callable[[Sequence[Comparison], Sequence[np.ndarray]], Iterable[Credit]]
    figures: Callable[[Means], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Part:
    """One split of a benchmark on the Hub.

    Attributes:
      location: "owner/name".
      config, split: as `jaxrm.data.rows.rows` takes them.
    """

    location: str
    config: str = ""
    split: str = "train"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A benchmark: where its rows are, how they are read, and what is made of their scores.

    Attributes:
      name: as on the command line.
      title: as on a page, with the paper.
      parts: where the rows are.
      read: comparisons out of located rows of one part: (rows, part) -> comparisons in order, each
        with a unique id, its subset, and ranks. Raises DataError for rows without the benchmark's
        columns or of an unknown subset.
      expected: how many comparisons each subset has; a subset that is not in it is unknown. Empty
        where nothing is promised.
      rules: the official one first.
    """

    name: str
    title: str
    parts: tuple[Part, ...]
    read: Callable[[Iterable[tuple[str, Row]], Part], Iterator[Comparison]]
    expected: Mapping[str, int]
    rules: tuple[Rule, ...]


def read(benchmark: Benchmark, data: Path | None = None) -> list[Comparison]:
    """All comparisons of a benchmark, part by part.

    Args:
      data: a local copy in place of the Hub: one file that holds all parts, or a directory as the
        Hub has it; or a directory of several of these, each named as on the Hub without its owner
        or as the benchmark.

    Raises:
      DataError: as `jaxrm.data.rows.rows` and the benchmark's `read`; there are no rows; naming the
        row whose subset is unknown or whose id another row has; or, of data that is no published
        benchmark, as `require_order`.
    """
    comparisons = []
    try:
        for located, part in _located(benchmark, data):
            comparisons += benchmark.read(located, part)
    except DataError as error:
        raise DataError(f"{benchmark.name}: {error}") from error
    if not comparisons:
        raise DataError(f"{data or benchmark.parts[0].location}: no rows of {benchmark.name}")
    first: dict[str, str] = {}
    for comparison in comparisons:
        if benchmark.expected and comparison.subset not in benchmark.expected:
            subsets = ", ".join(benchmark.expected)
            problem = f"{comparison.subset!r} is no subset of {benchmark.name}: expected one of"
            raise fault(comparison.where, "subset", f"{problem} {subsets}")
        if comparison.id in first:
            problem = f"{comparison.id!r} is also the id of {first[comparison.id]}"
            raise fault(comparison.where, "id", problem)
        first[comparison.id] = comparison.where
    # A published benchmark's own reader knows what its rows order, in which a part of them may not.
    if not benchmark.expected:
        require_order(comparisons)
    return comparisons


def subset_of(group: str) -> str:
    """The subset that a group of credits is of."""
    return group.partition("/")[0]


def short_of(benchmark: Benchmark, comparisons: Sequence[Comparison]) -> dict[str, tuple[int, int]]:
    """The subsets with another number of comparisons than expected: (found, expected)."""
    counts = collections.Counter(comparison.subset for comparison in comparisons)
    return {
        subset: (counts[subset], count)
        for subset, count in benchmark.expected.items()
        if counts[subset] != count
    }


def withheld(short: Mapping[str, tuple[int, int]]) -> str:
    """What to say of subsets as `short_of` has them: which figures there will not be, and why."""
    return (
        f"rows differ from the published ones ({counts(short)}), so what rests on these is "
        f"withheld (—): for figures of the rows at hand, {OWN_ROWS}"
    )


def counts(short: Mapping[str, tuple[int, int]]) -> str:
    """Rows found, of how many, by subset."""
    return ", ".join(f"{name or 'all'} {n:,} of {of:,}" for name, (n, of) in short.items())


Located = Iterator[tuple[str, Row]]


def _located(benchmark: Benchmark, data: Path | None) -> Iterator[tuple[Located, Part]]:
    """The rows of each part; a file holds the rows of all parts, and stands for the first."""
    for part in benchmark.parts:
        if data is None:
            yield rows.rows(part.location, part.config, part.split), part
            continue
        place = _place(data, (part.location.rpartition("/")[2], benchmark.name))
        if place.is_dir():
            yield rows.rows(str(place), part.config, part.split), part
        else:
            yield rows.rows(str(place)), part
            return


def _place(data: Path, names: Sequence[str]) -> Path:
    """The directory or file in `data` that has one of the names, or `data` itself."""
    for name in names:
        if (data / name).is_dir():
            return data / name
        for path in sorted(data.glob(f"{name}.*")):
            if rows.suffix_of(path.name):
                return path
    return data
