"""What methods on pairs and rankings make of their data, by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxrm import toy
from jaxrm.data.comparison import Comparison
from jaxrm.errors import DataError
from jaxrm.methods import pairs, rankings
from jaxrm.methods.bench import Bench
from jaxrm.methods.task import InMemory, Task
from tests.methods.small_base import small_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


def task(base, comparisons):
    bench = Bench(base)
    packed = bench.pack(comparisons)
    return Task(bench, InMemory(packed), packed, 1e-2, None, 1, 0)


def test_magnitudes_are_thirds_of_the_difference_of_grades_whatever_its_sign(base):
    drawn = toy.World(0, label_noise=0.5).comparisons("train", 9)
    found = pairs.with_magnitudes(task(base, drawn))
    gaps = np.array([abs(c.scores[0] - c.scores[1]) for c in drawn])
    order = np.argsort(gaps)
    assert [found[i].columns["magnitude"] for i in order] == [1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_the_data_s_own_margins_are_magnitudes_and_neither_is_an_error(base):
    drawn = [Comparison("p", ("a", "b"), ranks=(0, 1), margin=0.5, scores=(3.0, 1.0))]
    [pair] = pairs.with_magnitudes(task(base, drawn))
    assert pair.columns["magnitude"] == 0.5
    bare = [Comparison("p", ("a", "b"), ranks=(0, 1), where="data.jsonl:7")]
    with pytest.raises(DataError, match=r"data.jsonl:7: .*margin"):
        pairs.with_magnitudes(task(base, bare))


def test_targets_of_pcrm_are_larger_for_responses_that_share_fewer_words(base):
    texts = ("a b c", "a b c"), ("a b c", "a b d"), ("a b c", "d e f")
    drawn = [Comparison(f"p{i}", both) for i, both in enumerate(texts)]
    asked = dataclasses.replace(task(base, drawn), strength=3.0)
    same, partly, apart = (c.columns["target"] for c in pairs.with_targets(asked))
    np.testing.assert_allclose([same, apart], [3 / 1.001, 3 / 0.501], rtol=1e-5)
    assert same < partly < apart


def test_rankings_torn_apart_are_all_their_ordered_pairs(base):
    ranked = Comparison("p", ("c", "a", "b"), ranks=(2, 0, 0), id="r")
    torn = rankings.apart(task(base, [ranked]))
    assert [(p.responses, p.ranks) for p in torn] == [(("a", "c"), (0, 1)), (("b", "c"), (0, 1))]
    assert len({p.id for p in torn}) == 2
