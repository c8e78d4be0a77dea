"""The RRM experiment: the toggled mark, its budgets, and a small run end to end."""

from __future__ import annotations

import json

import numpy as np
import pytest

from experiments import rrm as experiment
from experiments.rrm import METHODS, Config
from jaxrm import toy
from jaxrm.errors import OptionError
from jaxrm.methods.bench import Bench
from jaxrm.methods.task import InMemory, Task
from jaxrm.toy.samples import answers, question
from tests.methods.small_base import small_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def world():
    return toy.World(seed=0)


def test_a_toggled_mark_changes_the_mark_alone(world):
    for comparison in world.comparisons("id", 20):
        asked = question(comparison)
        plain, marked = (answers(experiment.toggled(comparison))[i::2] for i in (0, 1))
        for answer, one, other in zip(answers(comparison), plain, marked, strict=True):
            assert one != other
            assert answer in (one, other)
            assert one.replace(".", "!", 1) == other
            assert world.gold(asked, one) == world.gold(asked, other)


def test_sensitivity_is_in_deviations_of_the_reward():
    """Changes of 1, 1, 2, 0 over rewards 0, 4, 0, 4, whose deviation is 2."""
    rewards = np.array([[0, 1, 4, 5], [0, 2, 4, 4]], np.float32)
    assert experiment.sensitivity(rewards) == 0.5


def test_budgets(base, world, monkeypatch):
    bench, pairs = Bench(base), world.comparisons("train", 10)
    packed = bench.pack(pairs)
    task = Task(bench, InMemory(packed), packed, 1e-3, None, epochs=4, seed=0)
    trained = {}

    def one(task, method):
        trained[task.epochs] = method.prepare(task)

    monkeypatch.setattr(experiment, "one", one)
    task.train(METHODS["rrm_long"])
    assert len(trained.pop(1)) == 150
    task.train(METHODS["rrm"])
    assert len(trained[1]) == 40
    assert len({(c.id, c.subset) for c in trained[1]}) == 40


def test_a_small_run_leaves_every_number(base, tmp_path, capsys):
    methods = ("bt", "rrm", "rrm_long")
    sizes = {"seeds": 2, "pairs": 6, "epochs": 1, "items": 4, "workers": 1}
    experiment.main(Config(tmp_path / "run", base, methods=methods, **sizes))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    arms = ["bt, 0.5", "rrm, 0.5", "bt, 0.9", "rrm, 0.9", "rrm_long, 0.9"]
    assert list(results["methods"]) == arms
    for figures in results["methods"].values():
        for figure in (*experiment.SPLITS, "sensitivity", "cost"):
            assert figures[figure]["n"] == 2
    contrasts = ["rrm, 0.5 - bt, 0.5", "rrm, 0.9 - bt, 0.9", "rrm_long, 0.9 - bt, 0.9"]
    assert list(results["gains"]) == contrasts
    cost = {arm: figures["cost"]["mean"] for arm, figures in results["methods"].items()}
    assert cost["bt, 0.9"] == pytest.approx(1)
    assert cost["rrm_long, 0.9"] > 10
    assert 0 <= results["labels"]["non_contextual"] <= 1
    assert "rrm_long, 0.9" in capsys.readouterr().out


def test_an_option_out_of_range_is_named():
    with pytest.raises(OptionError, match="--agreements"):
        Config(agreements=(1.5,))
    for methods in (("rrm",), ("bt", "other")):
        with pytest.raises(OptionError, match="--methods must be bt, and others of"):
            Config(methods=methods)
    with pytest.raises(OptionError, match="--epochs"):
        Config(epochs=16)
