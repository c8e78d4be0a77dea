"""Process against outcome models on a random base of one small layer: what is labelled, run and
said."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from experiments import process_reward
from experiments.process_reward import METHODS, RATES, Config, Scored, Sums
from jaxrm.errors import OptionError
from jaxrm.evaluate.benchmarks.processbench import step_f1
from jaxrm.study.draws import Condition
from jaxrm.toy import steps
from jaxrm.toy.worked import Worked
from tests.methods.small_base import small_base


def solved(asked, *slips):
    return [Worked("ada of dover: work out.", asked, steps.solution(asked, slip)) for slip in slips]


def never(job, base):
    raise AssertionError(f"{job} was run again")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


def test_labels_of_every_method(monkeypatch):
    monkeypatch.setattr(process_reward, "ROLL_OUTS", 64)
    monkeypatch.setattr(process_reward, "JUDGE", 1.0)
    right, wrong = {}, {1: 1}
    both = solved("5 plus 1 plus 1 plus 1", *[right, wrong] * 40)
    labels = {name: of(both, 0)[:2] for name, (of, _) in METHODS.items() if of is not None}
    np.testing.assert_array_equal(labels["process"], [[1, 1, 1], [1, 0, np.nan]])
    np.testing.assert_array_equal(labels["outcome"], [[np.nan, np.nan, 1], [np.nan, np.nan, 0]])
    first, second = labels["roll-outs, share"]
    assert (first[2], second[2]) == (1, 0)
    assert first[0] > second[1] > 0
    # With so many roll-outs a slip before the last step always finds one that makes up for it.
    np.testing.assert_array_equal(labels["roll-outs"], [[1, 1, 1], [1, 1, 0]])
    np.testing.assert_array_equal(labels["roll-outs, consensus"], [[1, 1, 1], 3 * [np.nan]])
    monkeypatch.setattr(process_reward, "JUDGE", 0.5)
    unsure = process_reward.of_consensus(both, 0)
    assert 0.3 < np.mean([np.isfinite(row).any() for row in unsure[::2]]) < 0.7


def test_labels_are_counted_alike():
    def count(method):
        data = process_reward.training_data(method, Condition(Sums(8), 20), 0)
        labelled = [not math.isnan(step.label) for c in data for row in c.steps for step in row]
        return sum(labelled), sum(len(c.responses) for c in data)

    labels, solutions = count("process")
    assert solutions == 80
    assert count("outcome") == (labels, labels)
    assert count("outcome, same solutions") == (80, 80)
    shares, rolled_out = count("roll-outs, share"), count("roll-outs")
    assert shares[1] == rolled_out[1] == 80
    # Roll-outs that repair an error hide it, so that labels go on.
    assert labels < rolled_out[0] < shares[0]


def test_what_is_chosen_and_found():
    # By the mean the second solution looks best, by all else the first.
    three = solved("5 plus 1 plus 1", {}, {0: 1, 1: -1}, {0: 1})
    scored = Scored(three, np.log([[0.8, 0.8], [0.99, 0.62], [0.1, 0.1]]), np.ones((3, 2), bool))
    for aggregate in ("product", "min", "last"):
        assert scored.chosen(aggregate, among=3) == {"answer": 1.0, "steps": 1.0}
    assert scored.chosen("mean", among=3) == {"answer": 1.0, "steps": 0.0}
    # The first errors are nowhere, at step 0 and at step 0: the best threshold finds the second.
    assert scored.steps()[0] == [-1, 0, 0]
    assert step_f1(scored.steps(), scored.steps()) == pytest.approx(2 / 3)


def test_a_run_is_complete_and_resumes(base, tmp_path, capsys, monkeypatch):
    few = {name: METHODS[name] for name in ("outcome", "process", "likelihood")}
    monkeypatch.setattr(process_reward, "METHODS", few)
    sizes = {"text": 8, "questions": 3, "items": 4, "candidates": 8, "epochs": 1}
    cfg = Config(run_dir=tmp_path / "run", seeds=2, base=base, workers=1, **sizes)
    process_reward.main(cfg)
    first = capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    trained = results["methods"]
    assert list(trained) == ["outcome", "process"]
    labels = results["labels"]
    assert labels["outcome"] == labels["process"] > 12
    assert 0 <= trained["process"]["f1"]["mean"] <= 1
    assert list(results["gains"]["process - outcome"]) == ["answer", "steps", "f1"]
    every = results["every"]["methods"]
    assert trained["process"]["answer"] == every["process, product"]["answer"]
    assert every["likelihood, last"]["answer"]["n"] == 2
    assert results["choices"]["process"]["learning_rate"] in RATES
    assert 0 < results["chance"]["steps"] < results["chance"]["answer"] < 1
    assert (tmp_path / "run" / "base" / "config.json").exists()
    monkeypatch.setattr(process_reward, "run", never)
    process_reward.main(cfg)
    assert capsys.readouterr().out == first


@pytest.mark.parametrize("wrong", [{"candidates": 6}, {"items": 1}, {"questions": 0}])
def test_options_out_of_range(wrong):
    with pytest.raises(OptionError, match=f"--{next(iter(wrong))}"):
        Config(**wrong)
