"""A benchmark's scores as figures, each with what it rests on and how sure it is."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from jaxrm.data.comparison import Comparison, has_blank
from jaxrm.evaluate import estimates, statistics
from jaxrm.evaluate.benchmark import Benchmark, Credit, Means, Rule, short_of
from jaxrm.evaluate.estimates import Estimate
from jaxrm.evaluate.statistics import Paired


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What one rule makes of the scores.

    Attributes:
      says: the rule in a sentence.
      figures: the rule's figures, the headline first. One that rests on a subset with missing rows
        is NaN: those that are there are no sample of those that are not.
      groups: the mean credit of each group by itself, of the rows that are there.
    """

    says: str
    figures: Mapping[str, Estimate]
    groups: Mapping[str, Estimate]


@dataclasses.dataclass(frozen=True)
class Missing:
    """A subset's rows."""

    found: int
    expected: int


@dataclasses.dataclass(frozen=True)
class Assessment:
    """All that is to be known of one benchmark's scores.

    Attributes:
      title: the benchmark's.
      comparisons, responses: how many were scored.
      missing: subsets with another number of comparisons than the benchmark has.
      not_a_number: comparisons with a score that is NaN or infinite; they are no wins.
      empty: comparisons with an empty response, which is scored like any other.
      ties: comparisons of which two responses of different ranks got the same score.
      rules: by name, the official one first.
    """

    title: str
    comparisons: int
    responses: int
    missing: Mapping[str, Missing]
    not_a_number: int
    empty: int
    ties: int
    rules: Mapping[str, Verdict]


def finite(scores: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The scores with NaN for an infinite one, which is no more a judgement but would win."""
    return [np.where(np.isfinite(given), given, np.nan) for given in scores]


def assess(
    benchmark: Benchmark, comparisons: Sequence[Comparison], scores: Sequence[np.ndarray]
) -> Assessment:
    """Every rule's figures.

    Args:
      comparisons: as `benchmark.read` gives them.
      scores: float [K] for each.
    """
    scores = finite(scores)
    short = short_of(benchmark, comparisons)
    return Assessment(
        title=benchmark.title,
        comparisons=len(comparisons),
        responses=sum(len(given) for given in scores),
        missing={subset: Missing(*counts) for subset, counts in short.items()},
        not_a_number=sum(bool(np.isnan(given).any()) for given in scores),
        empty=sum(any(map(has_blank, c.responses)) for c in comparisons),
        ties=sum(map(_has_tie, comparisons, scores)),
        rules={
            rule.name: _verdict(rule, list(rule.credit(comparisons, scores)), short)
            for rule in benchmark.rules
        },
    )


def difference(
    rule: Rule, a: Sequence[Credit], b: Sequence[Credit], missing: Collection[str] = ()
) -> dict[str, Paired]:
    """Each figure of a rule under one scorer minus the same under another, on the same prompts.

    Args:
      a, b: what each of them earned for the same comparisons, in the same order.
      missing: subsets that are short of rows; figures that rest on them are left out.

    Raises:
      ValueError: credits of other comparisons, or of a single prompt.
    """
    if [(c.group, c.cluster) for c in a] != [(c.group, c.cluster) for c in b]:
        raise ValueError("two scorers are compared on the same comparisons")
    first, second = _Pool.of(a, missing), _Pool.of(b, missing)

    def gains(weights: np.ndarray) -> dict[str, float]:
        ours, theirs = (rule.figures(pool.means(weights)) for pool in (first, second))
        return {name: value - theirs[name] for name, value in ours.items()}

    drawn = [gains(weights) for weights in statistics.resamples(first.clusters)]
    n = len(np.unique(first.clusters))
    return {
        name: statistics.of_draws(gain, [draw[name] for draw in drawn], n=n)
        for name, gain in gains(np.ones(len(a))).items()
        if not math.isnan(gain)
    }


@dataclasses.dataclass(frozen=True, eq=False)
class _Pool:
    """Credits as arrays.

    Attributes:
      names: the groups.
      groups: int [n], of each credit; clusters: str [n]; values: float64 [n].
      short: the groups of subsets that are short of rows.
    """

    names: Sequence[str]
    groups: np.ndarray
    clusters: np.ndarray
    values: np.ndarray
    short: Collection[str]

    @classmethod
    def of(cls, credits: Sequence[Credit], missing: Collection[str]) -> _Pool:
        place = {name: i for i, name in enumerate(dict.fromkeys(c.group for c in credits))}
        return cls(
            names=list(place),
            groups=np.array([place[credit.group] for credit in credits], int),
            clusters=np.array([credit.cluster for credit in credits]),
            values=np.array([credit.value for credit in credits], np.float64),
            short={name for name in place if name.partition("/")[0] in missing},
        )

    def means(self, weights: np.ndarray) -> Means:
        """The groups' means with float [n] weights, as `Rule.figures` takes them."""
        counts = np.bincount(self.groups, weights, len(self.names))
        sums = np.bincount(self.groups, weights * self.values, len(self.names))
        with np.errstate(invalid="ignore"):
            means = zip(self.names, (sums / counts).tolist(), strict=True)
        known = {name: mean for name, mean in means if name not in self.short}
        return collections.defaultdict(lambda: math.nan, known)


def _verdict(rule: Rule, credits: Sequence[Credit], missing: Collection[str]) -> Verdict:
    pool = _Pool.of(credits, missing)
    values = rule.figures(pool.means(np.ones(len(credits))))
    drawn: dict[str, list[float]] = {name: [] for name in values}
    if len(np.unique(pool.clusters)) > 1:
        for weights in statistics.resamples(pool.clusters):
            for name, value in rule.figures(pool.means(weights)).items():
                drawn[name].append(value)
    figures = {
        name: Estimate(
            value,
            *statistics.percentiles(drawn[name] if value == value else []),
            n=len(credits),
            prompts=len(np.unique(pool.clusters)),
        )
        for name, value in values.items()
    }
    groups = {name: _group(pool, i) for i, name in enumerate(pool.names)}
    return Verdict(rule.says, figures, groups)


def _group(pool: _Pool, place: int) -> Estimate:
    values, clusters = (part[pool.groups == place] for part in (pool.values, pool.clusters))
    is_share = values.min() >= 0 and values.max() <= 1
    return (estimates.share if is_share else estimates.mean)(values, clusters)


def _has_tie(comparison: Comparison, scores: np.ndarray) -> bool:
    ranks = np.asarray(comparison.ranks)
    differ = ranks[:, None] != ranks[None, :]
    return bool((scores[:, None] == scores[None, :])[differ].any())
