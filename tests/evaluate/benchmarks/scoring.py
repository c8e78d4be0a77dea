"""Figures out of hand-made rows and scores, without intervals."""

from __future__ import annotations

import collections
import math

import numpy as np

from jaxrm.evaluate.benchmark import Part


def located(rows, name="a.jsonl"):
    return ((f"{name}, row {n}", row) for n, row in enumerate(rows, start=1))


def read(benchmark, rows, part=None):
    """Comparisons out of rows of one part, by default of a file that holds all of them."""
    return list(benchmark.read(located(rows), part or Part("a.jsonl")))


def means(credits):
    """The mean of each group, NaN of those that are not there."""
    earned = collections.defaultdict(list)
    for credit in credits:
        assert credit.value == credit.value
        earned[credit.group].append(credit.value)
    found = {group: sum(values) / len(values) for group, values in earned.items()}
    return collections.defaultdict(lambda: math.nan, found)


def figures(rule, comparisons, scores):
    scores = [np.array(given, np.float64) for given in scores]
    return rule.figures(means(rule.credit(comparisons, scores)))


def rule_of(benchmark, name):
    return next(rule for rule in benchmark.rules if rule.name == name)


def complete(benchmark, rule, value):
    """The figures if every group that a rule knows has this mean."""
    return rule.figures(collections.defaultdict(lambda: value))
