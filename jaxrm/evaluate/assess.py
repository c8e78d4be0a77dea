"""A benchmark's scores as figures, each with what it rests on and how sure it is."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from jaxrm.data.comparison import Comparison, has_blank
from jaxrm.evaluate import clusters, estimates
from jaxrm.evaluate.benchmark import Benchmark, Credit, Means, Rule, short_of, subset_of
from jaxrm.evaluate.clusters import SHARE, UNBOUNDED, Bounds, Clustering
from jaxrm.evaluate.estimates import Estimate
from jaxrm.statistics import Paired

STEP = 1e-5
"""How far a group's mean is moved, either way, to see how a figure follows it."""


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
    return [np.where(np.isfinite(values), values, np.nan) for values in scores]


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
        responses=sum(len(values) for values in scores),
        missing={subset: Missing(*counts) for subset, counts in short.items()},
        not_a_number=sum(bool(np.isnan(values).any()) for values in scores),
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

    Returns:
      By name; an interval of (-inf, inf) and a p of 1 where a figure rests on a subset of fewer
      than `clusters.LEAST` prompts.

    Raises:
      ValueError: credits of other comparisons.
    """
    if [(c.group, c.cluster) for c in a] != [(c.group, c.cluster) for c in b]:
        raise ValueError("two scorers are compared on the same comparisons")
    ours, theirs = _Pool.of(a, missing), _Pool.of(b, missing)
    first, second = ours.figures(rule), theirs.figures(rule)
    return {
        name: _gain(figure, second[name])
        for name, figure in first.items()
        if not math.isnan(figure.value - second[name].value)
    }


@dataclasses.dataclass(frozen=True, eq=False)
class _Figure:
    """A figure as a sum over groups of the mean of what their credits add to it.

    Attributes:
      value: the figure.
      clustering: which prompt and which group each credit is of.
      adds: float64 [n], a credit times the figure's derivative by its group's mean.
      low, high: float64 [groups], what those of a group lie between.
      weight: float64 [groups], the size of the derivative.
      bounds: what the figure lies between.
    """

    value: float
    clustering: Clustering
    adds: np.ndarray
    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray
    bounds: Bounds


@dataclasses.dataclass(frozen=True, eq=False)
class _Pool:
    """Credits as arrays.

    Attributes:
      names: the groups.
      clustering: which prompt and which group each credit is of.
      values: float64 [n].
      low, high: float64 [groups]: 0 and 1 where all credits of a group are from 0 to 1, else
        infinite.
      short: the groups of subsets that are short of rows.
    """

    names: Sequence[str]
    clustering: Clustering
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    short: Collection[str]

    @classmethod
    def of(cls, credits: Sequence[Credit], missing: Collection[str]) -> _Pool:
        place = {name: i for i, name in enumerate(dict.fromkeys(c.group for c in credits))}
        groups = np.array([place[credit.group] for credit in credits], int)
        values = np.array([credit.value for credit in credits], np.float64)
        outside = np.bincount(groups, (values < 0) | (values > 1), len(place)) > 0
        return cls(
            names=list(place),
            clustering=Clustering.of([credit.cluster for credit in credits], groups),
            values=values,
            low=np.where(outside, -np.inf, 0.0),
            high=np.where(outside, np.inf, 1.0),
            short={name for name in place if subset_of(name) in missing},
        )

    def figures(self, rule: Rule) -> dict[str, _Figure]:
        """The rule's figures, NaN where they rest on a group that is short or not there."""
        means = self.clustering.means(self.values)
        steps = STEP * np.eye(len(means))
        above, below = (
            [rule.figures(self._named(moved)) for moved in ends]
            for ends in (means + steps, means - steps)
        )
        figures = {}
        for name, value in rule.figures(self._named(means)).items():
            ends = zip(above, below, strict=True)
            slope = np.array([(up[name] - down[name]) / (2 * STEP) for up, down in ends])
            # A difference of rounding is no slope, nor is that of figures that are not there.
            is_slope = np.abs(slope) > clusters.ROUNDING
            figures[name] = self._figure(value, np.where(is_slope, slope, 0))
        return figures

    def _named(self, means: np.ndarray) -> Means:
        """The groups' means as `Rule.figures` takes them."""
        named = zip(self.names, means.tolist(), strict=True)
        complete = {name: mean for name, mean in named if name not in self.short}
        return collections.defaultdict(lambda: math.nan, complete)

    def _figure(self, value: float, slope: np.ndarray) -> _Figure:
        ends = slope * np.where(slope == 0, 0, [self.low, self.high])
        are_shares = np.isfinite(ends).all()
        return _Figure(
            value=value,
            clustering=self.clustering,
            adds=slope[self.clustering.group] * self.values,
            low=ends.min(axis=0),
            high=ends.max(axis=0),
            weight=np.abs(slope),
            bounds=SHARE if are_shares else UNBOUNDED,
        )


def _verdict(rule: Rule, credits: Sequence[Credit], missing: Collection[str]) -> Verdict:
    pool = _Pool.of(credits, missing)
    figures = {name: _estimate(figure) for name, figure in pool.figures(rule).items()}
    groups = {name: _group(pool, i) for i, name in enumerate(pool.names)}
    return Verdict(rule.says, figures, groups)


def _estimate(figure: _Figure) -> Estimate:
    clustering = figure.clustering
    spread = clustering.spread(figure.adds, figure.low, figure.high, figure.weight)
    return estimates.of_spread(figure.value, spread, clustering.cluster, figure.bounds)


def _gain(ours: _Figure, theirs: _Figure) -> Paired:
    spread = ours.clustering.spread(
        ours.adds - theirs.adds,
        ours.low - theirs.high,
        ours.high - theirs.low,
        ours.weight + theirs.weight,
    )
    both = ours.bounds[0] - theirs.bounds[1], ours.bounds[1] - theirs.bounds[0]
    value = ours.value - theirs.value
    return clusters.of_spread(value, spread, both, ours.clustering.count)


def _group(pool: _Pool, place: int) -> Estimate:
    members = pool.clustering.group == place
    bounds = float(pool.low[place]), float(pool.high[place])
    return estimates.mean(pool.values[members], pool.clustering.cluster[members], bounds)


def _has_tie(comparison: Comparison, scores: np.ndarray) -> bool:
    ranks = np.asarray(comparison.ranks)
    differ = ranks[:, None] != ranks[None, :]
    return bool((scores[:, None] == scores[None, :])[differ].any())
