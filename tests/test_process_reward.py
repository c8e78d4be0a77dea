"""Process against outcome models on a random base of one small layer: what is drawn, labelled,
run and said."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest

from experiments import process_data, process_reward
from experiments.process_data import Sizes, Worked
from experiments.process_reward import METHODS, RATES, Config, Job
from jaxrm.errors import OptionError
from jaxrm.toy import steps
from tests.methods.small_base import small_base

SIZES = Sizes(questions=3, items=4, candidates=8, epochs=1)


def worked(asked, *slips):
    solutions = tuple(steps.solution(asked, slip) for slip in slips)
    return Worked(f"ada of dover: work out {asked}.", asked, solutions)


def never(job, base):
    raise AssertionError(f"{job} was run again")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


def test_parts_share_no_sum_and_a_longer_list_begins_with_a_shorter():
    parts = {p: process_data.draw(p, 0, 40, 2, 5) for p in process_data.PARTS}
    sums = [
        w.sum
        for p in ("text", "train", "val", "test")
        for w in {w.sum: w for w in parts[p]}.values()
    ]
    assert len(sums) == len(set(sums))
    assert process_data.draw("train", 0, 7, 2, 5) == parts["train"][:7]
    assert process_data.draw("train", 1, 7, 2, 5) != parts["train"][:7]
    assert {int(n) for s in sums for n in s.split()[::2]} == {1, 2, 3, 4, 5}


def test_steps_are_written_out_with_what_the_author_took_for_the_total():
    slipped = worked("7 plus 4 minus 2", {}, {0: 1})
    right, wrong = slipped.solutions
    assert slipped.texts(right) == ["7 plus 4 is 11", "11 minus 2 is 9"]
    assert slipped.texts(wrong) == ["7 plus 4 is 12", "12 minus 2 is 10"]
    found = process_data.comparison(slipped, [[1.0, 1.0], [0.0, math.nan]])
    assert found.responses[1][0].content == "7 plus 4 is 12, 12 minus 2 is 10"
    assert [step.end for step in found.steps[1]] == [14, 32]


def test_roll_outs_go_on_from_the_authors_total():
    asked, rng = "5 plus 1 plus 1 plus 1", random.Random(0)
    slipped = steps.solution(asked, {0: 2, 2: -2})
    # After the last step nothing is left to draw, and the slips have cancelled.
    assert process_data.completions(asked, slipped, 2, 5, rng) == [True] * 5
    assert process_data.completions(asked, steps.solution(asked, {1: 1}), 2, 5, rng) == [False] * 5
    # From a slip on, only a slip of the same size the other way helps; from the right total, none.
    shares = [
        np.mean(process_data.completions(asked, steps.solution(asked, slip), 0, 4000, rng))
        for slip in ({}, {0: 2})
    ]
    # With two steps left: no slip .4, two that cancel .1; a single one, of the right size, .5 / 4.
    np.testing.assert_allclose(shares, [0.5, 0.125], atol=0.04)


def test_labels_of_every_method():
    right, wrong = {}, {1: 1}
    questions = [worked("5 plus 1 plus 1 plus 1", right, wrong)] * 40
    labels = {n: m.labels(questions, Sizes(roll_outs=64, judge=1.0), 0) for n, m in METHODS.items()}
    np.testing.assert_array_equal(labels["process"][0], [[1, 1, 1], [1, 0, np.nan]])
    np.testing.assert_array_equal(labels["outcome"][0], [[np.nan, np.nan, 1], [np.nan, np.nan, 0]])
    first, second = labels["roll-outs, share"][0]
    assert (first[2], second[2]) == (1, 0)
    assert first[0] > second[1] > 0
    # With so many roll-outs a slip before the last step always finds one that makes up for it.
    np.testing.assert_array_equal(labels["roll-outs"][0], [[1, 1, 1], [1, 1, 0]])
    np.testing.assert_array_equal(
        labels["roll-outs, consensus"][0], [[1, 1, 1], [np.nan, np.nan, np.nan]]
    )
    unsure = METHODS["roll-outs, consensus"].labels(questions, Sizes(judge=0.5), 0)
    kept = np.mean([np.isfinite(of_question[0]).any() for of_question in unsure])
    assert 0.3 < kept < 0.7


def test_labels_are_counted_alike():
    def count(method):
        job = Job(method, 1e-3, 0, Sizes(questions=20), "key")
        data = process_reward.training_data(job)
        known = [not math.isnan(step.label) for c in data for row in c.steps for step in row]
        return sum(known), sum(len(c.responses) for c in data)

    labels, solutions = count("process")
    assert solutions == 80
    assert count("outcome") == (labels, labels)
    assert count("outcome, same solutions") == (80, 80)
    shares, known = count("roll-outs, share"), count("roll-outs")
    assert shares[1] == known[1] == 80
    # Roll-outs that repair an error hide it, so that labels go on.
    assert labels < known[0] < shares[0]


def test_what_is_chosen_and_found():
    # By the mean the second solution looks best, by all else the first.
    of = worked("5 plus 1 plus 1", {}, {0: 1, 1: -1}, {0: 1})
    logps = np.log([[[0.8, 0.8], [0.99, 0.62], [0.1, 0.1]]])
    mask = np.ones((1, 3, 2), bool)
    found = process_reward.choices([of], logps, mask)
    assert found["product"] == found["min"] == found["last"] == {"answer": 1.0, "steps": 1.0}
    assert found["mean"] == {"answer": 1.0, "steps": 0.0}
    # The first errors are nowhere, at step 0 and at step 0: the best threshold finds the second.
    errors = process_reward.first_errors([of], logps, mask, [of], logps, mask)
    assert errors == {"f1": pytest.approx(2 / 3), "error": 0.5, "correct": 1.0}


def test_a_run_is_complete_and_resumes(base, tmp_path, capsys, monkeypatch):
    few = {name: METHODS[name] for name in ("outcome", "process")}
    monkeypatch.setattr(process_reward, "METHODS", few)
    cfg = Config(run_dir=tmp_path / "run", seeds=2, text=8, sizes=SIZES, base=base, workers=1)
    process_reward.main(cfg)
    first = capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results["methods"]) == [*few, "likelihood"]
    labels = {m: results["methods"][m]["labels"]["mean"] for m in few}
    assert labels["outcome"] == labels["process"] > 0
    process = results["methods"]["process"]
    assert process["test"]["product"]["answer"]["n"] == 2
    assert 0 <= process["f1"]["mean"] <= 1
    assert process["solutions"]["mean"] == 12
    assert results["rates"]["process"] in RATES
    assert 0 < results["chance"]["steps"] < results["chance"]["answer"] < 1
    assert (tmp_path / "run" / "base" / "config.json").exists()
    monkeypatch.setattr(process_reward, "run", never)
    process_reward.main(cfg)
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seeds": 1}, "--seeds"),
        ({"text": -1}, "--text"),
        ({"workers": 0}, "--workers"),
    ],
)
def test_options_out_of_range(wrong, message):
    with pytest.raises(OptionError, match=message):
        Config(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"candidates": 6}, {"judge": 1.5}, {"items": 1}, {"roll_outs": 0}]
)
def test_sizes_out_of_range(wrong):
    with pytest.raises(OptionError, match="--sizes"):
        Sizes(**wrong)
