from __future__ import annotations

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from jaxrm.errors import MetricError
from jaxrm.train.best import Best, Leader


def led(best, values):
    """The leader after evaluations at steps 1, 2, ... that find `values`."""
    leader = None
    for step, value in enumerate(values, start=1):
        leader = best.leader(leader, step, {best.metric: value, "other": -value})
    return leader


@hypothesis.given(st.lists(st.sampled_from([-1.5, 0.0, 0.25, 3.0]), min_size=1))
def test_the_first_of_the_greatest_or_least_values_leads(values):
    for mode, extreme in (("max", max), ("min", min)):
        expected = Leader(values.index(extreme(values)) + 1, extreme(values))
        assert led(Best("value", mode), values) == expected


def test_a_metric_that_is_missing_names_those_that_are_not():
    with pytest.raises(MetricError, match=r"step 7 returns no 'eval/acc'.* 'eval/x', 'eval/y'"):
        Best("eval/acc", "max").leader(None, 7, {"eval/x": 1.0, "eval/y": 2.0})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_is_refused(value):
    with pytest.raises(MetricError, match=f"'loss' is {value} at step 3"):
        led(Best("loss", "min"), [1.0, 0.5, value])
