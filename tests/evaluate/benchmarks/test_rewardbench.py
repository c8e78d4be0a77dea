"""RewardBench's sections by hand, and against the `rewardbench` package where it is installed."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest

from jaxrm.data.comparison import Message
from jaxrm.errors import DataError
from jaxrm.evaluate.benchmark import Part
from jaxrm.evaluate.benchmarks.rewardbench import (
    PRIOR,
    PRIOR_SETS,
    REWARDBENCH,
    REWARDBENCH_LEGACY,
    ROWS,
    SECTIONS,
)
from tests.evaluate.benchmarks.scoring import complete, figures, read, rule_of

OFFICIAL, BY_ROWS = REWARDBENCH.rules


def row(subset, n, **more):
    return {"id": n, "subset": subset, "prompt": "q", "chosen": "a", "rejected": "b"} | more


def all_subsets():
    """One row of each subset, and a second of some, in the order of the sections."""
    names = [*ROWS, "math-prm", "mt-bench-hard"]
    return read(REWARDBENCH, [row(name, n) for n, name in enumerate(names)])


def test_rows_of_the_hub():
    found = read(REWARDBENCH, [row("math-prm", 30), row("hep-go", None, id=None)])
    assert [c.id for c in found] == ["30", "rewardbench/2"]
    assert found[0].prompt == (Message("user", "q"),)
    assert found[0].responses == ((Message("assistant", "a"),), (Message("assistant", "b"),))
    assert (found[0].subset, found[0].ranks, found[0].where) == (
        "math-prm",
        (0, 1),
        "a.jsonl, row 1",
    )


def test_prompts_of_several_turns():
    turns = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "2 + 2?"},
    ]
    (found,) = read(REWARDBENCH, [row("mt-bench-med", 1, prompt=turns)])
    assert [message.role for message in found.prompt] == ["user", "assistant", "user"]


def test_sections_by_hand():
    # Right: all of Chat; of Chat Hard llmbar-natural and one of two mt-bench-hard; of Safety
    # donotanswer; of Reasoning one of two math-prm. hep-go ties, hep-js has NaN.
    scores = {name: [0.0, 1.0] for name in ROWS}
    scores |= {name: [1.0, 0.0] for name in SECTIONS["Chat"]}
    scores |= {"llmbar-natural": [3.0, -1.0], "donotanswer": [1e-6, 0.0], "math-prm": [2.0, 1.0]}
    scores |= {"hep-go": [1.0, 1.0], "hep-js": [math.nan, 0.0]}
    given = [*scores.values(), [0.0, 1.0], [5.0, 4.0]]
    hard = (0.5 * 37 + 100) / (37 + 100 + 134 + 92 + 47 + 46)
    sections = {"Chat": 1.0, "Chat Hard": hard, "Safety": 136 / 740, "Reasoning": 492 / (2 * 984)}
    found = figures(OFFICIAL, all_subsets(), given)
    assert found == pytest.approx({"overall": sum(sections.values()) / 4} | sections)
    assert next(iter(found)) == "overall"
    by_rows = figures(BY_ROWS, all_subsets(), given)
    assert by_rows["Reasoning"] == pytest.approx(0.5 * 447 / (447 + 984))


def test_a_missing_subset_takes_its_section_and_the_overall_figure():
    comparisons = [c for c in all_subsets() if c.subset != "xstest-should-refuse"]
    found = figures(OFFICIAL, comparisons, [[1, 0]] * len(comparisons))
    assert found["Chat"] == found["Chat Hard"] == found["Reasoning"] == 1.0
    assert math.isnan(found["Safety"])
    assert math.isnan(found["overall"])


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (row("math", 1), "a.jsonl, row 1: field 'subset': expected one of"),
        ({"id": 1, "prompt": "q", "chosen": "a", "rejected": "b"}, "field 'subset': missing"),
        (row("math-prm", 1, chosen=None), "a.jsonl, row 1: field 'chosen'"),
    ],
)
def test_bad_rows(bad, problem):
    with pytest.raises(DataError, match=problem):
        read(REWARDBENCH, [bad])


def test_prior_sets_are_told_by_their_split():
    part = Part("allenai/pref-test-sets", split="shp")
    rows = [row("askacademia", 1), row("askacademia", 1)]
    found = read(PRIOR_SETS, rows, part)
    assert [(c.subset, c.id) for c in found] == [("shp", "shp/1"), ("shp", "shp/2")]
    with pytest.raises(DataError, match="field 'subset': expected one of 'anthropic_helpful'"):
        read(PRIOR_SETS, rows, Part("allenai/pref-test-sets", split="pku_safer"))


def prior_and_all():
    comparisons = all_subsets()
    for split in PRIOR:
        comparisons += read(
            REWARDBENCH_LEGACY, [row("", 1)], Part("allenai/pref-test-sets", split=split)
        )
    return comparisons


def test_the_first_leaderboards_weights():
    comparisons = prior_and_all()
    core = [[1, 0]] * (len(comparisons) - 4)
    found = figures(REWARDBENCH_LEGACY.rules[0], comparisons, [*core, [1, 0], *[[0, 1]] * 3])
    assert found["Prior Sets"] == 0.25
    assert found["overall"] == pytest.approx((2 * 4 + 0.25) / 9)
    assert list(found) == ["overall", *SECTIONS, "Prior Sets"]
    without = figures(REWARDBENCH_LEGACY.rules[0], comparisons[:-1], [*core, *[[1, 0]] * 3])
    assert math.isnan(without["overall"])
    assert without["Chat"] == 1.0
    prior = figures(PRIOR_SETS.rules[0], comparisons[-4:], [[1, 0], [1, 0], [1, 1], [0, 1]])
    assert prior["overall"] == 0.5


@pytest.mark.parametrize("benchmark", [REWARDBENCH, PRIOR_SETS, REWARDBENCH_LEGACY])
def test_weights_sum_to_one(benchmark):
    for rule in benchmark.rules:
        assert set(complete(benchmark, rule, 0.75).values()) == {0.75}


def test_against_the_package():
    """`calculate_scores_per_section` on random rows with ties and NaN, every subset present."""
    utils = pytest.importorskip("rewardbench.utils", exc_type=ImportError)
    constants = pytest.importorskip("rewardbench.constants", exc_type=ImportError)
    generator = np.random.default_rng(0)
    for _ in range(200):
        names = [*ROWS, *generator.choice([*ROWS], 60)]
        comparisons = read(REWARDBENCH, [row(name, n) for n, name in enumerate(names)])
        scores = generator.integers(0, 4, (len(names), 2)).astype(float)
        scores[generator.random(scores.shape) < 0.1] = math.nan
        results = defaultdict(list)
        for name, (chosen, rejected) in zip(names, scores.tolist(), strict=True):
            results[name].append(1 if chosen > rejected else 0)
        accuracies = {name: sum(won) / len(won) for name, won in results.items()}
        theirs = utils.calculate_scores_per_section(
            constants.EXAMPLE_COUNTS, constants.SUBSET_MAPPING, accuracies
        )
        ours = figures(rule_of(REWARDBENCH, "official"), comparisons, scores)
        assert dict(itertools.islice(ours.items(), 1, None)) == pytest.approx(theirs, abs=1e-12)
